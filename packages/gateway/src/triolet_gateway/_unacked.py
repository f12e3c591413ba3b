"""Deliveries of one connection that wait for their RECVACK. Source: wire-protocol.md, section 6.6."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from triolet_core import Message
from triolet_core.model import NO_PERSIST, SYNC_ONCE


class Entry(NamedTuple):
    """A delivery that may have to be repeated; one for all sessions that were served together."""

    message: Message
    due: float
    left: int


def entries_of(messages: Sequence[Message], due: float, repeats: int) -> dict[int, Entry]:
    """Return what of `messages` is to be repeated at `due`, at most `repeats` times, by message id."""
    return {message.message_id: Entry(message, due, repeats) for message in messages if not message.flags & NO_PERSIST}


class Unacked:
    """The newest deliveries, bounded in number and bytes; the oldest are forgotten and left to synchronisation."""

    __slots__ = ("_bytes", "_entries", "_most", "_most_bytes")

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._entries: dict[int, Entry] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, new: Mapping[int, Entry], size: int | None = None) -> None:
        """Remember what goes out now; `size` is the bytes of its payloads, where they are known."""
        entries = self._entries
        if entries:
            for message_id in entries.keys() & new.keys():
                self._forget(message_id)
            entries.update(new)
        else:
            self._bytes = 0
            entries = self._entries = dict(new)
        self._bytes += sum(len(each.message.payload) for each in new.values()) if size is None else size
        while entries and (len(entries) > self._most or self._bytes > self._most_bytes):
            self._forget(next(iter(entries)))

    def _forget(self, message_id: int) -> Entry | None:
        entry = self._entries.pop(message_id, None)
        if entry is not None:
            self._bytes -= len(entry.message.payload)
        return entry

    def discard(self, message_ids: Sequence[int]) -> list[int]:
        """Forget what the client has confirmed; returns those of them that are commands."""
        found = [(message_id, self._forget(message_id)) for message_id in message_ids]
        return [message_id for message_id, entry in found if entry is not None and entry.message.flags & SYNC_ONCE]

    def take_due(self, now: float, interval_s: float) -> list[Message]:
        """Return what is due, and put it off by `interval_s`; forget what was repeated often enough."""
        due = []
        entries = self._entries
        for message_id, (message, when, left) in list(entries.items()):
            if when > now:
                continue
            if not left:
                self._forget(message_id)
                continue
            entries[message_id] = Entry(message, now + interval_s, left - 1)
            due.append(message)
        return due
