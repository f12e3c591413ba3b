"""JSON-RPC clients over real sockets, among themselves and with binary ones."""

import json
from pathlib import Path

import pytest

import triolet_protocol as wire
from tests.integration.test_gateway import server_in
from tests.jsonclient import json_client
from tests.wkclient import client
from triolet_core import ChannelKey, Event
from triolet_core.model import NO_PERSIST, RED_DOT

KINDS = pytest.mark.parametrize("kind", ["ws", "tcp"])


@KINDS
async def test_json_and_binary_clients_talk_on_one_port(tmp_path: Path, kind: str) -> None:
    async with server_in(tmp_path) as server, json_client(server, kind) as ann, client(server, kind) as bob:
        answer = await ann.connect("ann")
        assert answer["result"].items() >= {"serverVersion": 5, "reasonCode": 1, "nodeId": 1001}.items()
        assert await bob.connect("bob") == 1
        result = await ann.send("bob", b"\x00\xff", clientMsgNo="n1", header={"redDot": True})
        assert (result["messageSeq"], result["reasonCode"], result["header"]) == (1, 1, {"redDot": True})
        recv = await bob.receive()
        assert (recv.payload, recv.client_msg_no, recv.from_uid, recv.flags) == (b"\x00\xff", "n1", "ann", RED_DOT)
        assert str(recv.message_id) == result["messageId"]
        await bob.send("ann", b"back", number="n2")
        back = await ann.receive()
        assert (back["payload"], back["channelId"], back["fromUid"], back["messageSeq"]) == (b"back", "bob", "bob", 2)
        assert (await ann.call("ping"))["result"] == {}


@KINDS
async def test_a_refused_login_is_an_error_and_the_end(tmp_path: Path, kind: str) -> None:
    """wire-protocol.md, rule 8: a result, whatever it says, is success to these clients."""
    async with server_in(tmp_path, auth=True) as server, json_client(server, kind) as ann:
        answer = await ann.connect("ann", token="wrong")
        assert answer["error"] == {"code": 2, "message": "ReasonAuthFail"}
        assert "result" not in answer
        await ann.wait_closed()


@KINDS
async def test_a_kick_is_told_before_the_end_across_protocols(tmp_path: Path, kind: str) -> None:
    async with server_in(tmp_path, auth=True) as server:
        await server.broker.users.set_token("ann", 0, 1, "t")
        async with json_client(server, kind) as old, client(server) as new:
            await old.connect("ann", token="t")
            await new.connect("ann", "t", device_id="d2")
            goodbye = await old.wait_for(method="disconnect")
            assert goodbye["params"] == {"reasonCode": 12, "reason": "login in other device"}
            assert "id" not in goodbye
            await old.wait_closed()


