"""The message store: one LMDB environment, one writer, readers on snapshots."""

import fcntl
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import lmdb
import structlog
import trio

from triolet_core._ids import IdSource, tick_of_id
from triolet_core.config import MessageConfig, StoreConfig
from triolet_core.errors import StoreCorrupt, StoreError, StoreFull, StoreLocked
from triolet_core.model import ChannelKey
from triolet_core.store import _dedupe, _queries
from triolet_core.store import _keys as keys
from triolet_core.store._backlog import APPLIED, Backlog, put_rows
from triolet_core.store._journal import Journal, open_journal
from triolet_core.store._records import FORMAT
from triolet_core.store._scan import is_whole
from triolet_core.store._sealer import CEILING, Sealer
from triolet_core.store._writer import AfterCommit, NothingFollows, Turn, Work, Writer

R = TypeVar("R")

FILE_NAME = "triolet.mdb"
_MAGIC = b"triolet"
_JOURNAL_KEY = "journal key"
_CURSOR_OF_FORMAT_1 = 0x03
_FEW_ROWS = 10_000
"""A store of no more fills the window of repeats (10 ms) before it opens."""


class Store:
    """Reads are functions of a snapshot and run on the loop; writes go through the one writer.

    What was acknowledged is seen by every later read. Messages, their commit log, their expiries and positions of
    consumers may wait in the backlog: reads of those first bring them into LMDB, and block the loop for that; inside of
    `settled` they need not.
    """

    def __init__(self, env: lmdb.Environment, writer: Writer, backlog: Backlog, ids: IdSource) -> None:
        self.env = env
        self.writer = writer
        self.backlog = backlog
        self.ids = ids
        self._is_settled = False

    async def settled(self, question: Callable[[], R], key: ChannelKey | None = None) -> R:
        """Call a function whose reads see all that was acknowledged before this call, and block the loop for no disk.

        Not a checkpoint if nothing waits; with `key` it reads messages of that channel only.

        Raises:
            StoreFull: LMDB has no room for what waits.
        """
        if not self.backlog.holds(key):
            return question()
        await self.backlog.settle(key)
        self._is_settled = True  # until the function returns: nothing else runs on the loop meanwhile
        try:
            return question()
        finally:
            self._is_settled = False

    @contextmanager
    def snapshot(self, key: ChannelKey | None = None) -> Iterator[lmdb.Transaction]:
        """A read transaction; keep it short and do not await inside. With `key` only for messages of that channel."""
        self._settle_now(key)
        with self.env.begin() as txn:
            yield txn

    def read(self, question: Callable[[lmdb.Transaction], R], key: ChannelKey | None = None) -> R:
        """Answer a short question; with `key` one that reads messages of that channel only."""
        self._settle_now(key)
        return self.read_facts(question)

    def _settle_now(self, key: ChannelKey | None) -> None:
        if not self._is_settled:
            self.backlog.settle_now(key)

    def read_facts(self, question: Callable[[lmdb.Transaction], R]) -> R:
        """Answer a short question that reads nothing of what may wait in the backlog."""
        with self.env.begin() as txn:
            return question(txn)

    async def read_long(self, question: Callable[[lmdb.Transaction], R]) -> R:
        """Answer a question that may scan much, in a thread."""
        await self.backlog.settle()
        return await trio.to_thread.run_sync(self.read_facts, question, limiter=_scan_limiter())


_SCANS = trio.lowlevel.RunVar[trio.CapacityLimiter]("triolet scans")


def _scan_limiter() -> trio.CapacityLimiter:
    """Return the limiter for scans in threads, one for each running loop."""
    try:
        return _SCANS.get()
    except LookupError:
        limiter = trio.CapacityLimiter(4)
        _SCANS.set(limiter)
        return limiter


