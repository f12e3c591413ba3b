"""Clients in memory: what holds for those on a socket holds for them."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.wkclient import Client
from triolet_core import Server, ServerConfig, open_server
from triolet_gateway import GatewayConfig
from triolet_gateway.testing import MemoryGateway


@asynccontextmanager
async def memory_server(path: Path, **settings: Any) -> AsyncIterator[tuple[MemoryGateway, Server]]:
    gateway = MemoryGateway()
    section = GatewayConfig(**{"tcp_addr": "", "ws_addr": "", **settings})
    config = ServerConfig()
    node = attrs.evolve(config.node, data_dir=str(path))
    config = attrs.evolve(config, node=node, sections={"gateway": section})
    with trio.fail_after(30):
        async with open_server(config, plugins=[gateway.plugin]) as server:
            yield gateway, server


async def test_two_users_talk_without_a_listener(tmp_path: Path) -> None:
    async with memory_server(tmp_path) as (gateway, server):
        assert server.broker.endpoints == {}
        async with gateway.connect() as one, gateway.connect() as two:
            ann, bob = Client(one), Client(two)
            assert await ann.connect("ann") == 1
            assert await bob.connect("bob") == 1
            assert (await ann.send("bob", b"hello")).message_seq == 1
            assert (await bob.receive()).payload == b"hello"
            assert {session.host for session in (each.statistics() for each in server.broker.presence.sessions("ann"))}


async def test_who_breaks_the_protocol_is_closed(tmp_path: Path) -> None:
    async with memory_server(tmp_path) as (gateway, _), gateway.connect() as stream:
        client = Client(stream)
        await client.send_raw(b"\xf0\x01\x00")
        await client.wait_closed()


async def test_who_does_not_read_is_closed(tmp_path: Path) -> None:
    async with (
        memory_server(tmp_path, outbox_bytes=65536) as (gateway, server),
        gateway.connect() as one,
        gateway.connect() as two,
    ):
        ann, bob = Client(one), Client(two)
        await ann.connect("ann")
        await bob.connect("bob")
        for _ in range(8):
            await ann.send("bob", b"x" * 20_000)
        while list(server.broker.presence.sessions("bob")):
            await trio.lowlevel.checkpoint()
        assert len(list(server.broker.presence.sessions("ann"))) == 1


async def test_connections_are_counted(tmp_path: Path) -> None:
    async with memory_server(tmp_path, max_connections=1) as (gateway, _), gateway.connect():
        with pytest.raises(trio.BrokenResourceError):
            gateway.connect()


async def test_there_is_nobody_before_the_start_and_after_the_stop(tmp_path: Path) -> None:
    with pytest.raises(trio.BrokenResourceError):
        MemoryGateway().connect()
    async with memory_server(tmp_path) as (gateway, _):
        stream = gateway.connect()
        client = Client(stream)
        await client.connect("ann")
    await client.wait_closed()
    with pytest.raises(trio.BrokenResourceError):
        gateway.connect()


async def test_nothing_is_kept_of_who_has_left(tmp_path: Path) -> None:
    """Not even until the time at which the connection would have been looked at."""
    async with memory_server(tmp_path) as (gateway, server):
        async with gateway.connect() as stream:
            client = Client(stream)
            await client.connect("ann")
            [session] = server.broker.presence.sessions("ann")
            kind = type(session)
            del session
        while list(server.broker.presence.sessions("ann")):
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        assert not [each for each in gc.get_objects() if isinstance(each, kind)]


async def test_who_says_something_now_and_then_stays(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    """There may be no socket whose turn would tell the time."""
    async with memory_server(tmp_path, conn_idle_time=5) as (gateway, server), gateway.connect() as stream:
        ann = Client(stream)
        await ann.connect("ann")
        for _ in range(10):
            mock_clock.jump(2)
            await trio.testing.wait_all_tasks_blocked()
            await ann.ping()
        assert len(list(server.broker.presence.sessions("ann"))) == 1
