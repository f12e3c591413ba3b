"""Channels and their members. Source: http-api.md, sections 5.1 to 5.5."""

import json
from typing import Any

import attrs

from triolet_api._answers import OK, Ok
from triolet_api._call import Call, get, post
from triolet_api._errors import ApiError, missing
from triolet_api._fields import (
    Anything,
    Flag,
    MaybeFlag,
    MaybeTexts,
    Number,
    Text,
    Texts,
    field,
)
from triolet_api._fields import ChannelType as TypeField
from triolet_core import ChannelInfo, ChannelKey, ChannelType, ReasonCode

NO_CHANNEL = "频道ID不能为空！"
NO_CHANNEL_ID = "channel_id不能为空！"
SPECIAL = "频道ID不能包含特殊字符！"
NO_TYPE = "频道类型不能为0！"
_NO_MEMBERS = "订阅者不能为空！"
_NOT_FOR_PERSONS = "个人频道不支持添加订阅者！"
_TOO_LONG = "频道ID不合法！"
QUIT_GRACE_S = 2.0
"""What a banned user's client has to read why it is closed."""


@attrs.frozen(kw_only=True)
class ChannelBody:
    """A channel by its id."""

    channel_id: str = field(Text(missing=NO_CHANNEL, special=SPECIAL, too_long=_TOO_LONG))
    channel_type: int = field(TypeField())

    @property
    def key(self) -> ChannelKey:
        """The channel as it is stored."""
        return ChannelKey(self.channel_id, self.channel_type)


@attrs.frozen(kw_only=True)
class InfoBody(ChannelBody):
    """A channel and its info: absent flags count as 0, absent texts stay as they are."""

    large: bool = field(Flag())
    ban: bool = field(Flag(names=("forbidden",)))
    disband: bool = field(Flag())
    send_ban: bool = field(Flag())
    allow_stranger: bool = field(Flag())
    name: Any = field(Anything(doc="text"))
    avatar: Any = field(Anything(doc="text"))
    remark: Any = field(Anything(doc="text"))
    extra: Any = field(Anything(doc="any JSON, returned as it is"))

    def info(self, known: ChannelInfo | None) -> ChannelInfo:
        """Return the info that the channel is to have."""
        known = known or ChannelInfo()
        return attrs.evolve(
            known,
            large=self.large,
            ban=self.ban,
            disband=self.disband,
            send_ban=self.send_ban,
            allow_stranger=self.allow_stranger,
            name=_text("name", self.name, known.name),
            avatar=_text("avatar", self.avatar, known.avatar),
            remark=_text("remark", self.remark, known.remark),
            extra=known.extra if self.extra is None else json.dumps(self.extra, ensure_ascii=False),
        )


def _text(name: str, value: Any, known: str) -> str:
    if value is None:
        return known
    if not isinstance(value, str):
        raise ApiError(f"数据格式有误！: {name}: a text", code="bad_field")
    return value


@attrs.frozen(kw_only=True)
class CreateBody(InfoBody):
    """A channel, its info and members."""

    reset: bool | None = field(MaybeFlag(doc="1: the members take the place of those there are"))
    subscribers: list[str] | None = field(MaybeTexts(names=("uids",)))


@attrs.frozen(kw_only=True)
class MembersBody:
    """Members of a channel."""

    channel_id: str = field(Text(missing=NO_CHANNEL, special=SPECIAL, too_long=_TOO_LONG))
    channel_type: int = field(TypeField(default=int(ChannelType.GROUP)))
    subscribers: list[str] = field(Texts(missing=_NO_MEMBERS, names=("uids",)))
    reset: bool = field(Flag(doc="1: they take the place of those there are"))
    temp_subscriber: bool = field(Flag(doc="1: in memory only"))

    @property
    def key(self) -> ChannelKey:
        """The channel; persons have no members."""
        if self.channel_type == ChannelType.PERSON:
            raise ApiError(_NOT_FOR_PERSONS, code="person_channel")
        return ChannelKey(self.channel_id, self.channel_type)


@attrs.frozen(kw_only=True)
class RemovedBody(MembersBody):
    """Members who leave."""

    channel_type: int = field(TypeField())


@attrs.frozen(kw_only=True)
class TempBody:
    """Members of a temporary channel."""

    channel_id: str = field(Text(missing=NO_CHANNEL_ID, special=SPECIAL))
    uids: list[str] = field(Texts(missing="uids不能为空！", names=("subscribers",)))


@attrs.frozen(kw_only=True)
class ClearBody:
    """A channel whose members, or whose list, is emptied."""

    channel_id: str = field(Text(missing=NO_CHANNEL_ID, special=SPECIAL))
    channel_type: int = field(TypeField(missing=NO_TYPE))

    @property
    def key(self) -> ChannelKey:
        """The channel as it is stored."""
        return ChannelKey(self.channel_id, self.channel_type)


@attrs.frozen(kw_only=True)
class RetentionBody(ChannelBody):
    """How long a channel keeps its messages."""

    keep_seconds: int = field(Number(high=2**32 - 1, doc="0: what the settings say"))
    keep_count: int = field(Number(high=2**32 - 1, doc="newest messages that are kept; 0: what the settings say"))


@attrs.frozen(kw_only=True)
class ChannelQuery:
    """A channel."""

    channel_id: str = field(Text(missing=NO_CHANNEL_ID))
    channel_type: int = field(TypeField(missing=NO_TYPE))

    @property
    def key(self) -> ChannelKey:
        """The channel as it is stored."""
        return ChannelKey(self.channel_id, self.channel_type)


