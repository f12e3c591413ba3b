"""What the webhook and the data source offer to an administrator, if they are installed.

Source: docs/webhook.md and docs/datasource.md; no reference server has it.
"""

import json
from typing import Any

import attrs

from triolet_api._answers import OK, Ok
from triolet_api._call import Call, get, post
from triolet_api._errors import ApiError
from triolet_api._fields import MaybeNumber, Number, Numbers, Text, field


@attrs.frozen(kw_only=True)
class DeadQuery:
    """How many dead letters."""

    limit: int = field(Number(is_lenient=True, default=100, high=1000))


@attrs.frozen(kw_only=True)
class LettersBody:
    """Dead letters by their numbers."""

    ids: list[int] = field(Numbers())


@attrs.frozen(kw_only=True)
class InvalidateBody:
    """What the data source is to be asked anew."""

    channel_id: str = field(Text(doc="a channel, or the uid whose lists or info; empty: everything"))
    channel_type: int | None = field(MaybeNumber(high=255, doc="absent: every type, and the info of the user"))


@attrs.frozen(kw_only=True)
class UserQuery:
    """A user."""

    uid: str = field(Text(missing="uid不能为空！"))


@attrs.frozen(kw_only=True)
class UserObject:
    """What the data source knows of a user."""

    uid: str
    name: str
    avatar: str
    remark: str
    extra: Any


@attrs.frozen(kw_only=True)
class DeadAnswer:
    """Dead letters, the oldest first."""

    status: int = 200
    data: list[dict[str, Any]]


@attrs.frozen(kw_only=True)
class LettersAnswer:
    """What became of the letters."""

    status: int = 200
    data: dict[str, Any]


def _service(call: Call, name: str) -> Any:
    service = call.broker.services.get(name)
    if service is None:
        raise ApiError(f"the {name} plugin is not running, or has no address", status=404, code="no_plugin")
    return service


async def dead(call: Call, query: DeadQuery) -> DeadAnswer:
    """List the events that no receiver took."""
    return DeadAnswer(data=await _service(call, "webhook").dead(query.limit or 100))


async def resend(call: Call, body: LettersBody) -> LettersAnswer:
    """Push dead letters again, in this order, up to the first that is not taken."""
    return LettersAnswer(data=await _service(call, "webhook").resend(body.ids))


async def drop(call: Call, body: LettersBody) -> LettersAnswer:
    """Forget dead letters."""
    return LettersAnswer(data=await _service(call, "webhook").drop(body.ids))


async def invalidate(call: Call, body: InvalidateBody) -> Ok:
    """Forget what the data source has answered, so that it is asked again."""
    _service(call, "datasource").invalidate(body.channel_id or None, body.channel_type)
    return OK


async def user_info(call: Call, query: UserQuery) -> Any:
    """Return what the data source knows of a user; `{"status":404}` if there is none."""
    found = await call.broker.users.info(query.uid)
    if found is None:
        return Ok(404)
    extra = json.loads(found.extra) if found.extra else None
    return UserObject(uid=found.uid, name=found.name, avatar=found.avatar, remark=found.remark, extra=extra)


_ADMIN: dict[str, Any] = {"is_admin": True}

ROUTES = (
    get("/webhook/dead", dead, DeadQuery, DeadAnswer, resource="webhook", **_ADMIN),
    post("/webhook/dead/resend", resend, LettersBody, LettersAnswer, resource="webhook", **_ADMIN),
    post("/webhook/dead/drop", drop, LettersBody, LettersAnswer, resource="webhook", **_ADMIN),
    post("/datasource/invalidate", invalidate, InvalidateBody, Ok, resource="datasource", **_ADMIN),
    get("/user/info", user_info, UserQuery, UserObject | Ok, resource="datasource"),
)
