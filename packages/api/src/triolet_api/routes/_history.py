"""Reading messages back. Source: http-api.md, sections 6.3 to 6.7."""

from functools import partial
from typing import Any, cast

import attrs
import msgspec

from triolet_api._answers import OK, MessageObject, Ok, Page, message_object, message_objects
from triolet_api._call import Call, PersonTarget, ask, get, key_for, post
from triolet_api._errors import ApiError, missing
from triolet_api._fields import ChannelType as TypeField
from triolet_api._fields import MaybeFlag, MaybeNumber, Number, Numbers, Text, Texts, field
from triolet_api.routes._quick import QUICK_PAGE
from triolet_core import ChannelKey, ChannelType, Message, Query
from triolet_core.model import SYNC_ONCE

_NO_LOGIN = "login_uid不能为空！"
_NO_CHANNEL = "channel_id不能为空！"
_LOWEST = -(2**63)
MAX_FOUND = 1000


@attrs.frozen(kw_only=True)
class SyncBody:
    """A page of a channel, in WuKongIM's or LiMaoIM's terms."""

    login_uid: str = field(Text(missing=_NO_LOGIN))
    channel_id: str = field(Text(missing=_NO_CHANNEL))
    channel_type: int = field(TypeField())
    start_message_seq: int = field(Number(doc="inclusive"))
    end_message_seq: int = field(Number(doc="exclusive; 0: none"))
    limit: int = field(Number(low=_LOWEST, doc="0: 50; most 10000"))
    pull_mode: int = field(Number(low=_LOWEST, doc="1: upwards"))
    event_summary_mode: str = field(Text(default="basic", doc="full adds the snapshots of events"))
    min_message_seq: int | None = field(MaybeNumber(doc="LiMaoIM: exclusive"))
    max_message_seq: int | None = field(MaybeNumber(doc="LiMaoIM: exclusive"))
    reverse: bool | None = field(MaybeFlag(doc="LiMaoIM: 1 reads upwards"))

    @property
    def is_limao(self) -> bool:
        """Whether it asks in LiMaoIM's terms."""
        return not (self.min_message_seq is None and self.max_message_seq is None and self.reverse is None)


@attrs.frozen(kw_only=True)
class SearchBody:
    """Messages of a channel: by numbers, or what matches."""

    login_uid: str = field(Text())
    channel_id: str = field(Text(missing=_NO_CHANNEL))
    channel_type: int = field(TypeField())
    message_seqs: list[int] = field(Numbers())
    message_ids: list[int] = field(Numbers())
    client_msg_nos: list[str] = field(Texts())
    keyword: str = field(Text(is_free=True, doc="part of the text, upper and lower case alike"))
    from_uid: str = field(Text())
    start_time: int = field(Number(doc="seconds, inclusive"))
    end_time: int = field(Number(doc="seconds, inclusive; 0: none"))
    limit: int = field(Number(low=_LOWEST, doc="0: 50; most 1000"))

    @property
    def key(self) -> ChannelKey:
        """The channel as it is stored."""
        return _person(self.login_uid, self.channel_id, self.channel_type)

    @property
    def names_messages(self) -> bool:
        """Whether it names messages rather than what they hold."""
        return bool(self.message_seqs or self.message_ids or self.client_msg_nos)


@attrs.frozen(kw_only=True)
class OneBody(PersonTarget):
    """One message of a channel."""

    message_id: int = field(Number())
    client_msg_no: str = field(Text())


@attrs.frozen(kw_only=True)
class NumberQuery:
    """One message of a channel by the number its client gave it."""

    channel_id: str = field(Text(missing="channel_id不能为空"))
    channel_type: int = field(TypeField(missing="channel_type不能为0"))
    client_msg_no: str = field(Text(missing="client_msg_no不能为空"))
    login_uid: str = field(Text())

    @property
    def key(self) -> ChannelKey:
        """The channel as it is stored."""
        return _person(self.login_uid, self.channel_id, self.channel_type)


