"""Recent conversations. http-api.md, section 7."""

from pathlib import Path
from typing import Any

from tests.integration.api.conftest import Shared
from tests.integration.api.support import GROUP, OK, Api, api_in, message, stored
from triolet_core.config import ConversationConfig, ServerConfig

PERSON = {"uid": "bob", "channel_id": "ann", "channel_type": 1}


def row(seq: int, unread: int, number: str, recents: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    """Return bob's conversation with ann."""
    return {
        "channel_id": "ann",
        "channel_type": 1,
        "unread": unread,
        "timestamp": "T",
        "last_msg_seq": seq,
        "last_client_msg_no": number,
        "offset_msg_seq": 0,
        "readed_to_msg_seq": 0,
        "version": "T",
        "recents": recents or [],
        **more,
    }


def shown(api: Api, rows: Any, unit: int = 10**9) -> Any:
    """Return conversations with their versions settled, which are the time of the last message."""
    for each in rows:
        assert each["version"] == each["timestamp"] * unit
        each["version"] = "T" if each["timestamp"] else 0
    return api.shown(rows)


async def sync(api: Api, **more: Any) -> Any:
    return await api.post("/conversation/sync", {"uid": "bob", **more})


async def test_a_conversation(tmp_path: Path) -> None:
    """POST /conversation/sync: the newest first, `recents` descending; the other party is the channel."""
    async with api_in(tmp_path) as api:
        for number in ("n1", "n2", "n3"):
            await api.send("bob", client_msg_no=number)
        recents = [stored(seq, f"n{seq}", f"#{4 - seq}", channel_id="bob", channel_type=1) for seq in (3, 2)]
        assert shown(api, await sync(api, msg_count=2)) == [row(3, 3, "n3", recents)]
        assert shown(api, await sync(api)) == [row(3, 3, "n3")]
        assert shown(api, await api.post("/conversation/sync", {"uid": "ann"})) == [
            row(3, 0, "n3", channel_id="bob", readed_to_msg_seq=3)
        ]
        assert await api.post("/conversation/sync", {"uid": "nobody"}) == []


async def test_only_what_is_new_is_listed(tmp_path: Path) -> None:
    """`version` in ns or ms, `last_msg_seqs`, `only_unread`, `exclude_channel_types`."""
    async with api_in(tmp_path) as api:
        await api.post("/channel", {**GROUP, "subscribers": ["bob"]})
        for _ in range(5):
            await api.send("bob")
        await api.send("g", 2)
        first = await sync(api, msg_count=9, last_msg_seqs="ann:1:3")
        assert [(each["channel_id"], len(each["recents"])) for each in first] == [("g", 1), ("ann", 2)]
        assert [each["message_seq"] for each in first[1]["recents"]] == [5, 4]
        assert [each["channel_id"] for each in await sync(api, last_msg_seqs="ann:1:5|g:2:0")] == ["g"]
        assert [each["channel_id"] for each in await sync(api, exclude_channel_types=[1])] == ["g"]
        assert await sync(api, version=first[0]["version"]) == []
        assert await sync(api, version=first[0]["version"] // 10**6) == []
        assert len(await sync(api, version=first[0]["version"] - 10**10)) == 2
        old = await sync(api, version=first[0]["timestamp"] * 1000 - 10_000)
        assert [each["version"] for each in old] == [each["timestamp"] * 1000 for each in old]
        await api.post("/conversations/clearUnread", PERSON)
        assert [each["channel_id"] for each in await sync(api, only_unread=1)] == ["g"]
        assert await sync(api, last_msg_seqs="nonsense") == (400, "last_msg_seqs: id:type:seq")


async def test_pages_of_conversations(tmp_path: Path) -> None:
    """`page` and `page_size`, or the seed document's `limit`; beyond the end is empty, also 2**63 − 1."""
    async with api_in(tmp_path) as api:
        bodies = [{**message("bob"), "from_uid": f"u{number}"} for number in range(5)]
        for body in bodies:
            await api.post("/message/send", body)
        everything = [each["channel_id"] for each in await sync(api)]
        assert sorted(everything) == ["u0", "u1", "u2", "u3", "u4"]
        for query, start, end in (
            ({"page": 1, "page_size": 2}, 0, 2),
            ({"page": 3, "page_size": 2}, 4, 5),
            ({"page": 4, "page_size": 2}, 5, 5),
            ({"page": 2**63 - 1}, 5, 5),
            ({"page": -1}, 0, 5),
            ({"limit": 3}, 0, 3),
        ):
            assert [each["channel_id"] for each in await sync(api, **query)] == everything[start:end], query


async def test_what_the_user_wrote_himself_is_read(tmp_path: Path) -> None:
    """Unread = messages by others after max(read, deleted)."""
    async with api_in(tmp_path) as api:
        await api.send("bob")
        await api.post("/message/send", {**message("ann"), "from_uid": "bob"})
        await api.send("bob")
        [found] = await sync(api)
        assert (found["unread"], found["last_msg_seq"], found["readed_to_msg_seq"]) == (1, 3, 2)


async def test_messages_of_several_channels(tmp_path: Path) -> None:
    """POST /conversation/syncMessages: from `last_msg_seq` on, rising; or the newest first; or one channel."""
    async with api_in(tmp_path) as api:
        for number in ("n1", "n2", "n3"):
            await api.send("g", 2, client_msg_no=number)
        await api.send("bob", client_msg_no="p1")
        group = [stored(seq, f"n{seq}", f"#{seq}") for seq in (1, 2, 3)]
        person = stored(1, "p1", "#4", channel_id="bob", channel_type=1)

        def part(*messages: Any, **more: Any) -> dict[str, Any]:
            return {**GROUP, "messages": list(messages), "user_last_msg_seq": 0, **more}

        async def asked(*channels: Any, **more: Any) -> Any:
            return api.shown(await api.post("/conversation/syncMessages", {"uid": "bob", "channels": channels, **more}))

        ann = {"channel_id": "ann", "channel_type": 1}
        assert await asked(GROUP, ann) == [part(*group), part(person, **ann)]
        assert await asked({**GROUP, "last_msg_seq": 2}) == [part(*group[1:])]
        assert await asked(GROUP, msg_count=1) == [part(group[0])]
        assert await asked(GROUP, msg_count=2, order_by_last=1) == [part(group[2], group[1])]
        assert await asked({**GROUP, "last_msg_seq": 3}, order_by_last=1) == [part(group[2])]
        assert await asked(**GROUP, limit=2) == [part(*group[:2])]
        assert await asked() == []
        own = await api.post("/conversation/syncMessages", {"uid": "ann", "channels": [GROUP]})
        assert own[0]["user_last_msg_seq"] == 3
        assert await api.post("/conversation/syncMessages", {"channels": []}) == (400, "uid不能为空！")


async def test_conversations_with_named_channels(tmp_path: Path) -> None:
    """POST /conversation/syncByChannels: in the order asked for, those without messages too."""
    async with api_in(tmp_path) as api:
        await api.send("bob", client_msg_no="n1")
        none = {"channel_id": "none", "channel_type": 2}
        body = {"uid": "bob", "channels": [none, {"channel_id": "ann", "channel_type": 1}]}
        recents = [stored(1, "n1", channel_id="bob", channel_type=1)]
        empty = row(0, 0, "", timestamp=0, version=0, **none)
        assert shown(api, await api.post("/conversation/syncByChannels", body)) == [empty, row(1, 1, "n1", recents)]


async def test_the_channels_of_a_users_conversations(tmp_path: Path) -> None:
    """POST /conversation/channels: persons by the stored id, `to@from`; GET /conversation/totalUnread is ours."""
    async with api_in(tmp_path) as api:
        await api.post("/channel", {**GROUP, "subscribers": ["bob"]})
        await api.send("g", 2)
        await api.send("bob")
        await api.send("bob")
        assert await api.post("/conversation/channels", {"uid": "bob"}) == [
            {"channel_id": "bob@ann", "channel_type": 1},
            {"channel_id": "g", "channel_type": 2},
        ]
        total = {"uid": "bob", "unread": 3, "conversations": 2}
        assert await api.get("/conversation/totalUnread?uid=bob") == total
        assert await api.get("/conversation/totalUnread?uid=no") == {"uid": "no", "unread": 0, "conversations": 0}


async def test_the_total_counts_what_the_list_has_no_room_for(tmp_path: Path) -> None:
    """`conversation.userMaxCount` cuts the list, not the number on the badge."""
    async with api_in(tmp_path, core=ServerConfig(conversation=ConversationConfig(user_max_count=2))) as api:
        for sender in ("ann", "cid", "dan"):
            await api.send("bob", from_uid=sender)
        assert len(await api.post("/conversation/sync", {"uid": "bob", "msg_count": 1})) == 2
        total = {"uid": "bob", "unread": 3, "conversations": 3}
        assert await api.get("/conversation/totalUnread?uid=bob") == total


async def test_the_old_list(tmp_path: Path) -> None:
    """GET /conversations of WuKongIM 1.2.6 and LiMaoIM."""
    async with api_in(tmp_path) as api:
        await api.send("bob", client_msg_no="n1")
        assert api.shown(await api.get("/conversations?uid=bob")) == [
            {
                "channel_id": "ann",
                "channel_type": 1,
                "unread": 1,
                "timestamp": "T",
                "last_message": stored(1, "n1", channel_id="bob", channel_type=1),
            }
        ]


async def test_what_is_read(tmp_path: Path) -> None:
    """POST /conversations/clearUnread: up to a message, or all; /setUnread: exactly so many, clamped, up and down."""
    async with api_in(tmp_path) as api:
        for _ in range(5):
            await api.send("bob")

        async def unread() -> tuple[int, int]:
            [found] = await sync(api)
            return found["unread"], found["readed_to_msg_seq"]

        for path, more, expected in (
            ("clearUnread", {"message_seq": 2}, (3, 2)),
            ("clearUnread", {"message_seq": 1}, (3, 2)),
            ("clearUnread", {"message_seq": 99}, (0, 5)),
            ("setUnread", {"unread": 2}, (2, 3)),
            ("setUnread", {"unread": 4, "message_seq": 5}, (4, 1)),
            ("setUnread", {"unread": 100}, (5, 0)),
            ("setUnread", {"unread": -4}, (0, 5)),
            ("setUnread", {"unread": 1}, (1, 4)),
            ("clearUnread", {}, (0, 5)),
        ):
            assert await api.post(f"/conversations/{path}", {**PERSON, **more}) == OK
            assert await unread() == expected, (path, more)
        unknown = {"uid": "bob", "channel_id": "none", "channel_type": 2}
        assert await api.post("/conversations/clearUnread", unknown) == OK
        assert await api.post("/conversations/setUnread", unknown) == OK
        assert len(await sync(api)) == 1


async def test_a_deleted_conversation_comes_back_with_the_next_message(tmp_path: Path) -> None:
    """POST /conversations/delete, for one user or LiMaoIM's `uids`: what was there is hidden and read."""
    async with api_in(tmp_path) as api:
        await api.post("/channel", {**GROUP, "subscribers": ["bob", "eve"]})
        await api.send("g", 2)
        await api.send("g", 2)
        assert await api.post("/conversations/delete", {**GROUP, "uids": ["bob", "eve"]}) == OK
        assert await api.post("/conversations/delete", {**GROUP, "uid": "bob"}) == OK
        assert await sync(api) == []
        await api.send("g", 2, client_msg_no="n3")
        [found] = await sync(api, msg_count=9)
        assert (found["unread"], found["offset_msg_seq"], found["readed_to_msg_seq"]) == (1, 2, 2)
        assert [each["message_seq"] for each in found["recents"]] == [3]
        assert len(await api.post("/conversation/sync", {"uid": "eve"})) == 1


def test_what_is_missing(shared: Shared) -> None:
    for path, body, text in (
        ("/conversation/sync", {}, "uid不能为空！"),
        ("/conversation/channels", {}, "uid不能为空！"),
        ("/conversation/syncByChannels", {"channels": [GROUP]}, "uid cannot be empty"),
        ("/conversation/syncByChannels", {"uid": "a"}, "channels cannot be empty"),
        ("/conversation/syncMessages", {"uid": "a", "channels": [None]}, "数据格式有误！"),
        ("/conversations/clearUnread", GROUP, "uid cannot be empty"),
        ("/conversations/clearUnread", {"uid": "a"}, "channel_id or channel_type cannot be empty"),
        ("/conversations/setUnread", GROUP, "UID cannot be empty"),
        ("/conversations/setUnread", {"uid": "a", "channel_id": "g"}, "channel_id or channel_type cannot be empty"),
        ("/conversations/delete", GROUP, "Uid cannot be empty"),
        ("/conversations/delete", {"uid": "a"}, "channel_id or channel_type cannot be empty"),
    ):
        assert shared.post(path, body) == (400, text), path
    for path in ("/conversations", "/conversation/totalUnread"):
        assert shared.get(path) == (400, "uid cannot be empty")
