"""The transport in memory: clients of the same process, over a stream of Trio, for tests and embedding programs."""

from collections import deque
from collections.abc import Sequence

import trio

from triolet_gateway._admission import UNIX
from triolet_gateway._gateway import Gateway
from triolet_gateway._reactor import READ_BYTES
from triolet_gateway._session import ClientSession

HOST = UNIX
"""Such a client counts as one on a Unix socket: in total, but under no address."""
CLOSE_TIMEOUT_S = 1.0


class StreamOutbox:
    """Frames that wait for the writer task of one connection, bounded by their bytes."""

    def __init__(self, gateway: Gateway, scope: trio.CancelScope) -> None:
        self._gateway = gateway
        self._scope = scope
        self._wake = trio.Event()
        self._resumed = trio.Event()
        self._frames: deque[bytes] = deque()
        self._is_finished = False
        self.pending = 0
        self.descriptor = self.readable = -1

    def use_text(self) -> None:
        """Go on: bytes are bytes here."""

    def write(self, frames: Sequence[bytes]) -> bool:
        """Queue frames; False if they do not fit or nothing more may come."""
        size = sum(map(len, frames))
        if self._is_finished or self.pending + size > self._gateway.config.outbox_bytes:
            return False
        self._frames.extend(frames)
        self._count(size)
        self._wake.set()
        return True

    def _count(self, size: int) -> None:
        self.pending += size
        if self.pending:
            self._gateway.draining.add(self)
        else:
            self._gateway.draining.discard(self)

    def wait_for(self, size: int) -> bool:
        """Do nothing: there is no kernel that could wait."""
        return False

    def resume(self) -> None:
        """Wake the reader."""
        self._resumed.set()

    async def feed(self, session: ClientSession, data: bytes) -> None:
        """Hand bytes to a session, as much at a time as a socket does, and wait while it is paused."""
        for start in range(0, len(data), READ_BYTES):
            self._gateway.reactor.now = self._gateway.now()  # nobody's turn tells the time here
            session.take(data[start : start + READ_BYTES])
            while session.is_paused:
                self._resumed = trio.Event()
                await self._resumed.wait()
                session.go_on()

    def finish(self) -> None:
        """Close once everything is out."""
        self._is_finished = True
        self._wake.set()

    def abort(self) -> None:
        """End the connection now."""
        self._scope.cancel()

    async def drain(self, stream: trio.abc.Stream) -> None:
        """Send what is queued until finished, all of it in one write; then close the stream."""
        try:
            while True:
                while self._frames:
                    data = b"".join(self._frames)
                    self._frames.clear()
                    await stream.send_all(data)
                    self._count(-len(data))
                if self._is_finished:
                    await stream.aclose()
                    return
                self._wake = trio.Event()
                await self._wake.wait()
        finally:
            self._count(-self.pending)


async def serve(gateway: Gateway, stream: trio.abc.Stream) -> None:
    """Serve one client until it leaves, is told to, or breaks the protocol. An error here ends this one only."""
    session: ClientSession | None = None
    try:
        async with trio.open_nursery() as nursery:
            outbox = StreamOutbox(gateway, nursery.cancel_scope)
            session = ClientSession(gateway, outbox, (HOST, 0), one_packet_per_write=False)
            session.open()
            nursery.start_soon(outbox.drain, stream)
            async for data in stream:
                await outbox.feed(session, bytes(data))
            nursery.cancel_scope.cancel()
    except* (trio.BrokenResourceError, trio.ClosedResourceError):
        gateway.log.debug("connection lost")
    except* Exception:
        if session is not None:
            session.on_crash()
    finally:
        if session is not None:
            session.close()
        gateway.dismiss(HOST)
        with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
            await stream.aclose()
