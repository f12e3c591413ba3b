"""What is old goes: expired messages, and what is beyond the age or number that a channel keeps.

One slot at a time is looked at, and deleted from in small transactions, so that neither senders nor readers notice.
LMDB uses the pages again, so the file stops growing once as much goes as comes.
"""

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

import attrs
import lmdb
import structlog
import trio

from triolet_core._deletion import delete_messages
from triolet_core._ids import seconds_of_id
from triolet_core.config import RetentionConfig
from triolet_core.errors import TrioletError
from triolet_core.model import COMMAND_SUFFIX, SLOT_COUNT, ChannelInfo, ChannelKey, ChannelType
from triolet_core.store import Store, _queries
from triolet_core.store import _keys as keys
from triolet_core.store import _records as records
from triolet_core.store._sealer import Sealer
from triolet_core.store._tables import DropChannel, PutRows

CHUNK = 500
"""Messages, or rows, deleted in one transaction."""


@attrs.frozen
class Policy:
    """What a channel keeps; 0 is no bound."""

    age_s: int
    count: int


@attrs.frozen
class _Found:
    """What a look at a slot found to be deleted."""

    messages: list[tuple[ChannelKey, tuple[int, ...]]]
    rows: list[bytes]
    channels: list[ChannelKey]


class Retention:
    """Deletes what is no longer to be kept."""

    def __init__(
        self,
        store: Store,
        config: RetentionConfig,
        *,
        tmp_suffix: str,
        forget: Callable[[ChannelKey], None],
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._default = Policy(math.ceil(config.max_age), config.max_count)
        self._by_type = {kind: Policy(age, count) for kind, (age, count) in config.by_type().items()}
        self._cache_s = config.cache_days * 86_400
        self._interval_s = config.interval
        self._forget = forget
        self._tmp_suffix = tmp_suffix
        self._clock_s = clock_s
        self._log = structlog.get_logger("retention")
        self.deleted = 0
        self.sweeps = 0

    def policy(self, key: ChannelKey, info: ChannelInfo | None) -> Policy:
        """Return what a channel keeps: what it was given itself, else what its type is, else the default."""
        if key.type == ChannelType.TEMP or key.id.endswith(COMMAND_SUFFIX):
            return Policy(self._cache_s, 0)
        default = self._by_type.get(key.type, self._default)
        if info is None:
            return default
        return Policy(info.keep_s or default.age_s, info.keep_count or default.count)

    async def run(self) -> None:
        """Look at every slot once in `retention.interval`, the first time when that is over."""
        due = trio.current_time()
        while True:
            due = max(due + self._interval_s, trio.current_time())
            await trio.sleep_until(due)
            for slot in range(SLOT_COUNT):
                try:
                    await self.sweep(slot)
                except TrioletError as exc:
                    self._log.warning("retention put off", slot=slot, detail=str(exc))
            self.sweeps += 1

    async def sweep_all(self) -> int:
        """Look at every slot now; returns how many messages were deleted."""
        before = self.deleted
        for slot in range(SLOT_COUNT):
            await self.sweep(slot)
        return self.deleted - before

    async def sweep(self, slot: int) -> None:
        """Delete what one slot no longer keeps."""
        now = int(self._clock_s())
        while await self._store.settled(lambda: self._store.read(lambda txn: _first_due(txn, slot))) <= now:
            self.deleted += await self._store.writer.change(lambda sealer: _expire(sealer, slot, now))
        found = await self._store.read_long(lambda txn: self._look(txn, slot, now))
        for key, seqs in found.messages:
            self.deleted += await self._store.writer.change(partial(_drop, key=key, seqs=seqs))
        for start in range(0, len(found.rows), CHUNK):
            operation = PutRows(slot, tuple((raw, None) for raw in found.rows[start : start + CHUNK]))
            await self._store.writer.change(partial(Sealer.emit, operation=operation))
        for key in found.channels:
            await self._store.writer.change(partial(_drop_channel, key=key), after=partial(self._forget, key))

    def _look(self, txn: lmdb.Transaction, slot: int, now: int) -> "_Found":
        oldest = now - self._cache_s
        return _Found(
            list(self._surplus(txn, slot, now)),
            [*_old_commands(txn, slot, oldest), *_lost(txn, slot, oldest)],
            list(self._used_up(txn, slot, oldest)),
        )

    def _surplus(self, txn: lmdb.Transaction, slot: int, now: int) -> Iterator[tuple[ChannelKey, tuple[int, ...]]]:
        """Yield what is too old or too much, in pieces."""
        for key, number in _queries.channels(txn, slot):
            record = _queries.channel_record(txn, key)
            policy = self.policy(key, record.info if record is not None else None)
            if not policy.age_s and not policy.count:
                continue
            oldest = now - policy.age_s if policy.age_s else 0
            lowest = _queries.lowest_of_newest(txn, slot, number, policy.count) if policy.count else 0
            found: list[int] = []
            for raw, value in _queries.rows(txn, keys.numbered(slot, keys.MESSAGE, number)):
                seq, (_, timestamp, _) = keys.seq_of(raw), records.id_and_time(value)
                if timestamp >= oldest and seq >= lowest:
                    break
                found.append(seq)
                if len(found) == CHUNK:
                    yield key, tuple(found)
                    found = []
            if found:
                yield key, tuple(found)

    def _used_up(self, txn: lmdb.Transaction, slot: int, oldest: int) -> Iterator[ChannelKey]:
        """Yield the temporary channels, one for each send to listed users, that are old and empty."""
        for key, number in _queries.channels(txn, slot):
            if key.type != ChannelType.TEMP or not key.id.endswith(self._tmp_suffix):
                continue
            record = _queries.channel_record(txn, key)
            is_old = record is not None and record.info is None and record.created < oldest
            if is_old and not _queries.first_seq(txn, slot, number):
                yield key


def _first_due(txn: lmdb.Transaction, slot: int) -> float:
    """Return the second at which the next message of a slot expires."""
    return next((keys.due_of(raw) for raw, _ in _queries.rows(txn, keys.expiries(slot))), math.inf)


def _expire(sealer: Sealer, slot: int, now: int) -> int:
    """Delete some of the messages whose time has come; returns how many."""
    due: dict[int, list[int]] = {}
    rows: list[tuple[bytes, bytes | None]] = []
    for raw, value in islice(_queries.rows(sealer.txn, keys.expiries(slot)), CHUNK):
        if keys.due_of(raw) > now:
            break
        number, seq = records.decode_place(value)
        due.setdefault(number, []).append(seq)
        rows.append((raw, None))
    for number, seqs in due.items():
        delete_messages(sealer, _queries.channel_name(sealer.txn, slot, number), seqs)
    sealer.emit(PutRows(slot, tuple(rows)))
    return len(rows)


def _drop(sealer: Sealer, key: ChannelKey, seqs: tuple[int, ...]) -> int:
    delete_messages(sealer, key, seqs)
    return len(seqs)


def _drop_channel(sealer: Sealer, key: ChannelKey) -> None:
    tail = sealer.tail(key)
    if not _queries.first_seq(sealer.txn, tail.slot, tail.number):
        sealer.emit(DropChannel(tail.slot, key, tail.number))
        sealer.forget(key)


def _old_commands(txn: lmdb.Transaction, slot: int, oldest: int) -> Iterator[bytes]:
    """Yield the queue rows of commands that nobody fetched."""
    for raw, value in _queries.rows(txn, keys.table(slot, keys.COMMAND)):
        if seconds_of_id(int.from_bytes(value, "big")) < oldest:
            yield raw


def _lost(txn: lmdb.Transaction, slot: int, oldest: int) -> Iterator[bytes]:
    """Yield the rows of streams that never had a message, which would take them along."""
    for raw, value in _queries.rows(txn, keys.table(slot, keys.STREAM)):
        stream = records.decode_stream(value)
        if not stream.message_id and stream.active < oldest:
            yield raw
            for table in (keys.LANE, keys.STREAM_EVENT, keys.EVENT_ID):
                prefix = keys.table(slot, table) + raw[3:]
                yield from (row for row, _ in _queries.rows(txn, prefix))
