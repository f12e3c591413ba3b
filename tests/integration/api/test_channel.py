"""Channels: info, members, temporary ones, deletion, retention. http-api.md, sections 5.1 to 5.5."""

from pathlib import Path

import pytest

import triolet_protocol as wire
from tests.integration.api.conftest import Shared
from tests.integration.api.support import GROUP, OK, api_in, message
from tests.wkclient import client
from triolet_core import Device, ReasonCode
from triolet_core.testing import MemorySession

INFO = {
    "channel_id": "g",
    "channel_type": 2,
    "large": 0,
    "ban": 0,
    "disband": 0,
    "send_ban": 0,
    "allow_stranger": 0,
    "name": "",
    "avatar": "",
    "remark": "",
    "extra": None,
    "keep_seconds": 0,
    "keep_count": 0,
    "subscriber_count": 0,
    "allowlist_count": 0,
    "denylist_count": 0,
    "last_message_seq": 0,
}
MANY = ["a"] * 10_001
QUERY = "channel_id=g&channel_type=2"


async def test_a_channel_is_made_and_changed(tmp_path: Path) -> None:
    """POST /channel: flags are overwritten, absent ones count as 0; texts stay; members are added, `reset` replaces."""
    async with api_in(tmp_path) as api:
        body = {**GROUP, "subscribers": ["a", "b"], "name": "Team", "avatar": "x.png", "extra": {"k": [1, None]}}
        assert await api.post("/channel", {**body, "large": 1, "send_ban": True, "allow_stranger": "1"}) == OK
        made = {**INFO, "name": "Team", "avatar": "x.png", "extra": {"k": [1, None]}, "subscriber_count": 2}
        assert await api.get(f"/channel/info?{QUERY}") == {**made, "large": 1, "send_ban": 1, "allow_stranger": 1}
        assert await api.post("/channel", {**GROUP, "uids": ["c"], "subscribers": ["b", ""], "remark": "r"}) == OK
        assert await api.get(f"/channel/info?{QUERY}") == {**made, "remark": "r", "subscriber_count": 3}
        assert await api.get(f"/channel/subscribers?{QUERY}&format=uids") == ["a", "b", "c"]
        assert await api.post("/channel", {**GROUP, "reset": 1, "subscribers": ["z"]}) == OK
        assert await api.get(f"/channel/subscribers?{QUERY}&format=uids") == ["z"]
        assert await api.post("/channel", {**GROUP, "reset": 1}) == OK
        assert await api.get(f"/channel/subscribers?{QUERY}&format=uids") == []


async def test_the_info_of_a_channel(tmp_path: Path) -> None:
    """POST /channel/info: flags only, members stay; LiMaoIM's `forbidden` is `ban`; GET of none is status 404."""
    async with api_in(tmp_path) as api:
        assert await api.get(f"/channel/info?{QUERY}") == {"status": 404}
        await api.post("/channel", {**GROUP, "subscribers": ["a"], "large": 1})
        assert await api.post("/channel/info", {**GROUP, "forbidden": 1, "name": "n"}) == OK
        assert await api.get(f"/channel/info?{QUERY}") == {**INFO, "ban": 1, "name": "n", "subscriber_count": 1}
        assert await api.post("/channel/info", GROUP) == OK
        assert await api.get(f"/channel/info?{QUERY}") == {**INFO, "name": "n", "subscriber_count": 1}
        assert await api.get("/channel/info?channel_type=2") == (400, "channel_id不能为空！")
        assert await api.get("/channel/info?channel_id=g") == (400, "频道类型不能为0！")


async def test_a_banned_user_is_sent_away(tmp_path: Path) -> None:
    async with api_in(tmp_path) as api, client(api.server) as ann:
        await ann.connect("ann")
        assert await api.post("/channel/info", {"channel_id": "ann", "channel_type": 1, "ban": 1}) == OK
        assert (await ann.wait_for(wire.DisconnectReceived)).disconnect.reason_code == ReasonCode.BAN


