"""Bytes of the reference codec. Source: conformance/vectors, made with the codec versions that each vector names."""

import dataclasses
import json
import re
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest

import triolet_protocol as protocol
from tests.hotpaths import hot_path as hot_path
from triolet_core.model import ChannelKey, Message
from triolet_protocol import Connection, Family, RemoteProtocolError, Role, StreamLayout, _connection
from triolet_protocol._choice import PeerLike
from triolet_protocol._crypto import KeyPair

VECTORS = Path(__file__).parents[2] / "conformance" / "vectors"
WKPROTO = json.loads((VECTORS / "wkproto.json").read_text())
CRYPTO = json.loads((VECTORS / "crypto.json").read_text())
SESSIONS = {each["name"]: each for each in CRYPTO["sessions"]}

CLASSES = {
    "CONNECT": protocol.Connect,
    "CONNACK": protocol.ConnAck,
    "SEND": protocol.Send,
    "SENDACK": protocol.SendAck,
    "RECV": protocol.Recv,
    "RECVACK": protocol.RecvAck,
    "PING": protocol.Ping,
    "PONG": protocol.Pong,
    "DISCONNECT": protocol.Disconnect,
    "SUB": protocol.Sub,
    "SUBACK": protocol.SubAck,
    "EVENT": protocol.EventFrame,
}
FLAG_BITS = {"hasServerVersion": 1, "noPersist": 1, "redDot": 2, "syncOnce": 4, "dup": 8}
BINARY = {"payload", "data"}


def snake(name: str) -> str:
    return re.sub(r"([A-Z])", lambda m: "_" + m[1].lower(), name)


def value_of(name: str, value: Any) -> Any:
    if name not in BINARY:
        return value
    return bytes.fromhex(value["repeat"]) * value["count"] if isinstance(value, dict) else bytes.fromhex(value)


def hex_of(entry: dict[str, Any]) -> bytes:
    if "hexParts" in entry:
        return b"".join(
            bytes.fromhex(part["hex"]) * part.get("count", part.get("repeat", 1)) for part in entry["hexParts"]
        )
    return bytes.fromhex(entry["hex"])


def frame_of(vector: dict[str, Any]) -> protocol.Frame:
    cls = CLASSES[vector["frame"]["type"]]
    names = {field.name for field in dataclasses.fields(cls)}
    fields = {snake(name): value_of(name, value) for name, value in (vector["frame"].get("fields") or {}).items()}
    assert fields.keys() <= names
    empty = {
        field.name: b"" if field.name in BINARY else "" if field.type is str else 0
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING
    }
    flags = sum(FLAG_BITS[name] for name, is_set in (vector["frame"].get("flags") or {}).items() if is_set)
    return cls(**{**empty, **fields}, **({"flags": flags} if "flags" in names else {}))


def layout(vector: dict[str, Any]) -> tuple[int, Family, StreamLayout]:
    family = Family.LIMAO if vector["codec"] == "limao" else Family.WUKONG
    streams = StreamLayout.OLD if vector["codec"] == "wkproto-1.0.21" else StreamLayout.NEW
    return vector["version"], family, streams


@pytest.mark.parametrize("vector", WKPROTO["vectors"], ids=lambda v: f"{v['codec']}/{v['name']}")
def test_frame_vectors(vector: dict[str, Any]) -> None:
    version, family, streams = layout(vector)
    frame, raw = frame_of(vector), hex_of(vector)
    assert protocol.encode(frame, version, family, streams) == raw
    assert protocol.decode(raw, 0, version, family, streams=streams) == (frame, len(raw))


STRICTER = {"type-0", "type-15-truncated", "connect-invalid-utf8-uid"}
"""Refused at once where the reference waits or accepts. Source: wire-protocol.md, sections 2.4 and 8."""


@pytest.mark.parametrize("entry", WKPROTO["malformed"], ids=lambda e: e["name"])
def test_malformed_vectors(entry: dict[str, Any]) -> None:
    """A good decoder's answer, or the refusal where wire-protocol.md, section 8, asks for one at once."""
    raw = hex_of(entry)
    try:
        decoded = protocol.decode(raw, 0, entry["version"])
    except RemoteProtocolError:
        outcome = "error"
    else:
        outcome = "incomplete" if decoded is None else "frame"
        if decoded is not None and "consumed" in entry:
            assert decoded[1] == entry["consumed"]
    assert outcome == ("error" if entry["name"] in STRICTER else entry["result"])


