"""Real loopback sockets against a server with the gateway only."""

import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

import triolet_gateway
import triolet_protocol as wire
from tests.wkclient import Client, client
from triolet_core import ChannelInfo, ChannelKey, Device, Draft, Event, Server, ServerConfig, open_server
from triolet_core.model import NO_PERSIST, RED_DOT, SYNC_ONCE
from triolet_gateway import GatewayConfig

DEFAULTS: dict[str, Any] = {}
"""Settings of every server that a test does not set itself."""
KINDS = pytest.mark.parametrize("kind", ["tcp", "ws"])


@asynccontextmanager
async def server_in(path: Path, *, auth: bool = False, **gateway: Any) -> AsyncIterator[Server]:
    config = ServerConfig()
    section = GatewayConfig(**{"tcp_addr": "127.0.0.1:0", "ws_addr": "127.0.0.1:0", **DEFAULTS, **gateway})
    config = attrs.evolve(
        config,
        node=attrs.evolve(config.node, data_dir=str(path)),
        auth=attrs.evolve(config.auth, token_auth_on=auth),
        sections={"gateway": section},
    )
    with trio.fail_after(30):
        async with open_server(config, plugins=[triolet_gateway.plugin]) as server:
            yield server


@KINDS
async def test_two_users_talk_and_are_acknowledged_in_order(tmp_path: Path, kind: str) -> None:
    """Conformance 21, 37."""
    async with server_in(tmp_path) as server, client(server, kind) as ann, client(server, kind) as bob:
        assert await ann.connect("ann") == 1
        assert await bob.connect("bob") == 1
        batch = [ann.message("bob", str(n).encode()) for n in range(20)]
        for data in batch:
            await ann.send_raw(data)
        acks = [(await ann.wait_for(wire.SendAckReceived)).sendack for _ in batch]
        assert [ack.client_seq for ack in acks] == list(range(1, 21))
        assert [ack.message_seq for ack in acks] == list(range(1, 21))
        received = [await bob.receive() for _ in batch]
        assert [recv.payload for recv in received] == [str(n).encode() for n in range(20)]
        assert {(recv.from_uid, recv.channel_id) for recv in received} == {("ann", "ann")}
        assert (await bob.send("ann", b"back")).message_seq == 21
        assert (await ann.receive()).payload == b"back"


async def test_the_senders_other_device_gets_a_copy_without_red_dot(tmp_path: Path) -> None:
    """Conformance 38."""
    async with server_in(tmp_path) as server, client(server) as here, client(server) as there:
        await here.connect("ann", flag=0)
        await there.connect("ann", flag=1)
        await here.send("bob", flags=RED_DOT)
        copy = await there.receive()
        assert (copy.channel_id, copy.flags) == ("bob", 0)
        await here.ping()
        assert not [event for event in here.waiting if isinstance(event, wire.RecvReceived)]


async def test_a_burst_in_a_group_reaches_every_member_in_order_whatever_its_transport(tmp_path: Path) -> None:
    """Each receiver with its own keys; only the sender's other device sees it without red dot; acked once for all."""
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(server_in(tmp_path, retry_interval=0.2, retry_scan_interval=0.05))
        await server.broker.channels.create(ChannelKey("g", 2), ChannelInfo(), ["ann", *(f"m{n}" for n in range(6))])
        ann, *members = [
            await stack.enter_async_context(client(server, kind)) for kind in ("tcp", "tcp", "tcp", "ws", "ws", "tcp")
        ]
        assert await ann.connect("ann", version=4) == 1
        other, *members = members
        assert await other.connect("ann", flag=1) == 1
        for number, member in enumerate(members):
            assert await member.connect(f"m{number}", version=5 - number % 2) == 1
        count = 30
        await ann.send_raw(b"".join(ann.message("g", str(n).encode(), channel_type=2) for n in range(count)))
        for member in (other, *members):
            received = [await member.receive(ack=member is not members[0]) for _ in range(count)]
            assert [recv.payload for recv in received] == [str(n).encode() for n in range(count)]
            assert {(recv.from_uid, recv.channel_id) for recv in received} == {("ann", "g")}
            assert {recv.flags & RED_DOT for recv in received} == {0 if member is other else RED_DOT}
        assert {(await members[0].receive()).message_seq for _ in range(count)} == set(range(1, count + 1))
        for member in members[1:]:
            await member.ping()
            assert not member.waiting, "repeated what was acknowledged"


