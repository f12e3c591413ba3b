"""Reading and writing the fields of a frame's body."""

import struct
from typing import Any

from triolet_protocol._errors import LocalProtocolError, NotText, RemoteProtocolError
from triolet_protocol._numbers import ReasonCode

MAX_STRING = 0x7FFF
"""The reference reads a string's length as a signed 16-bit number (wire-protocol.md, section 1.5)."""


def malformed(detail: str) -> RemoteProtocolError:
    """Return the error for a body that cannot be read."""
    return RemoteProtocolError(ReasonCode.UNKNOWN, detail)


class Reader:
    """Reads fields of one body in order. Every short read or bad string is a `RemoteProtocolError`."""

    __slots__ = ("_body", "_offset")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._offset = 0

    def numbers(self, form: struct.Struct) -> tuple[Any, ...]:
        """Read fixed numbers."""
        start = self._offset
        self._offset = start + form.size
        if self._offset > len(self._body):
            raise malformed("a number is cut off")
        return form.unpack_from(self._body, start)

    def text(self) -> str:
        """Read a string: u16 length and UTF-8."""
        body, start = self._body, self._offset + 2
        end = start + int.from_bytes(body[start - 2 : start], "big")
        if end > len(body) or start > len(body):
            raise malformed("a string is cut off")
        if end - start > MAX_STRING:
            raise malformed(f"a string of {end - start} bytes exceeds {MAX_STRING}")
        self._offset = end
        try:
            return body[start:end].decode()
        except UnicodeDecodeError:
            raise NotText(ReasonCode.UNKNOWN, "a string is not UTF-8") from None

    def rest(self) -> bytes:
        """Read what is left."""
        start, self._offset = self._offset, len(self._body)
        return self._body[start:]

    @property
    def is_empty(self) -> bool:
        """Whether everything was read."""
        return self._offset == len(self._body)


def text(value: str) -> bytes:
    """Encode a string.

    Raises:
        LocalProtocolError: It is longer than 32,767 bytes, or no text (a lone surrogate).
    """
    try:
        raw = value.encode()
    except UnicodeEncodeError as exc:
        raise LocalProtocolError(f"a string cannot be written: {exc.reason}") from exc
    if len(raw) > MAX_STRING:
        raise LocalProtocolError(f"a string of {len(raw)} bytes cannot be written (limit {MAX_STRING})")
    return len(raw).to_bytes(2, "big") + raw


U8 = struct.Struct(">B")
U32 = struct.Struct(">I")
I32 = struct.Struct(">i")
U64 = struct.Struct(">Q")
I64 = struct.Struct(">q")
U8_U8 = struct.Struct(">BB")
U8_U32 = struct.Struct(">BI")
I64_U8 = struct.Struct(">qB")
SENDACK = struct.Struct(">qIIB")
SENDACK_V6 = struct.Struct(">qIQB")
RECVACK = struct.Struct(">qI")
RECVACK_V6 = struct.Struct(">qQ")