@attrs.frozen(kw_only=True)
class ChannelSeqQuery:
    """A channel as a user sees it."""

    channel_id: str = field(Text(missing="channel_id不能为空"))
    channel_type: int = field(Number(is_lenient=True, high=255))
    login_uid: str = field(Text())

    @property
    def key(self) -> ChannelKey:
        """The channel as it is stored."""
        return _person(self.login_uid, self.channel_id, self.channel_type)


@attrs.frozen(kw_only=True)
class CommandsBody:
    """The commands that wait for a user."""

    uid: str = field(Text(missing="用户uid不能为空！"))
    message_seq: int = field(Number(doc="without effect: what is acknowledged does not come again"))
    limit: int = field(Number(low=_LOWEST, doc="0: 200; most 10000"))


@attrs.frozen(kw_only=True)
class CommandsAckBody:
    """How far a user has dealt with his commands."""

    uid: str = field(Text(missing="用户UID不能为空！"))
    last_message_seq: int = field(Number(missing="最后一次messageSeq不能为0！"))


@attrs.frozen
class LastSeq:
    """The last sequence number of a channel, 0 if it has none."""

    message_seq: int


def _person(login_uid: str, channel_id: str, channel_type: int) -> ChannelKey:
    if channel_type == ChannelType.PERSON and not login_uid and "@" not in channel_id:
        raise missing(_NO_LOGIN)
    return key_for(login_uid, channel_id, channel_type)


async def sync(call: Call, body: SyncBody) -> Page:
    """Return a page of history."""
    key = key_for(body.login_uid, body.channel_id, body.channel_type)
    return await call.broker.settled(partial(_page, call, body, key), key)


def _page(call: Call, body: SyncBody, key: ChannelKey) -> Page:
    limit = max(body.limit, 0)
    if body.is_limao:
        return _limao_page(call, body, key, limit)
    start, end = body.start_message_seq, body.end_message_seq
    is_full = body.event_summary_mode == "full"
    shown, more = _shown(call, key, start=start, end=end, limit=limit, newer=body.pull_mode == 1, full=is_full)
    return Page(start_message_seq=start, end_message_seq=end, more=int(more), messages=shown)


def _limao_page(call: Call, body: SyncBody, key: ChannelKey, limit: int) -> Page:
    """Both bounds are exclusive; `reverse` reads upwards."""
    low, high = body.min_message_seq or 0, body.max_message_seq or 0
    downwards = not body.reverse and not low and bool(high)
    start, end = (max(high - 1, 0), 0) if downwards else (low + 1, high)
    if downwards and not start:
        return Page(
            start_message_seq=0, end_message_seq=high, min_message_seq=0, max_message_seq=high, more=0, messages=[]
        )
    shown, more = _shown(call, key, start=start, end=end, limit=limit, newer=not downwards)
    return Page(
        start_message_seq=low,
        end_message_seq=high,
        min_message_seq=low,
        max_message_seq=high,
        more=int(more),
        messages=shown,
    )


def _shown(
    call: Call, key: ChannelKey, *, start: int, end: int, limit: int, newer: bool, full: bool = False
) -> tuple[list[MessageObject], bool]:
    """Return a page of history and whether there is more; ready-made text where core has a faster way to it."""
    messages = call.broker.messages
    text = messages.sync_text(key, start=start, end=end, limit=limit, newer=newer)
    if text is not None:
        return cast("list[MessageObject]", msgspec.Raw(text.text)), text.more  # goes into the answer as it is
    page = messages.sync(key, start=start, end=end, limit=limit, newer=newer)
    return message_objects(call.broker, page.messages, full=full), page.more


async def messages(call: Call, body: SearchBody) -> Page:
    """Return messages of a channel by their numbers, or those that match."""
    if body.names_messages:
        return await call.broker.settled(partial(_named, call, body), body.key)
    query = Query(keyword=body.keyword, from_uid=body.from_uid, start=body.start_time, end=body.end_time)
    limit = min(body.limit, MAX_FOUND) if body.limit > 0 else 50
    found, more = await call.broker.search.channel(body.key, query, limit)
    return Page(
        start_message_seq=found[0].seq if found else 0,
        end_message_seq=found[-1].seq if found else 0,
        more=int(more),
        messages=message_objects(call.broker, found),
    )


