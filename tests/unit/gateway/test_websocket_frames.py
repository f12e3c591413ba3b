"""WebSocket framing without a socket, after the cases of the Autobahn test suite. Source: RFC 6455."""

import pytest

from tests.hotpaths import hot_path as hot_path
from tests.websocket import BINARY, CLOSE, CONTINUATION, MASK, PING, PONG, TEXT, frame
from triolet_protocol import RemoteProtocolError
from triolet_protocol.websocket import FrameReader, encode_close, encode_frames, encode_packets

LIMIT = 1 << 20


def whole(parts: list[tuple[int, bytes, bool]]) -> list[tuple[int, bytes]]:
    """Join the pieces of messages; control frames stay where they are."""
    found: list[tuple[int, bytes]] = []
    message = b""
    for opcode, data, is_last in parts:
        if opcode >= CLOSE:
            found.append((opcode, data))
            continue
        message += data
        if is_last:
            found.append((opcode, message))
            message = b""
    return found


def read(data: bytes, *, step: int = 0, limit: int = LIMIT, is_stream: bool = False) -> list[tuple[int, bytes]]:
    reader = FrameReader(limit)
    portions = [data[at : at + step] for at in range(0, len(data), step)] if step else [data]
    return whole([part for portion in portions for part in reader.receive(portion, is_stream=is_stream)])


def code_of(data: bytes, *, step: int = 0, limit: int = LIMIT) -> int:
    with pytest.raises(RemoteProtocolError) as caught:
        read(data, step=step, limit=limit)
    return caught.value.reason


@pytest.mark.parametrize("step", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 128, 300, 65535, 65536, 70001])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_messages_of_every_length_in_any_portions(opcode: int, size: int, step: int) -> None:
    """Autobahn 1.1 and 1.2."""
    payload = b"*" * size if opcode == TEXT else bytes(place * 7 % 256 for place in range(size))
    data = frame(opcode, payload) + frame(opcode, b"after")
    if step and size > 1000:
        step *= 997
    assert read(data, step=step) == [(opcode, payload), (opcode, b"after")]


@pytest.mark.parametrize("step", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 128, 300, 65535, 65536, 70001])
def test_binary_messages_as_a_stream_in_any_portions(size: int, step: int) -> None:
    """Autobahn 1.2, for a reader to whom it does not matter where messages end."""
    payload = bytes(place * 7 % 256 for place in range(size))
    data = frame(BINARY, b"before") + frame(BINARY, payload) + frame(BINARY, b"after")
    if step and size > 1000:
        step *= 997
    parts = read(data, step=step, is_stream=True)
    assert {opcode for opcode, _ in parts} == {BINARY}
    assert b"".join(message for _, message in parts) == b"before" + payload + b"after"


def test_what_else_comes_in_a_stream_stays_in_its_place() -> None:
    """Several messages of one read come as one; controls, texts and fragments as ever."""
    data = (
        frame(BINARY, b"one")
        + frame(BINARY)
        + frame(BINARY, b"two")
        + frame(PING, b"p")
        + frame(BINARY, b"th", fin=False)
        + frame(PONG, b"q")
        + frame(CONTINUATION, b"ree")
        + frame(BINARY, b"four")
        + frame(TEXT, b"five")
        + frame(CLOSE)
    )
    found = read(data, is_stream=True)
    assert found[:3] == [(BINARY, b"onetwo"), (PING, b"p"), (PONG, b"q")]
    assert found[3:] == [(BINARY, b"three"), (BINARY, b"four"), (TEXT, b"five"), (CLOSE, b"")]


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (frame(BINARY, b"x", mask=None), 1002),
        (frame(BINARY, b"x", reserved=4), 1002),
        (frame(BINARY, b"x" * 5, form=2), 1002),
        (frame(BINARY, b"x" * 126, form=8), 1002),
        (frame(CONTINUATION, b"x"), 1002),
        (frame(BINARY, b"x" * 201)[:8], 1009),
    ],
)
def test_what_breaks_the_protocol_within_a_stream(bad: bytes, code: int) -> None:
    """What came before it is read."""
    reader, parts = FrameReader(200), []
    with pytest.raises(RemoteProtocolError) as caught:
        parts.extend(part for part in reader.receive(frame(BINARY, b"ok") + bad, is_stream=True))
    assert caught.value.reason == code
    reader = FrameReader(200)
    assert next(reader.receive(frame(BINARY, b"ok") + bad, is_stream=True)) == (BINARY, b"ok", True)


