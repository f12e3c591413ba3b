"""The HTTP API as the client uses it: JSON in and out is translated here and nowhere else.

Source: http-api.md, sections 3.4, 4.3, 5.5, 6 and 7.
"""

import json
import uuid
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import attrs
import httpx

from triolet_client._errors import ApiError, ApiUnavailable
from triolet_client._model import PERSON, SYSTEM_UID, Channel, Conversation, Lane, Message, Presence, Receipt
from triolet_protocol import NO_PERSIST, RED_DOT, SYNC_ONCE

_HEADER = (("no_persist", NO_PERSIST), ("red_dot", RED_DOT), ("sync_once", SYNC_ONCE))
_TOO_MANY, _SERVER_ERRORS, _FIRST_ERROR = 429, 500, 400
_ACCEPTED = 1
_BAD_ANSWER = 502
_HISTORY, _LANES = "/channel/messagesync", "/message/eventsync"
R = TypeVar("R")


@attrs.frozen
class Page:
    """Messages of a channel, rising, and whether more follow in the direction that was asked for."""

    messages: tuple[Message, ...]
    more: bool


class Api:
    """Calls of the HTTP API on behalf of one user.

    Every method raises `ApiError` if the server refuses, and `ApiUnavailable` if it cannot answer now. An answer that
    is not what the API promises is an `ApiError` with status 502.
    """

    def __init__(self, http: httpx.AsyncClient, uid: str) -> None:
        self._http = http
        self._uid = uid

    # --- reading

    async def conversations(self, positions: Mapping[Channel, int] | None = None) -> list[Conversation]:
        """List the user's conversations, the newest message first.

        Args:
            positions: What is there already; channels without anything newer are left out.
        """
        known = [
            f"{channel.id}:{channel.type}:{seq}"
            for channel, seq in (positions or {}).items()
            if "|" not in channel.id and ":" not in channel.id
        ]
        body = {"uid": self._uid, "version": 0, "msg_count": 1, "last_msg_seqs": "|".join(known)}
        return await self._ask_list("/conversation/sync", body, self._conversation)

    async def newer(self, channel: Channel, start: int, end: int, limit: int) -> Page:
        """Return the first messages from number `start` on, below `end` unless that is 0."""
        return await self._page(channel, start, end, limit, 1)

    async def older(self, channel: Channel, start: int, limit: int) -> Page:
        """Return the messages up to number `start`; 0 is the newest."""
        return await self._page(channel, start, 0, limit, 0)

    async def _page(self, channel: Channel, start: int, end: int, limit: int, pull_mode: int) -> Page:
        answer = await self.post(
            _HISTORY,
            {
                "login_uid": self._uid,
                "channel_id": channel.id,
                "channel_type": channel.type,
                "start_message_seq": start,
                "end_message_seq": end,
                "limit": limit,
                "pull_mode": pull_mode,
            },
        )
        with _promised(_HISTORY):
            return Page(tuple(self._message(each) for each in answer["messages"] or ()), bool(answer.get("more")))

    async def commands(self, limit: int) -> list[Message]:
        """Return the commands that wait for the user; their `seq` is the place to acknowledge."""
        body = {"uid": self._uid, "message_seq": 0, "limit": limit}
        found = await self._ask_list("/message/sync", body, self._message)
        return [attrs.evolve(message, flags=message.flags | SYNC_ONCE) for message in found]

    async def acknowledge_commands(self, place: int) -> None:
        """Forget the commands up to a place."""
        await self.post("/message/syncack", {"uid": self._uid, "last_message_seq": place})

    async def online(self, uids: Iterable[str]) -> list[Presence]:
        """Return which devices of some users are online."""
        return await self._ask_list("/user/onlinestatus", list(uids), _presence)

    # --- conversations

    async def mark_read(self, channel: Channel, seq: int = 0) -> None:
        """Take everything up to `seq`, or all of it, as read."""
        await self.post("/conversations/clearUnread", {**self._target(channel), "message_seq": seq})

    async def set_unread(self, channel: Channel, unread: int) -> None:
        """Leave so many messages unread."""
        await self.post("/conversations/setUnread", {**self._target(channel), "unread": unread})

    async def delete_conversation(self, channel: Channel) -> None:
        """Hide a conversation until its next message."""
        await self.post("/conversations/delete", self._target(channel))

    def _target(self, channel: Channel) -> dict[str, Any]:
        return {"uid": self._uid, "channel_id": channel.id, "channel_type": channel.type}

    # --- what a backend does, for programs that are their own

    async def set_token(self, uid: str, token: str, device_flag: int = 0, *, is_master: bool = False) -> None:
        """Set the token of a user's devices of one kind."""
        body = {"uid": uid, "token": token, "device_flag": device_flag, "device_level": int(is_master)}
        await self.post("/user/token", body)

    async def create_channel(self, channel: Channel, members: Iterable[str]) -> None:
        """Make a group with members, or add members to it."""
        body = {"channel_id": channel.id, "channel_type": channel.type, "subscribers": list(members)}
        await self.post("/channel", body)

    async def set_temporary(self, channel_id: str, members: Iterable[str]) -> None:
        """Set the members of a temporary channel, at least one."""
        body = {"channel_id": channel_id, "uids": list(members)}
        await self.post("/tmpchannel/subscriber_set", body)  # noqa: S108  # a path of the API

    async def delete_channel(self, channel: Channel) -> None:
        """End a channel: its members, lists and messages are deleted."""
        await self.post("/channel/delete", {"channel_id": channel.id, "channel_type": channel.type})

    async def send(
        self,
        channel: Channel,
        payload: bytes,
        *,
        flags: int = RED_DOT,
        client_msg_no: str = "",
        is_stream: bool = False,
    ) -> Receipt:
        """Send a message by the API, in the user's name; also to the user's own devices."""
        number = client_msg_no or uuid.uuid4().hex
        answer = await self.post(
            "/message/send",
            {
                "header": {name: int(bool(flags & bit)) for name, bit in _HEADER},
                "client_msg_no": number,
                "from_uid": self._uid,
                "channel_id": channel.id,
                "channel_type": channel.type,
                "payload": b64encode(payload).decode(),
                "is_stream": int(is_stream),
            },
        )
        found = answer.get("data") or {}
        return Receipt(
            reason=_ACCEPTED,
            message_id=int(found.get("message_id", 0)),
            seq=int(found.get("message_seq", 0)),
            client_msg_no=number,
        )

    # --- streams

    async def add_event(
        self, channel: Channel, client_msg_no: str, event_id: str, event_type: str, payload: Any, *, key: str
    ) -> str:
        """Add an event to a message; returns the status that its lane has then."""
        answer = await self.post(
            "/message/event",
            {
                "channel_id": channel.id,
                "channel_type": channel.type,
                "from_uid": self._uid,
                "client_msg_no": client_msg_no,
                "event_id": event_id,
                "event_type": event_type,
                "event_key": key,
                "payload": payload,
            },
        )
        return str((answer.get("data") or {}).get("stream_status", ""))

    async def lanes(self, channel: Channel, client_msg_no: str, *, key: str = "") -> list[Lane]:
        """Return what a stream has collected; of one lane or of all."""
        answer = await self.post(
            _LANES,
            {
                "channel_id": channel.id,
                "channel_type": channel.type,
                "from_uid": self._uid,
                "client_msg_no": client_msg_no,
                "event_key": key,
                "limit": 2000,
            },
        )
        with _promised(_LANES):
            return [_lane(row) for row in answer["data"]["events"] or ()]

    # --- translation

    async def _ask_list(self, path: str, body: Any, read: Callable[[Mapping[str, Any]], R]) -> list[R]:
        """Make a request whose answer is a list; for nothing the reference may answer with an object or null."""
        answer = await self.post(path, body)
        with _promised(path):
            return [read(row) for row in answer] if isinstance(answer, list) else []

    async def post(self, path: str, body: Any) -> Any:
        """Make a request and return the JSON of its answer."""
        try:
            response = await self._http.post(path, json=body)
        except httpx.HTTPError as exc:
            raise ApiUnavailable(path, type(exc).__name__) from exc
        if response.status_code == _TOO_MANY or response.status_code >= _SERVER_ERRORS:
            raise ApiUnavailable(path, f"status {response.status_code}")
        try:
            answer = response.json()
        except ValueError:
            answer = {"msg": ""} if response.status_code >= _FIRST_ERROR else None
        status = answer.get("status", response.status_code) if isinstance(answer, dict) else response.status_code
        if answer is None or status != httpx.codes.OK:
            raise ApiError(path, status if answer is not None else _BAD_ANSWER, _text(answer))
        return answer

    def _message(self, row: Mapping[str, Any]) -> Message:
        header = row.get("header") or {}
        from_uid = row["from_uid"]
        channel = Channel(row["channel_id"], row["channel_type"])
        if channel.type == PERSON and channel.id == self._uid and from_uid != self._uid:
            channel = Channel(from_uid or SYSTEM_UID, PERSON)  # the API names the receiver, we the other end
        return Message(
            message_id=row["message_id"],
            seq=row["message_seq"],
            channel=channel,
            from_uid=from_uid,
            client_msg_no=row["client_msg_no"],
            timestamp=row["timestamp"],
            payload=b64decode(row.get("payload") or "", validate=True),
            flags=sum(bit for name, bit in _HEADER if header.get(name)),
            setting=row.get("setting", 0),
            expire=row.get("expire", 0),
            topic=row.get("topic", ""),
            is_caught_up=True,
        )

    def _conversation(self, row: Mapping[str, Any]) -> Conversation:
        recents = row.get("recents") or []
        return Conversation(
            channel=Channel(row["channel_id"], row["channel_type"]),
            unread=row["unread"],
            last_seq=row["last_msg_seq"],
            read_to=row.get("readed_to_msg_seq", 0),
            deleted_to=row.get("offset_msg_seq", 0),
            timestamp=row["timestamp"],
            last=self._message(recents[0]) if recents else None,
        )


