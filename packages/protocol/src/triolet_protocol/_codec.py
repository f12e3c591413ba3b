"""Bytes to frame and back, for every version of the WuKongIM layout. Source: wire-protocol.md, sections 2 and 3."""

import struct
from collections.abc import Callable
from typing import Any

from triolet_protocol import _fields as f
from triolet_protocol import _frames as frames
from triolet_protocol import _limao
from triolet_protocol._errors import LocalProtocolError, RemoteProtocolError
from triolet_protocol._fields import Reader, text
from triolet_protocol._frames import Family, Frame, StreamLayout
from triolet_protocol._numbers import SETTING_STREAM, SETTING_STREAM_V1, SETTING_TOPIC, ReasonCode
from triolet_protocol._varint import decode_length, encode_length

MAX_FRAME = 1 << 20
"""Longest remaining length that is read (wire-protocol.md, section 1.5)."""
FIRST_WITH_EVENTS = 5
_PING = bytes((frames.PING << 4,))
_PONG = bytes((frames.PONG << 4,))
_STREAM_BIT = {
    StreamLayout.NEW: SETTING_STREAM,
    StreamLayout.OLD: SETTING_STREAM_V1,
    StreamLayout.EITHER: SETTING_STREAM | SETTING_STREAM_V1,
}


def encode(
    frame: Frame, version: int, family: Family = Family.WUKONG, streams: StreamLayout = StreamLayout.NEW
) -> bytes:
    """Encode a whole frame.

    Raises:
        LocalProtocolError: A field does not fit, or this version has no such packet.
    """
    kind = _KINDS[type(frame)]
    if kind == frames.PING:
        return _PING
    if kind == frames.PONG:
        return _PONG
    is_limao = family is Family.LIMAO
    try:
        body = _limao.encode_body(frame, version) if is_limao else _ENCODERS[kind](frame, version, streams)
    except struct.error as exc:
        raise LocalProtocolError(f"a number does not fit: {exc}") from exc
    flags = getattr(frame, "flags", 0) & 0x0F
    return bytes((kind << 4 | flags,)) + encode_length(len(body)) + body


def decode(
    buffer: bytes | bytearray,
    offset: int,
    version: int,
    family: Family = Family.WUKONG,
    *,
    max_frame: int = MAX_FRAME,
    streams: StreamLayout = StreamLayout.NEW,
) -> tuple[Frame, int] | None:
    """Decode the frame at `offset`.

    Returns:
        (frame, bytes consumed), or None if it is not all there.

    Raises:
        RemoteProtocolError: It cannot become a frame; the header alone is enough to tell where that is possible.
    """
    head = frame_bounds(buffer, offset, max_frame)
    if head is None:
        return None
    kind, start, end = head
    if kind == frames.PING:
        return frames.Ping(), 1
    if kind == frames.PONG:
        return frames.Pong(), 1
    reader = Reader(bytes(buffer[start:end]))
    flags = buffer[offset] & 0x0F
    if family is Family.LIMAO:
        frame = _limao.decode_body(kind, reader, version, flags)
    else:
        frame = _DECODERS[kind](reader, version, flags, streams)
    return frame, end - offset


def frame_bounds(buffer: bytes | bytearray, offset: int, max_frame: int) -> tuple[int, int, int] | None:
    """Return (type, start, end of the body) of the frame at `offset`, None if it is not all there.

    Raises:
        RemoteProtocolError: The type is unknown or the length too long.
    """
    if offset >= len(buffer):
        return None
    kind = buffer[offset] >> 4
    if kind in (frames.PING, frames.PONG):
        return kind, offset + 1, offset + 1
    if not frames.CONNECT <= kind <= frames.EVENT:
        raise RemoteProtocolError(ReasonCode.UNKNOWN, f"there is no packet of type {kind}")
    found = decode_length(buffer, offset + 1)
    if found is None:
        return None
    length, used = found
    if length > max_frame:
        detail = f"frame of {length} bytes exceeds the limit of {max_frame} (gateway.maxFrameSize)"
        raise RemoteProtocolError(ReasonCode.UNKNOWN, detail)
    start = offset + 1 + used
    return None if start + length > len(buffer) else (kind, start, start + length)