def _named(call: Call, body: SearchBody) -> Page:
    stored, key = call.broker.messages, body.key
    found = stored.by_seqs(key, body.message_seqs)
    if call.broker.compat.missing_seq_is_error and len(found) < len(body.message_seqs):
        raise ApiError("no data", code="no_data")
    by_id = (stored.by_id(key, message_id) for message_id in body.message_ids)
    by_number = (stored.by_client_msg_no(key, number) for number in body.client_msg_nos)
    found += [message for message in (*by_id, *by_number) if message is not None]
    return Page(start_message_seq=0, end_message_seq=0, more=0, messages=message_objects(call.broker, found))


async def message(call: Call, body: OneBody) -> Any:
    """Return one message by its id or its client's number; `{"status":404}` if there is none."""
    found = await call.broker.settled(partial(_one, call, body), body.key)
    return Ok(404) if found is None else message_objects(call.broker, [found])[0]


def _one(call: Call, body: OneBody) -> Message | None:
    stored, key = call.broker.messages, body.key
    found = stored.by_id(key, body.message_id) if body.message_id else None
    if found is None and body.client_msg_no:
        found = stored.by_client_msg_no(key, body.client_msg_no)
    return found


async def by_client_msg_no(call: Call, query: NumberQuery) -> Any:
    """Return one message by its client's number; `{"status":404}` if there is none."""
    question = partial(call.broker.messages.by_client_msg_no, query.key, query.client_msg_no)
    found = await call.broker.settled(question, query.key)
    return Ok(404) if found is None else message_objects(call.broker, [found])[0]


async def max_message_seq(call: Call, query: ChannelSeqQuery) -> LastSeq:
    """Return the last sequence number of a channel."""
    return LastSeq(await call.broker.settled(partial(call.broker.messages.max_seq, query.key), query.key))


async def last_message(call: Call, query: ChannelSeqQuery) -> Any:
    """Return the newest message of a channel; `{"status":404}` if there is none."""
    question = partial(call.broker.messages.sync, query.key, start=0, end=0, limit=1, newer=False)
    page = await call.broker.settled(question, query.key)
    return message_objects(call.broker, page.messages)[-1] if page.messages else Ok(404)


async def commands(call: Call, body: CommandsBody) -> list[MessageObject]:
    """Return the commands that wait for a user; `message_seq` is their place in his queue."""
    if body.limit < 0:
        raise ApiError("limit不能为负数！", code="bad_field")
    if call.broker.config.message.disable_command_sync:
        return []
    waiting = call.broker.commands.waiting(body.uid, body.limit)
    return [
        attrs.evolve(
            message_object(attrs.evolve(each.message, flags=each.message.flags | SYNC_ONCE)), message_seq=each.place
        )
        for each in waiting
    ]


async def acknowledge_commands(call: Call, body: CommandsAckBody) -> Ok:
    """Forget the commands of a user up to a place."""
    if not call.broker.config.message.disable_command_sync:
        await call.broker.commands.acknowledge(body.uid, body.last_message_seq)
    return OK


ROUTES = (
    ask("/channel/messagesync", sync, SyncBody, Page, resource="message", quick=QUICK_PAGE),
    ask("/messages", messages, SearchBody, Page, resource="message"),
    ask("/message", message, OneBody, MessageObject | Ok, resource="message"),
    get("/message/byclientmsgno", by_client_msg_no, NumberQuery, MessageObject | Ok, resource="message"),
    get("/channel/max_message_seq", max_message_seq, ChannelSeqQuery, LastSeq, resource="message"),
    get("/channel/last_message", last_message, ChannelSeqQuery, MessageObject | Ok, resource="message"),
    ask("/message/sync", commands, CommandsBody, list[MessageObject], resource="message"),
    post("/message/syncack", acknowledge_commands, CommandsAckBody, Ok, resource="message"),
)