def _text(answer: Any) -> str:
    return str(answer.get("msg", "")) if isinstance(answer, dict) else "the answer is no JSON"


@contextmanager
def _promised(path: str) -> Iterator[None]:
    """Turn the reading of what an answer does not have into an `ApiError`."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as exc:
        raise ApiError(path, _BAD_ANSWER, "the answer is not what the API promises") from exc


def _presence(row: Mapping[str, Any]) -> Presence:
    return Presence(uid=row["uid"], device_flag=row["device_flag"])


def _lane(row: Mapping[str, Any]) -> Lane:
    state = row.get("payload") or {}
    return Lane(
        key=row["event_key"],
        status=state.get("status") or "",
        snapshot=state.get("snapshot"),
        event_id=row["event_id"],
        end_reason=state.get("end_reason") or 0,
        error=state.get("error") or "",
    )


@asynccontextmanager
async def open_api(
    address: "str | httpx.AsyncClient | None", uid: str, token: str, timeout_s: float
) -> AsyncIterator[Api | None]:
    """Open the API of an address, with the manager's token if there is one; a ready client is left open at the end."""
    if address is None:
        yield None
    elif isinstance(address, httpx.AsyncClient):
        yield Api(address, uid)
    else:
        headers = {"token": token} if token else {}
        url = address if "://" in address else f"http://{address}"
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout_s, trust_env=False) as http:
            yield Api(http, uid)


def text_of(payload: bytes) -> str:
    """Return the text of a payload: the `content` of a JSON object, else what it reads as."""
    text = payload.decode("utf-8", "replace")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    content = value.get("content") if isinstance(value, dict) else None
    return content if isinstance(content, str) else text
