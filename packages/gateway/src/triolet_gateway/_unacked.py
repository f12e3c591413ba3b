"""Deliveries of one connection that wait for their RECVACK. Source: wire-protocol.md, section 6.6."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from triolet_core import Message
from triolet_core.model import NO_PERSIST


class Entry(NamedTuple):
    """A delivery that may have to be repeated; one for all sessions that were served together."""

    message: Message
    due: float
    left: int


def entries_of(messages: Sequence[Message], due: float, repeats: int) -> dict[int, Entry]:
    """Return what of `messages` is to be repeated at `due`, at most `repeats` times, by message id."""
    return {message.message_id: Entry(message, due, repeats) for message in messages if not message.flags & NO_PERSIST}


class Unacked:
    """The newest deliveries, a bounded number; the oldest are forgotten and left to synchronisation."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, new: Mapping[int, Entry], limit: int) -> None:
        """Remember what goes out now."""
        entries = self._entries
        if entries:
            entries.update(new)
        else:
            entries = self._entries = dict(new)
        while len(entries) > limit:
            del entries[next(iter(entries))]

    def discard(self, message_ids: Sequence[int]) -> None:
        """Forget what was acknowledged; an unknown id is none of ours."""
        pop = self._entries.pop
        for message_id in message_ids:
            pop(message_id, None)

    def take_due(self, now: float, interval_s: float) -> list[Message]:
        """Return what is to be repeated now; forget what was repeated often enough."""
        entries = self._entries
        due = []
        for message_id, (message, when, left) in list(entries.items()):
            if when > now:
                continue
            if not left:
                del entries[message_id]
                continue
            entries[message_id] = Entry(message, now + interval_s, left - 1)
            due.append(message)
        return due
