"""Questions to a transaction, pure functions; used by readers on a snapshot and by the writer on its own state."""

from collections.abc import Iterator
from itertools import islice

import lmdb

from triolet_core.model import REVISED, ChannelKey, DeviceToken, Message, Revision, slot_of
from triolet_core.store import _keys as keys
from triolet_core.store import _records as records


def channel_record(txn: lmdb.Transaction, key: ChannelKey) -> records.ChannelRecord | None:
    """Return the record of a channel, None if it was never created or written to."""
    value = txn.get(keys.channel(key))
    return None if value is None else records.decode_channel(value)


def channel_name(txn: lmdb.Transaction, slot: int, number: int) -> ChannelKey:
    """Return the key of the channel that has this number in this slot."""
    return records.decode_name(txn.get(keys.numbered(slot, keys.NAME, number)))


def last_number(txn: lmdb.Transaction, slot: int) -> int:
    """Return the highest channel number given in a slot, 0 if none."""
    return int.from_bytes(txn.get(keys.counter(slot), b""), "big")


def last_seq(txn: lmdb.Transaction, slot: int, number: int) -> int:
    """Return the last sequence number given in a channel, also if its messages were deleted; 0 if none."""
    prefix = keys.numbered(slot, keys.MESSAGE, number)
    newest = 0
    with txn.cursor() as cursor:
        found = cursor.prev() if cursor.set_range(keys.after(prefix)) else cursor.last()
        if found and cursor.key().startswith(prefix):
            newest = keys.seq_of(cursor.key())
    floor = int.from_bytes(txn.get(keys.numbered(slot, keys.FLOOR, number), b""), "big")
    return max(newest, floor)


def max_seq(txn: lmdb.Transaction, key: ChannelKey) -> int:
    """Return the last sequence number of a channel, 0 if it does not exist."""
    record = channel_record(txn, key)
    return 0 if record is None else last_seq(txn, slot_of(key.id), record.number)


def messages_from(txn: lmdb.Transaction, key: ChannelKey, first: int) -> Iterator[Message]:
    """Yield messages of a channel with seq >= `first`, rising."""
    record = channel_record(txn, key)
    if record is None:
        return
    slot = slot_of(key.id)
    prefix = keys.numbered(slot, keys.MESSAGE, record.number)
    with txn.cursor() as cursor:
        if not cursor.set_range(keys.message(slot, record.number, first)):
            return
        for raw, value in cursor.iternext():
            if not raw.startswith(prefix):
                return
            yield records.decode_message(value, key, keys.seq_of(raw))


def raw_page(
    txn: lmdb.Transaction, key: ChannelKey, first: int, count: int, *, upwards: bool
) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Return up to `count` entries from `first` on in one direction, and what the keys of the channel begin with.

    Behind the channel's last message come entries of others.
    """
    prefix = _message_prefix(txn, key)
    if prefix is None:
        return b"", []
    with txn.cursor() as cursor:
        if not _stand_at(cursor, prefix, first, upwards=upwards):
            return prefix, []
        return prefix, list(islice(cursor.iternext() if upwards else cursor.iterprev(), count))


def raw_run(
    txn: lmdb.Transaction, key: ChannelKey, first: int, count: int, *, upwards: bool
) -> tuple[int, list[bytes]] | None:
    """Return what `raw_page` does if that is `count` messages without a gap: the first seq, and their records.

    Nearly all pages but a channel's last ones are, and without the keys they are read in half the time.
    """
    prefix = _message_prefix(txn, key)
    if prefix is None:
        return None
    with txn.cursor() as cursor:
        if not _stand_at(cursor, prefix, first, upwards=upwards):
            return None
        begin = cursor.key()
        found = list(islice(cursor.iternext(keys=False) if upwards else cursor.iterprev(keys=False), count))
        end = cursor.key()
        is_whole = len(found) == count and begin.startswith(prefix) and end.startswith(prefix)
        seq = keys.seq_of(begin)
        is_dense = abs(keys.seq_of(end) - seq) == count - 1
        return (seq, found) if is_whole and is_dense else None


def _message_prefix(txn: lmdb.Transaction, key: ChannelKey) -> bytes | None:
    """Return what the keys of a channel's messages begin with, None if there is no such channel."""
    name = keys.channel(key)
    value = txn.get(name)
    return None if value is None else keys.in_slot_of(name, keys.MESSAGE, records.number_of_channel(value))


