"""Reading messages back. http-api.md, sections 6.4 to 6.7."""

import base64
from pathlib import Path
from typing import Any

import pytest

from tests.integration.api.conftest import Shared
from tests.integration.api.support import GROUP, HELLO, Api, api_in, message, page, stored

BASE = {**GROUP, "login_uid": "bob"}


async def fill(api: Api, count: int) -> list[Any]:
    """Send messages n1, n2, … to group g."""
    return [await api.send("g", 2, client_msg_no=f"n{number}") for number in range(1, count + 1)]


async def test_a_page_of_history(tmp_path: Path) -> None:
    """POST /channel/messagesync: ascending in both directions; the bounds are echoed; start counts, end does not."""
    async with api_in(tmp_path) as api:
        await fill(api, 3)
        shown = [stored(number, f"n{number}", f"#{number}") for number in (1, 2, 3)]
        assert api.shown(await api.post("/channel/messagesync", BASE)) == page(*shown)
        body = {**BASE, "start_message_seq": 2, "end_message_seq": 3, "pull_mode": 1, "limit": 5}
        assert api.shown(await api.post("/channel/messagesync", body)) == page(shown[1], start=2, end=3)
        assert await api.post("/channel/messagesync", {**BASE, "channel_id": "none"}) == page()
        body = {"channel_id": "g", "channel_type": 2}
        assert await api.post("/channel/messagesync", body) == (400, "login_uid不能为空！")
        assert await api.post("/channel/messagesync", {"login_uid": "a"}) == (400, "channel_id不能为空！")


WINDOWS: list[tuple[dict[str, Any], list[int], int]] = [
    ({}, list(range(1, 11)), 0),
    ({"limit": 3}, [8, 9, 10], 1),
    ({"limit": 3, "pull_mode": 1}, [8, 9, 10], 1),
    ({"start_message_seq": 4, "limit": 3, "pull_mode": 1}, [4, 5, 6], 1),
    ({"start_message_seq": 9, "limit": 3, "pull_mode": 1}, [9, 10], 0),
    ({"start_message_seq": 4, "end_message_seq": 6, "limit": 9, "pull_mode": 1}, [4, 5], 0),
    ({"start_message_seq": 99, "limit": 3, "pull_mode": 1}, [], 0),
    ({"start_message_seq": 6, "limit": 3}, [4, 5, 6], 1),
    ({"start_message_seq": 2, "limit": 3}, [1, 2], 0),
    ({"start_message_seq": 6, "end_message_seq": 4, "limit": 9}, [5, 6], 0),
    ({"start_message_seq": 4, "end_message_seq": 6, "limit": 9}, [], 0),
    ({"start_message_seq": 99, "limit": 3}, [8, 9, 10], 1),
    ({"start_message_seq": "6", "limit": "2", "pull_mode": 7}, [5, 6], 1),
    ({"limit": -1}, list(range(1, 11)), 0),
    ({"limit": 2**63 - 1}, list(range(1, 11)), 0),
    ({"min_message_seq": 3, "max_message_seq": 0, "reverse": 1, "limit": 3}, [4, 5, 6], 1),
    ({"min_message_seq": 3, "max_message_seq": 6, "reverse": 1, "limit": 9}, [4, 5], 0),
    ({"min_message_seq": 0, "max_message_seq": 5, "limit": 3}, [2, 3, 4], 1),
    ({"min_message_seq": 5, "max_message_seq": 0, "reverse": 0, "limit": 3}, [6, 7, 8], 1),
    ({"min_message_seq": 0, "max_message_seq": 0, "reverse": 0, "limit": 3}, [1, 2, 3], 1),
    ({"max_message_seq": 1, "limit": 3}, [], 0),
]


async def test_what_a_window_holds(tmp_path: Path) -> None:
    """In WuKongIM's terms and in LiMaoIM's: both bounds are exclusive and the answer has both pairs of names."""
    async with api_in(tmp_path) as api:
        await api.post("/message/sendbatch", [message("g", 2) for _ in range(10)])
        for window, seqs, more in WINDOWS:
            answer = await api.post("/channel/messagesync", {**BASE, **window})
            assert [each["message_seq"] for each in answer["messages"]] == seqs, window
            assert answer["more"] == more, window
            low, high = window.get("min_message_seq"), window.get("max_message_seq")
            if low is None and high is None:
                assert set(answer) == {"start_message_seq", "end_message_seq", "more", "messages"}
            else:
                assert [answer["min_message_seq"], answer["max_message_seq"]] == [low or 0, high or 0]


async def test_messages_by_their_numbers(tmp_path: Path) -> None:
    """POST /messages: seqs, ids, client's numbers in this order, repeats kept, missing ones and other channels' not."""
    async with api_in(tmp_path) as api:
        answers = await fill(api, 3)
        elsewhere = await api.send("other", 2, client_msg_no="x")
        shown = [stored(number, f"n{number}", f"#{number}") for number in (1, 2, 3)]
        assert api.shown(answers)[2]["message_id"] == "#3"
        body = {
            **BASE,
            "message_seqs": [2, 1, 2, 99],
            "message_ids": [answers[2]["message_id"], answers[2]["message_idstr"], elsewhere["message_id"], 5],
            "client_msg_nos": ["n1", "x", "none"],
        }
        found = await api.post("/messages", body)
        assert api.shown(found) == page(shown[1], shown[0], shown[1], shown[2], shown[2], shown[0])
        assert await api.post("/messages", {"channel_type": 2}) == (400, "channel_id不能为空！")
        person = {"channel_id": "bob", "channel_type": 1, "message_seqs": [1]}
        assert await api.post("/messages", person) == (400, "login_uid不能为空！")


