"""What is old goes: expired messages, and what is beyond the age or number that a channel keeps.

One slot at a time is looked at, and deleted from in small transactions, so that neither senders nor readers notice.
LMDB uses the pages again, so the file stops growing once as much goes as comes.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

import attrs
import lmdb
import structlog
import trio

from triolet_core._ids import seconds_of_id
from triolet_core.config import RetentionConfig
from triolet_core.errors import StoreError
from triolet_core.model import COMMAND_SUFFIX, SLOT_COUNT, ChannelInfo, ChannelKey, ChannelType
from triolet_core.store import Store, _queries
from triolet_core.store import _keys as keys
from triolet_core.store import _records as records
from triolet_core.store._sealer import Sealer
from triolet_core.store._tables import DeleteMessages, PutRows

CHUNK = 500
"""Messages, or rows, deleted in one transaction."""


@attrs.frozen
class Policy:
    """What a channel keeps; 0 is no bound."""

    age_s: int
    count: int


class Retention:
    """Deletes what is no longer to be kept."""

    def __init__(self, store: Store, config: RetentionConfig, clock_s: Callable[[], float] = time.time) -> None:
        self._store = store
        self._config = config
        self._clock_s = clock_s
        self._log = structlog.get_logger("retention")
        self.deleted = 0
        self.sweeps = 0

    def policy(self, key: ChannelKey, info: ChannelInfo | None) -> Policy:
        """Return what a channel keeps: what it was given itself, else what its type is, else the default."""
        config = self._config
        if key.type == ChannelType.TEMP or key.id.endswith(COMMAND_SUFFIX):
            return Policy(int(config.cache_days * 86_400), 0)
        default = config.by_type().get(key.type, (int(config.max_age), config.max_count))
        own = info or ChannelInfo()
        return Policy(own.keep_s or default[0], own.keep_count or default[1])

    async def run(self) -> None:
        """Look at every slot once in `retention.interval`."""
        while True:
            started = trio.current_time()
            for slot in range(SLOT_COUNT):
                try:
                    await self.sweep(slot)
                except StoreError as exc:
                    self._log.warning("retention put off", slot=slot, detail=str(exc))
            self.sweeps += 1
            await trio.sleep_until(started + self._config.interval)

    async def sweep_all(self) -> int:
        """Look at every slot now; returns how many messages were deleted."""
        before = self.deleted
        for slot in range(SLOT_COUNT):
            await self.sweep(slot)
        return self.deleted - before

    async def sweep(self, slot: int) -> None:
        """Delete what one slot no longer keeps."""
        now = int(self._clock_s())
        while await self._store.writer.change(lambda sealer: self._expire(sealer, slot, now)):
            pass
        for key, number, seqs in await self._store.read_long(lambda txn: list(self._surplus(txn, slot, now))):
            await self._store.writer.change(partial(self._drop, slot=slot, key=key, number=number, seqs=seqs))
        old = await self._store.read_long(lambda txn: self._old_commands(txn, slot, now))
        for start in range(0, len(old), CHUNK):
            operation = PutRows(slot, tuple((raw, None) for raw in old[start : start + CHUNK]))
            await self._store.writer.change(partial(Sealer.emit, operation=operation))

    def _expire(self, sealer: Sealer, slot: int, now: int) -> bool:
        """Delete messages whose time has come; returns whether there may be more."""
        due: dict[int, list[int]] = {}
        rows: list[tuple[bytes, bytes | None]] = []
        for raw, value in islice(_queries.rows(sealer.txn, keys.expiries(slot)), CHUNK):
            if keys.due_of(raw) > now:
                break
            number, seq = records.decode_place(value)
            due.setdefault(number, []).append(seq)
            rows.append((raw, None))
        for number, seqs in due.items():
            self._drop(sealer, slot, _queries.channel_name(sealer.txn, slot, number), number, tuple(seqs))
        if rows:
            sealer.emit(PutRows(slot, tuple(rows)))
        return len(rows) == CHUNK

    def _surplus(self, txn: lmdb.Transaction, slot: int, now: int) -> Iterator[tuple[ChannelKey, int, tuple[int, ...]]]:
        """Yield what is too old or too much, in pieces."""
        for key, number in _queries.channels(txn, slot):
            record = _queries.channel_record(txn, key)
            policy = self.policy(key, record.info if record is not None else None)
            if not policy.age_s and not policy.count:
                continue
            oldest = now - policy.age_s if policy.age_s else 0
            last = _queries.last_seq(txn, slot, number)
            lowest = last - policy.count + 1 if policy.count else 0
            found: list[int] = []
            for raw, value in _queries.rows(txn, keys.numbered(slot, keys.MESSAGE, number)):
                seq, (_, timestamp, _) = keys.seq_of(raw), records.id_and_time(value)
                if timestamp >= oldest and seq >= lowest:
                    break
                found.append(seq)
                if len(found) == CHUNK:
                    yield key, number, tuple(found)
                    found = []
            if found:
                yield key, number, tuple(found)

    def _drop(self, sealer: Sealer, slot: int, key: ChannelKey, number: int, seqs: tuple[int, ...]) -> None:
        sealer.emit(DeleteMessages(slot, number, seqs, sealer.tail(key).seq))
        self.deleted += len(seqs)

    def _old_commands(self, txn: lmdb.Transaction, slot: int, now: int) -> list[bytes]:
        """Return the queue rows of commands that nobody fetched in `offline.cacheDays`."""
        oldest = now - self._config.cache_days * 86_400
        rows = _queries.rows(txn, keys.table(slot, keys.QUEUE))
        return [raw for raw, value in rows if seconds_of_id(int.from_bytes(value, "big")) < oldest]
