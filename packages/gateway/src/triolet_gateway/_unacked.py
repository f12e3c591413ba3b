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

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, messages: Sequence[Message], due: float, repeats: int, limit: int) -> None:
        """Remember messages that go out now, to be repeated at `due` and at most `repeats` times."""
        entries = self._entries
        for message in messages:
            if len(entries) >= limit:
                del entries[next(iter(entries))]
            entries[message.message_id] = _Entry(message, due, repeats)

    def discard(self, message_id: int) -> None:
        """Forget what was acknowledged; an unknown id is none of ours."""
        self._entries.pop(message_id, None)

    def take_due(self, now: float, interval_s: float) -> list[Message]:
        """Return what is to be repeated now; forget what was repeated often enough."""
        due = []
        for message_id, entry in list(self._entries.items()):
            if entry.due > now:
                continue
            if not entry.left:
                del self._entries[message_id]
                continue
            entry.left -= 1
            entry.due = now + interval_s
            due.append(entry.message)
        return due
