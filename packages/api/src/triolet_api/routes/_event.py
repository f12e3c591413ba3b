"""Events of a message. Source: http-api.md, sections 6.8 and 6.9."""

import json
from typing import Any

import attrs

from triolet_api._call import Call, ask, key_for, post
from triolet_api._errors import ApiError
from triolet_api._fields import Anything, Flag, Number, Text, field
from triolet_api._fields import ChannelType as TypeField
from triolet_core import SYSTEM_UID, ChannelMismatch, EventDraft, EventReceipt, StreamClosed, StreamLimit

_NO_CHANNEL = "channel_id不能为空！"
_NO_NUMBER = "client_msg_no不能为空！"
MAIN = "main"
"""The lane of an event that names none."""
CLOSED, MISMATCH = "流已关闭！", "流的频道不匹配！"
UNKNOWN, UNKNOWN_V1 = "流不存在！", "流消息元数据不存在！"


@attrs.frozen(kw_only=True)
class EventBody:
    """An event for a message."""

    channel_id: str = field(Text(missing=_NO_CHANNEL))
    channel_type: int = field(TypeField())
    client_msg_no: str = field(Text(missing=_NO_NUMBER))
    event_id: str = field(Text(missing="event_id不能为空！", doc="a repeat answers the first"))
    event_type: str = field(Text(missing="event_type不能为空！", doc="stream.delta, …close, or any other"))
    event_key: str = field(Text(default=MAIN, doc="the lane"))
    from_uid: str = field(Text())
    message_id: int = field(Number(doc="without effect: the message is found by client_msg_no"))
    visibility: str = field(Text(default="public", doc="public, private (only its sender), restricted"))
    occurred_at: int = field(Number(doc="milliseconds; 0: now"))
    payload: Any = field(Anything())
    headers: Any = field(Anything(doc="without effect"))


@attrs.frozen(kw_only=True)
class EventSyncBody:
    """Events of a message behind a number."""

    channel_id: str = field(Text(missing=_NO_CHANNEL))
    channel_type: int = field(TypeField())
    from_uid: str = field(Text())
    client_msg_no: str = field(Text(missing=_NO_NUMBER))
    event_key: str = field(Text())
    from_msg_event_seq: int = field(Number())
    limit: int = field(Number(high=2**31, doc="0: 200; most 2000"))
    include_private: bool = field(Flag())


@attrs.frozen(kw_only=True)
class EventData:
    """What became of an event."""

    client_msg_no: str
    event_key: str
    event_id: str
    msg_event_seq: int
    stream_status: str
    channel_id: str
    channel_type: int
    from_uid: str


@attrs.frozen(kw_only=True)
class EventAnswer:
    """What became of an event."""

    status: int = 200
    data: EventData


@attrs.frozen(kw_only=True)
class EventRow:
    """The last state of a lane."""

    msg_event_seq: int
    event_id: str
    event_key: str
    event_type: str
    visibility: str
    occurred_at: int
    payload: Any


@attrs.frozen(kw_only=True)
class EventPage:
    """Lanes that changed."""

    client_msg_no: str
    from_msg_event_seq: int
    next_msg_event_seq: int
    more: int
    events: list[EventRow]
    filtered_by_event_key: str


@attrs.frozen(kw_only=True)
class EventPageAnswer:
    """Lanes that changed."""

    status: int = 200
    data: EventPage


async def add(call: Call, body: EventBody) -> EventAnswer:
    """Add an event to a message and tell the online members of its channel."""
    key = key_for(body.from_uid or SYSTEM_UID, body.channel_id, body.channel_type)
    kind = body.event_type.lower() if body.event_type.lower().startswith("stream.") else body.event_type
    draft = EventDraft(
        channel=key,
        client_msg_no=body.client_msg_no,
        event_id=body.event_id,
        event_type=kind,
        event_key="__finish__" if kind == "stream.finish" else body.event_key or MAIN,
        from_uid=body.from_uid,
        visibility=body.visibility or "public",
        occurred_at=body.occurred_at,
        payload=body.payload,
    )
    receipt = await add_events(call, draft, closed="stream closed", mismatch="message event channel mismatch")
    return EventAnswer(data=_event_data(body, receipt))


def _event_data(body: EventBody, receipt: EventReceipt) -> EventData:
    return EventData(
        client_msg_no=body.client_msg_no,
        event_key=receipt.event_key,
        event_id=receipt.event_id,
        msg_event_seq=receipt.event_seq,
        stream_status=receipt.status,
        channel_id=body.channel_id,
        channel_type=body.channel_type,
        from_uid=receipt.from_uid,
    )


async def add_events(call: Call, *drafts: EventDraft, closed: str = CLOSED, mismatch: str = MISMATCH) -> EventReceipt:
    """Add events to one stream, all or none; returns what became of the last.

    Raises:
        ApiError: The stream does not take them.
    """
    try:
        return (await call.broker.streams.add_all(drafts))[-1]
    except StreamClosed:
        raise ApiError(closed, code="stream_closed") from None
    except ChannelMismatch:
        raise ApiError(mismatch, code="channel_mismatch") from None
    except StreamLimit as exc:
        raise ApiError(str(exc), status=429, code="stream_limit") from None


def json_of(payload: bytes) -> Any:
    """Return a payload that is JSON and can be written as such again, else None."""
    try:
        value = json.loads(payload)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return None
    return value


async def event_sync(call: Call, body: EventSyncBody) -> EventPageAnswer:
    """Return the newest state of the lanes that changed behind a number."""
    lanes, more = call.broker.streams.lanes_after(
        key_for(body.from_uid or SYSTEM_UID, body.channel_id, body.channel_type),
        body.client_msg_no,
        event_key=body.event_key,
        after=body.from_msg_event_seq,
        limit=body.limit,
        include_private=body.include_private,
    )
    rows = [
        EventRow(
            msg_event_seq=lane.last_event_seq,
            event_id=lane.event_id,
            event_key=lane.key,
            event_type=lane.event_type,
            visibility=lane.visibility,
            occurred_at=lane.occurred_at,
            payload={
                "status": lane.status,
                "snapshot": json.loads(lane.snapshot) if lane.snapshot else None,
                "end_reason": lane.end_reason,
                "error": lane.error,
            },
        )
        for lane in lanes
    ]
    last = max((row.msg_event_seq for row in rows), default=body.from_msg_event_seq)
    return EventPageAnswer(
        data=EventPage(
            client_msg_no=body.client_msg_no,
            from_msg_event_seq=body.from_msg_event_seq,
            next_msg_event_seq=max(last, body.from_msg_event_seq),
            more=int(more),
            events=rows,
            filtered_by_event_key=body.event_key,
        )
    )


ROUTES = (
    post("/message/event", add, EventBody, EventAnswer, resource="message"),
    ask("/message/eventsync", event_sync, EventSyncBody, EventPageAnswer, resource="message"),
    ask(
        "/cluster/message/eventsync",
        event_sync,
        EventSyncBody,
        EventPageAnswer,
        resource="cluster",
        is_admin=True,
    ),
)
