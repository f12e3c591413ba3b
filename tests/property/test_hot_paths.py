"""The compiled functions and those in Python give the same for the same input, whatever it is."""

import contextlib
import socket
import struct
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hotpaths import compiled
from tests.websocket import BINARY, CONTINUATION, PING, TEXT, frame
from triolet_core.model import Receipt
from triolet_protocol import KeyPair, RemoteProtocolError, _hot, encode
from triolet_protocol import _frames as frames
from triolet_protocol._varint import encode_length

MAX_FRAME = 4096
u8, u32 = st.integers(0, 255), st.integers(0, 2**32 - 1)
i32, i64 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
text = st.text(max_size=40).filter(lambda value: not any("\ud800" <= c <= "\udfff" for c in value))
key = st.binary(min_size=16, max_size=16)
layout = st.sampled_from([(1, False), (2, False), (3, False), (4, False), (5, False), (1, True), (3, True), (4, True)])
peers = st.tuples(layout, st.one_of(st.just(b""), key), key)
recvs = st.tuples(i64, u32, u8, i32, u8, u32, st.integers(0, 15), text, text, text, text, st.binary(max_size=300))


@pytest.fixture(scope="module")
def fast() -> Any:
    return compiled()


def peer(hot: Any, made: tuple[tuple[int, bool], bytes, bytes]) -> Any:
    (version, is_limao), secret, iv = made
    return hot.Peer(version, limao=is_limao, key=secret, iv=iv)


@given(peers, st.binary(max_size=400))
def test_keys(fast: Any, made: Any, data: bytes) -> None:
    one, other = peer(_hot, made), peer(fast, made)
    assert one.is_encrypted == other.is_encrypted
    assert one.encrypt(data) == other.encrypt(data)
    assert one.msg_key(data) == other.msg_key(data)
    assert other.decrypt(one.encrypt(data)) == data
    assert one.decrypt(data) == other.decrypt(data)


LOW_ORDER = [
    number.to_bytes(32, "little")
    for number in (
        *(0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18),
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
    )
]
"""Every point of order 1, 2, 4 and 8. Source: cr.yp.to/ecdh.html, "Do I need to validate public keys?"."""
publics = st.one_of(
    st.binary(min_size=32, max_size=32),
    st.sampled_from(LOW_ORDER),
    st.integers(2**255 - 40, 2**255 + 40).map(lambda number: number.to_bytes(32, "little")),
)


@given(st.binary(min_size=32, max_size=32), st.lists(publics, max_size=20))
def test_agreements(fast: Any, private: bytes, clients: list[bytes]) -> None:
    """Several at once are what `cryptography` makes one by one, and nobody agrees on a secret of zeros."""
    pair = KeyPair(private)
    found = fast.aes_keys(private, clients)
    if found is None:
        pytest.skip("this processor has no AVX-512 IFMA")
    for client, key in zip(clients, found, strict=True):
        text = b64encode(client).decode()
        if key:
            assert pair.aes_key(text) == key
        else:
            with pytest.raises(RemoteProtocolError):
                pair.aes_key(text)


def test_agreements_with_points_of_low_order(fast: Any) -> None:
    found = fast.aes_keys(bytes(range(32)), LOW_ORDER)
    if found is None:
        pytest.skip("this processor has no AVX-512 IFMA")
    assert found == [b""] * len(LOW_ORDER)


@pytest.mark.parametrize(("private", "client"), [(b"", bytes(32)), (bytes(33), bytes(32)), (bytes(32), bytes(31))])
def test_keys_of_another_length_are_refused(fast: Any, private: bytes, client: bytes) -> None:
    with pytest.raises(ValueError, match=r"32|length"):
        fast.aes_keys(private, [client])


base64_like = st.text("ABCab01+/=", max_size=140).map(str.encode)


@settings(max_examples=400)
@given(key, base64_like, st.sampled_from([b"", b"=", b"==", b"====", b"\n", b" ", b"-"]))
def test_what_is_taken_for_base64(fast: Any, secret: bytes, data: bytes, end: bytes) -> None:
    made = ((5, False), secret, secret)
    assert peer(_hot, made).decrypt(data + end) == peer(fast, made).decrypt(data + end)


@given(peers, st.integers(0, 255), st.binary(max_size=40), st.integers(0, 500), st.binary(max_size=2))
def test_a_payload_changed_in_one_place(fast: Any, made: Any, byte: int, data: bytes, at: int, more: bytes) -> None:
    sealed = bytearray(peer(_hot, made).encrypt(data) + more)
    if sealed:
        sealed[at % len(sealed)] = byte
    assert peer(_hot, made).decrypt(bytes(sealed)) == peer(fast, made).decrypt(bytes(sealed))


