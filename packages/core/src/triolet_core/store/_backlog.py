"""The backlog: rows that are in the journal, and acknowledged, but not in LMDB yet.

Only rows that are put without a look at others come here: messages, their entries in the commit log and the table of
expiries, and positions of consumers. Everything else is in LMDB before it is acknowledged, and never overtakes them.
They are written to LMDB after `INTERVAL_S`, when there are many, when a transaction is made for something else, and
when a reader needs them.

The loop adds rows and takes a portion out; a thread, or the loop itself, writes that portion. The gate is held
meanwhile. Tasks take the turn before they start such a thread, so that only `settle_now` ever waits at the gate.
"""

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import attrs
import lmdb
import structlog
import trio

from triolet_core.errors import StoreError, StoreFull
from triolet_core.model import ChannelKey
from triolet_core.store import _keys as keys
from triolet_core.store import _rows
from triolet_core.store._journal import Journal

INTERVAL_S = 1.0
"""Longest time that a row waits, if nothing asks for it."""
MUCH = 4 << 20
"""Bytes of rows that are written to LMDB without waiting longer."""
APPLIED = "journal applied"

_AT_ONCE = 64 << 10
"""Bytes of a record that may be written on the loop."""
_AT_ONCE_S = 0.0004
"""The loop waits for the disk no longer than a thread would take to start and to report (0.15 to 0.3 ms)."""
_ROOM_FACTOR = 4
_LEAST_ROOM = 1 << 20
"""Room that LMDB must have for the backlog: pages are copied, and half empty after a split."""
_PAGE_OF_LMDB = 4096
_PUT_AT_ONCE = 2000
"""Rows that are put in one call, which keeps the interpreter (1 ms). One call a row gives it away each time, and waits
for it as often: sixty times slower beside a busy loop."""
_GATE_S = 30.0
_RETRY_S = 1.0


@attrs.define(eq=False)
class _Portion:
    rows: list[bytes] = attrs.Factory(list)
    """Encoded."""
    channels: set[ChannelKey] = attrs.Factory(set)
    size: int = 0
    number: int = 0
    """Number of the last record of the journal that is in it."""

    def add(self, rows: Sequence[bytes], channels: Iterable[ChannelKey], size: int, number: int) -> None:
        self.rows += rows
        self.channels.update(channels)
        self.size += size
        self.number = number


