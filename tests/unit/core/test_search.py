"""Search by keyword, time and sender (http-api.md, section 6.4)."""

import json
from pathlib import Path
from typing import Any

import pytest

from triolet_core import Broker, ChannelKey, Device, Draft, Query, text_of
from triolet_core import _search as search
from triolet_core.model import person_channel_id
from triolet_core.testing import FakeClock, open_test_broker

AB, AC = (ChannelKey(person_channel_id("a", peer), 1) for peer in "bc")


async def say(broker: Broker, text: Any, *, sender: str = "a", to: str = "b", **more: Any) -> int:
    payload = text if isinstance(text, bytes) else json.dumps({"type": 1, "content": text}, ensure_ascii=False).encode()
    receipt = await broker.messages.send(Device(uid=sender), Draft(to, 1, payload, **more))
    assert receipt.seq
    return receipt.message_id


async def found(broker: Broker, limit: int = 10, key: ChannelKey = AB, **query: Any) -> tuple[list[int], bool]:
    messages, more = await broker.search.channel(key, Query(**query), limit)
    return [message.seq for message in messages], more


@pytest.mark.parametrize(
    ("keyword", "expected"),
    [
        ("hello", [1, 2]),
        ("HELLO", [1, 2]),
        ("straße", [3]),
        ("STRASSE", [3]),
        ("你好", [4]),
        ("type", []),  # part of the JSON, not of its text
        ("number", [6]),  # no `content`: all of it
        ("plain", [5]),
        ("no such", []),
        ("", [1, 2, 3, 4, 5, 6, 7]),
    ],
)
async def test_a_keyword_is_looked_for_in_the_text(tmp_path: Path, keyword: str, expected: list[int]) -> None:
    async with open_test_broker(tmp_path) as broker:
        for text in ("Hello", "oh hello there", "Straße", "你好世界", b"plain text", b'{"number": 5}', b"\xff\xfe\x00"):
            await say(broker, text)
        assert await found(broker, keyword=keyword) == (expected, False)


async def test_the_newest_matches_come_rising_and_say_whether_there_are_older_ones(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        for n in range(10):
            await say(broker, "even" if n % 2 else "odd")
        assert await found(broker, 2, keyword="odd") == ([7, 9], True)
        assert await found(broker, 5, keyword="odd") == ([1, 3, 5, 7, 9], False)
        assert await found(broker, 3) == ([8, 9, 10], True)
        assert await found(broker, key=AC) == ([], False)


async def test_times_are_seconds_and_both_included(tmp_path: Path) -> None:
    clock = FakeClock(1_700_000_000)
    async with open_test_broker(tmp_path, clock_s=clock) as broker:
        for _ in range(5):
            await say(broker, "x")
            clock.move(10)
        assert (await found(broker, start=1_700_000_010, end=1_700_000_030))[0] == [2, 3, 4]
        assert (await found(broker, start=1_700_000_031))[0] == [5]
        assert (await found(broker, end=1_700_000_009))[0] == [1]
        assert (await found(broker, start=1_700_000_020, end=1_700_000_010))[0] == []


async def test_a_clock_that_went_back_hides_nothing(tmp_path: Path) -> None:
    clock = FakeClock(1_700_000_000)
    async with open_test_broker(tmp_path, clock_s=clock) as broker:
        await say(broker, "x")
        clock.move(-1800)
        await say(broker, "y")
        assert (await found(broker, start=1_700_000_000))[0] == [1]


async def test_sender_number_topic_and_bytes(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await say(broker, "x", client_msg_no="n1")
        await say(broker, "x", sender="b", to="a", topic="news")
        await say(broker, b"\x00\xff\x01")
        assert (await found(broker, from_uid="b"))[0] == [2]
        assert (await found(broker, client_msg_no="n1"))[0] == [1]
        assert (await found(broker, topic="news"))[0] == [2]
        assert (await found(broker, part=b"\xff\x01"))[0] == [3]
        assert (await found(broker, from_uid="a", keyword="x"))[0] == [1]


async def test_a_user_searches_his_channels_page_by_page(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        for n in range(6):
            await say(broker, f"x{n}", to="bc"[n % 2])
        pages = [await broker.search.channels([AB, AC], Query(keyword="x"), offset=at, limit=4) for at in (0, 4, 8)]
        assert [total for _, total in pages] == [6, 6, 6]
        texts = [[text_of(message.payload) for message in messages] for messages, _ in pages]
        assert texts == [["x5", "x4", "x3", "x2"], ["x1", "x0"], []]
        only, _ = await broker.search.channels([AC], Query(), offset=0, limit=10)
        assert {message.channel for message in only} == {AC}


async def test_the_newest_of_all_channels_between_two_ids(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        ids = [await say(broker, f"x{n}", to="bc"[n % 2]) for n in range(6)]

        async def everywhere(limit: int, **query: Any) -> tuple[list[int], bool]:
            messages, more = await broker.search.everywhere(Query(**query), limit)
            return [ids.index(message.message_id) for message in messages], more

        assert await everywhere(2) == ([5, 4], True)
        assert await everywhere(2, before_id=ids[4]) == ([3, 2], True)
        assert await everywhere(10, after_id=ids[2]) == ([5, 4, 3], False)
        assert await everywhere(10, before_id=ids[4], after_id=ids[2]) == ([3], False)
        assert await everywhere(10, keyword="x1") == ([1], False)


async def test_recalled_deleted_and_expired_messages_are_not_found_by_their_text(tmp_path: Path) -> None:
    clock = FakeClock()
    async with open_test_broker(tmp_path, clock_s=clock) as broker:
        recalled, edited = await say(broker, "word"), await say(broker, "word")
        await say(broker, "word")
        await say(broker, "word", expire=5)
        await say(broker, "word")
        await broker.revisions.recall(AB, recalled, by="a")
        await broker.revisions.edit(AB, edited, b"another", by="a")
        await broker.revisions.delete(AB, [3])
        clock.move(5)
        assert await found(broker, keyword="word") == ([5], False)
        assert await found(broker, keyword="another") == ([2], False)
        assert await found(broker) == ([1, 2, 5], False)


async def test_a_search_looks_at_so_many_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MAX_LOOKED_AT", 3)
    async with open_test_broker(tmp_path) as broker:
        for n in range(5):
            await say(broker, f"x{n}")
        assert await found(broker, keyword="x") == ([3, 4, 5], False)


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b'{"content":"a"}', "a"),
        (b'{"content":{"x":1}}', '{"content":{"x":1}}'),
        (b'["content"]', '["content"]'),
        (b"5", "5"),
        (b"", ""),
        (b"\xff", ""),
        (b"[" * 100_000, "[" * 100_000),
        (b"9" * 5_000, "9" * 5_000),
    ],
)
def test_the_text_of_a_payload(payload: bytes, expected: str) -> None:
    assert text_of(payload) == expected
