"""Streams in memory, for tests: what one end sends the other receives, without a socket."""

from collections import deque

import anyio
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

from triolet_client._transport import Connector, StreamTransport, Transport

MAX_BYTES = 1 << 20
"""Bytes that may wait in one direction; the sender waits beyond."""


class _Pipe:
    """One direction."""

    def __init__(self, limit: int) -> None:
        self.chunks: deque[bytes] = deque()
        self.size = 0
        self.limit = limit
        self.is_closed = False
        self.changed = anyio.Event()

    def wake(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()


class MemoryStream(ByteStream):
    """One end of a pair; see `stream_pair`."""

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._in = incoming
        self._out = outgoing

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Return what there is; waits for the first byte.

        Raises:
            EndOfStream: The other end has closed, and everything is read.
        """
        await checkpoint()
        while not self._in.chunks:
            if self._in.is_closed:
                raise anyio.EndOfStream
            await self._in.changed.wait()
        chunk = self._in.chunks.popleft()
        if len(chunk) > max_bytes:
            self._in.chunks.appendleft(chunk[max_bytes:])
            chunk = chunk[:max_bytes]
        self._in.size -= len(chunk)
        self._in.wake()
        return chunk

    async def send(self, item: bytes) -> None:
        """Send bytes; waits while the other end has not read what was sent before.

        Raises:
            BrokenResourceError: One of the ends is closed.
        """
        await checkpoint()
        while self._out.size >= self._out.limit and not self._out.is_closed:
            await self._out.changed.wait()
        if self._out.is_closed:
            raise anyio.BrokenResourceError
        if item:
            self._out.chunks.append(bytes(item))
            self._out.size += len(item)
            self._out.wake()

    async def send_eof(self) -> None:
        """Say that nothing more comes."""
        self._out.is_closed = True
        self._out.wake()
        await checkpoint()

    async def aclose(self) -> None:
        """Close both directions; what was sent can still be read by the other end."""
        self._in.chunks.clear()
        self._in.is_closed = True
        self._in.wake()
        await self.send_eof()


def stream_pair(limit: int = MAX_BYTES) -> tuple[MemoryStream, MemoryStream]:
    """Return two connected ends; at most about `limit` bytes wait in each direction."""
    there, back = _Pipe(limit), _Pipe(limit)
    return MemoryStream(back, there), MemoryStream(there, back)


def connector_of(stream: ByteStream) -> Connector:
    """Return what "connects" by taking a stream that is open already."""

    async def connect() -> Transport:
        await checkpoint()
        return StreamTransport(stream)

    return connect
