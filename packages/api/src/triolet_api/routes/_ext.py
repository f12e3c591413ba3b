"""Our own additions below /ext/v1: bans, lists, messages of a backend's own shape. Source: http-api.md, section 11.

Ids are texts, error texts English. A write may carry `Idempotency-Key`: a repeat within ten minutes gets the first
answer. What other sections of the design add (groups, chat rooms, push, statistics) is not here.
"""

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio

from triolet_api._answers import JSON, OK, Content, MessageObject, Ok, encode, message_objects
from triolet_api._call import Call, Handler, Route, key_for
from triolet_api._config import ApiConfig
from triolet_api._errors import ApiError, missing
from triolet_api._fields import ChannelType as TypeField
from triolet_api._fields import Flag, Number, Numbers, Object, Text, Texts, field
from triolet_api.routes._send import ContentBody, HeaderBody
from triolet_core import ChannelInfo, ChannelKey, ChannelType, Device, Draft, NotFound, Query, ReasonCode
from triolet_core.model import SYSTEM_UID

MAX_TARGETS = 1000
QUIT_GRACE_S = 2.0


@attrs.frozen(kw_only=True)
class UserBody:
    """A user."""

    uid: str = field(Text(missing="uid is missing"))


@attrs.frozen(kw_only=True)
class TargetsBody(UserBody):
    """A user, and others on a list of his."""

    targets: list[str] = field(Texts(missing="targets is missing"))


@attrs.frozen(kw_only=True)
class ToUsersBody(ContentBody):
    """A message to users, each on his own."""

    header: HeaderBody = field(Object(of=HeaderBody))
    from_uid: str = field(Text(names=("from",), doc="the system if it is absent"))
    to: list[str] = field(Texts(missing="to is missing"))
    expire: int = field(Number(high=2**32 - 1))


@attrs.frozen(kw_only=True)
class ConversationBody:
    """A conversation as a user sees it."""

    uid: str = field(Text(doc="needed for a person channel"))
    channel_id: str = field(Text(missing="channel_id is missing"))
    channel_type: int = field(TypeField())

    @property
    def key(self) -> ChannelKey:
        """The channel as it is stored."""
        if self.channel_type == ChannelType.PERSON and not self.uid and "@" not in self.channel_id:
            raise missing("uid is missing")
        return key_for(self.uid, self.channel_id, self.channel_type)


@attrs.frozen(kw_only=True)
class MessageBody(ConversationBody):
    """A message of a conversation."""

    message_id: int = field(Number(missing="message_id is missing"))


@attrs.frozen(kw_only=True)
class ModifyBody(MessageBody, ContentBody):
    """A message and what it is to say."""


@attrs.frozen(kw_only=True)
class DeleteBody(ConversationBody):
    """Messages of a conversation."""

    message_ids: list[int] = field(Numbers())
    message_seqs: list[int] = field(Numbers(low=1))


@attrs.frozen(kw_only=True)
class HistoryQuery:
    """A stretch of time of a conversation."""

    uid: str = field(Text())
    channel_id: str = field(Text(missing="channel_id is missing"))
    channel_type: int = field(TypeField())
    start: int = field(Number(is_lenient=True, doc="seconds"), key="from")
    end: int = field(Number(is_lenient=True, doc="seconds"), key="to")
    limit: int = field(Number(is_lenient=True, default=100, high=MAX_TARGETS))


@attrs.frozen(kw_only=True)
class UidsQuery:
    """Users."""

    uids: str = field(Text(missing="uids is missing", is_free=True, doc="joined by commas"))


@attrs.frozen(kw_only=True)
class UidQuery:
    """A user."""

    uid: str = field(Text(missing="uid is missing"))


@attrs.frozen(kw_only=True)
class RetentionBody:
    """How long a channel keeps its messages."""

    channel_id: str = field(Text(missing="channel_id is missing"))
    channel_type: int = field(TypeField())
    keep_seconds: int = field(Number(high=2**32 - 1))
    keep_count: int = field(Number(high=2**32 - 1))
    reset: bool = field(Flag(doc="1: what the settings say"))


@attrs.frozen
class Online:
    """The devices of a user that are online."""

    uid: str
    device_flags: list[int]