def _has_stream(version: int, setting: int, streams: StreamLayout) -> bool:
    return names_streams(version) and bool(setting & _STREAM_BIT[streams])


def names_streams(version: int) -> bool:
    """Whether a SEND of this version has a field for the number of a stream (wire-protocol.md, section 3.3)."""
    return 2 <= version < 5


# --- writing


def _connect(frame: frames.Connect, version: int, streams: StreamLayout) -> bytes:
    return b"".join(
        (
            f.U8_U8.pack(frame.version, frame.device_flag),
            text(frame.device_id),
            text(frame.uid),
            text(frame.token),
            f.I64.pack(frame.client_timestamp),
            text(frame.client_key),
        )
    )


def _connack(frame: frames.ConnAck, version: int, streams: StreamLayout) -> bytes:
    parts = [f.U8.pack(frame.server_version)] if frame.flags & 1 else []
    parts += [f.I64_U8.pack(frame.time_diff, frame.reason_code), text(frame.server_key), text(frame.salt)]
    if version >= 4:
        parts.append(f.U64.pack(frame.node_id))
    return b"".join(parts)


def _send(frame: frames.Send, version: int, streams: StreamLayout) -> bytes:
    parts = [f.U8_U32.pack(frame.setting, frame.client_seq), text(frame.client_msg_no)]
    if _has_stream(version, frame.setting, streams):
        parts.append(text(frame.stream_no))
    parts += [text(frame.channel_id), f.U8.pack(frame.channel_type)]
    if version >= 3:
        parts.append(f.U32.pack(frame.expire))
    parts.append(text(frame.msg_key))
    if frame.setting & SETTING_TOPIC:
        parts.append(text(frame.topic))
    parts.append(frame.payload)
    return b"".join(parts)


def _sendack(frame: frames.SendAck, version: int, streams: StreamLayout) -> bytes:
    form = f.SENDACK_V6 if version >= 6 else f.SENDACK
    head = form.pack(frame.message_id, frame.client_seq, frame.message_seq, frame.reason_code)
    return head + (text(frame.client_msg_no) if frame.client_msg_no else b"")


def _recv(frame: frames.Recv, version: int, streams: StreamLayout) -> bytes:
    parts = [f.U8.pack(frame.setting), text(frame.msg_key), text(frame.from_uid), text(frame.channel_id)]
    parts.append(f.U8.pack(frame.channel_type))
    if version >= 3:
        parts.append(f.U32.pack(frame.expire))
    parts.append(text(frame.client_msg_no))
    if _has_stream(version, frame.setting, streams):
        if streams is StreamLayout.NEW:
            parts += [f.U8.pack(frame.stream_flag), text(frame.stream_no), f.U64.pack(frame.stream_id)]
        else:
            parts += [text(frame.stream_no), f.U32.pack(frame.stream_seq), f.U8.pack(frame.stream_flag)]
    parts += [f.I64.pack(frame.message_id), (f.U64 if version >= 6 else f.U32).pack(frame.message_seq)]
    parts.append(f.I32.pack(frame.timestamp))
    if frame.setting & SETTING_TOPIC:
        parts.append(text(frame.topic))
    parts.append(frame.payload)
    return b"".join(parts)


def _recvack(frame: frames.RecvAck, version: int, streams: StreamLayout) -> bytes:
    return (f.RECVACK_V6 if version >= 6 else f.RECVACK).pack(frame.message_id, frame.message_seq)


def _disconnect(frame: frames.Disconnect, version: int, streams: StreamLayout) -> bytes:
    return f.U8.pack(frame.reason_code) + text(frame.reason)


def _sub(frame: frames.Sub, version: int, streams: StreamLayout) -> bytes:
    ids = f.U8.pack(frame.setting) + text(frame.sub_no) + text(frame.channel_id)
    return ids + f.U8_U8.pack(frame.channel_type, frame.action) + text(frame.param)


def _suback(frame: frames.SubAck, version: int, streams: StreamLayout) -> bytes:
    numbers = bytes((frame.channel_type, frame.action, frame.reason_code))
    return text(frame.sub_no) + text(frame.channel_id) + numbers


