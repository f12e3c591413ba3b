"""Signalling for a call: offer, answer and ICE candidates: python examples/rtc-signalling/signalling.py.

Two peers meet in a temporary channel that the backend makes for the call. Nothing of it is stored: whoever is not
there misses it, nobody reads it later, and it is in no list of conversations. Somebody who is not in the call is
refused. The descriptions are made up; a WebRTC library would make them and take them in their places.
Without --server and --api a server of its own runs in a temporary directory.
"""

import argparse
import enum
import json
import logging
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import attrs
import structlog
import trio

from triolet_client import Channel, Client, Login, Reason, open_client
from triolet_core import load_config, open_server

CANDIDATES = 3
LIMIT_S = 15


class State(enum.Enum):
    """How far a call is, as RTCPeerConnection.signalingState says it."""

    STABLE = "stable"
    HAVE_LOCAL_OFFER = "have-local-offer"
    CONNECTED = "connected"


@attrs.define(eq=False)
class Peer:
    """One end of a call."""

    client: Client
    call: Channel
    state: State = State.STABLE
    remote: str = ""
    """What the other end described."""
    candidates: list[str] = attrs.Factory(list)
    connected: trio.Event = attrs.Factory(trio.Event)

    @property
    def uid(self) -> str:
        """Who it is."""
        return self.client.login.uid

    async def run(self) -> None:
        """Take what the other end signals, for as long as the call lasts."""
        async for message in self.client.messages():
            if message.channel == self.call:
                await self._on_signal(message.from_uid, json.loads(message.payload))

    async def ring(self) -> None:
        """Offer a call."""
        self.state = State.HAVE_LOCAL_OFFER
        await self._signal("offer", sdp=f"v=0 offer of {self.uid}")

    async def _on_signal(self, sender: str, signal: dict[str, Any]) -> None:
        print(f"{self.uid}: {signal['kind']} from {sender}")
        match signal["kind"]:
            case "offer":
                self.remote = signal["sdp"]
                await self._signal("answer", sdp=f"v=0 answer of {self.uid}")
                await self._gather()
            case "answer" if self.state is State.HAVE_LOCAL_OFFER:
                self.remote = signal["sdp"]
                await self._gather()
            case "candidate":
                self.candidates.append(signal["candidate"])
        if self.remote and len(self.candidates) == CANDIDATES:
            self.state = State.CONNECTED
            self.connected.set()

    async def _gather(self) -> None:
        """Send each way to reach us as soon as it is found."""
        for number in range(CANDIDATES):
            await self._signal("candidate", candidate=f"candidate:{number} 1 udp 192.0.2.{number + 1} 5000{number}")

    async def _signal(self, kind: str, **more: str) -> None:
        receipt = await self.client.send(self.call, json.dumps({"kind": kind, **more}), no_persist=True, red_dot=False)
        if not receipt.is_accepted:
            raise PermissionError(f"{self.uid} is not in the call: {Reason(receipt.reason).name}")


async def hold_call(server: str, api: str) -> bool:
    """Hold a call between two users; returns whether it came about, and left nothing behind."""
    call = Channel.temporary(f"call-{uuid.uuid4().hex}")
    async with (
        open_client(Login(uid="ann"), server, api=api) as ann,
        open_client(Login(uid="bob"), server, api=api) as bob,
        open_client(Login(uid="eve"), server, api=api) as eve,
        trio.open_nursery() as nursery,
    ):
        await ann.api.set_temporary(call.id, ["ann", "bob"])  # a backend does this, when it lets the call happen
        caller, callee = Peer(ann, call), Peer(bob, call)
        nursery.start_soon(caller.run)
        nursery.start_soon(callee.run)
        await caller.ring()
        await caller.connected.wait()
        await callee.connected.wait()
        print(f"connected: {caller.remote!r} and {callee.remote!r}")
        refusal = await eve.send(call, b"{}", no_persist=True)
        print(f"eve is refused: {Reason(refusal.reason).name}")
        left = [*await bob.history(call), *await bob.conversations()]
        print(f"left behind: {len(left)}")
        await ann.api.delete_channel(call)
        nursery.cancel_scope.cancel()
    return not left and not refusal.is_accepted


@asynccontextmanager
async def own_server() -> AsyncIterator[tuple[str, str]]:
    """Run a server in a temporary directory; yields the addresses of its WebSocket listener and of its API."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory() as directory:
        ports = ("addr=", "wsAddr=ws://127.0.0.1:0", "httpAddr=127.0.0.1:0")
        async with open_server(load_config(overrides=[f"rootDir={directory}", *ports])) as running:
            endpoints = running.broker.endpoints
            yield f"ws://{endpoints['ws']}", f"http://{endpoints['http']}"


async def main(options: argparse.Namespace) -> int:
    """Run the example; returns the exit code."""
    async with AsyncExitStack() as stack:
        server, api = options.server, options.api
        if not server:
            server, api = await stack.enter_async_context(own_server())
        with trio.move_on_after(LIMIT_S):
            return 0 if await hold_call(server, api) else 1
    print("it took too long")
    return 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Signalling for a call.")
    parser.add_argument("--server", default="", help="host:port or ws://…; without it a server of its own runs")
    parser.add_argument("--api", default="http://127.0.0.1:5001")
    sys.exit(trio.run(main, parser.parse_args()))