async def test_members(tmp_path: Path) -> None:
    """POST /channel/subscriber_add, _set, _remove, _remove_all; type 2 if none is given; others are no error."""
    async with api_in(tmp_path) as api:
        uids = f"/channel/subscribers?{QUERY}&format=uids"
        assert await api.post("/channel/subscriber_add", {"channel_id": "g", "subscribers": ["b", "a", "a", ""]}) == OK
        assert await api.get(uids) == ["a", "b"]
        assert await api.post("/channel/subscriber_add", {**GROUP, "uids": ["c"]}) == OK
        assert await api.get(uids) == ["a", "b", "c"]
        assert await api.post("/channel/subscriber_add", {**GROUP, "uids": ["d"], "reset": 1}) == OK
        assert await api.get(uids) == ["d"]
        assert await api.post("/channel/subscriber_set", {**GROUP, "uids": ["e", "f"]}) == OK
        assert await api.get(uids) == ["e", "f"]
        body = {**GROUP, "subscribers": ["e", "", "nobody"]}
        assert await api.post("/channel/subscriber_remove", body) == OK
        assert await api.get(uids) == ["f"]
        assert await api.post("/channel/subscriber_remove_all", GROUP) == OK
        assert await api.get(uids) == []
        await api.post("/channel/subscriber_add", {**GROUP, "uids": ["f"]})
        [row] = await api.get(f"/channel/subscribers?{QUERY}")
        assert api.shown({**row, "id": 0}) == {"id": 0, "uid": "f", "created_at": "T", "updated_at": "T"}


async def test_who_leaves_loses_the_conversation_and_who_joins_has_read_everything(tmp_path: Path) -> None:
    async with api_in(tmp_path) as api:
        await api.post("/channel", {**GROUP, "subscribers": ["a"]})
        await api.send("g", 2)
        await api.post("/channel/subscriber_add", {**GROUP, "subscribers": ["late"]})
        rows = {uid: await api.post("/conversation/sync", {"uid": uid}) for uid in ("a", "late")}
        assert [(row["unread"], row["last_msg_seq"]) for row in rows["a"] + rows["late"]] == [(1, 1), (0, 1)]
        await api.post("/channel/subscriber_remove", {**GROUP, "subscribers": ["a"]})
        assert await api.post("/conversation/sync", {"uid": "a"}) == []


async def test_temporary_members_are_in_memory_only(tmp_path: Path) -> None:
    """`temp_subscriber` and POST /tmpchannel/subscriber_set: they get what is sent, and are not listed."""
    async with api_in(tmp_path) as api:
        sessions = {uid: MemorySession(Device(uid=uid)) for uid in ("guest", "old", "new")}
        for session in sessions.values():
            api.server.broker.presence.register(session)
        body = {**GROUP, "subscribers": ["guest"], "temp_subscriber": 1}
        assert await api.post("/channel/subscriber_add", body) == OK
        await api.send("g", 2)
        assert await api.get(f"/channel/subscribers?{QUERY}&format=uids") == []
        assert await api.post("/channel/subscriber_remove", body) == OK
        await api.send("g", 2)
        assert await api.post("/channel/subscriber_add", {**body, "reset": 1}) == OK
        await api.send("g", 2)
        for uid in ("old", "new"):
            assert await api.post("/tmpchannel/subscriber_set", {"channel_id": "t", "uids": [uid]}) == OK
        await api.send("t", 8)
        await api.server.broker.flush()
        received = {uid: [each.seq for each in session.received] for uid, session in sessions.items()}
        assert received == {"guest": [1, 3], "old": [], "new": [1]}


async def test_a_deleted_channel_is_empty_and_counts_on(tmp_path: Path) -> None:
    """POST /channel/delete: all goes but name and sequence; sending is status 24 until it is made again."""
    async with api_in(tmp_path) as api:
        await api.post("/channel", {**GROUP, "subscribers": ["a"], "name": "Team"})
        await api.post("/channel/whitelist_add", {**GROUP, "uids": ["ann"]})
        await api.send("g", 2)
        assert await api.post("/channel/delete", GROUP) == OK
        assert await api.get(f"/channel/info?{QUERY}") == {
            **INFO,
            "name": "Team",
            "disband": 1,
            "last_message_seq": 1,
        }
        assert await api.seqs("g") == []
        assert await api.post("/conversation/sync", {"uid": "a"}) == []
        assert await api.send("g", 2) == {"status": 24}
        await api.post("/channel", GROUP)
        assert (await api.send("g", 2))["message_seq"] == 2
        assert await api.post("/channel/delete", {**GROUP, "channel_id": "never was"}) == OK


@pytest.mark.parametrize(("flag", "status"), [("ban", 19), ("disband", 24)])
async def test_a_closed_channel_answers_with_its_reason(tmp_path: Path, flag: str, status: int) -> None:
    async with api_in(tmp_path) as api:
        await api.post("/channel", {**GROUP, flag: 1})
        assert await api.send("g", 2) == {"status": status}
        assert await api.seqs("g") == []


