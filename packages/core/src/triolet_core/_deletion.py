"""Deletion of messages, by whoever asks or by age and number."""

from collections.abc import Sequence

from triolet_core.model import ChannelKey
from triolet_core.store._sealer import Sealer
from triolet_core.store._tables import DeleteMessages


def delete_messages(sealer: Sealer, key: ChannelKey, seqs: Sequence[int]) -> None:
    """Delete messages of a channel; its sequence goes on behind the last number that was given."""
    tail = sealer.tail(key)
    sealer.emit(DeleteMessages(tail.slot, tail.number, tuple(seqs), tail.seq))
