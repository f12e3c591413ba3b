"""What a session needs of its transport."""

from collections.abc import Sequence
from typing import Protocol


class HasPending(Protocol):
    """Whoever has bytes that wait."""

    @property
    def pending(self) -> int:
        """Bytes that wait."""
        ...


class Outbox(HasPending, Protocol):
    """Where a session writes. Bounded: what does not fit is refused, and the session ends."""

    def use_text(self) -> None:
        """Take every frame for UTF-8 text from now on."""
        ...

    def write(self, frames: Sequence[bytes]) -> bool:
        """Send frames, in order; empty ones are none. Returns False if they do not fit or the connection is gone."""
        ...

    @property
    def descriptor(self) -> int:
        """A socket that takes frames as they are, before anything else; -1 if there is none or bytes wait.

        What it does not take is to be written before anything else is. Not to be used after the next checkpoint,
        since the socket may be closed by then.
        """
        ...

    @property
    def readable(self) -> int:
        """A socket that may be read, -1 if there is none or the session is paused."""
        ...

    def wait_for(self, size: int) -> bool:
        """Let so many bytes come before they are read, if they come soon. False if this transport does not."""
        ...

    def resume(self) -> None:
        """Call the session's `go_on` and hand it what was kept while it was paused, soon."""
        ...

    def finish(self) -> None:
        """Say that nothing more comes; what waits is still sent."""
        ...

    def abort(self) -> None:
        """End the connection soon, whatever waits."""
        ...
