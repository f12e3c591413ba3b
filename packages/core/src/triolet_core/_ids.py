"""64-bit message ids: ordered, unique over restarts and backward clock steps."""

import threading
from collections.abc import Callable

from triolet_core.errors import Overloaded

EPOCH_MS = 1288834974657
"""Zero of the millisecond field (wire-protocol.md, section 3.4)."""
TICKS_PER_MS = 4096
RESERVE_TICKS = 60_000 * TICKS_PER_MS
"""Ids are reserved this far ahead (a minute), so that the store is told of it once a minute."""


def id_of_tick(tick: int, node: int) -> int:
    """Return the message id of a tick: 41 bits of milliseconds, 10 of node, 12 of counter."""
    return (tick >> 12) << 22 | node << 12 | tick & 0xFFF


def tick_of_id(message_id: int) -> int:
    """Return the tick that a message id was made from; the node is lost."""
    return (message_id >> 22) << 12 | message_id & 0xFFF


def seconds_of_id(message_id: int) -> float:
    """Return when a message id was given, in seconds since 1970."""
    return ((message_id >> 22) + EPOCH_MS) / 1000


class IdSource:
    """Gives out ids. A tick is a 4096th of a millisecond; the next one is the clock's or the last plus one.

    Ticks stay below a ceiling that is in the store: a restart begins there, so that no id comes twice even if
    the clock went back or ids were given to messages that were never stored. Used by the loop and by the
    commit thread, hence the lock.
    """

    def __init__(self, node: int, clock_ms: Callable[[], int], *, first_tick: int) -> None:
        self._node = node
        self._clock_ms = clock_ms
        self._last = first_tick - 1
        self._lock = threading.Lock()
        self.ceiling = first_tick

    def now_tick(self) -> int:
        """Return the clock as a tick, never behind what was given out."""
        return max((self._clock_ms() - EPOCH_MS) * TICKS_PER_MS, self._last + 1)

    def wanted_ceiling(self, now: int) -> int | None:
        """Return the ceiling to store next at a tick, or None while the present one is far enough ahead."""
        return now + RESERVE_TICKS if now > self.ceiling - RESERVE_TICKS // 2 else None

    def block(self, count: int, *, ceiling: int | None = None, now: int | None = None) -> list[int]:
        """Return `count` rising ids.

        Args:
            count: How many.
            ceiling: What the transaction under way raises the ceiling to: its ids are known to nobody before it
                is durable. None: it does not.
            now: The clock as a tick if the caller has looked at it, so that many share one look.

        Raises:
            Overloaded: The ceiling is reached: nothing was written for a minute, or the store could not raise it.
        """
        with self._lock:
            first = self.now_tick() if now is None else max(now, self._last + 1)
            if first + count > (self.ceiling if ceiling is None else ceiling):
                raise Overloaded("the reserve of message ids", RESERVE_TICKS)
            self._last = first + count - 1
        node = self._node << 12  # as `id_of_tick`, without a call for each
        return [(tick >> 12) << 22 | node | tick & 0xFFF for tick in range(first, first + count)]
