"""What is fuzzed: functions of any bytes. A target that raises has found something.

Each says what holds for every input. Where there is a compiled hot path, it runs beside the Python one and has to do
the same. The first bytes of an input choose between versions and roles, so that one corpus has all of them.
"""

import base64
import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import triolet_protocol as wire
from tests.fuzz import served
from tests.fuzz.hot import PATHS, using
from tests.jsonserver import answer
from triolet_core.model import Receipt
from triolet_protocol import _crypto, _hot
from triolet_protocol._jsontext import Splitter
from triolet_protocol._proxy import MAX_BLOCK

KEY = bytes(range(32))
SALT = b"0123456789abcdef"
LOGIN = b'{"id":"login","method":"connect","params":{"uid":"u1"}}'
LIMITS = wire.Limits(max_frame_size=2048, max_login_bytes=1024, max_json_depth=8, max_batch=10)
VERSIONS = [(wire.Family.WUKONG, n) for n in range(1, 7)] + [(wire.Family.LIMAO, n) for n in range(1, 5)]


def frame(data: bytes) -> None:
    """Any bytes are a frame, the beginning of one, or a refusal; a frame is read from what it is written as."""
    choice, raw = data[:1], data[1:]
    family, version = VERSIONS[(choice or b"\0")[0] % len(VERSIONS)]
    layout = wire.StreamLayout.OLD if choice >= b"\x80" else wire.StreamLayout.NEW
    try:
        found = wire.decode(raw, 0, version, family, streams=layout)
    except wire.RemoteProtocolError:
        return
    if found is None:
        return
    decoded, used = found
    assert 0 < used <= len(raw)
    if isinstance(decoded, wire.Connect) and family is wire.Family.LIMAO:
        version = decoded.version  # its layout is that of the version which it names itself
    again = wire.encode(decoded, version, family, layout)
    assert wire.decode(again, 0, version, family, streams=layout) == (decoded, len(again))


def hot(data: bytes) -> None:
    """The compiled reader and the one in Python take the same from any place, sealed or not."""
    choice, raw = (data[:3] + b"\0\0\0")[:3], data[3:]
    key = b"" if choice[0] & 1 else SALT
    version, max_frame = 1 + choice[1] % 5, (128, 700, 760, 2048)[choice[2] % 4]
    peers = [(path, path.Peer(version, key=key, iv=SALT)) for path in PATHS]
    stream = _sealed(raw, version) + raw if choice[0] & 2 else raw
    offset = 0
    while offset < len(stream):
        found = [path.read_batch(peer, stream, offset, max_frame) for path, peer in peers]
        assert all(each == found[0] for each in found), found
        offset = max(found[0][0], offset + 1)


def _sealed(payload: bytes, version: int) -> bytes:
    """Return a SEND of a client that has the keys of `SALT`: what no fuzzer would find by itself."""
    peer = _hot.Peer(version, key=SALT, iv=SALT)
    text = peer.encrypt(payload)
    msg_key = peer.msg_key(b"7nc1" + text)
    send = wire.Send(0, 7, "n", "c", 1, 0, msg_key, "", text)
    return wire.encode(send, version)


def writing(data: bytes) -> None:
    """Both write the same RECVs and SENDACKs, and a client reads from them what was written."""
    head, payload = (data[:16] + bytes(16))[:16], data[16:]
    texts = [part.decode("utf-8", "replace") for part in payload.split(b"\n", 3)[:3]]
    number, channel, sender = [*texts, "", "", ""][:3]
    seq, kind, setting, flags = int.from_bytes(head[8:12], "big"), head[12], head[13] & 0xF7, head[14] & 0x0F
    message_id = int.from_bytes(head[:8], "big", signed=True)
    fields = (message_id, seq, kind, 1_700_000_000, setting, 9, flags, number, channel, sender, "topic", payload)
    for is_limao, version in ((False, 3), (False, 5), (True, 4)):
        for key in (b"", SALT):
            peers = [[path.Peer(version, limao=is_limao, key=key, iv=SALT)] for path in PATHS]
            recvs = [path.write_recvs([fields], peer) for path, peer in zip(PATHS, peers, strict=True)]
            assert all(each == recvs[0] for each in recvs)
            _check_recv(recvs[0][0], fields, version, wire.Family.LIMAO if is_limao else wire.Family.WUKONG)
        answer = Receipt(head[15], message_id, seq)
        acks = [path.write_sendacks([(seq, flags)], [answer], limao=is_limao) for path in PATHS]
        assert all(each == acks[0] for each in acks)


