"""WebSocket framing, the server's end; no IO, and the opening handshake is somebody else's. Source: RFC 6455.

A client's frames go in as bytes in any portions, what they hold comes out: pieces of messages as they arrive, so that
a long frame takes no memory here, and whole control frames. No extensions, hence no compression. What breaks the
protocol ends the connection with the close code that section 7.4.1 has for it.
"""

import codecs
import os
from collections.abc import Iterator, Sequence

from triolet_protocol import _choice
from triolet_protocol._errors import RemoteProtocolError
from triolet_protocol._messages import MASK_BYTES, MEDIUM_MAX, SHORT, head, unmask

hot = _choice.choose(os.environ)

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
NORMAL, GOING_AWAY, PROTOCOL_ERROR, NOT_UTF8, TOO_LONG, OUR_ERROR = 1000, 1001, 1002, 1007, 1009, 1011
MAX_CONTROL = 125
_FIN, _RESERVED, _OPCODE, _MASKED = 0x80, 0x70, 0x0F, 0x80
_DATA = frozenset({CONTINUATION, TEXT, BINARY})
_CONTROL = frozenset({CLOSE, PING, PONG})
_Utf8Decoder = codecs.getincrementaldecoder("utf-8")

Part = tuple[int, bytes, bool]
"""(opcode, bytes, whether they are the last of their message). TEXT and BINARY come in pieces, CLOSE, PING and PONG
whole; the bytes of a CLOSE are its code and reason."""


class FrameReader:
    """Reads the frames of one client."""

    __slots__ = ("_buffer", "_decoder", "_is_final", "_left", "_limit", "_mask", "_opcode", "_size")

    def __init__(self, limit: int) -> None:
        """`limit`: most bytes of a message, which holds before they have come."""
        self._limit = limit
        self._buffer = b""
        self._mask = b""
        self._left = 0
        """Bytes of the present data frame that have not come."""
        self._is_final = True
        self._opcode = CONTINUATION
        """What the present message is; CONTINUATION between messages."""
        self._size = 0
        """Bytes of the present message."""
        self._decoder: codecs.IncrementalDecoder | None = None

    def receive(self, data: bytes, *, is_stream: bool = False) -> Iterator[Part]:
        """Yield what the bytes complete. Take everything before the next call.

        Args:
            data: Bytes of the client.
            is_stream: It does not matter where binary messages end: several may come as one, which is much faster.

        Raises:
            RemoteProtocolError: The client broke the protocol. Its reason is the close code to send, and nothing more
                may be received.
        """
        buffer = self._buffer + data if self._buffer else data
        offset, size = 0, len(buffer)
        while True:
            if is_stream and self._opcode == CONTINUATION:
                messages, offset = hot.read_messages(buffer, offset, self._limit)
                if messages:
                    yield BINARY, messages, True
                if offset == size:
                    break
            if self._left:
                if offset == size:
                    break
                end = min(size, offset + self._left)
                yield self._piece(buffer[offset:end])
                offset = end
                continue
            head = self._read_head(buffer, offset)
            if head is None:
                break
            opcode, start, end = head
            if opcode in _CONTROL:
                if end > size:
                    break
                self._mask = buffer[start - MASK_BYTES : start]
                yield opcode, _check_control(opcode, unmask(buffer[start:end], self._mask)), True
                offset = end
                continue
            self._begin(opcode, end - start)
            self._is_final = buffer[offset] >= _FIN
            self._mask = buffer[start - MASK_BYTES : start]
            self._left = end - start
            offset = start
            if not self._left:
                yield self._piece(b"")
        self._buffer = buffer[offset:]

    def _read_head(self, buffer: bytes, offset: int) -> tuple[int, int, int] | None:
        """Return (opcode, start and end of the payload); None if the head is not all there."""
        if len(buffer) - offset < 2:
            return None
        first, second = buffer[offset], buffer[offset + 1]
        opcode, length, start = first & _OPCODE, second & ~_MASKED, offset + 2
        if first & _RESERVED or not second & _MASKED or (opcode not in _DATA and opcode not in _CONTROL):
            raise RemoteProtocolError(PROTOCOL_ERROR, "a frame with reserved bits, a reserved opcode or no mask")
        if opcode in _CONTROL and (length > MAX_CONTROL or first < _FIN):
            raise RemoteProtocolError(PROTOCOL_ERROR, "a control frame that is too long or fragmented")
        if length >= SHORT:
            start += 2 if length == SHORT else 8
            if len(buffer) < start:
                return None
            least = SHORT if length == SHORT else MEDIUM_MAX + 1
            length = int.from_bytes(buffer[offset + 2 : start], "big")
            if length < least or length >> 63:
                raise RemoteProtocolError(PROTOCOL_ERROR, "a length that is longer than it need be, or negative")
        start += MASK_BYTES
        return None if len(buffer) < start else (opcode, start, start + length)

    def _begin(self, opcode: int, length: int) -> None:
        """Begin a data frame."""
        if (opcode == CONTINUATION) is (self._opcode == CONTINUATION):
            raise RemoteProtocolError(PROTOCOL_ERROR, "a continuation of nothing, or a message within a message")
        if opcode != CONTINUATION:
            self._opcode = opcode
            self._decoder = _Utf8Decoder() if opcode == TEXT else None
        self._size += length
        if self._size > self._limit:
            raise RemoteProtocolError(TOO_LONG, f"a message of more than {self._limit} bytes")

    def _piece(self, masked: bytes) -> Part:
        data = unmask(masked, self._mask)
        self._left -= len(data)
        is_last = self._is_final and not self._left
        if self._left:
            turn = len(data) % MASK_BYTES
            self._mask = self._mask[turn:] + self._mask[:turn]
        opcode = self._opcode
        if self._decoder is not None:
            try:
                self._decoder.decode(data, is_last)
            except UnicodeDecodeError:
                raise RemoteProtocolError(NOT_UTF8, "a text that is not UTF-8") from None
        if is_last:
            self._opcode, self._size, self._decoder = CONTINUATION, 0, None
        return opcode, data, is_last


def _check_control(opcode: int, payload: bytes) -> bytes:
    """Return the payload of a control frame; that of a CLOSE is none, or a code that may be sent and a text."""
    if opcode != CLOSE or not payload:
        return payload
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not (code in range(1000, 1004) or code in range(1007, 1015) or code in range(3000, 5000)):
        raise RemoteProtocolError(PROTOCOL_ERROR, "a close code that nobody may send")
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        raise RemoteProtocolError(NOT_UTF8, "the reason of a CLOSE is not UTF-8") from None
    return payload


def encode_frames(payloads: Sequence[bytes], opcode: int) -> bytes:
    """Return a frame of each payload, whole messages of the server, one behind the other."""
    return b"".join([part for payload in payloads for part in (head(_FIN | opcode, len(payload)), payload)])


def encode_packets(joined: Sequence[bytes]) -> bytes:
    """Return a binary message of each packet; `joined` are bytes that hold whole packets."""
    return hot.write_messages(joined)


def encode_close(code: int) -> bytes:
    """Return a CLOSE."""
    return encode_frames([code.to_bytes(2, "big")], CLOSE)