class Backlog:
    """What LMDB has yet to be told."""

    def __init__(self, env: lmdb.Environment, journal: Journal) -> None:
        self._env = env
        self._journal = journal
        self._newest = _Portion()
        self._leaving: _Portion | None = None
        self._gate = threading.Lock()
        self.turn = trio.Lock()
        self._filled = trio.Event()
        self._much = trio.Event()
        self._appending, self._writing = trio.CapacityLimiter(1), trio.CapacityLimiter(1)
        self._log = structlog.get_logger("store")
        self._room = 0
        self._look_for_room()

    @property
    def number(self) -> int:
        """Number of the last record of the journal; it rises over restarts."""
        return self._journal.number

    def holds(self, key: ChannelKey | None = None) -> bool:
        """Whether rows wait, of this channel or of any."""
        leaving, newest = self._leaving, self._newest
        if key is None:
            return bool(newest.rows) or leaving is not None
        return key in newest.channels or (leaving is not None and key in leaving.channels)

    # --- the way in

    async def add(self, rows: Sequence[bytes], channels: Iterable[ChannelKey]) -> None:
        """Write rows to the journal; they are durable on return. Not a checkpoint if they are few and the disk is fast.

        Raises:
            StoreFull: There is no room, in the journal or for LMDB behind it; nothing is written then.
        """
        body = b"".join(rows)
        self._check_room(body)
        if self.is_quick and self._fits_at_once(body):
            self._journal.append(body)
        else:
            await trio.to_thread.run_sync(self._journal.append, body, limiter=self._appending)
        self._note(body, channels)

    @property
    def is_quick(self) -> bool:
        """Whether the disk is so fast that the loop may wait for it."""
        return self._journal.write_s <= _AT_ONCE_S

    def add_now(self, rows: Sequence[bytes], channels: Iterable[ChannelKey]) -> bool:
        """Do as `add` without waiting; False, and nothing is written, if there is too much for that.

        Raises:
            StoreFull: As in `add`.
        """
        body = b"".join(rows)
        self._check_room(body)
        if not self._fits_at_once(body):
            return False
        self._journal.append(body)
        self._note(body, channels)
        return True

    def _check_room(self, body: bytes) -> None:
        waiting = self._newest.size + (0 if self._leaving is None else self._leaving.size)
        if (waiting + len(body)) * _ROOM_FACTOR + _LEAST_ROOM > self._room:
            raise StoreFull("little space is left for the store (store.mapSize, or the disk)")

    def _fits_at_once(self, body: bytes) -> bool:
        return len(body) <= _AT_ONCE and self._journal.fits_at_once(body)

    def _note(self, body: bytes, channels: Iterable[ChannelKey]) -> None:
        self._newest.add([body], channels, len(body), self._journal.number)
        self._filled.set()
        if self._newest.size >= MUCH:
            self._much.set()

    # --- the way out

    async def settle(self, key: ChannelKey | None = None) -> None:
        """Return when everything that was acknowledged, of this channel or at all, is in LMDB.

        A checkpoint only if something has to be done. Whoever waits meanwhile shares one transaction.

        Raises:
            StoreFull: LMDB has no room for it.
        """
        if self.holds(key):
            async with self.turn:
                if self.holds(key):
                    self.take()
                    await trio.to_thread.run_sync(self._write_in_thread, limiter=self._writing)

    def settle_now(self, key: ChannelKey | None = None) -> None:
        """Do the same and block the loop meanwhile; for readers that did not settle before."""
        if self.holds(key):
            with self.gate():
                self.take()
                self._write()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Write what has waited long enough, for ever."""
        task_status.started()
        while True:
            await self._filled.wait()
            with trio.move_on_after(INTERVAL_S):
                await self._much.wait()
            self._filled, self._much = trio.Event(), trio.Event()
            try:
                await self.settle()
            except StoreFull as exc:
                self._log.error("the journal cannot be emptied", problem=str(exc))
                self._filled.set()
                await trio.sleep(_RETRY_S)

    def take(self) -> None:
        """Let what waits leave with the next transaction. On the loop, and no thread may hold the gate."""
        newest = self._newest
        if newest.rows:
            if self._leaving is None:
                self._leaving = newest
            else:
                self._leaving.add(newest.rows, newest.channels, newest.size, newest.number)
            self._newest = _Portion()

    @contextmanager
    def gate(self) -> Iterator[None]:
        """Keep others from writing what leaves; in whichever thread does it."""
        if not self._gate.acquire(timeout=_GATE_S):
            raise StoreError(f"the store has been writing for {_GATE_S:.0f} s")
        try:
            yield
        finally:
            self._gate.release()

    def put(self, txn: lmdb.Transaction) -> int:
        """Put what leaves into a transaction that is made for something else; behind the gate. Returns its number."""
        number = self._journal.pass_over()
        put_rows(txn, [] if self._leaving is None else self._leaving.rows, number)
        return number

    def done(self, number: int) -> None:
        """The transaction is committed: what left is in LMDB. Behind the same gate."""
        self._journal.settle(number)
        self._leaving = None
        self._look_for_room()

    def _write_in_thread(self) -> None:
        with self.gate():
            self._write()

    def _write(self) -> None:
        """Write what leaves in a transaction of its own."""
        leaving = self._leaving
        if leaving is None:
            return
        try:
            with self._env.begin(write=True) as txn:
                put_rows(txn, leaving.rows, leaving.number)
        except (lmdb.MapFullError, lmdb.DiskError) as exc:
            self._room = 0
            raise StoreFull(f"no space is left for the store (store.mapSize, or the disk): {exc}") from exc
        self.done(leaving.number)

    def _look_for_room(self) -> None:
        info = self._env.info()
        disk = os.statvfs(self._env.path())
        in_map = info["map_size"] - (info["last_pgno"] + 1) * _PAGE_OF_LMDB
        self._room = min(in_map, disk.f_bavail * disk.f_frsize)


def put_rows(txn: lmdb.Transaction, rows: list[bytes], number: int) -> None:
    """Put encoded rows in the order of their keys, a later one over an earlier, and up to which record they go."""
    with txn.cursor() as cursor:
        for some in _rows.in_order_of_keys(rows, _PUT_AT_ONCE):
            cursor.putmulti(some)
    txn.put(keys.meta(APPLIED), number.to_bytes(8, "big"))