def _check_recv(raw: bytes, fields: wire.RecvFields, version: int, family: wire.Family) -> None:
    found = wire.decode(raw, 0, version, family)
    assert found is not None
    recv, used = found
    assert used == len(raw)
    assert isinstance(recv, wire.Recv)
    assert (recv.message_id, recv.message_seq, recv.channel_type) == fields[:3]
    assert (recv.client_msg_no, recv.channel_id, recv.from_uid) == fields[7:10]


def crypto(data: bytes) -> None:
    """Any text decrypts to the same or to nothing; what is encrypted comes back; any key is a key or refused."""
    peers = [path.Peer(5, key=SALT, iv=KEY[:16]) for path in PATHS]
    texts = [peer.encrypt(data) for peer in peers]
    assert all(text == texts[0] for text in texts)
    assert all(peer.decrypt(texts[0]) == data for peer in peers)
    for text in (data, texts[0] + data[:2], texts[0][: len(data)]):
        plain = [peer.decrypt(text) for peer in peers]
        assert all(each == plain[0] for each in plain), text
    keys = [peer.msg_key(data) for peer in peers]
    assert all(key == keys[0] for key in keys)
    _agree(data)
    with contextlib.suppress(wire.RemoteProtocolError):
        assert len(_crypto.KeyPair(KEY).aes_key(data.decode("latin-1"))) == len(SALT)


def _agree(data: bytes) -> None:
    """What several clients agree on at once is what each of them agrees on alone."""
    clients = [(data[at : at + 32] + bytes(32))[:32] for at in range(0, min(len(data), 8 * 32), 32)]
    texts = [base64.b64encode(client).decode() for client in clients] + [data.decode("latin-1")]
    pair = _crypto.KeyPair(KEY)
    for path in PATHS:
        with using(path):
            agreed = wire.agree(pair, texts * 2)
            assert [_key(each, text) for each, text in zip(agreed, texts * 2, strict=True)] == [
                _key(pair, text) for text in texts * 2
            ]


def _key(pair: _crypto.KeyPair, text: str) -> bytes | None:
    try:
        return pair.aes_key(text)
    except wire.RemoteProtocolError:
        return None


def proxy(data: bytes) -> None:
    """Any bytes are a header, the beginning of one, or a refusal; more bytes behind it change nothing."""
    found = _header(data)
    for more in (b"\0", b"\r\n", b"x" * MAX_BLOCK):
        later = _header(data + more)
        assert found is None or later == found
    assert found is None or isinstance(found, str) or 0 < found[1] <= len(data)
    assert found is not None or len(data) < MAX_BLOCK
    if isinstance(found, tuple) and found[0] is not None:
        host, port = found[0]
        assert 0 <= port <= 0xFFFF
        assert host == host.strip() != ""


def _header(data: bytes) -> tuple[tuple[str, int] | None, int] | str | None:
    try:
        return wire.read_header(data)
    except wire.RemoteProtocolError:
        return "refused"


# --- the state machines


def chunks_of(data: bytes) -> Iterator[bytes]:
    """Cut an input into reads: a length byte before each; 255 is the rest."""
    while data:
        size, data = data[0], data[1:]
        chunk, data = (data, b"") if size == 0xFF else (data[:size], data[size:])
        if chunk:
            yield chunk


def connection(data: bytes) -> None:
    """Any reads in any state are events or one refusal, the same for both hot paths and as batches or events."""
    choice, reads = (data[:1] or b"\0")[0], list(chunks_of(data[1:]))
    told = []
    for path in PATHS:
        with using(path):
            for is_batch in (True, False):
                told.append(_told(_server(choice), reads, is_batch=is_batch))
    assert all(each == told[0] for each in told), told
    _client(choice, reads)