@KINDS
async def test_a_wrong_token_is_answered_at_once(tmp_path: Path, kind: str) -> None:
    """Conformance 1 to 4."""
    async with server_in(tmp_path, auth=True) as server:
        await server.broker.users.set_token("ann", 0, 0, "secret")
        await server.broker.users.set_token("bad", 0, 0, "secret")
        await server.broker.channels.put_info(ChannelKey("bad", 1), ChannelInfo(ban=True))
        for uid, token, flag, reason in (
            ("ann", "wrong", 0, 2),
            ("ann", "", 0, 2),
            ("ann", "secret", 1, 2),
            ("nobody", "x", 0, 2),
            ("bad", "secret", 0, 19),
            ("ann", "secret", 0, 1),
        ):
            async with client(server, kind) as guest:
                assert await guest.connect(uid, token, flag=flag) == reason
                if reason != 1:
                    await guest.wait_closed()


@pytest.mark.parametrize("uid", ["", " ", "a@b", "a#b", "a&b", "____system", "____manager", "____device"])
async def test_uids_that_nobody_may_have_are_refused(tmp_path: Path, uid: str) -> None:
    """Conformance 18; wire-protocol.md, section 8, lines 26 and 27."""
    async with server_in(tmp_path) as server, client(server) as guest:
        assert await guest.connect(uid) == 2
        await guest.wait_closed()


async def test_the_system_device_id_is_refused(tmp_path: Path) -> None:
    """Conformance 18."""
    async with server_in(tmp_path) as server, client(server) as guest:
        assert await guest.connect("ann", device_id="____device") == 2


@KINDS
async def test_a_second_master_kicks_the_first_which_is_told_and_closed(tmp_path: Path, kind: str) -> None:
    """Conformance 8."""
    async with server_in(tmp_path, auth=True) as server:
        await server.broker.users.set_token("ann", 0, 1, "t")
        async with client(server, kind) as old, client(server, kind) as new:
            await old.connect("ann", "t", device_id="d1")
            await new.connect("ann", "t", device_id="d2")
            goodbye = (await old.wait_for(wire.DisconnectReceived)).disconnect
            assert (goodbye.reason_code, goodbye.reason) == (12, "login in other device")
            await old.wait_closed()
            await new.ping()
            assert server.broker.presence.count == 1


async def test_device_quit_clears_the_token_and_disconnects(tmp_path: Path) -> None:
    """Conformance 12."""
    async with server_in(tmp_path, auth=True) as server:
        await server.broker.users.set_token("ann", 0, 0, "t")
        async with client(server) as device, client(server) as again:
            await device.connect("ann", "t")
            await server.broker.users.quit_device("ann", -1)
            assert (await device.wait_for(wire.DisconnectReceived)).disconnect.reason_code == 12
            assert await again.connect("ann", "t") == 2


@pytest.mark.parametrize(
    ("family", "version"), [(wire.Family.WUKONG, n) for n in range(6)] + [(wire.Family.LIMAO, n) for n in (1, 3, 4)]
)
async def test_every_version_of_both_families_is_served(tmp_path: Path, family: wire.Family, version: int) -> None:
    async with server_in(tmp_path) as server, client(server) as old, client(server) as new:
        assert await old.connect("old", family=family, version=version) == 1
        await new.connect("new")
        ack = await old.send("new", b"from old")
        assert (ack.reason_code, ack.message_seq) == (1, 1)
        assert (await new.receive()).payload == b"from old"
        await new.send("old", b"from new")
        assert (await old.receive()).payload == b"from new"


@KINDS
async def test_each_ping_has_a_pong(tmp_path: Path, kind: str) -> None:
    """Conformance 20; three in one segment give three."""
    async with server_in(tmp_path) as server, client(server, kind) as ann:
        await ann.connect("ann")
        await ann.send_raw(ann.connection.ping() * 3)
        for _ in range(3):
            await ann.wait_for(wire.PongReceived)


async def test_what_is_not_to_be_kept_has_seq_0(tmp_path: Path) -> None:
    """Conformance 41."""
    async with server_in(tmp_path) as server, client(server) as ann, client(server) as bob:
        await ann.connect("ann")
        await bob.connect("bob")
        assert (await ann.send("bob", flags=NO_PERSIST)).message_seq == 0
        assert (await bob.receive()).message_seq == 0


