"""The RECVACKs of clients that are sent much are read several at a time, which nobody notices."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import triolet_protocol as wire
from tests.integration.test_gateway import server_in
from tests.integration.test_reactor import wait_until
from tests.integration.test_transports import client_of, tls_server
from tests.websocket import BINARY, frame, open_raw
from tests.wkclient import Client, client
from triolet_core import Server, channel_key
from triolet_gateway import _intake, _patience, _plugin
from triolet_gateway._gateway import Gateway

KINDS = pytest.mark.parametrize("kind", ["tcp", "ws"])


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is, RECVACKs come one soon after the other."""
    monkeypatch.setattr(_intake, "WITHIN_S", math.inf)


@pytest.fixture
def gateways(monkeypatch: pytest.MonkeyPatch) -> list[Gateway]:
    """The gateways that a test starts."""
    made: list[Gateway] = []

    class Noted(Gateway):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(_plugin, "Gateway", Noted)
    return made


@asynccontextmanager
async def talk(path: Path, kind: str = "tcp", **settings: Any) -> AsyncIterator[tuple[Server, Client, Client]]:
    """Let ann and bob be there."""
    async with server_in(path, **settings) as server, client(server) as ann, client(server, kind) as bob:
        await ann.connect("ann")
        await bob.connect("bob")
        yield server, ann, bob


def acked(server: Server) -> float:
    return server.broker.metrics.values()["gateway_recvacks_total"]


async def exchange(server: Server, ann: Client, bob: Client, count: int = _patience.READS) -> None:
    """Let bob confirm messages one by one, each read before the next."""
    for _ in range(count):
        before = acked(server)
        await ann.send("bob")
        await bob.receive()
        await wait_until(lambda before=before: acked(server) == before + 1)  # type: ignore[misc]  # one at a time


