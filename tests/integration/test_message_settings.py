"""Header bits and settings of a message on its way from one client to the others, in every layout."""

import json
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import triolet_protocol as wire
from tests.integration.test_gateway import server_in
from tests.jsonclient import json_client
from tests.wkclient import Client, client
from triolet_core import ChannelInfo, ChannelKey, Device, Draft, Message, Server, channel_key
from triolet_core.model import (
    DUP,
    NO_PERSIST,
    RED_DOT,
    SETTING_NO_ENCRYPT,
    SETTING_RECEIPT,
    SETTING_SIGNAL,
    SETTING_STREAM,
    SETTING_STREAM_V1,
    SETTING_TOPIC,
    SYNC_ONCE,
)

PAIR = channel_key("ann", "bob", 1)


def history(server: Server) -> tuple[Message, ...]:
    return server.broker.messages.sync(PAIR, start=0, end=0, limit=0, newer=False).messages


@pytest.mark.parametrize("setting", [SETTING_RECEIPT, SETTING_SIGNAL, SETTING_NO_ENCRYPT, 0x40, 0x01])
async def test_a_setting_that_is_the_clients_business_is_passed_on_and_kept(tmp_path: Path, setting: int) -> None:
    """wire-protocol.md, 5.4 and 4.4: also NoEncrypt, whose message is encrypted all the same."""
    async with server_in(tmp_path) as server, client(server) as ann, client(server) as bob:
        await ann.connect("ann")
        await bob.connect("bob")
        await ann.send("bob", b"x", setting=setting)
        recv = await bob.receive()
        assert (recv.setting, recv.payload) == (setting, b"x")
        assert [message.setting for message in history(server)] == [setting]


async def test_a_receipt_setting_crosses_protocols(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server, json_client(server) as ann, client(server) as bob:
        await ann.connect("ann")
        await bob.connect("bob")
        await ann.send("bob", setting={"receipt": True}, header={"redDot": True})
        recv = await bob.receive()
        assert (recv.setting, recv.flags) == (SETTING_RECEIPT, RED_DOT)
        await bob.send("ann", setting=SETTING_RECEIPT | SETTING_SIGNAL, flags=0)
        back = await ann.receive()
        assert back["setting"] == {"receipt": True, "signal": True}
        assert "header" not in back


@pytest.mark.parametrize("version", [1, 3, 5])
async def test_a_topic_is_carried_and_stored(tmp_path: Path, version: int) -> None:
    """Conformance 56."""
    async with server_in(tmp_path) as server, client(server) as ann, client(server) as bob, json_client(server) as web:
        await ann.connect("ann", version=version)
        await bob.connect("bob", version=version)
        await web.connect("bob", deviceFlag=1)
        await ann.send("bob", setting=SETTING_TOPIC, topic="news")
        recv = await bob.receive()
        assert (recv.topic, recv.setting) == ("news", SETTING_TOPIC)
        assert (await web.receive())["topic"] == "news"
        assert [message.topic for message in history(server)] == ["news"]


async def test_an_expired_message_is_not_handed_out(tmp_path: Path) -> None:
    """semantics.md, 2.2: carried and stored; once it is over, nobody gets it."""
    now = 1_700_000_000.0
    async with server_in(tmp_path) as server, client(server) as ann, client(server) as bob:
        server.broker.messages._clock_s = lambda: now
        await ann.connect("ann")
        await bob.connect("bob", version=3)
        await ann.send("bob", b"soon over", expire=60)
        recv = await bob.receive()
        assert recv.expire == 60
        now = float(recv.timestamp + 59)
        assert [message.expire for message in history(server)] == [60]
        now = float(recv.timestamp + 61)
        assert history(server) == ()


async def test_a_command_flag_of_a_client_makes_an_ordinary_message(tmp_path: Path) -> None:
    """semantics.md, 1.3: accepted, stored in the channel itself, and passed on."""
    async with server_in(tmp_path) as server, client(server) as ann, client(server) as bob:
        await ann.connect("ann")
        await bob.connect("bob")
        ack = await ann.send("bob", flags=SYNC_ONCE | DUP)
        assert (ack.reason_code, ack.message_seq, ack.flags) == (1, 1, SYNC_ONCE | DUP)
        assert (await bob.receive()).flags == SYNC_ONCE
        assert len(history(server)) == 1
        assert server.broker.commands.waiting("bob") == []


async def test_a_command_of_the_server_is_named_after_its_channel_and_confirmed_by_any_device(tmp_path: Path) -> None:
    """semantics.md, 2.8: the plain id, sync_once; its own seq; RECVACK takes it out of the queue."""
    async with server_in(tmp_path) as server, client(server) as bob, client(server) as late:
        await server.broker.channels.create(ChannelKey("g", 2), ChannelInfo(), ["bob"])
        await bob.connect("bob")
        draft = Draft("g", 2, b"do", flags=SYNC_ONCE)
        await server.broker.messages.send(Device(uid="ann", is_server=True), draft)
        recv = await bob.receive(ack=False)
        assert (recv.channel_id, recv.flags, recv.message_seq) == ("g", SYNC_ONCE, 1)
        assert [each.message.message_id for each in server.broker.commands.waiting("bob")] == [recv.message_id]
        await bob.send_raw(bob.connection.recv_ack(recv))
        await bob.ping()
        await server.broker.flush()
        assert server.broker.commands.waiting("bob") == []
        await late.connect("bob", flag=1)
        await late.ping()
        assert late.waiting == []


async def test_what_is_not_kept_is_not_repeated_and_its_ack_does_nothing(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    """wire-protocol.md, 6.6: NoPersist is never repeated; a RECVACK with that flag leaves a kept message waiting."""
    settings = {"retry_interval": 5.0, "retry_scan_interval": 1.0}
    async with server_in(tmp_path, **settings) as server, client(server) as ann, client(server) as bob:
        await ann.connect("ann")
        await bob.connect("bob")
        await ann.send("bob", b"once", flags=NO_PERSIST)
        assert (await bob.receive(ack=False)).message_seq == 0
        await ann.send("bob", b"kept")
        recv = await bob.receive(ack=False)
        await bob.send_raw(wire.encode(wire.RecvAck(recv.message_id, recv.message_seq, NO_PERSIST), 5))
        await bob.ping()
        mock_clock.jump(7)
        assert await bob.receive(ack=False) == recv
        wrong_seq = wire.RecvAck(recv.message_id, 77)
        await bob.send_raw(wire.encode(wire.RecvAck(1, 1), 5) + wire.encode(wrong_seq, 5))
        await bob.ping()
        mock_clock.jump(7)
        await trio.testing.wait_all_tasks_blocked()
        await bob.ping()
        assert bob.waiting == []


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5])
async def test_stream_bits_are_shown_to_those_who_can_read_them(tmp_path: Path, version: int) -> None:
    """wire-protocol.md, rule 4: never below version 5."""
    async with server_in(tmp_path) as server, client(server) as ann, client(server) as bob:
        await ann.connect("ann")
        await bob.connect("bob", version=version)
        await ann.send("bob", b"x", number="s", setting=SETTING_STREAM | SETTING_STREAM_V1 | SETTING_RECEIPT)
        recv = await bob.receive()
        shown = SETTING_STREAM | SETTING_STREAM_V1 if version == 5 else 0
        assert (recv.payload, recv.setting) == (b"x", shown | SETTING_RECEIPT)