@given(st.lists(recvs, max_size=4), st.lists(peers, max_size=20))
def test_recvs(fast: Any, messages: Any, receivers: Any) -> None:
    expected = _hot.write_recvs(messages, [peer(_hot, made) for made in receivers])
    assert expected == fast.write_recvs(messages, [peer(fast, made) for made in receivers])


@given(st.lists(recvs, max_size=4), st.lists(st.tuples(peers, st.booleans()), max_size=20))
def test_recvs_that_are_sent_or_left(fast: Any, messages: Any, receivers: Any) -> None:
    """What comes out of a socket and what is left are together what Python leaves."""
    made = [each for each, _ in receivers]
    sizes, expected = _hot.send_recvs(messages, [peer(_hot, each) for each in made], [-1] * len(made))
    with contextlib.ExitStack() as stack:
        pairs = [[stack.enter_context(end) for end in socket.socketpair()] for _ in made]
        for ours, theirs in pairs:
            ours.setblocking(False)
            theirs.setblocking(False)
        places = [pair[0].fileno() if has_one else -1 for pair, (_, has_one) in zip(pairs, receivers, strict=True)]
        found, left = fast.send_recvs(messages, [peer(fast, each) for each in made], places)
        got = dict(left)
        for number, (_, theirs) in enumerate(pairs):
            if places[number] >= 0 and sizes[number]:
                assert number not in got
                got[number] = theirs.recv(1 << 20)
    assert sizes == found
    assert dict(expected) == got


@pytest.mark.parametrize("count", [1, 300], ids=["with the lock", "without"])
def test_sockets_that_take_a_part_or_nothing(fast: Any, count: int) -> None:
    messages = [
        (number, number, 2, 0, 0, 0, 0, "n", "c", "s", "", b"x" * 300_000 * (count == 1)) for number in range(9)
    ]
    made = [((5, False), number.to_bytes(16, "big"), bytes(16)) for number in range(1, count + 1)]
    (_, [(_, expected), *_]) = _hot.send_recvs(messages, [peer(_hot, made[0])], [-1])
    with contextlib.ExitStack() as stack:
        ours, theirs = map(stack.enter_context, socket.socketpair())
        broken, gone = map(stack.enter_context, socket.socketpair())
        ours.setblocking(False)
        theirs.setblocking(False)
        broken.setblocking(False)
        gone.close()
        receivers = [peer(fast, each) for each in [made[0], *made]]
        sizes, left = fast.send_recvs(messages, receivers, [ours.fileno(), broken.fileno(), *[-1] * (count - 1)])
        got = b""
        with contextlib.suppress(BlockingIOError):
            while True:
                got += theirs.recv(1 << 20)
    rest = dict(left)
    assert got + rest.get(0, b"") == expected
    assert got
    assert rest[1] == expected
    assert len(rest) == count + (0 in rest)
    assert sizes == [len(expected)] * (count + 1)
    assert (0 in rest) == (count == 1)


def test_receivers_without_descriptors_are_an_error(fast: Any) -> None:
    for hot in (_hot, fast):
        with pytest.raises(ValueError, match="descriptors"):
            hot.send_recvs([], [hot.Peer(5)], [])


@given(st.lists(st.one_of(st.none(), st.binary(max_size=40)), max_size=12), st.integers(1, 30), st.integers(0, 200))
def test_sockets_that_are_read(fast: Any, waiting: list[bytes | None], most: int, enough: int) -> None:
    """Both read the same: what waits, an end (`None`), nothing, and no more than is enough."""
    found = []
    for hot in (_hot, fast):
        with contextlib.ExitStack() as stack:
            pairs = [[stack.enter_context(end) for end in socket.socketpair()] for _ in waiting]
            for (ours, theirs), data in zip(pairs, waiting, strict=True):
                ours.setblocking(False)
                if data is None:
                    theirs.close()
                else:
                    theirs.sendall(data)
            found.append(hot.read_sockets([ours.fileno() for ours, _ in pairs], most, enough))
    assert found[0] == found[1]
    assert sum(len(data or b"") for data in found[0]) < enough + most


