"""Sending. Source: http-api.md, sections 6.1 and 6.2."""

import base64
import json
import uuid
from typing import Any, ClassVar

import attrs

from triolet_api._answers import Failure, Ok
from triolet_api._call import Call, Nothing, Services, post
from triolet_api._errors import BAD_FORMAT, ApiError, missing
from triolet_api._fields import (
    Anything,
    Flag,
    Needs,
    Number,
    Object,
    Payload,
    Text,
    Texts,
    field,
    read_object,
    schema_of,
)
from triolet_api._fields import ChannelType as TypeField
from triolet_api.routes._event import MISMATCH, UNKNOWN_V1, add_events, json_of
from triolet_api.routes._quick import quick_send
from triolet_core import SYSTEM_UID, ChannelKey, ChannelType, Device, Draft, EventDraft, ReasonCode, Receipt
from triolet_core.model import (
    COMMAND_SUFFIX,
    FORBIDDEN_ID_CHARACTERS,
    NO_PERSIST,
    RED_DOT,
    SETTING_STREAM,
    SYNC_ONCE,
    channel_key,
    new_client_msg_no,
)

NO_PAYLOAD = "payload不能为空！"
CANNOT_SEND = "无法处理发送消息请求！"
MAX_BATCH = 1000
_TELLS_STATUS = {ReasonCode.BAN, ReasonCode.DISBAND}


@attrs.frozen(kw_only=True)
class HeaderBody:
    """The flags of a message."""

    no_persist: bool = field(Flag())
    red_dot: bool = field(Flag())
    sync_once: bool = field(Flag())

    @property
    def flags(self) -> int:
        """The flags as bits."""
        return NO_PERSIST * self.no_persist | RED_DOT * self.red_dot | SYNC_ONCE * self.sync_once


@attrs.frozen(kw_only=True, slots=False)  # a second base of some bodies
class ContentBody:
    """What is sent: a payload, or `content` with a `type`, of which a JSON payload is made."""

    NEEDS: ClassVar[Needs] = (("payload", "content"),)

    payload: bytes = field(Payload())
    content: Any = field(Anything(doc="text or object, where there is no payload"))
    type: int = field(Number(default=1))

    def data(self, call: Call) -> bytes:
        """Return the payload.

        Raises:
            ApiError: There is none, or it is longer than message.maxPayloadBytes.
        """
        data = self.payload or self._made()
        limit = call.broker.config.message.max_payload_bytes
        if len(data) > limit:
            raise ApiError(f"payload: {len(data)} > {limit} (message.maxPayloadBytes)", code="payload_too_long")
        return data

    def _made(self) -> bytes:
        if self.content is None:
            raise missing(NO_PAYLOAD)
        content = self.content if isinstance(self.content, dict) else {"content": self.content}
        return json.dumps({"type": self.type, **content}, ensure_ascii=False, separators=(",", ":")).encode()


@attrs.frozen(kw_only=True)
class SendBody(ContentBody):
    """A message to a channel, or to listed users."""

    NEEDS: ClassVar[Needs] = (*ContentBody.NEEDS, ("channel_id", "subscribers"))

    header: HeaderBody = field(Object(of=HeaderBody))
    client_msg_no: str = field(Text(doc="made if it is absent; a repeat answers the first message"))
    from_uid: str = field(Text(doc="the system if it is absent"))
    channel_id: str = field(Text(too_long="频道ID不合法！"))
    channel_type: int = field(TypeField(is_optional=True))
    subscribers: list[str] = field(Texts(doc="users who get it, in place of a channel"))
    setting: int = field(Number(high=255))
    expire: int = field(Number(high=2**32 - 1, doc="seconds until it is deleted; 0: never"))
    topic: str = field(Text())
    is_stream: bool = field(Flag(doc="1: events will be added to it"))
    stream_no: str = field(Text(doc="the stream that this is a piece of"))
    tag_key: str = field(Text(doc="without effect"))


@attrs.frozen(kw_only=True)
class BatchBody(ContentBody):
    """A message to many users, each on his own."""

    header: HeaderBody = field(Object(of=HeaderBody))
    from_uid: str = field(Text(missing="from_uid不能为空！"))
    subscribers: list[str] = field(Texts(missing="subscribers不能为空！", names=("uids",)))


@attrs.frozen(kw_only=True)
class SentData:
    """The numbers of a stored message; `message_seq` is 0 for one that is not stored."""

    message_id: int
    message_idstr: str
    message_seq: int
    client_msg_no: str


