"""PROXY protocol, versions 1 and 2: who is behind a balancer. Bytes in, the client's address out; no IO.

Source: "The PROXY protocol", versions 1 and 2, HAProxy, 2020. A header comes before everything else. Version 1 is a
line, version 2 a block with a length. What a header holds beside the addresses (TLVs, checksum) is skipped.
"""

import ipaddress
import struct

from triolet_protocol._errors import RemoteProtocolError
from triolet_protocol._numbers import ReasonCode

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
MAX_LINE = 107
"""Longest line of version 1, with its end."""
MAX_BLOCK = 4096
"""Longest block of version 2 that is taken. The addresses need 36 bytes; balancers add some hundred of TLVs."""
_V1 = b"PROXY "
_HEAD = struct.Struct(">12sBBH")
_PORTS = struct.Struct(">HH")
_LOCAL, _PROXY = 0x20, 0x21
_SIZES = {0x1: 4, 0x2: 16}
"""Bytes of an address, by family."""

Address = tuple[str, int]


def begins_header(data: bytes) -> bool | None:
    """Tell whether a connection begins with a header; None if that cannot be told yet."""
    for start in (_V1, SIGNATURE):
        if data.startswith(start):
            return True
        if start.startswith(data):
            return None
    return False


def read_header(data: bytes) -> tuple[Address | None, int] | None:
    """Read the header at the start of a connection.

    Returns:
        (host and port of the client, bytes used), the address None if the balancer speaks for itself or does not
        know; None if the header is not all there.

    Raises:
        RemoteProtocolError: This is no header, or a broken or too long one.
    """
    match begins_header(data):
        case None:
            return None
        case False:
            raise _malformed("no PROXY header where one must be")
    return _read_line(data) if data.startswith(_V1) else _read_block(data)


def _read_line(data: bytes) -> tuple[Address | None, int] | None:
    end = data.find(b"\r\n", 0, MAX_LINE)
    if end < 0:
        if len(data) >= MAX_LINE:
            raise _malformed(f"a PROXY line of more than {MAX_LINE} bytes")
        return None
    words = data[len(_V1) : end].split(b" ")
    if words[0] == b"UNKNOWN":
        return None, end + 2
    if len(words) != 5 or words[0] not in (b"TCP4", b"TCP6"):
        raise _malformed("a PROXY line of other words than it has")
    try:
        host = ipaddress.ip_address(words[1].decode("ascii"))
        ipaddress.ip_address(words[2].decode("ascii"))
        ports = [int(word) for word in words[3:] if word.isdigit() and len(word) <= 5]
    except ValueError:
        raise _malformed("a PROXY line without addresses") from None
    if host.version != (4 if words[0] == b"TCP4" else 6) or len(ports) != 2 or max(ports) > 0xFFFF:
        raise _malformed("a PROXY line with a wrong address or port")
    return (str(host), ports[0]), end + 2


def _read_block(data: bytes) -> tuple[Address | None, int] | None:
    if len(data) < _HEAD.size:
        return None
    _, command, kind, length = _HEAD.unpack_from(data)
    if command not in (_LOCAL, _PROXY):
        raise _malformed("a PROXY block of an unknown version or command")
    end = _HEAD.size + length
    if end > MAX_BLOCK:
        raise _malformed(f"a PROXY block of {end} bytes exceeds {MAX_BLOCK}")
    if len(data) < end:
        return None
    size = _SIZES.get(kind >> 4)
    if command == _LOCAL or size is None:
        return None, end
    if length < 2 * size + _PORTS.size:
        raise _malformed("a PROXY block without its addresses")
    start = _HEAD.size
    port, _ = _PORTS.unpack_from(data, start + 2 * size)
    return (str(ipaddress.ip_address(data[start : start + size])), port), end


def _malformed(detail: str) -> RemoteProtocolError:
    return RemoteProtocolError(ReasonCode.UNKNOWN, detail)
