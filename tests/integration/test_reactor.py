"""What the one task of all sockets owes each of them: its turn, its end, its last answers."""

import contextlib
import json
import os
import select
import socket
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import triolet_protocol as wire
from tests.integration.test_gateway import server_in
from tests.websocket import BINARY, TEXT, frame, open_raw
from tests.wkclient import Client, client, let_logins_wait
from triolet_core import ChannelKey, ConnectRequest, Device, Draft, Receipt, Server
from triolet_core.hooks import WatchRequest
from triolet_gateway import _reactor
from triolet_gateway._session import ClientSession
from triolet_gateway._socket import SocketConnection

KINDS = pytest.mark.parametrize("kind", ["tcp", "ws"])


async def wait_until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not holds():
            await trio.sleep(0.005)


class HeldStore:
    """Takes what is submitted, and answers it only when told to."""

    def __init__(self, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waiting: list[tuple[Any, list[Draft]]] = []
        monkeypatch.setattr(server.broker.messages, "submit_nowait", self._submit)

    def _submit(self, sender: Device, drafts: list[Draft], done: Any, exclude: object) -> None:
        self.waiting.append((done, drafts))

    @property
    def count(self) -> int:
        return sum(len(drafts) for _, drafts in self.waiting)

    def answer(self) -> None:
        for number, (done, drafts) in enumerate(self.waiting, 1):
            done([Receipt(1, number, number) for _ in drafts])
        self.waiting.clear()


@KINDS
@pytest.mark.parametrize("is_together", [True, False])
async def test_who_says_good_bye_still_gets_the_answers_to_what_it_sent(
    tmp_path: Path, kind: str, is_together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline at once, closed when the last SENDACK is out."""
    async with server_in(tmp_path) as server, client(server, kind) as ann:
        await ann.connect("ann")
        store = HeldStore(server, monkeypatch)
        good_bye = ann.connection.send(wire.Disconnect(0, ""))
        messages = [ann.message("bob"), ann.message("bob")]
        for data in [b"".join([*messages, good_bye])] if is_together else [*messages, good_bye]:
            await ann.send_raw(data)
        await wait_until(lambda: store.count == 2 and not server.broker.presence.count)
        store.answer()
        assert [(await ann.wait_for(wire.SendAckReceived)).sendack.client_seq for _ in messages] == [1, 2]
        await ann.wait_closed()


async def test_who_says_good_bye_and_half_closes_gets_them_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with server_in(tmp_path) as server, client(server) as ann:
        await ann.connect("ann")
        store = HeldStore(server, monkeypatch)
        await ann.send_raw(ann.message("bob") + ann.connection.send(wire.Disconnect(0, "")))
        await ann.stream.send_eof()
        await wait_until(lambda: store.count == 1 and not server.broker.presence.count)
        await trio.testing.wait_all_tasks_blocked(0.05)
        store.answer()
        assert (await ann.wait_for(wire.SendAckReceived)).sendack.client_seq == 1
        await ann.wait_closed()
        await wait_until(lambda: not server.broker.metrics.values()["gateway_open_sockets"])


async def test_who_leaves_without_a_word_is_owed_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with server_in(tmp_path) as server, client(server) as ann:
        await ann.connect("ann")
        store = HeldStore(server, monkeypatch)
        await ann.send_raw(ann.message("bob"))
        await wait_until(lambda: store.count == 1)
        await ann.stream.aclose()
        await wait_until(lambda: not server.broker.metrics.values()["gateway_open_sockets"])
        store.answer()
        assert server.broker.metrics.values()["gateway_crashes_total"] == 0


@KINDS
async def test_an_error_in_what_the_reactor_calls_ends_that_connection_only(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Logged once with its number, and counted; `test_bounds` has what others call."""
    async with server_in(tmp_path) as server, client(server, kind) as ann, client(server, kind) as bob:
        await bob.connect("bob")
        await ann.connect("ann")
        original = ClientSession._on_batch

        def fail(session: ClientSession, *args: Any) -> Any:
            if session.device.uid == "ann":
                raise RuntimeError("a bug")
            return original(session, *args)

        monkeypatch.setattr(ClientSession, "_on_batch", fail)
        await ann.send_raw(ann.message("bob"))
        async with trio.open_nursery() as nursery:

            async def stay() -> None:
                while True:
                    await bob.ping()
                    await trio.sleep(0.2)

            nursery.start_soon(stay)
            await ann.wait_closed()
            nursery.cancel_scope.cancel()
        await bob.ping()
        values = server.broker.metrics.values()
        assert (values["gateway_crashes_total"], values["gateway_connections"]) == (1, 1)
        logged = capsys.readouterr().out
        assert logged.count("connection crashed") == 1
        assert "connection_id=1" in logged.partition("connection crashed")[2].partition("\n")[0]


@KINDS
async def test_a_client_that_waits_for_its_login_holds_up_nobody(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its socket is not read meanwhile; what it sent behind its CONNECT is taken afterwards."""
    async with server_in(tmp_path) as server, client(server, kind) as slow, client(server, kind) as quick:
        authenticate, may_go_on = server.broker.users.authenticate_nowait, trio.Event()

        async def wait(request: ConnectRequest) -> Any:
            if request.uid == "slow":
                await may_go_on.wait()
            return authenticate(request)

        let_logins_wait(monkeypatch, server, wait)
        connect = slow.connection.connect(
            uid="slow", token="", device_id="d", device_flag=0, client_timestamp=0, private_key=os.urandom(32)
        )
        await slow.send_raw(connect)
        await slow.send_raw(b"\x70\x70")
        assert await quick.connect("quick") == 1
        await quick.ping()
        await wait_until(lambda: server.broker.metrics.values()["gateway_pings_total"] == 1)  # a worker tells later
        may_go_on.set()
        assert (await slow.wait_for(wire.ConnAckReceived)).connack.reason_code == 1
        await slow.wait_for(wire.PongReceived)
        await slow.wait_for(wire.PongReceived)


async def test_a_client_that_leaves_during_its_login_is_never_online(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with server_in(tmp_path, login_timeout=0.5) as server, client(server) as ann:
        started, may_go_on, authenticate = trio.Event(), trio.Event(), server.broker.users.authenticate_nowait

        async def wait(request: ConnectRequest) -> Any:
            started.set()
            await may_go_on.wait()
            return authenticate(request)

        let_logins_wait(monkeypatch, server, wait)
        await ann.send_raw(
            ann.connection.connect(
                uid="ann", token="", device_id="d", device_flag=0, client_timestamp=0, private_key=os.urandom(32)
            )
        )
        await started.wait()
        await ann.wait_closed()  # the time for the login is over
        await wait_until(lambda: not server.broker.metrics.values()["gateway_open_sockets"])
        may_go_on.set()
        await trio.testing.wait_all_tasks_blocked()
        assert server.broker.presence.count == 0
        assert server.broker.metrics.values()["gateway_crashes_total"] == 0


@KINDS
async def test_a_full_queue_pauses_reading_and_nothing_is_lost(tmp_path: Path, kind: str) -> None:
    async with server_in(tmp_path) as server, client(server, kind) as ann:
        await ann.connect("ann")
        writer = server.broker._store.writer
        writer._queue_limit = 1
        await ann.send_raw(b"".join(ann.message("bob") for _ in range(50)))
        for _ in range(20):
            await ann.send_raw(ann.message("bob"))
        acks = [(await ann.wait_for(wire.SendAckReceived)).sendack for _ in range(70)]
        assert [ack.client_seq for ack in acks] == list(range(1, 71))
        assert {ack.reason_code for ack in acks} == {1}


async def test_a_storm_of_connections_is_accepted_and_others_are_served_meanwhile(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server, client(server) as ann:
        await ann.connect("ann")
        host, _, port = server.broker.endpoints["tcp"].rpartition(":")
        opened = []
        try:
            for _ in range(500):
                sock = socket.socket()
                sock.setblocking(False)
                opened.append(sock)
                sock.connect_ex((host, int(port)))
            await ann.ping()
            await wait_until(lambda: server.broker.metrics.values()["gateway_open_sockets"] == 501)
        finally:
            for sock in opened:
                sock.close()
        await wait_until(lambda: server.broker.metrics.values()["gateway_open_sockets"] == 1)
        await ann.ping()


async def test_connections_that_are_gone_leave_nothing_behind(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server, client(server) as ann:
        await ann.connect("ann")
        [session] = server.broker.presence.sessions("ann")
        assert isinstance(session, ClientSession)
        gateway = session.gateway
        for kind in ("tcp", "ws"):
            async with client(server, kind) as guest:
                await guest.connect("guest")
            async with client(server, kind):
                pass
        await wait_until(lambda: len(gateway.reactor) == 1)
        assert gateway.sessions == {session}
        assert [each for bucket in gateway._buckets.values() for each in bucket] == [session]
        assert not gateway.draining
        assert not gateway.held


async def test_who_is_gone_joins_no_channel(tmp_path: Path) -> None:
    """What waited behind something slow when its connection ended is not done any more: no guest is left behind."""
    asked, answered = trio.Event(), trio.Event()

    async def answer(_: WatchRequest) -> list[str]:
        asked.set()
        await answered.wait()
        return []

    async with server_in(tmp_path) as server, client(server) as ann:
        with server.broker.hooks.authorize_watch.responder("contacts", answer, on_failure=None):
            await ann.connect("ann")
            [session] = server.broker.presence.sessions("ann")
            assert isinstance(session, ClientSession)
            subs = [wire.Sub(0, "1", name, 7, 0, "") for name in ("presence:bob", "d")]
            await ann.send_raw(b"".join(map(ann.connection.send, subs)))
            await asked.wait()
            session.give_up()
            await wait_until(lambda: not server.broker.metrics.values()["gateway_open_sockets"])
            answered.set()
            await trio.testing.wait_all_tasks_blocked()
            assert not server.broker.channels.has_temp_members(ChannelKey("d", 7))


@KINDS
async def test_a_stop_closes_every_connection(tmp_path: Path, kind: str) -> None:
    async with trio.open_nursery() as nursery, contextlib.AsyncExitStack() as clients:
        stop = trio.Event()

        async def serve(task_status: trio.TaskStatus[Server]) -> None:
            async with server_in(tmp_path) as server:
                task_status.started(server)
                await stop.wait()

        server: Server = await nursery.start(serve)
        ann = await clients.enter_async_context(client(server, kind))
        nobody = await clients.enter_async_context(client(server, kind))
        await ann.connect("ann")
        stop.set()
        with trio.fail_after(5):
            await ann.wait_closed()
            await nobody.wait_closed()


async def test_a_reset_connection_is_noticed_while_it_is_paused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for room in the store, and has bytes that its client did not take: the reset ends it."""
    async with server_in(tmp_path, in_flight=1) as server:
        async with open_raw(server, "ann") as ann:
            store = HeldStore(server, monkeypatch)
            await ann.send(frame(BINARY, ann.message("bob", 1)))
            await wait_until(lambda: store.count == 1)
        store.answer()
        await wait_until(lambda: not server.broker.metrics.values()["gateway_open_sockets"])


async def test_one_flood_does_not_keep_others_waiting(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server, client(server) as flood, client(server) as ann:
        await flood.connect("flood")
        await ann.connect("ann")
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                while True:
                    await flood.send_raw(b"\x70" * 65536)

            async def drop() -> None:
                while await flood.stream.receive_some():
                    pass

            nursery.start_soon(send)
            nursery.start_soon(drop)
            for _ in range(20):
                await ann.ping()
            nursery.cancel_scope.cancel()


async def test_a_client_is_heard_again_after_its_bytes_were_taken(tmp_path: Path) -> None:
    """Reading and writing of one socket are waited for apart."""
    async with server_in(tmp_path, outbox_bytes=64 << 20) as server, client(server) as bob:
        bob.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        await bob.connect("bob")
        for _ in range(40):
            await server.broker.messages.send(Device(uid="ann", is_server=True), Draft("bob", 1, bytes(200_000)))
        assert server.broker.metrics.values()["gateway_outbox_bytes"] > 0
        received = [await bob.receive() for _ in range(40)]
        assert [recv.message_seq for recv in received] == list(range(1, 41))
        await bob.ping()
        assert server.broker.metrics.values()["gateway_outbox_bytes"] == 0


def greeting(device: Client, uid: str) -> bytes:
    return device.connection.connect(
        uid=uid, token="", device_id="d", device_flag=0, client_timestamp=0, private_key=os.urandom(32)
    )


@KINDS
async def test_what_comes_behind_a_connect_is_taken_after_its_answer(tmp_path: Path, kind: str) -> None:
    """Also where it makes the session wait: it is not read meanwhile, and goes on afterwards."""
    async with server_in(tmp_path, in_flight=1) as server, client(server, kind) as ann, client(server, kind) as bob:
        for device, uid in ((ann, "ann"), (bob, "bob")):
            await device.send_raw(greeting(device, uid) + b"\x70")
        for device in (ann, bob):
            assert (await device.wait_for(wire.ConnAckReceived)).connack.reason_code == 1
            await device.wait_for(wire.PongReceived)
        for seq in (1, 2, 3):
            await ann.send_raw(ann.message("bob"))
            assert (await ann.wait_for(wire.SendAckReceived)).sendack.client_seq == seq


@KINDS
async def test_an_error_while_logins_are_answered_ends_that_connection_only(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are answered together."""
    async with server_in(tmp_path) as server, client(server, kind) as ann, client(server, kind) as bob:
        register = server.broker.presence.register

        def fail(session: Any) -> None:
            if session.device.uid == "ann":
                raise RuntimeError("a bug")
            register(session)

        monkeypatch.setattr(server.broker.presence, "register", fail)
        await ann.send_raw(greeting(ann, "ann"))
        assert await bob.connect("bob") == 1
        await ann.wait_closed()
        await bob.ping()
        assert server.broker.metrics.values()["gateway_crashes_total"] == 1


async def test_many_who_log_in_at_once_get_keys_of_their_own_and_one_bad_key_is_refused_alone(tmp_path: Path) -> None:
    """More than agree on keys together; what they write to each other arrives (wire-protocol.md, section 4)."""
    async with server_in(tmp_path) as server, contextlib.AsyncExitStack() as stack:
        devices = [await stack.enter_async_context(client(server, "tcp")) for _ in range(21)]
        await wait_until(lambda: server.broker.metrics.values()["gateway_connections"] == len(devices))
        for number, device in enumerate(devices):
            hello = greeting(device, f"u{number}")
            if number == 5:
                text = device.connection._keys.public.encode()
                hello = hello.replace(text, b64encode(bytes(32)))
            os.write(device.stream.socket.fileno(), hello)  # no checkpoint: all are there when the server looks
        for number, device in enumerate(devices):
            reason = (await device.wait_for(wire.ConnAckReceived)).connack.reason_code
            assert reason == (wire.ReasonCode.AUTH_FAIL if number == 5 else wire.ReasonCode.SUCCESS)
        await devices[5].wait_closed()
        for number in (0, 4, 6, 20):
            await devices[number].send_raw(devices[number].message("u1", b"hello"))
            assert (await devices[1].wait_for(wire.RecvReceived)).recv.payload == b"hello"


@KINDS
async def test_what_is_sent_does_not_wait_for_acknowledgements_of_tcp(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TCP_NODELAY, which an accepted socket has from its listener."""
    found: list[int] = []
    opened = SocketConnection.open

    def look(connection: SocketConnection, *args: Any) -> None:
        found.append(connection._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        opened(connection, *args)

    monkeypatch.setattr(SocketConnection, "open", look)
    async with server_in(tmp_path) as server, client(server, kind) as ann:
        await ann.connect("ann")
    assert found == [1]


def look_between_turns(
    monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery, session: ClientSession, then: Callable[[], object]
) -> None:
    """From now on a turn reads one socket; after the next one let another task read a session, and call a function."""
    take, descriptor = ClientSession.take, session.outbox.readable

    async def look() -> None:
        session.gateway.reactor.look([descriptor])
        then()

    def take_first(first: ClientSession, data: bytes) -> None:
        monkeypatch.setattr(ClientSession, "take", take)
        nursery.start_soon(look)
        take(first, data)

    monkeypatch.setattr(ClientSession, "take", take_first)
    monkeypatch.setattr(_reactor, "TURN_BYTES", 1)


async def test_who_is_paused_between_two_turns_is_not_read_in_the_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was ready before the first; what waits behind the layers is not lost to what comes next."""

    def call(method: str, number: int, **params: Any) -> bytes:
        return frame(TEXT, json.dumps({"id": str(number), "method": method, "params": params}).encode())

    def send(number: int) -> bytes:
        return call("send", number, channelId="bob", channelType=1, clientMsgNo=str(number), payload="aGk=")

    async with (
        server_in(tmp_path, in_flight=1) as server,
        client(server) as one,
        client(server) as two,
        open_raw(server) as ann,
        trio.open_nursery() as nursery,
    ):
        await one.connect("one")
        await two.connect("two")
        await ann.send(call("connect", 0, uid="ann", token="", deviceFlag=2))
        await ann.read()
        [session] = server.broker.presence.sessions("ann")
        assert isinstance(session, ClientSession)
        store = HeldStore(server, monkeypatch)
        wire_of = ann.stream.socket.fileno()
        look_between_turns(monkeypatch, nursery, session, lambda: os.write(wire_of, send(3)))
        for device in (one, two):
            os.write(device.stream.socket.fileno(), b"\x70")
        os.write(wire_of, send(1) + send(2))
        await wait_until(lambda: store.count == 1)
        await trio.testing.wait_all_tasks_blocked(0.05)
        answered = []
        for count in (2, 1):
            store.answer()  # of the first, upon which the second is taken and answered, too
            answered += [json.loads((await ann.read())[1])["id"] for _ in range(count)]
            await wait_until(lambda count=count: store.count == count - 1)  # type: ignore[misc]
        assert answered == ["1", "2", "3"]


async def test_who_is_paused_between_two_turns_while_bytes_wait_for_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        server_in(tmp_path, in_flight=1, outbox_bytes=64 << 20) as server,
        client(server) as one,
        client(server) as two,
        client(server) as bob,
        trio.open_nursery() as nursery,
    ):
        await one.connect("one")
        await two.connect("two")
        await bob.connect("bob")
        [session] = server.broker.presence.sessions("bob")
        assert isinstance(session, ClientSession)
        for _ in range(40):
            await server.broker.messages.send(Device(uid="ann", is_server=True), Draft("bob", 1, bytes(200_000)))
        assert session.outbox.pending
        store = HeldStore(server, monkeypatch)
        look_between_turns(monkeypatch, nursery, session, lambda: None)
        for device in (one, two):
            os.write(device.stream.socket.fileno(), b"\x70")
        os.write(bob.stream.socket.fileno(), bob.message("one"))
        while not select.select([], [session.outbox.readable], [], 0)[1]:
            bob.connection.receive_data(os.read(bob.stream.socket.fileno(), 1 << 20))
        received = [await bob.receive(ack=False) for _ in range(40)]
        assert [recv.message_seq for recv in received] == list(range(1, 41))
        await wait_until(lambda: store.count == 1)
        store.answer()
        await bob.wait_for(wire.SendAckReceived)


@KINDS
async def test_much_may_come_behind_a_connect_before_its_answer(tmp_path: Path, kind: str) -> None:
    """As soon as the CONNECT is complete, `maxLoginBytes` bounds nothing any more."""
    pings = 150_000
    async with server_in(tmp_path, outbox_bytes=64 << 20) as server, client(server, kind) as ann:
        stream = ann.stream._stream if kind == "ws" else ann.stream
        parts = [greeting(ann, "ann"), *[b"\x70" * 1000] * (pings // 1000)]
        data = b"".join([frame(BINARY, part) for part in parts] if kind == "ws" else parts)
        sent = os.write(stream.socket.fileno(), data)  # no checkpoint: all is there when the server looks
        await stream.send_all(data[sent:])
        assert (await ann.wait_for(wire.ConnAckReceived)).connack.reason_code == 1
        await wait_until(lambda: server.broker.metrics.values()["gateway_pings_total"] == pings)
