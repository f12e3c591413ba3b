"""WebSocket over real sockets, frame by frame: what the gateway answers to right and wrong clients."""

from pathlib import Path

import pytest
import trio

import triolet_protocol as wire
from tests.integration.test_gateway import server_in
from tests.jsonclient import JsonClient
from tests.websocket import BINARY, CLOSE, CONTINUATION, PING, PONG, REQUEST, TEXT, frame, open_raw
from tests.wkclient import client


async def test_packets_may_be_cut_and_joined_by_frames_and_messages(tmp_path: Path) -> None:
    """Any number of packets, or parts of them, in a message; one packet in each that the server sends."""
    async with server_in(tmp_path) as server, open_raw(server, "ann") as ann:
        packets = b"".join(ann.message("bob", number) for number in range(1, 6))
        cut = len(packets) // 2 + 3
        await ann.send(
            frame(BINARY, packets[:7], fin=False),
            frame(PING, b"between"),
            frame(CONTINUATION, packets[7:cut]),
            frame(BINARY, packets[cut:] + ann.protocol.ping()),
        )
        assert await ann.read() == (PONG, b"between")
        events = [await ann.read_event() for _ in range(6)]
        acks = [event.sendack.client_seq for event in events if isinstance(event, wire.SendAckReceived)]
        assert sorted(acks) == [1, 2, 3, 4, 5]


async def test_frames_may_come_byte_by_byte(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server, open_raw(server, "ann") as ann:
        for byte in frame(BINARY, ann.message("bob", 1)) + frame(PING, b"now"):
            await ann.send(bytes((byte,)))
        found = {await ann.read_until(PONG)}
        assert found == {b"now"}


async def test_a_request_may_come_in_parts_and_with_frames_behind_it(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server:
        host, _, port = server.broker.endpoints["ws"].rpartition(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            for byte in REQUEST[:-1]:
                await stream.send_all(bytes((byte,)))
            await stream.send_all(REQUEST[-1:] + frame(PING, b"early"))
            data = b""
            while not data.endswith(b"early"):
                data += await stream.receive_some()
            assert data.startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        REQUEST.replace(b"Version: 13", b"Version: 8"),
        REQUEST.replace(b"Sec-WebSocket-Key", b"Sec-Something"),
        REQUEST.replace(b"Host: ", b"Host: \xa0\xa0 "),
        REQUEST.replace(b"Host: ", b"Sec-WebSocket-Protocol: \xff\r\nHost: "),
        b"\x16\x03\x01\r\n\r\n",
    ],
)
async def test_what_is_no_handshake_is_refused(tmp_path: Path, request_: bytes) -> None:
    async with server_in(tmp_path) as server:
        host, _, port = server.broker.endpoints["ws"].rpartition(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(request_)
            answer = b""
            while data := await stream.receive_some():
                answer += data
            assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
        assert server.broker.metrics.values()["gateway_crashes_total"] == 0


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (frame(BINARY, b"x", mask=None), 1002),
        (frame(BINARY, b"x", reserved=4), 1002),
        (frame(3, b"x"), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(CONTINUATION, b"x"), 1002),
        (frame(CLOSE, b"\x03"), 1002),
        (frame(CLOSE, b"\x03\xee"), 1002),
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"\xce", fin=False) + frame(CONTINUATION, b"\xce"), 1007),
        (frame(BINARY, bytes(6 << 20))[:14], 1009),
    ],
)
@pytest.mark.parametrize("uid", [None, "ann"])
async def test_a_broken_frame_ends_the_connection_with_its_code(
    tmp_path: Path, wrong: bytes, code: int, uid: str | None
) -> None:
    async with server_in(tmp_path) as server, open_raw(server) as good, open_raw(server, uid) as bad:
        await bad.send(frame(PING, b"first"), wrong)
        assert await bad.read() == (PONG, b"first")
        assert await bad.read_close() == code
        assert server.broker.metrics.values()["gateway_protocol_errors_total"] == 1
        assert server.broker.metrics.values()["gateway_crashes_total"] == 0
        await good.log_in("good")


@pytest.mark.parametrize(("payload", "code"), [(b"", 1000), (b"\x03\xe8", 1000), (b"\x0f\xa0reason", 4000)])
async def test_a_close_is_answered_with_its_code(tmp_path: Path, payload: bytes, code: int) -> None:
    async with server_in(tmp_path) as server, open_raw(server, "ann") as ann:
        await ann.send(frame(CLOSE, payload), frame(PING, b"too late"))
        assert await ann.read_close() == code
        assert server.broker.presence.count == 0


async def test_a_kicked_client_is_told_in_both_protocols(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server, open_raw(server, "ann") as ann:
        server.broker.presence.quit("ann", None, 12, "out", 0.0)
        assert isinstance(await ann.read_event(), wire.DisconnectReceived)


async def test_json_rpc_is_answered_in_text_frames_whatever_it_came_in(tmp_path: Path) -> None:
    request = (
        b'{"jsonrpc":"2.0","id":"1","method":"connect","params":{"uid":"ann","token":"","deviceId":"d","deviceFlag":1}}'
    )
    for opcode in (TEXT, BINARY):
        async with server_in(tmp_path / str(opcode)) as server, open_raw(server) as ann:
            await ann.send(frame(opcode, request[:20], fin=False), frame(CONTINUATION, request[20:]))
            found, answer = await ann.read()
            assert found == TEXT
            assert b'"reasonCode":1' in answer.replace(b" ", b"")


async def test_a_long_text_of_json_is_taken_whole(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server, client(server, "ws") as opened:
        ann = JsonClient(opened.stream, is_websocket=True)
        await ann.connect("ann")
        assert (await ann.send("bob", b"x" * 500_000))["reasonCode"] == 1


async def test_a_websocket_message_of_a_million_pings_is_taken_in_parts(tmp_path: Path) -> None:
    """Others are served meanwhile; the flood ends as a slow consumer or is answered, but never in one piece."""
    async with server_in(tmp_path) as server, open_raw(server, "flood") as flood, client(server) as ann:
        await ann.connect("ann")
        answered = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood.send, frame(BINARY, b"\x70" * 1_000_000))
            for _ in range(20):
                await ann.ping()
                answered.append(server.broker.metrics.values()["gateway_pings_total"])
            nursery.cancel_scope.cancel()
        assert any(20 < count < 1_000_000 for count in answered)
