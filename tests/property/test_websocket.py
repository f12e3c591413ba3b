"""Our framing against wsproto's: the same messages from the same frames, and any bytes end in parts or an error."""

from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import BytesMessage, CloseConnection, Message, Ping, Pong, TextMessage

from tests.hotpaths import hot_path as hot_path
from tests.unit.gateway.test_websocket_frames import whole
from tests.websocket import BINARY, CLOSE, PING, PONG, TEXT
from triolet_protocol import RemoteProtocolError
from triolet_protocol.websocket import FrameReader

messages = st.lists(
    st.one_of(
        st.text(max_size=300).map(lambda text: Message(data=text)),
        st.binary(max_size=70_000).map(lambda data: Message(data=data)),
        st.tuples(st.binary(max_size=40), st.booleans()).map(lambda each: Message(each[0], message_finished=each[1])),
        st.binary(max_size=125).map(lambda data: Ping(payload=data)),
        st.binary(max_size=125).map(lambda data: Pong(payload=data)),
    ),
    max_size=8,
)
cuts = st.lists(st.integers(1, 5000), max_size=40)


def portions(data: bytes, sizes: list[int]) -> list[bytes]:
    found = []
    for size in sizes:
        found.append(data[:size])
        data = data[size:]
    return [*found, data]


def without_ends(parts: list[tuple[int, bytes]]) -> dict[int, bytes]:
    """Join all of a kind: in a stream nobody cares where messages end."""
    return {kind: b"".join(data for opcode, data in parts if opcode == kind) for kind in (TEXT, BINARY, PING, CLOSE)}


@settings(max_examples=150)
@given(messages, cuts)
def test_what_a_client_sends_is_read(events: list[object], sizes: list[int]) -> None:
    client, oracle, reader = Connection(ConnectionType.CLIENT), Connection(ConnectionType.SERVER), FrameReader(1 << 20)
    sent, is_open = b"", False
    for event in events:
        if isinstance(event, Message):
            if is_open and not isinstance(event, BytesMessage) and not isinstance(event.data, bytes):
                continue  # within a message of bytes there is no text
            is_open = not event.message_finished
        sent += client.send(event)  # type: ignore[arg-type]
    if is_open:
        sent += client.send(Message(data=b"", message_finished=True))
    sent += client.send(CloseConnection(code=1000))
    found = whole([part for portion in portions(sent, sizes) for part in reader.receive(portion)])
    oracle.receive_data(sent)
    expected: list[tuple[int, bytes]] = []
    message = b""
    for event in oracle.events():
        match event:
            case TextMessage() | BytesMessage():
                message += event.data.encode() if isinstance(event.data, str) else bytes(event.data)
                if event.message_finished:
                    expected.append((TEXT if isinstance(event, TextMessage) else BINARY, message))
                    message = b""
            case Ping():
                expected.append((PING, bytes(event.payload)))
            case Pong():
                expected.append((PONG, bytes(event.payload)))
            case CloseConnection():
                expected.append((CLOSE, b"\x03\xe8"))
    assert expected == found
    stream = FrameReader(1 << 20)
    parts = [part for portion in portions(sent, sizes) for part in stream.receive(portion, is_stream=True)]
    assert without_ends(expected) == without_ends([(opcode, data) for opcode, data, _ in parts if opcode != PONG])


@settings(max_examples=300)
@given(st.binary(max_size=300), cuts)
def test_any_bytes_are_parts_or_an_error_wherever_they_are_cut(data: bytes, sizes: list[int]) -> None:
    def read(pieces: list[bytes]) -> tuple[list[tuple[int, bytes]], int]:
        reader, parts = FrameReader(200), []
        try:
            for piece in pieces:
                parts.extend(reader.receive(piece))
        except RemoteProtocolError as exc:
            return whole(parts), exc.reason
        return whole(parts), 0

    assert read([data]) == read(portions(data, sizes)) == read([bytes((byte,)) for byte in data])