@attrs.frozen
class OnlineAnswer:
    """Who is online."""

    status: int
    data: list[Online]


@attrs.frozen
class ListAnswer:
    """Users."""

    status: int
    data: list[str]


@attrs.frozen
class SentTo:
    """A message that was stored for a user, or why not."""

    uid: str
    message_id: str
    message_seq: int
    reason: str


@attrs.frozen
class SentToAnswer:
    """What became of each."""

    status: int
    data: list[SentTo]


@attrs.frozen
class HistoryAnswer:
    """Messages, rising."""

    status: int
    more: int
    data: list[MessageObject]


async def ban(call: Call, body: UserBody) -> Ok:
    """Turn a user away and close his connections."""
    await _set_ban(call, body.uid, banned=True)
    call.broker.presence.quit(body.uid, None, ReasonCode.BAN, "", QUIT_GRACE_S)
    return OK


async def unban(call: Call, body: UserBody) -> Ok:
    """Let a user in again."""
    await _set_ban(call, body.uid, banned=False)
    return OK


async def _set_ban(call: Call, uid: str, *, banned: bool) -> None:
    def changed(known: ChannelInfo | None) -> ChannelInfo:
        return attrs.evolve(known or ChannelInfo(), ban=banned)

    await call.broker.channels.update(ChannelKey(uid, ChannelType.PERSON), changed, None)


def _list_change(doc: str, pick: Callable[[Any], Callable[[ChannelKey, list[str]], Awaitable[None]]]) -> Handler:
    async def handler(call: Call, body: TargetsBody) -> Ok:
        await pick(call.broker.channels)(ChannelKey(body.uid, ChannelType.PERSON), body.targets)
        return OK

    handler.__doc__ = doc
    return handler


async def denied(call: Call, query: UidQuery) -> ListAnswer:
    """List who may not write to a user."""
    return ListAnswer(200, call.broker.channels.denied(ChannelKey(query.uid, ChannelType.PERSON)))


async def online(call: Call, query: UidsQuery) -> OnlineAnswer:
    """Say which devices of users are online."""
    uids = [uid for uid in query.uids.split(",") if uid][:MAX_TARGETS]
    presence = call.broker.presence
    return OnlineAnswer(
        200, [Online(uid, sorted({int(each.device.flag) for each in presence.sessions(uid)})) for uid in uids]
    )


async def send_private(call: Call, body: ToUsersBody) -> SentToAnswer:
    """Send a message to users, each on his own."""
    return await _send_each(call, body, ChannelType.PERSON)


async def send_group(call: Call, body: ToUsersBody) -> SentToAnswer:
    """Send a message to groups."""
    return await _send_each(call, body, ChannelType.GROUP)


async def _send_each(call: Call, body: ToUsersBody, kind: ChannelType) -> SentToAnswer:
    if len(body.to) > MAX_TARGETS:
        raise ApiError(f"to: {len(body.to)} > {MAX_TARGETS}", code="list_too_long")
    payload, flags = body.data(call), body.header.flags
    drafts = [Draft(to, kind, payload, f"{uuid.uuid4().hex}0", flags, 0, body.expire) for to in body.to]
    sender = Device(uid=body.from_uid or SYSTEM_UID, is_server=True)
    receipts = await call.broker.messages.send_many(sender, drafts)
    return SentToAnswer(
        200,
        [
            SentTo(to, str(each.message_id), each.seq, ReasonCode(each.reason).name.lower())
            for to, each in zip(body.to, receipts, strict=True)
        ],
    )


async def recall(call: Call, body: MessageBody) -> Ok:
    """Take a message back."""
    await _found(call.broker.revisions.recall(body.key, body.message_id, by=body.uid))
    return OK


async def modify(call: Call, body: ModifyBody) -> Ok:
    """Replace what a message says."""
    await _found(call.broker.revisions.edit(body.key, body.message_id, body.data(call), by=body.uid))
    return OK


async def _found(change: Awaitable[Any]) -> None:
    try:
        await change
    except NotFound as exc:
        raise ApiError(str(exc), status=404, code="not_found") from None


