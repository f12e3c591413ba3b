"""Recent conversations. Source: http-api.md, section 7."""

from collections.abc import Sequence
from typing import ClassVar

import attrs
from msgspec import UNSET, UnsetType

from triolet_api._answers import OK, ChannelName, MessageObject, Ok, message_object, message_objects
from triolet_api._call import Call, ask, get, key_for, post, reads
from triolet_api._errors import ApiError, missing
from triolet_api._fields import ChannelType as TypeField
from triolet_api._fields import Flag, MaybeNumber, Needs, Number, Numbers, Objects, Text, Texts, field
from triolet_core import SYSTEM_UID, ChannelKey, ChannelType, Conversation, Message, peer_of

_NO_CHANNEL = "channel_id or channel_type cannot be empty"
_NO_UID = "uid不能为空！"
_NANOSECOND_VERSIONS = 10**16
MAX_PAGE_SIZE = 500
MAX_PAGE = 10**6
MAX_RECENTS = 1000
DEFAULT_RECENTS = 15


@attrs.frozen(kw_only=True)
class LargeBody:
    """A channel that is to be in the list."""

    channel_id: str = field(Text(missing="channel_id不能为空！"))
    channel_type: int = field(TypeField())


@attrs.frozen(kw_only=True)
class SyncBody:
    """Which conversations of a user."""

    uid: str = field(Text(missing=_NO_UID))
    version: int = field(Number(low=-(2**63), doc="only those that changed later; 0: all"))
    last_msg_seqs: str = field(Text(is_free=True, doc="what the client has: id:type:seq, joined by |"))
    msg_count: int = field(Number(low=-(2**63), doc="recent messages of each"))
    only_unread: bool = field(Flag())
    exclude_channel_types: list[int] = field(Numbers(high=255))
    page: int = field(Number(low=-(2**63), doc="from 1; 0: all"))
    page_size: int = field(Number(low=-(2**63), doc="0: 100; most 500"))
    limit: int | None = field(MaybeNumber(low=-(2**63), doc="page 1 of this size"))
    larges: list[LargeBody] = field(Objects(of=LargeBody, doc="channels to include"))


@attrs.frozen(kw_only=True)
class ConversationObject:
    """A conversation."""

    channel_id: str
    channel_type: int
    unread: int
    timestamp: int
    last_msg_seq: int
    last_client_msg_no: str
    offset_msg_seq: int
    readed_to_msg_seq: int
    version: int
    recents: list[MessageObject]


@attrs.frozen(kw_only=True)
class PositionBody:
    """A channel and what the client has of it."""

    channel_id: str = field(Text(missing="channel_id不能为空！"))
    channel_type: int = field(TypeField())
    last_msg_seq: int = field(Number())


@attrs.frozen(kw_only=True)
class RecentsBody:
    """Channels whose messages are asked for; or one, by its id."""

    uid: str = field(Text(missing=_NO_UID))
    channels: list[PositionBody] = field(Objects(of=PositionBody))
    msg_count: int = field(Number(low=-(2**63), doc="0: 15"))
    order_by_last: int | None = field(MaybeNumber(doc="1: newest first, 0: from last_msg_seq on"))
    channel_id: str = field(Text())
    channel_type: int = field(TypeField(is_optional=True))
    last_msg_seq: int = field(Number())
    limit: int = field(Number(low=-(2**63)))


@attrs.frozen(kw_only=True)
class Recents:
    """Messages of a channel."""

    channel_id: str
    channel_type: int
    messages: list[MessageObject]
    user_last_msg_seq: int


@attrs.frozen(kw_only=True)
class ByChannelsBody:
    """Channels whose conversations are asked for."""

    uid: str = field(Text(missing="uid cannot be empty"))
    channels: list[LargeBody] = field(Objects(of=LargeBody, missing="channels cannot be empty"))
    msg_count: int = field(Number(low=-(2**63), doc="0: 15"))


