"""Command messages: one queue per user, each command handed out until it is acknowledged.

A command (header `sync_once`) is stored once, in the companion channel; every recipient has a row that refers to
it, with a place of his own that rises. Rows are written in the transaction of the message.

Source: semantics.md, section 2.8.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import attrs
import cachetools
import lmdb

from triolet_core.errors import Overloaded, StoreError
from triolet_core.model import SYNC_ONCE, SYSTEM_UID, Message, slot_of
from triolet_core.store import Store, _queries
from triolet_core.store import _keys as keys
from triolet_core.store import _records as records
from triolet_core.store._sealer import Sealer
from triolet_core.store._tables import PutRows
from triolet_core.store._writer import Change

DEFAULT_PAGE = 200
MAX_PAGE = 10_000
_REMEMBERED = 100_000
"""Users whose last handed-out place is remembered."""


@attrs.frozen
class Command:
    """A command that waits for one user."""

    place: int
    message: Message


class Commands:
    """Reads and acknowledges the command queues."""

    def __init__(self, store: Store, is_alive: Callable[[Message], bool]) -> None:
        self._store = store
        self._is_alive = is_alive
        self._handed_out: cachetools.LRUCache[str, int] = cachetools.LRUCache(_REMEMBERED)

    def waiting(self, uid: str, limit: int = 0) -> list[Command]:
        """Return what waits for a user, the oldest first.

        Args:
            uid: Whose queue.
            limit: Most commands; 0 is 200, more than 10,000 is 10,000.
        """
        limit = min(limit, MAX_PAGE) if limit > 0 else DEFAULT_PAGE
        with self._store.snapshot() as txn:
            found = []
            for place, message_id in _queries.commands(txn, uid):
                message = _queries.message_by_id(txn, message_id)
                if message is not None and self._is_alive(message):
                    found.append(Command(place, attrs.evolve(message, flags=message.flags | SYNC_ONCE)))
                if len(found) == limit:
                    break
        if found:
            self._handed_out[uid] = max(found[-1].place, self._handed_out.get(uid, 0))
        return found

    async def acknowledge(self, uid: str, place: int) -> None:
        """Forget what waits up to `place`, but nothing that was never handed out; durable on return.

        What was handed out is known in memory only: after a restart a place is believed if it was given at all.
        """
        known = self._handed_out.get(uid)

        def function(sealer: Sealer) -> None:
            last, acknowledged = records.decode_command_tail(sealer.txn.get(keys.command_tail(uid)))
            target = min(place, known) if known is not None else place
            if not acknowledged < target <= last:
                return
            gone = [at for at, _ in _queries.commands(sealer.txn, uid) if at <= target]
            tail = (keys.command_tail(uid), records.encode_command_tail(last, target))
            sealer.emit(PutRows(slot_of(uid), (*((keys.command(uid, at), None) for at in gone), tail)))

        await self._store.writer.change(function)

    async def acknowledge_message(self, uid: str, message_id: int) -> None:
        """Forget one command that a device of the user has confirmed; durable on return."""
        await self._store.writer.change(lambda sealer: _forget(sealer, uid, message_id))

    async def confirm(self, uid: str, message_id: int) -> None:
        """Forget one command with the next commit, without waiting for it; if that fails, the command comes again."""
        with suppress(StoreError, Overloaded):
            await self._store.writer.enqueue(Change(lambda sealer: _forget(sealer, uid, message_id)))


def _forget(sealer: Sealer, uid: str, message_id: int) -> None:
    place = _place_of(sealer.txn, uid, message_id)
    if place is not None:
        sealer.emit(PutRows(slot_of(uid), ((keys.command(uid, place), None),)))


def _place_of(txn: lmdb.Transaction, uid: str, message_id: int) -> int | None:
    """Return where in a user's queue a message waits, by bisection: ids rise with places."""
    low, (high, _) = 1, records.decode_command_tail(txn.get(keys.command_tail(uid)))
    while low <= high:
        middle = (low + high) // 2
        place, waiting = next(_queries.commands(txn, uid, middle), (high + 1, message_id + 1))
        if waiting == message_id:
            return place
        if waiting < message_id:
            low = place + 1
        else:
            high = middle - 1
    return None


def enqueue(sealer: Sealer, uids: Iterable[str], messages: Sequence[Message]) -> None:
    """Put stored commands into the queues of their recipients."""
    for uid in uids:
        if uid == SYSTEM_UID:
            continue
        last, acknowledged = records.decode_command_tail(sealer.txn.get(keys.command_tail(uid)))
        rows = [
            (keys.command(uid, last + number), message.message_id.to_bytes(8, "big"))
            for number, message in enumerate(messages, 1)
        ]
        tail = (keys.command_tail(uid), records.encode_command_tail(last + len(messages), acknowledged))
        sealer.emit(PutRows(slot_of(uid), (*rows, tail)))
