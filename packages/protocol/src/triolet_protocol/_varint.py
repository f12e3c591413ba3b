"""Remaining length: little-endian base 128, at most 4 bytes. Source: wire-protocol.md, section 2.3."""

from triolet_protocol._errors import LocalProtocolError, RemoteProtocolError
from triolet_protocol._numbers import ReasonCode

MAX_LENGTH = (1 << 28) - 1


def encode_length(length: int) -> bytes:
    """Encode a remaining length.

    Raises:
        LocalProtocolError: It needs more than 4 bytes.
    """
    if length < 0x80:
        return bytes((length,))
    if length > MAX_LENGTH:
        raise LocalProtocolError(f"a frame of {length} bytes cannot be written (limit {MAX_LENGTH})")
    out = bytearray()
    while length >= 0x80:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    out.append(length)
    return bytes(out)


def decode_length(buffer: bytes | bytearray, offset: int) -> tuple[int, int] | None:
    """Decode the remaining length at `offset`.

    Returns:
        (length, bytes used by the field), or None if the field is incomplete.

    Raises:
        RemoteProtocolError: The field is longer than 4 bytes.
    """
    length = 0
    for used in range(4):
        if offset + used >= len(buffer):
            return None
        byte = buffer[offset + used]
        length |= (byte & 0x7F) << (7 * used)
        if byte < 0x80:
            return length, used + 1
    raise RemoteProtocolError(ReasonCode.UNKNOWN, "the remaining length has more than 4 bytes")