@attrs.frozen(kw_only=True)
class Sent(SentData):
    """The numbers of a message, on both levels that clients look for them."""

    status: int = 200
    data: SentData


@attrs.frozen(kw_only=True)
class BatchAnswer:
    """Who could not be sent to, and why."""

    fail_uids: list[str]
    reason: list[str]


async def send(call: Call, body: SendBody) -> Any:
    """Send a message; answered after it is on disk."""
    if body.stream_no:
        return await _send_piece(call, body)
    sender, draft = await _draft(call, body)
    return _answered(call.services, sender.uid, draft, await call.broker.messages.send(sender, draft))


def _answered(services: Services, uid: str, draft: Draft, receipt: Receipt) -> Any:
    if receipt.reason == ReasonCode.SYSTEM_ERROR and services.broker.is_full:
        raise ApiError(f"{CANNOT_SEND}: the store is full", code="store_full", status=507)
    answer = answer_to(draft, receipt)
    if draft.is_stream and isinstance(answer, Sent):
        key = channel_key(uid, draft.channel_id, draft.channel_type)
        services.broker.streams.remember(key, draft.client_msg_no)
    return answer


async def _send_piece(call: Call, body: SendBody) -> Sent:
    """A message with a stream number is a piece of that stream and no message of its own."""
    payload = body.data(call)
    if not body.channel_id:
        raise ApiError(CANNOT_SEND, code="channel_or_subscribers")
    check_target(body.channel_id, body.channel_type, body.from_uid)
    key = channel_key(body.from_uid or SYSTEM_UID, body.channel_id, body.channel_type)
    if call.broker.streams.channel_of(body.stream_no) not in (None, key):
        raise ApiError(MISMATCH, code="channel_mismatch")
    if call.broker.streams.state(key, body.stream_no) is None:
        raise ApiError(UNKNOWN_V1, code="no_stream")
    draft = EventDraft(
        channel=key,
        client_msg_no=body.stream_no,
        event_id=body.client_msg_no or uuid.uuid4().hex,
        event_type="stream.delta",
        from_uid=body.from_uid,
        payload=_piece(payload),
    )
    receipt = await add_events(call, draft)
    return _sent(receipt.message_id, 0, receipt.event_id)


def _sent(message_id: int, seq: int, client_msg_no: str) -> Sent:
    text = str(message_id)
    return Sent(
        message_id=message_id,
        message_idstr=text,
        message_seq=seq,
        client_msg_no=client_msg_no,
        data=SentData(message_id=message_id, message_idstr=text, message_seq=seq, client_msg_no=client_msg_no),
    )


def _piece(payload: bytes) -> Any:
    """Return a payload as a delta: the text of a JSON message is joined, what is no text is kept as it is."""
    value = json_of(payload)
    if value is None:
        return {"kind": "base64", "data": base64.b64encode(payload).decode()}
    content = value.get("content") if isinstance(value, dict) else value
    return {"kind": "text", "delta": content} if isinstance(content, str) else value


async def send_batch(call: Call, body: Nothing) -> Any:
    """Send one message to many users (an object), or many messages (a list)."""
    if isinstance(call.json, list):
        return await _send_each(call, call.json)
    form: BatchBody = read_object(BatchBody, call.json, call.rules)
    payload, flags = form.data(call), form.header.flags
    drafts = [Draft(uid, ChannelType.PERSON, payload, flags=flags) for uid in form.subscribers]
    receipts = await call.broker.messages.send_many(_sender(form.from_uid), drafts)
    failed = [
        (uid, each) for uid, each in zip(form.subscribers, receipts, strict=True) if each.reason != ReasonCode.SUCCESS
    ]
    return BatchAnswer(fail_uids=[uid for uid, _ in failed], reason=[_reason(each.reason) for _, each in failed])


async def _send_each(call: Call, items: list[Any]) -> list[Any]:
    """Neighbours of one sender are stored together; each item has its own answer."""
    if len(items) > MAX_BATCH:
        raise ApiError(f"{BAD_FORMAT}: {len(items)} > {MAX_BATCH}", code="list_too_long")
    answers: list[Any] = []
    waiting: list[Draft] = []
    sender = _sender("")
    for item in items:
        try:
            body: SendBody = read_object(SendBody, item, call.rules)
            if waiting and (body.stream_no or _sender(body.from_uid) != sender):
                answers += await _send_all(call, sender, waiting)
                waiting = []
            if body.stream_no:
                answers.append(await _send_piece(call, body))
                continue
            sender, draft = await _draft(call, body)
        except ApiError as exc:
            answers += [*(await _send_all(call, sender, waiting)), exc.as_json()]
            waiting = []
        else:
            waiting.append(draft)
    return [*answers, *(await _send_all(call, sender, waiting))]