def _server(choice: int) -> wire.Connection:
    server = wire.Connection(wire.Role.SERVER, LIMITS)
    if choice & 1:
        family, version = VERSIONS[choice // 4 % len(VERSIONS)]
        server.receive_data(_connect(wire.Connection(wire.Role.CLIENT), family, min(version, 5)))
        server.events()
        server.accept(KEY, SALT, time_diff_ms=0, node_id=1, encrypt=bool(choice & 2))
    return server


def _connect(client: wire.Connection, family: wire.Family, version: int) -> bytes:
    who = {"uid": "u", "token": "t", "device_id": "d", "device_flag": 0, "client_timestamp": 0}
    return client.connect(**who, private_key=KEY[::-1], version=version, family=family)  # type: ignore[arg-type]


def _told(server: wire.Connection, reads: Sequence[bytes], *, is_batch: bool) -> list[object]:
    """Return everything that a server's end was told and wrote, in an order that batches and events have in common."""
    total = wire.Batch()
    refusal: object = None
    try:
        for read in reads:
            server.receive_data(read)
            while step := server.batch() if is_batch else _sorted(server.events()):
                _add(total, step)
                _decide(server, step)
            assert len(server._buffer) <= LIMITS.max_frame_size + 8 or server.state is wire.State.PENDING
    except wire.RemoteProtocolError as exc:
        refusal = (str(exc), exc.answer)
        assert server.state is wire.State.CLOSED
        server.receive_data(b"\x70")
        assert not server.events()
    total.events = [_shown(event) for event in total.events]
    return [dataclasses.astuple(total), refusal, server.state, server.version, server.family]


def _sorted(events: Sequence[wire.Event]) -> wire.Batch:
    batch = wire.Batch()
    for event in events:
        batch.append(event)
    return batch


def _add(total: wire.Batch, step: wire.Batch) -> None:
    for name in ("sends", "marks", "acked", "events"):
        getattr(total, name).extend(getattr(step, name))
    total.recvacks += step.recvacks
    total.pings += step.pings


def _decide(server: wire.Connection, step: wire.Batch) -> None:
    for event in step.events:
        if isinstance(event, wire.ConnectReceived):
            if event.connect.token == "no":
                server.reject(2)
            else:
                server.accept(KEY, SALT, time_diff_ms=0, node_id=1)
    if step.marks:
        assert server.encode_sendacks(step.marks, [Receipt(1, 1, 1)] * len(step.marks))


def _shown(event: wire.Event) -> Any:
    return dataclasses.astuple(event)


def _client(choice: int, reads: Sequence[bytes]) -> None:
    """A client takes anything from a server as well: events or a refusal."""
    client = wire.Connection(wire.Role.CLIENT, LIMITS)
    family, version = VERSIONS[choice // 4 % len(VERSIONS)]
    _connect(client, family, version)
    with contextlib.suppress(wire.RemoteProtocolError):
        if choice & 1:
            client.receive_data(wire.encode(wire.ConnAck(0, 1), version, family))
            client.events()
        for read in reads:
            client.receive_data(read)
            client.events()


def jsonrpc(data: bytes) -> None:
    """Any reads are events, answers that are JSON, or one refusal; nothing is kept beyond the limits."""
    choice = (data[:1] or b"\0")[0]
    is_stream = bool(choice & 2)
    connection = wire.JsonConnection(LIMITS, lambda: "n", is_stream=is_stream)
    if choice & 1:
        connection.receive_data(LOGIN)
        connection.events()
        connection.accept(b"", b"", time_diff_ms=0, node_id=1)
    for read in chunks_of(data[1:]):
        connection.receive_data(read)
        try:
            while events := connection.events():
                for event in events:
                    json.loads(answer(connection, event) or b"0")
        except wire.RemoteProtocolError as exc:
            json.loads(exc.answer or b"0")
            assert connection.state is wire.State.CLOSED
            connection.receive_data(read)
            assert connection.events() == []
            return
        assert connection._splitter.waiting <= LIMITS.max_frame_size
    _split(data[1:])


def _split(data: bytes) -> None:
    """Texts are cut at the same places however their bytes arrive."""
    whole = _cut([data])
    assert _cut([data[at : at + 1] for at in range(len(data))]) == whole


def _cut(reads: Sequence[bytes]) -> list[object]:
    splitter, texts = Splitter(LIMITS.max_frame_size, LIMITS.max_json_depth), list[object]()
    try:
        for read in reads:
            splitter.feed(read)
            while (text := splitter.next_text()) is not None:
                texts.append(text)
    except Exception as exc:
        if not isinstance(exc, wire.RequestError):
            raise
        texts.append("refused")
    return texts


# --- a whole server


def sockets(data: bytes) -> None:
    """Whatever a client sends on any transport, its connection ends when it does, and no code of ours fails."""
    choice, reads = (data[:1] or b"\0")[0], list(chunks_of(data[1:]))
    kind = ("tcp", "ws", "ws", "http")[choice & 3]
    before = served.failures(served.server())
    with served.connected(kind, is_proxied=kind != "http" and bool(choice & 0x10)) as sock:
        if choice & 3 == 2:
            served.upgrade(sock)
            reads = [served.ws_frame(read[0], read[1:]) for read in reads]
        if kind != "http" and choice & 4:
            login = LOGIN if choice & 8 else _connect(wire.Connection(wire.Role.CLIENT), wire.Family.WUKONG, 5)
            reads = [served.ws_frame(0x82, login) if choice & 3 == 2 else login, *reads]
        served.say(sock, reads)
    assert served.failures(served.server()) == before


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each for each in (frame, hot, writing, crypto, proxy, connection, jsonrpc, sockets)
}