@pytest.mark.parametrize("size", [0, 1, 124, 125])
@pytest.mark.parametrize("opcode", [PING, PONG])
def test_control_frames_of_up_to_125_bytes(opcode: int, size: int) -> None:
    """Autobahn 2.1 to 2.4, 2.6 (byte by byte)."""
    for step in (0, 1):
        assert read(frame(opcode, b"p" * size), step=step) == [(opcode, b"p" * size)]


def test_a_control_frame_of_126_bytes_is_refused_by_its_head_alone() -> None:
    """Autobahn 2.5."""
    assert code_of(frame(PING, b"p" * 126)[:2]) == 1002


@pytest.mark.parametrize("reserved", range(1, 8))
@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, CLOSE])
def test_reserved_bits_are_refused(opcode: int, reserved: int) -> None:
    """Autobahn 3."""
    assert code_of(frame(TEXT, b"ok") + frame(opcode, b"", reserved=reserved)) == 1002


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_reserved_opcodes_are_refused(opcode: int) -> None:
    """Autobahn 4."""
    assert code_of(frame(opcode, b"x")) == 1002


def test_a_frame_without_a_mask_is_refused() -> None:
    """RFC 6455, section 5.1."""
    assert code_of(frame(BINARY, b"x", mask=None)) == 1002


@pytest.mark.parametrize(("size", "form"), [(5, 2), (125, 2), (5, 8), (126, 8), (65535, 8)])
def test_a_length_must_be_as_short_as_it_can_be(size: int, form: int) -> None:
    """RFC 6455, section 5.2."""
    assert code_of(frame(BINARY, b"x" * size, form=form)) == 1002


def test_a_negative_length_is_refused() -> None:
    assert code_of(b"\x82\xff" + b"\xff" * 8 + MASK) == 1002


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
def test_control_frames_are_not_fragmented(opcode: int) -> None:
    """Autobahn 5.1 and 5.2."""
    assert code_of(frame(opcode, b"", fin=False)) == 1002


@pytest.mark.parametrize("step", [0, 1, 3])
def test_fragments_with_control_frames_between_them(step: int) -> None:
    """Autobahn 5.3 to 5.8, 5.19: the ping comes out where it came in."""
    data = (
        frame(TEXT, b"frag", fin=False)
        + frame(PING, b"one")
        + frame(CONTINUATION, b"", fin=False)
        + frame(PONG, b"two")
        + frame(CONTINUATION, b"ment")
    )
    assert read(data, step=step) == [(PING, b"one"), (PONG, b"two"), (TEXT, b"fragment")]


@pytest.mark.parametrize(
    "data",
    [
        frame(CONTINUATION, b"x"),
        frame(CONTINUATION, b"x", fin=False) + frame(TEXT, b"y"),
        frame(TEXT, b"x") + frame(CONTINUATION, b"y"),
        frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"),
        frame(BINARY, b"x", fin=False) + frame(BINARY, b"y", fin=False),
    ],
)
def test_fragments_out_of_place_are_refused(data: bytes) -> None:
    """Autobahn 5.9 to 5.18, 5.20."""
    assert code_of(data) == 1002


GOOD = "Hello-µ@ßöäüàá-UTF-8!! κόσμε 𐀀 \U0010ffff"


@pytest.mark.parametrize("step", [0, 1, 2, 5])
def test_text_may_be_cut_within_a_character(step: int) -> None:
    """Autobahn 6.2 and 6.5 to 6.11."""
    raw = GOOD.encode()
    fragments = [frame(CONTINUATION if at else TEXT, raw[at : at + 1], fin=False) for at in range(len(raw))]
    assert read(b"".join(fragments) + frame(CONTINUATION), step=step) == [(TEXT, raw)]
    assert read(frame(TEXT, raw), step=step) == [(TEXT, raw)]


BAD = [
    b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80edited",
    b"\xff",
    b"\xc0\xaf",
    b"\xf4\x90\x80\x80",
    b"\x80",
    b"\xf8\x88\x80\x80",
]


