"""WebSocket: one packet per message out, any number of packets or parts of them per message in.

The opening handshake is read by wsproto, any path, no subprotocol, no extension; the frames are ours, since a library
takes longer for one than the server does for the message in it.
"""

from collections.abc import Callable, Iterator, Sequence

import wsproto
from wsproto.events import AcceptConnection, RejectConnection, Request
from wsproto.handshake import H11Handshake
from wsproto.utilities import RemoteProtocolError

import triolet_protocol as wire
from triolet_gateway._admission import Proxies, client_of
from triolet_gateway._served import Served
from triolet_protocol import websocket as frames

PACKETS_PER_MESSAGE = 5
"""The JavaScript client joins up to five packets in a message (wire-protocol.md, section 0, rule 2)."""
_END_OF_HEAD = b"\r\n\r\n"


class WebSocket:
    """The layer of WebSocket, above TLS or the socket."""

    shows_parts = True
    """To a session that takes parts: to those that speak in packets, once they have begun."""
    __slots__ = (
        "_close_code",
        "_head",
        "_is_over",
        "_is_text",
        "_largest",
        "_parts",
        "_proxies",
        "_reader",
        "_send",
        "_session",
    )

    def __init__(
        self, session: Served, proxies: Proxies, send: Callable[[Sequence[bytes]], bool], *, max_frame_size: int
    ) -> None:
        self._session = session
        self._proxies = proxies
        self._largest = PACKETS_PER_MESSAGE * (max_frame_size + 8)
        self._send = send
        self._head = b""
        self._parts: list[bytes] = []
        """Of a message that the session takes whole."""
        self._reader: frames.FrameReader | None = None
        self._is_text = self._is_over = False
        self._close_code = frames.NORMAL

    def receive(self, data: bytes) -> Iterator[bytes]:
        """Yield what is in messages: whole ones, or all that came to a session that does not care where they end.

        b"" follows the peer's CLOSE.

        Raises:
            RemoteProtocolError: The client speaks no WebSocket, or not as it should.
        """
        if self._reader is None:
            data = self._greet(data)
        if self._reader is None:
            return
        stream: list[bytes] = []
        try:
            for opcode, payload, is_last in self._reader.receive(data, is_stream=self._session.takes_parts):
                if opcode == frames.PING:
                    self._send([frames.encode_frames([payload], frames.PONG)])  # if it does not fit, so be it
                elif opcode == frames.CLOSE:
                    self._close_code = int.from_bytes(payload[:2], "big") or frames.NORMAL
                    if stream:
                        yield b"".join(stream)
                    yield b""
                    return
                elif opcode != frames.PONG:
                    if self._session.takes_parts and not self._parts:
                        stream.append(payload)
                    else:
                        yield from self._whole(payload, is_last=is_last)
        except wire.RemoteProtocolError as exc:
            self._close_code = exc.reason
            if stream:
                yield b"".join(stream)
            raise
        if stream:
            yield b"".join(stream)

    def _whole(self, payload: bytes, *, is_last: bool) -> Iterator[bytes]:
        self._parts.append(payload)
        if is_last:
            message = b"".join(self._parts)
            self._parts = []
            if message:
                yield message

    def _greet(self, data: bytes) -> bytes:
        """Shake hands once the request is there; returns what follows it."""
        self._head += data
        end = self._head.find(_END_OF_HEAD) + len(_END_OF_HEAD)
        if end < len(_END_OF_HEAD):
            return b""
        head, rest = self._head[:end], self._head[end:]
        self._head = b""
        handshake = H11Handshake(wsproto.ConnectionType.SERVER)
        try:
            handshake.receive_data(head)
        except RemoteProtocolError as exc:
            if isinstance(exc.event_hint, RejectConnection):
                self._send([handshake.send(exc.event_hint)])
            raise wire.RemoteProtocolError(wire.ReasonCode.UNKNOWN, "no WebSocket handshake") from exc
        except UnicodeError as exc:  # wsproto takes names of hosts and protocols for ASCII
            self._send([handshake.send(RejectConnection())])
            raise wire.RemoteProtocolError(wire.ReasonCode.UNKNOWN, "WebSocket handshake not in ASCII") from exc
        for event in handshake.events():
            if isinstance(event, Request):
                self._rename(event)
                self._send([handshake.send(AcceptConnection())])
                self._reader = frames.FrameReader(self._largest)
        return rest

    def _rename(self, request: Request) -> None:
        """Take the word of a proxy of ours for whom it speaks."""
        session = self._session
        client = client_of(request.extra_headers, self._proxies) if session.speaks_for_others else None
        if client is not None:
            session.rename((client, 0))

    def write(self, messages: Sequence[bytes]) -> bool:
        """Send texts, or a message of each packet in bytes, in one call."""
        if self._reader is None or self._is_over:
            return False
        if not self._is_text:
            return self._send([frames.encode_packets(messages)])
        return self._send([frames.encode_frames([each for each in messages if each], frames.TEXT)])

    def use_text(self) -> None:
        """Send texts from now on."""
        self._is_text = True

    def finish(self) -> None:
        """Send a CLOSE, the answer to the client's if there was one."""
        if self._reader is not None and not self._is_over:
            self._is_over = True
            self._send([frames.encode_close(self._close_code)])
