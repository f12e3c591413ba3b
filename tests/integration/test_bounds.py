"""Every bound of a connection, reached over real sockets: what it costs us is what the settings say."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import trio

import triolet_protocol as wire
from tests.integration.test_gateway import server_in
from tests.jsonclient import json_client
from tests.wkclient import client
from triolet_core import (
    ChannelInfo,
    ChannelKey,
    ConnectRequest,
    Device,
    Draft,
    EventDraft,
    ReasonCode,
    Receipt,
    channel_key,
)

KINDS = pytest.mark.parametrize("kind", ["tcp", "ws"])


@KINDS
async def test_what_is_too_fast_is_refused_with_reason_22_and_the_rest_goes_on(tmp_path: Path, kind: str) -> None:
    async with server_in(tmp_path, rate_per_connection=0.001, rate_burst=3000) as server, client(server, kind) as ann:
        await ann.connect("ann")
        await ann.send_raw(b"".join(ann.message("bob") for _ in range(5)))
        acks = [(await ann.wait_for(wire.SendAckReceived)).sendack for _ in range(5)]
        assert [(ack.client_seq, ack.reason_code, ack.message_seq) for ack in acks] == [
            (1, 1, 1),
            (2, 1, 2),
            (3, 1, 3),
            (4, 22, 0),
            (5, 22, 0),
        ]
        await ann.ping()
        assert server.broker.metrics.values()["gateway_rate_limited_total"] == 2


async def test_a_user_is_limited_over_all_devices_and_protocols(tmp_path: Path) -> None:
    async with (
        server_in(tmp_path, rate_per_uid=0.001) as server,
        json_client(server) as phone,
        client(server) as desk,
        client(server) as bob,
    ):
        await phone.connect("ann")
        await desk.connect("ann", flag=2)
        await bob.connect("bob")
        assert (await phone.send("x"))["reasonCode"] == 1
        assert (await desk.send("x")).reason_code == 22
        assert (await bob.send("x")).reason_code == 1


async def test_the_whole_server_makes_senders_wait(tmp_path: Path) -> None:
    async with server_in(tmp_path, max_message_per_second=20) as server, client(server) as ann:
        await ann.connect("ann")
        began = trio.current_time()
        for _ in range(30):
            assert (await ann.send("bob")).reason_code == 1
        assert trio.current_time() - began > 0.3


async def test_subscriptions_are_bounded(tmp_path: Path) -> None:
    async with server_in(tmp_path, subscriptions=2) as server, client(server) as ann:
        await ann.connect("ann")

        async def sub(channel_id: str, action: int = 0) -> int:
            await ann.send_raw(ann.connection.send(wire.Sub(0, "1", channel_id, 7, action, "")))
            return (await ann.wait_for(wire.SubAckReceived)).suback.reason_code

        assert [await sub(each) for each in ("a", "b", "c", "a")] == [1, 1, 22, 1]
        assert await sub("a", 1) == 1
        assert await sub("c") == 1
        assert await sub("x" * 600) == 16


@KINDS
async def test_what_comes_before_connect_is_bounded(tmp_path: Path, kind: str) -> None:
    async with server_in(tmp_path, max_login_bytes=2048) as server, client(server, kind) as nobody:
        await nobody.send_raw(b"\x10\x80\x80\x02" + b"x" * 3000)
        await nobody.wait_closed()
        assert server.broker.metrics.values()["gateway_protocol_errors_total"] == 1


async def test_a_device_id_is_bounded(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server, client(server) as ann, json_client(server) as bob:
        assert await ann.connect("ann", device_id="x" * 513) == 2
        answer = await bob.call("connect", uid="bob", deviceId="x" * 513)
        assert answer["error"]["code"] == 2


@pytest.mark.parametrize(
    "limits",
    [{"in_flight": 8}, {"in_flight_bytes": 8 * 20_000}, {"in_flight_bytes_total": 8 * 20_000}],
    ids=["count", "bytes", "bytes of all"],
)
async def test_reading_pauses_while_too_much_waits_for_the_store(
    tmp_path: Path, limits: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest stays in the client's socket: 200 messages are sent, few are held, all are answered in the end."""
    async with server_in(tmp_path, **limits) as server, client(server) as ann:
        await ann.connect("ann")
        held: list[tuple[object, list[Draft]]] = []

        def hold(sender: Device, drafts: list[Draft], done: object, exclude: object) -> None:
            held.append((done, drafts))

        monkeypatch.setattr(server.broker.messages, "submit_nowait", hold)
        batch = b"".join(ann.message("bob", os.urandom(20_000)) for _ in range(200))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ann.send_raw, batch)
            await trio.testing.wait_all_tasks_blocked(0.1)
            waiting = sum(len(drafts) for _, drafts in held)
            assert 8 <= waiting <= 8 + 65536 // 20_000 + 2
            values = server.broker.metrics.values()
            assert values["gateway_in_flight_bytes"] == waiting * 20_000
            answered = 0
            while answered < 200:
                while held:
                    done, drafts = held.pop(0)
                    done([Receipt(ReasonCode.SUCCESS, 1, 1)] * len(drafts))  # type: ignore[operator]
                    answered += len(drafts)
                await trio.sleep(0.01)
        acks = [(await ann.wait_for(wire.SendAckReceived)).sendack.client_seq for _ in range(200)]
        assert acks == list(range(1, 201))
        assert server.broker.metrics.values()["gateway_in_flight_bytes"] == 0


