"""Denylists and allowlists, and reading lists of uids. Source: http-api.md, sections 5.6 and 5.7."""

import datetime
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import attrs

from triolet_api._answers import OK, Ok
from triolet_api._call import Call, Handler, get, post
from triolet_api._fields import ChannelType as TypeField
from triolet_api._fields import Number, Text, Texts, field
from triolet_api.routes._channel import NO_CHANNEL, NO_CHANNEL_ID, NO_TYPE, SPECIAL, ChannelQuery, ClearBody
from triolet_core import ChannelKey
from triolet_core.model import slot_of


@attrs.frozen(kw_only=True)
class ListBody:
    """Users for a list of a channel; that of a person is named by his uid, type 1."""

    channel_id: str = field(Text(missing=NO_CHANNEL_ID, special=SPECIAL))
    channel_type: int = field(TypeField(missing=NO_TYPE))
    uids: list[str] = field(Texts(missing="uids不能为空！", names=("subscribers",)))

    @property
    def key(self) -> ChannelKey:
        """The channel as it is stored."""
        return ChannelKey(self.channel_id, self.channel_type)


@attrs.frozen(kw_only=True)
class SetBody(ListBody):
    """The whole list of a channel; empty clears it."""

    channel_id: str = field(Text(missing=NO_CHANNEL, special=SPECIAL))
    uids: list[str] = field(Texts(names=("subscribers",)))


@attrs.frozen(kw_only=True)
class ListQuery(ChannelQuery):
    """A page of a list."""

    format: str = field(Text(doc="uids or objects; the profile decides if it is absent"))
    offset: int = field(Number(is_lenient=True))
    limit: int = field(Number(is_lenient=True, default=10_000, high=10_000))


@attrs.frozen(kw_only=True)
class Listed:
    """A uid on a list."""

    id: int
    uid: str
    created_at: str
    updated_at: str


ListChange = Callable[[ChannelKey, Sequence[str]], Awaitable[None]]


def _change(doc: str, pick: Callable[[Any], ListChange]) -> Handler:
    async def handler(call: Call, body: Any) -> Ok:
        await pick(call.broker.channels)(body.key, body.uids)
        return OK

    handler.__doc__ = doc
    return handler


def _clear(doc: str, pick: Callable[[Any], Callable[[ChannelKey], Awaitable[None]]]) -> Handler:
    async def handler(call: Call, body: Any) -> Ok:
        await pick(call.broker.channels)(body.key)
        return OK

    handler.__doc__ = doc
    return handler


def _listing(doc: str, pick: Callable[[Any], Callable[[ChannelKey], list[str]]]) -> Handler:
    async def handler(call: Call, query: Any) -> Any:
        uids = pick(call.broker.channels)(query.key)
        page = uids[query.offset : query.offset + (query.limit or 10_000)]
        default = "objects" if call.broker.compat.whitelist_as_objects else "uids"
        return page if (query.format or default) != "objects" else _objects(call, query.key, page)

    handler.__doc__ = doc
    return handler


def _objects(call: Call, key: ChannelKey, uids: Sequence[str]) -> list[Listed]:
    """Entries carry the time of the channel: that of each entry is not kept."""
    row = call.broker.catalog.channel(key)
    created, updated = (_rfc3339(row.created), _rfc3339(row.updated)) if row is not None else ("", "")
    return [
        Listed(id=slot_of(uid) + number * 256, uid=uid, created_at=created, updated_at=updated)
        for number, uid in enumerate(uids, 1)
    ]


def _rfc3339(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat().replace("+00:00", "Z")


_LISTINGS = list[str] | list[Listed]

ROUTES = (
    post("/channel/blacklist_add", _change("Keep users from sending.", lambda c: c.add_denied), ListBody, Ok),
    post("/channel/blacklist_set", _change("Replace the denylist.", lambda c: c.set_denied), SetBody, Ok),
    post("/channel/blacklist_remove", _change("Let users send again.", lambda c: c.remove_denied), ListBody, Ok),
    post("/channel/blacklist_remove_all", _clear("Empty the denylist.", lambda c: c.remove_all_denied), ClearBody, Ok),
    post("/channel/whitelist_add", _change("Allow only listed users.", lambda c: c.add_allowed), ListBody, Ok),
    post("/channel/whitelist_set", _change("Replace the allowlist.", lambda c: c.set_allowed), SetBody, Ok),
    post("/channel/whitelist_remove", _change("Take users off it.", lambda c: c.remove_allowed), ListBody, Ok),
    post(
        "/channel/whitelist_remove_all", _clear("Empty the allowlist.", lambda c: c.remove_all_allowed), ClearBody, Ok
    ),
    get("/channel/subscribers", _listing("List the members.", lambda c: c.members), ListQuery, _LISTINGS),
    get("/channel/blacklist", _listing("List the denylist.", lambda c: c.denied), ListQuery, _LISTINGS),
    get("/channel/whitelist", _listing("List the allowlist.", lambda c: c.allowed), ListQuery, _LISTINGS),
)