def _event(frame: frames.EventFrame, version: int, streams: StreamLayout) -> bytes:
    return text(frame.id) + text(frame.type) + f.I64.pack(frame.timestamp) + frame.data


# --- reading


def _read_connect(reader: Reader, version: int, flags: int, streams: StreamLayout) -> frames.Connect:
    own_version, device_flag = reader.numbers(f.U8_U8)
    device_id, uid, token = reader.text(), reader.text(), reader.text()
    (timestamp,) = reader.numbers(f.I64)
    return frames.Connect(own_version, device_flag, device_id, uid, token, timestamp, reader.text(), flags)


def read_connect(body: bytes, flags: int) -> tuple[Family, frames.Connect]:
    """Decode the body of a first CONNECT, and tell whose it is: a layout fits if it consumes the body exactly.

    Raises:
        RemoteProtocolError: It cannot become a frame of either.
    """
    reader = Reader(body)
    try:
        connect: frames.Connect | None = _read_connect(reader, frames.LATEST_VERSION, flags, StreamLayout.NEW)
    except RemoteProtocolError:
        connect = None
    if connect is not None and reader.is_empty and connect.uid and _limao.is_key(connect.client_key):
        return Family.WUKONG, connect  # as nearly everybody
    limao = _limao.read_connect(body, flags)
    if limao is not None:
        return Family.LIMAO, limao
    return Family.WUKONG, connect or _read_connect(Reader(body), frames.LATEST_VERSION, flags, StreamLayout.NEW)


def _read_connack(reader: Reader, version: int, flags: int, streams: StreamLayout) -> frames.ConnAck:
    server_version = reader.numbers(f.U8)[0] if flags & 1 else 0
    time_diff, reason = reader.numbers(f.I64_U8)
    key, salt = reader.text(), reader.text()
    node_id = reader.numbers(f.U64)[0] if version >= 4 else 0
    return frames.ConnAck(time_diff, reason, key, salt, node_id, server_version, flags)


def _read_send(reader: Reader, version: int, flags: int, streams: StreamLayout) -> frames.Send:
    setting, client_seq = reader.numbers(f.U8_U32)
    client_msg_no = reader.text()
    stream_no = reader.text() if _has_stream(version, setting, streams) else ""
    channel_id = reader.text()
    (channel_type,) = reader.numbers(f.U8)
    expire = reader.numbers(f.U32)[0] if version >= 3 else 0
    msg_key = reader.text()
    topic = reader.text() if setting & SETTING_TOPIC else ""
    return frames.Send(
        setting,
        client_seq,
        client_msg_no,
        channel_id,
        channel_type,
        expire,
        msg_key,
        topic,
        reader.rest(),
        flags,
        stream_no,
    )


def _read_sendack(reader: Reader, version: int, flags: int, streams: StreamLayout) -> frames.SendAck:
    message_id, client_seq, seq, reason = reader.numbers(f.SENDACK_V6 if version >= 6 else f.SENDACK)
    number = "" if reader.is_empty else reader.text()
    return frames.SendAck(message_id, client_seq, seq, reason, flags, number)


def _read_recv(reader: Reader, version: int, flags: int, streams: StreamLayout) -> frames.Recv:
    (setting,) = reader.numbers(f.U8)
    msg_key, from_uid, channel_id = reader.text(), reader.text(), reader.text()
    (channel_type,) = reader.numbers(f.U8)
    expire = reader.numbers(f.U32)[0] if version >= 3 else 0
    client_msg_no = reader.text()
    stream: dict[str, Any] = {}
    if _has_stream(version, setting, streams):
        if streams is StreamLayout.NEW:
            stream["stream_flag"] = reader.numbers(f.U8)[0]
            stream["stream_no"] = reader.text()
            stream["stream_id"] = reader.numbers(f.U64)[0]
        else:
            stream["stream_no"] = reader.text()
            stream["stream_seq"] = reader.numbers(f.U32)[0]
            stream["stream_flag"] = reader.numbers(f.U8)[0]
    (message_id,) = reader.numbers(f.I64)
    (seq,) = reader.numbers(f.U64 if version >= 6 else f.U32)
    (timestamp,) = reader.numbers(f.I32)
    topic = reader.text() if setting & SETTING_TOPIC else ""
    return frames.Recv(
        setting,
        msg_key,
        from_uid,
        channel_id,
        channel_type,
        expire,
        client_msg_no,
        message_id,
        seq,
        timestamp,
        topic,
        reader.rest(),
        flags,
        **stream,
    )


