"""What is acknowledged and not in LMDB yet: seen by every read, bounded, settled when the store closes."""

import gc
import time
from functools import partial
from pathlib import Path

import attrs
import lmdb
import pytest
import trio

from triolet_core import ChannelKey, Device, Draft, ServerConfig, StoreCorrupt, StoreFull
from triolet_core._broker import Broker
from triolet_core.config import ChannelConfig, StoreConfig
from triolet_core.model import person_channel_id
from triolet_core.store import FILE_NAME, _backlog, _journal, _queries
from triolet_core.store import _keys as keys
from triolet_core.testing import SlowStepGuard, open_test_broker

A = Device(uid="a")
B, C = (ChannelKey(person_channel_id("a", peer), 1) for peer in "bc")


async def send(broker: Broker, peer: str = "b", count: int = 1) -> list[int]:
    receipts = await broker.messages.send_many(A, [Draft(peer, 1, b"x") for _ in range(count)])
    return [receipt.seq for receipt in receipts]


async def opened(broker: Broker) -> None:
    """Make the channels of b and c, and leave nothing waiting."""
    await send(broker, "b")
    await send(broker, "c")
    await broker.settled(lambda: None)


def journal_sizes(path: Path) -> list[int]:
    return [(path / name).stat().st_size for name in _journal.FILE_NAMES]


async def test_a_read_sees_what_was_just_acknowledged(tmp_path: Path) -> None:
    """Whichever way it reads."""
    async with open_test_broker(tmp_path) as broker:
        await opened(broker)
        holds = broker._store.backlog.holds
        for read in (
            lambda: broker.messages.max_seq(B),
            lambda: broker.messages.sync(B, start=0, end=0, limit=1, newer=False).messages[-1].seq,
            lambda: broker.conversations.every("b")[0].unread,
            lambda: broker.conversations.unread("b", B),
            lambda: broker.catalog.channel(B).last_seq,  # type: ignore[union-attr]  # it is there
        ):
            [seq] = await send(broker)
            assert holds(B)
            assert read() == seq
            assert not holds(B)
        [seq] = await send(broker)
        assert (await broker.catalog.conversations("b"))[0].conversation.unread == seq
        receipts = await broker.messages.send_many(A, [Draft("b", 1, b"x")])
        assert broker.messages.by_id(B, receipts[0].message_id) is not None
        await broker.commits.acknowledge("consumer", broker.commits.end())
        assert broker.commits.position("consumer") == receipts[0].message_id


