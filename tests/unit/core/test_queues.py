"""The durable queues that plugins keep events in."""

from pathlib import Path

from triolet_core import Append, QueueSize, Remove, RemoveUpTo
from triolet_core.testing import open_test_broker

LONG = "q" * 300


async def test_entries_come_back_in_order_after_reopening(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        assert await broker.queues.append("p.a", [b"1", b"2", b"3"]) == [1, 2, 3]
        assert await broker.queues.append("p.ab", [b"other"]) == [1]
        assert await broker.queues.append(LONG, [b"long"]) == [1]
    async with open_test_broker(tmp_path) as broker:
        assert broker.queues.read("p.a", 0, 10) == [(1, b"1"), (2, b"2"), (3, b"3")]
        assert broker.queues.read("p.a", 1, 1) == [(2, b"2")]
        assert broker.queues.read(LONG, 0, 10) == [(1, b"long")]
        assert broker.queues.read("p", 0, 10) == []


async def test_a_number_is_never_given_twice(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await broker.queues.append("p", [b"1", b"2"])
        await broker.queues.remove_up_to("p", 2)
        assert broker.queues.size("p") == QueueSize(count=0, bytes=0)
    async with open_test_broker(tmp_path) as broker:
        assert await broker.queues.append("p", [b"3"]) == [3]


async def test_the_size_follows_every_edit(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        edits = [Append("p", b"12345"), Append("p", b"1"), Append("p", b"12"), Append("r", b"1234")]
        assert await broker.queues.change(edits) == [1, 2, 3, 1]
        assert broker.queues.size("p") == QueueSize(count=3, bytes=8)
        await broker.queues.change([Remove("p", 2), Remove("p", 2), Remove("p", 99), RemoveUpTo("r", 1)])
        assert broker.queues.size("p") == QueueSize(count=2, bytes=7)
        assert broker.queues.size("r") == QueueSize(count=0, bytes=0)
        await broker.queues.remove("p", [1])
        assert broker.queues.read("p", 0, 10) == [(3, b"12")]


async def test_what_is_not_there_is_empty(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        assert broker.queues.read("nothing", 0, 10) == []
        assert broker.queues.size("nothing") == QueueSize(count=0, bytes=0)
        await broker.queues.remove_up_to("nothing", 10)
        assert broker.queues.size("nothing") == QueueSize(count=0, bytes=0)