@pytest.mark.parametrize("session", CRYPTO["sessions"], ids=lambda s: s["name"])
def test_key_agreement(session: dict[str, Any]) -> None:
    client, server = bytes.fromhex(session["clientPrivateHex"]), bytes.fromhex(session["serverPrivateHex"])
    assert KeyPair(client).public == session["clientKey"]
    assert KeyPair(server).public == session["serverKey"]
    assert KeyPair(client).aes_key(session["serverKey"]).decode() == session["aesKey"]
    assert KeyPair(server).aes_key(session["clientKey"]).decode() == session["aesKey"]


@pytest.mark.parametrize("count", [1, 2, 3, 8, 9, 17, 19])
@pytest.mark.parametrize("session", CRYPTO["sessions"], ids=lambda s: s["name"])
def test_key_agreement_with_several_clients(session: dict[str, Any], count: int) -> None:
    """Made for several at once or one by one: the same keys come of it, and each client has its own."""
    server = KeyPair(bytes.fromhex(session["serverPrivateHex"]))
    keys = [session["clientKey"]] * count
    keys[count // 2] = KeyPair(bytes(range(32))).public
    agreed = protocol.agree(server, keys)
    assert [each.public for each in agreed] == [session["serverKey"]] * count
    expected = [session["aesKey"].encode()] * count
    expected[count // 2] = server.aes_key(keys[count // 2])
    assert [pair.aes_key(key) for pair, key in zip(agreed, keys, strict=True)] == expected


@pytest.mark.parametrize(
    "bad", ["", "no base64!", "\N{SNOWMAN}", b64encode(bytes(31)).decode(), b64encode(bytes(32)).decode()]
)
def test_a_bad_key_among_several_is_refused_alone(bad: str) -> None:
    """Not base64, too short, or a point of low order; as for one client (wire-protocol.md, section 4)."""
    server, good = KeyPair(bytes(range(32))), KeyPair(bytes(range(1, 33))).public
    keys = [good, bad, *[good] * 6]
    agreed = protocol.agree(server, keys)
    assert agreed[0].aes_key(good) == agreed[7].aes_key(good) == server.aes_key(good)
    with pytest.raises(RemoteProtocolError):
        agreed[1].aes_key(bad)


def test_what_follows_the_32_bytes_of_a_key_is_ignored_for_several_too() -> None:
    server, client = KeyPair(bytes(range(32))), KeyPair(bytes(range(1, 33)))
    longer = b64encode(b64decode(client.public) + b"more").decode()
    expected = [server.aes_key(client.public)] * 8
    assert [pair.aes_key(longer) for pair in protocol.agree(server, [longer] * 8)] == expected


def peer_of(name: str, version: int = 5) -> PeerLike:
    session = SESSIONS[name]
    return _connection.hot.Peer(version, key=session["aesKey"].encode(), iv=session["aesIv"].encode())


@pytest.mark.parametrize("entry", CRYPTO["payloads"], ids=lambda e: e["name"])
def test_payloads(entry: dict[str, Any]) -> None:
    peer, plain = peer_of(entry["session"]), bytes.fromhex(entry["plaintextHex"])
    assert peer.encrypt(plain).decode() == entry["encrypted"]
    assert peer.decrypt(entry["encrypted"].encode()) == plain


def connection(role: Role, session: str, version: int) -> Connection:
    made = Connection(role)
    made.version = version
    made._peer = peer_of(session, version)
    made.state = protocol.State.READY
    return made


@pytest.mark.parametrize("version", [2, 5])
@pytest.mark.parametrize("entry", CRYPTO["send"], ids=lambda e: e["name"])
def test_sends(entry: dict[str, Any], version: int) -> None:
    frame = bytes.fromhex(entry[f"frameHexV{version}"])
    server = connection(Role.SERVER, entry["session"], version)
    server.receive_data(frame)
    [event] = server.events()
    assert isinstance(event, protocol.SendReceived)
    assert (event.refusal, event.send.msg_key) == (0, entry["msgKey"])
    plain = event.send.payload
    client = connection(Role.CLIENT, entry["session"], version)
    assert frame == client.send_message(
        client_seq=entry["clientSeq"],
        client_msg_no=entry["clientMsgNo"],
        channel_id=entry["channelId"],
        channel_type=entry["channelType"],
        payload=plain,
        setting=entry["setting"],
        expire=entry["expire"],
        topic=entry.get("topic", ""),
    )


@pytest.mark.parametrize("version", [2, 5])
@pytest.mark.parametrize("entry", CRYPTO["recv"], ids=lambda e: e["name"])
def test_recvs(entry: dict[str, Any], version: int) -> None:
    frame = bytes.fromhex(entry[f"frameHexV{version}"])
    client = connection(Role.CLIENT, entry["session"], version)
    client.receive_data(frame)
    [event] = client.events()
    assert isinstance(event, protocol.RecvReceived)
    message = Message(
        entry["messageId"],
        entry["messageSeq"],
        ChannelKey("stored", entry["channelType"]),
        "stored sender",
        entry["clientMsgNo"],
        entry["timestamp"],
        2,
        entry["setting"],
        entry["expire"],
        entry.get("topic", ""),
        event.recv.payload,
    )
    server = connection(Role.SERVER, entry["session"], version)
    fields = protocol.recv_fields(message, entry["channelId"], entry["fromUid"], 2)
    assert [frame] == server.encode_recvs([fields])


@pytest.mark.parametrize("entry", CRYPTO["negative"], ids=lambda e: e["name"])
def test_negative(entry: dict[str, Any]) -> None:
    """Every fault of a SEND is refused with 9, every unusable client key with 2. Source: wire-protocol.md, 4.5."""
    if "clientKey" in entry:
        refused = entry["name"] != "client-key-40-bytes"
        assert connack_reason(entry["clientKey"]) == (2 if refused else 1)
        return
    base = next(each for each in CRYPTO["send"] if each["name"] == entry["base"])
    change = {snake(name): value for name, value in entry["change"].items()}
    decoded = protocol.decode(bytes.fromhex(base["frameHexV5"]), 0, 5)
    assert decoded is not None
    change = {name: value.encode() if name == "payload" else value for name, value in change.items()}
    send = dataclasses.replace(decoded[0], **change)
    server = connection(Role.SERVER, entry["session"], 5)
    server.receive_data(protocol.encode(send, 5))
    [event] = server.events()
    assert isinstance(event, protocol.SendReceived)
    assert event.refusal == 9


def connack_reason(client_key: str) -> int:
    server, client = Connection(Role.SERVER), Connection(Role.CLIENT)
    client.connect(uid="u", token="", device_id="d", device_flag=0, client_timestamp=0, private_key=bytes(32))
    server.receive_data(protocol.encode(protocol.Connect(5, 0, "d", "u", "", 0, client_key), 5))
    [event] = server.events()
    assert isinstance(event, protocol.ConnectReceived)
    try:
        answer = server.accept(b"\x07" * 32, b"0123456789abcdef", time_diff_ms=0, node_id=1)
    except RemoteProtocolError as exc:
        answer = exc.answer
    decoded = protocol.decode(answer, 0, 5)
    assert decoded is not None
    assert isinstance(decoded[0], protocol.ConnAck)
    return decoded[0].reason_code


@pytest.mark.parametrize("salt", ["", "0123456789abcde"])
def test_a_client_refuses_a_connack_whose_salt_is_too_short(salt: str) -> None:
    client = Connection(Role.CLIENT)
    client.connect(uid="u", token="", device_id="d", device_flag=0, client_timestamp=0, private_key=bytes(range(32)))
    connack = protocol.ConnAck(0, 1, server_key=KeyPair(b"\x07" * 32).public, salt=salt)
    client.receive_data(protocol.encode(connack, 5))
    with pytest.raises(RemoteProtocolError, match="salt"):
        client.events()
