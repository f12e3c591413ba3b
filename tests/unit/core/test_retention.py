"""What is old goes, what was acknowledged and is to be kept stays (issue 4, data life cycle)."""

import time
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from triolet_core import SYNC_ONCE, Broker, ChannelInfo, ChannelKey, Device, Draft, EventDraft, Query, ServerConfig
from triolet_core.config import RetentionConfig, StoreConfig
from triolet_core.config._settings import type_bounds
from triolet_core.model import SLOT_COUNT, SYSTEM_UID, ChannelType, person_channel_id, slot_of
from triolet_core.testing import FakeClock, MemorySession, SlowStepGuard, draft, open_test_broker

A = Device(uid="a")
SERVER = Device(uid="a", is_server=True)
SYSTEM = Device(uid=SYSTEM_UID, is_server=True)
AB = ChannelKey(person_channel_id("a", "b"), 1)
GROUP = ChannelKey("g", 2)
DAY = 86_400


def settings(**changes: Any) -> ServerConfig:
    return ServerConfig(retention=RetentionConfig(**changes))


async def send(broker: Broker, count: int = 1, key: ChannelKey = AB, expire: int = 0) -> None:
    channel_id = "b" if key == AB else key.id
    drafts = [Draft(channel_id, key.type, b"x", expire=expire) for _ in range(count)]
    receipts = await broker.messages.send_many(SERVER, drafts)
    assert all(receipt.seq for receipt in receipts)


def seqs(broker: Broker, key: ChannelKey = AB) -> list[int]:
    page = broker.messages.sync(key, start=0, end=0, limit=10_000, newer=False)
    return [message.seq for message in page.messages]


# --- expiry


async def test_an_expired_message_is_not_handed_out_and_then_deleted(tmp_path: Path) -> None:
    """semantics.md, section 2.2."""
    clock = FakeClock()
    async with open_test_broker(tmp_path, clock_s=clock) as broker:
        await send(broker, expire=10)
        await send(broker)
        await send(broker, expire=20)
        clock.move(9.5)
        assert seqs(broker) == [1, 2, 3]
        clock.move(0.5)
        assert seqs(broker) == [2, 3]
        assert broker.messages.by_seqs(AB, [1]) == []
        found, _ = await broker.search.channel(AB, Query(), 10)
        assert [message.seq for message in found] == [2, 3]
        assert await broker.retention.sweep_all() == 1
        assert await broker.retention.sweep_all() == 0
    async with open_test_broker(tmp_path, clock_s=clock) as broker:
        clock.move(100)
        assert await broker.retention.sweep_all() == 1
        assert seqs(broker) == [2]
        await send(broker)
        assert seqs(broker) == [2, 4]


async def test_the_longest_expiry_and_many_at_once(tmp_path: Path) -> None:
    clock = FakeClock()
    async with open_test_broker(tmp_path, clock_s=clock) as broker:
        await send(broker, 1, expire=2**32 - 1)
        await send(broker, 1200, expire=1)
        clock.move(1)
        assert await broker.retention.sweep_all() == 1200
        assert seqs(broker) == [1]


# --- age and number


async def test_what_is_older_than_the_age_goes(tmp_path: Path) -> None:
    clock = FakeClock()
    async with open_test_broker(tmp_path, settings(max_age=100), clock_s=clock) as broker:
        for _ in range(3):
            await send(broker)
            clock.move(50)
        assert await broker.retention.sweep_all() == 1
        assert seqs(broker) == [2, 3]
        clock.move(1000)
        assert await broker.retention.sweep_all() == 2
        assert broker.messages.max_seq(AB) == 3


async def test_the_newest_so_many_stay(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path, settings(max_count=5)) as broker:
        await send(broker, 1300)
        await send(broker, 5, ChannelKey("other", 2))
        assert await broker.retention.sweep_all() == 1295
        assert seqs(broker) == [1296, 1297, 1298, 1299, 1300]
        assert seqs(broker, ChannelKey("other", 2)) == [1, 2, 3, 4, 5]
        assert await broker.retention.sweep_all() == 0


async def test_messages_are_counted_and_not_their_numbers(tmp_path: Path) -> None:
    """What somebody deleted does not count against what is kept."""
    async with open_test_broker(tmp_path, settings(max_count=4)) as broker:
        await send(broker, 10)
        await broker.revisions.delete(AB, [5, 7, 8, 9])
        assert await broker.retention.sweep_all() == 2
        assert seqs(broker) == [3, 4, 6, 10]
        await broker.revisions.delete(AB, [10])
        assert await broker.retention.sweep_all() == 0
        assert seqs(broker) == [3, 4, 6]