def _read_recvack(reader: Reader, version: int, flags: int, streams: StreamLayout) -> frames.RecvAck:
    message_id, seq = reader.numbers(f.RECVACK_V6 if version >= 6 else f.RECVACK)
    return frames.RecvAck(message_id, seq, flags)


def _read_disconnect(reader: Reader, version: int, flags: int, streams: StreamLayout) -> frames.Disconnect:
    return frames.Disconnect(reader.numbers(f.U8)[0], reader.text(), flags)


def _read_sub(reader: Reader, version: int, flags: int, streams: StreamLayout) -> frames.Sub:
    (setting,) = reader.numbers(f.U8)
    sub_no, channel_id = reader.text(), reader.text()
    channel_type, action = reader.numbers(f.U8_U8)
    return frames.Sub(setting, sub_no, channel_id, channel_type, action, reader.text(), flags)


def _read_suback(reader: Reader, version: int, flags: int, streams: StreamLayout) -> frames.SubAck:
    sub_no, channel_id = reader.text(), reader.text()
    channel_type, action = reader.numbers(f.U8_U8)
    return frames.SubAck(sub_no, channel_id, channel_type, action, reader.numbers(f.U8)[0], flags)


def _read_event(reader: Reader, version: int, flags: int, streams: StreamLayout) -> frames.EventFrame:
    event_id, kind = reader.text(), reader.text()
    return frames.EventFrame(event_id, kind, reader.numbers(f.I64)[0], reader.rest(), flags)


_KINDS: dict[type, int] = {
    frames.Connect: frames.CONNECT,
    frames.ConnAck: frames.CONNACK,
    frames.Send: frames.SEND,
    frames.SendAck: frames.SENDACK,
    frames.Recv: frames.RECV,
    frames.RecvAck: frames.RECVACK,
    frames.Ping: frames.PING,
    frames.Pong: frames.PONG,
    frames.Disconnect: frames.DISCONNECT,
    frames.Sub: frames.SUB,
    frames.SubAck: frames.SUBACK,
    frames.EventFrame: frames.EVENT,
}
_ENCODERS: dict[int, Callable[[Any, int, StreamLayout], bytes]] = {
    frames.CONNECT: _connect,
    frames.CONNACK: _connack,
    frames.SEND: _send,
    frames.SENDACK: _sendack,
    frames.RECV: _recv,
    frames.RECVACK: _recvack,
    frames.DISCONNECT: _disconnect,
    frames.SUB: _sub,
    frames.SUBACK: _suback,
    frames.EVENT: _event,
}
_DECODERS: dict[int, Callable[[Reader, int, int, StreamLayout], Frame]] = {
    frames.CONNECT: _read_connect,
    frames.CONNACK: _read_connack,
    frames.SEND: _read_send,
    frames.SENDACK: _read_sendack,
    frames.RECV: _read_recv,
    frames.RECVACK: _read_recvack,
    frames.DISCONNECT: _read_disconnect,
    frames.SUB: _read_sub,
    frames.SUBACK: _read_suback,
    frames.EVENT: _read_event,
}


def check_version(frame: Frame, version: int) -> None:
    """Raise `LocalProtocolError` if a peer of this version cannot read the frame (wire-protocol.md, rule 5)."""
    if isinstance(frame, frames.EventFrame) and version < FIRST_WITH_EVENTS:
        raise LocalProtocolError(f"version {version} has no EVENT")


def guess(data: bytes) -> str:
    """Say what the first bytes of a wrong protocol look like, for the log."""
    if data[:1] in (b"{", b"["):
        return ": this looks like JSON-RPC"
    if data[:4] in (b"GET ", b"POST", b"HEAD", b"PUT "):
        return ": this looks like HTTP"
    if data[:2] == b"\x16\x03":
        return ": this looks like TLS"
    return ": this looks like a PROXY header" if data[:5] == b"PROXY" else ""