@attrs.frozen(kw_only=True)
class UidBody:
    """A user."""

    uid: str = field(Text(missing=_NO_UID))


@attrs.frozen(kw_only=True)
class UidQuery:
    """A user."""

    uid: str = field(Text(missing="uid cannot be empty"))


@attrs.frozen(kw_only=True)
class OldConversation:
    """A conversation as WuKongIM 1.2.6 lists it."""

    channel_id: str
    channel_type: int
    unread: int
    timestamp: int
    last_message: MessageObject | UnsetType = UNSET


@attrs.frozen
class Total:
    """The unread messages of a user in all conversations."""

    uid: str
    unread: int
    conversations: int


@attrs.frozen(kw_only=True)
class TargetBody:
    """One conversation of a user."""

    NEEDS: ClassVar[Needs] = (("channel_id",), ("channel_type",))

    channel_id: str = field(Text())
    channel_type: int = field(TypeField(is_optional=True))

    def key(self, uid: str) -> ChannelKey:
        """The channel as it is stored."""
        if not self.channel_id or not self.channel_type:
            raise ApiError(_NO_CHANNEL, code="missing_field")
        return key_for(uid, self.channel_id, self.channel_type)


@attrs.frozen(kw_only=True)
class ReadBody(TargetBody):
    """A conversation that was read."""

    uid: str = field(Text(missing="uid cannot be empty"))
    message_seq: int = field(Number(doc="read up to here; 0: everything"))


@attrs.frozen(kw_only=True)
class UnreadBody(TargetBody):
    """A conversation and what is unread of it."""

    uid: str = field(Text(missing="UID cannot be empty"))
    unread: int = field(Number(low=-(2**63)))
    message_seq: int = field(Number(doc="without effect"))


@attrs.frozen(kw_only=True)
class DeleteBody(TargetBody):
    """A conversation that is hidden until the next message, for one user or several."""

    NEEDS: ClassVar[Needs] = (*TargetBody.NEEDS, ("uid", "uids"))

    uid: str = field(Text())
    uids: list[str] = field(Texts())


@reads
def sync(call: Call, body: SyncBody) -> list[ConversationObject]:
    """List the conversations of a user, the newest message first."""
    conversations = call.broker.conversations
    known = _known(body.last_msg_seqs)
    version = max(body.version, 0)
    is_ms = bool(version and version < _NANOSECOND_VERSIONS) or (
        not version and call.broker.compat.version_in_milliseconds
    )
    found = conversations.list(body.uid)
    listed = {each.channel for each in found}
    for large in body.larges:
        key = key_for(body.uid, large.channel_id, large.channel_type)
        if key not in listed:
            found += [each] if (each := _of_channel(call, body.uid, key)) else []
    wanted = [each for each in found if _is_wanted(each, body, known)]
    rows = []
    for each in wanted:
        seen = known.get((peer_of(each.channel, body.uid), each.channel.type))
        unread_only = body.only_unread or bool(version and seen is None)
        floor = max(each.deleted_to, seen or 0, each.read_to if unread_only else 0)
        row = _row(call, each, body.uid, floor, min(max(body.msg_count, 0), MAX_RECENTS), 1000 if is_ms else 10**9)
        if row.version > version or not version:
            rows.append(row)
    return _page(body, rows)


def _of_channel(call: Call, uid: str, key: ChannelKey) -> Conversation | None:
    known = call.broker.conversations.get(uid, key)
    if known is not None:
        return known if known.last is not None else None
    page = call.broker.messages.sync(key, start=0, end=0, limit=1, newer=False)
    if not page.messages:
        return None
    return Conversation(channel=key, unread=0, read_to=0, deleted_to=0, last=page.messages[-1], updated=0)


