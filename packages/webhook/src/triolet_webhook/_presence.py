"""`user.onlinestatus` and `user.logout`: recorded durably, pushed in order.

Theory of operation. The recorder takes presence changes from a bounded queue and writes, in one transaction, the rows
to be pushed (queue `webhook.presence`) and which connections are online (queue `webhook.online`, an entry each). After
a crash the entries of the earlier run are connections that ended: each gives an offline row. What the bounded queue
dropped is found the same way, by comparing the entries with the sessions there are. So whatever is lost in memory, the
receiver learns the state that is true in the end.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable

import attrs
import cbor2
import trio
from structlog.typing import FilteringBoundLogger

from triolet_core import Append, Broker, Edit, Overloaded, Remove, RemoveUpTo, StoreError
from triolet_core.hooks import PresenceChange, Subscription
from triolet_webhook._events import PresenceRow, encode_rows

ROWS = "webhook.presence"
ONLINE = "webhook.online"
QUEUE_LIMIT = 65_536
"""Changes between two commits; what is dropped beyond that is found by comparing."""
PAGE = 1_000
RETRY_S = 1.0


@attrs.frozen
class _Online:
    """A connection that the receiver knows, or will, to be online."""

    run: float
    connection_id: int
    uid: str
    flag: int


@attrs.define(eq=False)
class PresenceRecorder:
    """Writes what happens to connections into the store."""

    broker: Broker
    changes: Subscription[PresenceChange]
    stopping: trio.Event
    max_rows: int
    log: FilteringBoundLogger
    clock_s: Callable[[], float] = time.time
    grown: trio.Event = attrs.Factory(trio.Event)
    """Replaced whenever rows were added."""
    done: trio.Event = attrs.Factory(trio.Event)
    """Nothing is added any more."""
    compared_total: int = 0
    _online: dict[int, tuple[int, _Online]] = attrs.Factory(dict)
    """Number of the entry, and the entry, by connection id."""
    _seen_dropped: int = 0

    @property
    def _run(self) -> float:
        return self.broker.started_at

    async def open(self) -> None:
        """Find out who was online when the server ended, and say that they are not any more."""
        entries = list(self._entries())
        alive = {session.connection_id for session in self.broker.presence.all_sessions()}
        stays = {e.connection_id: (n, e) for n, e in entries if e.run == self._run and e.connection_id in alive}
        numbers = {number for number, _ in stays.values()}
        gone = [(number, entry) for number, entry in entries if number not in numbers]
        self._online = stays
        if gone:
            self.log.info("sessions of the last run have ended", connections=len(gone))
        counts = _Counts(entry for _, entry in entries)
        rows = [counts.take(entry) for _, entry in gone]
        for start in range(0, len(rows), self.max_rows):
            page = slice(start, start + self.max_rows)
            removals = [Remove(ONLINE, number) for number, _ in gone[page]]
            await self.broker.queues.change([*removals, self._append(rows[page])])
        await self._compare()

    def _entries(self) -> Iterable[tuple[int, _Online]]:
        after = 0
        while page := self.broker.queues.read(ONLINE, after, PAGE):
            for number, payload in page:
                yield number, _Online(*cbor2.loads(payload))
            after = page[-1][0]

    async def run(self) -> None:
        """Record changes until the server stops and none is left."""
        try:
            while batch := await self._take():
                await self._record(batch)
                if self.changes.dropped != self._seen_dropped:
                    await self._compare()
        finally:
            self.done.set()

    async def _take(self) -> list[PresenceChange]:
        """Wait for changes and return those that are there; empty if the server stops."""
        receive = self.changes.receive
        batch: list[PresenceChange] = []
        with trio.CancelScope() as waiting:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._cancel_at_stop, waiting)
                batch.append(await receive.receive())
                nursery.cancel_scope.cancel()
        try:
            while len(batch) < self.max_rows:
                batch.append(receive.receive_nowait())
        except trio.WouldBlock:
            pass  # that was everything
        return batch

    async def _cancel_at_stop(self, scope: trio.CancelScope) -> None:
        await self.stopping.wait()
        scope.cancel()

    async def _compare(self) -> None:
        """Record the difference between the sessions there are and those recorded; no change may be waiting."""
        self._seen_dropped = self.changes.dropped
        _drain(self.changes)  # what they say is in the sessions already
        presence = self.broker.presence
        sessions = {session.connection_id: session.device for session in presence.all_sessions()}
        gone = [entry for number, entry in self._online.values() if entry.connection_id not in sessions]
        come = {number: device for number, device in sessions.items() if number not in self._online}
        if not gone and not come:
            return
        self.compared_total += 1
        counts = _Counts(entry for _, entry in self._online.values())
        rows = [counts.take(entry) for entry in gone]
        rows += [counts.add(_Online(self._run, number, device.uid, device.flag)) for number, device in come.items()]
        for start in range(0, len(rows), self.max_rows):
            await self._write(rows[start : start + self.max_rows])

    async def _record(self, batch: list[PresenceChange]) -> None:
        await self._write([_row_of(change) for change in batch])

    async def _write(self, rows: list[PresenceRow]) -> None:
        """Write rows and who is online behind them in one transaction; repeated while the store has no room."""
        come: dict[int, _Online] = {}
        removals: list[Remove] = []
        for row in rows:
            if row.online:
                come[row.connection_id] = _Online(self._run, row.connection_id, row.uid, row.flag)
            elif come.pop(row.connection_id, None) is None and row.connection_id in self._online:
                removals.append(Remove(ONLINE, self._online.pop(row.connection_id)[0]))
        appends = [Append(ONLINE, cbor2.dumps(list(attrs.astuple(entry)))) for entry in come.values()]
        edits: list[Edit] = [*removals, *appends, self._append(rows)]
        while True:
            try:
                numbers = await self.broker.queues.change(edits)
                break
            except (StoreError, Overloaded) as exc:
                self.log.error("presence events wait for the store", rows=len(rows), problem=str(exc))
                await trio.sleep(RETRY_S)
        for number, entry in zip(numbers, come.values(), strict=False):
            self._online[entry.connection_id] = (number, entry)
        self.grown.set()
        self.grown = trio.Event()

    def _append(self, rows: list[PresenceRow]) -> Append:
        return Append(ROWS, encode_rows(rows, int(self.clock_s() * 1000)))


def _row_of(change: PresenceChange) -> PresenceRow:
    device = change.device
    return PresenceRow(
        device.uid,
        int(device.flag),
        change.online,
        change.connection_id,
        change.same_flag,
        change.total,
        change.logout,
    )


def _drain(changes: Subscription[PresenceChange]) -> None:
    """Throw away what waits."""
    try:
        while True:
            changes.receive.receive_nowait()
    except trio.WouldBlock:
        return


class _Counts:
    """How many connections each uid has, by flag, while they are taken away or added one by one."""

    def __init__(self, entries: Iterable[_Online]) -> None:
        self._by_flag: Counter[tuple[str, int]] = Counter()
        self._by_uid: Counter[str] = Counter()
        for entry in entries:
            self._change(entry, 1)

    def _change(self, entry: _Online, by: int) -> None:
        self._by_flag[entry.uid, entry.flag] += by
        self._by_uid[entry.uid] += by

    def take(self, entry: _Online) -> PresenceRow:
        """Return the row of a connection that went."""
        self._change(entry, -1)
        return self._row(entry, online=False)

    def add(self, entry: _Online) -> PresenceRow:
        """Return the row of a connection that came."""
        self._change(entry, 1)
        return self._row(entry, online=True)

    def _row(self, entry: _Online, *, online: bool) -> PresenceRow:
        same_flag, total = self._by_flag[entry.uid, entry.flag], self._by_uid[entry.uid]
        return PresenceRow(entry.uid, entry.flag, online, entry.connection_id, same_flag, total)


def remove_rows_up_to(number: int) -> RemoveUpTo:
    """Return the edit that forgets rows that were dealt with."""
    return RemoveUpTo(ROWS, number)
