"""Values of the store, pure. FORMAT is raised when any of them, or a key, changes its form.

Messages and conversation positions are packed structs (0.4 µs each way where a cbor2 array takes 1.5 and 0.5);
everything that is not touched per message is a cbor2 array, to which fields can be added at the end.
"""

import struct
from typing import Any

import attrs
import cbor2

from triolet_core.model import (
    ChannelInfo,
    ChannelKey,
    DeviceToken,
    Message,
    PluginBinding,
    Revision,
    RevisionKind,
)

FORMAT = 2
"""2: there may be a journal beside the tree (`_journal`), and positions of consumers stand before the commit log."""

_MESSAGE = struct.Struct(">QIBBIHHH")
_LOG = struct.Struct(">HIQ")
_LOG_PLACE = struct.Struct(">HI")
_POSITION = struct.Struct(">QQIIB")
_QUEUE_STATE = struct.Struct(">QQQ")


def encode_message(message: Message) -> bytes:
    """Encode what the key of a message does not say: id, time, flags, setting, expire, sender, client no, topic."""
    sender = message.sender.encode()
    client_msg_no = message.client_msg_no.encode()
    topic = message.topic.encode()
    head = _MESSAGE.pack(
        message.message_id,
        message.timestamp,
        message.flags | message.marks,
        message.setting,
        message.expire,
        len(sender),
        len(client_msg_no),
        len(topic),
    )
    return b"".join((head, sender, client_msg_no, topic, message.payload))


def decode_message(value: bytes, channel: ChannelKey, seq: int) -> Message:
    """Decode a message record of `channel` at `seq`."""
    message_id, timestamp, flags, setting, expire, n_sender, n_no, n_topic = _MESSAGE.unpack_from(value)
    a = _MESSAGE.size
    b = a + n_sender
    c = b + n_no
    d = c + n_topic
    return Message(
        message_id,
        seq,
        channel,
        value[a:b].decode(),
        value[b:c].decode(),
        timestamp,
        flags & 0x0F,
        setting,
        expire,
        value[c:d].decode(),
        value[d:],
        flags & 0xF0,
    )


def id_and_time(value: bytes) -> tuple[int, int, int]:
    """Return only the message id, the time and the expiry of a message record, all in whole seconds."""
    message_id, timestamp, _, _, expire, _, _, _ = _MESSAGE.unpack_from(value)
    return message_id, timestamp, expire


def send_of(value: bytes) -> tuple[int, int, str, str]:
    """Return only the message id, the time, the sender and the client's number of a message record."""
    message_id, timestamp, _, _, _, n_sender, n_no, _ = _MESSAGE.unpack_from(value)
    middle = _MESSAGE.size + n_sender
    return message_id, timestamp, value[_MESSAGE.size : middle].decode(), value[middle : middle + n_no].decode()


def sender_and_flags(value: bytes) -> tuple[bytes, int]:
    """Return only the sender (UTF-8) and the flags of a message record."""
    size = _MESSAGE.size
    return value[size : size + int.from_bytes(value[18:20], "big")], value[12]


def is_expired(value: bytes, now: float) -> bool:
    """Whether the message of a record is not to be handed out any more."""
    expire = int.from_bytes(value[14:18], "big")
    return expire > 0 and int.from_bytes(value[8:12], "big") + expire <= now


def encode_log(slot: int, number: int, seq: int) -> bytes:
    """Encode where a message lies."""
    return _LOG.pack(slot, number, seq)


def encode_log_place(slot: int, number: int) -> bytes:
    """Encode what the entries of all messages of a channel begin with."""
    return _LOG_PLACE.pack(slot, number)


def decode_log(value: bytes) -> tuple[int, int, int]:
    """Return (slot, channel number, seq) of a commit log entry."""
    slot, number, seq = _LOG.unpack(value)
    return slot, number, seq


@attrs.frozen(kw_only=True)
class ChannelRecord:
    """A channel: its number within the slot and, if a backend has set it, its info."""

    number: int
    info: ChannelInfo | None
    created: int = 0
    updated: int = 0


