"""Streams in every form that the servers had. Source: http-api.md, sections 6.10 to 6.12."""

import uuid
from typing import Any, ClassVar

import attrs

from triolet_api._answers import OK, Ok
from triolet_api._call import Call, key_for, post
from triolet_api._errors import ApiError, missing
from triolet_api._fields import Anything, Flag, Needs, Number, Object, Text, field
from triolet_api._fields import ChannelType as TypeField
from triolet_api.routes._event import CLOSED, MAIN, MISMATCH, UNKNOWN, UNKNOWN_V1, add_events, json_of
from triolet_api.routes._send import (
    CANNOT_SEND,
    NO_PAYLOAD,
    ContentBody,
    HeaderBody,
    Sent,
    SentData,
    check_target,
    sending_key,
)
from triolet_core import SYSTEM_UID, ChannelKey, Device, Draft, EventDraft, ReasonCode, StreamState
from triolet_core.model import SETTING_STREAM

_NO_CHANNEL = "channel_id不能为空！"
_NO_NUMBER = "client_msg_no不能为空！"
_NO_STREAM_NO = "stream_no不能为空！"
_OLD_ENDS = {"___textmessageend": "stream.finish"}
_OLD_STARTS = frozenset({"___textmessagestart"})
_OLD_DELTAS = frozenset({"___textmessagecontent"})


@attrs.frozen(kw_only=True)
class StreamBody(ContentBody):
    """The message that a stream begins with."""

    header: HeaderBody = field(Object(of=HeaderBody))
    client_msg_no: str = field(Text())
    from_uid: str = field(Text())
    channel_id: str = field(Text(missing=CANNOT_SEND))
    channel_type: int = field(TypeField())
    expire: int = field(Number(high=2**32 - 1))


@attrs.frozen(kw_only=True)
class ChunkBody(ContentBody):
    """A piece of a stream."""

    NEEDS: ClassVar[Needs] = (("payload", "content", "end"),)

    stream_no: str = field(Text(missing=_NO_STREAM_NO))
    channel_id: str = field(Text(missing=_NO_CHANNEL))
    channel_type: int = field(TypeField())
    from_uid: str = field(Text())
    chunk_id: Any = field(Anything(doc="text or number; a repeat is not added again"))
    end: bool = field(Flag(doc="1: this was the last"))
    end_reason: int = field(Number(high=255))


@attrs.frozen(kw_only=True)
class StreamEndBody:
    """A stream that ends."""

    stream_no: str = field(Text(missing=_NO_STREAM_NO))
    channel_id: str = field(Text(missing=_NO_CHANNEL))
    channel_type: int = field(TypeField())
    from_uid: str = field(Text())


@attrs.frozen(kw_only=True)
class OldEvent:
    """An event as WuKongIM 2.2.1 to 2.2.3 had it."""

    id: str = field(Text())
    type: str = field(Text(missing="事件类型不能为空！"))
    timestamp: int = field(Number())
    data: Any = field(Anything())


@attrs.frozen(kw_only=True)
class OldEventBody:
    """Such an event, and its message."""

    NEEDS: ClassVar[Needs] = (("event",),)

    client_msg_no: str = field(Text(missing=_NO_NUMBER))
    channel_id: str = field(Text(missing=_NO_CHANNEL))
    channel_type: int = field(TypeField())
    from_uid: str = field(Text())
    event: OldEvent = field(Object(of=OldEvent))


@attrs.frozen(kw_only=True)
class OldEventQuery:
    """Whether another stream may run."""

    force: str = field(Text(doc="1: begin beside a running stream"))


@attrs.frozen(kw_only=True)
class StreamAnswer(Sent):
    """A stream that has begun."""

    stream_no: str


@attrs.frozen
class StreamNo:
    """A stream that has begun."""

    stream_no: str


@attrs.frozen(kw_only=True)
class ChunkData:
    """What became of a piece."""

    stream_no: str
    chunk_id: str
    stream_status: str


