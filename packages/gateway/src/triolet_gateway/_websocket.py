"""WebSocket, by trio-websocket: one packet per message out, any number of packets or parts per message in."""

import socket
from collections import deque
from collections.abc import Sequence

import trio
import trio_websocket

import triolet_protocol as wire
from triolet_gateway._admission import Peer, client_of
from triolet_gateway._client_stream import ClientStream, Watched
from triolet_gateway._gateway import Gateway
from triolet_gateway._session import ClientSession
from triolet_gateway._tls import Certificates

PACKETS_PER_MESSAGE = 5
"""The JavaScript client joins up to five packets in a message (wire-protocol.md, section 0, rule 2)."""
CLOSE_TIMEOUT_S = 1.0


class FrameQueue:
    """Frames that wait for the writer task of one connection, bounded by their bytes."""

    def __init__(self, limit: int, scope: trio.CancelScope) -> None:
        self._limit = limit
        self._scope = scope
        self._wake = trio.Event()
        self._is_text = False
        self.frames: deque[bytes] = deque()
        self.is_finished = False
        self.pending = 0
        self.descriptor = -1

    def use_text(self) -> None:
        """Take every frame for UTF-8 text from now on."""
        self._is_text = True

    def write(self, frames: Sequence[bytes]) -> bool:
        """Queue frames, a message each; False if they do not fit or nothing more may come."""
        size = sum(map(len, frames))
        if self.is_finished or self.pending + size > self._limit:
            return False
        self.pending += size
        self.frames.extend(filter(None, frames))
        self._wake.set()
        return True

    async def wait(self) -> None:
        """Wait until there is something to do."""
        self._wake = trio.Event()
        await self._wake.wait()

    def finish(self) -> None:
        """Close once everything is out."""
        self.is_finished = True
        self._wake.set()

    def abort(self) -> None:
        """End the connection now."""
        self._scope.cancel()


class WebSocketOutbox(FrameQueue):
    """Outbox of a WebSocket."""

    async def drain(self, websocket: trio_websocket.WebSocketConnection) -> None:
        """Send what is queued until finished, then close the connection with a handshake."""
        while True:
            while self.frames:
                frame = self.frames.popleft()
                await websocket.send_message(frame.decode() if self._is_text else frame)
                self.pending -= len(frame)
            if self.is_finished:
                await websocket.aclose()
                return
            await self.wait()


async def serve(gateway: Gateway, sock: socket.socket, peer: Peer) -> None:
    """Serve one client, any path, no subprotocol, no extension. An error here ends this one only."""
    await _serve(gateway, ClientStream(gateway, sock, peer), None)


async def serve_tls(certificates: Certificates, gateway: Gateway, sock: socket.socket, peer: Peer) -> None:
    """As `serve`, with TLS."""
    await _serve(gateway, ClientStream(gateway, sock, peer), certificates)


async def _serve(gateway: Gateway, stream: ClientStream, certificates: Certificates | None) -> None:
    secured = (
        stream
        if certificates is None
        else trio.SSLStream(stream, certificates.context, server_side=True, https_compatible=True)
    )
    try:
        async with trio.open_nursery() as nursery:
            await _greet(gateway, stream, Watched(secured), nursery)
            nursery.cancel_scope.cancel()
    except* (trio_websocket.ConnectionClosed, trio_websocket.ConnectionRejected, trio.BrokenResourceError):
        gateway.log.debug("websocket closed")
    except* wire.RemoteProtocolError as group:
        gateway.counters.protocol_errors_total += 1
        gateway.log.info("protocol error", detail=str(group.exceptions[0]))
    except* Exception:
        gateway.counters.crashes_total += 1
        gateway.log.exception("connection crashed")
    finally:
        gateway.dismiss(stream.peer[0])
        with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
            await stream.aclose()


async def _greet(gateway: Gateway, stream: ClientStream, watched: Watched, nursery: trio.Nursery) -> None:
    """Shake hands, within the time for a login; then serve."""
    largest = PACKETS_PER_MESSAGE * (gateway.config.max_frame_size + 8)
    with trio.move_on_after(gateway.config.login_timeout) as patience:
        watched.scope = patience
        request = await trio_websocket.wrap_server_stream(nursery, watched, max_message_size=largest)
        client = client_of(request.headers, gateway.admission) if gateway.admission.is_proxy(stream.peer[0]) else None
        if client is not None:
            stream.rename((client, 0))
        websocket = await request.accept()
    if not patience.cancelled_caught:
        watched.scope = None
        await _run(gateway, stream, websocket, nursery)


async def _run(
    gateway: Gateway, stream: ClientStream, websocket: trio_websocket.WebSocketConnection, nursery: trio.Nursery
) -> None:
    outbox = WebSocketOutbox(gateway.config.outbox_bytes, nursery.cancel_scope)
    session = ClientSession(gateway, outbox, stream.peer, one_packet_per_write=True)
    session.open()
    nursery.start_soon(outbox.drain, websocket)
    try:
        while True:
            message = await websocket.get_message()
            data = message.encode() if isinstance(message, str) else message
            if data:
                await session.on_data(data)
                stream.is_limited = stream.is_limited and not session.is_ready
    except trio_websocket.ConnectionClosed:
        gateway.log.debug("websocket closed", connection_id=session.connection_id)
    except Exception:
        gateway.counters.crashes_total += 1
        gateway.log.exception("connection crashed", connection_id=session.connection_id)
    finally:
        session.close()
