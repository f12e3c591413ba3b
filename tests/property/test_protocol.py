"""Round trips, any split of the input, any bytes."""

import contextlib
import dataclasses
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

import triolet_protocol as protocol
from tests.hotpaths import hot_path as hot_path
from triolet_core.model import ChannelKey, Message
from triolet_protocol import Connection, Family, RemoteProtocolError, Role

KEY = bytes(range(32))
SALT = b"0123456789abcdef"
u8, u32 = st.integers(0, 255), st.integers(0, 2**32 - 1)
u64, i64 = st.integers(0, 2**64 - 1), st.integers(-(2**63), 2**63 - 1)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
PLAIN_SETTING = st.sampled_from([0, 0x80, 0x20, 0x10, 0x01, 0xB1])

FRAMES = st.one_of(
    st.builds(protocol.Connect, u8, u8, text, text, text, i64, text, st.just(0)),
    st.builds(
        protocol.Send, PLAIN_SETTING, u32, text, text, u8, u32, text, st.just(""), st.binary(), st.integers(0, 15)
    ),
    st.builds(protocol.SendAck, i64, u32, u32, u8, st.integers(0, 15)),
    st.builds(protocol.RecvAck, i64, u32, st.integers(0, 15)),
    st.builds(protocol.Disconnect, u8, text),
    st.builds(protocol.Sub, u8, text, text, u8, u8, text),
    st.builds(protocol.SubAck, text, text, u8, u8, u8),
    st.builds(protocol.EventFrame, text, text, i64, st.binary()),
    st.just(protocol.Ping()),
    st.just(protocol.Pong()),
)


@given(FRAMES, st.integers(3, 5))
def test_decode_undoes_encode(frame: protocol.Frame, version: int) -> None:
    raw = protocol.encode(frame, version)
    assert protocol.decode(raw, 0, version) == (frame, len(raw))


def pair(family: Family = Family.WUKONG, version: int = 5) -> tuple[Connection, Connection]:
    client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
    server.receive_data(
        client.connect(
            uid="u",
            token="t",
            device_id="d",
            device_flag=0,
            client_timestamp=0,
            private_key=KEY,
            version=version,
            family=family,
        )
    )
    server.events()
    client.receive_data(server.accept(KEY[::-1], SALT, time_diff_ms=0, node_id=1))
    client.events()
    return client, server


VERSIONS = st.sampled_from([(Family.WUKONG, n) for n in (1, 2, 3, 4, 5)] + [(Family.LIMAO, n) for n in (3, 4)])


@given(VERSIONS, st.lists(st.binary(max_size=60), max_size=6), text)
def test_what_a_client_sends_arrives_decrypted_whatever_the_version(
    version: tuple[Family, int], payloads: list[bytes], number: str
) -> None:
    client, server = pair(*version)
    assert server.family is version[0]
    for n, payload in enumerate(payloads):
        server.receive_data(
            client.send_message(client_seq=n, client_msg_no=number, channel_id="c", channel_type=1, payload=payload)
        )
    sends = [event for event in server.events() if isinstance(event, protocol.SendReceived)]
    assert [(event.refusal, event.send.payload) for event in sends] == [(0, payload) for payload in payloads]


@given(VERSIONS, st.binary(max_size=60), text, text)
def test_what_the_server_delivers_is_read_by_the_client(
    version: tuple[Family, int], payload: bytes, number: str, sender: str
) -> None:
    client, server = pair(*version)
    message = Message(2**62, 7, ChannelKey("x@y", 1), sender, number, 1_700_000_000, 2, 0, 9, "", payload)
    client.receive_data(*server.encode_recvs([protocol.recv_fields(message, "peer", sender, 2)]))
    [event] = client.events()
    assert isinstance(event, protocol.RecvReceived)
    recv = event.recv
    assert (recv.payload, recv.from_uid, recv.channel_id, recv.message_seq) == (payload, sender, "peer", 7)
    assert recv.client_msg_no == number


