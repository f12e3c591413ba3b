"""What the vectors do not show: batches, bounds, streams, the order of answers."""

import json
from typing import Any

import pytest

import triolet_protocol as wire
from triolet_core.model import Receipt
from triolet_protocol import JsonConnection, Limits, RemoteProtocolError, State

LOGIN = b'{"id":"login","method":"connect","params":{"uid":"u1"}}'
LIMITS = Limits(max_frame_size=4096, max_login_bytes=1024, max_json_depth=8, max_batch=4)


def ping(request: str) -> bytes:
    return json.dumps({"method": "ping", "id": request}).encode()


def ready(*, is_stream: bool = False) -> JsonConnection:
    connection = JsonConnection(LIMITS, lambda: "made up", is_stream=is_stream)
    connection.receive_data(LOGIN)
    connection.events()
    connection.accept(b"", b"", time_diff_ms=0, node_id=1)
    return connection


def answers(connection: JsonConnection, *texts: bytes) -> list[Any]:
    """Give a connection texts and answer pings; returns what it writes."""
    for text in texts:
        connection.receive_data(text)
    written = []
    while events := connection.events():
        for event in events:
            if isinstance(event, wire.AnswerReady):
                written.append(event.answer)
            elif isinstance(event, wire.PingReceived):
                written.append(connection.send(wire.Pong()))
    return [json.loads(text) for text in written if text]


# --- batches (JSON-RPC 2.0, section 6)


def test_a_batch_is_answered_by_one_array_when_the_last_answer_is_there() -> None:
    connection = ready()
    send = b'{"method":"send","id":"s","params":{"channelId":"u2","channelType":1,"payload":""}}'
    connection.receive_data(b"[%b,%b]" % (send, ping("p")))
    sent, _ = connection.events()
    assert isinstance(sent, wire.SendReceived)
    assert connection.send(wire.Pong()) == b""
    array = json.loads(b"".join(connection.encode_sendacks([(sent.send.client_seq, 0)], [Receipt(1, 77, 1)])))
    assert [each["id"] for each in array] == ["p", "s"]


def test_wrong_members_of_a_batch_are_answered_beside_the_good_ones() -> None:
    [array] = answers(ready(), b'[1,{"method":"foo","id":"f"},%b]' % ping("p"))
    assert [(each.get("id"), each.get("error", {}).get("code")) for each in array] == [
        (None, -32600),
        ("f", -32601),
        ("p", None),
    ]


def test_a_batch_of_notifications_is_not_answered() -> None:
    recvack = b'{"method":"recvack","params":{"messageId":"1"}}'
    assert answers(ready(), b"[%b,%b]" % (recvack, recvack)) == []
    [array] = answers(ready(), b"[%b,%b]" % (ping("p"), recvack))
    assert [each["id"] for each in array] == ["p"]


@pytest.mark.parametrize("text", [b"[]", b"[1,2,3,4,5]"])
def test_a_batch_that_is_empty_or_too_long_is_one_invalid_request(text: bytes) -> None:
    connection = ready()
    [error] = answers(connection, text)
    assert error["error"]["code"] == -32600
    assert answers(connection, ping("p"))[0]["id"] == "p"


def test_what_follows_connect_in_its_message_is_handled_after_the_login() -> None:
    connection = JsonConnection(LIMITS, str)
    connection.receive_data(LOGIN + ping("p"))
    [connect] = connection.events()
    assert isinstance(connect, wire.ConnectReceived)
    assert connection.events() == []
    connection.accept(b"", b"", time_diff_ms=0, node_id=1)
    assert connection.events() == [wire.PingReceived()]


# --- bounds


def deep(levels: int) -> bytes:
    return b'{"method":"ping","id":"p","params":' + b'{"a":' * levels + b"1" + b"}" * levels + b"}"


def test_depth_is_limited_before_anything_is_parsed() -> None:
    connection = ready()
    assert "result" in answers(connection, deep(7))[0]
    [error] = answers(connection, deep(8))
    assert "deeper than 8" in error["error"]["message"]
    assert answers(connection, b"[" * 4000)[0]["error"]["code"] == -32700
    assert answers(connection, ping("p"))[0]["id"] == "p"


def test_length_is_limited_and_the_connection_goes_on() -> None:
    connection = ready()
    [error] = answers(connection, b'{"method":"ping","id":"%b"}' % (b"x" * 5000))
    assert "4096" in error["error"]["message"]
    assert answers(connection, ping("p"))[0]["id"] == "p"


