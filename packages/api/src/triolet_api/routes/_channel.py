"""Channels, their members and lists. Source: http-api.md, section 5."""

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import attrs

from triolet_api._api import OK, Handler, Request, gets, posts
from triolet_api._body import ApiError, Body
from triolet_core import ChannelInfo, ChannelKey, ChannelType

_NO_CHANNEL = "频道ID不能为空！"
_NO_CHANNEL_ID = "channel_id不能为空！"
_SPECIAL = "频道ID不能包含特殊字符！"
_NO_TYPE = "频道类型不能为0！"
_NO_MEMBERS = "订阅者不能为空！"
_NOT_FOR_PERSONS = "个人频道不支持添加订阅者！"


def _key(body: Body, *, missing: str = _NO_CHANNEL_ID, no_type: str = _NO_TYPE, default_type: int = 0) -> ChannelKey:
    channel_id = body.new_id("channel_id", missing=missing, special=_SPECIAL)
    return ChannelKey(channel_id, body.channel_type(missing=no_type, default=default_type))


def _info(body: Body, known: ChannelInfo | None) -> ChannelInfo:
    """Flags are overwritten, absent ones with 0; texts are kept unless given."""
    known = known or ChannelInfo()
    extra = body.raw("extra")
    return ChannelInfo(
        large=body.flag("large"),
        ban=body.flag("ban") or body.flag("forbidden"),
        disband=body.flag("disband"),
        send_ban=body.flag("send_ban"),
        allow_stranger=body.flag("allow_stranger"),
        name=body.text("name", default=known.name),
        avatar=body.text("avatar", default=known.avatar),
        remark=body.text("remark", default=known.remark),
        extra=known.extra if extra is None else json.dumps(extra, ensure_ascii=False),
    )


async def create(request: Request) -> Any:
    """POST /channel."""
    body, channels = request.body, request.broker.channels
    key = _key(body, missing=_NO_CHANNEL, no_type="频道类型错误！")
    members = body.texts("subscribers", "uids") if body.has("subscribers", "uids") else None
    if key.type == ChannelType.PERSON and members:
        raise ApiError("不支持个人频道添加订阅者！", code="person_channel")
    replace = body.flag("reset")
    if not body.has("reset") and request.broker.compat.replaces_members_by_default:
        replace = members is not None
    info = _info(body, channels.info(key))
    await channels.create(key, info, members or ([] if replace else None), replace=replace)
    return OK


async def put_info(request: Request) -> Any:
    """POST /channel/info."""
    key = _key(request.body, missing=_NO_CHANNEL, no_type="频道类型错误！")
    channels = request.broker.channels
    await channels.put_info(key, _info(request.body, channels.info(key)))
    return OK


async def get_info(request: Request) -> Any:
    """GET /channel/info."""
    key = _query_key(request)
    channels = request.broker.channels
    info = channels.info(key)
    if info is None:
        return {"status": 404}
    flags = {name: int(value) if isinstance(value, bool) else value for name, value in attrs.asdict(info).items()}
    flags["extra"] = json.loads(info.extra) if info.extra else None
    counts = {
        "subscriber_count": len(channels.members(key)),
        "denylist_count": len(channels.denied(key)),
        "allowlist_count": len(channels.allowed(key)),
        "last_message_seq": request.broker.messages.max_seq(key),
    }
    return {"channel_id": key.id, "channel_type": key.type, **flags, **counts}


async def delete(request: Request) -> Any:
    """POST /channel/delete."""
    key = _key(request.body, missing=_NO_CHANNEL, no_type="频道类型错误！")
    if key.type == ChannelType.PERSON:
        raise ApiError(_NOT_FOR_PERSONS, code="person_channel")
    await request.broker.channels.delete(key)
    return OK


def _members(body: Body, *, default_type: int = 0) -> tuple[ChannelKey, list[str]]:
    key = _key(body, missing=_NO_CHANNEL, no_type="频道类型错误！", default_type=default_type)
    if key.type == ChannelType.PERSON:
        raise ApiError(_NOT_FOR_PERSONS, code="person_channel")
    uids = body.texts("subscribers", "uids")
    if not uids:
        raise ApiError(_NO_MEMBERS, code="missing_field")
    return key, uids


async def subscriber_add(request: Request) -> Any:
    """POST /channel/subscriber_add; with `temp_subscriber` the members are kept in memory."""
    body, channels = request.body, request.broker.channels
    key, uids = _members(body, default_type=ChannelType.GROUP)
    if not body.flag("temp_subscriber"):
        await channels.add_members(key, uids, replace=body.flag("reset"))
    elif body.flag("reset"):
        channels.set_temp_members(key, uids)
    else:
        for uid in uids:
            channels.add_temp_member(key, uid)
    return OK