@attrs.frozen(kw_only=True)
class ChunkAnswer:
    """What became of a piece."""

    status: int = 200
    data: ChunkData


async def _begin(call: Call, body: StreamBody) -> SentData:
    payload = body.data(call)
    check_target(body.channel_id, body.channel_type, body.from_uid)
    number = body.client_msg_no or uuid.uuid4().hex
    draft = Draft(
        body.channel_id,
        body.channel_type,
        payload,
        number,
        body.header.flags,
        SETTING_STREAM,
        body.expire,
        is_stream=True,
    )
    receipt = await call.broker.messages.send(Device(uid=body.from_uid or SYSTEM_UID, is_server=True), draft)
    if receipt.reason != ReasonCode.SUCCESS:
        raise ApiError(f"{CANNOT_SEND}: {ReasonCode(receipt.reason).name.lower()}", code="refused")
    call.broker.streams.remember(sending_key(body.from_uid, body.channel_id, body.channel_type), number)
    return SentData(
        message_id=receipt.message_id,
        message_idstr=str(receipt.message_id),
        message_seq=receipt.seq,
        client_msg_no=number,
    )


async def create(call: Call, body: StreamBody) -> StreamAnswer:
    """Begin a stream with a message."""
    data = await _begin(call, body)
    return StreamAnswer(**attrs.asdict(data), data=data, stream_no=data.client_msg_no)


async def start(call: Call, body: StreamBody) -> StreamNo:
    """Begin a stream with a message, as WuKongIM 1.2.6 does."""
    return StreamNo((await _begin(call, body)).client_msg_no)


def _stream(call: Call, from_uid: str, body: ChunkBody | StreamEndBody) -> tuple[ChannelKey, StreamState]:
    key = key_for(from_uid or SYSTEM_UID, body.channel_id, body.channel_type)
    known = call.broker.streams.channel_of(body.stream_no)
    if known is not None and not from_uid:
        key = known if _names(known, body) else key
    if known is not None and known != key:
        raise ApiError(MISMATCH, code="channel_mismatch")
    state = call.broker.streams.state(key, body.stream_no)
    if state is None:
        raise ApiError(UNKNOWN, code="no_stream")
    return key, state


def _names(key: ChannelKey, body: ChunkBody | StreamEndBody) -> bool:
    """Whether a caller who does not say who sends means this channel."""
    return key.type == body.channel_type and body.channel_id in (key.id, *key.id.split("@"))


def _is_over(state: StreamState) -> bool:
    return state.stream.is_finished or any(lane.key == MAIN and lane.status not in ("", "open") for lane in state.lanes)


async def chunk(call: Call, body: ChunkBody) -> ChunkAnswer:
    """Add a piece to a stream; `end` closes it."""
    key, state = _stream(call, body.from_uid, body)
    if body.chunk_id is not None and not isinstance(body.chunk_id, (str, int)):
        raise ApiError("chunk_id: text or number", code="bad_field")
    number = state.stream.event_count + 1 if body.chunk_id is None else body.chunk_id
    chunk_id = str(number)
    content = body.content if body.content is not None else _text(body.payload)
    if content is None and not body.end:
        raise missing(NO_PAYLOAD)
    if _is_over(state):
        raise ApiError(CLOSED, code="stream_closed")
    drafts = [] if content is None else [_piece(key, body, chunk_id, content)]
    if body.end:
        drafts.append(_closing(key, body.stream_no, body.from_uid, body.end_reason))
    receipt = await add_events(call, *drafts)
    return ChunkAnswer(data=ChunkData(stream_no=body.stream_no, chunk_id=chunk_id, stream_status=receipt.status))


def _piece(key: ChannelKey, body: ChunkBody, chunk_id: str, content: Any) -> EventDraft:
    return EventDraft(
        channel=key,
        client_msg_no=body.stream_no,
        event_id=f"{body.stream_no}:{chunk_id}",
        event_type="stream.delta",
        from_uid=body.from_uid,
        payload={"kind": "text", "delta": content} if isinstance(content, str) else content,
    )


