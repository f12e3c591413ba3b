"""A WebSocket client for tests that want to see and break every frame."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

import triolet_protocol as wire

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MASK = b"\x12\x9a\xf0\x0f"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The answer to that key. Source: RFC 6455, section 1.3."""
REQUEST = (
    "GET /any?x=1 HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
).encode()


def masked(data: bytes, mask: bytes = MASK) -> bytes:
    return bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, reserved: int = 0, mask: bytes | None = MASK, form: int = 0
) -> bytes:
    """A client's frame, right or wrong; `form` 2 or 8 forces a long form of the length."""
    size, is_masked = len(payload), 0x80 if mask is not None else 0
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    if form == 8 or size > 0xFFFF:
        head = bytes((first, is_masked | 127)) + size.to_bytes(8, "big")
    elif form == 2 or size > 125:
        head = bytes((first, is_masked | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, is_masked | size))
    return head + (mask + masked(payload, mask) if mask is not None else payload)


class RawWebSocket:
    """A connection whose handshake is done."""

    def __init__(self, stream: trio.SocketStream, rest: bytes) -> None:
        self.stream = stream
        self.protocol = wire.Connection(wire.Role.CLIENT)
        self._rest = rest

    async def send(self, *frames: bytes) -> None:
        await self.stream.send_all(b"".join(frames))

    async def _more(self) -> None:
        data = await self.stream.receive_some()
        if not data:
            raise EOFError
        self._rest += data

    async def read(self) -> tuple[int, bytes]:
        """Return opcode and payload of the next frame; every frame of a server is whole and not masked."""
        while True:
            if len(self._rest) >= 2:
                first, size, start = self._rest[0], self._rest[1], 2
                assert first & 0xF0 == 0x80, "a fragment, or reserved bits"
                assert size < 0x80, "masked"
                if size > 125:
                    start = 4 if size == 126 else 10
                    size = int.from_bytes(self._rest[2:start], "big") if len(self._rest) >= start else 1 << 40
                if len(self._rest) >= start + size:
                    payload, self._rest = self._rest[start : start + size], self._rest[start + size :]
                    return first & 0x0F, payload
            await self._more()

    async def read_until(self, opcode: int) -> bytes:
        while True:
            found, payload = await self.read()
            if found == opcode:
                return payload

    async def read_close(self) -> int:
        """Return the code of the CLOSE, after which nothing comes."""
        payload = await self.read_until(CLOSE)
        assert not self._rest
        assert await self.stream.receive_some() == b""
        return int.from_bytes(payload[:2], "big")

    def connect_packet(self, uid: str) -> bytes:
        return self.protocol.connect(
            uid=uid, token="", device_id="d", device_flag=1, client_timestamp=0, private_key=b"\7" * 32
        )

    async def log_in(self, uid: str) -> None:
        await self.send(frame(BINARY, self.connect_packet(uid)))
        self.protocol.receive_data(await self.read_until(BINARY))
        [answer] = self.protocol.events()
        assert isinstance(answer, wire.ConnAckReceived)
        assert answer.connack.reason_code == 1

    def message(self, to: str, number: int, payload: bytes = b"x") -> bytes:
        return self.protocol.send_message(
            client_seq=number, client_msg_no=f"n{number}", channel_id=to, channel_type=1, payload=payload
        )

    async def read_event(self) -> Any:
        self.protocol.receive_data(await self.read_until(BINARY))
        [event] = self.protocol.events()
        return event


@asynccontextmanager
async def open_raw(server: Any, uid: str | None = None) -> AsyncIterator[RawWebSocket]:
    """Shake hands, and log in if a uid is given."""
    host, _, port = server.broker.endpoints["ws"].rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(REQUEST)
        data = b""
        while b"\r\n\r\n" not in data:
            data += await stream.receive_some()
        head, _, rest = data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert ACCEPT in head
        websocket = RawWebSocket(stream, rest)
        if uid is not None:
            await websocket.log_in(uid)
        yield websocket