async def test_refused_sends_have_their_reason_and_the_connection_goes_on(tmp_path: Path) -> None:
    """Conformance 25, 36."""
    async with server_in(tmp_path) as server, client(server) as ann:
        await ann.connect("ann")
        data = bytearray(ann.message("bob"))
        data[-1] ^= 1  # the message key no longer fits
        await ann.send_raw(bytes(data))
        refused = (await ann.wait_for(wire.SendAckReceived)).sendack
        assert (refused.reason_code, refused.message_seq) == (9, 0)
        assert (await ann.send("nowhere", channel_type=2)).reason_code == 3
        assert (await ann.send("", channel_type=1)).reason_code == 16
        assert (await ann.send("bob")).reason_code == 1


async def test_a_delivery_without_ack_is_repeated_byte_for_byte_and_then_left(tmp_path: Path) -> None:
    """Conformance 43, 44: one delivery and two repeats, then silence; an acknowledged one comes once."""
    settings = {"retry_interval": 0.2, "retry_scan_interval": 0.05, "retry_max_count": 2}
    async with server_in(tmp_path, **settings) as server, client(server) as ann, client(server) as bob:
        await ann.connect("ann")
        await bob.connect("bob")
        await ann.send("bob", b"kept quiet")
        first, second, third = [await bob.receive(ack=False) for _ in range(3)]
        assert first == second == third
        await ann.send("bob", b"acknowledged")
        await bob.receive()
        with trio.move_on_after(0.6):
            assert not await bob.receive(), "repeated too often"


async def test_repeats_may_be_marked(tmp_path: Path) -> None:
    """`messageRetry.dup`: the DUP flag, and nothing else, tells a repeat."""
    settings = {"retry_interval": 0.2, "retry_scan_interval": 0.05, "retry_sets_dup": True}
    async with server_in(tmp_path, **settings) as server, client(server) as ann, client(server) as bob:
        await ann.connect("ann")
        await bob.connect("bob")
        await ann.send("bob", b"kept quiet")
        first, second = [await bob.receive(ack=False) for _ in range(2)]
        assert first.flags & wire.DUP == 0
        assert second.flags == first.flags | wire.DUP
        second.flags = first.flags
        assert second == first


async def test_a_silent_connection_is_closed_and_a_pinging_one_is_not(tmp_path: Path) -> None:
    """Conformance 7."""
    async with server_in(tmp_path, conn_idle_time=1.0) as server, client(server) as silent, client(server) as alive:
        await silent.connect("silent")
        await alive.connect("alive")
        async with trio.open_nursery() as nursery:

            async def ping() -> None:
                while True:
                    await alive.ping()
                    await trio.sleep(0.3)

            nursery.start_soon(ping)
            await silent.wait_closed()
            await alive.ping()
            nursery.cancel_scope.cancel()


async def test_silence_before_connect_is_closed(tmp_path: Path) -> None:
    """Conformance 6."""
    async with server_in(tmp_path, login_timeout=0.5) as server, client(server) as nobody:
        await nobody.wait_closed()


MALFORMED = [
    b"\x00\x00",
    b"\xf0\x00",
    b"\x70",
    b"GET / HTTP/1.1\r\n\r\n",
    b'{"method":"connect"}',
    b"\x10\x80\x80\x80\x05",
    b"\x10\x80\xad\xe2\x04" + b"x" * 1000,  # announces 10 MB
    b"\x10\xff\xff\xff\xff\x7f",
    b"\x10\x00",
    b"\x10\x05aaaaa",
    b"\x30\x00",
]


@pytest.mark.parametrize("data", MALFORMED)
async def test_malformed_input_ends_that_connection_only(tmp_path: Path, data: bytes) -> None:
    async with server_in(tmp_path) as server, client(server) as good, client(server) as bad, client(server) as later:
        await good.connect("good")
        await bad.send_raw(data)
        await bad.wait_closed()
        await later.connect("later")
        await later.send_raw(b"\xf0\x01\x00")
        await later.wait_closed()
        await good.ping()
        assert (await good.send("x")).reason_code == 1


def vectors() -> list[tuple[str, bytes]]:
    path = Path(__file__).parents[1] / "conformance" / "vectors" / "wkproto.json"
    found = []
    for entry in json.loads(path.read_text())["malformed"]:
        parts = entry.get("hexParts") or [{"hex": entry["hex"], "repeat": 1}]
        found.append((entry["name"], b"".join(bytes.fromhex(part["hex"]) * part["repeat"] for part in parts)))
    return found


def resident_kb() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