def _text(payload: bytes) -> Any:
    if not payload:
        return None
    value = json_of(payload)
    if value is None:
        return payload.decode("utf-8", "replace")
    return value.get("content", value) if isinstance(value, dict) else value


def _closing(key: ChannelKey, stream_no: str, from_uid: str, end_reason: int) -> EventDraft:
    return EventDraft(
        channel=key,
        client_msg_no=stream_no,
        event_id=f"{stream_no}:end",
        event_type="stream.close",
        from_uid=from_uid,
        payload={"end_reason": end_reason},
    )


async def end(call: Call, body: StreamEndBody) -> Ok:
    """Close a stream."""
    key, _ = _stream(call, body.from_uid, body)
    await add_events(call, _closing(key, body.stream_no, body.from_uid, 0))
    return OK


async def end_v1(call: Call, body: StreamEndBody) -> Ok:
    """Close a stream, as WuKongIM 1.2.6 does."""
    try:
        return await end(call, body)
    except ApiError as exc:
        if exc.message == UNKNOWN:
            raise ApiError(UNKNOWN_V1, code="no_stream") from None
        raise


async def old_event(call: Call, body: OldEventBody) -> Ok:
    """Add an event in the form of WuKongIM 2.2.1 to 2.2.3; `?force=1` begins anew beside a running stream."""
    kind = body.event.type.lower()
    key = key_for(body.from_uid or SYSTEM_UID, body.channel_id, body.channel_type)
    event_id = body.event.id or uuid.uuid4().hex
    if kind in _OLD_STARTS:
        if call.query.get("force") != "1" and call.broker.streams.has_open(key):
            raise ApiError("频道中已有流正在运行！", code="stream_running")
        call.broker.streams.remember(key, body.client_msg_no)
        event_type, payload = "stream.delta", {"kind": "text", "delta": ""}
    elif kind in _OLD_DELTAS:
        _known(call, key, body.client_msg_no)
        event_type, payload = "stream.delta", _delta(body.event.data)
    elif kind in _OLD_ENDS:
        _known(call, key, body.client_msg_no)
        event_type, payload = _OLD_ENDS[kind], body.event.data
    else:
        event_type, payload = body.event.type, body.event.data
    draft = EventDraft(
        channel=key,
        client_msg_no=body.client_msg_no,
        event_id=event_id,
        event_type=event_type,
        event_key="__finish__" if event_type == "stream.finish" else MAIN,
        from_uid=body.from_uid,
        occurred_at=body.event.timestamp,
        payload=payload,
        shown_type=body.event.type,
    )
    await add_events(call, draft)
    return OK


def _delta(data: Any) -> Any:
    if isinstance(data, dict) and isinstance(data.get("delta"), str):
        return {"kind": "text", "delta": data["delta"]}
    return {"kind": "text", "delta": data} if isinstance(data, str) else data


def _known(call: Call, key: ChannelKey, number: str) -> None:
    known = call.broker.streams.channel_of(number)
    if known is not None and known != key:
        raise ApiError(MISMATCH, code="channel_mismatch")
    if call.broker.streams.state(key, number) is None:
        raise ApiError(UNKNOWN, code="no_stream")


ROUTES = (
    post("/stream", create, StreamBody, StreamAnswer, resource="message"),
    post("/stream/chunk", chunk, ChunkBody, ChunkAnswer, resource="message"),
    *(
        post(path, start, StreamBody, StreamNo, resource="message")
        for path in ("/streammessage/start", "/stream/start", "/stream/open")
    ),
    post("/streammessage/end", end_v1, StreamEndBody, Ok, resource="message"),
    *(post(path, end, StreamEndBody, Ok, resource="message") for path in ("/stream/end", "/stream/close")),
    post("/event", old_event, OldEventBody, Ok, query=OldEventQuery, resource="message"),
)
