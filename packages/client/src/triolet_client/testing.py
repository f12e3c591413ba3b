"""A server for tests, in the same process: its clients use memory, its clock may be the test's. Needs Trio.

`pytest_plugin` makes a fixture of it; the extra `pytest` brings what it needs.
"""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import trio
import trio.testing
from anyio.abc import ByteStream

from triolet_client._client import Client, open_client
from triolet_client._errors import ConnectionFailed
from triolet_client._model import DeviceFlag, Login
from triolet_client._transport import StreamTransport, Transport
from triolet_core import Broker, Server, load_config, open_server
from triolet_core.plugin import discover_plugins
from triolet_gateway.testing import MemoryGateway

EPOCH_S = 1_700_000_000.0
"""Time of day at which a test with a clock of its own begins."""


class _TrioStream(ByteStream):
    """A stream of Trio as anyio has them."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def receive(self, max_bytes: int = 65536) -> bytes:
        try:
            data = bytes(await self._stream.receive_some(max_bytes))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise anyio.BrokenResourceError from exc
        if not data:
            raise anyio.EndOfStream
        return data

    async def send(self, item: bytes) -> None:
        try:
            await self._stream.send_all(item)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise anyio.BrokenResourceError from exc

    async def send_eof(self) -> None:
        await self._stream.aclose()

    async def aclose(self) -> None:
        await self._stream.aclose()


class ServerForTests:
    """A running server and the way to it. Made by `open_test_server`."""

    def __init__(self, server: Server, gateway: MemoryGateway, clock_s: Callable[[], float]) -> None:
        self.server = server
        self.clock_s = clock_s
        """The server's time of day."""
        self.is_reachable = True
        """Set it to False, and nobody can connect until it is True again."""
        self._gateway = gateway
        self._streams: set[trio.abc.Stream] = set()
        self._clients: set[Client] = set()

    @property
    def broker(self) -> Broker:
        """The server's inside: users, channels, messages."""
        return self.server.broker

    @property
    def api(self) -> str:
        """Address of the HTTP API."""
        return f"http://{self.broker.endpoints['http']}"

    async def connect(self) -> Transport:
        """Connect in memory: the connector of its clients."""
        await trio.lowlevel.checkpoint()
        if not self.is_reachable:
            raise ConnectionFailed("the test says that the server cannot be reached")
        try:
            stream = self._gateway.connect()
        except trio.BrokenResourceError as exc:
            raise ConnectionFailed("the server takes no connection") from exc
        self._streams.add(stream)
        return StreamTransport(_TrioStream(stream))

    @asynccontextmanager
    async def open_client(
        self, uid: str, *, token: str = "", device_id: str = "test", device_flag: int = DeviceFlag.APP, **options: Any
    ) -> AsyncIterator[Client]:
        """Open a client of this server; `options` are those of `triolet_client.open_client`."""
        login = Login(uid=uid, token=token, device_id=device_id, device_flag=device_flag)
        options = {"api": self.api, "clock_s": self.clock_s, **options}
        async with open_client(login, self.connect, **options) as client:
            self._clients.add(client)
            try:
                yield client
            finally:
                self._clients.discard(client)

    async def drop_connections(self) -> None:
        """Break every connection, as a network does, and wait until the clients have noticed.

        They come back when time passes, half a second later at first.
        """
        streams, self._streams = self._streams, set()
        for stream in streams:
            await stream.aclose()
        for client in tuple(self._clients):
            while client.is_connected:
                await client.wait_changed()

    async def advance(self, seconds: float) -> None:
        """Let time pass, for clients, server and time of day alike. Needs the clock of the test.

        Everybody first comes to where he waits, for time or for something else, and afterwards again. What waits for
        a disk or a socket may still come later.
        """
        clock = trio.lowlevel.current_clock()
        if not isinstance(clock, trio.testing.MockClock):
            raise TypeError("time passes by itself here; ask for the fixture triolet_clock beside triolet_server")
        await trio.testing.wait_all_tasks_blocked()
        clock.jump(seconds)
        await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def open_test_server(directory: Path, overrides: Sequence[str] = ()) -> AsyncIterator[ServerForTests]:
    """Run a server with every installed plugin around a block, its data in a directory.

    Clients connect in memory; the HTTP API is on a free port of this machine.

    Args:
        directory: Where the data is.
        overrides: Settings, `key=value` each.
    """
    gateway = MemoryGateway()
    installed = await trio.to_thread.run_sync(discover_plugins)
    plugins = [gateway.plugin if spec.name == gateway.plugin.name else spec for spec in installed]
    quiet = ["addr=", "wsAddr=", "httpAddr=127.0.0.1:0", f"rootDir={directory}"]
    config = load_config(overrides=[*quiet, *overrides], environ={}, plugins=plugins)
    clock_s = _time_of_day()
    async with open_server(config, plugins=plugins, clock_s=clock_s) as server:
        try:
            yield ServerForTests(server, gateway, clock_s)
        finally:
            _let_time_pass()


def _time_of_day() -> Callable[[], float]:
    """Return the time of day that goes with the clock of the test."""
    clock = trio.lowlevel.current_clock()
    if not isinstance(clock, trio.testing.MockClock):
        return time.time
    began = clock.current_time()
    return lambda: EPOCH_S + clock.current_time() - began


def _let_time_pass() -> None:
    """Make a clock that stands still go on: the server's stop has time limits."""
    clock = trio.lowlevel.current_clock()
    if isinstance(clock, trio.testing.MockClock):
        clock.rate = 1.0
