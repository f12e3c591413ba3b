"""Members of JSON-RPC messages to packets and back. Source: wire-protocol.md, sections 7.1 and 7.2."""

import binascii
import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from triolet_protocol import _frames as frames
from triolet_protocol._errors import RequestError
from triolet_protocol._hot import RecvFields
from triolet_protocol._jsontext import clean, dump
from triolet_protocol._numbers import (
    DUP,
    NO_PERSIST,
    RED_DOT,
    SETTING_RECEIPT,
    SETTING_SIGNAL,
    SETTING_STREAM,
    SETTING_TOPIC,
    SYNC_ONCE,
    ReasonCode,
)

INVALID_PARAMS = -32602
_END = {"end": 1}
_FLAGS = {"noPersist": NO_PERSIST, "redDot": RED_DOT, "syncOnce": SYNC_ONCE, "dup": DUP}
_SETTINGS = {
    "receipt": SETTING_RECEIPT,
    "signal": SETTING_SIGNAL,
    "stream": SETTING_STREAM,
    "topic": SETTING_TOPIC,
}
_I64 = (-(2**63), 2**63 - 1)
_U8 = (0, 255)
_U32 = (0, 2**32 - 1)
_NAMES = {ReasonCode.CHANNEL_ID_ERROR: "ReasonChannelIDError"}


class Members:
    """The members of an object, by name without regard to case; the last of a name counts, null is its default."""

    __slots__ = ("_by_name", "_where")

    def __init__(self, value: Mapping[str, Any], where: str = "") -> None:
        self._by_name = {name.lower(): member for name, member in value.items()}
        self._where = where

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._by_name

    def get(self, name: str) -> Any:
        """Return a member as it is, None if there is none."""
        return self._by_name.get(name.lower())

    def text(self, name: str) -> str:
        """Return a string; the default is the empty one."""
        value = self.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self._wrong(name, "a string")
        return clean(value)

    def number(self, name: str, bounds: tuple[int, int] = _I64) -> int:
        """Return a whole number; the default is 0."""
        value = self.get(name)
        if value is None:
            return 0
        if not isinstance(value, int) or isinstance(value, bool) or not bounds[0] <= value <= bounds[1]:
            raise self._wrong(name, f"a whole number of {bounds[0]} to {bounds[1]}")
        return value

    def bits(self, name: str, table: Mapping[str, int]) -> int:
        """Return the bits of an object of booleans."""
        value = self.get(name)
        if value is None:
            return 0
        if not isinstance(value, dict):
            raise self._wrong(name, "an object")
        bits = Members(value, f"{name}.")
        return sum(bit for each, bit in table.items() if bits._boolean(each))

    def _boolean(self, name: str) -> bool:
        value = self.get(name)
        if not isinstance(value, bool | None):
            raise self._wrong(name, "true or false")
        return bool(value)

    def json_or_text(self, name: str) -> str:
        """Return a string as it is, an object as its compact JSON text."""
        value = self.get(name)
        return self._json(name, value) if isinstance(value, dict) else self.text(name)

    def payload(self, name: str) -> bytes:
        """Return bytes: from base64, or the compact JSON text of an object or array."""
        value = self.get(name)
        if isinstance(value, dict | list):
            return self._json(name, value).encode()
        try:
            return binascii.a2b_base64(self.text(name).encode(), strict_mode=True)
        except binascii.Error:
            raise self._wrong(name, "base64") from None

    def message_id(self, name: str) -> int:
        """Return a number that stands in a string, or is one; 0 if it is none."""
        value = self.get(name)
        if isinstance(value, int):
            return self.number(name)
        text = self.text(name)
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0

    def _json(self, name: str, value: object) -> str:
        try:
            return clean(json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False))
        except ValueError:
            raise self._wrong(name, "of numbers that JSON has") from None

    def _wrong(self, name: str, wanted: str) -> RequestError:
        return RequestError(INVALID_PARAMS, f"{self._where}{name} is not {wanted}")


# --- from clients


def read_connect(params: Members) -> frames.Connect:
    """Read the params of `connect`; numbers are cut to the width of the binary field."""
    return frames.Connect(
        version=params.number("version") & 0xFF or frames.LATEST_VERSION,
        device_flag=params.number("deviceFlag") & 0xFF,
        device_id=params.text("deviceId"),
        uid=params.text("uid"),
        token=params.text("token"),
        client_timestamp=params.number("clientTimestamp"),
        client_key=params.text("clientKey"),
        flags=params.bits("header", _FLAGS),
    )


def read_send(params: Members, client_seq: int) -> frames.Send:
    """Read the params of `send`."""
    return frames.Send(
        setting=params.bits("setting", _SETTINGS),
        client_seq=client_seq,
        client_msg_no=params.text("clientMsgNo"),
        channel_id=params.text("channelId"),
        channel_type=params.number("channelType") & 0xFF,
        expire=params.number("expire", _U32),
        msg_key=params.text("msgKey"),
        topic=params.text("topic"),
        payload=params.payload("payload"),
        flags=params.bits("header", _FLAGS),
        stream_no=params.text("streamNo"),
        ends_stream=bool(params.bits("header", _END)),
    )