def encode_channel(record: ChannelRecord) -> bytes:
    """Encode a channel record."""
    info = None if record.info is None else list(attrs.astuple(record.info))
    return cbor2.dumps([record.number, info, record.created, record.updated])


def decode_channel(value: bytes) -> ChannelRecord:
    """Decode a channel record."""
    number, info, *times = cbor2.loads(value)
    created, updated = (*times, 0, 0)[:2]
    return ChannelRecord(number=number, info=None if info is None else _info(info), created=created, updated=updated)


def number_of_channel(value: bytes) -> int:
    """Return only the number of a channel record: the first item of a CBOR array."""
    size = value[1] - 0x17  # 1, 2, 3 for one, two, four bytes; without them the number is the byte itself
    return value[1] if size < 1 else int.from_bytes(value[2 : 2 + (1 << size - 1)], "big")


def _info(fields: list[object]) -> ChannelInfo:
    names = [field.name for field in attrs.fields(ChannelInfo)]
    return ChannelInfo(**dict(zip(names, fields, strict=False)))  # type: ignore[arg-type]  # as encoded above


def encode_name(key: ChannelKey) -> bytes:
    """Encode a channel key as a value."""
    return bytes((key.type,)) + key.id.encode()


def decode_name(value: bytes) -> ChannelKey:
    """Decode a channel key."""
    return ChannelKey(value[1:].decode(), value[0])


def encode_device(uid: str, device: DeviceToken) -> bytes:
    """Encode a device record."""
    return cbor2.dumps([*attrs.astuple(device), uid])


def decode_device(value: bytes) -> DeviceToken:
    """Decode a device record."""
    token, level, created, updated = (*cbor2.loads(value), 0, 0)[:4]
    return DeviceToken(token=token, level=level, created=created, updated=updated)


def device_uid(value: bytes) -> str:
    """Return whose device a record is; empty in records of before it was kept."""
    fields = cbor2.loads(value)
    return str(fields[4]) if len(fields) > 4 else ""


def encode_revision(revision: Revision) -> bytes:
    """Encode what happened to a message."""
    return cbor2.dumps([int(revision.kind), revision.by, revision.at, revision.version])


def decode_revision(value: bytes) -> Revision:
    """Decode what happened to a message."""
    kind, by, at, version = cbor2.loads(value)[:4]
    return Revision(kind=RevisionKind(kind), by=by, at=at, version=version)


def encode_binding(binding: PluginBinding) -> bytes:
    """Encode a plugin binding."""
    return cbor2.dumps(list(attrs.astuple(binding)))


def decode_binding(value: bytes) -> PluginBinding:
    """Decode a plugin binding."""
    uid, plugin_no, created, updated = cbor2.loads(value)[:4]
    return PluginBinding(uid=uid, plugin_no=plugin_no, created=created, updated=updated)


_PLACE = struct.Struct(">IQ")
_TAIL = struct.Struct(">QQ")


def encode_place(number: int, seq: int) -> bytes:
    """Encode where in its slot a message lies."""
    return _PLACE.pack(number, seq)


def decode_place(value: bytes) -> tuple[int, int]:
    """Return (channel number, seq)."""
    number, seq = _PLACE.unpack(value)
    return number, seq


def encode_command_tail(last: int, acknowledged: int) -> bytes:
    """Encode the ends of a command queue."""
    return _TAIL.pack(last, acknowledged)


def decode_command_tail(value: bytes | None) -> tuple[int, int]:
    """Return (last place given, last place acknowledged), zeros if there is no queue."""
    if value is None:
        return 0, 0
    last, acknowledged = _TAIL.unpack(value)
    return last, acknowledged


@attrs.frozen(kw_only=True)
class StreamRecord:
    """The head of a stream: the message that its events belong to."""

    client_msg_no: str
    message_id: int = 0
    from_uid: str = ""
    last_event_seq: int = 0
    event_count: int = 0
    is_finished: bool = False
    active: int = 0
    """Second of the last event."""
    open_lanes: int = 0


