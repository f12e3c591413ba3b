"""Who sends to a group faster than its members can be served waits; nobody else does."""

import math
from pathlib import Path

import pytest
import trio

from triolet_core import Broker, ChannelInfo, ChannelKey, Device, Receipt
from triolet_core.store import _backlog
from triolet_core.testing import MemorySession, draft, open_test_broker

ANN, BOB = Device(uid="ann"), Device(uid="bob")


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loop wait for the disk, however slow this machine is now."""
    monkeypatch.setattr(_backlog, "_AT_ONCE_S", math.inf)


async def prepare(broker: Broker) -> MemorySession:
    """Let there be a group and a receiver, and everything be known that a message depends on."""
    await broker.channels.create(ChannelKey("g", 2), ChannelInfo(), ["ann", "bob"])
    session = MemorySession(BOB)
    broker.presence.register(session)
    for _ in range(2):
        await broker.messages.send_many(ANN, [draft("g", channel_type=2), draft("bob")])
    await broker.flush()
    session.received.clear()
    return session


def fill(broker: Broker) -> int:
    """Send to the group, a turn each, while its members are not served; returns how many were taken."""
    receipts: list[Receipt] = []
    for number in range(1000):
        try:
            with broker.turn:
                broker.messages.submit_nowait(ANN, [draft("g", channel_type=2)], receipts.extend, None)
        except trio.WouldBlock:
            assert len(receipts) == number
            return number
    raise AssertionError("nobody was held back")


async def test_the_sender_to_a_crowded_group_waits_and_others_do_not(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        session = await prepare(broker)
        taken = fill(broker)
        assert 0 < taken < 64
        receipts: list[Receipt] = []
        with broker.turn:
            broker.messages.submit_nowait(ANN, [draft("bob", b"a person is served")], receipts.extend, None)
        assert len(receipts) == 1
        receipt = await broker.messages.send(ANN, draft("g", b"late", channel_type=2))
        assert receipt.reason == 1
        await broker.flush()
        of_group = [message for message in session.received if message.channel.type == 2]
        assert len(of_group) == taken + 1
        assert of_group[-1].payload == b"late"
        assert [message.seq for message in of_group] == sorted(message.seq for message in of_group)


async def test_who_waits_may_be_cancelled(tmp_path: Path) -> None:
    """Nothing of what it wanted to send is queued then."""
    async with open_test_broker(tmp_path) as broker:
        session = await prepare(broker)
        taken = fill(broker)
        with trio.CancelScope() as scope:
            scope.cancel()
            await broker.messages.submit(ANN, [draft("g", channel_type=2)], lambda _: None)
        assert scope.cancelled_caught
        await broker.flush()
        assert len([message for message in session.received if message.channel.type == 2]) == taken
