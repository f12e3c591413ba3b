"""A consumer's view of the commit log: where it is, what waits behind that, and how it moves on.

The position is durable and moves only behind what was taken or is in the dead letters. A batch that is pushed as a
whole has its end noted before (`<name>.sending`), so that after a crash the same batch is made again and carries the
same event id.
"""

import time
from collections.abc import Awaitable, Callable, Sequence

import attrs
import trio

from triolet_core import Broker, Message

CHUNK, CHUNK_BYTES = 256, 4 << 20
"""Messages, and bytes of them, read between two checkpoints while the backlog is measured."""
LAZY_S = 1.0
"""How long a position may stay in memory when nothing was pushed up to it."""


@attrs.define(eq=False)
class LogStream:
    """One consumer of the commit log. One task uses it; another may measure."""

    broker: Broker
    name: str
    stopping: trio.Event
    max_count: int
    max_bytes: int
    interval_s: float
    clock_s: Callable[[], float] = time.time
    position: int = 0
    _durable: int = 0
    _durable_at: float = 0.0
    _sending: int = 0
    _known: bool = False
    """Whether the backlog was measured; from then on it is counted."""
    _measurement: int = 0
    _count: int = 0
    _bytes: int = 0
    """The backlog less what the log has been given since the start of the server."""

    async def open(self) -> None:
        """Find the position. The first time ever it is the end of the log: what was sent before is nobody's event."""
        commits = self.broker.commits
        self.position = commits.position(self.name)
        if not self.position:
            self.position = max(commits.end(), 1)
            await commits.acknowledge(self.name, self.position)
        self._sending = commits.position(f"{self.name}.sending")
        self._durable = self.position
        self._durable_at = trio.current_time()
        if self.position >= commits.end():
            self._nothing_waits()

    # --- batches

    async def take(self) -> list[Message]:
        """Wait for messages and return them, rising by id; empty if the server stops and none is left."""
        while True:
            if self._sending > self.position:
                if again := self._read(self._sending):
                    return again
                self._sending = 0  # they were wiped
            found = self._read()
            if found and len(found) < self.max_count and self.interval_s and not self.stopping.is_set():
                with trio.move_on_after(self.interval_s):
                    await self.stopping.wait()
                found = self._read()
            if found:
                return found
            if self.stopping.is_set():
                return []
            await self._wait_for_more()

    def _read(self, up_to: int = 0) -> list[Message]:
        messages = self.broker.commits.read(self.position, self.max_count, max_bytes=self.max_bytes)
        return [message for message in messages if message.message_id <= up_to] if up_to else messages

    async def _wait_for_more(self) -> None:
        if self._durable < self.position:
            with trio.move_on_after(LAZY_S):
                await first_of(lambda: self.broker.commits.wait_after(self.position), self.stopping.wait)
                return
            await self.acknowledge()
        await first_of(lambda: self.broker.commits.wait_after(self.position), self.stopping.wait)

    async def note_sending(self, batch: Sequence[Message]) -> None:
        """Make the end of a batch durable before it is pushed."""
        end = batch[-1].message_id
        if end != self._sending:
            await self.broker.commits.acknowledge(f"{self.name}.sending", end)
            self._sending = end

    async def finish(self, batch: Sequence[Message], *, pushed: bool) -> None:
        """Move behind a batch; if anything of it was pushed, that is durable on return."""
        self.position = batch[-1].message_id
        self._count -= len(batch)
        self._bytes -= sum([len(message.payload) for message in batch])
        if self.position >= self.broker.commits.end():
            self._nothing_waits()
        if pushed or trio.current_time() - self._durable_at > LAZY_S:
            await self.acknowledge()

    async def skip_to(self, position: int) -> None:
        """Move behind everything up to `position`; durable on return."""
        self.position = position
        self._known = False
        await self.acknowledge()
        await self.measure()

    async def acknowledge(self) -> None:
        """Make the position durable."""
        if self._durable < self.position:
            position = self.position
            await self.broker.commits.acknowledge(self.name, position)
            self._durable = position
        self._durable_at = trio.current_time()

    # --- the backlog

    @property
    def backlog_count(self) -> int:
        """How many messages wait; 0 while that is not measured."""
        return max(0, self.broker.commits.appended_count + self._count) if self._known else 0

    @property
    def backlog_bytes(self) -> int:
        """How many bytes their payloads have."""
        return max(0, self.broker.commits.appended_bytes + self._bytes) if self._known else 0

    def _nothing_waits(self) -> None:
        commits = self.broker.commits
        self._known = True
        self._count, self._bytes = -commits.appended_count, -commits.appended_bytes

    async def measure(self) -> None:
        """Count what waits, once: after that it is known from what is added and taken away."""
        if self._known:
            return
        self._measurement += 1
        measurement = self._measurement
        self._count = self._bytes = 0  # what is taken away meanwhile is subtracted from here
        count = size = 0
        position = self.position
        while found := self._read_chunk(position):
            count += len(found)
            size += sum(len(message.payload) for message in found)
            position = found[-1].message_id
            await trio.lowlevel.checkpoint()
            if self._known or measurement != self._measurement:
                return
        self._count += count - self.broker.commits.appended_count
        self._bytes += size - self.broker.commits.appended_bytes
        self._known = True

    def _read_chunk(self, position: int) -> list[Message]:
        return self.broker.commits.read(position, CHUNK, max_bytes=CHUNK_BYTES)

    def age_s(self) -> float:
        """Return how long the oldest message waits, 0 if none does."""
        oldest = self.broker.commits.read(self.position, 1)
        return max(0.0, self.clock_s() - oldest[0].timestamp) if oldest else 0.0

    async def surplus_end(self, max_bytes: int, max_age_s: float) -> int:
        """Return the id up to which messages must go so that the rest keeps the bounds; 0 if it does already."""
        surplus, oldest = self.backlog_bytes - max_bytes, self.clock_s() - max_age_s
        end, position = 0, self.position
        while found := self._read_chunk(position):
            for message in found:
                if surplus <= 0 and message.timestamp >= oldest:
                    return end
                surplus -= len(message.payload)
                end = position = message.message_id
            await trio.lowlevel.checkpoint()
        return end


async def first_of(*waits: Callable[[], Awaitable[object]]) -> None:
    """Return when one of several waits does; the others are cancelled."""
    async with trio.open_nursery() as nursery:

        async def run(wait: Callable[[], Awaitable[object]]) -> None:
            await wait()
            nursery.cancel_scope.cancel()

        for wait in waits:
            nursery.start_soon(run, wait)
