"""WebSocket, by trio-websocket: one packet per message out, any number of packets or parts per message in."""

from collections import deque
from collections.abc import Sequence

import trio
import trio_websocket

from triolet_gateway._gateway import Gateway
from triolet_gateway._session import ClientSession, Peer

PACKETS_PER_MESSAGE = 5
"""The JavaScript client joins up to five packets in a message (wire-protocol.md, section 0, rule 2)."""
CLOSE_TIMEOUT_S = 1.0


class WebSocketOutbox:
    """Frames that wait for the writer task of one connection."""

    def __init__(self, limit: int, scope: trio.CancelScope) -> None:
        self._frames: deque[bytes] = deque()
        self._limit = limit
        self._scope = scope
        self._wake = trio.Event()
        self._is_finished = False
        self._is_text = False
        self.pending = 0

    def use_text(self) -> None:
        """Send text messages from now on."""
        self._is_text = True

    def write(self, frames: Sequence[bytes]) -> bool:
        """Queue frames, a message each."""
        size = sum(map(len, frames))
        if self._is_finished or self.pending + size > self._limit:
            return False
        self.pending += size
        self._frames.extend(filter(None, frames))
        self._wake.set()
        return True

    async def drain(self, websocket: trio_websocket.WebSocketConnection) -> None:
        """Send what is queued until finished, then close the connection with a handshake."""
        while True:
            while self._frames:
                frame = self._frames.popleft()
                await websocket.send_message(frame.decode() if self._is_text else frame)
                self.pending -= len(frame)
            if self._is_finished:
                await websocket.aclose()
                return
            self._wake = trio.Event()
            await self._wake.wait()

    def finish(self) -> None:
        """Close once everything is out."""
        self._is_finished = True
        self._wake.set()

    def abort(self) -> None:
        """End the connection now."""
        self._scope.cancel()


async def serve_forever(
    gateway: Gateway, host: str, port: int, *, task_status: trio.TaskStatus[trio_websocket.WebSocketServer]
) -> None:
    """Accept WebSocket connections, any path, no subprotocol, no extension."""

    async def handle(request: trio_websocket.WebSocketRequest) -> None:
        await _serve(gateway, request)

    await trio_websocket.serve_websocket(
        handle,
        host,
        port,
        ssl_context=None,
        max_message_size=PACKETS_PER_MESSAGE * (gateway.config.max_frame_size + 8),
        connect_timeout=gateway.config.login_timeout,
        disconnect_timeout=CLOSE_TIMEOUT_S,
        task_status=task_status,
    )


async def _serve(gateway: Gateway, request: trio_websocket.WebSocketRequest) -> None:
    """Serve one client. trio-websocket ends its whole server if a handler raises, so nothing may get out."""
    peer = _peer_of(request)
    if not gateway.admit(peer[0]):
        await request.reject(503)
        return
    try:
        async with await request.accept() as websocket:
            await _run(gateway, websocket, peer)
    except* trio_websocket.ConnectionClosed:
        gateway.log.debug("websocket closed")
    except* Exception:
        gateway.counters.crashes_total += 1
        gateway.log.exception("connection crashed")
    finally:
        gateway.dismiss(peer[0])


def _peer_of(request: trio_websocket.WebSocketRequest) -> Peer:
    remote = request.remote
    return (remote, 0) if isinstance(remote, str) else (str(remote.address), int(remote.port))


async def _run(gateway: Gateway, websocket: trio_websocket.WebSocketConnection, peer: Peer) -> None:
    async with trio.open_nursery() as nursery:
        outbox = WebSocketOutbox(gateway.config.outbox_bytes, nursery.cancel_scope)
        session = ClientSession(gateway, outbox, peer, one_packet_per_write=True)
        session.open()
        nursery.start_soon(outbox.drain, websocket)
        try:
            await _read(websocket, session)
        finally:
            session.close()
        nursery.cancel_scope.cancel()


async def _read(websocket: trio_websocket.WebSocketConnection, session: ClientSession) -> None:
    while True:
        message = await websocket.get_message()
        data = message.encode() if isinstance(message, str) else message
        if data:
            await session.on_data(data)
