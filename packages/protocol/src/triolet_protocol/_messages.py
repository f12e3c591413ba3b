"""WebSocket frames of binary messages, many at a time; part of `_hot`. Source: RFC 6455, section 5."""

from collections.abc import Sequence

from triolet_protocol import _frames as frames
from triolet_protocol._errors import RemoteProtocolError
from triolet_protocol._varint import decode_length

MASK_BYTES = 4
SHORT, MEDIUM = 126, 127
"""In the place of a length: it follows in 2, in 8 bytes."""
MEDIUM_MAX = 0xFFFF
MASKED = 0x80
WHOLE_BINARY = 0x82
"""The first byte of a message of bytes in one frame."""
_HEADS = [bytes((WHOLE_BINARY, size)) for size in range(SHORT)]


def read_messages(buffer: bytes, offset: int, limit: int) -> tuple[bytes, int]:
    """Read binary messages of a client, each in one frame, of at most `limit` bytes.

    Stops at whatever else comes, is broken or not all there.

    Returns:
        (what they hold, joined; the offset of what follows them)
    """
    found: list[bytes] = []
    while (frame := _read(buffer, offset)) is not None:
        start, end = frame
        if end - start > limit or end > len(buffer):
            break
        found.append(unmask(buffer[start:end], buffer[start - MASK_BYTES : start]))
        offset = end
    return b"".join(found), offset


def _read(buffer: bytes, offset: int) -> tuple[int, int] | None:
    """Return start and end of what is masked in the frame at `offset`, which may end behind the buffer."""
    if len(buffer) - offset < 2 or buffer[offset] != WHOLE_BINARY or buffer[offset + 1] < MASKED:
        return None
    length, start = buffer[offset + 1] & ~MASKED, offset + 2
    if length >= SHORT:
        least, start = (SHORT, start + 2) if length == SHORT else (MEDIUM_MAX + 1, start + 8)
        length = int.from_bytes(buffer[offset + 2 : start], "big")
        if length < least:  # longer than it need be, or not all there
            return None
    start += MASK_BYTES
    return start, start + length


def unmask(data: bytes, mask: bytes) -> bytes:
    """Return masked bytes as they were: each four of them XOR the mask (section 5.3)."""
    size = len(data)
    repeated = (mask * (size // MASK_BYTES + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(repeated, "little")).to_bytes(size, "little")


def write_messages(joined: Sequence[bytes]) -> bytes:
    """Return a frame of each packet, one behind the other. What is no packet is one message.

    Args:
        joined: Bytes that hold whole packets.
    """
    parts: list[bytes] = []
    for each in joined:
        offset = 0
        while offset < len(each):
            end = _end_of_packet(each, offset)
            parts += (head(WHOLE_BINARY, end - offset), each[offset:end])
            offset = end
    return b"".join(parts)


def _end_of_packet(data: bytes, offset: int) -> int:
    if data[offset] >> 4 in (frames.PING, frames.PONG):
        return offset + 1
    try:
        found = decode_length(data, offset + 1)
    except RemoteProtocolError:
        return len(data)
    if found is None:
        return len(data)
    length, used = found
    end = offset + 1 + used + length
    return end if end <= len(data) else len(data)


def head(first: int, size: int) -> bytes:
    """Return the head of a frame of the server with this first byte."""
    if size < SHORT:
        return _HEADS[size] if first == WHOLE_BINARY else bytes((first, size))
    if size <= MEDIUM_MAX:
        return bytes((first, SHORT)) + size.to_bytes(2, "big")
    return bytes((first, MEDIUM)) + size.to_bytes(8, "big")
