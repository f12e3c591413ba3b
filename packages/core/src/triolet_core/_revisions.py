"""What may happen to a stored message: recall, edit, deletion of one or of a range.

The change and the command that tells of it are one transaction. Online devices get the command at once, others find it
in their command queue; whoever reads the message later sees what was done to it.
"""

import json
import uuid
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import attrs
import lmdb

from triolet_core._deletion import delete_messages
from triolet_core._messages import Messages
from triolet_core._stream_events import empty_stream
from triolet_core.errors import NotFound
from triolet_core.model import (
    REVISED,
    STREAMED,
    SYNC_ONCE,
    SYSTEM_UID,
    ChannelKey,
    ChannelType,
    Draft,
    Message,
    Revision,
    RevisionKind,
    ends_of,
)
from triolet_core.store import Store, _queries
from triolet_core.store._sealer import Sealer
from triolet_core.store._tables import ReviseMessage

MAX_DELETED = 10_000
"""Messages deleted in one transaction."""
_MOST = 2**63
COMMAND_TYPE = 99
RECALL_COMMAND, EDIT_COMMAND, DELETE_COMMAND = "messageRevoke", "messageEdit", "messageDelete"


class Revisions:
    """Changes of stored messages."""

    def __init__(self, store: Store, messages: Messages) -> None:
        self._store = store
        self._messages = messages

    async def recall(self, key: ChannelKey, message_id: int, *, by: str) -> Revision:
        """Take a message back: its payload is deleted for good, the place in the channel stays.

        Recalling it again changes nothing and is no error.

        Raises:
            NotFound: No such message in this channel.
        """
        return await self._revise(key, message_id, RevisionKind.RECALLED, b"", by)

    async def edit(self, key: ChannelKey, message_id: int, payload: bytes, *, by: str) -> Revision:
        """Replace the payload of a message.

        Raises:
            NotFound: No such message in this channel, or it was recalled.
        """
        return await self._revise(key, message_id, RevisionKind.EDITED, payload, by)

    async def _revise(self, key: ChannelKey, message_id: int, kind: RevisionKind, payload: bytes, by: str) -> Revision:
        message = self._messages.by_id(key, message_id)
        if message is None:
            raise NotFound("no such message")
        revisions: list[Revision] = []

        def change(sealer: Sealer) -> bool:
            revision, is_new = _revise(sealer, key, message.seq, kind, payload, by)
            revisions.append(revision)
            return is_new

        command = EDIT_COMMAND if kind is RevisionKind.EDITED else RECALL_COMMAND
        param = {"message_id": str(message_id), "message_seq": message.seq, "by": by}
        await self._messages.send_with(change, key, _speaker(key, message.sender), _command(command, param))
        return revisions[-1]

    async def delete(self, key: ChannelKey, seqs: Sequence[int]) -> int:
        """Delete messages for good; returns how many there were. Each 10,000 are a transaction."""
        wanted = sorted({seq for seq in seqs if 0 < seq < _MOST})
        total = 0
        for start in range(0, len(wanted), MAX_DELETED):
            total += await self._delete_listed(key, wanted[start : start + MAX_DELETED])
        return total

    async def _delete_listed(self, key: ChannelKey, seqs: list[int]) -> int:
        return len(await self._delete(key, lambda _: seqs, lambda gone: {"message_seqs": gone}))

    async def delete_range(self, key: ChannelKey, first: int, last: int) -> int:
        """Delete the messages from `first` to `last`, both included; returns how many there were.

        Each 10,000 are a transaction, which tells of its part of the range.
        """
        first = max(first, 1)
        total = 0
        while True:

            def of_range(txn: lmdb.Transaction, first: int = first) -> list[int]:
                return list(islice(_queries.seqs_between(txn, key, first, last), MAX_DELETED))

            def told(gone: list[int], first: int = first) -> dict[str, Any]:
                return {"first_seq": first, "last_seq": last if len(gone) < MAX_DELETED else gone[-1]}

            gone = await self._delete(key, of_range, told)
            total += len(gone)
            if len(gone) < MAX_DELETED:
                return total
            first = gone[-1] + 1

    async def _delete(
        self,
        key: ChannelKey,
        pick: Callable[[lmdb.Transaction], list[int]],
        told: Callable[[list[int]], dict[str, Any]],
    ) -> list[int]:
        if not self._messages.max_seq(key):
            return []
        draft = _command(DELETE_COMMAND, {})
        gone: list[int] = []

        def change(sealer: Sealer) -> bool:
            gone[:] = [seq for seq in pick(sealer.txn) if _queries.message_at(sealer.txn, key, seq) is not None]
            if gone:
                delete_messages(sealer, key, gone)
                draft.payload = _payload(DELETE_COMMAND, told(gone))
            return bool(gone)

        await self._messages.send_with(change, key, _speaker(key, SYSTEM_UID), draft)
        return gone

    def revision(self, message: Message) -> Revision | None:
        """Return what was done to a message."""
        return self._store.read_facts(lambda txn: _queries.revision(txn, message))

    def revisions(self, messages: Sequence[Message]) -> dict[int, Revision]:
        """Return what was done to those of the messages that were changed, by message id."""
        marked = [message for message in messages if message.marks & REVISED]
        if not marked:
            return {}
        found = self._store.read_facts(lambda txn: {each.message_id: _queries.revision(txn, each) for each in marked})
        return {message_id: revision for message_id, revision in found.items() if revision is not None}


def _revise(
    sealer: Sealer, key: ChannelKey, seq: int, kind: RevisionKind, payload: bytes, by: str
) -> tuple[Revision, bool]:
    """Return what is now known of the message, and whether that is new."""
    message = _queries.message_at(sealer.txn, key, seq)
    if message is None:
        raise NotFound("no such message")
    known = _queries.revision(sealer.txn, message)
    if known is not None and known.kind is RevisionKind.RECALLED:
        if kind is RevisionKind.RECALLED:
            return known, False
        raise NotFound("the message was recalled")
    revision = Revision(kind=kind, by=by, at=sealer.now, version=known.version + 1 if known is not None else 1)
    tail = sealer.tail(key)
    changed = attrs.evolve(message, payload=payload, marks=message.marks | REVISED)
    sealer.emit(ReviseMessage(tail.slot, tail.number, changed, revision))
    if kind is RevisionKind.RECALLED and message.marks & STREAMED:
        empty_stream(sealer, message)
    return revision, True


def _speaker(key: ChannelKey, uid: str) -> str:
    """Return whom a command is from: to a person channel one of its ends speaks."""
    if key.type not in (ChannelType.PERSON, ChannelType.AGENT):
        return uid
    first, second = ends_of(key)
    return uid if uid in (first, second) else first


def _command(command: str, param: dict[str, Any]) -> Draft:
    payload = _payload(command, param)
    return Draft("", 0, payload, f"{uuid.uuid4().hex}0", SYNC_ONCE)


def _payload(command: str, param: dict[str, Any]) -> bytes:
    text = {"type": COMMAND_TYPE, "cmd": command, "param": param}
    return json.dumps(text, ensure_ascii=False, separators=(",", ":")).encode()