@attrs.frozen(kw_only=True)
class LaneRecord:
    """The state of one event key of a stream."""

    key: str
    status: str = ""
    last_event_seq: int = 0
    snapshot: str = ""
    """JSON text; empty if there is none."""
    end_reason: int = 0
    error: str = ""
    event_id: str = ""
    event_type: str = ""
    visibility: str = "public"
    occurred_at: int = 0


@attrs.frozen(kw_only=True)
class EventRecord:
    """One stored event of a stream."""

    seq: int
    id: str
    key: str
    type: str
    visibility: str
    occurred_at: int
    """Milliseconds since 1970."""
    payload: str
    """JSON text."""
    from_uid: str


def encode_fields(record: StreamRecord | LaneRecord | EventRecord) -> bytes:
    """Encode a record as the list of its fields."""
    return cbor2.dumps(list(attrs.astuple(record)))


def decode_stream(value: bytes) -> StreamRecord:
    """Decode the head of a stream."""
    return StreamRecord(**_named(StreamRecord, value))


def decode_lane(value: bytes) -> LaneRecord:
    """Decode a lane."""
    return LaneRecord(**_named(LaneRecord, value))


def decode_event(value: bytes) -> EventRecord:
    """Decode an event."""
    return EventRecord(**_named(EventRecord, value))


def encode_open(channel: ChannelKey, client_msg_no: str) -> bytes:
    """Encode which stream is open."""
    return cbor2.dumps([channel.type, channel.id, client_msg_no])


def decode_open(value: bytes) -> tuple[ChannelKey, str]:
    """Decode which stream is open."""
    kind, channel_id, client_msg_no = cbor2.loads(value)
    return ChannelKey(channel_id, kind), client_msg_no


def _named(kind: type, value: bytes) -> dict[str, Any]:
    return {field.name: each for field, each in zip(attrs.fields(kind), cbor2.loads(value), strict=False)}


@attrs.frozen(kw_only=True)
class Position:
    """How far one user has read, and hidden, one channel; times in seconds."""

    channel: ChannelKey
    read_to: int = 0
    deleted_to: int = 0
    set_at: int = 0
    """Last sequence number of the channel when the unread count was set: to have sent that or less is not to have
    read."""
    created: int = 0
    updated: int = 0


_HAS_SET_AT = 1 << 63
"""Bit of `deleted_to` that says that `set_at` follows; most positions do without."""


def encode_position(position: Position) -> bytes:
    """Encode a conversation record; the id is in it because a long one is only a digest in the key."""
    set_at = position.set_at.to_bytes(8, "big") if position.set_at else b""
    deleted_to = position.deleted_to | (_HAS_SET_AT if set_at else 0)
    head = _POSITION.pack(position.read_to, deleted_to, position.created, position.updated, position.channel.type)
    return head + set_at + position.channel.id.encode()


def decode_position(value: bytes) -> Position:
    """Decode a conversation record."""
    read_to, deleted_to, created, updated, kind = _POSITION.unpack_from(value)
    set_at, rest = 0, value[_POSITION.size :]
    if deleted_to & _HAS_SET_AT:
        deleted_to &= ~_HAS_SET_AT
        set_at, rest = int.from_bytes(rest[:8], "big"), rest[8:]
    return Position(
        channel=ChannelKey(rest.decode(), kind),
        read_to=read_to,
        deleted_to=deleted_to,
        set_at=set_at,
        created=created,
        updated=updated,
    )


@attrs.frozen(kw_only=True)
class QueueState:
    """The last number given in a durable queue, and what it holds."""

    last: int = 0
    count: int = 0
    size: int = 0


def encode_queue_state(state: QueueState) -> bytes:
    """Encode the state of a durable queue."""
    return _QUEUE_STATE.pack(state.last, state.count, state.size)


def decode_queue_state(value: bytes) -> QueueState:
    """Decode the state of a durable queue."""
    last, count, size = _QUEUE_STATE.unpack(value)
    return QueueState(last=last, count=count, size=size)
