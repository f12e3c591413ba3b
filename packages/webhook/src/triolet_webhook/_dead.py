"""Dead letters: what was given up, so that somebody can look at it and push it again.

A letter says which messages of the commit log it stands for, and not what is in them: it is small, it obeys the
deletion of messages, and one letter can stand for a day's backlog. Only presence events are kept in whole.
"""

import time
from collections.abc import Callable

import attrs
import cbor2
from structlog.typing import FilteringBoundLogger

from triolet_core import Append, DurableQueues, QueueSize, Remove
from triolet_webhook._events import PresenceRow

QUEUE = "webhook.dead"


@attrs.frozen(kw_only=True)
class DeadLetter:
    """Something that was not delivered."""

    event: str
    event_id: str
    reason: str
    attempts: int
    died_s: int
    after: int = 0
    up_to: int = 0
    """The messages with `after` < id <= `up_to`; for presence events the moment they happened, in milliseconds."""
    rows: tuple[PresenceRow, ...] = ()


def encode_letter(letter: DeadLetter) -> bytes:
    """Encode a letter for the queue."""
    *fields, rows = attrs.astuple(letter, recurse=False)
    return cbor2.dumps([*fields, [attrs.astuple(row) for row in rows]])


def decode_letter(payload: bytes) -> DeadLetter:
    """Decode a letter of the queue."""
    *values, rows = cbor2.loads(payload)
    names = [field.name for field in attrs.fields(DeadLetter)]
    return DeadLetter(**dict(zip(names, values, strict=False)), rows=tuple(PresenceRow(*row) for row in rows))


@attrs.define(eq=False)
class DeadLetters:
    """The queue of letters, bounded in bytes and age: beyond that the oldest are lost, which is logged and counted."""

    queues: DurableQueues
    max_bytes: int
    max_age_s: float
    log: FilteringBoundLogger
    clock_s: Callable[[], float] = time.time
    buried_total: int = 0
    dropped_total: int = 0

    @property
    def now_s(self) -> int:
        """The time of death of a letter made now."""
        return int(self.clock_s())

    def size(self) -> QueueSize:
        """Return how many letters there are, and their bytes."""
        return self.queues.size(QUEUE)

    async def bury(self, letter: DeadLetter) -> None:
        """Keep a letter; durable on return."""
        await self.queues.change([self.burial(letter)])

    def burial(self, letter: DeadLetter) -> Append:
        """Return the edit that keeps a letter, to be made together with others."""
        self.buried_total += 1
        self.log.error(
            "event moved to the dead letters",
            event_name=letter.event,
            event_id=letter.event_id,
            attempts=letter.attempts,
            reason=letter.reason,
        )
        return Append(QUEUE, encode_letter(letter))

    def read(self, after: int, limit: int) -> list[tuple[int, DeadLetter]]:
        """Return letters with their numbers, the oldest first."""
        return [(number, decode_letter(payload)) for number, payload in self.queues.read(QUEUE, after, limit)]

    def get(self, number: int) -> DeadLetter | None:
        """Return one letter."""
        found = self.queues.read(QUEUE, number - 1, 1)
        return decode_letter(found[0][1]) if found and found[0][0] == number else None

    async def remove(self, numbers: list[int]) -> None:
        """Forget letters."""
        await self.queues.remove(QUEUE, numbers)

    async def enforce_bounds(self) -> None:
        """Drop the oldest letters while there are too many bytes or they are too old."""
        size = self.size()
        surplus, oldest = size.bytes - self.max_bytes, self.now_s - self.max_age_s
        doomed: list[Remove] = []
        for number, payload in self.queues.read(QUEUE, 0, 1000):
            if surplus <= 0 and decode_letter(payload).died_s >= oldest:
                break
            surplus -= len(payload)
            doomed.append(Remove(QUEUE, number))
        if doomed:
            self.dropped_total += len(doomed)
            self.log.error("dead letters lost", letters=len(doomed), bounds="webhook.deadBytes and webhook.deadAge")
            await self.queues.change(doomed)
