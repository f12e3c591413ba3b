"""Deletion of messages, by whoever asks or by age and number."""

from collections.abc import Sequence

import attrs

from triolet_core.model import ChannelKey
from triolet_core.store import _keys as keys
from triolet_core.store import _queries
from triolet_core.store._records import sender_and_flags
from triolet_core.store._sealer import Sealer
from triolet_core.store._tables import DeleteMessages, put_position


def delete_messages(sealer: Sealer, key: ChannelKey, seqs: Sequence[int]) -> None:
    """Delete messages of a channel; its sequence goes on behind the last number that was given.

    Who has sent has read: as long as a message is there, its sender's read position is derived from it, so it is
    written down before the message goes.
    """
    tail = sealer.tail(key)
    sent: dict[bytes, int] = {}
    for seq in seqs:
        record = sealer.txn.get(keys.message(tail.slot, tail.number, seq))
        if record is not None:
            sender, _ = sender_and_flags(record)
            sent[sender] = max(seq, sent.get(sender, 0))
    for sender, seq in sent.items():
        position = _queries.position(sealer.txn, sender.decode(), key)
        if position is not None and seq > max(position.read_to, position.set_at):
            sealer.emit(put_position(sender.decode(), attrs.evolve(position, read_to=seq)))
    sealer.emit(DeleteMessages(tail.slot, tail.number, tuple(seqs), tail.seq))
