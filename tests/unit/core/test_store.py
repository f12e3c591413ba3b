import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import lmdb
import pytest
import trio
import trio.testing

from triolet_core import ChannelKey, StoreCorrupt, StoreFull, StoreLocked
from triolet_core.config import MessageConfig, StoreConfig
from triolet_core.model import Draft, Message
from triolet_core.store import FILE_NAME, NothingFollows, Sealer, Store, _queries, open_store
from triolet_core.store import _keys as keys

GROUP = ChannelKey("g", 2)


@asynccontextmanager
async def store_in(
    path: Path, *, now: float = 1_700_000_000.0, config: StoreConfig | None = None, dedupe: float = 600
) -> AsyncIterator[Store]:
    message = MessageConfig(dedupe=dedupe)
    async with open_store(
        path, config or StoreConfig(), message, node=1, after_commit=NothingFollows(), clock_s=lambda: now
    ) as store:
        yield store


def draft(no: str = "", payload: bytes = b"x") -> Draft:
    return Draft("g", 2, payload, client_msg_no=no)


async def append(
    store: Store, *drafts: Draft, key: ChannelKey = GROUP, sender: str = "a"
) -> list[tuple[Message, bool]]:
    return await store.writer.change(lambda sealer: sealer.append(key, sender, drafts))


def history(store: Store, key: ChannelKey = GROUP) -> list[Message]:
    return store.read(lambda txn: list(_queries.messages_from(txn, key, 0)))


async def test_messages_are_there_after_reopening_with_the_same_id_and_seq(tmp_path: Path) -> None:
    """Conformance 58."""
    async with store_in(tmp_path) as store:
        first = [m for m, _ in await append(store, draft("1"), draft("2", b"\x00\xff"))]
    async with store_in(tmp_path) as store:
        again = history(store)
    assert [attrs.astuple(m) for m in again] == [attrs.astuple(m) for m in first]
    assert [m.seq for m in again] == [1, 2]


async def test_sequences_go_on_after_a_restart_and_ids_stay_above_a_clock_that_went_back(tmp_path: Path) -> None:
    async with store_in(tmp_path, now=1_700_000_000) as store:
        [(old, _)] = await append(store, draft())
        refused = store.ids.block(1)[0]
    async with store_in(tmp_path, now=1_600_000_000) as store:
        [(new, _)] = await append(store, draft())
    assert new.seq == old.seq + 1
    assert new.message_id > refused > old.message_id


async def test_the_first_message_after_a_long_silence_gets_its_id(tmp_path: Path) -> None:
    """Ids are reserved a minute ahead, and longer than that nothing was written."""
    now = 1_700_000_000.0

    async with open_store(
        tmp_path, StoreConfig(), MessageConfig(), node=1, after_commit=NothingFollows(), clock_s=lambda: now
    ) as store:
        [(first, _)] = await append(store, draft())
        now += 86_400
        [(second, _)] = await append(store, draft())
    assert (second.message_id >> 22) - (first.message_id >> 22) == 86_400_000


async def test_a_repeat_answers_the_first_message(tmp_path: Path) -> None:
    """Same sender, channel, client_msg_no and payload; also in one batch and after a restart."""
    async with store_in(tmp_path) as store:
        answers = await append(store, draft("n"), draft("n"), draft("n", b"other"))
        assert [(m.seq, new) for m, new in answers] == [(1, True), (1, False), (2, True)]
    async with store_in(tmp_path) as store:
        [(message, is_new)] = await append(store, draft("n", b"other"))
        assert (message.seq, is_new) == (2, False)
        [(message, is_new)] = await append(store, draft("n"), sender="b")
        assert (message.seq, is_new) == (3, True)


async def test_without_dedupe_the_same_number_is_stored_twice(tmp_path: Path) -> None:
    """Conformance 42, with `message.dedupe: 0`."""
    async with store_in(tmp_path, dedupe=0) as store:
        answers = await append(store, draft("n"), draft("n"))
    assert [(m.seq, new) for m, new in answers] == [(1, True), (2, True)]