@pytest.mark.parametrize("raw", BAD)
def test_what_is_not_utf8_is_refused(raw: bytes) -> None:
    """Autobahn 6.3 and 6.12 to 6.23; in one frame, and cut into fragments."""
    assert code_of(frame(TEXT, raw)) == 1007
    fragments = [frame(CONTINUATION if at else TEXT, raw[at : at + 1], fin=False) for at in range(len(raw))]
    assert code_of(b"".join(fragments)) == 1007
    assert read(frame(BINARY, raw)) == [(BINARY, raw)]


def test_a_character_that_the_end_cuts_off_is_refused() -> None:
    assert code_of(frame(TEXT, b"\xce")) == 1007
    assert code_of(frame(TEXT, b"\xce", fin=False) + frame(CONTINUATION)) == 1007


def test_what_is_not_utf8_is_refused_as_soon_as_it_comes() -> None:
    """Autobahn 6.4: the rest of the frame is not waited for."""
    data = frame(TEXT, b"\xff" + b"x" * 1000)
    assert code_of(data[:20]) == 1007


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
)
def test_codes_that_may_be_sent(code: int) -> None:
    """Autobahn 7.7."""
    payload = code.to_bytes(2, "big") + b"because"
    assert read(frame(CLOSE, payload)) == [(CLOSE, payload)]


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_codes_that_may_not_be_sent(code: int) -> None:
    """Autobahn 7.9 and 7.13."""
    assert code_of(frame(CLOSE, code.to_bytes(2, "big"))) == 1002


def test_a_close_may_say_nothing_but_not_half_a_code_nor_what_is_no_text() -> None:
    """Autobahn 7.3 and 7.5."""
    assert read(frame(CLOSE)) == [(CLOSE, b"")]
    assert code_of(frame(CLOSE, b"\x03")) == 1002
    assert code_of(frame(CLOSE, b"\x03\xe8\xce\xba\xed\xa0\x80")) == 1007


def test_a_message_that_is_too_long_is_refused_by_its_head_alone() -> None:
    """Autobahn 9 tests limits; 1009 is said before the bytes come."""
    assert code_of(frame(BINARY, b"x" * 1001)[:8], limit=1000) == 1009
    parts = frame(BINARY, b"x" * 600, fin=False), frame(CONTINUATION, b"x" * 401, fin=False)
    assert code_of(b"".join(parts)[:-300], limit=1000) == 1009
    assert read(frame(BINARY, b"x" * 1000) * 3, limit=1000) == [(BINARY, b"x" * 1000)] * 3


def test_a_long_frame_is_not_collected() -> None:
    """What has come of it goes out at once."""
    reader = FrameReader(LIMIT)
    data = frame(BINARY, b"abcdefghij" * 1000)
    assert list(reader.receive(data[:1000])) == [(BINARY, (b"abcdefghij" * 100)[: 1000 - 8], False)]
    assert not reader._buffer


@pytest.mark.parametrize(
    ("size", "head"), [(0, "8200"), (125, "827d"), (126, "827e007e"), (65536, "827f0000000000010000")]
)
def test_frames_of_the_server(size: int, head: str) -> None:
    assert encode_frames([b"y" * size] * 2, BINARY) == (bytes.fromhex(head) + b"y" * size) * 2
    assert encode_close(1009) == b"\x88\x02\x03\xf1"


def test_each_packet_is_a_message() -> None:
    """wire-protocol.md, section 0, rule 2: clients take one packet of each message."""
    ack, pong, long = b"\x40\x02ab", b"\x80", b"\x50\xc8\x01" + b"x" * 200
    expected = [pong, ack, ack, long, pong, ack]
    assert encode_packets([pong, ack + ack + long, b"", pong + ack]) == encode_frames(expected, BINARY)


@pytest.mark.parametrize("odd", [b"\x40", b"\x40\x05abc", b"\x40\x80\x80\x80\x80\x01", b"\x40\xff"])
def test_what_is_no_packet_is_one_message(odd: bytes) -> None:
    assert encode_packets([b"\x80" + odd, b"\x80"]) == encode_frames([b"\x80", odd, b"\x80"], BINARY)