@attrs.frozen(kw_only=True)
class ChannelObject:
    """A channel with its counts."""

    channel_id: str
    channel_type: int
    large: int
    ban: int
    disband: int
    send_ban: int
    allow_stranger: int
    name: str
    avatar: str
    remark: str
    extra: Any
    keep_seconds: int
    keep_count: int
    subscriber_count: int
    allowlist_count: int
    denylist_count: int
    last_message_seq: int


async def create(call: Call, body: CreateBody) -> Ok:
    """Create or update a channel and its members."""
    members = body.subscribers
    if body.channel_type == ChannelType.PERSON and members:
        raise ApiError("不支持个人频道添加订阅者！", code="person_channel")
    if body.reset is None:
        replace = call.broker.compat.replaces_members_by_default and members is not None
    else:
        replace = body.reset
    if replace and members is None:
        members = []
    await call.broker.channels.update(body.key, body.info, members, replace=replace)
    _turn_out(call, body)
    return OK


async def put_info(call: Call, body: InfoBody) -> Ok:
    """Overwrite the flags of a channel and set its texts."""
    await call.broker.channels.update(body.key, body.info, None)
    _turn_out(call, body)
    return OK


def _turn_out(call: Call, body: InfoBody) -> None:
    """Close the connections of a user who was banned."""
    if body.channel_type == ChannelType.PERSON and body.ban:
        call.broker.presence.quit(body.channel_id, None, ReasonCode.BAN, "", QUIT_GRACE_S)


async def get_info(call: Call, query: ChannelQuery) -> Any:
    """Return a channel with its counts; `{"status":404}` if there is none."""
    row = call.broker.catalog.channel(query.key)
    if row is None:
        return Ok(404)
    info = row.info
    return ChannelObject(
        channel_id=query.channel_id,
        channel_type=query.channel_type,
        large=int(info.large),
        ban=int(info.ban),
        disband=int(info.disband),
        send_ban=int(info.send_ban),
        allow_stranger=int(info.allow_stranger),
        name=info.name,
        avatar=info.avatar,
        remark=info.remark,
        extra=json.loads(info.extra) if info.extra else None,
        keep_seconds=info.keep_s,
        keep_count=info.keep_count,
        subscriber_count=row.members,
        allowlist_count=row.allowed,
        denylist_count=row.denied,
        last_message_seq=row.last_seq,
    )


async def delete(call: Call, body: ChannelBody) -> Ok:
    """Disband a channel and delete its members, lists and messages."""
    if body.channel_type == ChannelType.PERSON:
        raise ApiError(_NOT_FOR_PERSONS, code="person_channel")
    await call.broker.channels.delete(body.key)
    return OK


async def subscriber_add(call: Call, body: MembersBody) -> Ok:
    """Add members to a channel, which is made if need be."""
    channels, key = call.broker.channels, body.key
    if not body.temp_subscriber:
        await channels.add_members(key, body.subscribers, replace=body.reset)
    elif body.reset:
        channels.set_temp_members(key, body.subscribers)
    else:
        for uid in body.subscribers:
            channels.add_temp_member(key, uid)
    return OK


async def subscriber_set(call: Call, body: MembersBody) -> Ok:
    """Replace the members of a channel."""
    await call.broker.channels.add_members(body.key, body.subscribers, replace=True)
    return OK


async def subscriber_remove(call: Call, body: RemovedBody) -> Ok:
    """Remove members of a channel, and their conversations of it."""
    channels, key = call.broker.channels, body.key
    if body.temp_subscriber:
        for uid in body.subscribers:
            channels.remove_temp_member(key, uid)
    else:
        await channels.remove_members(key, body.subscribers)
    return OK


async def subscriber_remove_all(call: Call, body: ClearBody) -> Ok:
    """Remove every member of a channel."""
    if body.channel_type == ChannelType.PERSON:
        raise ApiError("个人频道不支持此操作！", code="person_channel")
    await call.broker.channels.remove_all_members(body.key)
    return OK


async def temp_set(call: Call, body: TempBody) -> Ok:
    """Replace the members of a temporary channel, in memory."""
    if not body.uids:
        raise missing("uids不能为空！")
    call.broker.channels.set_temp_members(ChannelKey(body.channel_id, ChannelType.TEMP), body.uids)
    return OK


async def retention(call: Call, body: RetentionBody) -> Ok:
    """Say how long a channel keeps its messages."""

    def changed(known: ChannelInfo | None) -> ChannelInfo:
        return attrs.evolve(known or ChannelInfo(), keep_s=body.keep_seconds, keep_count=body.keep_count)

    await call.broker.channels.update(body.key, changed, None)
    return OK


ROUTES = (
    post("/channel", create, CreateBody, Ok),
    post("/channel/info", put_info, InfoBody, Ok),
    get("/channel/info", get_info, ChannelQuery, ChannelObject | Ok),
    post("/channel/delete", delete, ChannelBody, Ok),
    post("/channel/subscriber_add", subscriber_add, MembersBody, Ok),
    post("/channel/subscriber_set", subscriber_set, MembersBody, Ok),
    post("/channel/subscriber_remove", subscriber_remove, RemovedBody, Ok),
    post("/channel/subscriber_remove_all", subscriber_remove_all, ClearBody, Ok),
    post("/tmpchannel/subscriber_set", temp_set, TempBody, Ok),  # noqa: S108  # a URL
    post("/channel/retention", retention, RetentionBody, Ok),
)
