"""What a send does in the write transaction, and how it is acknowledged after the commit."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs

from triolet_core import _commands, _stream_events
from triolet_core._delivery import Delivery
from triolet_core.model import (
    PAIRS,
    ChannelKey,
    ChannelType,
    Draft,
    Message,
    ReasonCode,
    Receipt,
    ends_of,
    plain_channel,
)
from triolet_core.session import Session
from triolet_core.store import _keys as keys
from triolet_core.store import _queries
from triolet_core.store._records import Position
from triolet_core.store._sealer import Sealer
from triolet_core.store._tables import ChangeList, put_position

_SUCCESS = int(ReasonCode.SUCCESS)
Done = Callable[[list[Receipt]], None]
_NO_LIST: list[Any] = []
"""Stands where a list is put as soon as the batch runs."""


@attrs.define(eq=False)
class Judged:
    """A draft, its channel, why it is refused (SUCCESS if not), and whether it is to be stored."""

    draft: Draft
    channel: ChannelKey
    reason: int
    persist: bool
    command_for: frozenset[str] = frozenset()
    """Whose command queues it goes into."""
    more: Sequence[Draft] = ()
    """Drafts that follow it and are judged alike."""

    def is_like(self, other: "Judged") -> bool:
        """Whether both have the same verdict; the channels of one batch are mostly the same object."""
        return (
            (self.channel is other.channel or self.channel == other.channel)
            and self.reason == other.reason
            and self.persist == other.persist
            and self.command_for == other.command_for
        )


@attrs.define(eq=False)
class SendBatch:
    """Work of the writer: the judged drafts of one sender, in order."""

    sender: str
    judged: Sequence[Judged]
    done: Done
    exclude: Session | None
    before: Callable[[Sealer], bool] | None = None
    """A change that is made in the same transaction, first; False: there was nothing to change, nothing is sent."""
    error: Exception | None = None
    receipts: list[Receipt] = _NO_LIST
    deliveries: list[Delivery] = _NO_LIST
    changed: list[ChannelKey] = _NO_LIST
    """Channels whose members it has set."""
    forget: Callable[[ChannelKey], None] | None = None
    streams: list[tuple[ChannelKey, str]] = _NO_LIST
    """Streams that it has begun."""

    weight: int = attrs.field(init=False)
    """Messages in the batch."""

    @weight.default
    def _weight_of_judged(self) -> int:
        judged = self.judged
        return 1 + len(judged[0].more) if len(judged) == 1 else sum([1 + len(each.more) for each in judged])

    def run(self, sealer: Sealer) -> None:
        """Seal every accepted draft, runs of one channel together."""
        self.receipts = []
        self.deliveries = []
        self.changed = []
        self.streams = []
        if self.before is not None and not self.before(sealer):
            return
        judged = self.judged
        is_one = len(judged) == 1  # as a rule
        for first, drafts in [(judged[0], [judged[0].draft, *judged[0].more])] if is_one else _runs_of(judged):
            if first.reason != _SUCCESS:
                self.receipts += [Receipt(first.reason, message_id, 0) for message_id in sealer.block(len(drafts))]
            elif first.persist:
                commands = self._store(sealer, first.channel, drafts)
                if first.command_for:
                    _commands.enqueue(sealer, sorted(first.command_for), commands)
            else:
                self._pass_on(sealer, first.channel, drafts)

    def _store(self, sealer: Sealer, channel: ChannelKey, drafts: list[Draft]) -> list[Message]:
        fresh = []
        has_lists = bool([draft for draft in drafts if draft.to_uids])
        for draft, (message, is_new) in zip(drafts, sealer.append(channel, self.sender, drafts), strict=True):
            self.receipts.append(Receipt(_SUCCESS, message.message_id, message.seq))
            if not is_new:
                continue
            fresh.append(message)
            if has_lists:
                self.deliveries.append(Delivery([message], self.exclude, draft.to_uids))
            if draft.to_uids:
                self._list(sealer, channel, draft.to_uids)
            elif message.seq == 1:
                _open_conversations(sealer, channel, self.sender)
            if draft.is_stream:
                _stream_events.register(sealer, message)
                self.streams.append((channel, message.client_msg_no))
        if fresh and not has_lists:
            self.deliveries.append(Delivery(fresh, self.exclude))
        return fresh

    def _list(self, sealer: Sealer, channel: ChannelKey, uids: tuple[str, ...]) -> None:
        """Remember the listed recipients of a message as the members of its channel, if nobody is one."""
        tail = sealer.tail(channel)
        if not _queries.has_rows(sealer.txn, keys.numbered(tail.slot, keys.MEMBER, tail.number)):
            sealer.emit(ChangeList(tail.slot, keys.MEMBER, tail.number, add=uids))
            self.changed.append(channel)

    def _pass_on(self, sealer: Sealer, channel: ChannelKey, drafts: list[Draft]) -> None:
        for message_id, draft in zip(sealer.block(len(drafts)), drafts, strict=True):
            self.receipts.append(Receipt(_SUCCESS, message_id, 0))
            message = sealer.message(message_id, channel, self.sender, draft)
            self.deliveries.append(Delivery([message], self.exclude, draft.to_uids))

    def finish(self, error: Exception | None) -> None:
        """Acknowledge: after the commit, or with SYSTEM_ERROR where nothing was written."""
        self.error = error
        if error is not None:
            self.deliveries = []
            self.receipts = [Receipt(ReasonCode.SYSTEM_ERROR, 0, 0)] * self.weight
        for channel in self.changed:
            if self.forget is not None:
                self.forget(channel)
        self.done(self.receipts)


def _runs_of(judged: Sequence[Judged]) -> Iterator[tuple[Judged, list[Draft]]]:
    """Yield drafts that are judged alike and follow each other, with the first of them as it was judged."""
    first: Judged | None = None
    drafts: list[Draft] = []
    for each in judged:
        if first is not None and each.is_like(first):
            drafts += (each.draft, *each.more)
            continue
        if first is not None:
            yield first, drafts
        first, drafts = each, [each.draft, *each.more]
    if first is not None:
        yield first, drafts


def _open_conversations(sealer: Sealer, channel: ChannelKey, sender: str) -> None:
    """Put the first message of a channel into the lists of those who have not joined it."""
    plain = plain_channel(channel)
    if plain != channel:
        return
    if channel.type in PAIRS:
        uids = set(ends_of(channel))
    elif channel.type in (ChannelType.CUSTOMER_SERVICE, ChannelType.VISITORS):
        uids = {channel.id.partition("|")[0], sender}
    else:
        return
    for uid in sorted(uids):
        if _queries.position(sealer.txn, uid, channel) is None:
            position = Position(channel=channel, created=sealer.now, updated=sealer.now)
            sealer.emit(put_position(uid, position))
