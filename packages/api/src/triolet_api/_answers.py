"""Answers that several endpoints share, and how answers become JSON.

Answers are attrs classes; msgspec encodes them (bytes as base64, UNSET left out) and describes them for OpenAPI.
"""

import json
from collections.abc import Sequence
from typing import Any

import attrs
import msgspec
from msgspec import UNSET, UnsetType

from triolet_core import Broker, Message, Revision, RevisionKind, StreamState
from triolet_core.model import NO_PERSIST, RED_DOT, SYNC_ONCE, SYSTEM_UID, peer_of, plain_channel

encode = msgspec.json.encode
JSON = "application/json; charset=utf-8"


@attrs.frozen
class Ok:
    """It is done."""

    status: int = 200


OK = Ok()


@attrs.frozen(kw_only=True)
class Failure:
    """What was wrong. `status` is that of HTTP where the reference does not say otherwise."""

    msg: str
    status: int
    code: str | UnsetType = UNSET


@attrs.frozen
class Content:
    """An answer that is not JSON."""

    body: bytes
    content_type: str
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


@attrs.frozen
class Header:
    """The flags of a message."""

    no_persist: int
    red_dot: int
    sync_once: int


HEADERS = tuple(
    Header(int(bool(flags & NO_PERSIST)), int(bool(flags & RED_DOT)), int(bool(flags & SYNC_ONCE)))
    for flags in range(16)
)


@attrs.frozen(kw_only=True)
class Lane:
    """The state of one event key of a message."""

    event_key: str
    status: str
    last_msg_event_seq: int | UnsetType = UNSET
    snapshot: Any = UNSET
    end_reason: int | UnsetType = UNSET
    error: str | UnsetType = UNSET


@attrs.frozen(kw_only=True)
class EventMeta:
    """The events of a message in short."""

    has_events: bool
    completed: bool
    event_version: int
    last_msg_event_seq: int
    event_count: int
    open_event_count: int
    events: list[Lane]


@attrs.frozen(kw_only=True)
class Change:
    """What was done to a message after it was sent: 1 recalled, 2 edited."""

    kind: int
    by: str
    at: int
    version: int


@attrs.frozen(kw_only=True)
class MessageObject:
    """A message (http-api.md, section 3.4); `channel_id` of a person channel is the party that is not the sender."""

    header: Header
    setting: int
    message_id: int
    message_idstr: str
    client_msg_no: str
    message_seq: int
    from_uid: str
    channel_id: str
    channel_type: int
    expire: int
    timestamp: int
    payload: bytes
    topic: str | UnsetType = UNSET
    end: int | UnsetType = UNSET
    end_reason: int | UnsetType = UNSET
    error: str | UnsetType = UNSET
    stream_data: bytes | UnsetType = UNSET
    event_meta: EventMeta | UnsetType = UNSET
    is_deleted: int | UnsetType = UNSET
    """1 if it was recalled: the payload is gone."""
    revision: Change | UnsetType = UNSET


def message_object(message: Message) -> MessageObject:
    """Return a message as it is shown."""
    key = plain_channel(message.channel)
    sender = message.sender
    return MessageObject(
        header=HEADERS[message.flags],
        setting=message.setting,
        message_id=message.message_id,
        message_idstr=str(message.message_id),
        client_msg_no=message.client_msg_no,
        message_seq=message.seq,
        from_uid="" if sender == SYSTEM_UID else sender,
        channel_id=peer_of(key, sender),
        channel_type=key.type,
        expire=message.expire,
        timestamp=message.timestamp,
        payload=message.payload,
        topic=message.topic or UNSET,
    )


def message_objects(broker: Broker, messages: Sequence[Message], *, full: bool = False) -> list[MessageObject]:
    """Return messages as they are shown, with what happened to them; `full` adds the snapshots of their events."""
    shown = [message_object(message) for message in messages]
    if not any(message.marks for message in messages):
        return shown
    revisions, streams = broker.revisions.revisions(messages), broker.streams.states(messages)
    return [
        _with_marks(each, revisions.get(each.message_id), streams.get(each.message_id), full=full) for each in shown
    ]


def _with_marks(
    shown: MessageObject, revision: Revision | None, stream: StreamState | None, *, full: bool
) -> MessageObject:
    if revision is not None:
        change = Change(kind=int(revision.kind), by=revision.by, at=revision.at, version=revision.version)
        recalled = 1 if revision.kind is RevisionKind.RECALLED else UNSET
        shown = attrs.evolve(shown, revision=change, is_deleted=recalled)
    if stream is None or not stream.stream.event_count:
        return shown
    shown = attrs.evolve(shown, event_meta=event_meta(stream, full=full))
    main = next((lane for lane in stream.lanes if lane.key == "main"), None)
    if main is None:
        return shown
    return attrs.evolve(
        shown,
        stream_data=_text_of(main.snapshot).encode() or UNSET,
        end=1 if main.status != "open" else UNSET,
        end_reason=main.end_reason or UNSET,
        error=main.error or UNSET,
    )


def event_meta(stream: StreamState, *, full: bool) -> EventMeta:
    """Return the events of a message in short."""
    head, lanes = stream.stream, stream.lanes
    is_open = sum(lane.status == "open" for lane in lanes)
    return EventMeta(
        has_events=bool(lanes),
        completed=head.is_finished or (bool(lanes) and not is_open),
        event_version=head.event_count,
        last_msg_event_seq=head.last_event_seq,
        event_count=head.event_count,
        open_event_count=is_open,
        events=[
            Lane(
                event_key=lane.key,
                status=lane.status,
                last_msg_event_seq=lane.last_event_seq or UNSET,
                snapshot=json.loads(lane.snapshot) if full and lane.snapshot else UNSET,
                end_reason=lane.end_reason or UNSET,
                error=lane.error or UNSET,
            )
            for lane in lanes
            if lane.visibility == "public"
        ],
    )


def _text_of(snapshot: str) -> str:
    value = json.loads(snapshot) if snapshot else ""
    text = value.get("text") if isinstance(value, dict) else value
    return text if isinstance(text, str) else snapshot


@attrs.frozen(kw_only=True)
class Page:
    """Messages of a channel, rising by seq."""

    start_message_seq: int
    end_message_seq: int
    more: int
    messages: list[MessageObject]
    min_message_seq: int | UnsetType = UNSET
    max_message_seq: int | UnsetType = UNSET


@attrs.frozen(kw_only=True)
class ChannelName:
    """A channel as the asking user sees it."""

    channel_id: str
    channel_type: int
