"""The commit log: every stored message in commit order, for consumers that must not miss any.

What was committed last is also kept in memory: a consumer that keeps up reads nothing from the store.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import islice
from operator import attrgetter

import trio

from triolet_core.model import ChannelKey, Message, command_channel, slot_of
from triolet_core.store import Store, _queries
from triolet_core.store._tables import PutCursor

TAIL_MESSAGES = 16_384
TAIL_BYTES = 16 << 20
"""Most messages kept in memory, and bytes of their payloads; beyond either the older half goes."""

_id_of = attrgetter("message_id")


class CommitLog:
    """Reads behind a position (a message id), waits for more, remembers how far each consumer is."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._grown = trio.Event()
        self._last = self._floor = store.read(_queries.last_logged_id)
        self._tail: list[Message] = []
        self._tail_bytes = 0
        self.appended_count = 0
        """Messages stored since the start."""
        self.appended_bytes = 0
        """Bytes of their payloads."""

    def read(self, after: int, limit: int, *, max_bytes: int | None = None) -> list[Message]:
        """Return up to `limit` messages committed after the one with id `after` (0: from the beginning).

        With `max_bytes` no more than fit into it by their payloads, but at least one. Do not change them: others
        have the same objects.
        """
        if after < self._floor:
            return self._store.read(lambda txn: _queries.log_after(txn, after, limit, max_bytes))
        first = bisect_right(self._tail, after, key=_id_of)
        found = self._tail[first : first + limit]
        if max_bytes is None:
            return found
        size = 0
        for count, message in enumerate(found):
            size += len(message.payload)
            if count and size > max_bytes:
                return found[:count]
        return found

    def end(self) -> int:
        """Return the id of the message committed last, 0 if there is none."""
        return self._last

    async def wait_after(self, position: int) -> None:
        """Return when something is committed behind `position`. Not a checkpoint if it already is."""
        while self._last <= position:
            await self._grown.wait()

    def position(self, consumer: str) -> int:
        """Return how far a consumer has acknowledged, 0 at first."""
        return self._store.read(lambda txn: _queries.cursor_of(txn, consumer))

    async def acknowledge(self, consumer: str, position: int) -> None:
        """Remember that a consumer has dealt with everything up to `position`; durable on return."""
        operation = PutCursor(slot_of(consumer), consumer, position)
        await self._store.writer.change(lambda sealer: sealer.emit(operation))

    # --- for the broker

    def announce(self, messages: Sequence[Message]) -> None:
        """Take note of messages that were committed, rising by id, and wake who waits for them."""
        size = sum(len(message.payload) for message in messages)
        self.appended_count += len(messages)
        self.appended_bytes += size
        self._tail += messages
        self._tail_bytes += size
        self._last = messages[-1].message_id
        if len(self._tail) > TAIL_MESSAGES or self._tail_bytes > TAIL_BYTES:
            self._drop(max(1, len(self._tail) // 2))
        self._grown.set()
        self._grown = trio.Event()

    def _drop(self, count: int) -> None:
        self._tail_bytes -= sum(len(message.payload) for message in islice(self._tail, count))
        self._floor = self._tail[count - 1].message_id
        del self._tail[:count]

    def forget(self, channel: ChannelKey) -> None:
        """Keep no messages of a channel in memory: some were deleted from the store, or changed in it.

        Nobody misses one: what is behind them is read from the store again.
        """
        gone = {channel, command_channel(channel)}
        count = next((at for at in range(len(self._tail), 0, -1) if self._tail[at - 1].channel in gone), 0)
        if count:
            self._drop(count)
