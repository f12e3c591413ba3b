"""The lowest layer: whom a balancer of ours speaks for, and how much may come before the login."""

from collections.abc import Callable, Iterator, Sequence

import triolet_protocol as wire
from triolet_gateway._config import GatewayConfig
from triolet_gateway._served import Served

HANDSHAKE_BYTES = 32768
"""What TLS and HTTP may take before the first packet, beside `gateway.maxLoginBytes`."""


class Entrance:
    """Takes the PROXY header off; afterwards bytes are bytes, but not too many of them before the login."""

    shows_parts = True
    __slots__ = ("_budget", "_is_announced", "_needs_header", "_send", "_session", "_waiting")

    def __init__(
        self,
        session: Served,
        config: GatewayConfig,
        send: Callable[[bytes], bool],
        *,
        is_announced: bool,
        needs_header: bool,
    ) -> None:
        """Take the first bytes of a connection.

        Args:
            session: Whose peer is renamed.
            config: The bound.
            send: Sends to the socket.
            is_announced: No header is expected, and one that comes is passed on.
            needs_header: One that does not come ends the connection. An HTTP proxy sends none and names the client in
                its request.
        """
        self._session = session
        self._send = send
        self._budget = config.max_login_bytes + HANDSHAKE_BYTES
        self._is_announced = is_announced
        self._needs_header = needs_header
        self._waiting = b""

    def receive(self, data: bytes) -> Iterator[bytes]:
        """Yield what follows the header.

        Raises:
            RemoteProtocolError: There is none, its client may not connect, or too much came before the login.
        """
        if not self._session.is_known:
            self._budget -= len(data)
            if self._budget < 0:
                raise wire.RemoteProtocolError(
                    wire.ReasonCode.UNKNOWN, "too much before the login (gateway.maxLoginBytes)"
                )
        if not self._is_announced:
            self._waiting += data
            data = self._take_header()
        if data:
            yield data

    def _take_header(self) -> bytes:
        """Return what follows the header, nothing while it is not all there."""
        waiting, session = self._waiting, self._session
        if not self._needs_header and wire.begins_header(waiting) is False:
            client, used = None, 0
        else:
            found = wire.read_header(waiting)
            if found is None:
                return b""
            client, used = found
        if client is not None:
            session.rename(client)
        self._is_announced, self._waiting = True, b""
        return waiting[used:]

    def write(self, frames: Sequence[bytes]) -> bool:
        """Send frames in one call."""
        return self._send(b"".join(frames))

    def use_text(self) -> None:
        """Go on: bytes are bytes here."""

    def finish(self) -> None:
        """Go on: there is nothing to say."""
