"""Texts that WuKongIM 2.2.5 was asked, and those it writes. Source: conformance/vectors/jsonrpc.json.

`use` in the vectors is what a server should do where the reference is defective; where that, or the protocol
description, differs from what the reference reads, the difference is listed here with its reason.
"""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

import triolet_protocol as wire
from triolet_core.model import ChannelKey, Message, Receipt
from triolet_protocol import JsonConnection, Limits, RemoteProtocolError, State, begins_json

VECTORS = json.loads((Path(__file__).parents[2] / "conformance" / "vectors" / "jsonrpc.json").read_text())
FLAG_BITS = {"noPersist": 1, "redDot": 2, "syncOnce": 4, "dup": 8}
BEFORE_LOGIN = ("connect-", "first-")
"""Names of texts that were the first of their connection."""

BETTER = {
    "send-payload-object": {"type": "SEND", "payload": b'{"type":1}'.hex()},  # the documents ask for an object
    "array-batch": {"type": "PING"},  # JSON-RPC 2.0, section 6
    "recvack-with-id": {"type": "RECVACK", "messageId": 5, "messageSeq": 1},
    "recvack-numeric-message-id": {"type": "RECVACK", "messageId": 5, "messageSeq": 1},  # wire-protocol.md, 7.4
    "disconnect-notification": {"type": "DISCONNECT", "reasonCode": 1, "reason": ""},
    "subscribe": {"type": "SUB", "subNo": "1", "channelId": "c", "channelType": 7, "action": 0},
    "unsubscribe": {"type": "SUB", "subNo": "1", "channelId": "c", "channelType": 7, "action": 1},
}
"""What is understood here and refused by the reference."""

EVENTS: dict[type, tuple[str, str]] = {
    wire.ConnectReceived: ("CONNECT", "connect"),
    wire.SendReceived: ("SEND", "send"),
    wire.RecvAckReceived: ("RECVACK", "recvack"),
    wire.DisconnectReceived: ("DISCONNECT", "disconnect"),
    wire.SubReceived: ("SUB", "sub"),
}


def new(*, is_stream: bool = False) -> JsonConnection:
    return JsonConnection(Limits(), lambda: "GENERATED", is_stream=is_stream)


def ready(*, is_stream: bool = False) -> JsonConnection:
    connection = new(is_stream=is_stream)
    connection.receive_data(b'{"id":"login","method":"connect","params":{"uid":"u1"}}')
    connection.events()
    connection.accept(b"", b"", time_diff_ms=0, node_id=1001)
    return connection


def drive(connection: JsonConnection) -> tuple[list[wire.Event], list[dict[str, Any]], bool]:
    """Take every event and answer it as a session does; returns (events, answers, whether the connection ended)."""
    events: list[wire.Event] = []
    written: list[bytes] = []
    try:
        while more := connection.events():
            events += more
            written += [text for event in more if (text := answer(connection, event))]
    except RemoteProtocolError as exc:
        written.append(exc.answer)
    return events, [json.loads(text) for text in written if text], connection.state is State.CLOSED


def answer(connection: JsonConnection, event: wire.Event) -> bytes:
    match event:
        case wire.ConnectReceived():
            uid = event.connect.uid
            if not uid or "@" in uid:
                return connection.reject(2)
            return connection.accept(b"", b"", time_diff_ms=7, node_id=1001)
        case wire.PingReceived():
            return connection.send(wire.Pong())
        case wire.SendReceived():
            send = event.send
            reason = event.refusal or 1
            receipt = Receipt(reason, 2**61, 1 if reason == 1 else 0)
            return b"".join(connection.encode_sendacks([(send.client_seq, send.flags)], [receipt]))
        case wire.SubReceived():
            sub = event.sub
            return connection.send(wire.SubAck(sub.sub_no, sub.channel_id, sub.channel_type, sub.action, 1))
        case wire.AnswerReady():
            return event.answer
        case _:
            return b""


def fields_of(event: wire.Event) -> dict[str, Any]:
    """Show an event as the vectors show frames."""
    if isinstance(event, wire.PingReceived):
        return {"type": "PING"}
    kind, attribute = EVENTS[type(event)]
    frame = getattr(event, attribute)
    names = [field.name for field in dataclasses.fields(frame)]
    shown = {re.sub("_(.)", lambda m: m[1].upper(), name): getattr(frame, name) for name in names}
    if "payload" in shown:
        shown["payload"] = shown["payload"].hex()
    return {"type": kind, **shown}


