"""A business system on loopback that a server asks, for the tests of the data source."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import attrs
import trio
import trio.testing

import triolet_datasource
import triolet_gateway
from triolet_core import ChannelKey, Device, Server, ServerConfig, open_server
from triolet_core.testing import draft
from triolet_datasource import DatasourceConfig
from triolet_gateway import GatewayConfig

ANN, BOB, BOT = (Device(uid=uid) for uid in ("ann", "bob", "bot"))
TEAM = ChannelKey("team", 2)
PLUGINS = (triolet_datasource.plugin, triolet_gateway.plugin)
TIMEOUT_S, TTL_S, PAUSE_S = 5, 60, 5
"""Defaults of datasource.timeout, cacheTtl and breakerPause."""
Clock = trio.testing.MockClock

Reply = Callable[["Asked", trio.abc.Stream], Awaitable[None]]


@attrs.frozen
class Asked:
    """One request: the command of a POST or the path of a GET, and what it is about."""

    what: str
    about: dict[str, Any]
    authorization: str = attrs.field(default="", eq=False)


def http(body: bytes, *, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{headers}\r\n".encode() + body


class Business:
    """The business system: it answers with `replies`, by command or path, and notes what it was asked."""

    def __init__(self) -> None:
        self.replies: dict[str, Any] = {
            "getSubscribers": ["ann", "bob"],
            "getBlacklist": [],
            "getWhitelist": [],
            "getSystemUIDs": ["bot"],
        }
        self.asked: list[Asked] = []
        self.url = ""
        self._arrivals = trio.lowlevel.ParkingLot()

    def set(self, what: str, reply: Any) -> None:
        """Answer with a JSON value, the bytes of a whole response, or a function that writes one."""
        self.replies[what] = reply

    def count(self, what: str) -> int:
        return sum(each.what == what for each in self.asked)

    async def wait_asked(self, what: str, count: int = 1) -> None:
        while self.count(what) < count:
            await self._arrivals.park()

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # the server has hung up
                await self._serve(stream)

    async def _serve(self, stream: trio.SocketStream) -> None:
        data = b""
        while True:
            while b"\r\n\r\n" not in data:
                more = await stream.receive_some()
                if not more:
                    return
                data += more
            head, _, data = data.partition(b"\r\n\r\n")
            method, target = head.decode().split()[:2]
            length = int(_header(head, b"content-length") or 0)
            while len(data) < length:
                data += await stream.receive_some()
            body, data = data[:length], data[length:]
            asked = attrs.evolve(_parse(method, target, body), authorization=_header(head, b"authorization"))
            self.asked.append(asked)
            self._arrivals.unpark_all()
            await self._reply(asked, stream)

    async def _reply(self, asked: Asked, stream: trio.SocketStream) -> None:
        reply = self.replies.get(asked.what, http(b"", status="404 Not Found"))
        if callable(reply):
            await reply(asked, stream)
        else:
            await stream.send_all(reply if isinstance(reply, bytes) else http(json.dumps(reply).encode()))


def _header(head: bytes, name: bytes) -> str:
    lines = (line.partition(b":") for line in head.split(b"\r\n"))
    return next((value.strip().decode() for key, _, value in lines if key.lower() == name), "")


def _parse(method: str, target: str, body: bytes) -> Asked:
    if method == "GET":
        parts = urlsplit(target)
        return Asked(parts.path, dict(parse_qsl(parts.query)))
    command = json.loads(body)
    assert target == "/datasource"
    assert set(command) == {"cmd", "data"}
    return Asked(command["cmd"], command["data"])


@asynccontextmanager
async def open_business() -> AsyncIterator[Business]:
    business = Business()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, business.serve, listeners)
        business.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/datasource"
        yield business
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_both(
    path: Path,
    *,
    business: Business | None = None,
    profile: str = "wukongim-2",
    strangers: bool = True,
    **settings: Any,
) -> AsyncIterator[tuple[Server, Business]]:
    """A business system and a server that asks it."""
    async with open_business() as own:
        business = business or own
        config = config_in(path, profile=profile, strangers=strangers, **{"addr": business.url, **settings})
        async with open_server(config, plugins=PLUGINS) as server:
            yield server, business


def config_in(path: Path, *, profile: str = "wukongim-2", strangers: bool = True, **settings: Any) -> ServerConfig:
    config = ServerConfig()
    gateway = GatewayConfig(tcp_addr="127.0.0.1:0", ws_addr="")
    return attrs.evolve(
        config,
        node=attrs.evolve(config.node, data_dir=str(path)),
        compat=attrs.evolve(config.compat, profile=profile),
        permission=attrs.evolve(config.permission, whitelist_off_of_person=strangers),
        sections={"datasource": DatasourceConfig(**settings), "gateway": gateway},
    )


async def send(server: Server, sender: Device = ANN, to: str = "team", kind: int = 2) -> int:
    """Send a message; returns the reason code that the sender sees."""
    return (await server.broker.messages.send(sender, draft(to, channel_type=kind))).reason


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that other tasks do without waiting for the clock."""
    while not condition():
        await trio.testing.wait_all_tasks_blocked()


def failures(server: Server) -> float:
    return server.broker.metrics.values()["datasource_failures_total"]


async def never(asked: Asked, stream: trio.abc.Stream) -> None:
    await trio.sleep_forever()
