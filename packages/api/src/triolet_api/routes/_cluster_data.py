"""What an administrator searches: messages, users, devices, conversations. Source: http-api.md, section 8.15."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import attrs
import trio

from triolet_api._answers import MessageObject, message_objects
from triolet_api._call import Call, get
from triolet_api._errors import ApiError, bad_field
from triolet_api._fields import MaybeNumber, Number, Text, field
from triolet_api._pages import STEP, sorted_slice
from triolet_api.routes._cluster_channels import TYPES, at
from triolet_api.routes._cluster_nodes import check_node
from triolet_core import ChannelKey, Message, Query
from triolet_core.model import SETTING_STREAM, slot_of
from triolet_core.session import ConnectionStatistics

MAX_LIMIT = 10_000
_SHOWN_OF_TOKEN = 4
_FLAGS = {0: "App", 1: "Web", 2: "PC", 99: "System"}
_PAGE = 20


@attrs.frozen(kw_only=True)
class MessagesQuery:
    """Which messages."""

    from_uid: str = field(Text())
    channel_id: str = field(Text(doc="as it is stored"))
    channel_type: int = field(Number(is_lenient=True, high=255))
    offset_message_id: int = field(Number(is_lenient=True))
    offset_message_seq: int = field(Number(is_lenient=True))
    payload: str = field(Text(is_free=True, doc="base64 of a part of the payload"))
    message_id: int = field(Number(is_lenient=True))
    client_msg_no: str = field(Text())
    topic: str = field(Text())
    limit: int = field(Number(is_lenient=True, default=_PAGE, high=MAX_LIMIT))
    pre: int = field(Number(is_lenient=True, high=1))
    node_id: int = field(Number(is_lenient=True))


@attrs.frozen(kw_only=True)
class MessageRow:
    """A message as the web page lists it."""

    message_id: str
    message_seq: int
    client_msg_no: str
    timestamp: int
    timestamp_format: str
    channel_id: str
    channel_type: int
    topic: str
    from_uid: str
    payload: bytes
    expire: int
    term: int
    is_stream: int


@attrs.frozen
class MessageRows:
    """Messages; `total` counts those returned."""

    total: int
    data: list[MessageRow]


@attrs.frozen(kw_only=True)
class UsersQuery:
    """Which users."""

    uid: str = field(Text())
    device_flag: int | None = field(MaybeNumber(is_lenient=True, high=255))
    offset_created_at: int = field(Number(is_lenient=True, doc="nanoseconds"))
    pre: int = field(Number(is_lenient=True, high=1))
    limit: int = field(Number(is_lenient=True, default=_PAGE, high=MAX_LIMIT))
    node_id: int = field(Number(is_lenient=True))


@attrs.frozen(kw_only=True)
class Traffic:
    """What the open connections of somebody have done."""

    conn_count: int
    send_msg_count: int
    recv_msg_count: int
    send_msg_bytes: int
    recv_msg_bytes: int


@attrs.frozen(kw_only=True)
class UserRow(Traffic):
    """A user that has a token or a connection."""

    id: int
    uid: str
    device_count: int
    online_device_count: int
    created_at: int
    updated_at: int
    created_at_format: str
    updated_at_format: str
    slot: int


@attrs.frozen(kw_only=True)
class DeviceRow(Traffic):
    """A device of a user; of its token only the end."""

    id: int
    uid: str
    token: str
    device_flag: int
    device_flag_format: str
    device_level: int
    device_level_format: str
    created_at: int
    updated_at: int
    created_at_format: str
    updated_at_format: str


@attrs.frozen
class UserRows:
    """A page of users."""

    total: int
    more: int
    data: list[UserRow]


@attrs.frozen
class DeviceRows:
    """A page of devices."""

    total: int
    more: int
    data: list[DeviceRow]


@attrs.frozen(kw_only=True)
class ConversationsQuery:
    """Whose conversations."""

    uid: str = field(Text())
    current_page: int = field(Number(is_lenient=True, default=1, high=10**6))
    limit: int = field(Number(is_lenient=True, default=_PAGE, high=MAX_LIMIT))
    node_id: int = field(Number(is_lenient=True))


@attrs.frozen(kw_only=True)
class ConversationRow:
    """A conversation as the web page lists it."""

    id: int
    uid: str
    type: int
    type_format: str
    channel_id: str
    channel_type: int
    channel_type_format: str
    unread_count: int
    last_msg_seq: int
    readed_to_msg_seq: int
    created_at: int
    updated_at: int
    created_at_format: str
    updated_at_format: str


@attrs.frozen
class ConversationRows:
    """A page of conversations."""

    total: int
    data: list[ConversationRow]


def _query_of(query: MessagesQuery) -> Query:
    try:
        part = base64.b64decode(query.payload, validate=True)
    except (binascii.Error, ValueError):
        raise bad_field("payload", query.payload, "base64") from None
    older, newer = (0, query.offset_message_id) if query.pre else (query.offset_message_id, 0)
    return Query(
        part=part,
        from_uid=query.from_uid,
        client_msg_no=query.client_msg_no,
        topic=query.topic,
        before_id=query.message_id + 1 if query.message_id else older,
        after_id=query.message_id - 1 if query.message_id else newer,
    )


async def _found(call: Call, query: MessagesQuery) -> tuple[list[Message], bool]:
    check_node(call, query.node_id)
    wanted, limit = _query_of(query), query.limit or _PAGE
    if not query.channel_id:
        return await call.broker.search.everywhere(wanted, limit)
    key = ChannelKey(query.channel_id, query.channel_type or 2)
    if "@" in query.channel_id and not query.channel_type:
        key = ChannelKey(query.channel_id, 1)
    found, more = await call.broker.search.channel(key, wanted, limit)
    return [message for message in reversed(found) if _is_beyond(message, query)], more


def _is_beyond(message: Message, query: MessagesQuery) -> bool:
    offset = query.offset_message_seq
    return not offset or (message.seq > offset if query.pre else message.seq < offset)


def _message_row(message: Message) -> MessageRow:
    return MessageRow(
        message_id=str(message.message_id),
        message_seq=message.seq,
        client_msg_no=message.client_msg_no,
        timestamp=message.timestamp,
        timestamp_format=at(message.timestamp),
        channel_id=message.channel.id,
        channel_type=message.channel.type,
        topic=message.topic,
        from_uid=message.sender,
        payload=message.payload,
        expire=message.expire,
        term=1,
        is_stream=int(bool(message.setting & SETTING_STREAM)),
    )


async def messages(call: Call, query: MessagesQuery) -> MessageRows:
    """Search the messages of one channel or of all, the newest first."""
    found, _ = await _found(call, query)
    return MessageRows(len(found), [_message_row(message) for message in found])


@attrs.frozen(kw_only=True)
class OldMessages:
    """Messages as WuKongIM 1.2.6's monitor lists them."""

    data: list[MessageObject]
    limit: int
    max_message_seq: int
    start_message_seq: int