async def test_readers_of_other_channels_settle_nothing(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await opened(broker)
        await send(broker, "b")
        assert broker.messages.max_seq(C) == 1
        assert await broker.settled(lambda: broker.messages.max_seq(C), C) == 1
        assert broker._store.backlog.holds(B)


async def test_many_readers_share_one_transaction_and_do_not_hold_the_loop(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await opened(broker)
        await send(broker, count=500)
        before, found = broker._store.env.info()["last_txnid"], []

        async def read() -> None:
            found.append(await broker.settled(lambda: broker.messages.max_seq(B), B))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(read)
        assert found == [501] * 50
        assert broker._store.env.info()["last_txnid"] == before + 1


async def test_a_settled_read_is_not_held_up_by_what_is_sent_meanwhile(tmp_path: Path) -> None:
    """It owes its caller what was acknowledged before the call, and waits for no more."""
    async with open_test_broker(tmp_path) as broker:
        await opened(broker)
        settle = broker._store.backlog.settle

        async def settle_and_let_others_send(key: ChannelKey | None = None) -> None:
            await settle(key)
            await send(broker)

        broker._store.backlog.settle = settle_and_let_others_send  # type: ignore[method-assign]
        await send(broker)
        assert await broker.settled(lambda: broker.messages.max_seq(B), B) == 2
        assert broker._store.backlog.holds(B)
        assert broker.messages.max_seq(B) == 3


async def test_what_waits_is_settled_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_backlog, "INTERVAL_S", 0.001)
    async with open_test_broker(tmp_path) as broker:
        await opened(broker)
        await send(broker)
        with trio.fail_after(10):
            while broker._store.backlog.holds():
                await trio.lowlevel.checkpoint()
        assert broker._store.read_facts(lambda txn: _queries.max_seq(txn, B)) == 2


async def test_work_in_a_transaction_sees_what_waits_and_takes_it_along(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await opened(broker)
        await send(broker, count=3)
        await broker.conversations.mark_read("b", B)
        assert not broker._store.backlog.holds()
        assert broker.conversations.unread("b", B) == 0


async def test_failing_work_takes_nothing_of_what_waits_with_it(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await opened(broker)
        await send(broker, count=3)

        def bad(sealer: object) -> None:
            assert _queries.max_seq(sealer.txn, B) == 4  # type: ignore[attr-defined]
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            await broker._store.writer.change(bad)
        assert await send(broker) == [5]
        assert broker.messages.max_seq(B) == 5


async def test_a_store_that_was_closed_has_an_empty_journal(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await opened(broker)
        await send(broker, count=10)
        assert any(journal_sizes(tmp_path))
    assert journal_sizes(tmp_path) == [0, 0]
    async with open_test_broker(tmp_path) as broker:
        assert broker.messages.max_seq(B) == 11


async def test_a_server_that_is_cancelled_settles_too(tmp_path: Path) -> None:
    with trio.CancelScope() as scope:
        async with open_test_broker(tmp_path) as broker:
            await opened(broker)
            await send(broker, count=10)
            scope.cancel()
            await trio.sleep_forever()
    assert journal_sizes(tmp_path) == [0, 0]
    async with open_test_broker(tmp_path) as broker:
        assert broker.messages.max_seq(B) == 11


async def test_sending_holds_the_loop_for_short_times_only(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await opened(broker)
        guard = SlowStepGuard(clock=time.thread_time)
        gc.disable()  # a collection goes through all that the tests have made
        try:
            trio.lowlevel.add_instrument(guard)
            for _ in range(5):
                await send(broker, count=2000)
        finally:
            gc.enable()
            trio.lowlevel.remove_instrument(guard)
    assert [each for each in guard.slow if "Writer" in each[0] or "Backlog" in each[0]] == []


async def test_a_map_that_is_nearly_full_gets_no_backlog_that_it_cannot_take(tmp_path: Path) -> None:
    """What is acknowledged must fit: then every batch is a transaction, and says itself that there is no room."""
    config = attrs.evolve(ServerConfig(), store=StoreConfig(map_size=2 << 20))
    async with open_test_broker(tmp_path, config) as broker:
        acknowledged = 0
        for _ in range(3000):
            [receipt] = await broker.messages.send_many(A, [Draft("b", 1, bytes(4000))])
            if receipt.seq == 0:
                break
            acknowledged = receipt.seq
        assert 100 < acknowledged < 3000
        assert broker.is_full
        assert broker.messages.max_seq(B) == acknowledged
    async with open_test_broker(tmp_path, config) as broker:
        assert broker.messages.max_seq(B) == acknowledged


async def test_a_full_disk_below_the_journal_costs_nothing_that_was_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LMDB has space of its own left, so that sends go on there."""
    async with open_test_broker(tmp_path) as broker:
        await opened(broker)
        await send(broker, count=5)

        def full(journal: object, body: bytes) -> None:
            raise StoreFull("no space is left for the journal")

        monkeypatch.setattr(_journal.Journal, "append", full)
        assert await send(broker, count=2) == [7, 8]
        assert not broker._store.backlog.holds()
    async with open_test_broker(tmp_path) as broker:
        assert broker.messages.max_seq(B) == 8


async def test_a_tree_that_cannot_grow_keeps_the_journal_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing more is taken, reads of what waits are refused, and the next start finds it in the journal."""
    async with open_test_broker(tmp_path) as broker:
        await opened(broker)
        await send(broker, count=5)
        with monkeypatch.context() as patch:

            def full(*args: object) -> None:
                raise lmdb.MapFullError("full")

            patch.setattr(_backlog, "put_rows", full)
            with pytest.raises(StoreFull, match="no space is left"):
                broker.messages.max_seq(B)
            with pytest.raises(StoreFull):
                await broker.settled(lambda: None)
            assert await send(broker) == [0]
            assert broker.is_full
            assert broker.messages.max_seq(C) == 1
        assert await send(broker) == [7]
        assert not broker.is_full
        assert broker.messages.max_seq(B) == 7


async def test_a_store_of_format_1_is_brought_up_to_date(tmp_path: Path) -> None:
    """It had positions of consumers behind the commit log, and no journal."""
    async with open_test_broker(tmp_path) as broker:
        await opened(broker)
        await broker.commits.acknowledge("consumer", 77)
    with (
        lmdb.open(str(tmp_path / FILE_NAME), subdir=False, map_size=1 << 30) as env,
        env.begin(write=True) as txn,
    ):
        new = keys.cursor("consumer")
        txn.put(new[:2] + b"\x03" + new[3:], txn.pop(new))
        txn.put(keys.meta("format"), b"1")
        for name in ("journal key", _backlog.APPLIED):
            txn.delete(keys.meta(name))
    for name in _journal.FILE_NAMES:
        (tmp_path / name).unlink()
    async with open_test_broker(tmp_path) as broker:
        assert broker.commits.position("consumer") == 77
        assert broker.messages.max_seq(B) == 1
        assert await send(broker) == [2]
        assert broker._store.read(lambda txn: _queries.meta(txn, "format")) == b"2"


async def test_the_journal_of_another_store_is_not_taken_for_ones_own(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path / "theirs") as broker:
        await opened(broker)
        await send(broker, count=5)
        foreign = (tmp_path / "theirs" / _journal.FILE_NAMES[0]).read_bytes()
    async with open_test_broker(tmp_path / "mine") as broker:
        await opened(broker)
    (tmp_path / "mine" / _journal.FILE_NAMES[0]).write_bytes(foreign)
    async with open_test_broker(tmp_path / "mine") as broker:
        assert broker.messages.max_seq(B) == 1


async def test_a_store_that_lost_the_key_of_its_journal_is_refused(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await opened(broker)
        await broker._store.writer.change(lambda sealer: sealer.txn.delete(keys.meta("journal key")))
    with pytest.raises(StoreCorrupt, match="has lost the key of its journal"):
        async with open_test_broker(tmp_path):
            pass


async def test_channels_that_wait_are_not_forgotten_when_memory_is_tidied(tmp_path: Path) -> None:
    """Their ends are known to nobody else: a number would be given twice."""
    async with open_test_broker(tmp_path, ServerConfig(channel=ChannelConfig(cache_count=3))) as broker:
        peers = [f"p{n}" for n in range(10)]
        for peer in peers:
            await send(broker, peer)
        await broker.settled(lambda: None)
        for seq in (2, 3, 4):
            assert [await send(broker, peer) for peer in peers] == [[seq]] * 10


async def test_a_repeat_of_what_waits_answers_the_first_message(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await opened(broker)
        again = partial(broker.messages.send, A, Draft("b", 1, b"x", client_msg_no="n"))
        first = await again()
        assert broker._store.backlog.holds(B)
        assert await again() == first


async def test_who_reads_far_behind_in_the_log_is_not_held_up_by_what_waits(tmp_path: Path) -> None:
    """A page that is shorter because of its bytes is a page; only where there is none, the rest is looked for."""
    async with open_test_broker(tmp_path) as broker:
        await opened(broker)
        start = broker.commits.end()
        ids = [receipt.message_id for receipt in await broker.messages.send_many(A, [Draft("b", 1, b"x")] * 5)]
        await broker.settled(lambda: None)
        broker.commits.forget()
        [last] = await broker.messages.send_many(A, [Draft("b", 1, b"x")])
        broker.commits.forget()
        pages = [[message.message_id for message in broker.commits.read(start, 9, max_bytes=n)] for n in (3, 9)]
        assert pages == [ids[:3], ids]
        assert broker._store.backlog.holds()
        assert [message.message_id for message in broker.commits.read(ids[-1], 9)] == [last.message_id]