def _stand_at(cursor: lmdb.Cursor, prefix: bytes, first: int, *, upwards: bool) -> bool:
    """Put a cursor at the first entry of a page; what lies there may be another channel's. False if nothing does."""
    if upwards:
        return bool(cursor.set_range(prefix + first.to_bytes(8, "big")))
    behind = prefix + (first + 1).to_bytes(8, "big")
    return bool(cursor.prev() if cursor.set_range(behind) else cursor.last())


def seqs_between(txn: lmdb.Transaction, key: ChannelKey, first: int, last: int) -> Iterator[int]:
    """Yield the sequence numbers from `first` to `last` that a channel has messages with."""
    record = channel_record(txn, key)
    if record is None:
        return
    slot = slot_of(key.id)
    prefix = keys.numbered(slot, keys.MESSAGE, record.number)
    for raw, _ in rows(txn, prefix, keys.message(slot, record.number, first)):
        if keys.seq_of(raw) > last:
            return
        yield keys.seq_of(raw)


def raw_messages_back(txn: lmdb.Transaction, key: ChannelKey, last: int) -> Iterator[tuple[int, bytes]]:
    """Yield (seq, record) of a channel with seq <= `last`, falling."""
    record = channel_record(txn, key)
    if record is None:
        return
    slot = slot_of(key.id)
    prefix = keys.numbered(slot, keys.MESSAGE, record.number)
    with txn.cursor() as cursor:
        behind = keys.message(slot, record.number, last + 1)
        found = cursor.prev() if cursor.set_range(behind) else cursor.last()
        while found and cursor.key().startswith(prefix):
            yield keys.seq_of(cursor.key()), cursor.value()
            found = cursor.prev()


def messages_back(txn: lmdb.Transaction, key: ChannelKey, last: int) -> Iterator[Message]:
    """Yield messages of a channel with seq <= `last`, falling."""
    for seq, value in raw_messages_back(txn, key, last):
        yield records.decode_message(value, key, seq)


def message_at(txn: lmdb.Transaction, key: ChannelKey, seq: int) -> Message | None:
    """Return one message of a channel."""
    record = channel_record(txn, key)
    if record is None:
        return None
    value = txn.get(keys.message(slot_of(key.id), record.number, seq))
    return None if value is None else records.decode_message(value, key, seq)


def message_by_id(txn: lmdb.Transaction, message_id: int) -> Message | None:
    """Return the stored message with this id."""
    entry = txn.get(keys.log(message_id))
    return None if entry is None else _logged(txn, entry)


def log_after(txn: lmdb.Transaction, message_id: int, limit: int, max_bytes: int | None = None) -> list[Message]:
    """Return up to `limit` messages stored after the one with `message_id`, in commit order.

    The first is returned whatever its size, the others only while the payloads stay within `max_bytes`.
    """
    found: list[Message] = []
    size = 0
    with txn.cursor() as cursor:
        if cursor.set_range(keys.log(message_id + 1)):
            for raw, entry in cursor.iternext():
                if not raw.startswith(keys.LOG_PREFIX) or len(found) == limit:
                    break
                message = _logged(txn, entry)
                if message is None:
                    continue
                size += len(message.payload)
                if found and max_bytes is not None and size > max_bytes:
                    break
                found.append(message)
    return found


