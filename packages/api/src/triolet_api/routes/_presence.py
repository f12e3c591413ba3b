"""Presence for backends, below /ext/v1: who is online with which device, and who watches whom. See docs/presence.md.

A backend that wants every change for itself has the webhook `user.onlinestatus`; here it subscribes users to users,
whom it alone may choose freely.
"""

from typing import Any

import attrs

from triolet_api._answers import OK, Ok
from triolet_api._call import Call, Route, ask
from triolet_api._errors import ApiError
from triolet_api._fields import Number, Text, Texts, field
from triolet_api.routes._ext import UidQuery, ext_read, ext_write, is_on
from triolet_core import ReasonCode, WatchAnswer, status_json

_MISSING_UID = "uid is missing"


@attrs.frozen(kw_only=True)
class StatusBody:
    """Users."""

    uids: list[str] = field(Texts(missing="uids is missing"))


@attrs.frozen(kw_only=True)
class SubscribeBody:
    """Who is to watch whom."""

    uid: str = field(Text(missing=_MISSING_UID))
    targets: list[str] = field(Texts(missing="targets is missing", doc="at most presence.usersPerCall"))
    ttl_s: int = field(Number(doc="seconds; 0, and more than presence.maxExpire, is that"))


@attrs.frozen(kw_only=True)
class UnsubscribeBody:
    """Who is no longer to watch whom."""

    uid: str = field(Text(missing=_MISSING_UID))
    targets: list[str] = field(Texts(doc="empty: all"))


@attrs.frozen
class DeviceState:
    """The devices of one flag."""

    flag: int
    level: int
    online: int
    connections: int
    since: int
    last_seen: int
    logout: int


@attrs.frozen
class UserState:
    """A user and his devices."""

    uid: str
    online: int
    devices: list[DeviceState]


@attrs.frozen
class StatesAnswer:
    """The present states, in the order asked for."""

    status: int
    data: list[UserState]


@attrs.frozen
class Watched:
    """A user who is watched, and for how many seconds yet."""

    uid: str
    ttl_s: int


@attrs.frozen
class WatchedAnswer:
    """By uid."""

    status: int
    data: list[Watched]


def _states(call: Call, uids: list[str]) -> Any:
    subscriptions = call.broker.presence_subscriptions
    return {"status": 200, "data": [status_json(subscriptions.status(uid)) for uid in uids]}


async def states(call: Call, body: StatusBody) -> Any:
    """Say of each device of users whether it is online, and since when."""
    _check_count("uids", body.uids, call)
    return _states(call, body.uids)


async def subscribe(call: Call, body: SubscribeBody) -> Any:
    """Let the devices of a user watch others; answers with their present states."""
    _check_count("targets", body.targets, call)
    answer = call.broker.presence_subscriptions.subscribe_user(body.uid, body.targets, body.ttl_s)
    if answer.reason != ReasonCode.SUCCESS:
        raise _refusal(answer, call)
    return _states(call, body.targets)


async def unsubscribe(call: Call, body: UnsubscribeBody) -> Ok:
    """Let the devices of a user no longer watch others, as far as a backend made them."""
    call.broker.presence_subscriptions.unsubscribe(body.uid, body.targets or None)
    return OK


async def subscribed(call: Call, query: UidQuery) -> WatchedAnswer:
    """List whom a user watches by order of a backend."""
    targets = call.broker.presence_subscriptions.targets(query.uid)
    return WatchedAnswer(200, [Watched(uid, int(left_s)) for uid, left_s in sorted(targets.items())])


def _check_count(name: str, uids: list[str], call: Call) -> None:
    limit = call.broker.config.presence.users_per_call
    if len(uids) > limit:
        raise ApiError(f"{name}: {len(uids)} > {limit} (presence.usersPerCall)", code="list_too_long")


def _refusal(answer: WatchAnswer, call: Call) -> ApiError:
    config = call.broker.config.presence
    if answer.refused:
        names = ", ".join(answer.refused)
        return ApiError(f"{config.watchers} watchers have: {names} (presence.watchers)", code="too_many_watchers")
    detail = "too many subscriptions (presence.subscriptions, presence.totalSubscriptions)"
    return ApiError(detail, code="too_many_subscriptions")


ROUTES: tuple[Route, ...] = (
    ask("/ext/v1/users/status", states, StatusBody, StatesAnswer, resource="ext", mounted=is_on),
    ext_write("users/subscriptions", subscribe, SubscribeBody, StatesAnswer),
    ext_write("users/subscriptions/remove", unsubscribe, UnsubscribeBody, Ok),
    ext_read("users/subscriptions", subscribed, UidQuery, WatchedAnswer),
)