@KINDS
async def test_clients_that_never_read_cost_no_more_than_their_outboxes(tmp_path: Path, kind: str) -> None:
    """Four clients that never read while 2,800 messages of 32 KB are sent raised WuKongIM 2.2.5 by 400 MiB."""
    limit = 1 << 20
    async with (
        server_in(tmp_path, outbox_bytes=limit) as server,
        client(server, kind) as a,
        client(server, kind) as b,
        client(server, kind) as c,
        client(server, kind) as d,
    ):
        deaf = {"a": a, "b": b, "c": c, "d": d}
        for uid, each in deaf.items():
            await each.connect(uid)
        sender = Device(uid="sender", is_server=True)
        largest = sent = 0
        while server.broker.presence.count and sent < 700:
            for uid in deaf:
                await server.broker.messages.send(sender, Draft(uid, 1, bytes(32_000)))
            sent += 1
            largest = max(largest, int(server.broker.metrics.values()["gateway_outbox_bytes"]))
        assert largest <= 4 * limit
        assert server.broker.presence.count == 0
        assert server.broker.metrics.values()["gateway_slow_consumers_total"] == 4
        assert {server.broker.messages.max_seq(channel_key("sender", uid, 1)) for uid in deaf} == {sent}


@KINDS
async def test_an_error_in_the_code_of_one_connection_ends_that_one_only(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with server_in(tmp_path) as server, client(server, kind) as ann, client(server, kind) as bob:
        authenticate = server.broker.users.authenticate_nowait

        def fail(request: ConnectRequest) -> object:
            if request.uid == "ann":
                raise RuntimeError("a bug")
            return authenticate(request)

        monkeypatch.setattr(server.broker.users, "authenticate_nowait", fail)
        with pytest.raises(EOFError):
            await ann.connect("ann")
        assert await bob.connect("bob") == 1
        await bob.ping()
        assert server.broker.metrics.values()["gateway_crashes_total"] == 1
        logged = capsys.readouterr().out
        assert logged.count("connection crashed") == 1
        assert "connection_id=" in logged.partition("connection crashed")[2].partition("\n")[0]


class Broken:
    """An outbox whose code has a bug."""

    descriptor = -1
    """It is not passed by."""

    def __init__(self, outbox: Any) -> None:
        self._outbox = outbox

    def write(self, frames: Any) -> bool:
        raise RuntimeError("a bug")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._outbox, name)


@KINDS
@pytest.mark.parametrize("occasion", ["delivery", "in a group", "event", "repeat", "acknowledgement", "kick"])
async def test_an_error_while_others_serve_a_connection_ends_that_one_only(
    tmp_path: Path, kind: str, occasion: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever it is that calls: the writer, a lane, the timer of repeats, another login."""
    settings = {"retry_interval": 0.2, "retry_scan_interval": 0.05} if occasion == "repeat" else {}
    group = ChannelKey("g", 2)
    async with (
        server_in(tmp_path, **settings) as server,
        client(server, kind) as bad,
        client(server) as ann,
        client(server) as bob,
    ):
        await server.broker.channels.create(group, ChannelInfo(), ["bad", "ann", "bob"])
        for each, uid in ((bad, "bad"), (ann, "ann"), (bob, "bob")):
            assert await each.connect(uid) == 1
        [session] = server.broker.presence.sessions("bad")
        if occasion == "repeat":
            await ann.send("bad")
            await bad.receive(ack=False)
        session.outbox = Broken(session.outbox)
        match occasion:
            case "delivery":
                await ann.send("bad")
            case "in a group":
                await ann.send("g", channel_type=2)
            case "event":
                draft = {"event_id": "e", "event_type": "x"}
                await server.broker.streams.add(EventDraft(channel=group, client_msg_no="n", **draft))
            case "acknowledgement":
                await bad.send_raw(bad.message("ann"))
            case "kick":
                await server.broker.users.quit_device("bad", -1)
        await bad.wait_closed()
        await ann.send("bob", b"others are served")
        assert [(await bob.receive()).payload for _ in range(1 + (occasion == "in a group"))][
            -1
        ] == b"others are served"
        assert server.broker.metrics.values()["gateway_crashes_total"] == 1
        logged = capsys.readouterr().out
        assert logged.count("connection crashed") == 1
        assert f"connection_id={session.connection_id}" in logged.partition("connection crashed")[2].partition("\n")[0]


async def test_a_slow_reader_that_reads_again_in_time_loses_nothing(tmp_path: Path) -> None:
    async with server_in(tmp_path, outbox_bytes=32 << 20) as server, client(server) as bob:
        bob.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        await bob.connect("bob")
        sender = Device(uid="ann", is_server=True)
        for _ in range(300):
            await server.broker.messages.send(sender, Draft("bob", 1, bytes(32_000)))
        [session] = server.broker.presence.sessions("bob")
        assert session.statistics().pending_bytes > 0
        received = [await bob.receive() for _ in range(300)]
        assert [recv.message_seq for recv in received] == list(range(1, 301))
        assert session.statistics().pending_bytes == 0
