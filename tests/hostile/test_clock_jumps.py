"""The clocks leap: the one that deadlines go by, forward, and the time of day, in both directions."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.wkclient import Client
from triolet_core import Server, ServerConfig, channel_key, open_server
from triolet_core.model import NO_PERSIST
from triolet_core.testing import FakeClock
from triolet_gateway import GatewayConfig
from triolet_gateway.testing import MemoryGateway

DAY_S = 86_400


@asynccontextmanager
async def server_at(path: Path, clock: FakeClock, **settings: Any) -> AsyncIterator[tuple[MemoryGateway, Server]]:
    gateway = MemoryGateway()
    section = GatewayConfig(**{"tcp_addr": "", "ws_addr": "", **settings})
    config = ServerConfig()
    node = attrs.evolve(config.node, data_dir=str(path))
    config = attrs.evolve(config, node=node, sections={"gateway": section})
    async with open_server(config, plugins=[gateway.plugin], clock_s=clock) as server:
        yield gateway, server


async def test_a_day_passes_at_once(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    """A laptop that slept: who was silent is gone, once, whatever waited is not repeated without end, and all go on."""
    wall = FakeClock()
    async with server_at(tmp_path, wall) as (gateway, server):
        async with gateway.connect() as one, gateway.connect() as two:
            ann, bob = Client(one), Client(two)
            await ann.connect("ann")
            await bob.connect("bob")
            await ann.send("bob", b"before")
            await bob.receive(ack=False)
            wall.move(DAY_S)
            mock_clock.jump(DAY_S)
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(2)
            await ann.wait_closed()
            await bob.wait_closed()
        values = server.broker.metrics.values()
        assert values["gateway_idle_closed_total"] == 2
        assert values["gateway_repeats_total"] <= 1
        assert values["gateway_crashes_total"] == 0
        async with gateway.connect() as again:
            ann = Client(again)
            assert await ann.connect("ann") == 1
            assert (await ann.send("bob", b"after")).message_seq == 2
            stored = server.broker.messages.by_seqs(channel_key("ann", "bob", 1), [1, 2])
            assert [message.timestamp for message in stored] == [int(wall.now) - DAY_S, int(wall.now)]


@pytest.mark.parametrize("step", [DAY_S, -DAY_S, -1])
async def test_the_time_of_day_is_set(tmp_path: Path, step: int) -> None:
    """Ids rise whatever happens, over a restart as well; a message has the time of the clock when it was stored."""
    wall = FakeClock()
    ids, times = [], []
    for _ in range(2):
        async with server_at(tmp_path, wall) as (gateway, _), gateway.connect() as one, gateway.connect() as two:
            ann, bob = Client(one), Client(two)
            await ann.connect("ann")
            await bob.connect("bob")
            for flags in (0, NO_PERSIST, 0):
                ack = await ann.send("bob", flags=flags)
                assert ack.reason_code == 1
                recv = await bob.receive()
                assert recv.message_id == ack.message_id
                ids.append(ack.message_id)
                times.append(recv.timestamp == int(wall.now))
                wall.move(step)
    assert ids == sorted(set(ids))
    assert all(times)


@pytest.mark.parametrize("pause", [61, DAY_S])
async def test_what_is_not_stored_is_sent_after_a_long_silence(tmp_path: Path, pause: int) -> None:
    """Ids are reserved a minute ahead, by what is stored; what is not stored may be the first after a longer pause."""
    wall = FakeClock()
    async with server_at(tmp_path, wall) as (gateway, _), gateway.connect() as one, gateway.connect() as two:
        ann, bob = Client(one), Client(two)
        await ann.connect("ann")
        await bob.connect("bob")
        assert (await ann.send("bob")).reason_code == 1
        wall.move(pause)
        assert (await ann.send("bob", b"typing", flags=NO_PERSIST)).reason_code == 1
        assert [(await bob.receive()).payload for _ in range(2)] == [b"hi", b"typing"]
