"""What runs per message: one SEND in, one RECV out, SENDACKs in a row.

Plain slices and prebuilt structs instead of the field readers of `_codec`; the tests hold both to the same bytes.
A compiled module can take the place of these functions.
"""

import struct
from collections.abc import Iterable

from triolet_core.model import SETTING_STREAM, SETTING_STREAM_V1, SETTING_TOPIC, Message, ReasonCode
from triolet_gateway.protocol import _frames as frames
from triolet_gateway.protocol._crypto import SessionKeys
from triolet_gateway.protocol._errors import PayloadError
from triolet_gateway.protocol._frames import Family
from triolet_gateway.protocol._varint import encode_length

_STREAM_BITS = SETTING_STREAM | SETTING_STREAM_V1
_SENDACK_HEAD = 17
_SENDACK = struct.Struct(">BBqIIB")
_LIMAO_SENDACK = struct.Struct(">BBIqIB")
_IDS = struct.Struct(">qIi")

Ack = tuple[int, int, int, int, int]
"""(client_seq, flags, message_id, message_seq, reason)."""


def read_send(body: bytes, version: int, flags: int) -> frames.Send | None:
    """Decode the body of an ordinary SEND; None if it is unusual or broken, for `_codec` to look at."""
    setting = body[0] if body else 0xFF
    if setting & (_STREAM_BITS | SETTING_TOPIC):
        return None
    size = len(body)
    a = 7 + (body[5] << 8 | body[6]) if size > 6 else size
    if a + 2 > size:
        return None
    b = a + 2 + (body[a] << 8 | body[a + 1])
    c = b + 1 if version < 3 else b + 5
    if c + 2 > size:
        return None
    d = c + 2 + (body[c] << 8 | body[c + 1])
    if d > size:
        return None
    try:
        return frames.Send(
            setting,
            int.from_bytes(body[1:5], "big"),
            body[7:a].decode(),
            body[a + 2 : b].decode(),
            body[b],
            0 if version < 3 else int.from_bytes(body[b + 1 : c], "big"),
            body[c + 2 : d].decode(),
            "",
            body[d:],
            flags,
        )
    except UnicodeDecodeError:
        return None


def open_send(send: frames.Send, keys: SessionKeys, wrong_key: int) -> int:
    """Check the message key of a SEND and decrypt its payload in place.

    Returns 0, or the reason to refuse it: `wrong_key`, or PAYLOAD_DECODE_ERROR.
    """
    sign = f"{send.client_seq}{send.client_msg_no}{send.channel_id}{send.channel_type}".encode() + send.payload
    if keys.msg_key(sign) != send.msg_key:
        return wrong_key
    try:
        send.payload = keys.decrypt(send.payload)
    except PayloadError:
        return ReasonCode.PAYLOAD_DECODE_ERROR
    return 0


def write_recv(
    message: Message, channel_id: str, from_uid: str, flags: int, version: int, family: Family, keys: SessionKeys | None
) -> bytes:
    """Encode a message for one receiver, as it sees channel and sender; without stream bits below version 5."""
    payload = message.payload
    no, channel, sender = message.client_msg_no.encode(), channel_id.encode(), from_uid.encode()
    kind, seq, timestamp = message.channel.type, message.seq & 0xFFFFFFFF, message.timestamp
    msg_key = b""
    if keys is not None:
        payload = keys.encrypt(payload)
        sign = b"%d%d%b%d%b%b%d%b" % (message.message_id, seq, no, timestamp, sender, channel, kind, payload)
        msg_key = keys.msg_key(sign).encode()
    setting = message.setting if version >= 5 else message.setting & ~_STREAM_BITS
    if family is Family.LIMAO:
        body = _limao_recv(message, setting, msg_key, no, channel, sender, payload, version, seq)
    else:
        topic = message.topic.encode() if setting & SETTING_TOPIC else None
        body = b"".join(
            (
                bytes((setting,)),
                len(msg_key).to_bytes(2, "big"),
                msg_key,
                len(sender).to_bytes(2, "big"),
                sender,
                len(channel).to_bytes(2, "big"),
                channel,
                bytes((kind,)),
                message.expire.to_bytes(4, "big") if version >= 3 else b"",
                len(no).to_bytes(2, "big"),
                no,
                _IDS.pack(message.message_id, seq, timestamp),
                b"" if topic is None else len(topic).to_bytes(2, "big") + topic,
                payload,
            )
        )
    return bytes((frames.RECV << 4 | flags & 0x0F,)) + encode_length(len(body)) + body


def _limao_recv(
    message: Message,
    setting: int,
    msg_key: bytes,
    no: bytes,
    channel: bytes,
    sender: bytes,
    payload: bytes,
    version: int,
    seq: int,
) -> bytes:
    return b"".join(
        (
            bytes((setting,)) if version >= 4 else b"",
            len(msg_key).to_bytes(2, "big") + msg_key if version >= 3 else b"",
            message.message_id.to_bytes(8, "big"),
            seq.to_bytes(4, "big"),
            len(no).to_bytes(2, "big") + no if version >= 2 else b"",
            message.timestamp.to_bytes(4, "big"),
            len(channel).to_bytes(2, "big"),
            channel,
            bytes((message.channel.type,)),
            len(sender).to_bytes(2, "big"),
            sender,
            payload,
        )
    )


def write_sendacks(acks: Iterable[Ack], family: Family) -> bytes:
    """Encode SENDACKs, one behind the other."""
    if family is Family.LIMAO:
        pack = _LIMAO_SENDACK.pack
        return b"".join([pack(0x40, _SENDACK_HEAD, seq, mid, n, reason) for seq, _, mid, n, reason in acks])
    pack = _SENDACK.pack
    return b"".join(
        [pack(0x40 | flags & 0x0F, _SENDACK_HEAD, mid, seq, n, reason) for seq, flags, mid, n, reason in acks]
    )