@pytest.mark.parametrize("count", [2, 9], ids=["with the lock", "without"])
def test_sockets_that_are_written(fast: Any, count: int) -> None:
    """What goes in and what is left are together what was given, also where nobody reads any more."""
    data = bytes(range(256)) * 20_000
    for hot in (_hot, fast):
        with contextlib.ExitStack() as stack:
            pairs = [[stack.enter_context(end) for end in socket.socketpair()] for _ in range(count)]
            for end in [end for pair in pairs for end in pair]:
                end.setblocking(False)
            pairs[0][1].close()
            outgoing = [(ours.fileno(), data if not number % 2 else b"short") for number, (ours, _) in enumerate(pairs)]
            left = dict(hot.write_sockets(outgoing))
            assert left.pop(0) == data
            for number, (_, theirs) in enumerate(pairs[1:], 1):
                got = b""
                with contextlib.suppress(BlockingIOError):
                    while True:
                        got += theirs.recv(1 << 20)
                assert got
                assert got + left.pop(number, b"") == outgoing[number][1]
            assert not left


@given(
    st.lists(st.tuples(st.sampled_from([1, 2, 3, -4, 2**63 - 1]), st.integers(0, 15)), max_size=6),
    st.lists(st.sampled_from([1, 2, 3, -4, 2**63 - 1]), max_size=6),
    st.integers(0, 7),
    st.lists(st.tuples(st.integers(0, 90), u8), max_size=1),
    st.integers(0, 30),
)
def test_recvacks_in_order(fast: Any, acks: Any, ids: list[int], start: int, changes: Any, cut: int) -> None:
    """Both match the same, and what they match are the RECVACKs that `read_batch` finds."""
    stream = bytearray(b"".join(encode(frames.RecvAck(each, 7, flags), 5) for each, flags in acks))
    for at, byte in changes:
        if stream:
            stream[at % len(stream)] = byte
    data = bytes(stream[: max(0, len(stream) - cut)])
    packed = struct.pack(f">{len(ids)}q", *ids)
    count, offset = _hot.match_recvacks(data, 0, packed, start)
    assert (count, offset) == fast.match_recvacks(data, 0, packed, start)
    end, sends, _, acked, recvacks, pings = _hot.read_batch(_hot.Peer(5), data[:offset], 0, MAX_FRAME)
    assert (end, sends, pings, recvacks) == (offset, [], 0, count)
    assert acked == ids[start : start + count]
    assert fast.match_recvacks(data, len(data) + 1, packed, start) == (0, len(data) + 1)
    assert _hot.match_recvacks(data, len(data) + 1, packed, start) == (0, len(data) + 1)


@given(st.lists(st.tuples(st.tuples(u32, st.integers(0, 15)), st.builds(Receipt, u8, i64, u32)), max_size=40))
def test_sendacks(fast: Any, answers: Any) -> None:
    marks, receipts = [mark for mark, _ in answers], [receipt for _, receipt in answers]
    for is_limao in (False, True):
        expected = _hot.write_sendacks(marks, receipts, limao=is_limao)
        assert expected == fast.write_sendacks(marks, receipts, limao=is_limao)


