"""Connections of the client against a scripted server, on both event loops."""

import anyio
import anyio.lowlevel
import pytest

import triolet_protocol as wire
from tests.unit.client.fakes import ANN, BACKENDS, QUICK, FakeServer, connected, message, run
from triolet_client import (
    Backoff,
    Channel,
    ClientClosed,
    ConnectionFailed,
    DeviceFlag,
    Event,
    Kicked,
    Login,
    NoApi,
    NotAcknowledged,
    Reason,
    Refused,
    Settings,
    open_client,
)
from triolet_client._transport import StreamTransport


@BACKENDS
def test_it_says_who_it_is(backend: str) -> None:
    async def main() -> None:
        server = FakeServer()
        login = Login(uid="ann", token="secret", device_id="d7", device_flag=DeviceFlag.PC)
        async with anyio.create_task_group() as tasks:
            seen: list[wire.Connect] = []

            async def serve() -> None:
                seen.append(await (await server.accept()).let_in())

            tasks.start_soon(serve)
            async with open_client(login, server.connect, clock_s=lambda: 12.5) as client:
                assert client.is_connected
        [connect] = seen
        assert (connect.uid, connect.token, connect.device_id, connect.device_flag) == ("ann", "secret", "d7", 2)
        assert connect.client_timestamp == 12500
        assert connect.version == 5

    run(backend, main)


@BACKENDS
def test_a_refused_login_is_raised_with_its_reason(backend: str) -> None:
    """wire-protocol.md, section 0, rule 8."""

    async def main() -> None:
        server = FakeServer()

        async def serve() -> None:
            line = await server.accept()
            await line.take(wire.ConnectReceived)
            await line.stream.send(line.connection.reject(Reason.AUTH_FAIL))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            with pytest.raises(Refused, match="auth fail") as caught:
                async with open_client(ANN, server.connect):
                    pytest.fail("it was let in")
        assert caught.value.reason == Reason.AUTH_FAIL

    run(backend, main)


