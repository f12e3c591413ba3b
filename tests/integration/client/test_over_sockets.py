"""The client over real sockets, on Trio and on asyncio, against a server in another thread's loop."""

import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import anyio
import pytest
import trio

from tests.integration.test_gateway import server_in
from tests.integration.test_transports import tls_server, trusting
from triolet_client import Backoff, Channel, Client, ConnectionFailed, Login, Refused, Settings, open_client, text_of
from triolet_core import load_config, open_server

BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])
ANN, BOB = Login(uid="ann", device_id="a1"), Login(uid="bob", device_id="b1")


async def on_loop(backend: str, main: Callable[[], Awaitable[None]]) -> None:
    """Run a test's client on a loop of its own, in a thread."""

    async def limited() -> None:
        with anyio.fail_after(20):
            await main()

    await trio.to_thread.run_sync(partial(anyio.run, limited, backend=backend))


async def talk(ann: Client, bob: Client) -> None:
    big = os.urandom(100_000)
    receipts = [await ann.send("bob", payload) for payload in (b"hello", big)]
    assert [receipt.seq for receipt in receipts] == [1, 2]
    assert [(await bob.receive()).payload for _ in receipts] == [b"hello", big]
    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(bob.send, "ann", str(number))
        found = {text_of((await ann.receive()).payload) for _ in range(100)}
    assert found == {str(number) for number in range(100)}


@BACKENDS
@pytest.mark.parametrize("kind", ["tcp", "ws"])
async def test_two_users_talk(tmp_path: Path, backend: str, kind: str) -> None:
    async with server_in(tmp_path) as server:
        address = f"{kind}://{server.broker.endpoints[kind]}"

        async def main() -> None:
            async with open_client(ANN, address) as ann, open_client(BOB, address) as bob:
                await talk(ann, bob)

        await on_loop(backend, main)


@BACKENDS
@pytest.mark.parametrize("kind", ["tls", "wss"])
async def test_two_users_talk_over_tls(tmp_path: Path, backend: str, kind: str) -> None:
    async with tls_server(tmp_path) as server:
        address = f"{kind}://localhost:{server.broker.endpoints[kind].rpartition(':')[2]}"

        async def main() -> None:
            async with (
                open_client(ANN, address, tls=trusting()) as ann,
                open_client(BOB, address, tls=trusting()) as bob,
            ):
                await talk(ann, bob)

        await on_loop(backend, main)


@BACKENDS
async def test_a_certificate_that_is_not_trusted_is_refused(tmp_path: Path, backend: str) -> None:
    async with tls_server(tmp_path) as server:
        address = f"tls://localhost:{server.broker.endpoints['tls'].rpartition(':')[2]}"

        async def main() -> None:
            with pytest.raises(ConnectionFailed, match="certificate"):
                async with open_client(ANN, address):
                    pytest.fail("it connected")

        await on_loop(backend, main)


@BACKENDS
async def test_a_wrong_token_is_refused(tmp_path: Path, backend: str) -> None:
    async with server_in(tmp_path, auth=True) as server:
        address = server.broker.endpoints["tcp"]

        async def main() -> None:
            with pytest.raises(Refused):
                async with open_client(Login(uid="ann", token="wrong"), address):
                    pytest.fail("it was let in")

        await on_loop(backend, main)


@BACKENDS
@pytest.mark.parametrize("kind", ["tcp", "ws"])
async def test_it_comes_back_when_the_server_does(tmp_path: Path, backend: str, kind: str) -> None:
    async with server_in(tmp_path) as server:
        address = server.broker.endpoints[kind]
    stopped, connected = trio.Event(), trio.Event()
    token = trio.lowlevel.current_trio_token()

    async def main() -> None:
        backoff = Backoff(first_s=0.01, longest_s=0.05)
        async with open_client(ANN, f"{kind}://{address}", settings=Settings(backoff=backoff)) as ann:
            token.run_sync_soon(connected.set)
            while ann.is_connected:
                await ann.wait_changed()
            token.run_sync_soon(stopped.set)
            await ann.wait_connected()
            receipt = await ann.send(Channel.person("bob"), b"still here")
            assert receipt.is_accepted
            assert ann.statistics.connects == 2

    async with trio.open_nursery() as nursery:
        async with server_in(tmp_path, **{f"{kind}_addr": address}):
            nursery.start_soon(on_loop, backend, main)
            await connected.wait()
        await stopped.wait()
        async with server_in(tmp_path, **{f"{kind}_addr": address}):
            while nursery.child_tasks:
                await trio.sleep(0.01)


@BACKENDS
@pytest.mark.parametrize("scheme", ["tcp", "ws"])
async def test_nobody_there_is_said(backend: str, scheme: str) -> None:
    with trio.socket.socket() as unused:
        await unused.bind(("127.0.0.1", 0))
        address = f"{scheme}://127.0.0.1:{unused.getsockname()[1]}"

        async def main() -> None:
            with pytest.raises(ConnectionFailed):
                async with open_client(ANN, address):
                    pytest.fail("it connected")

        await on_loop(backend, main)


@BACKENDS
@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", b"nonsense\r\n\r\n", b""],
    ids=["403", "no", "end"],
)
async def test_a_server_without_websockets_is_said(backend: str, answer: bytes) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        address = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}"

        async def main() -> None:
            with pytest.raises(ConnectionFailed):
                async with open_client(ANN, address):
                    pytest.fail("it connected")

        await on_loop(backend, main)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("address", ["", "http://host:1", "tcp://", "ws://:80"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    from triolet_client._transport import connector

    with pytest.raises(ValueError, match="is no address"):
        connector(address)


@BACKENDS
async def test_what_was_missed_comes_through_the_api(tmp_path: Path, backend: str) -> None:
    """Catching up, conversations and streams on either event loop."""
    ports = ["addr=tcp://127.0.0.1:0", "wsAddr=", "httpAddr=127.0.0.1:0", f"rootDir={tmp_path}"]
    async with open_server(load_config(overrides=ports, environ={})) as server:
        tcp, api = server.broker.endpoints["tcp"], server.broker.endpoints["http"]

        async def main() -> None:
            async with open_client(ANN, tcp, api=api) as ann:
                async with open_client(BOB, tcp, api=api) as bob:
                    await ann.send("bob", "one")
                    assert text_of((await bob.receive()).payload) == "one"
                await ann.send("bob", "two")
                await ann.send("bob", "three")
                async with open_client(BOB, tcp, api=api, positions=bob.positions) as bob:
                    assert [text_of((await bob.receive()).payload) for _ in range(2)] == ["two", "three"]
                    [conversation] = await bob.conversations()
                    assert (conversation.channel, conversation.unread) == (Channel("ann"), 3)
                    async with ann.open_stream("bob") as writer:
                        await writer.write("four")
                    message = await bob.receive()
                    assert message.is_stream
                    async with bob.follow(message.channel, message.client_msg_no) as reader:
                        assert [state.text async for state in reader] == ["four"]

        await on_loop(backend, main)
