"""Repeats a push until the parcel is taken, or the limit is reached, or the server stops."""

import enum
import random
from collections.abc import Awaitable, Callable

import attrs
import trio
from structlog.typing import FilteringBoundLogger

from triolet_webhook._receiver import DeliveryFailed, Parcel, Receiver

MOST_DOUBLINGS = 30
"""So that no number grows without end; the pause is at its longest long before."""


class Outcome(enum.Enum):
    """What became of a parcel."""

    TAKEN = "taken"
    GIVEN_UP = "given up"
    LEFT = "left"
    """The server stops: it stays where it is and is pushed after the next start."""


@attrs.define(eq=False)
class Counters:
    """Figures of one event since the start."""

    pushed_total: int = 0
    failed_attempts_total: int = 0
    given_up_total: int = 0


@attrs.frozen
class Result:
    """The outcome, how often it was tried, and why the last attempt failed."""

    outcome: Outcome
    attempts: int
    reason: str = ""


Make = Callable[[], Awaitable[Parcel | None]]
"""Makes the parcel of an attempt, as things are at that moment; None if there is nothing to push (any more).

May raise `DeliveryFailed`, which counts as a failed attempt.
"""


@attrs.define(eq=False)
class Courier:
    """Delivers the parcels of one event."""

    receiver: Receiver
    attempts: int
    """Most attempts; 0: no limit."""
    first_pause_s: float
    longest_pause_s: float
    stopping: trio.Event
    log: FilteringBoundLogger
    counters: Counters = attrs.Factory(Counters)
    dice: random.Random = attrs.Factory(random.Random)

    async def deliver(self, make: Make, *, is_hopeless: Callable[[], bool] = lambda: False) -> Result:
        """Try until something is decided. `is_hopeless` ends it early: too much waits behind this parcel."""
        attempt = 0
        while True:
            attempt += 1
            try:
                parcel = await make()
                if parcel is not None:
                    await self.receiver.deliver(attrs.evolve(parcel, attempt=attempt))
                    self.counters.pushed_total += 1
            except DeliveryFailed as exc:
                self.counters.failed_attempts_total += 1
                reason = exc.reason
            else:
                return Result(Outcome.TAKEN, attempt)
            if self.stopping.is_set():
                return Result(Outcome.LEFT, attempt, reason)
            if attempt == self.attempts or is_hopeless():
                self.counters.given_up_total += 1
                return Result(Outcome.GIVEN_UP, attempt, reason)
            await self._pause(attempt, reason)

    async def _pause(self, attempt: int, reason: str) -> None:
        """Wait longer each time, half to the whole of it by chance; the stop of the server ends the wait."""
        pause_s = min(
            self.longest_pause_s, self.first_pause_s * 2.0 ** min(attempt - 1, MOST_DOUBLINGS)
        ) * self.dice.uniform(0.5, 1.0)
        self.log.warning("push failed", attempt=attempt, reason=reason, delay_s=round(pause_s, 2))
        with trio.move_on_after(pause_s):
            await self.stopping.wait()