@given(st.lists(recvs, min_size=1, max_size=2), st.integers(300, 700))
def test_work_that_is_done_without_the_interpreter_lock(fast: Any, messages: Any, count: int) -> None:
    receivers = [((5, False), number.to_bytes(16, "big"), bytes(16)) for number in range(1, count + 1)]
    encoded = fast.write_recvs(messages, [peer(fast, made) for made in receivers])
    for number in (0, count // 2, count - 1):
        assert [encoded[number]] == _hot.write_recvs(messages, [peer(_hot, receivers[number])])


sends = st.builds(
    frames.Send,
    st.one_of(st.sampled_from([0, 0x80, 0x02, 0x04, 0x08]), u8),
    u32,
    text,
    text,
    u8,
    u32,
    text,
    text,
    st.binary(max_size=120),
    st.integers(0, 15),
    text,
)
others = st.one_of(
    st.builds(frames.RecvAck, i64, u32, st.integers(0, 15)),
    st.builds(frames.Disconnect, u8, text),
    st.just(frames.Ping()),
    st.just(frames.Pong()),
)


def seal(send: frames.Send, one: _hot.Peer) -> frames.Send:
    send.payload = one.encrypt(send.payload)
    send.msg_key = one.msg_key(
        f"{send.client_seq}{send.client_msg_no}{send.channel_id}{send.channel_type}".encode() + send.payload
    )
    return send


@settings(max_examples=300)
@given(
    peers,
    st.lists(
        st.one_of(sends.map(lambda send: (send, True)), sends.map(lambda send: (send, False)), others), max_size=12
    ),
    st.lists(st.tuples(st.integers(0, 2000), u8), max_size=3),
    st.integers(0, 40),
    st.sampled_from([200, 700, 760, MAX_FRAME]),
)
def test_reads(fast: Any, made: Any, items: Any, changes: Any, cut: int, max_frame: int) -> None:
    """Frames of every kind, sealed or not, with some bytes changed and the end cut off."""
    (version, _), secret, iv = made
    made = ((version, False), secret, iv)
    one, other = peer(_hot, made), peer(fast, made)
    stream = bytearray()
    for item in items:
        send, is_sealed = item if isinstance(item, tuple) else (item, False)
        stream += encode(seal(send, one) if is_sealed else send, version)
    for at, byte in changes:
        if stream:
            stream[at % len(stream)] = byte
    compare(fast, one, other, bytes(stream[: len(stream) - cut]), max_frame)


@settings(max_examples=400)
@given(st.lists(st.one_of(st.binary(max_size=30), st.sampled_from([b"p", b"2", b"b\x0c", b"\x32\x10\0", b"\xff" * 5]))))
def test_reads_of_any_bytes(fast: Any, chunks: list[bytes]) -> None:
    made = ((5, False), b"k" * 16, b"i" * 16)
    compare(fast, peer(_hot, made), peer(fast, made), b"".join(chunks), MAX_FRAME)


def compare(fast: Any, one: Any, other: Any, stream: bytes, max_frame: int) -> None:
    """Both read the same, from every place where they stop."""
    offset = 0
    while offset < len(stream):
        expected = _hot.read_batch(one, stream, offset, max_frame)
        assert expected == fast.read_batch(other, stream, offset, max_frame)
        offset = max(expected[0], offset + 1)


@pytest.mark.parametrize(
    "fields",
    [
        (2**63, 1, 1, 1, 0, 0, 0, "", "", "", "", b""),
        (1, 1, 256, 1, 0, 0, 0, "", "", "", "", b""),
        (1, 1, 1, 2**31, 0, 0, 0, "", "", "", "", b""),
        (1, 1, 1, 1, 0, 2**32, 0, "", "", "", "", b""),
        (1, 1, 1, 1, 0, 0, 0, "n" * 65536, "", "", "", b""),
        (1, 1, 1, 1, 0, 0, 0, "\ud800", "", "", "", b""),
    ],
    ids=["id", "type", "time", "expire", "length", "surrogate"],
)
def test_what_does_not_fit_is_an_error_of_ours(fast: Any, fields: Any) -> None:
    for hot in (_hot, fast):
        with contextlib.ExitStack() as stack:
            stack.enter_context(pytest.raises(Exception, match=r"\w"))
            hot.write_recvs([fields], [hot.Peer(5)])


def test_marks_without_receipts_are_an_error(fast: Any) -> None:
    for hot in (_hot, fast):
        with pytest.raises(ValueError, match=r"mark|shorter|longer"):
            hot.write_sendacks([(1, 0), (2, 0)], [Receipt(1, 1, 1)], limao=False)


lengths = st.sampled_from([0, 1, 125, 126, 127, 300, 301, 65_535, 65_536])
client_frames = st.builds(
    lambda opcode, size, form, fin, reserved, mask: frame(
        opcode, bytes(range(256)) * (size // 256) + bytes(size % 256), form=form, fin=fin, reserved=reserved, mask=mask
    ),
    st.sampled_from([BINARY, BINARY, BINARY, BINARY, TEXT, CONTINUATION, PING]),
    lengths,
    st.sampled_from([0, 0, 0, 2, 8]),
    st.sampled_from([True, True, True, False]),
    st.sampled_from([0, 0, 0, 4]),
    st.sampled_from([b"\x12\x9a\xf0\x0f", b"\xff\x00\xff\x01", b"\x00\x00\x00\x00", None]),
)


@given(
    st.lists(client_frames | st.binary(max_size=20), max_size=5).map(b"".join),
    st.integers(0, 40),
    st.integers(0, 20),
    st.sampled_from([0, 125, 300, 1 << 20]),
)
def test_messages_of_websockets_that_are_read(fast: Any, data: bytes, cut: int, offset: int, limit: int) -> None:
    """Wherever the bytes end, and wherever reading begins."""
    data = data[: len(data) - cut]
    assert _hot.read_messages(data, 0, limit) == fast.read_messages(data, 0, limit)
    assert _hot.read_messages(data, offset, limit) == fast.read_messages(data, offset, limit)


packets = st.one_of(
    st.just(b"\x80"),
    st.just(b"\x70"),
    st.tuples(st.integers(0, 15), lengths).map(
        lambda each: bytes((each[0] << 4,)) + encode_length(each[1]) + bytes(each[1])
    ),
    st.binary(max_size=8),
)


@given(st.lists(st.lists(packets, max_size=4).map(b"".join), max_size=4))
def test_messages_of_websockets_that_are_written(fast: Any, joined: list[bytes]) -> None:
    assert _hot.write_messages(joined) == fast.write_messages(joined)
