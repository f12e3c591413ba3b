"""Deliveries of one connection that wait for their RECVACK. Source: wire-protocol.md, section 6.6."""

from collections.abc import Sequence

import attrs

from triolet_core import Message


@attrs.define(eq=False)
class _Entry:
    message: Message
    due: float
    left: int


class Unacked:
    """The newest deliveries, a bounded number; the oldest are forgotten and left to synchronisation."""

    __slots__ = ("_bytes", "_entries", "_most", "_most_bytes", "_repeats")

    def __init__(self, repeats: int, most: int, most_bytes: int) -> None:
        """Each is repeated at most `repeats` times; at most `most` are kept, with at most `most_bytes`."""
        self._repeats = repeats
        self._most = most
        self._most_bytes = most_bytes
        self._entries: dict[int, _Entry] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, messages: Sequence[Message], due: float) -> None:
        """Remember messages that go out now, to be repeated at `due`."""
        entries = self._entries
        for message in messages:
            self.discard(message.message_id)
            self._bytes += len(message.payload)
            entries[message.message_id] = _Entry(message, due, self._repeats)
            while len(entries) > self._most or self._bytes > self._most_bytes:
                self.discard(next(iter(entries)))

    def discard(self, message_id: int) -> None:
        """Forget what was acknowledged; an unknown id is none of ours."""
        entry = self._entries.pop(message_id, None)
        if entry is not None:
            self._bytes -= len(entry.message.payload)

    def take_due(self, now: float, interval_s: float) -> list[Message]:
        """Return what is to be repeated now; forget what was repeated often enough."""
        due = []
        for message_id, entry in list(self._entries.items()):
            if entry.due > now:
                continue
            if not entry.left:
                self.discard(message_id)
                continue
            entry.left -= 1
            entry.due = now + interval_s
            due.append(entry.message)
        return due
