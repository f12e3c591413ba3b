"""What a delivery has used is free at once: nothing waits for the collector of cycles, and no lane keeps the last."""

import gc
import weakref
from pathlib import Path

import pytest
import trio

from triolet_core import ChannelInfo, ChannelKey, Device
from triolet_core._delivery import Delivery, Lanes, _Trail
from triolet_core.testing import MemorySession, draft, open_test_broker

GROUP = ChannelKey("g", 2)


@pytest.fixture
def only_counted() -> object:
    """Let nothing be freed but by counting who refers to it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("only_counted")
async def test_deliveries_to_groups_leave_nothing(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        senders = []
        for uid in ("ann", "bob"):
            for group in ("g", "h"):
                await broker.channels.create(ChannelKey(group, 2), ChannelInfo(), ["ann", "bob", "cid"])
            senders.append(MemorySession(Device(uid=uid)))
            broker.presence.register(senders[-1])
        before = sum(isinstance(each, _Trail) for each in gc.get_objects())
        for _ in range(3):
            with broker.turn:
                for session in senders:
                    for group in ("g", "h"):
                        drafts = [draft(group, channel_type=2), draft(group, channel_type=2)]
                        await broker.messages.submit(session.device, drafts, lambda _: None, session)
            await broker.flush()
        assert [len(session.received) for session in senders] == [12, 12]
        assert sum(isinstance(each, _Trail) for each in gc.get_objects()) == before
        kept = [weakref.ref(session) for session in senders]
        while senders:
            broker.presence.unregister(senders.pop())
        del session
        assert [each() for each in kept] == [None, None]


@pytest.mark.usefixtures("only_counted")
async def test_a_lane_keeps_nothing_of_what_it_took_together(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker, trio.open_nursery() as nursery:
        await broker.channels.create(GROUP, ChannelInfo(), ["ann", "bob"])
        receipt = await broker.messages.send(Device(uid="ann"), draft("g", channel_type=2))
        await broker.flush()
        messages = broker.messages.by_seqs(GROUP, [receipt.seq])
        lanes = Lanes(broker.presence, broker.channels, broker.hooks)
        senders = [MemorySession(Device(uid=uid)) for uid in ("ann", "bob")]
        for session in senders:
            broker.presence.register(session)
            await lanes.hand_over([Delivery(messages, session)])
        nursery.start_soon(lanes.run)
        await lanes.flush()
        assert [len(session.received) for session in senders] == [1, 1]
        kept = [weakref.ref(session) for session in senders]
        while senders:
            broker.presence.unregister(senders.pop())
        del session
        assert [each() for each in kept] == [None, None]
        nursery.cancel_scope.cancel()
