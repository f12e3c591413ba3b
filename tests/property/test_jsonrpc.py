"""JSON-RPC: any bytes, any split, any JSON; messages as the binary protocol would have them."""

import dataclasses
import json
from base64 import b64encode

from hypothesis import given, settings
from hypothesis import strategies as st

import triolet_protocol as wire
from tests.jsonserver import answer
from triolet_protocol import JsonConnection, Limits, RemoteProtocolError, State

LIMITS = Limits(max_frame_size=4096, max_login_bytes=1024, max_json_depth=8, max_batch=10)
LOGIN = b'{"id":"login","method":"connect","params":{"uid":"u1"}}'
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = st.sampled_from(
    "jsonrpc id method params uid token channelId channelType payload header setting messageId expire".split()
)
methods = st.sampled_from(["connect", "send", "ping", "recvack", "disconnect", "subscribe", "unsubscribe", "2.0"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | methods,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names | st.text(max_size=5), inner, max_size=6),
    max_leaves=12,
)
requests = st.fixed_dictionaries({}, optional={"id": values, "method": methods | values, "params": values})
messages = st.one_of(
    st.binary(min_size=1, max_size=60),
    (requests | st.lists(requests, max_size=12) | values).map(lambda value: json.dumps(value).encode()),
    st.text('{}[]",:\\ae1 ', min_size=1, max_size=40).map(str.encode),
)


def new(*, is_ready: bool, is_stream: bool) -> JsonConnection:
    connection = JsonConnection(LIMITS, lambda: "n", is_stream=is_stream)
    if is_ready:
        connection.receive_data(LOGIN)
        connection.events()
        connection.accept(b"", b"", time_diff_ms=0, node_id=1)
    return connection


@settings(max_examples=500)
@given(st.lists(messages, max_size=6), st.booleans(), st.booleans())
def test_any_bytes_give_events_answers_or_one_clean_refusal(
    inputs: list[bytes], is_ready: bool, is_stream: bool
) -> None:
    """Whatever is written is JSON; after the refusal there is nothing."""
    connection = new(is_ready=is_ready, is_stream=is_stream)
    for data in inputs:
        connection.receive_data(data)
        try:
            while events := connection.events():
                for event in events:
                    json.loads(answer(connection, event) or b"0")
        except RemoteProtocolError as exc:
            json.loads(exc.answer or b"0")
            assert connection.state is State.CLOSED
            connection.receive_data(data)
            assert connection.events() == []
            return


@given(st.lists(messages, max_size=5))
def test_one_bad_message_never_poisons_a_websocket(inputs: list[bytes]) -> None:
    connection = new(is_ready=True, is_stream=False)
    for data in inputs:
        connection.receive_data(data)
        try:
            while events := connection.events():
                for event in events:
                    answer(connection, event)
        except RemoteProtocolError:
            assert data.lstrip()[:1] not in (b"{", b"[")  # only what is no JSON at all ends it
            return
    connection.receive_data(b'{"method":"ping","id":"last"}')
    [event] = connection.events()
    assert json.loads(answer(connection, event)) == {"jsonrpc": "2.0", "id": "last", "result": {}}


@given(st.data(), st.lists(st.text(max_size=10), max_size=5))
def test_any_split_of_a_stream_gives_the_same_events(data: st.DataObject, ids: list[str]) -> None:
    stream = b" ".join(
        json.dumps({"method": "send", "id": each, "params": {"channelId": each, "payload": {"t": [each]}}}).encode()
        for each in ids
    )
    whole, parts = (new(is_ready=True, is_stream=True) for _ in range(2))
    whole.receive_data(stream or b" ")
    expected = [show(event) for event in whole.events()]
    assert len(expected) == len(ids)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    seen = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        if start < end:
            parts.receive_data(stream[start:end])
        seen += [show(event) for event in parts.events()]
    assert seen == expected


def show(event: wire.Event) -> object:
    assert isinstance(event, wire.SendReceived)
    return dataclasses.astuple(event.send)


@given(text, text, st.binary(max_size=60), st.integers(0, 255), st.integers(0, 2**32 - 1))
def test_a_message_arrives_as_it_was_sent(number: str, channel: str, payload: bytes, kind: int, expire: int) -> None:
    params = {
        "clientMsgNo": number,
        "channelId": channel,
        "channelType": kind,
        "expire": expire,
        "payload": b64encode(payload).decode(),
    }
    connection = new(is_ready=True, is_stream=False)
    connection.receive_data(json.dumps({"method": "send", "id": "s", "params": params}).encode())
    [event] = connection.events()
    assert isinstance(event, wire.SendReceived)
    send = event.send
    assert (send.client_msg_no, send.channel_id, send.payload) == (number or "n", channel, payload)
    assert (send.channel_type, send.expire, event.refusal) == (kind, expire, 0)