@KINDS
async def test_few_recvacks_wait_for_more_and_nothing_else_does(
    tmp_path: Path, kind: str, gateways: list[Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_patience, "INTERVAL_S", math.inf)
    async with talk(tmp_path, kind) as (server, ann, bob):
        await exchange(server, ann, bob)
        assert len(gateways[0].patience) == 1
        for _ in range(2):
            await ann.send("bob")
            await bob.receive()
        await ann.ping()
        assert acked(server) == _patience.READS
        assert (await bob.send("ann")).reason_code == 1, "it comes at once, and what came before with it"
        await ann.receive()
        await wait_until(lambda: acked(server) == _patience.READS + 3)
        together = 4 if kind == "tcp" else 3  # WebSocket adds six bytes to each
        for number in range(together):
            await ann.ping()
            assert acked(server) == _patience.READS + 3, number
            await ann.send("bob")
            await bob.receive()
        await wait_until(lambda: acked(server) == _patience.READS + 3 + together)
        for session in gateways[0].sessions:
            session.outbox.wait_for(1)  # a WebSocket's good-bye is short, too


async def test_what_is_short_is_found_soon_and_who_gets_little_is_read_at_once_again(
    tmp_path: Path, gateways: list[Gateway]
) -> None:
    async with talk(tmp_path) as (server, ann, bob):
        await exchange(server, ann, bob)
        await ann.send("bob")
        await bob.receive()
        await bob.ping()
        assert acked(server) == _patience.READS + 1
        await wait_until(lambda: len(gateways[0].patience) == 0)
        await exchange(server, ann, bob, 3)
        assert not server.broker.metrics.values()["gateway_unacked_sessions"]


async def test_who_leaves_while_little_has_come_is_closed_at_once(
    tmp_path: Path, gateways: list[Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_patience, "INTERVAL_S", math.inf)
    async with talk(tmp_path) as (server, ann, bob):
        await exchange(server, ann, bob)
        await ann.send("bob")
        await bob.receive()
        await bob.stream.aclose()
        await wait_until(lambda: len(gateways[0].sessions) == 1)
        assert len(gateways[0].patience) == 0
        assert acked(server) == _patience.READS + 1


async def test_a_paused_session_is_not_read(
    tmp_path: Path, gateways: list[Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its turn comes when what it waits for is done."""
    async with talk(tmp_path) as (server, ann, bob):
        await exchange(server, ann, bob)
        go_on = trio.Event()
        [session] = [each for each in gateways[0].sessions if each.device.uid == "bob"]
        session._later(go_on.wait)
        session.outbox.pause()  # type: ignore[attr-defined]  # as its read does when it is paused behind it
        await bob.send_raw(bob.message("ann"))
        await wait_until(lambda: len(gateways[0].patience) == 0)
        assert server.broker.messages.max_seq(channel_key("ann", "bob", 1)) == _patience.READS
        go_on.set()
        assert (await ann.receive()).payload == b"hi"


@pytest.mark.parametrize("settings", [{"retry_interval": 0.5}, {"disable_encryption": True}])
async def test_where_waiting_could_be_noticed_nobody_waits(
    tmp_path: Path, gateways: list[Gateway], settings: dict[str, Any]
) -> None:
    async with talk(tmp_path, **settings) as (server, ann, bob):
        await exchange(server, ann, bob)
        assert len(gateways[0].patience) == 0


def test_a_recvack_has_the_size_that_is_counted_on_and_every_send_more() -> None:
    key = wire.KeyPair(bytes(range(32)))
    server, sender = wire.Connection(wire.Role.SERVER), wire.Connection(wire.Role.CLIENT)
    server.receive_data(
        sender.connect(uid="a", token="", device_id="", device_flag=0, private_key=bytes(32), client_timestamp=0)
    )
    server.events()
    sender.receive_data(server.accept(key, b"0" * 16, time_diff_ms=0, node_id=1))
    sender.events()
    shortest = sender.send_message(client_seq=1, client_msg_no="", channel_id="b", channel_type=1, payload=b"")
    recvack = wire.encode(wire.RecvAck(1, 1), 5)
    assert 3 * len(recvack) < _patience.ENOUGH <= 4 * len(recvack)
    assert len(shortest) > _patience.ENOUGH


async def test_the_short_end_of_a_send_does_not_wait(
    tmp_path: Path, gateways: list[Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network cuts a packet anywhere."""
    monkeypatch.setattr(_patience, "INTERVAL_S", math.inf)
    async with talk(tmp_path) as (server, ann, bob):
        await exchange(server, ann, bob)
        assert len(gateways[0].patience) == 1
        [session] = server.broker.presence.sessions("bob")
        before = session.statistics().in_packet_bytes
        data = bob.message("ann")
        await bob.send_raw(data[:-10])
        await wait_until(lambda: session.statistics().in_packet_bytes > before)
        await bob.send_raw(data[-10:])
        await ann.receive()


@pytest.mark.parametrize("cut", [100, 3])
async def test_nor_does_that_of_a_websocket_message(
    tmp_path: Path, gateways: list[Gateway], monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    monkeypatch.setattr(_patience, "INTERVAL_S", math.inf)
    async with server_in(tmp_path) as server, client(server) as ann, open_raw(server, "bob") as bob:
        await ann.connect("ann")
        for count in range(1, _patience.READS + 1):
            await ann.send("bob")
            recv = (await bob.read_event()).recv
            await bob.send(frame(BINARY, bob.protocol.recv_ack(recv)))
            await wait_until(lambda count=count: acked(server) == count)  # type: ignore[misc]
        assert len(gateways[0].patience) == 1
        [session] = server.broker.presence.sessions("bob")
        before = session.statistics().in_packet_bytes
        data = frame(BINARY, bob.message("ann", 1, b"x" * 100))
        await bob.send(data[:-cut])
        await wait_until(lambda: session.statistics().in_packet_bytes > before)
        await bob.send(data[-cut:])
        await ann.receive()


async def test_nor_does_that_of_a_record_of_tls_of_which_no_part_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_patience, "INTERVAL_S", math.inf)
    async with tls_server(tmp_path) as server, client(server) as ann, client_of(server, "tls") as bob:
        await ann.connect("ann")
        await bob.connect("bob")
        await exchange(server, ann, bob)
        socket_stream: trio.SocketStream = bob.stream.transport_stream
        send_all = socket_stream.send_all

        async def send_in_two(data: bytes) -> None:
            await send_all(data[:-10])
            await trio.testing.wait_all_tasks_blocked(0.05)
            await send_all(data[-10:])

        monkeypatch.setattr(socket_stream, "send_all", send_in_two)
        await bob.send_raw(bob.message("ann"))
        await ann.receive()
