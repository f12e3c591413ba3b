"""How bytes reach a server: TCP, TLS, WebSocket. A connector opens one transport; tests bring their own.

Addresses: `host:port`, `tcp://`, `tls://`, `ws://`, `wss://`.
"""

import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol
from urllib.parse import urlsplit

import anyio
from anyio.abc import ByteStream

from triolet_client import _websocket
from triolet_client._errors import LOST, ConnectionFailed

READ_BYTES = 65536
CLOSE_TIMEOUT_S = 1.0
_PORTS = {"tcp": 5100, "tls": 5100, "ws": 5200, "wss": 5210}


class Transport(Protocol):
    """A connection that carries packets."""

    async def send(self, packets: Sequence[bytes]) -> None:
        """Send packets, whole and in order.

        Raises:
            ConnectionFailed: The connection is lost.
        """
        ...

    async def receive(self) -> bytes:
        """Return bytes of the server, empty at the end.

        Raises:
            ConnectionFailed: The server does not speak the transport's protocol.
        """
        ...

    async def aclose(self) -> None:
        """Close the connection; waits a second at most."""
        ...


Connector = Callable[[], Awaitable[Transport]]
"""Opens a transport, or raises ConnectionFailed."""


class StreamTransport:
    """Packets back to back on a stream of bytes: TCP, TLS, or a stream in memory."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    async def send(self, packets: Sequence[bytes]) -> None:
        """Send packets in one write."""
        try:
            await self._stream.send(b"".join(packets))
        except LOST as exc:
            raise ConnectionFailed("the connection is lost") from exc

    async def receive(self) -> bytes:
        """Return what there is, empty at the end or when the connection is lost."""
        try:
            return await self._stream.receive(READ_BYTES)
        except LOST:
            return b""

    async def aclose(self) -> None:
        """Close the stream."""
        with anyio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
            await self._stream.aclose()


def connector(address: str, context: ssl.SSLContext | None = None) -> Connector:
    """Return what connects to an address.

    Args:
        address: See the module's text.
        context: What to trust, for `tls://` and `wss://`; None is the system's certificates.

    Raises:
        ValueError: The address cannot be understood.
    """
    parts = urlsplit(address if "://" in address else f"tcp://{address}")
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError(f"{address!r} is no address; use host:port, tcp://, tls://, ws:// or wss://")
    port = parts.port or _PORTS[parts.scheme]
    is_secure = parts.scheme in ("tls", "wss")
    opened = partial(_open, parts.hostname, port, (context or ssl.create_default_context()) if is_secure else None)
    if parts.scheme in ("ws", "wss"):
        return partial(_over_websocket, opened, f"{parts.hostname}:{port}", parts.path or "/")
    return partial(_plain, opened)


async def _open(host: str, port: int, context: ssl.SSLContext | None) -> ByteStream:
    try:
        if context is None:
            return await anyio.connect_tcp(host, port)
        return await anyio.connect_tcp(
            host, port, tls=True, ssl_context=context, tls_hostname=host, tls_standard_compatible=False
        )
    except LOST as exc:
        raise ConnectionFailed(f"cannot connect to {host}:{port}: {exc}") from exc


async def _plain(opened: Callable[[], Awaitable[ByteStream]]) -> Transport:
    return StreamTransport(await opened())


async def _over_websocket(opened: Callable[[], Awaitable[ByteStream]], host: str, path: str) -> Transport:
    stream = await opened()
    try:
        return await _websocket.shake_hands(stream, host, path)
    except BaseException:
        await anyio.aclose_forcefully(stream)
        raise
