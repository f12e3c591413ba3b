"""Bytes on their way to one TCP client: straight to the socket, and waiting only if it takes no more."""

import socket
from collections.abc import Callable, Sequence
from typing import Protocol

import trio


class Outbox(Protocol):
    """Where a session writes. Bounded: what does not fit is refused, and the session ends."""

    def use_text(self) -> None:
        """Take every frame for UTF-8 text from now on."""
        ...

    def write(self, frames: Sequence[bytes]) -> bool:
        """Send frames, in order; empty ones are none. Returns False if they do not fit or the connection is gone."""
        ...

    @property
    def pending(self) -> int:
        """Bytes that wait."""
        ...

    @property
    def descriptor(self) -> int:
        """A socket that takes frames as they are, before anything else; -1 if there is none or bytes wait.

        What it does not take is to be written before anything else is. Not to be used after the next checkpoint,
        since the socket may be closed by then.
        """
        ...

    def finish(self) -> None:
        """Say that nothing more comes; what waits is still sent."""
        ...

    def abort(self) -> None:
        """End the connection now; its reader notices."""
        ...


class SocketOutbox:
    """Outbox of a non-blocking socket."""

    __slots__ = ("_is_finished", "_limit", "_pending", "_socket", "_start")

    def __init__(self, sock: socket.socket, limit: int, start: Callable[[Callable[[], object]], object]) -> None:
        """`start` runs an async function in the nursery that outlives the session: the writer, while it is needed."""
        self._socket = sock
        self._limit = limit
        self._start = start
        self._pending: bytearray | None = None
        self._is_finished = False

    def use_text(self) -> None:
        """Go on: bytes are bytes here."""

    @property
    def pending(self) -> int:
        """Bytes that wait."""
        return 0 if self._pending is None else len(self._pending)

    @property
    def descriptor(self) -> int:
        """The socket if nothing waits, else -1."""
        return self._socket.fileno() if self._pending is None else -1

    def write(self, frames: Sequence[bytes]) -> bool:
        """Send frames in one call."""
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        if self._pending is not None:
            if len(self._pending) + len(data) > self._limit:
                return False
            self._pending += data
            return True
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return False  # the reader sees the same and ends the session
        if sent < len(data):
            if len(data) - sent > self._limit:
                return False
            self._pending = bytearray(memoryview(data)[sent:])
            self._start(self._drain)
        return True

    async def _drain(self) -> None:
        try:
            while self._pending:
                await trio.lowlevel.wait_writable(self._socket)
                try:
                    sent = self._socket.send(self._pending)
                except BlockingIOError:
                    continue
                del self._pending[:sent]
        except (OSError, trio.ClosedResourceError):
            self.abort()
            return
        self._pending = None
        if self._is_finished:
            self.finish()

    def finish(self) -> None:
        """Half-close once everything is out."""
        self._is_finished = True
        if self._pending is None:
            self._shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Shut the socket down in both directions."""
        self._shutdown(socket.SHUT_RDWR)

    def _shutdown(self, how: int) -> None:
        try:
            self._socket.shutdown(how)
        except OSError:
            return  # it is gone already, which is what was wanted