@pytest.mark.parametrize(
    ("key", "info", "expected"),
    [
        (GROUP, None, 3),
        (ChannelKey("c", 4), None, 1),
        (AB, None, 4),
        (GROUP, ChannelInfo(keep_count=2), 2),
        (ChannelKey("c", 4), ChannelInfo(keep_count=5), 5),
        (GROUP, ChannelInfo(keep_s=1), 0),
        (ChannelKey("c", 4), ChannelInfo(keep_s=200), 1),
    ],
)
async def test_a_channel_wins_over_its_type_and_that_over_the_default(
    tmp_path: Path, key: ChannelKey, info: ChannelInfo | None, expected: int
) -> None:
    clock = FakeClock()
    config = settings(max_age=100, max_count=4, types=("2:0s:3", "4:1m:1"))
    async with open_test_broker(tmp_path, config, clock_s=clock) as broker:
        if info is not None:
            await broker.channels.create(key, info, ["a"])
        await send(broker, 8, key)
        clock.move(50)
        await broker.retention.sweep_all()
        assert len(seqs(broker, key)) == expected


async def test_without_bounds_everything_stays(tmp_path: Path) -> None:
    clock = FakeClock()
    async with open_test_broker(tmp_path, clock_s=clock) as broker:
        await send(broker, 20)
        clock.move(10_000 * DAY)
        assert await broker.retention.sweep_all() == 0
        assert len(seqs(broker)) == 20


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("9:1d:1000", (9, (DAY, 1000))),
        ("2:0:5", (2, (0, 5))),
        ("255:1m30s:0", (255, (90, 0))),
        ("1:500ms:0", (1, (1, 0))),  # not 0, which would be for ever
        ("1:30:7", (1, (30, 7))),
    ],
)
def test_bounds_of_a_type(text: str, expected: tuple[int, tuple[int, int]]) -> None:
    assert type_bounds(text) == expected


@pytest.mark.parametrize(
    "text", ["", "9", "9:1d", "0:1d:1", "256:1d:1", "9:1x:1", "9:1d:-1", "9:1d:1:1", "a:1d:1", "9::1"]
)
def test_bounds_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not type:age:count"):
        type_bounds(text)


# --- commands, temporary channels, streams


async def test_commands_go_after_their_days_whatever_their_channel_keeps(tmp_path: Path) -> None:
    clock = FakeClock()
    async with open_test_broker(tmp_path, settings(cache_days=2, max_count=1), clock_s=clock) as broker:
        for _ in range(3):
            await broker.messages.send(SERVER, Draft("b", 1, b"x", flags=SYNC_ONCE))
        companion = ChannelKey(f"{AB.id}____cmd", 1)
        await broker.retention.sweep_all()
        assert len(broker.commands.waiting("b")) == len(seqs(broker, companion)) == 3
        clock.move(2 * DAY + 1)
        await broker.retention.sweep_all()
        assert broker.commands.waiting("b") == []
        assert seqs(broker, companion) == []
        assert broker.messages.max_seq(companion) == 3


async def test_temporary_channels_of_one_send_go_altogether(tmp_path: Path) -> None:
    """Each message to listed users makes one; they would add up for ever."""
    clock = FakeClock()
    made = ChannelKey("made@tmp", ChannelType.TEMP)
    async with open_test_broker(tmp_path, settings(cache_days=1), clock_s=clock) as broker:
        await broker.channels.create(made, ChannelInfo(name="by a backend"), ["a"])
        for n in range(20):
            await broker.messages.send(SYSTEM, Draft(f"{n}@tmp", ChannelType.TEMP, b"x", to_uids=("a", "b")))
        before = broker.catalog.size()
        clock.move(DAY + 1)
        for _ in range(2):
            await broker.retention.sweep_all()
        assert [row.key for row in await broker.catalog.channels(lambda row: True)] == [made]
        assert broker.catalog.size().rows < before.rows
        receipt = await broker.messages.send(SYSTEM, Draft("1@tmp", ChannelType.TEMP, b"y", to_uids=("c",)))
        assert receipt.seq == 1
        again = ChannelKey("1@tmp", ChannelType.TEMP)
        assert seqs(broker, again) == [1]
        assert broker.channels.members(again) == ["c"]
    async with open_test_broker(tmp_path, clock_s=clock) as broker:
        assert seqs(broker, ChannelKey("1@tmp", ChannelType.TEMP)) == [1]


async def test_streams_without_a_message_go_and_those_of_messages_with_them(tmp_path: Path) -> None:
    clock = FakeClock()
    config = settings(cache_days=1, types=("1:3d:0",))
    async with open_test_broker(tmp_path, config, clock_s=clock) as broker:
        for no in ("lost", "n"):
            if no == "n":
                await broker.messages.send(SERVER, Draft("b", 1, b"x", client_msg_no=no, is_stream=True))
            for kind in ("stream.delta", "stream.close", "custom"):
                key = "main" if kind != "custom" else "other"
                event = EventDraft(channel=AB, client_msg_no=no, event_id=kind, event_type=kind, event_key=key)
                await broker.streams.add(event)
        rows = broker.catalog.size().rows
        clock.move(2 * DAY)
        await broker.retention.sweep_all()
        assert broker.streams.state(AB, "lost") is None
        assert broker.streams.state(AB, "n") is not None
        without = broker.catalog.size().rows
        clock.move(2 * DAY)
        await broker.retention.sweep_all()
        assert broker.streams.state(AB, "n") is None
        # a stream of two lanes, two stored events and three ids; with it a message, its log entry, but its number stays
        assert (rows - without, without - broker.catalog.size().rows) == (8, 9)


