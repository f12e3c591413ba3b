"""Streams below and above TLS and WebSocket: who the client is, how much it may say before it has logged in."""

import socket

import trio

import triolet_protocol as wire
from triolet_gateway._admission import Peer
from triolet_gateway._gateway import Gateway

HANDSHAKE_BYTES = 32768
"""What TLS and HTTP may take before the first packet, beside `gateway.maxLoginBytes`."""


class ClientStream(trio.abc.Stream):
    """An accepted socket. A proxy of ours may name its client first; too much before the login is the end."""

    __slots__ = ("_budget", "_gateway", "_is_announced", "_stream", "is_limited", "peer")

    def __init__(self, gateway: Gateway, sock: socket.socket, peer: Peer) -> None:
        self._gateway = gateway
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._budget = gateway.config.max_login_bytes + HANDSHAKE_BYTES
        self._is_announced = not gateway.admission.is_proxy(peer[0])
        self.is_limited = True
        self.peer = peer

    def rename(self, client: Peer) -> None:
        """Take a proxy's word for whom it speaks.

        Raises:
            RemoteProtocolError: That client may not connect.
        """
        self._gateway.rename(self.peer[0], client[0])
        self.peer = client

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive what there is.

        Raises:
            BrokenResourceError: The connection is lost, or its bytes before the login are used up.
        """
        if not self._is_announced:
            rest = await self._take_header()
            self._is_announced = True
            if rest:
                return rest
        data = bytes(await self._stream.receive_some(max_bytes))
        if self.is_limited:
            self._budget -= len(data)
            if self._budget < 0:
                self._gateway.counters.protocol_errors_total += 1
                raise trio.BrokenResourceError("too much before the login (gateway.maxLoginBytes)")
        return data

    async def _take_header(self) -> bytes:
        """Read a PROXY header if there is one; an HTTP proxy sends none and names the client in its request."""
        waiting = b""
        while True:
            data = await self._stream.receive_some()
            waiting += data
            if not data or wire.begins_header(waiting) is False:
                return waiting
            found = wire.read_header(waiting)
            if found is not None:
                client, used = found
                if client is not None:
                    self.rename(client)
                return waiting[used:]

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until something can be sent."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the socket."""
        await self._stream.aclose()


class Watched(trio.abc.Stream):
    """A stream that cancels a scope when it ends: the library's handshake would wait on for a client that has left."""

    __slots__ = ("_stream", "scope")

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.scope: trio.CancelScope | None = None

    def _end(self) -> None:
        if self.scope is not None:
            self.scope.cancel()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive what there is; an error or the end ends the scope."""
        try:
            data = bytes(await self._stream.receive_some(max_bytes))
        except trio.BrokenResourceError:
            self._end()
            raise
        if not data:
            self._end()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until something can be sent."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the stream, and end the scope."""
        self._end()
        await self._stream.aclose()
