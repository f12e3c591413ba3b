"""The field order of LiMaoIM, its versions 1 to 4. Source: wire-protocol.md, section 9."""

import binascii
import struct

from triolet_protocol import _fields as f
from triolet_protocol import _frames as frames
from triolet_protocol._errors import LocalProtocolError, RemoteProtocolError
from triolet_protocol._fields import Reader, text
from triolet_protocol._frames import Frame
from triolet_protocol._numbers import ReasonCode

_WITH_NUMBER, _WITH_KEYS, _WITH_SETTING = 2, 3, 4
"""First versions that have clientMsgNo, keys and msgKey, and the setting byte."""


def encode_body(frame: Frame, version: int) -> bytes:
    """Encode the body of a frame."""
    match frame:
        case frames.Connect():
            key = text(frame.client_key) if version >= _WITH_KEYS else b""
            head = f.U8.pack(frame.version) + key + f.U8.pack(frame.device_flag) + text(frame.device_id)
            return head + f.I64.pack(frame.client_timestamp) + text(frame.uid) + text(frame.token)
        case frames.ConnAck():
            keys = text(frame.server_key) + text(frame.salt) if version >= _WITH_KEYS else b""
            return keys + f.I64_U8.pack(frame.time_diff, frame.reason_code)
        case frames.Send():
            number = text(frame.client_msg_no) if version >= _WITH_NUMBER else b""
            channel = text(frame.channel_id) + f.U8.pack(frame.channel_type)
            return _head(frame, version) + f.U32.pack(frame.client_seq) + number + channel + frame.payload
        case frames.SendAck():
            return _SENDACK.pack(frame.client_seq, frame.message_id, frame.message_seq, frame.reason_code)
        case frames.Recv():
            number = text(frame.client_msg_no) if version >= _WITH_NUMBER else b""
            channel = text(frame.channel_id) + f.U8.pack(frame.channel_type) + text(frame.from_uid)
            ids = f.RECVACK.pack(frame.message_id, frame.message_seq) + number + f.I32.pack(frame.timestamp)
            return _head(frame, version) + ids + channel + frame.payload
        case frames.RecvAck():
            return f.RECVACK.pack(frame.message_id, frame.message_seq)
        case frames.Disconnect():
            return f.U8.pack(frame.reason_code) + text(frame.reason)
        case _:
            raise LocalProtocolError(f"LiMaoIM has no {type(frame).__name__}")


_SENDACK = struct.Struct(">IqIB")


def _head(frame: frames.Send | frames.Recv, version: int) -> bytes:
    setting = f.U8.pack(frame.setting) if version >= _WITH_SETTING else b""
    return setting + (text(frame.msg_key) if version >= _WITH_KEYS else b"")


def decode_body(kind: int, reader: Reader, version: int, flags: int) -> Frame:
    """Decode the body of a frame."""
    match kind:
        case frames.CONNECT:
            return _connect(reader, flags)
        case frames.CONNACK:
            key, salt = (reader.text(), reader.text()) if version >= _WITH_KEYS else ("", "")
            time_diff, reason = reader.numbers(f.I64_U8)
            return frames.ConnAck(time_diff, reason, key, salt, flags=flags)
        case frames.SEND:
            return _send(reader, version, flags)
        case frames.SENDACK:
            client_seq, message_id, seq, reason = reader.numbers(_SENDACK)
            return frames.SendAck(message_id, client_seq, seq, reason, flags)
        case frames.RECV:
            return _recv(reader, version, flags)
        case frames.RECVACK:
            message_id, seq = reader.numbers(f.RECVACK)
            return frames.RecvAck(message_id, seq, flags)
        case frames.DISCONNECT:
            return frames.Disconnect(reader.numbers(f.U8)[0], reader.text(), flags)
        case _:
            raise RemoteProtocolError(ReasonCode.UNKNOWN, f"LiMaoIM has no packet of type {kind}")


def _connect(reader: Reader, flags: int) -> frames.Connect:
    (version,) = reader.numbers(f.U8)
    key = reader.text() if version >= _WITH_KEYS else ""
    (device_flag,) = reader.numbers(f.U8)
    device_id = reader.text()
    (timestamp,) = reader.numbers(f.I64)
    uid, token = reader.text(), reader.text()
    return frames.Connect(version, device_flag, device_id, uid, token, timestamp, key, flags)


def _send(reader: Reader, version: int, flags: int) -> frames.Send:
    setting = reader.numbers(f.U8)[0] if version >= _WITH_SETTING else 0
    msg_key = reader.text() if version >= _WITH_KEYS else ""
    (client_seq,) = reader.numbers(f.U32)
    number = reader.text() if version >= _WITH_NUMBER else ""
    channel_id = reader.text()
    (channel_type,) = reader.numbers(f.U8)
    return frames.Send(setting, client_seq, number, channel_id, channel_type, 0, msg_key, "", reader.rest(), flags)


def _recv(reader: Reader, version: int, flags: int) -> frames.Recv:
    setting = reader.numbers(f.U8)[0] if version >= _WITH_SETTING else 0
    msg_key = reader.text() if version >= _WITH_KEYS else ""
    message_id, seq = reader.numbers(f.RECVACK)
    number = reader.text() if version >= _WITH_NUMBER else ""
    (timestamp,) = reader.numbers(f.I32)
    channel_id = reader.text()
    (channel_type,) = reader.numbers(f.U8)
    from_uid = reader.text()
    return frames.Recv(
        setting,
        msg_key,
        from_uid,
        channel_id,
        channel_type,
        0,
        number,
        message_id,
        seq,
        timestamp,
        "",
        reader.rest(),
        flags,
    )


def read_connect(body: bytes, flags: int) -> frames.Connect | None:
    """Decode the body of a CONNECT if this layout consumes it exactly and finds a uid and a version that there is."""
    reader = Reader(body)
    try:
        connect = _connect(reader, flags)
    except RemoteProtocolError:
        return None
    fits = reader.is_empty and bool(connect.uid) and connect.version <= _WITH_SETTING
    return connect if fits and (connect.version < _WITH_KEYS or is_key(connect.client_key)) else None


def is_key(value: str) -> bool:
    """Whether a text may be the public key of a client."""
    try:
        return len(binascii.a2b_base64(value)) >= 32
    except ValueError:
        return False
