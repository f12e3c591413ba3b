"""What a client writes into a stream, as events. Pure."""

import json
from base64 import b64encode
from typing import Any

import attrs

import triolet_protocol as wire
from triolet_core import ChannelKey, Draft, EventDraft, TrioletError, channel_key
from triolet_core.model import MAX_ID_BYTES

_MAIN, _FINISH_KEY = "main", "__finish__"
_DELTA, _CLOSE, _FINISH = "stream.delta", "stream.close", "stream.finish"
_KINDS = frozenset({_DELTA, _CLOSE, _FINISH, "stream.snapshot", "stream.error", "stream.cancel"})
_VISIBILITIES = frozenset({"public", "private", "restricted"})


class BadEvent(TrioletError):
    """An EVENT of a client whose data is not what it has to be."""


@attrs.frozen(kw_only=True)
class EventRequest:
    """An EVENT of a client: what to store, and a draft for those who judge what is sent."""

    event: EventDraft
    draft: Draft
    payload: bytes
    """The payload as it was before anybody judged it."""

    @property
    def channel(self) -> ChannelKey:
        """The channel of its stream."""
        return self.event.channel

    @property
    def client_msg_no(self) -> str:
        """The number of its stream."""
        return self.event.client_msg_no

    @property
    def event_key(self) -> str:
        """Its lane."""
        return self.event.event_key


def piece_of(at: tuple[ChannelKey, str], uid: str, event_id: str, payload: bytes) -> EventDraft:
    """Return the event that a piece becomes: the text of a JSON message, or the payload itself, is joined."""
    return EventDraft(
        channel=at[0],
        client_msg_no=at[1],
        event_id=event_id,
        event_type=_DELTA,
        from_uid=uid,
        payload=_delta(payload),
    )


def closing(at: tuple[ChannelKey, str], uid: str) -> EventDraft:
    """Return the event that ends a stream."""
    return EventDraft(
        channel=at[0], client_msg_no=at[1], event_id=f"{at[1]}:end", event_type=_CLOSE, from_uid=uid, payload={}
    )


def _delta(payload: bytes) -> Any:
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return {"kind": "base64", "data": b64encode(payload).decode()}
    try:
        value = _loads(text)
    except ValueError:
        return {"kind": "text", "delta": text}
    content = value.get("content", value) if isinstance(value, dict) else text
    return {"kind": "text", "delta": content} if isinstance(content, str) else content


def event_of(uid: str, frame: wire.EventFrame) -> EventRequest:
    """Read an EVENT of a client.

    Raises:
        BadEvent: Its type, id or data is not what it has to be.
    """
    kind = frame.type.lower()
    try:
        data = _loads(frame.data.decode())
    except ValueError:
        raise BadEvent("the data is no JSON text") from None
    if kind not in _KINDS or not isinstance(data, dict):
        raise BadEvent("no event of a stream")
    channel_id, channel_type = _name(data, "channel_id"), data.get("channel_type")
    if not isinstance(channel_type, int) or isinstance(channel_type, bool) or not 0 <= channel_type <= 255:
        raise BadEvent("channel_type is no number of 0 to 255")
    if not frame.id or len(frame.id.encode()) > MAX_ID_BYTES or not 0 <= frame.timestamp < 2**63:
        raise BadEvent("no id, one that is too long, or no time")
    payload = data.get("payload")
    text = b"" if payload is None else json.dumps(payload, ensure_ascii=False).encode()
    event = EventDraft(
        channel=channel_key(uid, channel_id, channel_type),
        client_msg_no=_name(data, "client_msg_no"),
        event_id=frame.id,
        event_type=kind,
        event_key=_FINISH_KEY if kind == _FINISH else _name(data, "event_key", _MAIN),
        from_uid=uid,
        visibility=_visibility(data),
        occurred_at=frame.timestamp,
        payload=payload,
    )
    return EventRequest(event=event, draft=Draft(channel_id, channel_type, text), payload=text)


def replaced(event: EventDraft, before: bytes, after: bytes) -> EventDraft:
    """Return the event with the payload that a plugin put in the place of its own, if one did."""
    return event if after == before else attrs.evolve(event, payload=_delta(after))


def _loads(text: str) -> Any:
    """Return the value of a JSON text that can be written as UTF-8 again.

    Raises:
        ValueError: It is none.
    """
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _name(data: dict[str, Any], key: str, default: str = "") -> str:
    value = data.get(key) or default
    if not isinstance(value, str) or not value or len(value.encode()) > MAX_ID_BYTES:
        raise BadEvent(f"{key} is no text of 1 to {MAX_ID_BYTES} bytes")
    return value


def _visibility(data: dict[str, Any]) -> str:
    value = data.get("visibility") or "public"
    if value not in _VISIBILITIES:
        raise BadEvent("visibility is not public, private or restricted")
    return str(value)