def _is_wanted(each: Conversation, body: SyncBody, known: dict[tuple[str, int], int]) -> bool:
    peer = peer_of(each.channel, body.uid)
    seen = known.get((peer, each.channel.type))
    if peer == SYSTEM_UID or each.last is None or (each.channel.type in body.exclude_channel_types and seen is None):
        return False
    return not (body.only_unread and not each.unread) and (seen is None or seen < each.last.seq)


def _page(body: SyncBody, rows: list[ConversationObject]) -> list[ConversationObject]:
    page, size = min(max(body.page, 0), MAX_PAGE), body.page_size if body.page_size > 0 else 100
    if body.limit is not None:
        page, size = 1, body.limit if body.limit > 0 else MAX_PAGE_SIZE
    size = min(size, MAX_PAGE_SIZE)
    return rows[(page - 1) * size : page * size] if page else rows


def _row(call: Call, each: Conversation, uid: str, floor: int, recents: int, unit: int) -> ConversationObject:
    last = each.last
    seq, timestamp, number = (last.seq, last.timestamp, last.client_msg_no) if last is not None else (0, 0, "")
    messages: list[Message] = []
    if recents:
        page = call.broker.messages.sync(each.channel, start=0, end=0, limit=recents, newer=False)
        messages = [message for message in reversed(page.messages) if message.seq > floor]
    return ConversationObject(
        channel_id=peer_of(each.channel, uid),
        channel_type=each.channel.type,
        unread=each.unread,
        timestamp=timestamp,
        last_msg_seq=seq,
        last_client_msg_no=number,
        offset_msg_seq=each.deleted_to,
        readed_to_msg_seq=each.read_to,
        version=timestamp * unit,
        recents=message_objects(call.broker, messages),
    )


def _known(text: str) -> dict[tuple[str, int], int]:
    """Parse `id:type:seq|…`; ids may hold colons."""
    known = {}
    for item in filter(None, text.split("|")):
        parts = item.rsplit(":", 2)
        if len(parts) != 3 or not (parts[1] + parts[2]).isdecimal() or len(parts[2]) > 19:
            raise ApiError("last_msg_seqs: id:type:seq", code="bad_field")
        known[parts[0], int(parts[1])] = int(parts[2])
    return known


@reads
def recent_messages(call: Call, body: RecentsBody) -> list[Recents]:
    """Return recent messages of channels."""
    asked: Sequence[PositionBody] = body.channels
    if body.channel_id:
        asked = [
            PositionBody(
                channel_id=body.channel_id,
                channel_type=body.channel_type or int(ChannelType.PERSON),
                last_msg_seq=body.last_msg_seq,
            )
        ]
    count = body.msg_count if body.msg_count > 0 else body.limit if body.limit > 0 else DEFAULT_RECENTS
    newest_first = call.broker.compat.sync_messages_newest_first if body.order_by_last is None else None
    return [_recents(call, body, each, min(count, MAX_RECENTS), old_rules=bool(newest_first)) for each in asked]


def _recents(call: Call, body: RecentsBody, asked: PositionBody, count: int, *, old_rules: bool) -> Recents:
    """Old rules: newest first, behind `last_msg_seq`. New ones: from it on, rising, or the newest first."""
    key = key_for(body.uid, asked.channel_id, asked.channel_type)
    stored, last = call.broker.messages, asked.last_msg_seq
    if old_rules or body.order_by_last == 1:
        floor = last if old_rules else max(last - 1, 0)
        page = stored.sync(key, start=0, end=0, limit=count, newer=False)
        messages = [message for message in reversed(page.messages) if message.seq > floor]
    else:
        messages = list(stored.sync(key, start=max(last, 1), end=0, limit=count, newer=True).messages)
    return Recents(
        channel_id=asked.channel_id,
        channel_type=asked.channel_type,
        messages=message_objects(call.broker, messages),
        user_last_msg_seq=_own_last(call, body.uid, key),
    )


def _own_last(call: Call, uid: str, key: ChannelKey) -> int:
    """Return the user's own newest message among the newest 100 of a channel."""
    page = call.broker.messages.sync(key, start=0, end=0, limit=100, newer=False)
    return max((message.seq for message in page.messages if message.sender == uid), default=0)