async def subscriber_set(request: Request) -> Any:
    """POST /channel/subscriber_set."""
    key, uids = _members(request.body, default_type=ChannelType.GROUP)
    await request.broker.channels.add_members(key, uids, replace=True)
    return OK


async def subscriber_remove(request: Request) -> Any:
    """POST /channel/subscriber_remove."""
    body, channels = request.body, request.broker.channels
    key, uids = _members(body)
    if body.flag("temp_subscriber"):
        for uid in uids:
            channels.remove_temp_member(key, uid)
    else:
        await channels.remove_members(key, uids)
    return OK


async def subscriber_remove_all(request: Request) -> Any:
    """POST /channel/subscriber_remove_all."""
    key = _key(request.body)
    if key.type == ChannelType.PERSON:
        raise ApiError("个人频道不支持此操作！", code="person_channel")
    await request.broker.channels.remove_all_members(key)
    return OK


async def temp_set(request: Request) -> Any:
    """POST /tmpchannel/subscriber_set."""
    body = request.body
    channel_id = body.new_id("channel_id", missing=_NO_CHANNEL_ID, special=_SPECIAL)
    uids = body.texts("uids", "subscribers")
    if not uids:
        raise ApiError("uids不能为空！", code="missing_field")
    request.broker.channels.set_temp_members(ChannelKey(channel_id, ChannelType.TEMP), uids)
    return OK


ListChange = Callable[[ChannelKey, Sequence[str]], Awaitable[None]]


def _change(pick: Callable[[Any], ListChange], *, may_be_empty: bool = False) -> Handler:
    """Return the handler of one change of a list."""

    async def handler(request: Request) -> Any:
        key = _key(request.body, missing=_NO_CHANNEL if may_be_empty else _NO_CHANNEL_ID)
        uids = request.body.texts("uids", "subscribers")
        if not uids and not may_be_empty:
            raise ApiError("uids不能为空！", code="missing_field")
        await pick(request.broker.channels)(key, uids)
        return OK

    return handler


def _clear(pick: Callable[[Any], Callable[[ChannelKey], Awaitable[None]]]) -> Handler:
    async def handler(request: Request) -> Any:
        await pick(request.broker.channels)(_key(request.body))
        return OK

    return handler


def _query_key(request: Request) -> ChannelKey:
    channel_id = request.query.get("channel_id", "")
    if not channel_id.strip():
        raise ApiError(_NO_CHANNEL_ID, code="missing_field")
    kind = request.number("channel_type")
    if not 0 < kind < 256:
        raise ApiError(_NO_TYPE, code="bad_channel_type")
    return ChannelKey(channel_id, kind)


def _listing(pick: Callable[[Any], Callable[[ChannelKey], list[str]]]) -> Handler:
    async def handler(request: Request) -> Any:
        uids = pick(request.broker.channels)(_query_key(request))
        start = request.number("offset")
        uids = uids[start : start + min(request.number("limit", 10_000), 10_000)]
        form = request.query.get("format", "objects" if request.broker.compat.whitelist_as_objects else "uids")
        return [{"uid": uid} for uid in uids] if form == "objects" else uids

    return handler


ROUTES = (
    *posts(
        {
            "/channel": create,
            "/channel/info": put_info,
            "/channel/delete": delete,
            "/channel/subscriber_add": subscriber_add,
            "/channel/subscriber_set": subscriber_set,
            "/channel/subscriber_remove": subscriber_remove,
            "/channel/subscriber_remove_all": subscriber_remove_all,
            "/tmpchannel/subscriber_set": temp_set,  # noqa: S108  # a URL
            "/channel/blacklist_add": _change(lambda channels: channels.add_denied),
            "/channel/blacklist_set": _change(lambda channels: channels.set_denied, may_be_empty=True),
            "/channel/blacklist_remove": _change(lambda channels: channels.remove_denied),
            "/channel/blacklist_remove_all": _clear(lambda channels: channels.remove_all_denied),
            "/channel/whitelist_add": _change(lambda channels: channels.add_allowed),
            "/channel/whitelist_set": _change(lambda channels: channels.set_allowed, may_be_empty=True),
            "/channel/whitelist_remove": _change(lambda channels: channels.remove_allowed),
            "/channel/whitelist_remove_all": _clear(lambda channels: channels.remove_all_allowed),
        }
    ),
    *gets(
        {
            "/channel/info": get_info,
            "/channel/subscribers": _listing(lambda channels: channels.members),
            "/channel/blacklist": _listing(lambda channels: channels.denied),
            "/channel/whitelist": _listing(lambda channels: channels.allowed),
        }
    ),
)