@pytest.mark.parametrize("is_logged_in", [False, True])
async def test_every_malformed_vector_is_survived_and_memory_returns(tmp_path: Path, is_logged_in: bool) -> None:
    """Each on a connection of its own, before and after CONNECT; a good neighbour notices nothing."""
    async with server_in(tmp_path) as server, client(server) as good:
        await good.connect("good")
        before = resident_kb()
        for _ in range(3):
            for name, data in vectors():
                async with client(server) as bad:
                    if is_logged_in:
                        await bad.connect(name)
                    with contextlib.suppress(trio.BrokenResourceError):
                        await bad.send_raw(data)
                await good.ping()
        with trio.fail_after(5):
            while server.broker.metrics.values()["gateway_connections"] > 1:
                await trio.sleep(0.01)
        assert server.broker.metrics.values()["gateway_crashes_total"] == 0
        assert resident_kb() - before < 16 * 1024


async def test_a_half_closed_connection_ends(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server, client(server) as ann:
        await ann.connect("ann")
        await ann.stream.send_eof()
        await ann.wait_closed()
        with trio.fail_after(5):
            while server.broker.presence.count:
                await trio.sleep(0.01)


async def test_a_client_that_does_not_read_is_dropped_and_others_are_served(tmp_path: Path) -> None:
    """The outbox is bounded: beyond it the slow one is closed, and comes back for the rest by synchronisation."""
    async with server_in(tmp_path, outbox_bytes=65536) as server, client(server) as ann, client(server) as bob:
        await ann.connect("ann")
        bob.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await bob.connect("bob")
        sender = Device(uid="carl", is_server=True)
        for _ in range(400):
            await server.broker.messages.send(sender, Draft("bob", 1, b"x" * 32_000))
            if not server.broker.presence.sessions("bob"):
                break
        assert not server.broker.presence.sessions("bob")
        assert server.broker.metrics.values()["gateway_slow_consumers_total"] == 1
        await ann.ping()


async def test_a_subscriber_of_a_data_channel_gets_what_is_sent_and_nothing_is_stored(tmp_path: Path) -> None:
    """Conformance 87, 88."""
    async with server_in(tmp_path) as server, client(server) as ann, client(server) as bob:
        for user, uid in ((ann, "ann"), (bob, "bob")):
            await user.connect(uid)
            await user.send_raw(user.connection.send(wire.Sub(0, "s1", "d?x=1", 7, 0, "")))
            suback = (await user.wait_for(wire.SubAckReceived)).suback
            assert (suback.reason_code, suback.channel_id) == (1, "d")
        ack = await ann.send("d", b"data", channel_type=7)
        assert (ack.reason_code, ack.message_seq) == (1, 0)
        assert (await bob.receive()).payload == b"data"
        assert server.broker.messages.max_seq(ChannelKey("d", 7)) == 0
        await bob.send_raw(bob.connection.send(wire.Sub(0, "s2", "g", 2, 0, "")))
        assert (await bob.wait_for(wire.SubAckReceived)).suback.reason_code == 23


async def test_a_graceful_stop_under_load_loses_nothing_acknowledged(tmp_path: Path) -> None:
    acknowledged: list[int] = []

    async def send_for_ever(ann: Client) -> None:
        try:
            while True:
                acknowledged.append((await ann.send("bob")).message_seq)
        except (EOFError, trio.BrokenResourceError):
            return

    async with trio.open_nursery() as nursery:
        async with server_in(tmp_path) as server:
            stack = client(server)
            ann = await stack.__aenter__()
            await ann.connect("ann")
            nursery.start_soon(send_for_ever, ann)
            while len(acknowledged) < 50:
                await trio.sleep(0.01)
        await stack.__aexit__(None, None, None)
        nursery.cancel_scope.cancel()
    async with server_in(tmp_path) as server:
        stored = server.broker.messages.by_seqs(ChannelKey("ann@bob", 1), acknowledged)
        stored = stored or server.broker.messages.by_seqs(ChannelKey("bob@ann", 1), acknowledged)
        assert [m.seq for m in stored] == acknowledged


async def test_a_hundred_logins_one_after_the_other_are_all_answered(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server:
        for n in range(100):
            async with client(server) as guest:
                assert await guest.connect(f"u{n}") == 1


@KINDS
async def test_an_event_reaches_a_client_that_knows_events_and_no_other(tmp_path: Path, kind: str) -> None:
    """wire-protocol.md, rule 5: a version below 5 would throw and reconnect."""
    event = Event(id="e-1", type="stream.delta", timestamp=1730000002000, data=b'{"delta":"wor"}')
    async with server_in(tmp_path) as server, client(server, kind) as new, client(server, kind) as old:
        await new.connect("new")
        await old.connect("old", version=4)
        sessions = [*server.broker.presence.sessions("new"), *server.broker.presence.sessions("old")]
        assert [session.push_event(event) for session in sessions] == [True, True]
        frame = (await new.wait_for(wire.EventReceived)).event
        assert (frame.id, frame.type, frame.timestamp, frame.data) == (
            event.id,
            event.type,
            event.timestamp,
            event.data,
        )
        await old.ping()
        assert old.waiting == []


@pytest.mark.parametrize(
    "event",
    [
        Event(id="x" * 40_000, type="t", timestamp=0, data=b""),
        Event(id="\ud800", type="t", timestamp=0, data=b""),
        Event(id="x", type="t", timestamp=1 << 70, data=b""),
        Event(id="x", type="t", timestamp=0, data=b"x" * (1 << 20)),
    ],
)
async def test_an_event_that_no_frame_holds_is_dropped_and_the_connection_goes_on(tmp_path: Path, event: Event) -> None:
    async with server_in(tmp_path) as server, client(server) as ann:
        await ann.connect("ann")
        [session] = server.broker.presence.sessions("ann")
        assert session.push_event(event)
        await ann.ping()
        assert ann.waiting == []


@KINDS
async def test_a_connection_is_counted_in_both_directions(tmp_path: Path, kind: str) -> None:
    async with server_in(tmp_path) as server, client(server, kind) as ann, client(server) as bob:
        await ann.connect("ann", flag=1)
        await bob.connect("bob")
        for _ in range(3):
            await ann.send("bob", b"12345")
        await bob.send("ann", b"123")
        await ann.receive()
        await ann.ping()
        [session] = server.broker.presence.sessions("ann")
        seen = session.statistics()
        assert (seen.in_messages, seen.in_message_bytes, seen.in_packets) == (
            3,
            15,
            6,
        )  # CONNECT, 3 SEND, RECVACK, PING
        assert (seen.out_messages, seen.out_message_bytes, seen.out_packets) == (1, 3, 6)
        assert (seen.device.uid, seen.device.flag, seen.protocol_version) == ("ann", 1, 5)
        stream = ann.stream._stream if kind == "ws" else ann.stream
        assert (seen.host, seen.port) == stream.socket.getsockname()[:2]
        assert 0 < seen.started_at <= seen.last_activity
        assert seen.in_packet_bytes > 3 * 24
        assert seen.out_packet_bytes > 3 * 19
        assert seen.pending_bytes == 0


@pytest.mark.timeout(20)
async def test_a_stop_ends_as_soon_as_everything_is_delivered(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    """It waits for what is submitted, and not for `shutdown.timeout`: the clock stands still here."""
    done: list[Any] = []
    async with server_in(tmp_path) as server:
        drafts = [Draft(channel_id="bob", channel_type=1, payload=b"x") for _ in range(100)]
        await server.broker.messages.submit(Device(uid="ann"), drafts, done.extend)
    assert [receipt.reason for receipt in done] == [1] * 100


@KINDS
async def test_a_client_that_says_goodbye_is_told_apart_from_one_that_is_lost(tmp_path: Path, kind: str) -> None:
    """Source: semantics.md, 4.1 (close, one offline event) and 10.1 (logout)."""
    async with server_in(tmp_path) as server:
        with server.broker.hooks.presence_changed.subscribe() as changes:
            async with client(server, kind) as ann, client(server, kind) as bob:
                await ann.connect("ann")
                await bob.connect("bob")
                await ann.send_raw(wire.encode(wire.Disconnect(0, ""), ann.connection.version, ann.connection.family))
                await ann.wait_closed()
            events = [await changes.receive.receive() for _ in range(4)]
            assert [(each.device.uid, each.logout) for each in events if not each.online] == [
                ("ann", True),
                ("bob", False),
            ]


async def test_a_command_that_a_device_confirms_leaves_the_queue(tmp_path: Path) -> None:
    """semantics.md, section 2.8: RECVACK acknowledges a command, of any device."""
    server_device = Device(uid="x", is_server=True)
    async with server_in(tmp_path) as server, client(server) as ann:
        await ann.connect("ann")
        commands = server.broker.commands
        for number in range(2):
            draft = Draft("ann", 1, str(number).encode(), flags=SYNC_ONCE)
            await server.broker.messages.send(server_device, draft)
        assert [each.message.payload for each in commands.waiting("ann")] == [b"0", b"1"]
        assert (await ann.receive()).payload == b"0"
        await ann.ping()
        await server.broker.flush()
        assert [each.message.payload for each in commands.waiting("ann")] == [b"1"]
