"""Logging in, receiver sets, migration. Source: http-api.md, sections 8.6, 8.8, 8.9."""

import datetime
import hashlib
import time
from collections.abc import Mapping
from typing import Any

import attrs

from triolet_api._answers import OK, Ok
from triolet_api._auth import Authority
from triolet_api._call import Call, Nothing, ask, get, post
from triolet_api._errors import ApiError
from triolet_api._fields import ChannelType as TypeField
from triolet_api._fields import Number, Text, field
from triolet_api.routes._cluster_nodes import check_node, node_id
from triolet_core import ChannelKey
from triolet_core.model import SLOT_COUNT, slot_of

MAX_TAGS = 1000


@attrs.frozen(kw_only=True)
class LoginBody:
    """Who logs in."""

    username: str = field(Text(missing="用户名不能为空"))
    password: str = field(Text(missing="密码不能为空", is_free=True))


@attrs.frozen(kw_only=True)
class LoginUser:
    """Who has logged in."""

    username: str
    permissions: str


@attrs.frozen(kw_only=True)
class Login:
    """A token and what it is good for; `exp` and `expire` are the second it ends."""

    username: str
    token: str
    exp: int
    expire: int
    permissions: str
    user: LoginUser


@attrs.frozen(kw_only=True)
class TagQuery:
    """A receiver set, by its key or its channel."""

    tag_key: str = field(Text())
    channel_id: str = field(Text())
    channel_type: int = field(Number(is_lenient=True, high=255))
    node_id: int = field(Number(is_lenient=True))


@attrs.frozen(kw_only=True)
class TagBody:
    """A receiver set, by its key or its channel."""

    tag_key: str = field(Text())
    channel_id: str = field(Text())
    channel_type: int = field(TypeField(is_optional=True))
    node_id: int = field(Number())


@attrs.frozen(kw_only=True)
class TagNode:
    """Who of a receiver set belongs to a node."""

    leader_id: int
    uid_count: int
    uids: list[str]
    slot_ids: list[int]


@attrs.frozen(kw_only=True)
class Tag:
    """The receivers of a channel that are kept in memory. When it was made and last used is not kept."""

    key: str
    channel_id: str
    channel_type: int
    nodes: list[TagNode]
    created_at: str
    expire_at: str
    last_get_at: str
    node_version: int
    get_count: int


@attrs.frozen(kw_only=True)
class MigrateResult:
    """How far an import is; none is ever under way."""

    status: str
    step: str
    last_err: str
    try_count: int


@attrs.frozen(kw_only=True)
class SlotBody:
    """A slot."""

    slot: int = field(Number(high=SLOT_COUNT - 1))


@attrs.frozen(kw_only=True)
class ExportedChannel:
    """A channel that messages can be fetched from with /channel/messagesync."""

    channel_id: str
    channel_type: int
    last_message_seq: int


@attrs.frozen(kw_only=True)
class ExportedDevice:
    """A device flag of a user, with its token."""

    uid: str
    token: str
    device_flag: int
    device_level: int


@attrs.frozen(kw_only=True)
class ExportBody:
    """A channel."""

    channel_id: str = field(Text(missing="channel_id不能为空！"))
    channel_type: int = field(TypeField())


@attrs.frozen(kw_only=True)
class ExportedLists:
    """A channel whole, but for its messages."""

    channel_id: str
    channel_type: int
    large: int
    ban: int
    disband: int
    send_ban: int
    allow_stranger: int
    subscribers: list[str]
    denylist: list[str]
    allowlist: list[str]
    last_message_seq: int


async def login(call: Call, body: LoginBody) -> Login:
    """Log in; the answer's token goes into `Authorization: Bearer`."""
    authority: Authority = call.services.parts["authority"]
    user, token, expires = await authority.login(body.username, body.password, call.caller.address, time.time())
    return Login(
        username=user.name,
        token=token,
        exp=expires,
        expire=expires,
        permissions=user.permissions,
        user=LoginUser(username=user.name, permissions=user.permissions),
    )


def _tags(call: Call) -> Mapping[str, Tag]:
    here = node_id(call)
    started = datetime.datetime.fromtimestamp(call.broker.started_at, datetime.UTC).strftime("%Y-%m-%d %H:%M")
    tags = {}
    for key, facts in call.broker.channels.cached_channels():
        uids = sorted(facts.members)
        tag = Tag(
            key=tag_key(key),
            channel_id=key.id,
            channel_type=key.type,
            nodes=[
                TagNode(
                    leader_id=here,
                    uid_count=len(uids),
                    uids=uids,
                    slot_ids=sorted({slot_of(uid) for uid in uids}),
                )
            ],
            created_at=started,
            expire_at="",
            last_get_at="",
            node_version=1,
            get_count=0,
        )
        tags[tag.key] = tag
    return tags