async def test_a_channel_keeps_what_its_retention_says(tmp_path: Path) -> None:
    """POST /channel/retention: ours; the next sweep deletes what is beyond it."""
    async with api_in(tmp_path) as api:
        for _ in range(5):
            await api.send("g", 2)
        assert await api.post("/channel/retention", {**GROUP, "keep_count": 2, "keep_seconds": 3600}) == OK
        info = await api.get(f"/channel/info?{QUERY}")
        assert info == {**INFO, "keep_count": 2, "keep_seconds": 3600, "last_message_seq": 5}
        await api.server.broker.retention.sweep_all()
        assert await api.seqs("g") == [4, 5]
        assert await api.post("/channel/retention", GROUP) == OK
        assert (await api.get(f"/channel/info?{QUERY}"))["keep_count"] == 0


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("/channel", {"channel_type": 2}, "频道ID不能为空！"),
        ("/channel", {"channel_id": "g"}, "频道类型错误！"),
        ("/channel", {**GROUP, "channel_type": 256}, "频道类型错误！"),
        ("/channel", {**GROUP, "channel_id": "g#"}, "频道ID不能包含特殊字符！"),
        ("/channel", {"channel_id": "u", "channel_type": 1, "subscribers": ["a"]}, "不支持个人频道添加订阅者！"),
        ("/channel", {**GROUP, "name": 5}, "数据格式有误！: name: a text"),
        ("/channel/info", {}, "频道ID不能为空！"),
        ("/channel/info", {"channel_id": "g"}, "频道类型错误！"),
        ("/channel/delete", {}, "频道ID不能为空！"),
        ("/channel/delete", {"channel_id": "u", "channel_type": 1}, "个人频道不支持添加订阅者！"),
        ("/channel/subscriber_add", {"channel_id": "g", "subscribers": [" "]}, "订阅者不能为空！"),
        ("/channel/subscriber_add", {"channel_id": "g"}, "订阅者不能为空！"),
        ("/channel/subscriber_add", {"uids": ["a"]}, "频道ID不能为空！"),
        ("/channel/subscriber_add", {"channel_id": "g", "uids": MANY}, "uids: 10001 > 10000 (api.maxListItems)"),
        (
            "/channel/subscriber_add",
            {"channel_id": "u", "channel_type": 1, "uids": ["a"]},
            "个人频道不支持添加订阅者！",
        ),
        ("/channel/subscriber_remove", {**GROUP, "uids": []}, "订阅者不能为空！"),
        ("/channel/subscriber_remove", {"channel_id": "g", "uids": ["a"]}, "频道类型错误！"),
        ("/channel/subscriber_remove_all", {"channel_type": 2}, "channel_id不能为空！"),
        ("/channel/subscriber_remove_all", {"channel_id": "g"}, "频道类型不能为0！"),
        ("/channel/subscriber_remove_all", {"channel_id": "u", "channel_type": 1}, "个人频道不支持此操作！"),
        ("/tmpchannel/subscriber_set", {"uids": ["a"]}, "channel_id不能为空！"),
        ("/tmpchannel/subscriber_set", {"channel_id": "t@", "uids": ["a"]}, "频道ID不能包含特殊字符！"),
        ("/tmpchannel/subscriber_set", {"channel_id": "t", "uids": [""]}, "uids不能为空！"),
    ],
)
def test_what_is_wrong_with_a_channel(shared: Shared, path: str, body: object, text: str) -> None:
    assert shared.post(path, body) == (400, text)


async def test_a_refused_member_list_makes_no_channel(tmp_path: Path) -> None:
    """The reference has made the channel by the time it refuses (http-api-errors.md, section 4)."""
    async with api_in(tmp_path) as api:
        assert (await api.post("/channel", {**GROUP, "subscribers": ["a", "x" * 513]}))[0] == 400
        assert await api.get(f"/channel/info?{QUERY}") == {"status": 404}


async def test_channel_types_beyond_the_known_ones_work(tmp_path: Path) -> None:
    async with api_in(tmp_path) as api:
        assert await api.post("/channel", {"channel_id": "g", "channel_type": 200, "subscribers": ["ann"]}) == OK
        assert (await api.post("/message/send", message("g", 200)))["message_seq"] == 1