@asynccontextmanager
async def open_store(
    directory: Path,
    config: StoreConfig,
    message: MessageConfig,
    *,
    node: int,
    after_commit: AfterCommit,
    clock_s: Callable[[], float] = time.time,
    cache_count: int = 100_000,
) -> AsyncIterator[Store]:
    """Open the store in `directory`, which is made if need be; closing it commits what is queued.

    The ends of up to `cache_count` channels are kept in memory.

    Raises:
        StoreLocked: Another process holds it.
        StoreCorrupt: The file is foreign, damaged or of a newer format.
        StoreError: The directory cannot be used.
    """
    is_synced, is_whole_on_disk = config.sync != "off", config.sync == "full"
    with _held(directory), _environment(directory, config) as env:
        journal_key = _check_format(env)
        with open_journal(directory, journal_key, is_synced=is_synced) as journal:
            _sync_directory(directory)
            _recover(env, journal, may_have_holes=not is_whole_on_disk)
            dedupe = _dedupe.DedupeWindow(message.dedupe, message.dedupe_entries)
            ids = IdSource(node, lambda: int(clock_s() * 1000), first_tick=_first_tick(env, clock_s))
            backlog = Backlog(env, journal)
            sealer = Sealer(env, ids, dedupe, clock_s, channel_is_kept=backlog.holds, most_tails=cache_count)
            writer = Writer(
                env,
                sealer,
                backlog,
                queue_limit=config.queue_limit,
                queue_timeout_s=config.queue_timeout,
                max_batch=config.max_batch,
            )
            read = partial(_last_sends, env, message, clock_s())
            if dedupe.is_on and _row_count(env) > _FEW_ROWS:
                dedupe.expect_fill()
            elif dedupe.is_on:
                dedupe.fill(read)
            try:
                async with trio.open_nursery() as nursery:
                    if not dedupe.is_ready:
                        nursery.start_soon(_fill, dedupe, read)
                    await nursery.start(backlog.run)
                    await nursery.start(writer.run, after_commit)
                    await writer.change(lambda _: None)  # reserves message ids
                    try:
                        yield Store(env, writer, backlog, ids)
                        await writer.flush()
                    finally:
                        nursery.cancel_scope.cancel()
            finally:
                _leave_empty(env, backlog, journal)


def _recover(env: lmdb.Environment, journal: Journal, *, may_have_holes: bool) -> None:
    """Bring into LMDB what was acknowledged and is only in the journal."""
    with env.begin() as txn:
        applied = int.from_bytes(_queries.meta(txn, APPLIED) or b"", "big")
    bodies = journal.recover(applied, may_have_holes=may_have_holes)
    try:
        if journal.number > applied:
            with env.begin(write=True) as txn:
                put_rows(txn, bodies, journal.number)
            env.sync(True)  # noqa: FBT003  # of LMDB, by position only
    except (lmdb.MapFullError, lmdb.DiskError) as exc:
        raise StoreFull(f"no space is left in {env.path()} for what is in its journal: {exc}") from exc
    journal.settle(journal.number)
    journal.empty()


def _leave_empty(env: lmdb.Environment, backlog: Backlog, journal: Journal) -> None:
    """Close in order: LMDB has everything, and the journal nothing. A full disk leaves it to the next start."""
    try:
        backlog.settle_now()
    except StoreFull as exc:
        structlog.get_logger("store").error("the journal is kept until there is space", problem=str(exc))
        return
    env.sync(True)  # noqa: FBT003  # of LMDB, by position only
    journal.empty()


