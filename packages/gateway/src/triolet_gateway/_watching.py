"""SUB and UNSUB of `presence:…`: watching whether users are online. What it looks like is in docs/presence.md.

Both protocols come here: a SUB packet and JSON-RPC's `subscribe` are the same request.
"""

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl
from uuid import uuid4

import attrs

import triolet_protocol as wire
from triolet_core import Broker, ReasonCode, WatchAnswer
from triolet_core.model import ChannelType, Event
from triolet_core.session import Session

PREFIX = "presence:"
REFUSED = "presence.refused"
MAX_PARAM_CHARACTERS = 262_144
"""Longest `param` that is read, from JSON-RPC; a SUB packet holds 32,767 bytes."""


@attrs.frozen
class _Wish:
    uids: tuple[str, ...]
    ttl_s: int
    is_all: bool
    """Whether nobody in particular is named."""


def is_watch(sub: wire.Sub) -> bool:
    """Whether a SUB is about presence and not about a channel."""
    return sub.channel_type == ChannelType.DATA and sub.channel_id.startswith(PREFIX)


async def answer_watch(broker: Broker, session: Session, sub: wire.Sub, *, has_events: bool) -> wire.SubAck:
    """Subscribe or unsubscribe; what is refused about some users is told by an EVENT before the answer.

    A client whose protocol has no events could not be told anything, and is refused.
    """
    answer = WatchAnswer(reason=ReasonCode.NOT_SUPPORT_CHANNEL_TYPE)
    if has_events:
        answer = await _decide(broker, session, sub)
    if answer.refused:
        session.push_event(_refusal(broker, sub, answer))
    return wire.SubAck(sub.sub_no, sub.channel_id.partition("?")[0], sub.channel_type, sub.action, int(answer.reason))


async def _decide(broker: Broker, session: Session, sub: wire.Sub) -> WatchAnswer:
    wish = _read(sub)
    if wish is None:
        return WatchAnswer(reason=ReasonCode.CHANNEL_ID_ERROR)
    subscriptions = broker.presence_subscriptions
    if sub.action != 0:
        subscriptions.unsubscribe(session, None if wish.is_all else wish.uids)
        return WatchAnswer(reason=ReasonCode.SUCCESS)
    if wish.is_all:
        subscriptions.repeat(session)
        return WatchAnswer(reason=ReasonCode.SUCCESS)
    return await subscriptions.subscribe(session, wish.uids, wish.ttl_s)


def _read(sub: wire.Sub) -> _Wish | None:
    """Return what is wanted, None if it cannot be understood."""
    channel_id, _, query = sub.channel_id.partition("?")
    given: dict[str, Any] = dict(parse_qsl(query))
    if sub.param:
        param = _object(sub.param)
        if param is None:
            return None
        given |= param
    uids, ttl_s = given.get("uids", ()), _seconds(given.get("expire", 0))
    if not isinstance(uids, list | tuple) or not all(isinstance(each, str) for each in uids) or ttl_s is None:
        return None
    name = channel_id.removeprefix(PREFIX)
    return _Wish((*([name] if name else ()), *uids), ttl_s, is_all=not name and "uids" not in given)


def _object(text: str) -> dict[str, Any] | None:
    if len(text) > MAX_PARAM_CHARACTERS:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _seconds(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:  # more seconds are no use
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _refusal(broker: Broker, sub: wire.Sub, answer: WatchAnswer) -> Event:
    value: dict[str, str | int | Sequence[str]] = {
        "sub_no": sub.sub_no,
        "reason": int(answer.reason),
        "uids": answer.refused,
    }
    data = json.dumps(value, separators=(",", ":")).encode()
    return Event(id=uuid4().hex, type=REFUSED, timestamp=int(broker.clock_s() * 1000), data=data)