def tag_key(key: ChannelKey) -> str:
    """Return the name of the receiver set of a channel."""
    return hashlib.blake2b(f"{key.type}\0{key.id}".encode(), digest_size=16).hexdigest()


def _matches(tag: Tag, query: TagQuery | TagBody) -> bool:
    return (
        query.tag_key in ("", tag.key)
        and query.channel_id in ("", tag.channel_id)
        and query.channel_type in (0, tag.channel_type)
    )


async def tag(call: Call, query: TagQuery) -> Tag:
    """Return one receiver set."""
    found = next((each for each in _tags(call).values() if _matches(each, query)), None)
    if found is None or not (query.tag_key or query.channel_id):
        raise ApiError("tag not found", code="no_tag")
    return found


async def tags(call: Call, query: TagQuery) -> list[Tag]:
    """List the receiver sets that are in memory."""
    check_node(call, query.node_id)
    return [each for each in _tags(call).values() if _matches(each, query)][:MAX_TAGS]


async def remove_tag(call: Call, body: TagBody) -> Ok:
    """Drop receiver sets from memory; the next message reads them again."""
    check_node(call, body.node_id)
    if not (body.tag_key or body.channel_id):
        raise ApiError("tag_key, or channel_id and channel_type", code="missing_field")
    for each in _tags(call).values():
        if _matches(each, body):
            call.broker.channels.forget(ChannelKey(each.channel_id, each.channel_type))
    return OK


async def migrate_result(call: Call, query: None) -> MigrateResult:
    """Say that no import is under way."""
    return MigrateResult(status="completed", step="", last_err="", try_count=0)


async def export_topics(call: Call, body: SlotBody) -> list[ExportedChannel]:
    """List the channels of a slot that have messages, for an export."""
    rows = await call.broker.catalog.channels(lambda row: row.slot == body.slot and row.last_seq > 0)
    return [
        ExportedChannel(channel_id=row.key.id, channel_type=row.key.type, last_message_seq=row.last_seq) for row in rows
    ]


async def export_users(call: Call, body: Nothing) -> list[ExportedDevice]:
    """List every device flag that has a token, with it, for an export."""
    return [
        ExportedDevice(uid=row.uid, token=row.device.token, device_flag=row.flag, device_level=int(row.device.level))
        for row in await call.broker.catalog.devices()
    ]


async def export_channels(call: Call, body: Nothing) -> list[ExportedChannel]:
    """List every channel, for an export."""
    rows = await call.broker.catalog.channels(lambda row: True)
    return [
        ExportedChannel(channel_id=row.key.id, channel_type=row.key.type, last_message_seq=row.last_seq) for row in rows
    ]


async def export_channel(call: Call, body: ExportBody) -> ExportedLists:
    """Return a channel whole, but for its messages, for an export."""
    key, channels = ChannelKey(body.channel_id, body.channel_type), call.broker.channels
    row = call.broker.catalog.channel(key)
    if row is None:
        raise ApiError("频道并不存在！", code="no_channel")
    info = row.info
    return ExportedLists(
        channel_id=key.id,
        channel_type=key.type,
        large=int(info.large),
        ban=int(info.ban),
        disband=int(info.disband),
        send_ban=int(info.send_ban),
        allow_stranger=int(info.allow_stranger),
        subscribers=channels.members(key),
        denylist=channels.denied(key),
        allowlist=channels.allowed(key),
        last_message_seq=row.last_seq,
    )


_EXPORT: dict[str, Any] = {"is_admin": True, "resource": "migrate"}

ROUTES = (
    post("/manager/login", login, LoginBody, Login, is_free=True),
    get("/tag", tag, TagQuery, Tag, is_admin=True, resource="tag"),
    get("/tags", tags, TagQuery, list[Tag], is_admin=True, resource="tag"),
    post("/tag/remove", remove_tag, TagBody, Ok, is_admin=True, resource="tag"),
    get("/migrate/result", migrate_result, None, MigrateResult, **_EXPORT),
    ask("/migrate/topics", export_topics, SlotBody, list[ExportedChannel], **_EXPORT),
    ask("/migrate/allusers", export_users, None, list[ExportedDevice], **_EXPORT | {"action": "w"}),
    ask("/migrate/allchannels", export_channels, None, list[ExportedChannel], **_EXPORT),
    ask("/migrate/channel", export_channel, ExportBody, ExportedLists, **_EXPORT),
)
