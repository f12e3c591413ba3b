"""Where the products contradict each other, `compat.profile` decides. http-api.md, section 9: a test per line of it."""

from pathlib import Path

import pytest

from tests.integration.api.support import GROUP, OK, api_in
from triolet_core import Device
from triolet_core.testing import MemorySession

V2, V1, LIMAO = "wukongim-2", "wukongim-1", "limaoim"
QUERY = "channel_id=g&channel_type=2"


def by_profile(v2: object, v1: object, limao: object) -> pytest.MarkDecorator:
    """Run a test in each profile, with what is expected there."""
    return pytest.mark.parametrize(("profile", "expected"), [(V2, v2), (V1, v1), (LIMAO, limao)])


@by_profile(["a", "b"], ["b"], ["b"])
async def test_a_member_list_adds_or_replaces(tmp_path: Path, profile: str, expected: list[str]) -> None:
    """A request without a list never empties the channel, and `reset` says the same everywhere."""
    async with api_in(tmp_path, profile=profile) as api:
        uids = f"/channel/subscribers?{QUERY}&format=uids"
        for name in ("a", "b"):
            assert await api.post("/channel", {**GROUP, "subscribers": [name]}) == OK
        assert await api.post("/channel", {**GROUP, "large": 1}) == OK
        assert await api.get(uids) == expected
        await api.post("/channel", {**GROUP, "uids": ["c"], "reset": 0})
        assert await api.get(uids) == [*expected, "c"]
        await api.post("/channel", {**GROUP, "uids": ["d"], "reset": 1})
        assert await api.get(uids) == ["d"]


@by_profile([OK, "rows"], [[], "rows"], [[], ["ann"]])
async def test_who_is_online(tmp_path: Path, profile: str, expected: list[object]) -> None:
    async with api_in(tmp_path, profile=profile) as api:
        for flag in (0, 1):
            api.server.broker.presence.register(MemorySession(Device(uid="ann", flag=flag)))
        rows = [{"uid": "ann", "device_flag": flag, "online": 1} for flag in (0, 1)]
        nobody, somebody = expected
        for empty in ([], {"uids": []}):
            assert await api.post("/user/onlinestatus", empty) == nobody
        for asked in (["ann", "bob"], {"uids": ["ann"]}):
            assert await api.post("/user/onlinestatus", asked) == (rows if somebody == "rows" else somebody)


@by_profile(dict, str, str)
async def test_lists_are_objects_or_uids(tmp_path: Path, profile: str, expected: type) -> None:
    """`format` overrides it."""
    async with api_in(tmp_path, profile=profile) as api:
        await api.post("/channel/whitelist_add", {**GROUP, "uids": ["a"]})
        for query, kind in (("", expected), ("&format=uids", str), ("&format=objects", dict)):
            [entry] = await api.get(f"/channel/whitelist?{QUERY}{query}")
            assert type(entry) is kind


@by_profile([1], (400, "no data"), [1])
async def test_a_sequence_number_that_does_not_exist(tmp_path: Path, profile: str, expected: object) -> None:
    async with api_in(tmp_path, profile=profile) as api:
        await api.send("g", 2)
        found = await api.post("/messages", {**GROUP, "message_seqs": [1, 9]})
        if isinstance(found, dict):
            found = [each["message_seq"] for each in found["messages"]]
        assert found == expected


@by_profile(10**9, 1000, 1000)
async def test_the_unit_of_versions(tmp_path: Path, profile: str, expected: int) -> None:
    """Where the request does not tell; a version that is given decides by its size."""
    async with api_in(tmp_path, profile=profile) as api:
        await api.send("bob")
        body = {"uid": "bob", "msg_count": 0}
        [row] = await api.post("/conversation/sync", body)
        assert row["version"] == row["timestamp"] * expected
        assert row["recents"] == []
        for unit in (10**9, 1000):
            older = (row["timestamp"] - 5) * unit
            [found] = await api.post("/conversation/sync", {**body, "version": older})
            assert found["version"] == row["timestamp"] * unit


@by_profile(2, 1, 1)
async def test_what_counts_as_unread(tmp_path: Path, profile: str, expected: int) -> None:
    """Every message by others, or those with the red dot."""
    async with api_in(tmp_path, profile=profile) as api:
        await api.send("bob", header={"red_dot": 1})
        await api.send("bob")
        [row] = await api.post("/conversation/sync", {"uid": "bob"})
        assert row["unread"] == expected


@by_profile([2, 3], [3], [3])
async def test_the_order_of_recent_messages(tmp_path: Path, profile: str, expected: list[int]) -> None:
    """/conversation/syncMessages without `order_by_last`: rising from the position on, or newest first behind it."""
    async with api_in(tmp_path, profile=profile) as api:
        for _ in range(3):
            await api.send("g", 2)
        body = {"uid": "bob", "channels": [{**GROUP, "last_msg_seq": 2}]}
        for more, seqs in (({}, expected), ({"order_by_last": 0}, [2, 3]), ({"order_by_last": 1}, [3, 2])):
            [part] = await api.post("/conversation/syncMessages", {**body, **more})
            assert [each["message_seq"] for each in part["messages"]] == seqs


@by_profile({"status": 19}, 1, 1)
async def test_a_message_of_the_api_to_a_banned_channel(tmp_path: Path, profile: str, expected: object) -> None:
    async with api_in(tmp_path, profile=profile) as api:
        await api.post("/channel", {**GROUP, "ban": 1})
        answer = await api.send("g", 2)
        assert answer.get("message_seq", answer) == expected


@by_profile([], [], [(0, "账号在其他设备上登录", True)])
async def test_a_new_token_of_a_slave(tmp_path: Path, profile: str, expected: list[object]) -> None:
    """LiMaoIM displaces whatever the level, with reason 0; the others only for a master."""
    async with api_in(tmp_path, profile=profile) as api:
        session = MemorySession(Device(uid="ann"))
        api.server.broker.presence.register(session)
        await api.post("/user/token", {"uid": "ann", "token": "t", "device_level": 0})
        assert session.kicks == expected


@by_profile((400, "频道ID不能包含特殊字符！"), OK, OK)
async def test_special_characters(tmp_path: Path, profile: str, expected: object) -> None:
    """`@` is the person separator and stays refused for groups."""
    async with api_in(tmp_path, profile=profile) as api:
        for channel_id in ("a#b", "a&b"):
            assert await api.post("/channel", {"channel_id": channel_id, "channel_type": 2}) == expected
        refused = await api.post("/channel", {"channel_id": "a@b", "channel_type": 2})
        assert refused == (400, "频道ID不能包含特殊字符！")


@pytest.mark.parametrize("profile", [V2, V1, LIMAO])
async def test_what_is_the_same_everywhere(tmp_path: Path, profile: str) -> None:
    """Aliases, both forms of a batch and of deletion, the sequence of a channel that is not known."""
    async with api_in(tmp_path, profile=profile) as api:
        assert await api.post("/systemuids_add", {"uids": ["s"]}) == OK
        assert await api.get("/channel/max_message_seq?channel_id=none&channel_type=2") == {"message_seq": 0}
        answer = await api.send("bob")
        assert answer == {"status": 200, **answer["data"], "data": answer["data"]}
        assert [each["status"] for each in await api.post("/message/sendbatch", [])] == []
        for body in ({"uid": "bob"}, {"uids": ["bob"]}):
            assert await api.post("/conversations/delete", {**body, "channel_id": "ann", "channel_type": 1}) == OK
        assert [row["slot_state"] for row in await api.get("/cluster")] == [1]
        assert len(await api.get("/conversations?uid=ann")) == 1
