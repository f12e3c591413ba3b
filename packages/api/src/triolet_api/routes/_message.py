"""Sending, and reading back. Source: http-api.md, section 6."""

import json
import uuid
from typing import Any

from triolet_api._api import (
    Request,
    flags_of,
    gets,
    key_for,
    message_json,
    messages_json,
    person_key,
    posts,
)
from triolet_api._body import BAD_FORMAT, ApiError, Body
from triolet_core import SYSTEM_UID, ChannelKey, ChannelType, Device, Draft, ReasonCode, Receipt
from triolet_core.model import COMMAND_SUFFIX, FORBIDDEN_ID_CHARACTERS, NO_PERSIST, SYNC_ONCE

_NO_PAYLOAD = "payload不能为空！"
_CANNOT_SEND = "无法处理发送消息请求！"
MAX_BATCH = 1000
_NOT_DELIVERED = {ReasonCode.BAN, ReasonCode.DISBAND}


async def send(request: Request) -> Any:
    """POST /message/send: answered after the message is on disk."""
    sender, draft = _draft(request, request.body)
    receipt = await request.broker.messages.send(sender, draft)
    return _answer(draft, receipt)


async def send_batch(request: Request) -> Any:
    """POST /message/sendbatch: a payload for many users, or a list of whole messages."""
    if isinstance(request.json, list):
        return await _send_each(request, request.json)
    body = request.body
    sender = _sender(body.text("from_uid", missing="from_uid不能为空！"))
    uids = body.texts("subscribers", "uids")
    if not uids:
        raise ApiError("subscribers不能为空！", code="missing_field")
    payload = _payload(body)
    flags = flags_of(body.object("header"))
    drafts = [Draft(uid, ChannelType.PERSON, payload, flags=flags) for uid in uids]
    receipts = await request.broker.messages.send_many(sender, drafts)
    failed = [(uid, each) for uid, each in zip(uids, receipts, strict=True) if each.reason != ReasonCode.SUCCESS]
    return {"fail_uids": [uid for uid, _ in failed], "reason": [_reason(each.reason) for _, each in failed]}


async def _send_each(request: Request, items: list[Any]) -> list[dict[str, Any]]:
    if len(items) > MAX_BATCH:
        raise ApiError(f"{BAD_FORMAT}: {len(items)} > {MAX_BATCH}", code="list_too_long")
    answers = []
    for item in items:
        try:
            sender, draft = _draft(request, Body(item))
            answers.append(_answer(draft, await request.broker.messages.send(sender, draft)))
        except ApiError as exc:
            answers.append(exc.as_json())
    return answers


def _draft(request: Request, body: Body) -> tuple[Device, Draft]:
    payload = _payload(body)
    flags = flags_of(body.object("header"))
    to_uids = tuple(body.texts("subscribers"))
    channel_id = body.text("channel_id")
    if bool(to_uids) == bool(channel_id):
        raise ApiError(_CANNOT_SEND, code="channel_or_subscribers")
    if any(character in channel_id for character in FORBIDDEN_ID_CHARACTERS):
        raise ApiError("频道ID不合法！", code="bad_id")
    kind = body.channel_type() if channel_id else int(ChannelType.TEMP)
    sender = _sender(body.text("from_uid"))
    if kind == ChannelType.PERSON and any(c in sender.uid for c in FORBIDDEN_ID_CHARACTERS):
        raise ApiError("from_uid不能包含特殊字符！", code="bad_id")
    draft = Draft(
        channel_id or _temporary(request, to_uids, flags),
        kind,
        payload,
        body.text("client_msg_no") or f"{uuid.uuid4().hex}0",
        flags,
        body.number("setting", 0, high=255),
        body.number("expire", 0, high=2**32 - 1),
        body.text("topic"),
        to_uids=to_uids,
    )
    return sender, draft


def _temporary(request: Request, uids: tuple[str, ...], flags: int) -> str:
    """Return the channel of a message to listed users (semantics.md, section 2.7)."""
    channel = request.broker.config.channel
    if not flags & SYNC_ONCE:
        return f"{uuid.uuid4().hex}{channel.tmp_suffix}"
    if flags & NO_PERSIST:
        return channel.online_cmd_channel_id
    return f"{_fnv1a(','.join(uids).encode())}{COMMAND_SUFFIX}"