async def delete(call: Call, body: DeleteBody) -> Ok:
    """Delete messages for good."""
    stored = call.broker.messages
    found = [stored.by_id(body.key, message_id) for message_id in body.message_ids]
    seqs = [*body.message_seqs, *(message.seq for message in found if message is not None)]
    if seqs:
        await call.broker.revisions.delete(body.key, seqs)
    return OK


async def history(call: Call, query: HistoryQuery) -> HistoryAnswer:
    """Return the newest messages of a stretch of time."""
    key = ConversationBody(uid=query.uid, channel_id=query.channel_id, channel_type=query.channel_type).key
    found, more = await call.broker.search.channel(key, Query(start=query.start, end=query.end), query.limit or 100)
    return HistoryAnswer(200, int(more), message_objects(call.broker, found))


async def retention(call: Call, body: RetentionBody) -> Ok:
    """Say how long a channel keeps its messages."""
    age, count = (0, 0) if body.reset else (body.keep_seconds, body.keep_count)

    def changed(known: ChannelInfo | None) -> ChannelInfo:
        return attrs.evolve(known or ChannelInfo(), keep_s=age, keep_count=count)

    await call.broker.channels.update(ChannelKey(body.channel_id, body.channel_type), changed, None)
    return OK


def _once(handler: Handler) -> Handler:
    """Let a repeat with the same Idempotency-Key have the first answer."""

    async def repeated(call: Call, body: Any) -> Any:
        key = call.headers.get("idempotency-key", "")
        if not key:
            return await handler(call, body)
        repeats = call.services.repeats
        name = f"{call.caller.name}\0{handler.__module__}.{handler.__qualname__}\0{key}"
        while (running := repeats.waiting.get(name)) is not None:
            await running.wait()
        known = repeats.answers.get(name)
        if known is not None:
            return Content(known, JSON)
        repeats.waiting[name] = trio.Event()
        try:
            answer = encode(await handler(call, body))
            repeats.answers[name] = answer
        finally:
            repeats.waiting.pop(name).set()
        return Content(answer, JSON)

    repeated.__doc__ = handler.__doc__
    return repeated


def is_on(config: ApiConfig) -> bool:
    """Whether the settings want what is below /ext/v1."""
    return config.ext_on


def ext_write(path: str, handler: Handler, body: type[Any], answer: Any) -> Route:
    """Return an endpoint below /ext/v1 that changes something."""
    return Route(
        method="POST",
        path=f"/ext/v1/{path}",
        handler=_once(handler),
        body=body,
        answer=answer,
        action="w",
        resource="ext",
        mounted=is_on,
    )


def ext_read(path: str, handler: Handler, query: type[Any], answer: Any) -> Route:
    """Return an endpoint below /ext/v1 that only reads."""
    return Route(
        method="GET",
        path=f"/ext/v1/{path}",
        handler=handler,
        query=query,
        answer=answer,
        resource="ext",
        mounted=is_on,
    )


ROUTES = (
    ext_write("users/ban", ban, UserBody, Ok),
    ext_write("users/unban", unban, UserBody, Ok),
    ext_write(
        "users/blacklist/add", _list_change("Keep users from writing to one.", lambda c: c.add_denied), TargetsBody, Ok
    ),
    ext_write("users/blacklist/remove", _list_change("Let them again.", lambda c: c.remove_denied), TargetsBody, Ok),
    ext_write(
        "users/whitelist/add", _list_change("Allow only listed users.", lambda c: c.add_allowed), TargetsBody, Ok
    ),
    ext_write(
        "users/whitelist/remove", _list_change("Take users off it.", lambda c: c.remove_allowed), TargetsBody, Ok
    ),
    ext_read("users/blacklist", denied, UidQuery, ListAnswer),
    ext_read("users/online", online, UidsQuery, OnlineAnswer),
    ext_write("messages/private", send_private, ToUsersBody, SentToAnswer),
    ext_write("messages/group", send_group, ToUsersBody, SentToAnswer),
    ext_write("messages/recall", recall, MessageBody, Ok),
    ext_write("messages/modify", modify, ModifyBody, Ok),
    ext_write("messages/delete", delete, DeleteBody, Ok),
    ext_read("messages/history", history, HistoryQuery, HistoryAnswer),
    ext_write("channels/retention", retention, RetentionBody, Ok),
)
