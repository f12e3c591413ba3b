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

from triolet_core._messages import Messages
from triolet_core.errors import NotFound
from triolet_core.model import (
    REVISED,
    SYNC_ONCE,
    SYSTEM_UID,
    ChannelKey,
    ChannelType,
    Device,
    Draft,
    Message,
    Revision,
    RevisionKind,
    ends_of,
)
from triolet_core.store import Store, _queries
from triolet_core.store._sealer import Sealer
from triolet_core.store._tables import DeleteMessages, ReviseMessage

MAX_DELETED = 10_000
"""Messages deleted in one transaction."""
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
        known = self.revision(message)
        if known is not None and known.kind is RevisionKind.RECALLED:
            if kind is RevisionKind.RECALLED:
                return known
            raise NotFound("the message was recalled")
        revisions: list[Revision] = []

        def change(sealer: Sealer) -> None:
            revisions.append(_revise(sealer, key, message.seq, kind, payload, by))

        command = EDIT_COMMAND if kind is RevisionKind.EDITED else RECALL_COMMAND
        param = {"message_id": str(message_id), "message_seq": message.seq, "by": by}
        await self._messages.send_with(change, *_command(key, message.sender, command, param))
        return revisions[-1]

    async def delete(self, key: ChannelKey, seqs: Sequence[int]) -> int:
        """Delete messages for good; returns how many there were."""
        return await self._delete(key, lambda sealer: tuple(dict.fromkeys(seqs)), {"message_seqs": list(seqs)})

    async def delete_range(self, key: ChannelKey, first: int, last: int) -> int:
        """Delete the messages from `first` to `last`, both included; returns how many there were."""
        total = 0
        while True:

            def of_range(sealer: Sealer) -> tuple[int, ...]:
                found = islice(_queries.messages_from(sealer.txn, key, first), MAX_DELETED)
                return tuple(message.seq for message in found if message.seq <= last)

            count = await self._delete(key, of_range, {"first_seq": first, "last_seq": last})
            total += count
            if count < MAX_DELETED:
                return total

    async def _delete(self, key: ChannelKey, pick: Callable[[Sealer], tuple[int, ...]], param: dict[str, Any]) -> int:
        count = 0

        def change(sealer: Sealer) -> None:
            nonlocal count
            picked = [seq for seq in pick(sealer) if _queries.message_at(sealer.txn, key, seq) is not None]
            count = len(picked)
            if picked:
                tail = sealer.tail(key)
                sealer.emit(DeleteMessages(tail.slot, tail.number, tuple(picked), tail.seq))

        if not self._messages.max_seq(key):
            return 0
        await self._messages.send_with(change, *_command(key, SYSTEM_UID, DELETE_COMMAND, param))
        return count

    def revision(self, message: Message) -> Revision | None:
        """Return what was done to a message."""
        return self._store.read(lambda txn: _queries.revision(txn, message))

    def revisions(self, messages: Sequence[Message]) -> dict[int, Revision]:
        """Return what was done to those of the messages that were changed, by message id."""
        marked = [message for message in messages if message.marks & REVISED]
        if not marked:
            return {}
        with self._store.snapshot() as txn:
            found = {message.message_id: _queries.revision(txn, message) for message in marked}
        return {message_id: revision for message_id, revision in found.items() if revision is not None}


def _revise(sealer: Sealer, key: ChannelKey, seq: int, kind: RevisionKind, payload: bytes, by: str) -> Revision:
    message = _queries.message_at(sealer.txn, key, seq)
    if message is None:
        raise NotFound("no such message")
    known = _queries.revision(sealer.txn, message)
    revision = Revision(kind=kind, by=by, at=sealer.now, version=known.version + 1 if known is not None else 1)
    tail = sealer.tail(key)
    changed = attrs.evolve(message, payload=payload, marks=message.marks | REVISED)
    sealer.emit(ReviseMessage(tail.slot, tail.number, changed, revision))
    return revision


def _command(key: ChannelKey, sender: str, command: str, param: dict[str, Any]) -> tuple[Device, list[Draft]]:
    """Return the command that tells the members of a channel; to a person channel one of its ends speaks."""
    channel_id = key.id
    if key.type in (ChannelType.PERSON, ChannelType.AGENT):
        first, second = ends_of(key)
        sender = sender if sender in (first, second) else first
        channel_id = second if sender == first else first
    payload = {"type": COMMAND_TYPE, "cmd": command, "param": param}
    draft = Draft(
        channel_id,
        key.type,
        json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode(),
        f"{uuid.uuid4().hex}0",
        SYNC_ONCE,
    )
    return Device(uid=sender, is_server=True), [draft]
