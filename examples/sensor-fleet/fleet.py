"""A fleet of sensors and the desk that watches it: python examples/sensor-fleet/fleet.py [--devices 500].

Nobody chats here. Devices report readings that are not stored; the desk sees who is online and sends commands that
expire: a device that comes back too late does not get them, and gets those that still hold.
Without --server and --api a server of its own runs in a temporary directory.
"""

import argparse
import json
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import httpx
import structlog
import trio

from triolet_client import Channel, Client, Login, open_client
from triolet_core import load_config, open_server

DESK = "desk"
AT_ONCE = 50
"""Devices that connect at the same time: a fleet after a power cut should not come all at once."""
HTTP_CONNECTIONS = httpx.Limits(max_connections=8)
"""All devices share a few connections to the API: they ask when they connect, and are told everything else."""
BLINK_EXPIRES_S, UPDATE_EXPIRES_S = 1, 3600
LIMIT_S = 60


@attrs.define(eq=False)
class Desk:
    """What the desk knows."""

    client: Client
    readings: Counter[str] = attrs.Factory(Counter)
    answers: Counter[str] = attrs.Factory(Counter)
    changed: trio.Event = attrs.Factory(trio.Event)

    async def run(self) -> None:
        """Note readings and answers."""
        async for message in self.client.messages():
            report = json.loads(message.payload)
            if "done" in report:
                self.answers[report["done"]] += 1
            else:
                self.readings[message.from_uid] += 1
            self.changed.set()
            self.changed = trio.Event()

    async def command(self, uids: list[str], name: str, expire: int) -> None:
        """Send a command to devices, whether they are online or not."""
        async with trio.open_nursery() as nursery:
            for uid in uids:
                nursery.start_soon(self._send, uid, name, expire)

    async def _send(self, uid: str, name: str, expire: int) -> None:
        receipt = await self.client.send(uid, json.dumps({"do": name}), expire=expire, red_dot=False)
        if not receipt.is_accepted:
            raise RuntimeError(f"{uid} cannot be commanded: reason {receipt.reason}")

    async def wait_answers(self, name: str, count: int) -> None:
        """Wait until so many devices have done it."""
        while self.answers[name] < count:
            await self.changed.wait()

    async def wait_readings(self, count: int) -> None:
        """Wait until so many devices have reported."""
        while len(self.readings) < count:
            await self.changed.wait()

    async def online(self, uids: list[str]) -> int:
        """Return how many of the devices are online."""
        return len(await self.client.api.online(uids))

    async def wait_online(self, uids: list[str], count: int) -> None:
        """Ask until so many are online: the server notices a closed connection a moment later."""
        while await self.online(uids) != count:  # noqa: ASYNC110  # the server is asked
            await trio.sleep(0.05)


async def device(
    uid: str,
    server: str,
    http: httpx.AsyncClient,
    gate: trio.CapacityLimiter,
    positions: Mapping[Channel, int] | None,
    *,
    task_status: trio.TaskStatus[tuple[Client, trio.CancelScope]],
) -> None:
    """Be a sensor: report a reading, then do what one is told."""
    with trio.CancelScope() as scope:
        async with AsyncExitStack() as stack:
            async with gate:
                login = Login(uid=uid, device_id="board")
                client = await stack.enter_async_context(open_client(login, server, api=http, positions=positions))
            task_status.started((client, scope))
            reading = {"celsius": round(random.gauss(20, 3), 2)}
            await client.send(DESK, json.dumps(reading), no_persist=True, red_dot=False)
            async for message in client.messages():
                order = json.loads(message.payload)
                await client.send(DESK, json.dumps({"done": order["do"]}), red_dot=False)