def read_event(params: Members) -> frames.EventFrame:
    """Read the params of `event`; its data is JSON text, or an object."""
    data = params.json_or_text("data").encode()
    return frames.EventFrame(params.text("id"), params.text("type"), params.number("timestamp"), data)


def read_recvack(params: Members) -> frames.RecvAck:
    """Read the params of `recvack`."""
    return frames.RecvAck(params.message_id("messageId"), params.number("messageSeq"), params.bits("header", _FLAGS))


def read_disconnect(params: Members) -> frames.Disconnect:
    """Read the params of `disconnect`."""
    return frames.Disconnect(params.number("reasonCode") & 0xFF, params.text("reason"))


def read_sub(params: Members, action: int) -> frames.Sub:
    """Read the params of `subscribe` (action 0) and `unsubscribe` (1)."""
    return frames.Sub(
        0,
        params.text("subNo"),
        params.text("channelId"),
        params.number("channelType", _U8),
        action,
        params.json_or_text("param"),
    )


# --- to clients


def notification(method: str, params: dict[str, object]) -> bytes:
    """Return a whole notification. It has no id: some clients take every message with one for an answer."""
    return dump({"jsonrpc": "2.0", "method": method, "params": params})


def error(code: int, message: str) -> dict[str, object]:
    """Return the error member of an answer."""
    return {"error": {"code": int(code), "message": message}}


def connack(frame: frames.ConnAck) -> dict[str, object]:
    """Return the result of a `connect` that was accepted."""
    return {
        **({"serverVersion": frame.server_version} if frame.server_version else {}),
        **({"timeDiff": frame.time_diff} if frame.time_diff else {}),
        "reasonCode": frame.reason_code,
        "nodeId": frame.node_id,
    }


def sendack(flags: int, message_id: int, seq: int, reason: int) -> dict[str, object]:
    """Return the result of a `send`, accepted or refused."""
    return {
        **_bits("header", _FLAGS, flags),
        "messageId": str(message_id),
        "messageSeq": seq,
        "reasonCode": int(reason),
    }


def suback(frame: frames.SubAck) -> dict[str, object]:
    """Return the result of `subscribe` and `unsubscribe`."""
    return {
        "subNo": frame.sub_no,
        "channelId": frame.channel_id,
        "channelType": frame.channel_type,
        "action": frame.action,
        "reasonCode": frame.reason_code,
    }


def recv_frame(fields: RecvFields) -> frames.Recv:
    """Return the RECV of a message, which is not encrypted here."""
    message_id, seq, kind, timestamp, setting, expire, flags, number, channel_id, from_uid, topic, payload = fields
    return frames.Recv(
        setting, "", from_uid, channel_id, kind, expire, number, message_id, seq, timestamp, topic, payload, flags
    )


def recv(frame: frames.Recv) -> dict[str, object]:
    """Return the params of `recv`; what is zero or empty is left out as the reference does."""
    params = {**_bits("header", _FLAGS, frame.flags), **_bits("setting", _SETTINGS, frame.setting)}
    if frame.expire:
        params["expire"] = frame.expire
    params["messageId"] = str(frame.message_id)
    params["messageSeq"] = frame.message_seq
    if frame.client_msg_no:
        params["clientMsgNo"] = frame.client_msg_no
    if frame.stream_no:
        params["streamNo"] = params["streamId"] = frame.stream_no  # the reference repeats the number
    if frame.stream_flag:
        params["streamFlag"] = frame.stream_flag
    params["timestamp"] = frame.timestamp
    params["channelId"] = frame.channel_id
    params["channelType"] = frame.channel_type
    if frame.topic:
        params["topic"] = frame.topic
    params["fromUid"] = frame.from_uid
    params["payload"] = b64encode(frame.payload).decode()
    return params


def event(frame: frames.EventFrame) -> dict[str, object]:
    """Return the params of `event`."""
    data = frame.data.decode(errors="replace")
    return {"id": clean(frame.id), "type": clean(frame.type), "timestamp": frame.timestamp, "data": data}


def event_ack(frame: frames.EventFrame) -> dict[str, object]:
    """Return the result of `event`: the data of the event that acknowledges it."""
    result: dict[str, object] = json.loads(frame.data)
    return result


def disconnect(frame: frames.Disconnect) -> dict[str, object]:
    """Return the params of `disconnect`."""
    return {"reasonCode": frame.reason_code, **({"reason": frame.reason} if frame.reason else {})}


def reason_name(reason: int) -> str:
    """Return how the reference names a reason in error messages: `ReasonAuthFail`."""
    try:
        code = ReasonCode(reason)
    except ValueError:
        code = ReasonCode.UNKNOWN
    return _NAMES.get(code) or "Reason" + code.name.title().replace("_", "")


def _bits(name: str, table: Mapping[str, int], bits: int) -> dict[str, object]:
    named = {each: True for each, bit in table.items() if bits & bit}
    return {name: named} if named else {}
