"""The commit log: every stored message in commit order, for consumers that must not miss any."""

import trio

from triolet_core.model import Message, slot_of
from triolet_core.store import Store, _queries
from triolet_core.store._tables import PutCursor


class CommitLog:
    """Reads behind a position (a message id), waits for more, remembers how far each consumer is."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._grown = trio.Event()

    def read(self, after: int, limit: int, *, max_bytes: int | None = None) -> list[Message]:
        """Return up to `limit` messages committed after the one with id `after` (0: from the beginning).

        With `max_bytes` no more than fit into it by their payloads, but at least one.
        """
        return self._store.read(lambda txn: _queries.log_after(txn, after, limit, max_bytes))

    def end(self) -> int:
        """Return the id of the message committed last, 0 if there is none."""
        return self._store.read(_queries.last_logged_id)

    async def wait_after(self, position: int) -> None:
        """Return when something is committed behind `position`. Not a checkpoint if it already is."""
        while True:
            grown = self._grown
            if self._store.read(_queries.last_logged_id) > position:
                return
            await grown.wait()

    def position(self, consumer: str) -> int:
        """Return how far a consumer has acknowledged, 0 at first."""
        return self._store.read(lambda txn: _queries.cursor_of(txn, consumer))

    async def acknowledge(self, consumer: str, position: int) -> None:
        """Remember that a consumer has dealt with everything up to `position`; durable on return."""
        operation = PutCursor(slot_of(consumer), consumer, position)
        await self._store.writer.change(lambda sealer: sealer.emit(operation))

    def announce(self) -> None:
        """Wake who waits: something was committed."""
        self._grown.set()
        self._grown = trio.Event()