class Fleet:
    """The devices that run."""

    def __init__(self, server: str, http: httpx.AsyncClient, nursery: trio.Nursery) -> None:
        self._server = server
        self._http = http
        self._nursery = nursery
        self._gate = trio.CapacityLimiter(AT_ONCE)
        self._running: dict[str, tuple[Client, trio.CancelScope]] = {}
        self._saved: dict[str, dict[Channel, int]] = {}

    async def start(self, uids: list[str]) -> None:
        """Start devices; each goes on where it stood when it stopped."""
        async with trio.open_nursery() as starting:
            for uid in uids:
                starting.start_soon(self._start, uid)

    async def _start(self, uid: str) -> None:
        saved = self._saved.get(uid)
        self._running[uid] = await self._nursery.start(
            device, uid, self._server, self._http, self._gate, saved, name=uid
        )

    def stop(self, uids: list[str]) -> None:
        """Switch devices off. What they have is kept, as on a disk of theirs."""
        for uid in uids:
            client, scope = self._running.pop(uid)
            self._saved[uid] = client.positions
            scope.cancel()


async def play(server: str, http: httpx.AsyncClient, count: int) -> bool:
    """Run the fleet through a day; returns whether everything was as it should be."""
    uids = [f"sensor-{number:04}" for number in range(count)]
    away, present = uids[: count // 10], uids[count // 10 :]
    began = time.monotonic()
    async with open_client(Login(uid=DESK), server, api=http) as client, trio.open_nursery() as nursery:
        desk, fleet = Desk(client), Fleet(server, http, nursery)
        nursery.start_soon(desk.run)
        await fleet.start(uids)
        await desk.wait_readings(count)
        print(f"{await desk.online(uids)} of {count} online and reporting after {time.monotonic() - began:.1f} s")

        await desk.command(uids, "calibrate", UPDATE_EXPIRES_S)
        await desk.wait_answers("calibrate", count)
        print(f"calibrate: {desk.answers['calibrate']} done")

        fleet.stop(away)
        await desk.wait_online(uids, len(present))
        print(f"{len(away)} switched off, {await desk.online(uids)} online")
        await desk.command(uids, "blink", BLINK_EXPIRES_S)
        await desk.command(uids, "update", UPDATE_EXPIRES_S)
        await desk.wait_answers("blink", len(present))
        await desk.wait_answers("update", len(present))
        await trio.sleep(BLINK_EXPIRES_S + 1)  # the server's clock counts whole seconds
        await fleet.start(away)
        await desk.wait_answers("update", count)
        print(f"blink: {desk.answers['blink']} done, expired for {count - desk.answers['blink']}")
        print(f"update: {desk.answers['update']} done")
        nursery.cancel_scope.cancel()
    return desk.answers == Counter(calibrate=count, update=count, blink=len(present))


@asynccontextmanager
async def own_server() -> AsyncIterator[tuple[str, str]]:
    """Run a server in a temporary directory; yields the addresses of its TCP listener and of its API."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory() as directory:
        ports = ("addr=tcp://127.0.0.1:0", "wsAddr=", "httpAddr=127.0.0.1:0")
        async with open_server(load_config(overrides=[f"rootDir={directory}", *ports])) as running:
            endpoints = running.broker.endpoints
            yield endpoints["tcp"], f"http://{endpoints['http']}"


async def main(options: argparse.Namespace) -> int:
    """Run the example; returns the exit code."""
    async with AsyncExitStack() as stack:
        server, api = options.server, options.api
        if not server:
            server, api = await stack.enter_async_context(own_server())
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=api, timeout=LIMIT_S, trust_env=False, limits=HTTP_CONNECTIONS)
        )
        with trio.move_on_after(LIMIT_S):
            return 0 if await play(server, http, options.devices) else 1
    print("it took too long")
    return 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A fleet of sensors.")
    parser.add_argument("--devices", type=int, default=500)
    parser.add_argument("--server", default="", help="host:port; without it a server of its own runs")
    parser.add_argument("--api", default="http://127.0.0.1:5001")
    sys.exit(trio.run(main, parser.parse_args()))