async def _send_all(call: Call, sender: Device, drafts: list[Draft]) -> list[Any]:
    receipts = await call.broker.messages.send_many(sender, drafts) if drafts else []
    answers: list[Any] = []
    for draft, receipt in zip(drafts, receipts, strict=True):
        try:
            answers.append(_answered(call.services, sender.uid, draft, receipt))
        except ApiError as exc:
            answers.append(exc.as_json())
    return answers


async def _draft(call: Call, body: SendBody) -> tuple[Device, Draft]:
    payload = body.data(call)
    flags = body.header.flags
    if bool(body.subscribers) == bool(body.channel_id):
        raise ApiError(CANNOT_SEND, code="channel_or_subscribers")
    check_target(body.channel_id, body.channel_type, body.from_uid)
    draft = Draft(
        body.channel_id or _temporary(call, body.subscribers, flags),
        body.channel_type if body.channel_id else int(ChannelType.TEMP),
        payload,
        body.client_msg_no or new_client_msg_no(),
        flags,
        body.setting | (SETTING_STREAM if body.is_stream else 0),
        body.expire,
        body.topic,
        to_uids=tuple(body.subscribers),
        is_stream=body.is_stream,
    )
    return _sender(body.from_uid), draft


def check_target(channel_id: str, channel_type: int, from_uid: str) -> None:
    """Refuse a channel, or the sender of a message to a person, that cannot be.

    Raises:
        ApiError: It cannot.
    """
    if any(character in channel_id for character in FORBIDDEN_ID_CHARACTERS):
        raise ApiError("频道ID不合法！", code="bad_id")
    if channel_id and not channel_type:
        raise ApiError("频道类型错误！", code="bad_channel_type")
    if channel_type == ChannelType.PERSON and any(c in from_uid for c in FORBIDDEN_ID_CHARACTERS):
        raise ApiError("from_uid不能包含特殊字符！", code="bad_id")


def _temporary(call: Call, uids: list[str], flags: int) -> str:
    """Return the channel of a message to listed users (semantics.md, section 2.7)."""
    channel = call.broker.config.channel
    if not flags & SYNC_ONCE:
        return f"{uuid.uuid4().hex}{channel.tmp_suffix}"
    if flags & NO_PERSIST:
        return channel.online_cmd_channel_id
    return f"{_fnv1a(','.join(uids).encode())}{COMMAND_SUFFIX}"


def _fnv1a(data: bytes) -> int:
    """Return the 64-bit FNV-1a hash."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def _sender(uid: str) -> Device:
    return Device(uid=uid or SYSTEM_UID, is_server=True)


def sending_key(from_uid: str, channel_id: str, channel_type: int) -> ChannelKey:
    """Return the channel as a sender names it."""
    return channel_key(from_uid or SYSTEM_UID, channel_id, channel_type)


def answer_to(draft: Draft, receipt: Receipt) -> Any:
    """Return what a sender is told.

    Raises:
        ApiError: It was refused for another reason than ban or disband.
    """
    if receipt.reason in _TELLS_STATUS:
        return Ok(int(receipt.reason))
    if receipt.reason != ReasonCode.SUCCESS:
        status = 503 if receipt.reason == ReasonCode.SYSTEM_ERROR else 400
        raise ApiError(f"{CANNOT_SEND}: {_reason(receipt.reason)}", code=_reason(receipt.reason), status=status)
    return _sent(receipt.message_id, receipt.seq, draft.client_msg_no)


def _reason(code: int) -> str:
    return ReasonCode(code).name.lower()


ROUTES = (
    post("/message/send", send, SendBody, Sent | Ok, resource="message", quick=quick_send(_answered)),
    post(
        "/message/sendbatch",
        send_batch,
        None,
        BatchAnswer | list[Sent | Ok | Failure],
        takes={"anyOf": [schema_of(BatchBody), {"type": "array", "items": schema_of(SendBody), "maxItems": MAX_BATCH}]},
        resource="message",
    ),
)
