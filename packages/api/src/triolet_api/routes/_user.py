"""Users, their devices, system accounts. Source: http-api.md, section 4."""

from typing import Any

from triolet_api._api import OK, Request, Route, posts
from triolet_api._body import ApiError, Body, list_of_texts
from triolet_core import ReasonCode
from triolet_core.model import RESERVED_UIDS

_NO_UID = "uid不能为空！"
_FLAGS = (0, 1, 2, 99)


def _device_flag(body: Body, *, low: int = 0) -> int:
    flag = body.number("device_flag", 0, low=low, high=255)
    if flag not in _FLAGS and flag != -1:
        raise ApiError("device_flag错误！", code="bad_device_flag")
    return flag


async def token(request: Request) -> Any:
    """POST /user/token."""
    body = request.body
    uid = body.new_id("uid", missing=_NO_UID, special="uid不能包含特殊字符！")
    token = body.text("token", missing="token不能为空！")
    if uid in RESERVED_UIDS:
        raise ApiError("系统账号不允许更新token！", code="reserved_uid")
    level = body.number("device_level", 0, high=1)
    reason = await request.broker.users.set_token(uid, _device_flag(body), level, token)
    return OK if reason == ReasonCode.SUCCESS else {"status": int(reason)}


async def device_quit(request: Request) -> Any:
    """POST /user/device_quit."""
    uid = request.body.text("uid", missing=_NO_UID)
    await request.broker.users.quit_device(uid, _device_flag(request.body, low=-1))
    return OK


async def online_status(request: Request) -> Any:
    """POST /user/onlinestatus: a list of uids, or an object that holds one."""
    compat, presence = request.broker.compat, request.broker.presence
    asked = request.json if isinstance(request.json, list) else request.body.raw("uids") or []
    uids = list_of_texts("uids", asked)
    if not uids and compat.empty_online_status_is_object:
        return OK
    if not compat.online_status_as_objects:
        return [uid for uid in dict.fromkeys(uids) if presence.sessions(uid)]
    return [
        {"uid": uid, "device_flag": session.device.flag, "online": 1}
        for uid in uids
        for session in presence.sessions(uid)
    ]


async def add_system_uids(request: Request) -> Any:
    """POST /user/systemuids_add."""
    await request.broker.users.add_system_uids(request.body.texts("uids"))
    return OK


async def remove_system_uids(request: Request) -> Any:
    """POST /user/systemuids_remove."""
    await request.broker.users.remove_system_uids(request.body.texts("uids"))
    return OK


async def system_uids(request: Request) -> Any:
    """GET /user/systemuids."""
    return request.broker.users.system_uids()


ROUTES = (
    *posts(
        {
            "/user/token": token,
            "/user/device_quit": device_quit,
            "/user/onlinestatus": online_status,
            "/user/systemuids_add": add_system_uids,
            "/user/systemuids_remove": remove_system_uids,
            "/systemuids_add": add_system_uids,
            "/systemuids_remove": remove_system_uids,
        }
    ),
    Route("GET", "/user/systemuids", system_uids),
)