def log_back(txn: lmdb.Transaction, before: int = 0) -> Iterator[Message]:
    """Yield the stored messages, the newest first; only those with a lower id than `before` unless that is 0."""
    with txn.cursor() as cursor:
        bound = keys.log(before) if before else keys.after(keys.LOG_PREFIX)
        found = cursor.prev() if cursor.set_range(bound) else cursor.last()
        while found and cursor.key().startswith(keys.LOG_PREFIX):
            message = _logged(txn, cursor.value())
            if message is not None:
                yield message
            found = cursor.prev()


def sends_back(txn: lmdb.Transaction) -> Iterator[tuple[int, int, str, ChannelKey, str]]:
    """Yield (message id, time, sender, channel, client's number) of the stored messages, the newest first."""
    names: dict[tuple[int, int], ChannelKey] = {}
    with txn.cursor() as cursor:
        found = cursor.prev() if cursor.set_range(keys.after(keys.LOG_PREFIX)) else cursor.last()
        if not found:
            return
        for raw, entry in cursor.iterprev():
            if not raw.startswith(keys.LOG_PREFIX):
                return
            slot, number, seq = records.decode_log(entry)
            value = txn.get(keys.message(slot, number, seq))
            if value is not None:
                name = names.get((slot, number))
                if name is None:
                    name = names[slot, number] = channel_name(txn, slot, number)
                message_id, timestamp, sender, client_msg_no = records.send_of(value)
                yield message_id, timestamp, sender, name, client_msg_no


def last_logged_id(txn: lmdb.Transaction) -> int:
    """Return the highest message id in the commit log, 0 if it is empty."""
    with txn.cursor() as cursor:
        found = cursor.prev() if cursor.set_range(keys.after(keys.LOG_PREFIX)) else cursor.last()
        return keys.id_of_log(cursor.key()) if found and cursor.key().startswith(keys.LOG_PREFIX) else 0


def _logged(txn: lmdb.Transaction, entry: bytes) -> Message | None:
    slot, number, seq = records.decode_log(entry)
    value = txn.get(keys.message(slot, number, seq))
    return None if value is None else records.decode_message(value, channel_name(txn, slot, number), seq)


def listed(txn: lmdb.Transaction, table: int, key: ChannelKey, limit: int | None = None) -> list[str] | None:
    """Return the uids of a list of a channel in key order; None if there are more than `limit`."""
    record = channel_record(txn, key)
    if record is None:
        return []
    return _values(txn, keys.numbered(slot_of(key.id), table, record.number), limit)


def is_listed(txn: lmdb.Transaction, table: int, key: ChannelKey, uid: str) -> bool:
    """Whether a uid is on a list of a channel."""
    record = channel_record(txn, key)
    return record is not None and txn.get(keys.listed(slot_of(key.id), table, record.number, uid)) is not None


def system_uids(txn: lmdb.Transaction) -> list[str]:
    """Return the system accounts."""
    return _values(txn, keys.system_uids(), None) or []


def _values(txn: lmdb.Transaction, prefix: bytes, limit: int | None) -> list[str] | None:
    found: list[str] = []
    with txn.cursor() as cursor:
        if cursor.set_range(prefix):
            for raw, value in cursor.iternext():
                if not raw.startswith(prefix):
                    break
                if limit is not None and len(found) == limit:
                    return None
                found.append(value.decode())
    return found


def device(txn: lmdb.Transaction, uid: str, flag: int) -> DeviceToken | None:
    """Return what is stored for one device flag of a uid."""
    value = txn.get(keys.device(uid, flag))
    return None if value is None else records.decode_device(value)


def position(txn: lmdb.Transaction, uid: str, key: ChannelKey) -> records.Position | None:
    """Return a user's position in a channel."""
    value = txn.get(keys.conversation(uid, key))
    return None if value is None else records.decode_position(value)


def positions(txn: lmdb.Transaction, uid: str) -> list[records.Position]:
    """Return every position of a user."""
    return [records.decode_position(value) for _, value in rows(txn, keys.conversations(uid))]


