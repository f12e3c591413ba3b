"""Users, their devices, system accounts. Source: http-api.md, section 4."""

from typing import Any

import attrs

from triolet_api._answers import OK, Ok
from triolet_api._call import Call, Nothing, ask, get, post
from triolet_api._errors import ApiError
from triolet_api._fields import Number, Text, Texts, field, list_of_texts
from triolet_core import DeviceFlag, ReasonCode
from triolet_core.model import RESERVED_UIDS

_NO_UID = "uid不能为空！"
_FLAGS = frozenset(DeviceFlag)


@attrs.frozen(kw_only=True)
class TokenBody:
    """A device's new token."""

    uid: str = field(Text(missing=_NO_UID, special="uid不能包含特殊字符！"))
    token: str = field(Text(missing="token不能为空！"))
    device_flag: int = field(Number(high=255, doc="0 app, 1 web, 2 pc, 99 system"))
    device_level: int = field(Number(high=1, doc="1: its login displaces others of the flag"))


@attrs.frozen(kw_only=True)
class DeviceBody:
    """A device flag of a user."""

    uid: str = field(Text(missing=_NO_UID))
    device_flag: int = field(Number(low=-1, high=255, doc="-1: app, web and pc"))


@attrs.frozen(kw_only=True)
class UidsBody:
    """Users."""

    uids: list[str] = field(Texts())


@attrs.frozen(kw_only=True)
class PluginBody:
    """The plugin that speaks for a user."""

    uid: str = field(Text(missing=_NO_UID))
    plugin_no: str = field(Text(doc="empty: none"))


@attrs.frozen(kw_only=True)
class OnlineDevice:
    """A connection."""

    uid: str
    device_flag: int
    online: int


def _check_flag(flag: int) -> int:
    if flag not in _FLAGS and flag != -1:
        raise ApiError("device_flag错误！", code="bad_device_flag")
    return flag


async def token(call: Call, body: TokenBody) -> Ok:
    """Set the token that a user's device logs in with."""
    if body.uid in RESERVED_UIDS:
        raise ApiError("系统账号不允许更新token！", code="reserved_uid")
    flag = _check_flag(body.device_flag)
    reason = await call.broker.users.set_token(body.uid, flag, body.device_level, body.token)
    return OK if reason == ReasonCode.SUCCESS else Ok(int(reason))


async def device_quit(call: Call, body: DeviceBody) -> Ok:
    """Forget the token of a device and close its connections."""
    await call.broker.users.quit_device(body.uid, _check_flag(body.device_flag))
    return OK


async def online_status(call: Call, body: Nothing) -> Any:
    """Say which of the users are online: a list of uids, or an object that holds one."""
    compat, presence = call.broker.compat, call.broker.presence
    given = call.json if isinstance(call.json, list) else _member(call.json, "uids")
    uids = [] if given is None else list_of_texts("uids", given, call.rules)
    if not uids and compat.empty_online_status_is_object:
        return OK
    if not compat.online_status_as_objects:
        return [uid for uid in dict.fromkeys(uids) if presence.sessions(uid)]
    return [
        OnlineDevice(uid=uid, device_flag=int(session.device.flag), online=1)
        for uid in uids
        for session in presence.sessions(uid)
    ]


def _member(value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise ApiError("数据格式有误！", code="bad_json")
    return next((each for key, each in value.items() if key.lower() == name), None)


async def add_system_uids(call: Call, body: UidsBody) -> Ok:
    """Make users system accounts, which no list holds back."""
    await call.broker.users.add_system_uids(body.uids)
    return OK


async def remove_system_uids(call: Call, body: UidsBody) -> Ok:
    """Make system accounts ordinary users."""
    await call.broker.users.remove_system_uids(body.uids)
    return OK


async def cache_system_uids(call: Call, body: UidsBody) -> Ok:
    """Treat users as system accounts until the next start."""
    call.broker.channels.cache_system_uids(body.uids, ())
    return OK


async def uncache_system_uids(call: Call, body: UidsBody) -> Ok:
    """No longer treat users as system accounts, until the next start."""
    call.broker.channels.cache_system_uids((), body.uids)
    return OK


async def system_uids(call: Call, query: Nothing) -> list[str]:
    """List the system accounts."""
    return call.broker.users.system_uids()


async def update_plugin_no(call: Call, body: PluginBody) -> Ok:
    """Bind a plugin to a user, or none."""
    await call.broker.bindings.bind(body.uid, body.plugin_no)
    return OK


UIDS = {
    "anyOf": [
        {"type": "array", "items": {"type": "string", "maxLength": 512}, "maxItems": 10_000},
        {
            "type": "object",
            "properties": {"uids": {"type": "array", "items": {"type": "string", "maxLength": 512}}},
        },
    ]
}

ROUTES = (
    post("/user/token", token, TokenBody, Ok),
    post("/user/device_quit", device_quit, DeviceBody, Ok),
    ask("/user/onlinestatus", online_status, None, Ok | list[OnlineDevice | str], takes=UIDS),
    *(
        post(prefix + path, handler, UidsBody, Ok)
        for prefix in ("/user", "")
        for path, handler in (("/systemuids_add", add_system_uids), ("/systemuids_remove", remove_system_uids))
    ),
    post("/user/systemuids_add_to_cache", cache_system_uids, UidsBody, Ok, is_admin=True),
    post("/user/systemuids_remove_from_cache", uncache_system_uids, UidsBody, Ok, is_admin=True),
    get("/user/systemuids", system_uids, None, list[str]),
    post("/user/update_plugin_no", update_plugin_no, PluginBody, Ok, resource="pluginUserAdd"),
)