async def old_messages(call: Call, query: MessagesQuery) -> OldMessages:
    """Search messages as WuKongIM 1.2.6's monitor does."""
    found, _ = await _found(call, query)
    seqs = [message.seq for message in found]
    return OldMessages(
        data=message_objects(call.broker, found),
        limit=query.limit or _PAGE,
        max_message_seq=max(seqs, default=0),
        start_message_seq=min(seqs, default=0),
    )


def _traffic(counted: list[ConnectionStatistics]) -> Mapping[str, int]:
    return {
        "conn_count": len(counted),
        "send_msg_count": sum(each.in_messages for each in counted),
        "recv_msg_count": sum(each.out_messages for each in counted),
        "send_msg_bytes": sum(each.in_message_bytes for each in counted),
        "recv_msg_bytes": sum(each.out_message_bytes for each in counted),
    }


def _paged(rows: list[Any], query: UsersQuery) -> tuple[list[Any], bool]:
    offset, limit = query.offset_created_at, query.limit or _PAGE
    if offset and query.pre:
        newer = [row for row in rows if row.created_at > offset]
        return newer[-limit:], len(newer) > limit
    older = [row for row in rows if not offset or row.created_at < offset]
    return older[:limit], len(older) > limit


async def users(call: Call, query: UsersQuery) -> UserRows:
    """List the users that have a token or a connection, the newest first."""
    check_node(call, query.node_id)
    times: dict[str, list[tuple[int, int]]] = {}
    for row in await call.broker.catalog.devices(query.uid):
        times.setdefault(row.uid, []).append((row.device.created, row.device.updated))
    presence = call.broker.presence
    online = [query.uid] if query.uid and presence.sessions(query.uid) else [] if query.uid else presence.online_uids()
    for uid in online:
        times.setdefault(uid, [])
    rows = []
    for number, (uid, each) in enumerate(times.items(), 1):
        rows.append(_user_row(call, uid, each))
        if not number % STEP:
            await trio.lowlevel.checkpoint()
    rows = await sorted_slice(rows, lambda row: (row.created_at, row.uid), descending=True, start=0, count=len(rows))
    page, more = _paged(rows, query)
    return UserRows(len(rows), int(more), page)