@given(st.data(), st.lists(st.sampled_from([b"a", b"bc", b""]), max_size=5))
def test_any_split_of_the_input_gives_the_same_events(data: st.DataObject, payloads: list[bytes]) -> None:
    client, _ = pair()
    stream = client.ping() + b"".join(
        client.send_message(client_seq=n, client_msg_no="n", channel_id="c", channel_type=2, payload=payload)
        + client.ping()
        for n, payload in enumerate(payloads)
    )
    whole, parts = pair()[1], pair()[1]
    whole.receive_data(stream)
    expected = [show(event) for event in whole.events()]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    seen = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        if start < end:
            parts.receive_data(stream[start:end])
        seen += [show(event) for event in parts.events()]
    assert seen == expected


def show(event: protocol.Event) -> object:
    return (event.refusal, dataclasses.astuple(event.send)) if isinstance(event, protocol.SendReceived) else event


CONTROL = st.sampled_from([protocol.Ping(), protocol.Pong(), protocol.RecvAck(-5, 7, 2), protocol.RecvAck(2**62, 0, 1)])
OTHER = st.builds(protocol.Sub, u8, text, text, u8, u8, text)


@given(st.data(), VERSIONS, st.lists(st.one_of(st.binary(max_size=60), CONTROL, FRAMES, OTHER), max_size=12))
def test_a_batch_is_the_events_sorted_by_kind(
    data: st.DataObject, version: tuple[Family, int], items: list[bytes | protocol.Frame]
) -> None:
    """Sealed messages, frames of every kind, broken ones among them, and any split of it all."""
    client, one = pair(*version)
    other = pair(*version)[1]
    stream = b"".join(sealed(client, item) for item in items)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    seen, expected = protocol.Batch(), protocol.Batch()
    refusals: list[object] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        if start < end:
            one.receive_data(stream[start:end])
            other.receive_data(stream[start:end])
        refusals.append((drain(lambda: merge(seen, one.batch())), drain(lambda: take(expected, other.events()))))
    assert dataclasses.astuple(seen) == dataclasses.astuple(expected)
    assert all(a == b for a, b in refusals)


def sealed(client: Connection, item: bytes | protocol.Frame) -> bytes:
    if isinstance(item, bytes):
        return client.send_message(client_seq=1, client_msg_no="n", channel_id="c", channel_type=2, payload=item)
    if client.family is Family.LIMAO and isinstance(item, protocol.Sub | protocol.SubAck | protocol.EventFrame):
        return b""
    return protocol.encode(item, client.version, client.family)


def drain(step: Callable[[], bool]) -> str:
    """Step until nothing comes; returns the refusal, if there was one."""
    try:
        while step():
            pass
    except RemoteProtocolError as exc:
        return str(exc)
    return ""


def merge(into: protocol.Batch, batch: protocol.Batch) -> bool:
    for name in ("sends", "marks", "acked", "events"):
        getattr(into, name).extend(getattr(batch, name))
    into.recvacks += batch.recvacks
    into.pings += batch.pings
    return bool(batch)


def take(into: protocol.Batch, events: list[protocol.Event]) -> bool:
    for event in events:
        into.append(event)
    return bool(events)


@settings(max_examples=400)
@given(st.lists(st.binary(min_size=1, max_size=80), max_size=8), st.booleans())
def test_any_bytes_give_events_or_one_clean_refusal(chunks: list[bytes], is_ready: bool) -> None:
    server = pair()[1] if is_ready else Connection(Role.SERVER)
    refusals = 0
    for chunk in chunks:
        server.receive_data(chunk)
        with contextlib.suppress(StopIteration):
            try:
                server.events()
            except RemoteProtocolError:
                refusals += 1
    with contextlib.suppress(RemoteProtocolError):
        server.events()
    assert refusals <= 1


@given(st.binary(max_size=120), st.integers(1, 6), st.sampled_from(list(Family)))
def test_any_body_is_a_frame_or_a_refusal(body: bytes, version: int, family: Family) -> None:
    for kind in range(1, 13):
        raw = bytes((kind << 4, len(body))) + body
        with contextlib.suppress(RemoteProtocolError):
            protocol.decode(raw, 0, version, family)
