"""The message store: one LMDB environment, one writer, readers on snapshots."""

import fcntl
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar

import lmdb
import trio

from triolet_core._ids import IdSource, tick_of_id
from triolet_core.config import MessageConfig, StoreConfig
from triolet_core.errors import StoreCorrupt, StoreError, StoreLocked
from triolet_core.store import _dedupe, _queries
from triolet_core.store import _keys as keys
from triolet_core.store._records import FORMAT
from triolet_core.store._scan import is_whole
from triolet_core.store._sealer import CEILING, Sealer
from triolet_core.store._writer import AfterCommit, Work, Writer

R = TypeVar("R")

FILE_NAME = "triolet.mdb"
_MAGIC = b"triolet"


class Store:
    """Reads are functions of a snapshot and run on the loop; writes go through the one writer."""

    def __init__(self, env: lmdb.Environment, writer: Writer, ids: IdSource) -> None:
        self.env = env
        self.writer = writer
        self.ids = ids

    @contextmanager
    def snapshot(self) -> Iterator[lmdb.Transaction]:
        """A read transaction; keep it short and do not await inside."""
        with self.env.begin() as txn:
            yield txn

    def read(self, question: Callable[[lmdb.Transaction], R]) -> R:
        """Answer a short question from the last committed state."""
        with self.env.begin() as txn:
            return question(txn)

    async def read_long(self, question: Callable[[lmdb.Transaction], R]) -> R:
        """Answer a question that may scan much, in a thread."""
        return await trio.to_thread.run_sync(self.read, question, limiter=_scan_limiter())


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
) -> AsyncIterator[Store]:
    """Open the store in `directory`, which is made if need be; closing it commits what is queued.

    Raises:
        StoreLocked: Another process holds it.
        StoreCorrupt: The file is foreign, damaged or of a newer format.
        StoreError: The directory cannot be used.
    """
    with _held(directory), _environment(directory, config) as env:
        _check_format(env)
        dedupe = _dedupe.DedupeWindow(message.dedupe, message.dedupe_entries)
        first_tick = _first_tick(env, clock_s)
        ids = IdSource(node, lambda: int(clock_s() * 1000), first_tick=first_tick)
        sealer = Sealer(ids, dedupe, clock_s)
        writer = Writer(
            env,
            sealer,
            queue_limit=config.queue_limit,
            queue_timeout_s=config.queue_timeout,
            max_batch=config.max_batch,
        )
        _fill(dedupe, env, clock_s())
        async with trio.open_nursery() as nursery:
            await nursery.start(writer.run, after_commit)
            await writer.change(lambda _: None)  # reserves message ids
            try:
                yield Store(env, writer, ids)
                await writer.flush()
            finally:
                nursery.cancel_scope.cancel()


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


def _check_format(env: lmdb.Environment) -> None:
    try:
        with env.begin() as txn:
            magic, version = _queries.meta(txn, "magic"), _queries.meta(txn, "format")
            is_empty = txn.stat()["entries"] == 0
        if magic is None and is_empty:
            with env.begin(write=True) as txn:
                txn.put(keys.meta("magic"), _MAGIC)
                txn.put(keys.meta("format"), str(FORMAT).encode())
            return
    except lmdb.Error as exc:
        raise StoreCorrupt(f"{env.path()} is damaged: {exc}") from exc
    if magic != _MAGIC or version is None:
        raise StoreCorrupt(f"{env.path()} is not a triolet store")
    if int(version) > FORMAT:
        raise StoreCorrupt(
            f"{env.path()} has format {int(version)}, this version reads up to {FORMAT}; use a newer triolet"
        )


def _first_tick(env: lmdb.Environment, clock_s: Callable[[], float]) -> int:
    with env.begin() as txn:
        ceiling = int.from_bytes(_queries.meta(txn, CEILING) or b"", "big")
        logged = tick_of_id(_queries.last_logged_id(txn)) + 1
    return max(ceiling, logged, 1)


def _fill(dedupe: _dedupe.DedupeWindow, env: lmdb.Environment, now: float) -> None:
    if not dedupe.is_on:
        return
    with env.begin() as txn:
        for count, message in enumerate(_queries.log_back(txn)):
            if count >= dedupe.entries // 2 or now - message.timestamp > dedupe.window_s:
                break
            if message.client_msg_no:
                key = _dedupe.key_of(message.sender, message.channel.id, message.channel.type, message.client_msg_no)
                if dedupe.find(key) is None:
                    dedupe.add(key, message.message_id)
    dedupe.commit()


__all__ = ["FILE_NAME", "Sealer", "Store", "Work", "Writer", "open_store"]
