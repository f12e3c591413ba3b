"""A server of the wire protocol that does what the test says, over streams in memory, on Trio or asyncio."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import anyio
import attrs
import pytest

import triolet_protocol as wire
from triolet_client import Backoff, Client, ConnectionFailed, Login, Settings, open_client
from triolet_client._transport import StreamTransport
from triolet_client.memory import MemoryStream, stream_pair
from triolet_core.model import ChannelKey, Message, Receipt

BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])
QUICK = Settings(backoff=Backoff(first_s=0.001, longest_s=0.002))
ANN = Login(uid="ann", token="secret")


def run(backend: str, main: Callable[[], Awaitable[None]]) -> None:
    """Run a test on an event loop, for ten seconds at most."""

    async def limited() -> None:
        with anyio.fail_after(10):
            await main()

    anyio.run(limited, backend=backend)


@attrs.define(eq=False)
class Line:
    """The server's end of one connection."""

    stream: MemoryStream
    connection: wire.Connection = attrs.Factory(lambda: wire.Connection(wire.Role.SERVER))
    events: list[wire.Event] = attrs.Factory(list)

    async def take(self, kind: type) -> Any:
        """Return the next event of a kind; others are kept."""
        while True:
            for event in self.events:
                if isinstance(event, kind):
                    self.events.remove(event)
                    return event
            self.connection.receive_data(await self.stream.receive())
            self.events += self.connection.events()

    async def send(self, *frames: wire.Frame) -> None:
        await self.stream.send(b"".join(self.connection.send(frame) for frame in frames))

    async def let_in(self, time_diff_ms: int = 0) -> wire.Connect:
        connect: wire.Connect = (await self.take(wire.ConnectReceived)).connect
        await self.stream.send(
            self.connection.accept(b"\7" * 32, b"0123456789abcdef", time_diff_ms=time_diff_ms, node_id=1)
        )
        return connect

    async def deliver(self, *messages: Message) -> None:
        """Push messages, as their receiver sees them."""
        fields = [wire.recv_fields(each, each.channel.id, each.sender, each.flags) for each in messages]
        await self.stream.send(b"".join(self.connection.encode_recvs(fields)))

    async def acknowledge(self, send: wire.Send, seq: int, reason: int = 1) -> None:
        acks = self.connection.encode_sendacks([(send.client_seq, send.flags)], [Receipt(reason, 1000 + seq, seq)])
        await self.stream.send(b"".join(acks))


class FakeServer:
    """Gives each connection that is made to the test."""

    def __init__(self) -> None:
        self._streams: list[MemoryStream] = []
        self._arrived = anyio.Event()
        self.refuses = 0
        """Connections that fail before one succeeds."""

    async def connect(self) -> StreamTransport:
        if self.refuses:
            self.refuses -= 1
            raise ConnectionFailed("the test refuses")
        ours, theirs = stream_pair()
        self._streams.append(theirs)
        self._arrived.set()
        return StreamTransport(ours)

    async def accept(self) -> Line:
        while not self._streams:
            self._arrived = anyio.Event()
            await self._arrived.wait()
        return Line(self._streams.pop(0))

    async def log_in(self) -> Line:
        line = await self.accept()
        await line.let_in()
        return line


@asynccontextmanager
async def connected(settings: Settings = QUICK, **options: Any) -> AsyncIterator[tuple[FakeServer, Line, Client]]:
    """A client that has logged in, and the server's end."""
    server = FakeServer()
    async with anyio.create_task_group() as tasks:
        found: list[Line] = []

        async def first(task_status: Any = anyio.TASK_STATUS_IGNORED) -> None:
            task_status.started()
            found.append(await server.log_in())

        await tasks.start(first)
        async with open_client(ANN, server.connect, settings=settings, **options) as client:
            yield server, found[0], client


_IDS = count(1)


def message(seq: int, payload: bytes = b"hi", *, sender: str = "bob", channel: str = "bob", **more: Any) -> Message:
    """A message from bob to ann, as ann sees its channel."""
    values: dict[str, Any] = {
        "message_id": 5000 + next(_IDS),
        "seq": seq,
        "channel": ChannelKey(channel, 1),
        "sender": sender,
        "client_msg_no": f"no-{next(_IDS)}",
        "timestamp": 1_700_000_000,
        "flags": 0x02,
        "setting": 0,
        "expire": 0,
        "topic": "",
        "payload": payload,
    }
    return Message(**{**values, **more})
