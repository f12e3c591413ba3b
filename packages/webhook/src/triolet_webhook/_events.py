"""Names and bodies of the events, pure. Source: semantics.md, sections 4.3 and 5; seeds 000 and 002."""

import base64
import gzip
import json
from collections.abc import Sequence
from typing import Any

import attrs
import cbor2

from triolet_core import NO_PERSIST, RED_DOT, SYNC_ONCE, Message, peer_of
from triolet_core.hooks import SendRequest
from triolet_core.model import plain_channel

NOTIFY = "msg.notify"
OFFLINE = "msg.offline"
ONLINE_STATUS = "user.onlinestatus"
LOGOUT = "user.logout"
BEFORE_SEND = "msg.before_send"
UNASKED = frozenset({NOTIFY, OFFLINE, ONLINE_STATUS})
"""What is pushed without `webhook.focusEvents`."""


def is_wanted(event: str, focus: Sequence[str]) -> bool:
    """Whether an event is to be pushed."""
    return event in focus if focus else event in UNASKED


def body_of(value: Any) -> bytes:
    """Return the JSON of a body."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def message_object(message: Message) -> dict[str, Any]:
    """Return a stored message as the receiver sees it: the channel by its plain id, a person by the target's uid."""
    channel = plain_channel(message.channel)
    return {
        "header": _header(message.flags),
        "setting": message.setting,
        "message_id": message.message_id,
        "message_idstr": str(message.message_id),
        "client_msg_no": message.client_msg_no,
        "message_seq": message.seq,
        "from_uid": message.sender,
        "channel_id": peer_of(channel, message.sender),
        "channel_type": channel.type,
        **({"topic": message.topic} if message.topic else {}),
        "expire": message.expire,
        "timestamp": message.timestamp,
        "payload": base64.b64encode(message.payload).decode(),
    }


def _header(flags: int) -> dict[str, int]:
    return {
        "no_persist": int(bool(flags & NO_PERSIST)),
        "red_dot": int(bool(flags & RED_DOT)),
        "sync_once": int(bool(flags & SYNC_ONCE)),
    }


def offline_object(message: Message, to_uids: Sequence[str], *, node: int, compress_above: int) -> dict[str, Any]:
    """Return a message with those it could not be pushed to; more than `compress_above` (0: never) are gzipped."""
    shown = message_object(message)
    if compress_above and len(to_uids) > compress_above:
        packed = gzip.compress(body_of(list(to_uids)), compresslevel=6, mtime=0)
        shown |= {"to_uids": [], "compress": "gzip", "compress_to_uids": base64.b64encode(packed).decode()}
    else:
        shown["to_uids"] = list(to_uids)
    return shown | {"source_id": node}


def question_of(request: SendRequest) -> dict[str, Any]:
    """Return a message that is not stored yet, with the device that sends it."""
    draft, sender = request.draft, request.sender
    return {
        "header": _header(draft.flags),
        "setting": draft.setting,
        "client_msg_no": draft.client_msg_no,
        "from_uid": sender.uid,
        "device_id": sender.device_id,
        "device_flag": sender.flag,
        "channel_id": draft.channel_id,
        "channel_type": draft.channel_type,
        **({"topic": draft.topic} if draft.topic else {}),
        "expire": draft.expire,
        "payload": base64.b64encode(draft.payload).decode(),
    }


@attrs.frozen
class PresenceRow:
    """One connection came or went; the counts are those after the change."""

    uid: str
    flag: int
    online: bool
    connection_id: int
    same_flag: int
    total: int
    logout: bool = False
    """The client itself said that it leaves."""

    def six(self) -> str:
        """Return WuKongIM's form."""
        fields = (self.uid, self.flag, int(self.online), self.connection_id, self.same_flag, self.total)
        return "-".join(map(str, fields))

    def three(self) -> str | None:
        """Return LiMaoIM's form; an offline only when the last connection of the flag goes, else None."""
        if not self.online and self.same_flag:
            return None
        return f"{self.uid}-{self.flag}-{int(self.online)}"


def status_strings(rows: Sequence[PresenceRow], *, three: bool) -> list[str]:
    """Return the body of `user.onlinestatus`."""
    strings = (row.three() if three else row.six() for row in rows)
    return [string for string in strings if string is not None]


def logout_strings(rows: Sequence[PresenceRow], *, three: bool) -> list[str]:
    """Return the body of `user.logout`."""
    return status_strings([row for row in rows if row.logout], three=three)


def encode_rows(rows: Sequence[PresenceRow], created_ms: int) -> bytes:
    """Encode what happened at one moment, for a durable queue."""
    return cbor2.dumps([created_ms, [attrs.astuple(row) for row in rows]])


def decode_rows(payload: bytes) -> tuple[list[PresenceRow], int]:
    """Decode (rows, milliseconds)."""
    created_ms, rows = cbor2.loads(payload)
    return [PresenceRow(*row) for row in rows], created_ms