@BACKENDS
@pytest.mark.parametrize("answer", [b"", b"\x80", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_server_that_says_something_else_cannot_be_connected_to(backend: str, answer: bytes) -> None:
    async def main() -> None:
        server = FakeServer()

        async def serve() -> None:
            line = await server.accept()
            await line.take(wire.ConnectReceived)
            await line.stream.send(answer)
            await line.stream.aclose()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            with pytest.raises(ConnectionFailed):
                async with open_client(ANN, server.connect):
                    pytest.fail("it was let in")

    run(backend, main)


@BACKENDS
def test_a_silent_server_is_given_up(backend: str) -> None:
    async def main() -> None:
        with pytest.raises(ConnectionFailed, match="does not answer the login"):
            async with open_client(ANN, FakeServer().connect, settings=Settings(connect_timeout_s=0.01)):
                pytest.fail("it was let in")

    run(backend, main)


@BACKENDS
def test_the_first_connection_is_tried_once(backend: str) -> None:
    async def main() -> None:
        server = FakeServer()
        server.refuses = 1
        with pytest.raises(ConnectionFailed, match="the test refuses"):
            async with open_client(ANN, server.connect, settings=QUICK):
                pytest.fail("it connected")

    run(backend, main)


@BACKENDS
def test_an_error_of_the_block_comes_out_as_it_is(backend: str) -> None:
    run(backend, _block_error)


async def _block_error() -> None:
    server = FakeServer()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.log_in)
        with pytest.raises(ZeroDivisionError):
            async with open_client(ANN, server.connect):
                raise ZeroDivisionError


@BACKENDS
def test_a_message_is_sent_and_acknowledged(backend: str) -> None:
    async def main() -> None:
        async with connected() as (_, line, ann), anyio.create_task_group() as tasks:

            async def serve() -> None:
                send = (await line.take(wire.SendReceived)).send
                assert (send.channel_id, send.channel_type, send.payload, send.expire) == ("g", 2, b"hello", 60)
                assert send.flags == 0x02
                await line.acknowledge(send, 7)

            tasks.start_soon(serve)
            receipt = await ann.send(Channel.group("g"), "hello", expire=60, client_msg_no="n1")
        assert receipt.is_accepted
        assert (receipt.message_id, receipt.seq, receipt.client_msg_no) == (1007, 7, "n1")

    run(backend, main)


@BACKENDS
def test_a_refused_message_is_a_receipt(backend: str) -> None:
    async def main() -> None:
        async with connected() as (_, line, ann), anyio.create_task_group() as tasks:

            async def serve() -> None:
                send = (await line.take(wire.SendReceived)).send
                assert send.flags == 0x05
                await line.acknowledge(send, 0, Reason.IN_BLACKLIST)

            tasks.start_soon(serve)
            receipt = await ann.send("bob", b"x", red_dot=False, no_persist=True, sync_once=True)
        assert not receipt.is_accepted
        assert receipt.reason == Reason.IN_BLACKLIST

    run(backend, main)


@BACKENDS
def test_what_was_not_acknowledged_is_sent_again_in_order(backend: str) -> None:
    """The number stays, so that the server can tell a repeat; DUP says that it is one."""

    async def main() -> None:
        async with connected() as (server, line, ann), anyio.create_task_group() as tasks:
            receipts = {}

            async def send(number: int) -> None:
                receipts[number] = await ann.send("bob", str(number), client_msg_no=f"n{number}")

            for number in range(5):
                tasks.start_soon(send, number)
            first = [(await line.take(wire.SendReceived)).send for _ in range(5)]
            await line.acknowledge(first[0], 1)
            while len(receipts) < 1:
                await anyio.lowlevel.checkpoint()
            await line.stream.aclose()
            again = await server.log_in()
            second = [(await again.take(wire.SendReceived)).send for _ in range(4)]
            assert [send.client_msg_no for send in second] == [send.client_msg_no for send in first[1:]]
            assert {send.flags & 0x08 for send in second} == {0x08}
            for seq, each in enumerate(second, 2):
                await again.acknowledge(each, seq)
        assert sorted(receipt.seq for receipt in receipts.values()) == [1, 2, 3, 4, 5]
        assert ann.statistics.resent == 4

    run(backend, main)


@BACKENDS
def test_without_an_answer_a_send_is_given_up(backend: str) -> None:
    async def main() -> None:
        async with connected(Settings(send_timeout_s=0.01)) as (_, _, ann):
            with pytest.raises(NotAcknowledged, match="n1"):
                await ann.send("bob", b"x", client_msg_no="n1")

    run(backend, main)


@BACKENDS
def test_only_so_many_messages_are_on_their_way(backend: str) -> None:
    async def main() -> None:
        async with connected(Settings(in_flight=2)) as (_, line, ann), anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(ann.send, "bob", b"x")
            first = (await line.take(wire.SendReceived)).send
            await line.take(wire.SendReceived)
            assert not line.events
            with anyio.move_on_after(0.02) as scope:
                await line.take(wire.SendReceived)
            assert scope.cancelled_caught
            await line.acknowledge(first, 1)
            await line.take(wire.SendReceived)
            tasks.cancel_scope.cancel()

    run(backend, main)


@BACKENDS
def test_a_message_too_long_for_the_protocol_is_not_sent(backend: str) -> None:
    async def main() -> None:
        async with connected() as (_, _, ann):
            with pytest.raises(ValueError, match="send less"):
                await ann.send("bob", b"x" * (1 << 20))
            with pytest.raises(ValueError, match="32767"):
                await ann.send("b" * 40_000, b"x")

    run(backend, main)


@BACKENDS
def test_messages_arrive_and_are_acknowledged_when_taken(backend: str) -> None:
    async def main() -> None:
        async with connected() as (_, line, ann):
            sent = message(1, b"one"), message(2, b"two")
            await line.deliver(*sent)
            taken = await ann.receive()
            assert (taken.from_uid, taken.channel, taken.seq, taken.payload) == ("bob", Channel("bob"), 1, b"one")
            assert (taken.client_msg_no, taken.timestamp) == (sent[0].client_msg_no, 1_700_000_000)
            assert not taken.is_caught_up
            ack = (await line.take(wire.RecvAckReceived)).recvack
            assert (ack.message_id, ack.message_seq, ack.flags) == (sent[0].message_id, 1, 0x02)
            assert not line.events
            assert (await ann.receive()).payload == b"two"

    run(backend, main)


@BACKENDS
def test_a_repeated_delivery_is_acknowledged_and_not_handed_on(backend: str) -> None:
    async def main() -> None:
        async with connected() as (_, line, ann):
            first = message(1, b"one")
            await line.deliver(first, first, message(2, b"two"))
            assert [(await ann.receive()).payload for _ in range(2)] == [b"one", b"two"]
            for _ in range(3):
                await line.take(wire.RecvAckReceived)
        assert ann.statistics.duplicates == 1

    run(backend, main)


@BACKENDS
def test_a_kick_ends_the_client(backend: str) -> None:
    """A DISCONNECT is final: wire-protocol.md, section 0, rule 9. What arrived before is still handed on."""

    async def main() -> None:
        async with connected() as (_, line, ann), anyio.create_task_group() as tasks:
            failures = []

            async def send() -> None:
                try:
                    await ann.send("bob", b"x")
                except Kicked as exc:
                    failures.append(exc)

            tasks.start_soon(send)
            await line.take(wire.SendReceived)
            await line.deliver(message(1, b"last words"))
            await line.send(wire.Disconnect(Reason.CONNECT_KICK, "another device"))
            messages = ann.messages()
            assert (await anext(messages)).payload == b"last words"
            with pytest.raises(Kicked, match="connect kick another device"):
                await anext(messages)
            with pytest.raises(Kicked):
                await ann.send("bob", b"x")
            with pytest.raises(Kicked):
                await ann.wait_connected()
        assert len(failures) == 1

    run(backend, main)


@BACKENDS
def test_the_iteration_ends_with_the_client(backend: str) -> None:
    async def main() -> None:
        found = []

        async def read(messages: object) -> None:
            found.extend([each async for each in messages])  # type: ignore[attr-defined]
            found.append("end")

        async with anyio.create_task_group() as tasks:
            async with connected() as (_, _, ann):
                tasks.start_soon(read, ann.messages())
                await anyio.lowlevel.checkpoint()
            with pytest.raises(ClientClosed):
                await ann.send("bob", b"x")
        assert found == ["end"]

    run(backend, main)


@BACKENDS
def test_it_comes_back_until_a_login_succeeds(backend: str) -> None:
    async def main() -> None:
        async with connected() as (server, line, ann):
            server.refuses = 3
            await line.stream.aclose()
            busy = await server.accept()
            await busy.take(wire.ConnectReceived)
            await busy.stream.send(busy.connection.reject(Reason.SYSTEM_ERROR))
            await server.log_in()
            while not ann.is_connected:
                await ann.wait_changed()
            assert ann.statistics.connects == 2

    run(backend, main)


@BACKENDS
def test_a_login_refused_for_good_ends_the_client(backend: str) -> None:
    async def main() -> None:
        async with connected() as (server, line, ann):
            await line.stream.aclose()
            again = await server.accept()
            await again.take(wire.ConnectReceived)
            await again.stream.send(again.connection.reject(Reason.AUTH_FAIL))
            with pytest.raises(Refused):
                await ann.receive()

    run(backend, main)


@BACKENDS
@pytest.mark.parametrize("rubbish", [b"\xf0\x01\x00", b"\x30\xff\xff\xff\xff\x7f"])
def test_a_server_that_breaks_the_protocol_is_left_and_connected_to_again(backend: str, rubbish: bytes) -> None:
    async def main() -> None:
        async with connected() as (server, line, ann):
            await line.stream.send(rubbish)
            again = await server.log_in()
            await again.deliver(message(1, b"better"))
            assert (await ann.receive()).payload == b"better"

    run(backend, main)


@BACKENDS
def test_a_server_that_does_not_answer_pings_is_lost(backend: str) -> None:
    async def main() -> None:
        backoff = Backoff(first_s=0.001, longest_s=0.002)
        settings = Settings(ping_interval_s=0.02, pong_timeout_s=0.02, backoff=backoff)
        async with connected(settings) as (server, line, _):
            await line.take(wire.PingReceived)
            await line.send(wire.Pong())
            await line.take(wire.PingReceived)
            await server.log_in()

    run(backend, main)


@BACKENDS
def test_events_go_to_every_reader(backend: str) -> None:
    async def main() -> None:
        async with connected() as (_, line, ann):
            with ann.events() as one, ann.events() as two:
                await line.send(wire.EventFrame("e1", "typing", 5, b"{}"))
                expected = Event(id="e1", type="typing", timestamp=5, data=b"{}")
                assert await anext(one) == expected
                assert await anext(two) == expected
            with ann.events() as three:
                await line.send(wire.EventFrame("e2", "typing", 6, b"{}"))
                assert (await anext(three)).id == "e2"
            assert one.take_nowait() is None

    run(backend, main)


@BACKENDS
def test_a_reader_that_is_too_slow_keeps_the_newest_events(backend: str) -> None:
    async def main() -> None:
        async with connected(Settings(events=2)) as (_, line, ann):
            with ann.events() as reader:
                await line.send(*(wire.EventFrame(f"e{number}", "typing", 0, b"") for number in range(5)))
                await line.deliver(message(1))
                await ann.receive()  # the events before it have been taken
                assert [(await anext(reader)).id for _ in range(2)] == ["e3", "e4"]
                assert reader.dropped == 3

    run(backend, main)


@BACKENDS
def test_what_needs_the_api_says_so(backend: str) -> None:
    async def main() -> None:
        async with connected() as (_, _, ann):
            with pytest.raises(NoApi):
                await ann.conversations()

    run(backend, main)


@BACKENDS
def test_one_task_reads_at_a_time(backend: str) -> None:
    async def main() -> None:
        async with connected() as (_, _, ann), anyio.create_task_group() as tasks:
            tasks.start_soon(ann.receive)
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            with pytest.raises(anyio.BusyResourceError):
                await ann.receive()
            tasks.cancel_scope.cancel()

    run(backend, main)


@BACKENDS
def test_a_cancelled_reader_loses_nothing(backend: str) -> None:
    async def main() -> None:
        async with connected() as (_, line, ann):
            with anyio.move_on_after(0.01):
                await ann.receive()
            with anyio.CancelScope() as scope:
                scope.cancel()
                await ann.receive()
            await line.deliver(message(1, b"one"))
            assert (await ann.receive()).payload == b"one"

    run(backend, main)


@BACKENDS
def test_without_an_api_a_full_inbox_drops_and_counts(backend: str) -> None:
    async def main() -> None:
        async with connected(Settings(inbox=2)) as (_, line, ann):
            await line.deliver(*(message(seq) for seq in range(1, 6)))
            await line.send(wire.EventFrame("last", "", 0, b""))
            with ann.events() as events:
                await anext(events)
            assert [(await ann.receive()).seq for _ in range(2)] == [1, 2]
            assert ann.statistics.dropped == 3

    run(backend, main)


def test_the_waits_double_with_jitter_up_to_the_longest() -> None:
    backoff = Backoff(first_s=1, longest_s=8)
    assert [backoff.delay_s(attempt, 1.0) for attempt in range(5)] == [1, 2, 4, 8, 8]
    assert [backoff.delay_s(attempt, 0.0) for attempt in (0, 3, 10**6)] == [0.5, 4, 4]


@BACKENDS
def test_closing_writes_what_waits(backend: str) -> None:
    async def main() -> None:
        async with connected() as (_, line, ann):
            await line.deliver(message(1))
            await ann.receive()
        await line.take(wire.RecvAckReceived)

    run(backend, main)


@BACKENDS
def test_a_transport_in_memory_is_bounded(backend: str) -> None:
    from triolet_client.memory import stream_pair

    async def main() -> None:
        ours, theirs = stream_pair(limit=10)
        transport = StreamTransport(ours)
        await transport.send([b"x" * 10])
        with anyio.move_on_after(0.01) as scope:
            await transport.send([b"y"])
        assert scope.cancelled_caught
        assert await theirs.receive(4) == b"xxxx"
        await theirs.aclose()
        assert await transport.receive() == b""
        with pytest.raises(ConnectionFailed):
            await transport.send([b"z"])

    run(backend, main)
