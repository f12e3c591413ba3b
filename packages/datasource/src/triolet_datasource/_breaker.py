"""A circuit breaker: after failures in a row nobody is asked for a while, then one request tries.

Theory of operation. It is *closed* (every request is admitted) until `failures` requests in a row have failed; then it
is *open* (none is admitted) for `pause_s`; the first request after that is admitted alone (*half open*). If it succeeds
the breaker closes, if it fails the pause begins anew, and if it is abandoned the next request is the one that tries.
Requests that were under way when it opened count: a success closes it, a failure changes nothing.
"""

import enum


class State(enum.Enum):
    """Where a breaker stands."""

    CLOSED = 0
    OPEN = 1
    HALF_OPEN = 2


class Breaker:
    """The state; times are passed in. Only who was admitted reports, once: succeeded, failed or abandoned."""

    def __init__(self, *, failures: int, pause_s: float) -> None:
        self.state = State.CLOSED
        self._most = failures
        self._pause_s = pause_s
        self._in_a_row = 0
        self._opens_until = 0.0

    def admit(self, now: float) -> bool:
        """Whether a request may be made now."""
        if self.state is State.CLOSED:
            return True
        if self.state is State.OPEN and now >= self._opens_until:
            self.state = State.HALF_OPEN
            return True
        return False

    def succeeded(self) -> bool:
        """Note a success; True if that closed the breaker."""
        was_closed = self.state is State.CLOSED
        self.state = State.CLOSED
        self._in_a_row = 0
        return not was_closed

    def failed(self, now: float) -> bool:
        """Note a failure; True if that opened a closed breaker."""
        was_closed = self.state is State.CLOSED
        self._in_a_row += 1
        if self.state is State.OPEN or self._in_a_row < self._most:
            return False
        self.state = State.OPEN
        self._opens_until = now + self._pause_s
        return was_closed

    def abandoned(self) -> None:
        """Note that a request ended without an outcome."""
        if self.state is State.HALF_OPEN:
            self.state = State.OPEN