# --- the file, the loop, other users of the store


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["messages", "commands", "temporary"])
async def test_the_file_stays_bounded_under_steady_traffic(tmp_path: Path, kind: str) -> None:
    """LMDB uses the pages of what was deleted again."""
    clock = FakeClock()
    config = attrs.evolve(settings(max_count=50, cache_days=1), store=StoreConfig(sync="off"))
    sizes = []
    async with open_test_broker(tmp_path, config, clock_s=clock) as broker:
        for round_ in range(24):
            for n in range(10):
                flags = 0 if kind == "messages" else SYNC_ONCE
                if kind == "temporary":
                    to = Draft(f"{round_}-{n}@tmp", ChannelType.TEMP, b"x" * 500, to_uids=("b", "c"))
                    await broker.messages.send_many(SYSTEM, [to])
                else:
                    drafts = [Draft(f"peer{n}", 1, b"x" * 500, flags=flags) for _ in range(50)]
                    await broker.messages.send_many(SERVER, drafts)
            clock.move(DAY / 2)
            for slot in used_slots(kind, round_):
                await broker.retention.sweep(slot)
            sizes.append(broker.catalog.size())
    settled = sizes[8:]
    assert max(size.file_bytes for size in settled) <= 1.1 * settled[0].file_bytes
    counters = SLOT_COUNT * 40 if kind == "temporary" else 0  # bytes, on pages that may be half empty
    assert max(size.used_bytes for size in settled) <= 1.1 * settled[0].used_bytes + counters
    assert max(size.rows for size in settled) <= settled[0].rows + SLOT_COUNT  # each slot counts its channels


def used_slots(kind: str, round_: int) -> list[int]:
    """The slots that have something: looking at all 256 each time would take most of the test."""
    if kind == "temporary":
        names = [f"{each}-{n}@tmp" for each in range(max(round_ - 6, 0), round_ + 1) for n in range(10)]
        return sorted({slot_of(name) for name in [*names, "b", "c"]})
    pairs = [person_channel_id("a", f"peer{n}") for n in range(10)]
    return sorted({slot_of(name) for pair in pairs for name in (pair, f"{pair}____cmd")} | slots_of_users())


def slots_of_users() -> set[int]:
    return {slot_of(uid) for uid in ("a", *(f"peer{n}" for n in range(10)))}


@pytest.mark.slow
async def test_a_sweep_does_not_hold_the_loop_and_costs_no_message_that_is_to_be_kept(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path, settings(max_count=100)) as broker:
        await broker.channels.create(GROUP, ChannelInfo(), ["a", "b"])
        online = MemorySession(Device(uid="b"))
        broker.presence.register(online)
        await send(broker, 20_000, GROUP)
        await broker.flush()
        acknowledged: list[int] = []

        async def keep_sending() -> None:
            while True:
                receipt = await broker.messages.send(A, draft("g", channel_type=2))
                acknowledged.append(receipt.seq)

        guard = SlowStepGuard(clock=time.thread_time)
        trio.lowlevel.add_instrument(guard)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_sending)
            await broker.retention.sweep(slot_of(GROUP.id))
            nursery.cancel_scope.cancel()
        trio.lowlevel.remove_instrument(guard)
        await broker.flush()
        assert guard.slow == []
        assert acknowledged
        assert acknowledged == list(range(20_001, 20_001 + len(acknowledged)))
        kept = seqs(broker, GROUP)
        assert set(kept) >= set(acknowledged[-100:])
        assert 100 <= len(kept) <= 100 + len(acknowledged) + 1
        assert [message.seq for message in online.received] == list(range(1, broker.messages.max_seq(GROUP) + 1))


async def test_the_servers_own_sweep_comes_at_its_interval_and_outlives_a_full_store(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    config = attrs.evolve(settings(max_count=2, interval=60), store=StoreConfig(map_size=1 << 18))  # type: ignore[arg-type]
    async with open_test_broker(tmp_path, config) as broker:
        for _ in range(100):
            await broker.messages.send(SERVER, Draft("b", 1, b"x" * 3000))
        seen, started = broker.retention.sweeps, trio.current_time()
        while broker.retention.sweeps < seen + 2:
            await trio.sleep(30)
        assert trio.current_time() >= started + 60
        await send(broker)
        assert len(seqs(broker)) <= 3


async def test_a_cancelled_sweep_leaves_the_rest_for_the_next(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path, settings(max_count=10)) as broker:
        await send(broker, 2000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(broker.retention.sweep_all)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await broker.flush()
        await broker.retention.sweep_all()
        assert seqs(broker) == list(range(1991, 2001))
