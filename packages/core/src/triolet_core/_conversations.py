"""Recent conversations: read positions per user and channel; everything else is derived from the channel.

Unread = messages by others behind max(read position, deleted position). To send is to read: the read position is the
stored one, or the user's own newest message if that is newer and was sent after the unread count was last set. Nothing
is written per message for that; what a deletion would take away is written down by it (`_deletion`).
Whether all messages count or only those with the red dot is the profile's choice. docs/conversations.md has the rules.
"""

import time
from collections.abc import Callable, Sequence
from itertools import islice

import attrs
import lmdb

from triolet_core.compat import Compat
from triolet_core.config import ConversationConfig
from triolet_core.model import RED_DOT, ChannelKey, Conversation, Message
from triolet_core.store import Store, _queries
from triolet_core.store._records import Position, decode_message, is_expired, sender_and_flags
from triolet_core.store._sealer import Sealer
from triolet_core.store._tables import put_position

_NEWEST = 2**63
MAX_COUNTED = 10_000
"""Unread counts stop here: counting reads every unread message."""


class Conversations:
    """Reads and changes of conversations; a change is on disk when it returns."""

    def __init__(
        self, store: Store, compat: Compat, config: ConversationConfig, clock_s: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._compat = compat
        self._config = config
        self._clock_s = clock_s

    def every(self, uid: str) -> "list[Conversation]":
        """Return all visible conversations of a user, newest message first."""
        if not self._config.on:
            return []
        with self._store.snapshot() as txn:
            found = [self.of_position(txn, uid, position) for position in _queries.positions(txn, uid)]
        visible = [each for each in found if each.last is not None and each.last.seq > each.deleted_to]
        visible.sort(key=lambda each: each.last.message_id if each.last else 0, reverse=True)
        return visible

    def list(self, uid: str, *, limit: int | None = None) -> "list[Conversation]":
        """Return the visible conversations of a user, newest message first, up to `conversation.userMaxCount`."""
        return self.every(uid)[: min(limit or self._config.user_max_count, self._config.user_max_count)]

    def get(self, uid: str, key: ChannelKey) -> Conversation | None:
        """Return one conversation, None if the user has none with this channel."""
        with self._store.snapshot(key) as txn:
            position = _queries.position(txn, uid, key)
            return None if position is None else self.of_position(txn, uid, position)

    def unread(self, uid: str, key: ChannelKey) -> int:
        """Return the unread count of a user in a channel, 0 without a conversation."""
        conversation = self.get(uid, key)
        return 0 if conversation is None else conversation.unread

    def of_position(self, txn: lmdb.Transaction, uid: str, position: Position) -> Conversation:
        """Return what a stored position amounts to."""
        unread, read_to = self._count(txn, uid, position)
        return Conversation(
            channel=position.channel,
            unread=unread,
            read_to=read_to,
            deleted_to=position.deleted_to,
            last=self._last(txn, position.channel),
            updated=position.updated,
        )

    def _last(self, txn: lmdb.Transaction, key: ChannelKey) -> Message | None:
        now = self._clock_s()
        for seq, value in _queries.raw_messages_back(txn, key, _NEWEST):
            if not is_expired(value, now):
                return decode_message(value, key, seq)
        return None

    def _count(self, txn: lmdb.Transaction, uid: str, position: Position) -> tuple[int, int]:
        """Return the unread count, and how far the user has read."""
        me, now = uid.encode(), self._clock_s()
        floor = max(position.read_to, position.deleted_to)
        unread = 0
        for seq, value in islice(_queries.raw_messages_back(txn, position.channel, _NEWEST), MAX_COUNTED):
            if seq <= floor:
                break
            if seq > position.set_at and sender_and_flags(value)[0] == me:
                return unread, seq
            unread += self._counts(value, me, now)
        return unread, floor

    def _counts(self, record: bytes, me: bytes, now: float) -> bool:
        """Whether a message can be unread to a user."""
        sender, flags = sender_and_flags(record)
        counts = self._compat.counts_all_as_unread or bool(flags & RED_DOT)
        return counts and sender != me and not is_expired(record, now)

    def _behind(self, txn: lmdb.Transaction, uid: str, position: Position, unread: int, newest: int) -> int:
        """Return the read position that leaves `unread` messages unread, or as many as there are."""
        me, now = uid.encode(), self._clock_s()
        read_to = newest
        for seq, value in islice(_queries.raw_messages_back(txn, position.channel, _NEWEST), MAX_COUNTED):
            if unread <= 0 or seq <= position.deleted_to:
                break
            unread -= self._counts(value, me, now)
            read_to = seq - 1
        return read_to

    async def mark_read(self, uid: str, key: ChannelKey, seq: int | None = None) -> None:
        """Move the read position to `seq` or the newest message; never back."""

        def function(sealer: Sealer) -> None:
            newest = _queries.max_seq(sealer.txn, key)
            if newest:
                position = _position(sealer, uid, key)
                target = newest if seq is None else min(seq, newest)
                _put(sealer, uid, position, read_to=max(position.read_to, target))

        await self._store.writer.change(function)

    async def set_unread(self, uid: str, key: ChannelKey, unread: int) -> None:
        """Set the read position, back too, so that `unread` messages are behind it, or as many as there are."""

        def function(sealer: Sealer) -> None:
            newest = _queries.max_seq(sealer.txn, key)
            if newest:
                position = _position(sealer, uid, key)
                read_to = self._behind(sealer.txn, uid, position, unread, newest)
                _put(sealer, uid, position, read_to=read_to, set_at=newest)

        await self._store.writer.change(function)

    async def delete(self, uid: str, key: ChannelKey) -> None:
        """Hide everything up to now; the next message brings the conversation back."""
        await self.delete_each([(uid, key)])

    async def delete_each(self, targets: Sequence[tuple[str, ChannelKey]]) -> None:
        """Hide conversations of several users, in one transaction."""

        def function(sealer: Sealer) -> None:
            for uid, key in targets:
                if _queries.position(sealer.txn, uid, key) is not None:
                    newest = _queries.max_seq(sealer.txn, key)
                    _put(sealer, uid, _position(sealer, uid, key), read_to=newest, deleted_to=newest)

        await self._store.writer.change(function)


def _position(sealer: Sealer, uid: str, key: ChannelKey) -> Position:
    return _queries.position(sealer.txn, uid, key) or Position(channel=key, created=sealer.now)


def _put(sealer: Sealer, uid: str, position: Position, **changes: int) -> None:
    changed = attrs.evolve(position, updated=sealer.now, **changes)  # type: ignore[arg-type]  # ints only
    sealer.emit(put_position(uid, changed))