def expected_frames(vector: dict[str, Any]) -> list[dict[str, Any]]:
    if vector["name"] in BETTER:
        return [BETTER[vector["name"]]]
    frames = [dict(each["frame"]) for each in vector.get("messages", ()) if "frame" in each]
    if vector["name"] == "good-bad-good":
        frames.append({"type": "PING"})
    for frame in frames:
        if "flags" in frame:
            frame["flags"] = sum(FLAG_BITS.get(name, 0) for name in frame["flags"])
        frame.pop("clientSeq", None)  # given by the server: the id is what an answer goes by
    return frames


@pytest.mark.parametrize("vector", VECTORS["decode"], ids=lambda vector: vector["name"])
def test_inbound_texts_become_the_frames_of_the_reference(vector: dict[str, Any]) -> None:
    connection = new() if vector["name"].startswith(BEFORE_LOGIN) else ready()
    connection.receive_data(vector["text"].encode())
    events, _, _ = drive(connection)
    shown = [fields_of(event) for event in events if not isinstance(event, wire.AnswerReady)]
    expected = expected_frames(vector)
    if vector["name"] == "first-message-is-ping":
        expected = []
    assert [{name: frame[name] for name in wanted} for frame, wanted in zip(shown, expected, strict=True)] == expected


def expected_answers(vector: dict[str, Any]) -> list[dict[str, Any]] | None:
    """What is answered: `use` in words, or the answers of the reference. Numbers and texts of errors are ours."""
    name = vector["name"]
    special: dict[str, list[dict[str, Any]]] = {
        "connect-empty-uid": [{"id": "c1", "error": {"code": 2, "message": "ReasonAuthFail"}}],
        "connect-null-params": [{"id": "c1", "error": {"code": 2, "message": "ReasonAuthFail"}}],
        "connect-uid-with-at": [{"id": "c1", "error": {"code": 2, "message": "ReasonAuthFail"}}],
        "first-message-is-ping": [{"id": "p1", "error": {}}],
        "send-payload-object": [{"id": "s1", "result": {"reasonCode": 1}}],
        "send-channel-type-258": [{"id": "s1", "result": {"reasonCode": 23}}],
        "recvack-with-id": [{"id": "r1", "result": {}}],
        "recvack-numeric-message-id": [],
        "disconnect-request": [{"id": "d1", "result": {}}],
        "disconnect-empty-params": [{"id": "d1", "result": {}}],
        "disconnect-notification": [],
        "subscribe": [{"id": "u1", "result": {"reasonCode": 1}}],
        "unsubscribe": [{"id": "u1", "result": {"reasonCode": 1}}],
        "byte-order-mark": [{"error": {"code": -32700}}],
        "plain-text": [{"error": {"code": -32700}}],
        "whitespace-only": [],
    }
    if name in special:
        return special[name]
    answers = []
    for message in vector["messages"]:
        if "error" in message:
            has_id = bool(message["errorId"])
            if has_id or not name.startswith(BEFORE_LOGIN):
                answers.append({**({"id": message["errorId"]} if has_id else {}), "error": {}})
        elif message["method"] != "recvack":
            answers.append({**({"id": message["id"]} if message.get("id") else {}), "result": {}})
    return answers


@pytest.mark.parametrize("vector", VECTORS["decode"], ids=lambda vector: vector["name"])
def test_inbound_texts_are_answered_as_they_should_be(vector: dict[str, Any]) -> None:
    name = vector["name"]
    connection = new() if name.startswith(BEFORE_LOGIN) else ready()
    connection.receive_data(vector["text"].encode())
    _, answers, is_over = drive(connection)
    if name == "array-batch":
        assert answers == [[{"jsonrpc": "2.0", "id": "a", "result": {}}]]
    elif name == "good-bad-good":
        assert [(each["id"], "error" in each) for each in answers] == [("a", False), ("b", True), ("c", False)]
    else:
        check(answers, expected_answers(vector) or [])
    assert is_over == must_end(vector)
    if not is_over:
        connection.receive_data(b'{"method":"ping","id":"after"}')
        assert drive(connection)[1] == [{"jsonrpc": "2.0", "id": "after", "result": {}}]


def must_end(vector: dict[str, Any]) -> bool:
    if vector["name"] == "plain-text":
        return True
    return vector["name"].startswith(BEFORE_LOGIN) and vector["server225"]["answers"] == []


