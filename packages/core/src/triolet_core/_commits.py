"""The commit log: every stored message in commit order, for consumers that must not miss any.

While somebody follows the log, what was committed in the last seconds is also kept in memory, so that a consumer that
keeps up reads nothing from the store. It is kept no longer than that: what is recalled or deleted later is read as it
is then. Where nobody follows nothing is kept: objects that live for a second cost the most of those that the collector
goes through.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import partial
from operator import attrgetter

import attrs
import trio

from triolet_core.model import Message, slot_of
from triolet_core.store import Store, _queries
from triolet_core.store._tables import PutCursor

KEPT_S = 1.0
KEPT_MESSAGES = 4_096
KEPT_BYTES = 16 << 20
"""Where a generation of the messages in memory ends, whichever comes first; there are two of them. With fewer messages
somebody who keeps up would read the store, with more than 10,000 in both the collector would go through all of them."""

FOLLOWED_S = 60.0
"""Somebody who reads this often follows the log, and whoever waits for it."""

_id_of = attrgetter("message_id")


@attrs.define(eq=False)
class _Generation:
    """Messages that were committed one after the other behind `floor`."""

    floor: int
    began: float
    messages: list[Message] = attrs.Factory(list)
    size: int = 0

    def behind(self, after: int, limit: int) -> list[Message]:
        first = bisect_right(self.messages, after, key=_id_of)
        return self.messages[first : first + limit]


class CommitLog:
    """Reads behind a position (a message id), waits for more, remembers how far each consumer is."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._grown = trio.Event()
        self._last = store.read(_queries.last_logged_id)
        self._older = self._newer = _Generation(self._last, trio.current_time())
        self._waiting = 0
        """Consumers that wait for more."""
        self._read_at = -math.inf
        self.appended_count = 0
        """Messages stored since the start."""
        self.appended_bytes = 0
        """Bytes of their payloads."""

    def read(self, after: int, limit: int, *, max_bytes: int | None = None) -> list[Message]:
        """Return up to `limit` messages committed after the one with id `after` (0: from the beginning).

        With `max_bytes` no more than fit into it by their payloads, but at least one. Only an empty list says that
        there are no more now. Do not change them: others have the same objects.
        """
        self._read_at = self._turn()
        if after < self._older.floor:
            question = partial(_queries.log_after, message_id=after, limit=limit, max_bytes=max_bytes)
            is_settled = not self._store.backlog.holds()
            found = self._store.read_facts(question)
            is_page = len(found) == limit or (found and max_bytes is not None)
            return found if is_page or is_settled else self._store.read(question)
        found = [] if self._older is self._newer or after >= self._newer.floor else self._older.behind(after, limit)
        found += self._newer.behind(after, limit - len(found))
        if max_bytes is None or self._older.size + self._newer.size <= max_bytes:
            return found
        return _within(found, max_bytes)

    def end(self) -> int:
        """Return the id of the message committed last, 0 if there is none."""
        return self._last

    async def wait_after(self, position: int) -> None:
        """Return when something is committed behind `position`. Not a checkpoint if it already is."""
        self._waiting += 1
        try:
            while self._last <= position:
                await self._grown.wait()
        finally:
            self._waiting -= 1

    def position(self, consumer: str) -> int:
        """Return how far a consumer has acknowledged, 0 at first."""
        return self._store.read(lambda txn: _queries.cursor_of(txn, consumer))

    async def acknowledge(self, consumer: str, position: int) -> None:
        """Remember that a consumer has dealt with everything up to `position`; durable on return."""
        operation = PutCursor(slot_of(consumer), consumer, position)
        await self._store.writer.change(lambda sealer: sealer.emit(operation))

    def announce(self, messages: Sequence[Message]) -> None:
        """Take note of messages that were committed, rising by id, and wake who waits for them."""
        now = self._turn()
        size = sum([len(message.payload) for message in messages])
        self.appended_count += len(messages)
        self.appended_bytes += size
        self._last = messages[-1].message_id
        if self._waiting or now - self._read_at < FOLLOWED_S:
            self._newer.messages += messages
            self._newer.size += size
        else:
            self.forget()
        self._grown.set()
        self._grown = trio.Event()

    def forget(self) -> None:
        """Keep nothing in memory: nobody asks for it, or something that was committed is not any more what it was."""
        self._older = self._newer = _Generation(self._last, trio.current_time())

    def _turn(self) -> float:
        """Begin a generation if the newer one is full or old, and drop the older one, or both; returns the time."""
        newer, now = self._newer, trio.current_time()
        age_s = now - newer.began
        if age_s < KEPT_S and len(newer.messages) < KEPT_MESSAGES and newer.size < KEPT_BYTES:
            return now
        self._newer = _Generation(self._last, now)
        self._older = newer if age_s < 2 * KEPT_S else self._newer
        return now


def _within(messages: list[Message], max_bytes: int) -> list[Message]:
    """Return the first message, and those behind it that fit."""
    size = 0
    for count, message in enumerate(messages):
        size += len(message.payload)
        if count and size > max_bytes:
            return messages[:count]
    return messages