def _user_row(call: Call, uid: str, times: list[tuple[int, int]]) -> UserRow:
    sessions = call.broker.presence.sessions(uid)
    counted = [session.statistics() for session in sessions]
    now = int(min((each.started_at for each in counted), default=0))
    created = min((created for created, _ in times), default=now)
    updated = max((updated for _, updated in times), default=now)
    return UserRow(
        id=slot_of(uid),
        uid=uid,
        device_count=len(times),
        online_device_count=len({session.device.flag for session in sessions}),
        created_at=created * 10**9,
        updated_at=updated * 10**9,
        created_at_format=at(created),
        updated_at_format=at(updated),
        slot=slot_of(uid),
        **_traffic(counted),
    )


async def devices(call: Call, query: UsersQuery) -> DeviceRows:
    """List the devices that have a token, the newest first."""
    check_node(call, query.node_id)
    rows = []
    for row in await call.broker.catalog.devices(query.uid):
        if query.device_flag not in (None, row.flag):
            continue
        sessions = [each for each in call.broker.presence.sessions(row.uid) if each.device.flag == row.flag]
        device = row.device
        rows.append(
            DeviceRow(
                id=slot_of(row.uid) << 8 | row.flag,
                uid=row.uid,
                token=masked(device.token),
                device_flag=row.flag,
                device_flag_format=_FLAGS.get(row.flag, str(row.flag)),
                device_level=device.level,
                device_level_format="主设备" if device.level == 1 else "从设备",
                created_at=device.created * 10**9,
                updated_at=device.updated * 10**9,
                created_at_format=at(device.created),
                updated_at_format=at(device.updated),
                **_traffic([session.statistics() for session in sessions]),
            )
        )
    page, more = _paged(rows, query)
    return DeviceRows(len(rows), int(more), page)


def masked(token: str) -> str:
    """Return a token as it may be shown: its end, and of a short one nothing."""
    return "****" + token[-_SHOWN_OF_TOKEN:] if len(token) > 2 * _SHOWN_OF_TOKEN else "****" if token else ""


async def _conversation_rows(call: Call, query: ConversationsQuery) -> ConversationRows:
    found = await call.broker.catalog.conversations(query.uid)
    found.sort(key=lambda row: row.conversation.last.message_id if row.conversation.last else 0, reverse=True)
    start, limit = (max(query.current_page, 1) - 1) * (query.limit or _PAGE), query.limit or _PAGE
    rows = []
    for number, row in enumerate(found[start : start + limit], start + 1):
        each = row.conversation
        rows.append(
            ConversationRow(
                id=number,
                uid=row.uid,
                type=0,
                type_format="聊天",
                channel_id=each.channel.id,
                channel_type=each.channel.type,
                channel_type_format=TYPES.get(each.channel.type, str(each.channel.type)),
                unread_count=each.unread,
                last_msg_seq=each.last.seq if each.last is not None else 0,
                readed_to_msg_seq=each.read_to,
                created_at=row.created,
                updated_at=each.updated,
                created_at_format=at(row.created),
                updated_at_format=at(each.updated),
            )
        )
    return ConversationRows(len(found), rows)


async def conversations(call: Call, query: ConversationsQuery) -> ConversationRows:
    """List the conversations of a user; of nobody, if no uid is given."""
    check_node(call, query.node_id)
    return await _conversation_rows(call, query) if query.uid else ConversationRows(0, [])


@attrs.frozen
class OldConversations:
    """Conversations as WuKongIM 1.2.6's monitor lists them."""

    on: int
    conversations: list[ConversationRow]


async def old_conversations(call: Call, query: ConversationsQuery) -> OldConversations:
    """List the conversations of a user as WuKongIM 1.2.6's monitor does."""
    if not query.uid:
        raise ApiError("param invalid", code="missing_field")
    return OldConversations(int(call.broker.config.conversation.on), (await _conversation_rows(call, query)).data)


_READ: dict[str, Any] = {"is_admin": True, "resource": "cluster"}

ROUTES = (
    get("/cluster/messages", messages, MessagesQuery, MessageRows, **_READ),
    get("/api/messages", old_messages, MessagesQuery, OldMessages, **_READ),
    get("/cluster/users", users, UsersQuery, UserRows, **_READ),
    get("/cluster/devices", devices, UsersQuery, DeviceRows, **_READ),
    get("/cluster/conversations", conversations, ConversationsQuery, ConversationRows, **_READ),
    get("/api/conversations", old_conversations, ConversationsQuery, OldConversations, **_READ),
)