async def subscribe(user: Client, channel_id: str, kind: int, action: int = 0, param: str = "") -> tuple[str, int]:
    await user.send_raw(user.connection.send(wire.Sub(0, "n", channel_id, kind, action, param)))
    answer = (await user.wait_for(wire.SubAckReceived)).suback
    assert (answer.sub_no, answer.channel_type, answer.action) == ("n", kind, action)
    return answer.channel_id, answer.reason_code


@pytest.mark.parametrize("kind", [6, 7])
async def test_a_subscription_ends_at_once_and_with_its_connection(tmp_path: Path, kind: int) -> None:
    """wire-protocol.md, 3.8; semantics.md, 7.3: parameters in the id or beside it; leaving works at once."""
    async with server_in(tmp_path) as server, client(server) as ann, client(server) as bob:
        await ann.connect("ann")
        await bob.connect("bob")
        assert await subscribe(ann, "d", kind, param='{"a":1}') == ("d", 1)
        assert await subscribe(bob, "d?x=1&y=2", kind) == ("d", 1)
        assert await subscribe(bob, "d?x=2", kind) == ("d", 1), "twice is once"
        assert (await ann.send("d", b"1", channel_type=kind)).reason_code == 1
        assert (await bob.receive()).payload == b"1"
        assert await subscribe(bob, "d", kind, action=1) == ("d", 1)
        await ann.send("d", b"2", channel_type=kind)
        await bob.ping()
        assert bob.waiting == []
        async with client(server) as other:
            await other.connect("bob", flag=1)
            assert (await subscribe(other, "d", kind))[1] == 1
        while server.broker.presence.count > 2:
            await trio.lowlevel.checkpoint()
        await ann.send("d", b"3", channel_type=kind)
        await bob.ping()
        assert bob.waiting == []


@pytest.mark.parametrize(
    ("channel_id", "kind", "reason"), [("g", 2, 23), ("bob", 1, 23), ("", 7, 16), ("?a=1", 7, 16), ("x" * 600, 7, 16)]
)
async def test_what_cannot_be_subscribed_to_is_answered_with_its_reason(
    tmp_path: Path, channel_id: str, kind: int, reason: int
) -> None:
    """Conformance 88."""
    async with server_in(tmp_path) as server, client(server) as ann:
        await ann.connect("ann")
        assert (await subscribe(ann, channel_id, kind))[1] == reason
        await ann.ping()


async def test_one_bad_item_of_a_batch_leaves_the_others_alone(tmp_path: Path) -> None:
    """JSON-RPC 2.0, section 6: one array with an answer per request, none for notifications."""
    async with server_in(tmp_path) as server, json_client(server) as ann:
        await ann.connect("ann")
        items: list[Any] = [
            {"id": "p", "method": "ping"},
            7,
            {"id": "n", "method": "none"},
            {"method": "recvack", "params": {"messageId": "1", "messageSeq": 1}},
            {"id": "s", "method": "send", "params": {"channelId": "bob", "channelType": 1, "payload": "eA=="}},
            {"id": "b", "method": "send", "params": {"channelId": "bob", "channelType": 1, "payload": "!"}},
            {"id": "u", "method": "subscribe", "params": {"channelId": "d", "channelType": 7}},
            {"id": "e", "method": "event", "params": {"id": "1", "type": "stream.delta", "data": {}}},
        ]
        await ann.send_text(json.dumps(items))
        answers = {each.get("id"): each for each in await ann.take()}
        assert answers["p"]["result"] == {}
        assert answers["s"]["result"]["reasonCode"] == answers["u"]["result"]["reasonCode"] == 1
        assert answers["e"]["result"] == {"reason_code": 9}
        codes = {each: answers[each]["error"]["code"] for each in (None, "n", "b")}
        assert codes == {None: -32600, "n": -32601, "b": -32602}
        assert len(answers) == 7
        await ann.send_text("[]")
        assert (await ann.take())["error"]["code"] == -32600
        assert (await ann.call("ping"))["result"] == {}