@contextmanager
def _held(directory: Path) -> Iterator[None]:
    """Hold the directory against other processes; the lock goes with the process."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise StoreError(f"the data directory {directory} cannot be used: {exc.strerror}") from exc
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise StoreLocked(
                f"another process holds the store in {directory}; stop it, or use another rootDir"
            ) from exc
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _environment(directory: Path, config: StoreConfig) -> Iterator[lmdb.Environment]:
    path = directory / FILE_NAME
    is_new = not path.exists()
    try:
        env = lmdb.open(
            str(path),
            subdir=False,
            map_size=config.map_size,
            sync=config.sync != "off",
            metasync=config.sync == "full",
            readahead=False,
            max_dbs=0,
            max_readers=64,
            mode=0o600,
        )
    except lmdb.Error as exc:
        raise StoreCorrupt(f"{path} is damaged or not a store: {exc}") from exc
    try:
        if is_new:
            _sync_directory(directory)
        _check_length(env, path)
        yield env
    finally:
        env.close()


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_length(env: lmdb.Environment, path: Path) -> None:
    """Refuse a file that ends before its last page, if that page is in use: reading it would end the process.

    Pages that one transaction gave and took back are counted and never written, so a sound file may be too short.
    """
    if path.stat().st_size == 0:
        return
    needed = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    size = path.stat().st_size
    if size >= needed:
        return
    os.truncate(path, needed)
    if not is_whole(path):
        os.truncate(path, size)
        raise StoreCorrupt(f"{path} is cut off: {size} bytes where {needed} are needed; restore a backup")


def _check_format(env: lmdb.Environment) -> bytes:
    """Return the key of the journal; a new store gets one, and one of an older format is brought to this one."""
    try:
        with env.begin() as txn:
            magic, version = _queries.meta(txn, "magic"), _queries.meta(txn, "format")
            journal_key = _queries.meta(txn, _JOURNAL_KEY)
            is_empty = txn.stat()["entries"] == 0
        if magic is None and is_empty:
            magic, version = _MAGIC, b"0"
        if magic == _MAGIC and version is not None and int(version) < FORMAT:
            journal_key = os.urandom(16)
            with env.begin(write=True) as txn:
                _bring_up(txn, journal_key)
            return journal_key
    except lmdb.Error as exc:
        raise StoreCorrupt(f"{env.path()} is damaged: {exc}") from exc
    if magic != _MAGIC or version is None:
        raise StoreCorrupt(f"{env.path()} is not a triolet store")
    if int(version) > FORMAT:
        raise StoreCorrupt(
            f"{env.path()} has format {int(version)}, this version reads up to {FORMAT}; use a newer triolet"
        )
    if journal_key is None:
        raise StoreCorrupt(f"{env.path()} has lost the key of its journal; restore a backup")
    return journal_key


def _bring_up(txn: lmdb.Transaction, journal_key: bytes) -> None:
    """Make an empty tree, or a store of format 1, one of this format."""
    old, new = (keys.table(keys.NODE, each) for each in (_CURSOR_OF_FORMAT_1, keys.CURSOR))
    for key, value in list(_queries.rows(txn, old)):
        txn.put(new + key[len(old) :], value)
        txn.delete(key)
    txn.put(keys.meta("magic"), _MAGIC)
    txn.put(keys.meta("format"), str(FORMAT).encode())
    txn.put(keys.meta(_JOURNAL_KEY), journal_key)


def _first_tick(env: lmdb.Environment, clock_s: Callable[[], float]) -> int:
    with env.begin() as txn:
        ceiling = int.from_bytes(_queries.meta(txn, CEILING) or b"", "big")
        logged = tick_of_id(_queries.last_logged_id(txn)) + 1
    return max(ceiling, logged, 1)


async def _fill(dedupe: _dedupe.DedupeWindow, read: Callable[[], dict[int, int]]) -> None:
    """Fill the window in a thread, while the server opens its listeners; what is sent meanwhile waits for it."""
    try:
        await trio.to_thread.run_sync(dedupe.fill, read, limiter=trio.CapacityLimiter(1))
    finally:
        dedupe.end_fill()


def _row_count(env: lmdb.Environment) -> int:
    count: int = env.stat()["entries"]
    return count


def _last_sends(env: lmdb.Environment, config: MessageConfig, now: float) -> dict[int, int]:
    """Return the message ids of the last sends by their keys, of two that are alike the newer one's."""
    most, since = config.dedupe_entries // 2, now - config.dedupe
    found: dict[int, int] = {}
    with env.begin() as txn:
        for message_id, timestamp, sender, channel, number in islice(_queries.sends_back(txn), most):
            if timestamp < since:
                break
            if number:
                found.setdefault(_dedupe.key_of(sender, channel.id, channel.type, number), message_id)
    return found


__all__ = ["FILE_NAME", "NothingFollows", "Sealer", "Store", "Turn", "Work", "Writer", "open_store"]
