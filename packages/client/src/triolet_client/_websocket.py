"""WebSocket by wsproto on a stream of bytes: one packet per message out, whatever comes in.

Source: wire-protocol.md, section 1.3; RFC 6455.
"""

from collections.abc import Sequence
from contextlib import suppress

import anyio
from anyio.abc import ByteStream
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import ProtocolError

from triolet_client._errors import LOST, ConnectionFailed

READ_BYTES = 65536
CLOSE_TIMEOUT_S = 1.0


class WebSocketTransport:
    """A WebSocket whose handshake is done. Made by `shake_hands`."""

    def __init__(self, stream: ByteStream, websocket: WSConnection) -> None:
        self._stream = stream
        self._websocket = websocket
        self._lock = anyio.Lock()
        self._is_over = False

    async def send(self, packets: Sequence[bytes]) -> None:
        """Send packets, a message each."""
        await self._write([Message(data=packet) for packet in packets])

    async def _write(self, events: Sequence[Event]) -> None:
        async with self._lock:  # a pong must not get between the bytes of a message
            try:
                await self._stream.send(b"".join([self._websocket.send(event) for event in events]))
            except LOST as exc:
                raise ConnectionFailed("the connection is lost") from exc
            except ProtocolError as exc:
                raise ConnectionFailed("the WebSocket is closed") from exc

    async def receive(self) -> bytes:
        """Return what the next messages hold, empty at the end or when the connection is lost."""
        while not self._is_over:
            try:
                data = await self._stream.receive(READ_BYTES)
            except LOST:
                return b""
            found = await self.take(data)
            if found:
                return found
        return b""

    async def take(self, data: bytes) -> bytes:
        """Hand bytes to the protocol and return what its messages hold; answers pings.

        Raises:
            ConnectionFailed: The server breaks the protocol.
        """
        parts: list[bytes] = []
        answers: list[Event] = []
        try:
            self._websocket.receive_data(data)
            for event in self._websocket.events():
                match event:
                    case BytesMessage():
                        parts.append(bytes(event.data))
                    case TextMessage():
                        parts.append(event.data.encode())
                    case Ping():
                        answers.append(event.response())
                    case CloseConnection():  # also what wsproto says of a server that breaks the protocol
                        self._is_over = True
                        answers.append(event.response())
                    case Pong():
                        continue
        except ProtocolError as exc:
            raise ConnectionFailed(f"the server breaks the WebSocket protocol: {exc}") from exc
        if answers:
            await self._write(answers)
        return b"".join(parts)

    async def aclose(self) -> None:
        """Say good-bye and close the stream."""
        with anyio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
            if not self._is_over:
                self._is_over = True
                with suppress(ConnectionFailed):  # the other end was faster
                    await self._write([CloseConnection(code=1000)])
            await self._stream.aclose()


async def shake_hands(stream: ByteStream, host: str, path: str) -> WebSocketTransport:
    """Ask for a WebSocket and wait for the answer.

    Raises:
        ConnectionFailed: The server refuses, is no WebSocket server, or leaves.
    """
    websocket = WSConnection(ConnectionType.CLIENT)
    try:
        await stream.send(websocket.send(Request(host=host, target=path)))
        while True:
            websocket.receive_data(await stream.receive(READ_BYTES))
            for event in websocket.events():
                if isinstance(event, AcceptConnection):
                    return WebSocketTransport(stream, websocket)
                if isinstance(event, RejectConnection):
                    raise ConnectionFailed(f"{host} refuses a WebSocket with status {event.status_code}")
    except LOST as exc:
        raise ConnectionFailed(f"{host} left during the WebSocket handshake") from exc
    except ProtocolError as exc:
        raise ConnectionFailed(f"{host} is no WebSocket server: {exc}") from exc
