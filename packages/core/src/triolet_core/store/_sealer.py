"""Turns requests into operations: numbers, ids and times are given here and only here.

Inside a write transaction, or without one: then operations that put rows without a look at others are collected for
the journal, and whatever needs the transaction raises `NeedsTransaction`.
"""

from collections.abc import Callable, Sequence

import attrs
import lmdb

from triolet_core._ids import IdSource
from triolet_core.model import REVISED, STREAMED, ChannelKey, Draft, Message, slot_of
from triolet_core.store import _dedupe, _queries, _rows
from triolet_core.store._dedupe import DedupeWindow
from triolet_core.store._tables import (
    AppendMessages,
    CreateChannel,
    Operation,
    PutCursor,
    PutMeta,
    apply,
)

CEILING = "id ceiling"


class NeedsTransaction(Exception):
    """Work cannot be done without a write transaction."""


@attrs.define(eq=False)
class Tail:
    """Where a channel ends."""

    slot: int
    number: int
    seq: int


class Sealer:
    """State of the single writer. Lives where the work is run between `begin` and `commit` or `rollback`.

    `channel_is_kept` says of which channels the end must not be forgotten, because LMDB does not know it yet.
    """

    def __init__(
        self,
        env: lmdb.Environment,
        ids: IdSource,
        dedupe: DedupeWindow,
        clock_s: Callable[[], float],
        *,
        channel_is_kept: Callable[[ChannelKey], bool],
        most_tails: int,
    ) -> None:
        """Ends of up to `most_tails` channels are kept (300 bytes each); then they are read again."""
        self.ids = ids
        self._env = env
        self._dedupe = dedupe
        self._clock_s = clock_s
        self._channel_is_kept = channel_is_kept
        self._most_tails = most_tails
        self._tails: dict[ChannelKey, Tail] = {}
        self._touched: dict[ChannelKey, Tail] = {}
        self._txn: lmdb.Transaction | None = None
        self.rows: list[bytes] = []
        """What was emitted without a transaction, encoded."""
        self.now = 0
        self._tick = 0
        self._has_window = False
        """Whether it is known what was sent before; then it stays known."""
        self._new_ceiling: int | None = None

    @property
    def txn(self) -> lmdb.Transaction:
        """The write transaction; it shows everything that was acknowledged.

        Raises:
            NeedsTransaction: There is none yet; let it through, and the work is run again with one.
        """
        if self._txn is None:
            raise NeedsTransaction
        return self._txn

    @property
    def touched(self) -> list[ChannelKey]:
        """The channels whose ends were looked at since `begin`."""
        return list(self._touched)

    def begin(self, txn: lmdb.Transaction | None) -> None:
        """Start on a fresh write transaction, or on none; raises the stored ceiling of message ids if it is near."""
        self._txn = txn
        self.rows = []
        self.now = int(self._clock_s())
        self._tick = self.ids.now_tick()
        ceiling = self._new_ceiling = self.ids.wanted_ceiling(self._tick)
        if ceiling is not None:
            self.emit(PutMeta(0xFFFF, CEILING, ceiling.to_bytes(8, "big")))

    def commit(self) -> None:
        """Keep what was sealed: it is durable."""
        if self._new_ceiling is not None:
            self.ids.ceiling = self._new_ceiling
        if len(self._tails) + len(self._touched) > self._most_tails:
            self._tails = {key: tail for key, tail in self._tails.items() if self._channel_is_kept(key)}
        self._tails.update(self._touched)
        self._touched.clear()
        self._dedupe.commit()

    def rollback(self) -> None:
        """Forget what was sealed since `begin`."""
        self._touched.clear()
        self._dedupe.rollback()

    def emit(self, operation: Operation) -> None:
        """Apply one operation, or collect its rows."""
        if self._txn is not None:
            apply(self._txn, operation)
        elif isinstance(operation, PutCursor):
            self.rows.append(_rows.of_cursor(operation.consumer, operation.message_id))
        else:
            raise NeedsTransaction

    def tail(self, key: ChannelKey) -> Tail:
        """Return the end of a channel; the channel is created if need be."""
        tail = self._touched.get(key)
        if tail is None:
            known = self._tails.get(key)
            tail = self._touched[key] = self._open(key) if known is None else Tail(known.slot, known.number, known.seq)
        return tail

    def _open(self, key: ChannelKey) -> Tail:
        slot = slot_of(key.id)
        if self._txn is None:
            with self._env.begin() as txn:
                known = _stored_tail(txn, slot, key)
        else:
            known = _stored_tail(self._txn, slot, key)
        if known is not None:
            return known
        number = _queries.last_number(self.txn, slot) + 1
        self.emit(CreateChannel(slot, key, number, self.now))
        return Tail(slot, number, 0)

    def block(self, count: int) -> list[int]:
        """Return rising message ids for this transaction."""
        return self.ids.block(count, ceiling=self._new_ceiling, now=self._tick)

    def forget(self, key: ChannelKey) -> None:
        """Drop what is known of a channel's end: the channel is dropped in this transaction."""
        self._tails.pop(key, None)
        self._touched.pop(key, None)

    def message(self, message_id: int, key: ChannelKey, sender: str, draft: Draft) -> Message:
        """Return a draft as an accepted message that is not stored (seq 0)."""
        return Message(
            message_id,
            0,
            key,
            sender,
            draft.client_msg_no,
            self.now,
            draft.flags,
            draft.setting,
            draft.expire,
            draft.topic,
            draft.payload,
            STREAMED if draft.is_stream else 0,
        )

    def append(self, key: ChannelKey, sender: str, drafts: Sequence[Draft]) -> list[tuple[Message, bool]]:
        """Number and store drafts of one sender for one channel.

        Returns:
            (message, is_new) per draft; a repeat inside the dedupe window gives the first message and False.
        """
        looks_for_repeats = self._dedupe.is_on
        if not self._has_window:
            self._wait_for_window()
        tail = self.tail(key)
        fresh: list[Message] = []
        answers: list[tuple[Message, bool]] = []
        find = self._dedupe.find
        for message_id, draft in zip(self.block(len(drafts)), drafts, strict=True):
            place = None
            if looks_for_repeats and draft.client_msg_no:
                place = _dedupe.key_of(sender, key.id, key.type, draft.client_msg_no)
                repeated = find(place)
                known = None if repeated is None else self._repeat(repeated, key, sender, draft, fresh)
                if known is not None:
                    answers.append((known, False))
                    continue
            message = self.message(message_id, key, sender, draft)
            tail.seq += 1
            message.seq = tail.seq
            fresh.append(message)
            answers.append((message, True))
            if place is not None:
                self._dedupe.add(place, message_id)
        if fresh and self._txn is None:
            self.rows.append(_rows.of_messages(tail.slot, tail.number, fresh))
        elif fresh:
            self.emit(AppendMessages(tail.slot, tail.number, fresh))
        return answers

    def _wait_for_window(self) -> None:
        """Let nothing be sent before it is known what was; that is waited for in the thread of a transaction only."""
        if self._dedupe.is_on and not self._dedupe.is_ready:
            if self._txn is None:
                raise NeedsTransaction
            self._dedupe.wait_ready()
        self._has_window = True

    def _repeat(
        self, message_id: int, key: ChannelKey, sender: str, draft: Draft, fresh: Sequence[Message]
    ) -> Message | None:
        """Return the message with this id if the draft is one of its repeats."""
        first = next((each for each in fresh if each.message_id == message_id), None)
        first = first or _queries.message_by_id(self.txn, message_id)
        if first is None or self.now - first.timestamp > self._dedupe.window_s:
            return None
        payload = draft.payload if first.marks & REVISED else first.payload  # nobody knows what it once was
        same = (first.channel, first.sender, first.client_msg_no, payload)
        return first if same == (key, sender, draft.client_msg_no, draft.payload) else None


def _stored_tail(txn: lmdb.Transaction, slot: int, key: ChannelKey) -> Tail | None:
    record = _queries.channel_record(txn, key)
    return None if record is None else Tail(slot, record.number, _queries.last_seq(txn, slot, record.number))
