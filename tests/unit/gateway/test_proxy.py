"""PROXY headers, cut anywhere, broken anyhow. Source: "The PROXY protocol", versions 1 and 2, sections 2.1 and 2.2."""

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triolet_protocol import RemoteProtocolError, begins_header, read_header
from triolet_protocol._proxy import MAX_BLOCK, MAX_LINE, SIGNATURE


def block(source: str, port: int, *, command: int = 0x21, extra: bytes = b"") -> bytes:
    address = ipaddress.ip_address(source)
    family = 0x11 if address.version == 4 else 0x21
    body = address.packed + address.packed + struct.pack(">HH", port, 5100) + extra
    return SIGNATURE + struct.pack(">BBH", command, family, len(body)) + body


@pytest.mark.parametrize(
    ("header", "client"),
    [
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 56324 5100\r\n", ("192.0.2.7", 56324)),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 65535 5100\r\n", ("2001:db8::7", 65535)),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
        (block("192.0.2.7", 56324), ("192.0.2.7", 56324)),
        (block("2001:db8::7", 1), ("2001:db8::7", 1)),
        (block("192.0.2.7", 9, extra=b"\x03\x00\x04abcd"), ("192.0.2.7", 9)),
        (block("192.0.2.7", 9, command=0x20), None),
        (SIGNATURE + b"\x20\x00\x00\x00", None),
        (SIGNATURE + b"\x21\x31\x00\x02ab", None),
    ],
)
def test_a_header_names_the_client_and_is_cut_off(header: bytes, client: tuple[str, int] | None) -> None:
    assert read_header(header + b"\x10rest") == (client, len(header))
    for cut in range(len(header)):
        assert read_header(header[:cut]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"\x10\x05",
        b"GET / HTTP/1.1\r\n",
        b"PROXY \r\n",
        b"PROXY TCP4\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 1\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 1 99999\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 -1 1\r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::1 1 1\r\n",
        b"PROXY TCP6 192.0.2.7 192.0.2.1 1 1\r\n",
        b"PROXY UDP4 192.0.2.7 192.0.2.1 1 1\r\n",
        b"PROXY TCP4 \xff \xff 1 1\r\n",
        b"PROXY " + b"x" * MAX_LINE,
        SIGNATURE + b"\x31\x11\x00\x00",
        SIGNATURE + b"\x22\x11\x00\x00",
        SIGNATURE + b"\x21\x11\x00\x04abcd",
        SIGNATURE + struct.pack(">BBH", 0x21, 0x11, MAX_BLOCK),
    ],
)
def test_a_broken_header_is_refused(data: bytes) -> None:
    """The last is refused by its length alone: nothing of that size is waited for."""
    with pytest.raises(RemoteProtocolError):
        read_header(data)


@given(st.one_of(st.ip_addresses(), st.ip_addresses(v=6)), st.integers(0, 65535), st.binary(max_size=40))
def test_both_versions_carry_any_address(address: ipaddress.IPv4Address, port: int, rest: bytes) -> None:
    kind = "TCP4" if address.version == 4 else "TCP6"
    line = f"PROXY {kind} {address} {address} {port} 1\r\n".encode()
    for header in (line, block(str(address), port)):
        found = read_header(header + rest)
        assert found is not None
        client, used = found
        assert client is not None
        assert (ipaddress.ip_address(client[0]), client[1], used) == (address, port, len(header))


@given(st.binary(max_size=150), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"]))
def test_any_bytes_give_a_header_a_wait_or_a_refusal(data: bytes, start: bytes) -> None:
    data = start + data
    try:
        found = read_header(data)
    except RemoteProtocolError:
        return
    if found is None:
        assert begins_header(data) is not False
        assert len(data) < MAX_BLOCK
    else:
        assert 0 < found[1] <= len(data)
