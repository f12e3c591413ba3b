"""Retries, the cursor, the bounds of the backlog and the dead letters, with a receiver that is not there."""

import itertools
import json
import time
from pathlib import Path

import pytest
import structlog
import trio
import trio.testing

from tests.unit.webhook.fakes import FakeReceiver, Rig
from triolet_core import ChannelInfo, ChannelKey, Device
from triolet_core.config import Bytes, Seconds
from triolet_core.testing import MemorySession, draft, open_test_broker
from triolet_webhook import WebhookConfig
from triolet_webhook._receiver import Parcel

ANN = Device(uid="ann")


def config(**settings: object) -> WebhookConfig:
    return WebhookConfig(**{"msg_notify_event_retry_max_count": 0, **settings})  # type: ignore[arg-type]


def ids_of(parcels: list[Parcel]) -> list[int]:
    return [message["message_id"] for parcel in parcels for message in json.loads(parcel.body)]


async def test_pauses_double_with_jitter_up_to_the_longest(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_test_broker(tmp_path) as broker, trio.open_nursery() as nursery:
        rig = Rig(broker, FakeReceiver(is_down=True), config())
        consumer = await rig.consumer()
        nursery.start_soon(consumer.run)
        await broker.messages.send(ANN, draft("bob"))
        await rig.receiver.wait_for(tried=12)
        times = [at for at, _ in rig.receiver.tried]
        pauses = [after - before for before, after in itertools.pairwise(times)]
        for n, pause in enumerate(pauses):
            full = min(60.0, 2.0**n)
            assert full / 2 <= pause <= full
        assert len({round(pause / min(60.0, 2.0**n), 3) for n, pause in enumerate(pauses)}) > 5
        assert [parcel.attempt for _, parcel in rig.receiver.tried] == list(range(1, 13))
        rig.receiver.is_down = False
        await rig.receiver.wait_for(taken=1)
        nursery.cancel_scope.cancel()


async def test_a_batch_that_was_pushed_before_a_crash_is_pushed_again_as_it_was(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The event id stays, so that the receiver can drop the repeat; what came later is another event."""
    receiver = FakeReceiver(is_silent=True)
    async with open_test_broker(tmp_path) as broker:
        rig = Rig(broker, receiver, config())
        consumer = await rig.consumer()
        await broker.messages.send_many(ANN, [draft("bob", b"1"), draft("bob", b"2")])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(consumer.run)
            await receiver.changed.wait()  # taken, and the crash comes before that is known
            nursery.cancel_scope.cancel()
        await broker.messages.send(ANN, draft("bob", b"3"))
    receiver.is_silent = False
    async with open_test_broker(tmp_path) as broker:
        rig = Rig(broker, receiver, config())
        consumer = await rig.consumer()
        rig.stopping.set()
        await consumer.run()
    first, again, later = receiver.taken
    assert (again.event_id, again.body) == (first.event_id, first.body)
    assert later.event_id != first.event_id
    assert len(set(ids_of(receiver.taken))) == 3


async def test_a_stop_leaves_what_cannot_be_pushed_and_loses_nothing(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    receiver = FakeReceiver(is_down=True)
    async with open_test_broker(tmp_path) as broker:
        rig = Rig(broker, receiver, config())
        consumer = await rig.consumer()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(consumer.run)
            await broker.messages.send(ANN, draft("bob", b"1"))
            await receiver.wait_for(tried=1)
            before = len(receiver.tried)
            rig.stopping.set()  # at most one last attempt, then the consumer ends by itself
        assert len(receiver.tried) <= before + 1
    receiver.is_down = False
    async with open_test_broker(tmp_path) as broker:
        rig = Rig(broker, receiver, config())
        consumer = await rig.consumer()
        rig.stopping.set()
        await consumer.run()
        assert len(receiver.taken) == 1
        assert await rig.service().dead() == []


async def test_more_bytes_than_may_wait_move_to_one_dead_letter_that_brings_them_all_back(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    receiver = FakeReceiver(is_down=True)
    async with open_test_broker(tmp_path) as broker, trio.open_nursery() as nursery:
        rig = Rig(broker, receiver, config(backlog_bytes=Bytes(1000), msg_notify_event_count_per_push=2))
        consumer = await rig.consumer()
        nursery.start_soon(consumer.run)
        receipts = await broker.messages.send_many(ANN, [draft("bob", bytes(100)) for _ in range(30)])
        sent = [receipt.message_id for receipt in receipts]
        await receiver.wait_for(tried=1)
        await consumer.watch()
        assert consumer.figures()["backlog_bytes"] == 3000
        assert consumer.is_over_bound()
        await receiver.wait_for(tried=4)
        receiver.is_down = False
        while sent[-1] not in ids_of(receiver.taken):
            await receiver.changed.wait()
        kept = ids_of(receiver.taken)
        assert kept == sent[-len(kept) :]
        assert 8 <= len(kept) <= 10
        service = rig.service()
        letters = await service.dead()
        assert all(letter["event"] == "msg.notify" for letter in letters)
        assert len(letters) <= 2  # the batch that was under way, and the rest
        receiver.taken.clear()
        assert (await service.resend([letter["id"] for letter in letters]))["resent"]
        assert sorted(ids_of(receiver.taken) + kept) == sent
        assert max(len(json.loads(parcel.body)) for parcel in receiver.taken) == 2
        nursery.cancel_scope.cancel()


async def test_what_waits_too_long_moves_to_the_dead_letters_at_once(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """A receiver that was away for longer than webhook.backlogAge; the server starts again after that."""
    receiver = FakeReceiver()
    async with open_test_broker(tmp_path) as broker:
        rig = Rig(broker, receiver, config(backlog_age=Seconds(100)))
        await rig.consumer()
        await broker.messages.send(ANN, draft("bob", b"old"))
    async with open_test_broker(tmp_path) as broker:
        rig = Rig(broker, receiver, config(backlog_age=Seconds(100)))
        consumer = await rig.consumer(clock_s=lambda: time.time() + 1000)
        rig.stopping.set()
        await consumer.run()
        assert receiver.tried == []
        [letter] = await rig.service().dead()
        assert letter["attempts"] == 0
        assert "webhook.backlogAge" in letter["reason"]


async def test_a_backlog_near_its_bound_is_warned_of_once(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_test_broker(tmp_path) as broker:
        rig = Rig(broker, FakeReceiver(is_down=True), config(backlog_bytes=Bytes(1000)))
        consumer = await rig.consumer()
        with structlog.testing.capture_logs() as logs:
            await broker.messages.send(ANN, draft("bob", bytes(700)))
            await consumer.watch()
            assert logs == []
            await broker.messages.send(ANN, draft("bob", bytes(150)))
            await consumer.watch()
            await consumer.watch()
        [warning] = logs
        assert (warning["log_level"], warning["messages"], warning["bytes"]) == ("warning", 2, 850)


async def test_one_event_that_is_refused_does_not_hold_the_other(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    receiver = FakeReceiver(refuses=lambda parcel: parcel.event == "msg.notify")
    async with open_test_broker(tmp_path) as broker, trio.open_nursery() as nursery:
        rig = Rig(broker, receiver, config())
        for event in ("msg.notify", "msg.offline"):
            consumer = await rig.consumer(event)
            nursery.start_soon(consumer.run)
        await broker.messages.send_many(ANN, [draft("bob"), draft("cid")])
        await receiver.wait_for(taken=2)
        assert {parcel.event for parcel in receiver.taken} == {"msg.offline"}
        nursery.cancel_scope.cancel()


async def test_a_user_who_came_online_between_two_attempts_is_left_out(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    group = ChannelKey("g", 2)
    receiver = FakeReceiver(is_down=True)
    async with open_test_broker(tmp_path) as broker, trio.open_nursery() as nursery:
        await broker.channels.create(group, ChannelInfo(), ["ann", "bob", "cid"])
        rig = Rig(broker, receiver, config())
        consumer = await rig.consumer("msg.offline")
        nursery.start_soon(consumer.run)
        await broker.messages.send(ANN, draft("g", channel_type=2))
        await receiver.wait_for(tried=1)
        broker.presence.register(MemorySession(Device(uid="bob")))
        receiver.is_down = False
        await receiver.wait_for(taken=1)
        assert json.loads(receiver.tried[0][1].body)["to_uids"] == ["bob", "cid"]
        assert json.loads(receiver.taken[0].body)["to_uids"] == ["cid"]
        nursery.cancel_scope.cancel()


async def test_members_that_cannot_be_asked_for_are_asked_for_again(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    fails = True

    async def members(key: ChannelKey) -> list[str]:
        if fails and receiver_waits:
            raise RuntimeError("down")
        return ["ann", "bob"]

    receiver_waits = False
    receiver = FakeReceiver()
    async with open_test_broker(tmp_path) as broker, trio.open_nursery() as nursery:
        with broker.hooks.subscribers.responder("source", members, on_failure=None):
            rig = Rig(broker, receiver, config())
            consumer = await rig.consumer("msg.offline")
            await broker.messages.send(ANN, draft("g", channel_type=2))
            broker.channels.forget(ChannelKey("g", 2))
            receiver_waits = True
            nursery.start_soon(consumer.run)
            while not consumer.courier.counters.failed_attempts_total:
                await trio.testing.wait_all_tasks_blocked(0.01)
            fails = False
            await receiver.wait_for(taken=1)
            assert json.loads(receiver.taken[0].body)["to_uids"] == ["bob"]
            nursery.cancel_scope.cancel()


async def test_dead_letters_have_a_bound_in_bytes_and_age(tmp_path: Path) -> None:
    receiver = FakeReceiver(is_down=True)
    async with open_test_broker(tmp_path) as broker:
        rig = Rig(broker, receiver, config(dead_bytes=Bytes(1 << 20), dead_age=Seconds(50)))
        letters = rig.service().dead_letters
        consumer = await rig.consumer()
        for n in range(4):
            letters.clock_s = lambda n=n: 1000.0 + n * 10
            consumer.dead = letters
            await consumer._bury(f"event {n}", "down", 5, n, n + 1)
        letters.clock_s = lambda: 1065.0
        with structlog.testing.capture_logs() as logs:
            await letters.enforce_bounds()
        assert [letter.event_id for _, letter in letters.read(0, 10)] == ["event 2", "event 3"]
        assert (logs[0]["log_level"], logs[0]["letters"]) == ("error", 2)
        letters.max_bytes = letters.size().bytes - 1
        await letters.enforce_bounds()
        assert [letter.event_id for _, letter in letters.read(0, 10)] == ["event 3"]
        assert letters.dropped_total == 3


@pytest.mark.parametrize("steps", range(12))
async def test_cancelled_anywhere_it_goes_on_from_a_whole_state(
    tmp_path: Path, steps: int, autojump_clock: trio.testing.MockClock
) -> None:
    """Cancel the consumer after `steps` scheduler passes; a second one delivers everything, in order."""
    receiver = FakeReceiver()
    async with open_test_broker(tmp_path) as broker:
        rig = Rig(broker, receiver, config(msg_notify_event_count_per_push=2))
        consumer = await rig.consumer()
        receipts = await broker.messages.send_many(ANN, [draft("bob", str(n).encode()) for n in range(6)])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(consumer.run)
            for _ in range(steps * 3):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        second = await rig.consumer()
        rig.stopping.set()
        await second.run()
        first_times = list(dict.fromkeys(ids_of(receiver.taken)))
        assert first_times == [receipt.message_id for receipt in receipts]
