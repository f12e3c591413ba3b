"""Limits that hold before memory is taken, each reached over real sockets; more in tests/integration/test_bounds.py."""

import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio_websocket

import triolet_protocol as wire
from tests.integration.test_gateway import server_in
from tests.jsonclient import json_client
from tests.wkclient import Client, client
from triolet_core import Device, Draft, Server

KINDS = pytest.mark.parametrize("kind", ["tcp", "ws"])


def value_of(server: Server, name: str) -> int | float:
    return server.broker.metrics.values()[name]


@asynccontextmanager
async def raw(server: Server, kind: str, source: str = "127.0.0.1") -> AsyncIterator[trio.SocketStream]:
    """Connect without saying anything, from an address of this machine."""
    host, _, port = server.broker.endpoints[kind].rpartition(":")
    async with await trio.open_tcp_stream(host, int(port), local_address=source) as stream:
        yield stream


async def until_closed(stream: trio.abc.ReceiveStream) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        while await stream.receive_some():
            pass


@KINDS
@pytest.mark.parametrize("data", [b"", b"\x10\x40\x05", b"G", b"{"], ids=["nothing", "binary", "http", "json"])
async def test_a_login_has_its_time_whatever_has_come_of_it(tmp_path: Path, kind: str, data: bytes) -> None:
    async with server_in(tmp_path, login_timeout=0.2) as server, raw(server, kind) as stream:
        if data:
            await stream.send_all(data)
        await until_closed(stream)
        assert value_of(server, "gateway_crashes_total") == 0


@KINDS
async def test_bytes_now_and_then_do_not_prolong_a_login(tmp_path: Path, kind: str) -> None:
    """What is known as Slowloris: each byte comes in time, the whole never does."""
    said = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 99 if kind == "ws" else b"\x10\x7f" + bytes(99)
    async with (
        server_in(tmp_path, login_timeout=0.5) as server,
        raw(server, kind) as stream,
        trio.open_nursery() as both,
    ):

        async def trickle() -> None:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                for byte in said:
                    await stream.send_all(bytes((byte,)))
                    await trio.sleep(0.05)

        both.start_soon(trickle)
        began = trio.current_time()
        await until_closed(stream)
        assert trio.current_time() - began < 4
        both.cancel_scope.cancel()


@KINDS
async def test_connections_of_one_address_are_bounded_and_others_come_in(tmp_path: Path, kind: str) -> None:
    async with (
        server_in(tmp_path, max_connections_per_address=2) as server,
        raw(server, kind),
        raw(server, kind),
        raw(server, kind) as third,
        raw(server, kind, "127.0.0.2") as other,
    ):
        await until_closed(third)
        assert value_of(server, "gateway_refused_total") == 1
        assert value_of(server, "gateway_open_sockets") == 3
        await other.send_all(b"x")


@KINDS
async def test_a_frame_of_a_client_that_is_in_is_bounded_by_its_head_alone(tmp_path: Path, kind: str) -> None:
    async with server_in(tmp_path, max_frame_size=4096) as server, client(server, kind) as ann:
        await ann.connect("ann")
        await ann.send_raw(b"\x30\x81\x20")  # 4097
        await ann.wait_closed()
        assert value_of(server, "gateway_protocol_errors_total") == 1


async def test_a_websocket_message_is_bounded(tmp_path: Path) -> None:
    """Five packets of the longest kind: more is no packet of any client's."""
    async with server_in(tmp_path, max_frame_size=4096) as server, client(server, "ws") as ann:
        await ann.connect("ann")
        with contextlib.suppress(trio_websocket.ConnectionClosed):
            await ann.send_raw(b"\x70" * (6 * 4096))
        await ann.wait_closed()
        assert value_of(server, "gateway_pings_total") == 0


@KINDS
async def test_json_is_bounded_in_depth_and_length(tmp_path: Path, kind: str) -> None:
    async with server_in(tmp_path, max_frame_size=4096) as server:
        for text in (b"[" * 33, b'{"method":"ping","id":"1","params":' + b'{"a":' * 40, b'{"a":"' + b"x" * 5000):
            async with json_client(server, kind) as ann:
                await ann.connect("ann")
                await ann.send_text(text.decode())
                answer = await ann.take()
                assert answer["error"]["code"] == -32700
        assert value_of(server, "gateway_crashes_total") == 0


@KINDS
async def test_unacknowledged_pushes_are_bounded_and_the_oldest_are_forgotten(tmp_path: Path, kind: str) -> None:
    settings = {"unacked": 4, "retry_interval": 1.0, "retry_scan_interval": 0.05, "retry_max_count": 1}
    async with server_in(tmp_path, **settings) as server, client(server, kind) as bob:
        await bob.connect("bob")
        sender = Device(uid="ann", is_server=True)
        drafts = [Draft("bob", 1, str(number).encode()) for number in range(10)]
        await server.broker.messages.send_many(sender, drafts)
        first = [(await bob.receive(ack=False)).payload for _ in range(10)]
        again = [(await bob.receive(ack=False)).payload for _ in range(4)]
        assert first == [str(number).encode() for number in range(10)]
        assert again == first[-4:]
        assert value_of(server, "gateway_repeats_total") == 4


async def test_what_comes_before_the_login_waits_for_it_within_the_bound(tmp_path: Path) -> None:
    """Everything that follows a CONNECT in the same write is read only when the client is in."""
    async with server_in(tmp_path, max_login_bytes=2048) as server, raw(server, "tcp") as stream:
        ann = Client(stream)
        who = {"uid": "ann", "token": "", "device_id": "d", "device_flag": 0, "client_timestamp": 0}
        await stream.send_all(ann.connection.connect(**who, private_key=bytes(32)) + b"\x70" * 30_000)
        assert (await ann.wait_for(wire.ConnAckReceived)).connack.reason_code == 1
        pongs = 0
        while pongs < 30_000:
            await ann.wait_for(wire.PongReceived)
            pongs += 1


async def test_a_client_that_asks_and_does_not_read_is_dropped(tmp_path: Path) -> None:
    """Answers count as much as messages do: pings without end fill the outbox, and that is the end."""
    async with server_in(tmp_path, outbox_bytes=65536) as server, client(server) as ann:
        ann.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await ann.connect("ann")
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(20):
            while True:
                await ann.send_raw(b"\x70" * 65536)
        assert value_of(server, "gateway_slow_consumers_total") == 1