async def test_messages_by_what_they_hold(tmp_path: Path) -> None:
    """POST /messages without numbers searches, as the seed document says: the newest that match, ascending."""
    async with api_in(tmp_path) as api:
        for text in ("One apple", "two pears", "three APPLES"):
            await api.post("/message/send", {**GROUP, "from_uid": "ann", "content": text, "type": 1})
        raw = {**message("g", 2), "payload": base64.b64encode(b"\xff raw apple").decode(), "from_uid": "eve"}
        await api.post("/message/send", raw)

        async def found(**query: Any) -> tuple[list[int], int]:
            answer = await api.post("/messages", {**BASE, **query})
            seqs = [each["message_seq"] for each in answer["messages"]]
            assert (answer["start_message_seq"], answer["end_message_seq"]) == ((seqs[0], seqs[-1]) if seqs else (0, 0))
            return seqs, answer["more"]

        now = (await api.post("/channel/messagesync", BASE))["messages"][0]["timestamp"]
        assert await found() == ([1, 2, 3, 4], 0)
        assert await found(keyword="apple", from_uid="ann") == ([1, 3], 0)
        assert await found(keyword="apple", from_uid="ann", limit=1) == ([3], 1)
        assert await found(keyword="content") == ([], 0)
        assert await found(keyword="nothing") == ([], 0)
        assert await found(start_time=now - 5, end_time=now + 5) == ([1, 2, 3, 4], 0)
        assert await found(start_time=now + 60) == ([], 0)
        assert await found(end_time=now - 60) == ([], 0)


async def test_one_message(tmp_path: Path) -> None:
    """POST /message, GET /message/byclientmsgno, GET /channel/last_message: a message, or status 404 with HTTP 200."""
    async with api_in(tmp_path) as api:
        await fill(api, 1)
        answer = await api.send("bob", client_msg_no="p1")
        shown = stored(1, "p1", channel_id="bob", channel_type=1)
        person = {"channel_id": "bob", "channel_type": 1, "login_uid": "ann"}
        query = "channel_id=bob&channel_type=1&login_uid=ann"
        assert api.shown(await api.post("/message", {**person, "message_id": answer["message_id"]})) == shown
        assert api.shown(await api.post("/message", {**person, "message_id": answer["message_idstr"]})) == shown
        assert api.shown(await api.post("/message", {**person, "client_msg_no": "p1"})) == shown
        assert api.shown(await api.get(f"/message/byclientmsgno?{query}&client_msg_no=p1")) == shown
        assert api.shown(await api.get(f"/channel/last_message?{query}")) == shown
        for wrong in ({"message_id": 5}, {"client_msg_no": "n1"}, {}):
            assert await api.post("/message", {**person, **wrong}) == {"status": 404}
        assert await api.post("/message", {**GROUP, "message_id": answer["message_id"]}) == {"status": 404}
        assert await api.get(f"/message/byclientmsgno?{query}&client_msg_no=n1") == {"status": 404}
        assert await api.get("/channel/last_message?channel_id=none&channel_type=2") == {"status": 404}


async def test_the_last_number_of_a_channel(tmp_path: Path) -> None:
    """GET /channel/max_message_seq: 0 for one that is not known; a stored person id needs no `login_uid`."""
    async with api_in(tmp_path) as api:
        await api.send("bob")
        await api.send("bob")
        [row] = (await api.get("/cluster/channels?channel_type=1&channel_id=@"))["data"]
        for query in ("channel_id=bob&channel_type=1&login_uid=ann", f"channel_id={row['channel_id']}&channel_type=1"):
            assert await api.get(f"/channel/max_message_seq?{query}") == {"message_seq": 2}
        assert await api.get("/channel/max_message_seq?channel_id=none&channel_type=2") == {"message_seq": 0}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/channel/max_message_seq", "channel_id不能为空"),
        ("/channel/max_message_seq?channel_id=bob&channel_type=1", "login_uid不能为空！"),
        ("/channel/last_message?channel_type=2", "channel_id不能为空"),
        ("/message/byclientmsgno?channel_type=2&client_msg_no=n", "channel_id不能为空"),
        ("/message/byclientmsgno?channel_id=g&client_msg_no=n", "channel_type不能为0"),
        ("/message/byclientmsgno?channel_id=g&channel_type=2", "client_msg_no不能为空"),
        ("/message/byclientmsgno?channel_id=bob&channel_type=1&client_msg_no=n", "login_uid不能为空！"),
    ],
)
def test_what_is_missing_in_a_query(shared: Shared, path: str, text: str) -> None:
    assert shared.get(path) == (400, text)


def test_what_is_missing_for_one_message(shared: Shared) -> None:
    assert shared.post("/message", {"channel_type": 2}) == (400, "channel_id不能为空！")
    assert shared.post("/message", {"channel_id": "g"}) == (400, "channel_type不能为0")
    assert shared.post("/message", {"channel_id": "bob", "channel_type": 1}) == (400, "login_uid不能为空！")


async def test_history_survives_a_restart(tmp_path: Path) -> None:
    async with api_in(tmp_path) as api:
        await fill(api, 2)
        before = await api.post("/channel/messagesync", BASE)
    async with api_in(tmp_path) as api:
        assert await api.post("/channel/messagesync", BASE) == before
        assert [each["payload"] for each in before["messages"]] == [HELLO, HELLO]