@reads
def by_channels(call: Call, body: ByChannelsBody) -> list[ConversationObject]:
    """Return the conversations of a user with given channels, in that order, those without messages too."""
    recents = min(body.msg_count, MAX_RECENTS) if body.msg_count > 0 else DEFAULT_RECENTS
    unit = 1000 if call.broker.compat.version_in_milliseconds else 10**9
    rows = []
    for asked in body.channels:
        key = key_for(body.uid, asked.channel_id, asked.channel_type)
        each = call.broker.conversations.get(body.uid, key) or _of_channel(call, body.uid, key)
        each = each or Conversation(channel=key, unread=0, read_to=0, deleted_to=0, last=None, updated=0)
        row = _row(call, each, body.uid, each.deleted_to, recents, unit)
        rows.append(attrs.evolve(row, channel_id=asked.channel_id))
    return rows


@reads
def channels(call: Call, body: UidBody) -> list[ChannelName]:
    """List the channels of a user's conversations as they are stored: a person channel by the id of both its ends."""
    return [
        ChannelName(channel_id=each.channel.id, channel_type=each.channel.type)
        for each in call.broker.conversations.list(body.uid)
    ]


@reads
def old_list(call: Call, query: UidQuery) -> list[OldConversation]:
    """List the conversations of a user as WuKongIM 1.2.6 does."""
    return [
        OldConversation(
            channel_id=peer_of(each.channel, query.uid),
            channel_type=each.channel.type,
            unread=each.unread,
            timestamp=each.last.timestamp if each.last is not None else 0,
            last_message=message_object(each.last) if each.last is not None else UNSET,
        )
        for each in call.broker.conversations.list(query.uid)
    ]


@reads
def total_unread(call: Call, query: UidQuery) -> Total:
    """Count what a user has not read, in all conversations: those too that lists leave out for their number."""
    found = [
        each for each in call.broker.conversations.every(query.uid) if peer_of(each.channel, query.uid) != SYSTEM_UID
    ]
    return Total(query.uid, sum(each.unread for each in found), len(found))


async def clear_unread(call: Call, body: ReadBody) -> Ok:
    """Mark a conversation as read."""
    await call.broker.conversations.mark_read(body.uid, body.key(body.uid), body.message_seq or None)
    return OK


async def set_unread(call: Call, body: UnreadBody) -> Ok:
    """Leave exactly so many messages unread, as far as there are."""
    await call.broker.conversations.set_unread(body.uid, body.key(body.uid), body.unread)
    return OK


async def delete(call: Call, body: DeleteBody) -> Ok:
    """Hide a conversation until its next message."""
    uids = body.uids or ([body.uid] if body.uid.strip() else [])
    if not uids:
        raise missing("Uid cannot be empty")
    await call.broker.conversations.delete_each([(uid, body.key(uid)) for uid in uids])
    return OK


ROUTES = (
    ask("/conversation/sync", sync, SyncBody, list[ConversationObject], resource="conversation"),
    ask("/conversation/syncMessages", recent_messages, RecentsBody, list[Recents], resource="conversation"),
    ask("/conversation/syncByChannels", by_channels, ByChannelsBody, list[ConversationObject], resource="conversation"),
    ask("/conversation/channels", channels, UidBody, list[ChannelName], resource="conversation"),
    get("/conversation/totalUnread", total_unread, UidQuery, Total, resource="conversation"),
    get("/conversations", old_list, UidQuery, list[OldConversation], resource="conversation"),
    post("/conversations/clearUnread", clear_unread, ReadBody, Ok, resource="conversation"),
    post("/conversations/setUnread", set_unread, UnreadBody, Ok, resource="conversation"),
    post("/conversations/delete", delete, DeleteBody, Ok, resource="conversation"),
)