async def test_bad_messages_are_answered_and_the_connection_goes_on(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server, json_client(server) as ann:
        await ann.connect("ann")
        for text, code in (
            ('{"method":', -32700),
            ("{]", -32700),
            ("{}", -32600),
            ('{"method":"nothing","id":"x"}', -32601),
            ('{"method":"send","id":"x"}', -32602),
            ("[" * 60_000, -32700),
        ):
            await ann.send_text(text)
            assert (await ann.take())["error"]["code"] == code
            assert (await ann.call("ping"))["result"] == {}
        assert server.broker.metrics.values()["gateway_bad_requests_total"] == 6


async def test_a_batch_has_one_answer(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server, json_client(server) as ann:
        await ann.connect("ann")
        sends = [
            {"id": f"s{n}", "method": "send", "params": {"channelId": "bob", "channelType": 1, "payload": {"n": n}}}
            for n in range(5)
        ]
        await ann.send_text(json.dumps([*sends, {"id": "p", "method": "ping"}, {"id": "x", "method": "y"}]))
        answers = {each["id"]: each for each in await ann.take()}
        assert [answers[f"s{n}"]["result"]["messageSeq"] for n in range(5)] == [1, 2, 3, 4, 5]
        assert answers["p"]["result"] == {}
        assert "error" in answers["x"]


async def test_a_send_to_where_one_may_not_is_a_result_with_its_reason(tmp_path: Path) -> None:
    """wire-protocol.md, section 7.4: applications test the result."""
    async with server_in(tmp_path) as server, json_client(server) as ann:
        await ann.connect("ann")
        assert (await ann.send("g", channel_type=2))["reasonCode"] == 3
        assert (await ann.send("bob", channel_type=258))["reasonCode"] == 23


async def test_a_subscriber_gets_what_is_sent_until_it_leaves(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server, json_client(server) as ann, client(server) as bob:
        await ann.connect("ann")
        await bob.connect("bob")
        answer = await ann.call("subscribe", subNo="1", channelId="d?x=1", channelType=7, param={"a": 1})
        assert answer["result"] == {"subNo": "1", "channelId": "d", "channelType": 7, "action": 0, "reasonCode": 1}
        await bob.send_raw(bob.connection.send(wire.Sub(0, "2", "d", 7, 0, "")))
        await bob.wait_for(wire.SubAckReceived)
        await bob.send("d", b"x", channel_type=7)
        assert (await ann.receive())["payload"] == b"x"
        assert (await ann.call("subscribe", channelId="g", channelType=2))["result"]["reasonCode"] == 23
        assert (await ann.call("unsubscribe", channelId="d", channelType=7))["result"]["reasonCode"] == 1
        assert server.broker.channels.has_temp_members(ChannelKey("d", 7))


async def test_an_event_is_a_notification(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server, json_client(server) as ann:
        await ann.connect("ann", version=4)
        [session] = server.broker.presence.sessions("ann")
        assert session.push_event(Event(id="e", type="stream.delta", timestamp=9, data=b'{"a":1}'))
        event = await ann.wait_for(method="event")
        assert event["params"] == {"id": "e", "type": "stream.delta", "timestamp": 9, "data": '{"a":1}'}


@KINDS
async def test_a_client_that_says_good_bye_is_let_go(tmp_path: Path, kind: str) -> None:
    async with server_in(tmp_path) as server, json_client(server, kind) as ann:
        await ann.connect("ann")
        assert (await ann.call("disconnect", reasonCode=1))["result"] == {}
        await ann.wait_closed()
        assert server.broker.presence.count == 0


async def test_deliveries_are_repeated_until_acknowledged(tmp_path: Path) -> None:
    async with (
        server_in(tmp_path, retry_interval=0.2, retry_scan_interval=0.05) as server,
        json_client(server) as ann,
        client(server) as bob,
    ):
        await ann.connect("ann")
        await bob.connect("bob")
        await bob.send("ann", b"once")
        first = await ann.wait_for(method="recv")
        assert (await ann.wait_for(method="recv")) == first
        await ann.send_text(json.dumps({"method": "recvack", "params": {"messageId": first["params"]["messageId"]}}))
        await ann.call("ping")
        assert server.broker.metrics.values()["gateway_unacked_sessions"] == 0
        await bob.send("ann", b"never repeated", flags=NO_PERSIST)
        assert (await ann.receive())["header"] == {"noPersist": True}


@KINDS
async def test_json_rpc_can_be_switched_off(tmp_path: Path, kind: str) -> None:
    async with server_in(tmp_path, disable_jsonrpc=True) as server, json_client(server, kind) as ann:
        await ann.send_text('{"method":"ping","id":"p"}')
        assert "disableJSONRPC" in (await ann.take())["error"]["message"]
        await ann.wait_closed()


@KINDS
@pytest.mark.parametrize("text", ["hello", '\ufeff{"method":"ping","id":"a"}', '{"method":"ping","id":"a"}', "{"])
async def test_what_is_no_connect_ends_a_new_connection(tmp_path: Path, kind: str, text: str) -> None:
    async with server_in(tmp_path, login_timeout=0.5) as server, json_client(server, kind) as guest:
        await guest.send_text(text)
        await guest.wait_closed()
        assert not server.broker.presence.count


async def test_white_space_before_connect_is_nothing(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server, json_client(server) as ann:
        await ann.send_text(" \n")
        assert (await ann.connect("ann"))["result"]["reasonCode"] == 1