async def test_outside_the_window_a_repeat_is_a_new_message(tmp_path: Path) -> None:
    async with store_in(tmp_path, now=1_700_000_000) as store:
        await append(store, draft("n"))
    async with store_in(tmp_path, now=1_700_000_700) as store:
        [(message, is_new)] = await append(store, draft("n"))
    assert (message.seq, is_new) == (2, True)


async def test_work_that_raises_fails_alone_and_leaves_no_gap(tmp_path: Path) -> None:
    def bad(sealer: Sealer) -> None:
        sealer.append(GROUP, "a", [draft("lost")])
        raise ValueError("no")

    async with store_in(tmp_path) as store:
        await append(store, draft("1"))
        with pytest.raises(ValueError, match="no"):
            await store.writer.change(bad)
        await append(store, draft("2"))
        assert [(m.client_msg_no, m.seq) for m in history(store)] == [("1", 1), ("2", 2)]


async def test_a_full_store_refuses_writes_and_still_reads(tmp_path: Path) -> None:
    config = StoreConfig(map_size=256 * 1024)
    async with store_in(tmp_path, config=config) as store:
        await append(store, draft("1"))
        with pytest.raises(StoreFull):
            for _ in range(100):
                await append(store, draft(payload=b"x" * 10_000))
        stored = history(store)
        assert [m.seq for m in stored] == list(range(1, len(stored) + 1))


async def test_a_second_process_is_refused_with_a_clear_message(tmp_path: Path) -> None:
    async with store_in(tmp_path):
        with pytest.raises(StoreLocked, match="another process holds"):
            async with store_in(tmp_path):
                pass


async def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(os.urandom(16384))
    with pytest.raises(StoreCorrupt, match="damaged or not a store"):
        async with store_in(tmp_path):
            pass


async def test_a_foreign_lmdb_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path / FILE_NAME), subdir=False) as env, env.begin(write=True) as txn:
        txn.put(b"theirs", b"1")
    with pytest.raises(StoreCorrupt, match="not a triolet store"):
        async with store_in(tmp_path):
            pass


async def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    async with store_in(tmp_path) as store:
        await store.writer.change(lambda sealer: sealer.txn.put(keys.meta("format"), b"99"))
    with pytest.raises(StoreCorrupt, match="has format 99"):
        async with store_in(tmp_path):
            pass


async def test_a_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    async with store_in(tmp_path) as store:
        for _ in range(20):
            await append(store, draft(payload=b"x" * 5000))
    path = tmp_path / FILE_NAME
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(StoreCorrupt, match="cut off"):
        async with store_in(tmp_path):
            pass


def test_every_key_of_a_slot_lies_in_the_slots_range() -> None:
    key = ChannelKey("x" * 1000, 2)
    for raw in (keys.channel(key), keys.conversation("u" * 500, key), keys.device("u", 255)):
        assert len(raw) <= 511


async def test_a_batch_that_is_begun_is_finished_when_the_store_is_cancelled(tmp_path: Path) -> None:
    """It waits for a transaction that is under way; whoever sent it is told what became of it."""
    answers = []

    async def serve(*, task_status: trio.TaskStatus[tuple[trio.CancelScope, Store]]) -> None:
        with trio.CancelScope() as scope:
            async with store_in(tmp_path) as store:
                task_status.started((scope, store))
                await trio.sleep_forever()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            scope, store = await nursery.start(serve)

            async def send() -> None:
                answers.extend(await append(store, draft()))

            await store.backlog.turn.acquire()
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            store.backlog.turn.release()
    assert [(message.seq, is_new) for message, is_new in answers] == [(1, True)]
    async with store_in(tmp_path) as store:
        assert [message.seq for message in history(store)] == [1]
