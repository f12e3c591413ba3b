"""The transport in memory: clients of the same process, over a stream of Trio, for tests and embedding programs."""

import trio

from triolet_gateway._admission import UNIX
from triolet_gateway._gateway import Gateway
from triolet_gateway._session import ClientSession
from triolet_gateway._websocket import FrameQueue

HOST = UNIX
"""Such a client counts as one on a Unix socket: in total, but under no address."""
CLOSE_TIMEOUT_S = 1.0


class StreamOutbox(FrameQueue):
    """Frames that wait for the writer task of one connection."""

    async def drain(self, stream: trio.abc.Stream) -> None:
        """Send what is queued until finished, all of it in one write; then close the stream."""
        while True:
            while self.frames:
                data = b"".join(self.frames)
                self.frames.clear()
                await stream.send_all(data)
                self.pending -= len(data)
            if self.is_finished:
                await stream.aclose()
                return
            await self.wait()


async def serve(gateway: Gateway, stream: trio.abc.Stream) -> None:
    """Serve one client until it leaves, is told to, or breaks the protocol. An error here ends this one only."""
    session: ClientSession | None = None
    try:
        async with trio.open_nursery() as nursery:
            outbox = StreamOutbox(gateway.config.outbox_bytes, nursery.cancel_scope)
            session = ClientSession(gateway, outbox, (HOST, 0), one_packet_per_write=False)
            session.open()
            nursery.start_soon(outbox.drain, stream)
            async for data in stream:
                await session.on_data(bytes(data))
            nursery.cancel_scope.cancel()
    except* (trio.BrokenResourceError, trio.ClosedResourceError):
        gateway.log.debug("connection lost")
    except* Exception:
        gateway.counters.crashes_total += 1
        number = None if session is None else session.connection_id
        gateway.log.exception("connection crashed", connection_id=number)
    finally:
        if session is not None:
            session.close()
        gateway.dismiss(HOST)
        with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
            await stream.aclose()
