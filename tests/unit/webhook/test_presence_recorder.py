"""What the recorder keeps when its queue overflows, the plugin restarts, or the store is in the way."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import structlog
import trio
import trio.testing

from triolet_core import Broker, Device, StoreFull
from triolet_core.testing import MemorySession, open_test_broker
from triolet_webhook._events import decode_rows
from triolet_webhook._presence import ONLINE, ROWS, PresenceRecorder

ANN = Device(uid="ann")


@asynccontextmanager
async def recording(broker: Broker, *, limit: int = 100, max_rows: int = 100) -> AsyncIterator[PresenceRecorder]:
    """Record until the end of the block, then until nothing is left."""
    with broker.hooks.presence_changed.subscribe(limit=limit) as changes:
        recorder = PresenceRecorder(broker, changes, trio.Event(), max_rows, structlog.get_logger())
        await recorder.open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(recorder.run)
            yield recorder
            recorder.stopping.set()


def rows(broker: Broker) -> list[str]:
    return [row.six() for _, payload in broker.queues.read(ROWS, 0, 1000) for row in decode_rows(payload)[0]]


def come(broker: Broker, count: int, *, flag: int = 1) -> list[MemorySession]:
    sessions = [MemorySession(attrs.evolve(ANN, flag=flag, device_id=f"d{n}")) for n in range(count)]
    for session in sessions:
        broker.presence.register(session)
    return sessions


async def test_what_comes_and_goes_is_recorded_and_nobody_is_left_online(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        async with recording(broker):
            [session] = come(broker, 1)
            broker.presence.unregister(session)
        number = session.connection_id
        assert rows(broker) == [f"ann-1-1-{number}-1-1", f"ann-1-0-{number}-0-0"]
        assert broker.queues.size(ONLINE).count == 0


async def test_what_the_queue_dropped_is_found_by_comparing(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        async with recording(broker, limit=3) as recorder:
            sessions = come(broker, 10)
            broker.presence.unregister(sessions[0])
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert recorder.changes.dropped > 0
            broker.presence.unregister(sessions[1])
        state = {row.rsplit("-", 3)[1]: row.rsplit("-", 4)[1] for row in rows(broker)}
        alive = {str(session.connection_id) for session in sessions[2:]}
        assert {number for number, online in state.items() if online == "1"} == alive
        assert broker.queues.size(ONLINE).count == 8
        assert recorder.compared_total == 1


async def test_a_plugin_that_runs_again_says_nothing_about_who_stayed(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        async with recording(broker):
            stays, goes = come(broker, 2)
        broker.presence.unregister(goes)
        [comes] = come(broker, 1, flag=0)
        before = len(rows(broker))
        async with recording(broker):
            pass
        assert rows(broker)[before:] == [f"ann-1-0-{goes.connection_id}-1-1", f"ann-0-1-{comes.connection_id}-1-2"]
        assert broker.queues.size(ONLINE).count == 2
        assert stays in broker.presence.sessions("ann")


async def test_after_a_crash_everybody_went_in_pages(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        async with recording(broker):
            sessions = come(broker, 5)
        before = len(rows(broker))
    async with open_test_broker(tmp_path) as broker:
        async with recording(broker, max_rows=2):
            pass
        expected = [f"ann-1-0-{session.connection_id}-{4 - n}-{4 - n}" for n, session in enumerate(sessions)]
        assert rows(broker)[before:] == expected
        assert broker.queues.size(ONLINE).count == 0


async def test_a_store_without_room_delays_and_loses_nothing(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_test_broker(tmp_path) as broker:
        change = broker.queues.change
        failures = 3

        async def flaky(edits: object) -> list[int]:
            nonlocal failures
            failures -= 1
            if failures >= 0:
                raise StoreFull("no space")
            return await change(edits)  # type: ignore[arg-type]

        async with recording(broker):
            broker.queues.change = flaky  # type: ignore[method-assign]  # the disk is full for a while
            [session] = come(broker, 1)
        assert rows(broker) == [f"ann-1-1-{session.connection_id}-1-1"]
        assert broker.queues.size(ONLINE).count == 1
