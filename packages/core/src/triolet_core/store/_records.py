"""Values of the store, pure. FORMAT is raised when any of them, or a key, changes its form.

Messages and conversation positions are packed structs (0.4 µs each way where a cbor2 array takes 1.5 and 0.5);
everything that is not touched per message is a cbor2 array, to which fields can be added at the end.
"""

import struct
from collections.abc import Sequence

import attrs
import cbor2

from triolet_core.model import ChannelInfo, ChannelKey, DeviceToken, Message

FORMAT = 1

_MESSAGE = struct.Struct(">QIBBIHHH")
_LOG = struct.Struct(">HIQ")
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
        message.flags,
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
        flags,
        setting,
        expire,
        value[c:d].decode(),
        value[d:],
    )


def sender_and_flags(value: bytes) -> tuple[bytes, int]:
    """Return only the sender (UTF-8) and the flags of a message record."""
    size = _MESSAGE.size
    return value[size : size + int.from_bytes(value[18:20], "big")], value[12]


def encode_log(slot: int, number: int, seq: int) -> bytes:
    """Encode where a message lies."""
    return _LOG.pack(slot, number, seq)


def decode_log(value: bytes) -> tuple[int, int, int]:
    """Return (slot, channel number, seq) of a commit log entry."""
    slot, number, seq = _LOG.unpack(value)
    return slot, number, seq


@attrs.frozen(kw_only=True)
class ChannelRecord:
    """A channel: its number within the slot and, if a backend has set it, its info."""

    number: int
    info: ChannelInfo | None


def encode_channel(record: ChannelRecord) -> bytes:
    """Encode a channel record."""
    info = record.info
    return cbor2.dumps([record.number, None if info is None else list(attrs.astuple(info))])


def decode_channel(value: bytes) -> ChannelRecord:
    """Decode a channel record."""
    number, info = cbor2.loads(value)[:2]
    return ChannelRecord(number=number, info=None if info is None else _info(info))


def _info(fields: list[object]) -> ChannelInfo:
    names = [field.name for field in attrs.fields(ChannelInfo)]
    return ChannelInfo(**dict(zip(names, fields, strict=False)))  # type: ignore[arg-type]  # as encoded above


def encode_name(key: ChannelKey) -> bytes:
    """Encode a channel key as a value."""
    return bytes((key.type,)) + key.id.encode()


def decode_name(value: bytes) -> ChannelKey:
    """Decode a channel key."""
    return ChannelKey(value[1:].decode(), value[0])


def encode_device(device: DeviceToken) -> bytes:
    """Encode a device record."""
    return cbor2.dumps([device.token, device.level])


def decode_device(value: bytes) -> DeviceToken:
    """Decode a device record."""
    token, level = cbor2.loads(value)[:2]
    return DeviceToken(token=token, level=level)


@attrs.frozen(kw_only=True)
class Position:
    """How far one user has read, and hidden, one channel; times in seconds."""

    channel: ChannelKey
    read_to: int = 0
    deleted_to: int = 0
    created: int = 0
    updated: int = 0


def encode_position(position: Position) -> bytes:
    """Encode a conversation record; the id is in it because a long one is only a digest in the key."""
    head = _POSITION.pack(
        position.read_to, position.deleted_to, position.created, position.updated, position.channel.type
    )
    return head + position.channel.id.encode()


def decode_position(value: bytes) -> Position:
    """Decode a conversation record."""
    read_to, deleted_to, created, updated, kind = _POSITION.unpack_from(value)
    channel = ChannelKey(value[_POSITION.size :].decode(), kind)
    return Position(channel=channel, read_to=read_to, deleted_to=deleted_to, created=created, updated=updated)


def encode_audience(uids: Sequence[str]) -> bytes:
    """Encode the uids that one message goes to."""
    return cbor2.dumps(list(uids))


def decode_audience(value: bytes) -> tuple[str, ...]:
    """Decode the uids that one message goes to."""
    return tuple(cbor2.loads(value))


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
