"""The client's WebSocket against one that the test speaks itself."""

import anyio
import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Event, Ping, Pong, Request, TextMessage

from tests.unit.client.fakes import BACKENDS, run
from triolet_client import ConnectionFailed
from triolet_client._websocket import WebSocketTransport, shake_hands
from triolet_client.memory import MemoryStream, stream_pair


class Server:
    """The other end."""

    def __init__(self, stream: MemoryStream) -> None:
        self.stream = stream
        self.websocket = WSConnection(ConnectionType.SERVER)
        self.request = Request(host="", target="")

    async def take(self) -> Event:
        """Return the next event."""
        while True:
            for event in self.websocket.events():
                return event
            self.websocket.receive_data(await self.stream.receive())

    async def send(self, *events: Event) -> None:
        await self.stream.send(b"".join(self.websocket.send(event) for event in events))

    async def accept(self) -> None:
        request = await self.take()
        assert isinstance(request, Request)
        self.request = request
        await self.send(AcceptConnection())


async def connected() -> tuple[WebSocketTransport, Server]:
    ours, theirs = stream_pair()
    server = Server(theirs)
    made: list[WebSocketTransport] = []

    async def connect() -> None:
        made.append(await shake_hands(ours, "host:5200", "/path"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(connect)
        await server.accept()
    return made[0], server


@BACKENDS
def test_each_packet_is_a_binary_message(backend: str) -> None:
    """wire-protocol.md, section 1.3; no subprotocol and no extension are asked for."""

    async def main() -> None:
        transport, server = await connected()
        assert (server.request.host, server.request.target) == ("host:5200", "/path")
        assert server.request.subprotocols == []
        assert server.request.extensions == []
        await transport.send([b"one", b"two"])
        found = [await server.take() for _ in range(2)]
        assert [event.data for event in found if isinstance(event, BytesMessage)] == [b"one", b"two"]

    run(backend, main)


@BACKENDS
def test_what_comes_is_handed_on_whatever_its_messages(backend: str) -> None:
    async def main() -> None:
        transport, server = await connected()
        await server.send(
            BytesMessage(data=b"on", message_finished=False),
            BytesMessage(data=b"e "),
            TextMessage(data="two "),
            BytesMessage(data=b""),
            BytesMessage(data=b"three"),
        )
        assert await transport.receive() == b"one two three"

    run(backend, main)


@BACKENDS
def test_a_ping_is_answered_while_waiting(backend: str) -> None:
    async def main() -> None:
        transport, server = await connected()
        await server.send(Ping(payload=b"?"))
        await server.send(BytesMessage(data=b"data"))
        assert await transport.receive() == b"data"
        pong = await server.take()
        assert isinstance(pong, Pong)
        assert pong.payload == b"?"

    run(backend, main)


@BACKENDS
def test_a_close_is_answered_and_ends_the_stream(backend: str) -> None:
    async def main() -> None:
        transport, server = await connected()
        await server.send(BytesMessage(data=b"last"), CloseConnection(code=1001))
        assert await transport.receive() == b"last"
        assert await transport.receive() == b""
        assert isinstance(await server.take(), CloseConnection)
        with pytest.raises(ConnectionFailed):
            await transport.send([b"late"])

    run(backend, main)


@BACKENDS
def test_closing_says_good_bye_once(backend: str) -> None:
    async def main() -> None:
        transport, server = await connected()
        await transport.aclose()
        await transport.aclose()
        event = await server.take()
        assert isinstance(event, CloseConnection)
        assert event.code == 1000

    run(backend, main)


@BACKENDS
@pytest.mark.parametrize(
    "data", [b"\xc1\x00", b"\x82\x81\x00\x00\x00\x00x", b"\x83\x00"], ids=["rsv", "masked", "opcode"]
)
def test_a_server_that_breaks_the_protocol_is_told_and_left(backend: str, data: bytes) -> None:
    async def main() -> None:
        transport, server = await connected()
        await server.stream.send(data)
        assert await transport.receive() == b""
        event = await server.take()
        assert isinstance(event, CloseConnection)
        assert event.code == 1002

    run(backend, main)
