"""What a task brings in one turn is committed, acknowledged and delivered at its end, if nothing has to wait."""

import errno
import math
import os
from pathlib import Path
from typing import Any

import pytest
import trio

from triolet_core import Broker, ChannelInfo, ChannelKey, Device, ReasonCode, Receipt
from triolet_core.model import channel_key
from triolet_core.store import _backlog, _journal
from triolet_core.testing import MemorySession, draft, open_test_broker

ANN, BOB = Device(uid="ann"), Device(uid="bob")
BOTH = channel_key("ann", "bob", 1)


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loop wait for the disk, however slow this machine is now."""
    monkeypatch.setattr(_backlog, "_AT_ONCE_S", math.inf)


async def known(broker: Broker) -> MemorySession:
    """Let bob come online, everything be known that a message of ann to him depends on, and the journal have room."""
    session = MemorySession(BOB)
    broker.presence.register(session)
    for payload in (b"first", b"second"):
        await broker.messages.send(ANN, draft("bob", payload))
    await broker.flush()
    session.received.clear()
    return session


def submit(broker: Broker, receipts: list[Receipt], *payloads: bytes) -> None:
    for payload in payloads:
        broker.messages.submit_nowait(ANN, [draft("bob", payload)], receipts.extend, None)


async def test_a_turn_ends_with_everything_done(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        session = await known(broker)
        receipts: list[Receipt] = []
        with broker.turn:
            submit(broker, receipts, b"one", b"two")
            assert receipts == []
        assert [receipt.seq for receipt in receipts] == [3, 4]
        assert [message.payload for message in session.received] == [b"one", b"two"]
        assert session.pushes == 3, "one for each message before, and one for both"
    async with open_test_broker(tmp_path) as broker:
        page = broker.messages.sync(BOTH, start=0, end=0, limit=10, newer=False)
        assert [message.payload for message in page.messages] == [b"first", b"second", b"one", b"two"]


async def test_a_turn_in_a_turn_waits_for_the_outer_one(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await known(broker)
        receipts: list[Receipt] = []
        with broker.turn:
            with broker.turn:
                submit(broker, receipts, b"one")
            assert receipts == []
        assert len(receipts) == 1


async def test_what_takes_a_transaction_is_left_to_the_writer(tmp_path: Path) -> None:
    """The order stays that of coming."""
    async with open_test_broker(tmp_path) as broker:
        session = await known(broker)
        receipts: list[Receipt] = []
        key = ChannelKey("g", 2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(broker.channels.create, key, ChannelInfo(), ["ann"])
            await trio.testing.wait_all_tasks_blocked()
        with broker.turn:
            submit(broker, receipts, b"one")
        first = len(receipts)
        async with trio.open_nursery() as nursery:
            with broker.turn:
                nursery.start_soon(broker.channels.create, ChannelKey("h", 2), ChannelInfo(), ["ann"])
                submit(broker, receipts, b"two", b"three")
        await broker.flush()
        assert first == 1
        assert [receipt.seq for receipt in receipts] == [3, 4, 5]
        assert [message.payload for message in session.received] == [b"one", b"two", b"three"]
        assert broker.channels.members(ChannelKey("h", 2)) == ["ann"]


async def test_many_messages_leave_the_loop_to_others(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        session = await known(broker)
        receipts: list[Receipt] = []
        payloads = [b"%d" % number for number in range(300)]
        with broker.turn:
            submit(broker, receipts, *payloads)
        assert receipts == []
        await broker.flush()
        assert [message.payload for message in session.received] == payloads


async def test_nobody_is_told_anything_when_the_disk_fails_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the record is on disk is unknown: the server stops, and nothing is written behind it."""
    receipts: list[Receipt] = []
    later: list[Receipt] = []

    def fail(*_: Any) -> int:
        raise OSError(errno.EIO, "input/output error")

    async def run() -> None:
        async with open_test_broker(tmp_path) as broker:
            await known(broker)
            with monkeypatch.context() as broken:
                broken.setattr(_journal, "_compiled", None)
                broken.setattr(os, "pwritev", fail)
                broken.setattr(os, "pwrite", fail)
                with broker.turn:
                    submit(broker, receipts, b"one")
            with broker.turn:
                submit(broker, later, b"two")
            await trio.sleep_forever()

    with pytest.RaisesGroup(OSError, flatten_subgroups=True, allow_unwrapped=True), trio.fail_after(10):
        await run()
    assert receipts == []
    assert [receipt.reason for receipt in later] == [ReasonCode.SYSTEM_ERROR]
    async with open_test_broker(tmp_path) as broker:
        page = broker.messages.sync(BOTH, start=0, end=0, limit=10, newer=False)
        assert [message.payload for message in page.messages] == [b"first", b"second"]