def check(answers: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len(answers) == len(expected)
    for answered, wanted in zip(answers, expected, strict=True):
        assert answered["jsonrpc"] == "2.0"
        assert answered.get("id") == wanted.get("id")
        for member in ("result", "error"):
            assert (member in answered) == (member in wanted)
            assert answered.get(member, {}).items() >= wanted.get(member, {}).items()


def test_texts_are_told_apart_as_the_reference_does() -> None:
    """An array is JSON here and not there: it is a batch."""
    for vector in VECTORS["decode"]:
        expected = {"array-batch": True, "whitespace-only": None}.get(vector["name"], vector["detectedAsJson"])
        assert begins_json(vector["text"].encode()) is expected, vector["name"]


# --- outbound


def message_of(frame: dict[str, Any]) -> Message:
    return Message(
        frame["messageId"],
        frame["messageSeq"],
        ChannelKey(frame["channelId"], frame["channelType"]),
        frame["fromUid"],
        frame.get("clientMsgNo", ""),
        frame["timestamp"],
        flags_of(frame),
        frame.get("setting", 0),
        frame.get("expire", 0),
        frame.get("topic", ""),
        bytes.fromhex(frame["payload"]),
    )


def flags_of(frame: dict[str, Any]) -> int:
    return sum(FLAG_BITS[name] for name in frame.get("flags", ()))


def written(vector: dict[str, Any]) -> bytes:
    frame = vector.get("frame", {})
    request = json.dumps(vector.get("requestId")).encode()
    match frame.get("type"):
        case "CONNACK":
            connection = new()
            connection.receive_data(b'{"method":"connect","params":{"uid":"u"},"id":%b}' % request)
            connection.events()
            if frame["reasonCode"] != 1:
                return connection.reject(frame["reasonCode"])
            return connection.accept(b"", b"", time_diff_ms=frame["timeDiff"], node_id=frame["nodeId"])
        case "SENDACK":
            connection = ready()
            connection.receive_data(b'{"method":"send","params":{},"id":%b}' % request)
            [event] = connection.events()
            assert isinstance(event, wire.SendReceived)
            seq, reason = frame["messageSeq"], frame["reasonCode"]
            receipt = Receipt(reason, frame["messageId"], seq)
            return b"".join(connection.encode_sendacks([(event.send.client_seq, flags_of(frame))], [receipt]))
        case "PONG":
            connection = ready()
            connection.receive_data(b'{"method":"ping","id":%b}' % request)
            connection.events()
            return connection.send(wire.Pong())
        case "RECV" if "streamNo" in frame:
            shared = [frame[name] for name in ("fromUid", "channelId", "channelType")]
            payload = bytes.fromhex(frame["payload"])
            ids = (frame["messageId"], frame["messageSeq"], frame["timestamp"])
            recv = wire.Recv(2, "", *shared, 0, "", *ids, "", payload, 0, frame["streamFlag"], frame["streamNo"], 9)
            return ready().send(recv)
        case "RECV":
            fields = wire.recv_fields(message_of(frame), frame["channelId"], frame["fromUid"], flags_of(frame))
            return b"".join(ready().encode_recvs([fields]))
        case "DISCONNECT":
            return ready().send(wire.Disconnect(frame["reasonCode"], frame["reason"]))
        case "EVENT":
            shown = wire.EventFrame(frame["id"], frame["eventType"], frame["timestamp"], frame["data"].encode())
            return ready().send(shown)
        case _:
            raise AssertionError(frame)


OUTBOUND = [vector for vector in VECTORS["encode"] if "frame" in vector and "text" in vector]


@pytest.mark.parametrize("vector", OUTBOUND, ids=lambda vector: vector["name"])
def test_outbound_texts_say_what_the_reference_says(vector: dict[str, Any]) -> None:
    expected = json.loads(vector["text"])
    if vector["name"] == "pong":
        expected["result"] = {}  # JSON-RPC 2.0 asks for one; the reference leaves it out
    assert json.loads(written(vector)) == expected


def test_errors_have_the_form_of_the_reference() -> None:
    """The vectors error-with-id and error-without-id; codes are those of JSON-RPC 2.0, which no client looks at."""
    connection = ready()
    connection.receive_data(b'{"method":"foo","params":{},"id":"x1"}{"method":"foo"')
    _, answers, is_over = drive(connection)
    assert [sorted(each) for each in answers] == [["error", "id", "jsonrpc"], ["error", "jsonrpc"]]
    assert [each["error"]["code"] for each in answers] == [-32601, -32700]
    assert not is_over