def _fnv1a(data: bytes) -> int:
    """Return the 64-bit FNV-1a hash."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def _sender(uid: str) -> Device:
    return Device(uid=uid or SYSTEM_UID, is_server=True)


def _payload(body: Body) -> bytes:
    payload = body.payload()
    if not payload and body.has("content"):
        content = body.raw("content")
        kind = {"type": body.number("type", 1)}
        shown = {**kind, **content} if isinstance(content, dict) else {**kind, "content": content}
        payload = json.dumps(shown, ensure_ascii=False, separators=(",", ":")).encode()
    if not payload:
        raise ApiError(_NO_PAYLOAD, code="missing_field")
    return payload


def _answer(draft: Draft, receipt: Receipt) -> dict[str, Any]:
    if receipt.reason in _NOT_DELIVERED:
        return {"status": int(receipt.reason)}
    if receipt.reason != ReasonCode.SUCCESS:
        raise ApiError(f"{_CANNOT_SEND}: {_reason(receipt.reason)}", code=_reason(receipt.reason))
    data = {
        "message_id": receipt.message_id,
        "message_idstr": str(receipt.message_id),
        "message_seq": receipt.seq,
        "client_msg_no": draft.client_msg_no,
    }
    return {"status": 200, **data, "data": data}


def _reason(code: int) -> str:
    return ReasonCode(code).name.lower()


async def sync(request: Request) -> Any:
    """POST /channel/messagesync, in WuKongIM's or LiMaoIM's terms."""
    body = request.body
    body.text("login_uid", missing="login_uid不能为空！")
    key = person_key(body, missing="login_uid不能为空！")
    limit = max(body.number("limit", 0, low=-(2**63)), 0)
    if body.has("min_message_seq", "max_message_seq", "reverse"):
        return _limao_sync(request, body, key, limit)
    start, end = body.number("start_message_seq"), body.number("end_message_seq")
    newer = body.number("pull_mode") == 1
    page = request.broker.messages.sync(key, start=start, end=end, limit=limit, newer=newer)
    return {
        "start_message_seq": start,
        "end_message_seq": end,
        "more": int(page.more),
        "messages": messages_json(page.messages),
    }


def _limao_sync(request: Request, body: Body, key: ChannelKey, limit: int) -> Any:
    """Both bounds are exclusive; `reverse` reads upwards."""
    low, high = body.number("min_message_seq"), body.number("max_message_seq")
    downwards = not body.flag("reverse") and not low and bool(high)
    start, end = (max(high - 1, 0), 0) if downwards else (low + 1, high)
    page = request.broker.messages.sync(key, start=start, end=end, limit=limit, newer=not downwards)
    return {
        "min_message_seq": low,
        "max_message_seq": high,
        "start_message_seq": low,
        "end_message_seq": high,
        "more": int(page.more),
        "messages": messages_json(page.messages),
    }


def _query_key(request: Request) -> ChannelKey:
    channel_id, login_uid = request.query.get("channel_id", ""), request.query.get("login_uid", "")
    if not channel_id:
        raise ApiError("channel_id不能为空", code="missing_field")
    kind = request.number("channel_type")
    if kind == ChannelType.PERSON and not login_uid and "@" not in channel_id:
        raise ApiError("login_uid不能为空！", code="missing_field")
    return key_for(login_uid, channel_id, kind)


async def max_message_seq(request: Request) -> Any:
    """GET /channel/max_message_seq."""
    return {"message_seq": request.broker.messages.max_seq(_query_key(request))}


async def last_message(request: Request) -> Any:
    """GET /channel/last_message."""
    page = request.broker.messages.sync(_query_key(request), start=0, end=0, limit=1, newer=False)
    return message_json(page.messages[-1]) if page.messages else {"status": 404}


ROUTES = (
    *posts({"/message/send": send, "/message/sendbatch": send_batch, "/channel/messagesync": sync}),
    *gets({"/channel/max_message_seq": max_message_seq, "/channel/last_message": last_message}),
)
