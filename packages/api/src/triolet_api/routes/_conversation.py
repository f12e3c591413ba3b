"""Recent conversations. Source: http-api.md, section 7."""

from typing import Any

from triolet_api._api import OK, Request, key_for, messages_json, posts
from triolet_api._body import ApiError, Body
from triolet_core import SYSTEM_UID, ChannelKey, Conversation, peer_of

_NO_CHANNEL = "channel_id or channel_type cannot be empty"
_NANOSECOND_VERSIONS = 10**16
MAX_PAGE_SIZE = 500


async def sync(request: Request) -> Any:
    """POST /conversation/sync: every visible conversation, the newest message first."""
    body = request.body
    uid = body.text("uid", missing="uid不能为空！")
    known = _known(body.text("last_msg_seqs"))
    version = body.number("version")
    only_unread = body.flag("only_unread")
    recents = min(body.number("msg_count"), 1000)
    excluded = set(body.raw("exclude_channel_types") or [])
    is_ms = not version >= _NANOSECOND_VERSIONS and (version or request.broker.compat.version_in_milliseconds)
    rows = []
    for each in _page(body, request.broker.conversations.list(uid)):
        peer = peer_of(each.channel, uid)
        seen = known.get((peer, each.channel.type))
        if peer == SYSTEM_UID or (each.channel.type in excluded and seen is None) or each.last is None:
            continue
        if (only_unread and not each.unread) or (seen is not None and seen >= each.last.seq):
            continue
        floor = max(each.deleted_to, each.read_to if only_unread or (version and seen is None) else 0, seen or 0)
        row = _row(request, each, peer, floor, recents, 1000 if is_ms else 10**9)
        if row["version"] > version or not version:
            rows.append(row)
    return rows


def _row(request: Request, each: Conversation, peer: str, floor: int, recents: int, unit: int) -> dict[str, Any]:
    last = each.last
    seq, timestamp, number = (last.seq, last.timestamp, last.client_msg_no) if last is not None else (0, 0, "")
    messages: tuple[Any, ...] = ()
    if recents:
        page = request.broker.messages.sync(each.channel, start=0, end=0, limit=recents, newer=False)
        messages = tuple(message for message in reversed(page.messages) if message.seq > floor)
    return {
        "channel_id": peer,
        "channel_type": each.channel.type,
        "unread": each.unread,
        "timestamp": timestamp,
        "last_msg_seq": seq,
        "last_client_msg_no": number,
        "offset_msg_seq": each.deleted_to,
        "readed_to_msg_seq": each.read_to,
        "version": timestamp * unit,
        "recents": messages_json(messages),
    }


def _page(body: Body, found: list[Conversation]) -> list[Conversation]:
    page = min(body.number("page"), 10**6)
    size = body.number("page_size") or 100
    if body.has("limit"):
        page, size = 1, body.number("limit") or MAX_PAGE_SIZE
    size = min(size, MAX_PAGE_SIZE)
    return found[(page - 1) * size : page * size] if page else found


def _known(text: str) -> dict[tuple[str, int], int]:
    """Parse `id:type:seq|…`; ids may hold colons."""
    known = {}
    for item in filter(None, text.split("|")):
        parts = item.rsplit(":", 2)
        if len(parts) != 3 or not parts[1].isdigit() or not parts[2].isdigit():
            raise ApiError("last_msg_seqs: id:type:seq", code="bad_field")
        known[parts[0], int(parts[1])] = int(parts[2])
    return known


def _target(body: Body, uid: str) -> ChannelKey:
    channel_id, kind = body.text("channel_id"), body.number("channel_type", high=255)
    if not channel_id or not kind:
        raise ApiError(_NO_CHANNEL, code="missing_field")
    return key_for(uid, channel_id, kind)


async def clear_unread(request: Request) -> Any:
    """POST /conversations/clearUnread."""
    uid = request.body.text("uid", missing="uid cannot be empty")
    seq = request.body.number("message_seq") or None
    await request.broker.conversations.mark_read(uid, _target(request.body, uid), seq)
    return OK


async def set_unread(request: Request) -> Any:
    """POST /conversations/setUnread: exactly that many, as far as there are."""
    uid = request.body.text("uid", missing="UID cannot be empty")
    unread = request.body.number("unread", low=-(2**63))
    await request.broker.conversations.set_unread(uid, _target(request.body, uid), unread)
    return OK


async def delete(request: Request) -> Any:
    """POST /conversations/delete: for one user, or for several (LiMaoIM)."""
    uids = request.body.texts("uids") or [request.body.text("uid", missing="Uid cannot be empty")]
    for uid in uids:
        await request.broker.conversations.delete(uid, _target(request.body, uid))
    return OK


ROUTES = posts(
    {
        "/conversation/sync": sync,
        "/conversations/clearUnread": clear_unread,
        "/conversations/setUnread": set_unread,
        "/conversations/delete": delete,
    }
)
