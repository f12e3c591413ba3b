"""What handlers work with, and the shapes that several of them share."""

import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import attrs

from triolet_api._body import ApiError, Body
from triolet_api._config import ApiConfig
from triolet_core import Broker, ChannelKey, Message, channel_key
from triolet_core.model import (
    NO_PERSIST,
    RED_DOT,
    SYNC_ONCE,
    SYSTEM_UID,
    ChannelType,
    peer_of,
    plain_channel,
)

OK = {"status": 200}


@attrs.frozen
class Text:
    """An answer that is not JSON."""

    body: bytes
    content_type: str


@attrs.frozen
class Request:
    """What a handler gets: the service and the parsed request."""

    broker: Broker
    config: ApiConfig
    json: Any
    query: Mapping[str, str]
    host: str = ""
    """The name or address that the caller reached this server by."""

    @property
    def body(self) -> Body:
        """The body as an object."""
        allows = "#&" if self.broker.compat.allows_hash_and_ampersand else ""
        return Body(self.json, allows=allows, most=self.config.max_list_items)

    def number(self, name: str, default: int = 0) -> int:
        """Return a number of the query; what is none counts as the default, as the reference does."""
        text = self.query.get(name, "")
        return int(text) if text.isdigit() and len(text) < 19 else default


Handler = Callable[[Request], Awaitable[Any]]


@attrs.frozen
class Route:
    """One endpoint."""

    method: str
    path: str
    handler: Handler


def posts(handlers: Mapping[str, Handler]) -> tuple[Route, ...]:
    """Return POST routes."""
    return tuple(Route("POST", path, handler) for path, handler in handlers.items())


def gets(handlers: Mapping[str, Handler]) -> tuple[Route, ...]:
    """Return GET routes."""
    return tuple(Route("GET", path, handler) for path, handler in handlers.items())


def key_for(login_uid: str, channel_id: str, channel_type: int) -> ChannelKey:
    """Return the stored key of a channel as a caller names it: a person by the other uid, or by the stored id."""
    if channel_type == ChannelType.PERSON and "@" in channel_id:
        return ChannelKey(channel_id, channel_type)
    return channel_key(login_uid, channel_id, channel_type)


def person_key(body: Body, *, missing: str) -> ChannelKey:
    """Return the key of `channel_id`, `channel_type` and `login_uid`; a person channel needs the latter.

    Raises:
        ApiError: With `missing` if the login uid is needed and not there.
    """
    channel_id = body.text("channel_id", missing="channel_id不能为空！")
    kind = body.channel_type()
    login_uid = body.text("login_uid")
    if kind == ChannelType.PERSON and not login_uid and "@" not in channel_id:
        raise ApiError(missing, code="missing_field")
    return key_for(login_uid, channel_id, kind)


def flags_of(header: Body) -> int:
    """Return the header flags of a request as bits."""
    return (
        NO_PERSIST * header.flag("no_persist") | RED_DOT * header.flag("red_dot") | SYNC_ONCE * header.flag("sync_once")
    )


def message_json(message: Message) -> dict[str, Any]:
    """Return the message object (http-api.md, section 3.4): a person channel is the party that is not the sender."""
    flags = message.flags
    key = plain_channel(message.channel)
    shown = {
        "header": {
            "no_persist": int(bool(flags & NO_PERSIST)),
            "red_dot": int(bool(flags & RED_DOT)),
            "sync_once": int(bool(flags & SYNC_ONCE)),
        },
        "setting": message.setting,
        "message_id": message.message_id,
        "message_idstr": str(message.message_id),
        "client_msg_no": message.client_msg_no,
        "message_seq": message.seq,
        "from_uid": "" if message.sender == SYSTEM_UID else message.sender,
        "channel_id": peer_of(key, message.sender),
        "channel_type": key.type,
        "expire": message.expire,
        "timestamp": message.timestamp,
        "payload": base64.b64encode(message.payload).decode(),
    }
    if message.topic:
        shown["topic"] = message.topic
    return shown


def messages_json(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return message objects."""
    return [message_json(message) for message in messages]