def rows(txn: lmdb.Transaction, prefix: bytes, start: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
    """Yield the rows whose keys begin with `prefix`, from `start` on, in key order."""
    with txn.cursor() as cursor:
        if cursor.set_range(start or prefix):
            for raw, value in cursor.iternext():
                if not raw.startswith(prefix):
                    return
                yield raw, value


def commands(txn: lmdb.Transaction, uid: str, first: int = 0) -> Iterator[tuple[int, int]]:
    """Yield (place, message id) of the commands that wait for a uid from place `first` on, the oldest first."""
    for raw, value in rows(txn, keys.commands(uid), keys.command(uid, first)):
        yield int.from_bytes(raw[-8:], "big"), int.from_bytes(value, "big")


def revision(txn: lmdb.Transaction, message: Message) -> Revision | None:
    """Return what happened to a message after it was stored."""
    record = channel_record(txn, message.channel) if message.marks & REVISED else None
    if record is None:
        return None
    value = txn.get(keys.revision(slot_of(message.channel.id), record.number, message.seq))
    return None if value is None else records.decode_revision(value)


def channels(txn: lmdb.Transaction, slot: int) -> Iterator[tuple[ChannelKey, int]]:
    """Yield (key, number) of every channel of a slot."""
    for raw, value in rows(txn, keys.table(slot, keys.NAME)):
        yield records.decode_name(value), int.from_bytes(raw[3:7], "big")


def first_seq(txn: lmdb.Transaction, slot: int, number: int) -> int:
    """Return the lowest sequence number that is kept in a channel, 0 if none is."""
    prefix = keys.numbered(slot, keys.MESSAGE, number)
    return next((keys.seq_of(raw) for raw, _ in rows(txn, prefix)), 0)


def lowest_of_newest(txn: lmdb.Transaction, slot: int, number: int, most: int) -> int:
    """Return the sequence number of the oldest of the newest `most` messages of a channel, 0 if it has no more."""
    first, last = first_seq(txn, slot, number), last_seq(txn, slot, number)
    if not first or last - first < most:
        return 0
    prefix = keys.numbered(slot, keys.MESSAGE, number)
    with txn.cursor() as cursor:
        found = cursor.prev() if cursor.set_range(keys.after(prefix)) else cursor.last()
        seq = 0
        while found and most and cursor.key().startswith(prefix):
            seq = keys.seq_of(cursor.key())
            most -= 1
            found = cursor.prev()
    return seq


def count(txn: lmdb.Transaction, prefix: bytes) -> int:
    """Count the rows whose keys begin with `prefix`."""
    return sum(1 for _ in rows(txn, prefix))


def has_rows(txn: lmdb.Transaction, prefix: bytes) -> bool:
    """Whether there is a row whose key begins with `prefix`."""
    return next(rows(txn, prefix), None) is not None


def meta(txn: lmdb.Transaction, name: str) -> bytes | None:
    """Return a fact about this store."""
    value: bytes | None = txn.get(keys.meta(name))
    return value


def cursor_of(txn: lmdb.Transaction, consumer: str) -> int:
    """Return the message id that a consumer has read up to, 0 at first."""
    return int.from_bytes(txn.get(keys.cursor(consumer), b""), "big")


def queue_state(txn: lmdb.Transaction, queue: str) -> records.QueueState:
    """Return how much a durable queue holds."""
    value = txn.get(keys.queue_state(queue))
    return records.QueueState() if value is None else records.decode_queue_state(value)


def queued(txn: lmdb.Transaction, queue: str, after: int, limit: int) -> list[tuple[int, bytes]]:
    """Return up to `limit` entries of a durable queue behind the number `after`, as (number, payload)."""
    prefix = keys.queue(queue)
    found: list[tuple[int, bytes]] = []
    with txn.cursor() as cursor:
        if cursor.set_range(keys.queued(queue, after + 1)):
            for raw, payload in cursor.iternext():
                if not raw.startswith(prefix) or len(found) == limit:
                    break
                found.append((keys.number_of_queued(raw), payload))
    return found
