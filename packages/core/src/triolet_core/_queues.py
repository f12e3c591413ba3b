"""Durable queues: what a plugin must not lose and no message carries.

A queue is a name and entries with rising numbers, which are never given twice. Every change is one transaction;
what it holds is counted, so that its owner can bound it.
"""

from collections.abc import Sequence

import attrs

from triolet_core.model import slot_of
from triolet_core.store import Sealer, Store, _queries
from triolet_core.store._tables import DropQueued, PutQueued


@attrs.frozen
class Append:
    """Add an entry behind every other."""

    queue: str
    payload: bytes = attrs.field(repr=False)


@attrs.frozen
class Remove:
    """Remove one entry; one that is not there is no error."""

    queue: str
    number: int


@attrs.frozen
class RemoveUpTo:
    """Remove every entry up to a number."""

    queue: str
    number: int


Edit = Append | Remove | RemoveUpTo


@attrs.frozen(kw_only=True)
class QueueSize:
    """What a queue holds."""

    count: int
    bytes: int


class DurableQueues:
    """Queues by name. A plugin's begin with its own name and a dot. They have no bound: that is the owner's task."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def change(self, edits: Sequence[Edit]) -> list[int]:
        """Make several edits in one transaction, in order; durable on return.

        Returns:
            The numbers of the entries added.
        """

        def function(sealer: Sealer) -> list[int]:
            numbers = (_make(sealer, edit) for edit in edits)
            return [number for number in numbers if number is not None]

        return await self._store.writer.change(function)

    async def append(self, queue: str, payloads: Sequence[bytes]) -> list[int]:
        """Add entries in order; returns their numbers. Durable on return."""
        return await self.change([Append(queue, payload) for payload in payloads])

    async def remove(self, queue: str, numbers: Sequence[int]) -> None:
        """Remove entries."""
        await self.change([Remove(queue, number) for number in numbers])

    async def remove_up_to(self, queue: str, number: int) -> None:
        """Remove every entry up to `number`."""
        await self.change([RemoveUpTo(queue, number)])

    def read(self, queue: str, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Return up to `limit` entries behind the number `after` (0: from the first) as (number, payload)."""
        return self._store.read_facts(lambda txn: _queries.queued(txn, queue, after, limit))

    def size(self, queue: str) -> QueueSize:
        """Return how many entries a queue holds, and the bytes of their payloads."""
        state = self._store.read_facts(lambda txn: _queries.queue_state(txn, queue))
        return QueueSize(count=state.count, bytes=state.size)


def _make(sealer: Sealer, edit: Edit) -> int | None:
    """Make one edit; returns the number of an entry that was added."""
    slot = slot_of(edit.queue)
    match edit:
        case Append(queue, payload):
            number = _queries.queue_state(sealer.txn, queue).last + 1
            sealer.emit(PutQueued(slot, queue, number, payload))
            return number
        case Remove(queue, number):
            sealer.emit(DropQueued(slot, queue, number, number))
        case RemoveUpTo(queue, number):
            sealer.emit(DropQueued(slot, queue, 0, number))
    return None