@pytest.mark.parametrize("is_stream", [False, True])
def test_what_comes_before_connect_is_limited(is_stream: bool) -> None:
    connection = JsonConnection(LIMITS, str, is_stream=is_stream)
    connection.receive_data(b'{"method":"connect","id":"c","params":{"uid":"u","token":"%b"}}' % (b"x" * 2000))
    with pytest.raises(RemoteProtocolError):
        connection.events()
    assert connection.state is State.CLOSED


def test_many_requests_in_one_message_come_a_part_at_a_time() -> None:
    connection = ready()
    connection.receive_data(b"{}" * 2000)
    sizes = []
    while events := connection.events():
        sizes.append(len(events))
    assert sum(sizes) == 2000
    assert max(sizes) <= 256


def test_a_message_that_no_receiver_could_be_sent_is_refused() -> None:
    connection = ready()
    payload = b"eHh4" * 900
    connection.receive_data(
        b'{"method":"send","id":"s","params":{"channelId":"c","channelType":2,"payload":"%b"}}' % payload
    )
    [event] = connection.events()
    assert isinstance(event, wire.SendReceived)
    assert (event.refusal, event.send.payload) == (9, b"")


@pytest.mark.parametrize(
    "text",
    [
        b'{"method":"send","id":"s","params":{"expire":-1}}',
        b'{"method":"send","id":"s","params":{"expire":1e9}}',
        b'{"method":"send","id":"s","params":{"channelType":true}}',
        b'{"method":"send","id":"s","params":{"payload":{"n":1e999}}}',
        b'{"method":"send","id":"s","params":{"header":{"redDot":1}}}',
        b'{"method":"send","id":"s","params":{"header":[]}}',
        b'{"method":"recvack","id":"s","params":{"messageSeq":"1"}}',
        b'{"method":"subscribe","id":"s","params":{"channelType":263}}',
    ],
)
def test_wrong_params_are_answered_with_their_id(text: bytes) -> None:
    [error] = answers(ready(), text)
    assert (error["id"], error["error"]["code"]) == ("s", -32602)


@pytest.mark.parametrize(
    "text", [b'{"id":"x","n":NaN}', b'{"id":"x","s":"\xff"}', b'{"id":"x","n":%b}' % (b"9" * 4000), b"{]"]
)
def test_what_is_no_json_is_answered_and_dropped(text: bytes) -> None:
    connection = ready()
    [error] = answers(connection, text)
    assert error["error"]["code"] in (-32700, -32600)
    assert answers(connection, ping("p"))[0]["id"] == "p"


# --- streams


def test_on_a_stream_the_rest_of_a_text_may_follow() -> None:
    connection = ready(is_stream=True)
    assert answers(connection, b'{"method":"pi') == []
    assert answers(connection, b'ng","id":"a') == []
    assert [each["id"] for each in answers(connection, b'"} ' + ping("b") + b"\n{")] == ["a", "b"]


@pytest.mark.parametrize("text", [b"hello", b'{"method":ping}', b"{}}", b"[" * 9])
def test_on_a_stream_what_is_no_json_ends_the_connection_with_an_answer(text: bytes) -> None:
    connection = ready(is_stream=True)
    connection.receive_data(text)
    with pytest.raises(RemoteProtocolError) as caught:
        while connection.events():
            pass
    assert json.loads(caught.value.answer)["error"]["code"] == -32700
    assert connection.state is State.CLOSED


def test_answers_of_a_server_that_nobody_asked_for_are_our_mistake() -> None:
    connection = ready()
    for frame in (wire.Pong(), wire.SubAck("1", "c", 7, 0, 1), wire.RecvAck(1, 1)):
        with pytest.raises(wire.LocalProtocolError):
            connection.send(frame)
    with pytest.raises(wire.LocalProtocolError):
        connection.reject(2)


def test_an_error_that_ends_the_connection_comes_once() -> None:
    """Also when events came before it: they come first, the error with the next call, and then nothing."""
    connection = ready(is_stream=True)
    connection.receive_data(ping("p1") + b"no JSON")
    assert len(connection.events()) == 1
    with pytest.raises(RemoteProtocolError):
        connection.events()
    assert connection.events() == []
