"""Operations, and the one function that applies them to a write transaction.

An operation is deterministic: it holds its ids, sequence numbers and times, applying it reads no clock and no
randomness, and it touches one slot. Nothing else writes. A replicated log can therefore be put in front of
`apply` later without a change here.
"""

from collections.abc import Callable
from typing import Any

import attrs
import lmdb

from triolet_core.model import REVISED, STREAMED, ChannelInfo, ChannelKey, DeviceToken, Message, Revision, slot_of
from triolet_core.store import _keys as keys
from triolet_core.store import _records as records
from triolet_core.store import _rows as rows
from triolet_core.store._queries import queue_state


@attrs.define(eq=False)
class AppendMessages:
    """Add messages, numbered without a gap, to a channel; also to the commit log."""

    slot: int
    number: int
    messages: list[Message]


@attrs.frozen
class CreateChannel:
    """Give a channel its number."""

    slot: int
    key: ChannelKey
    number: int
    now: int


@attrs.frozen
class PutChannelInfo:
    """Overwrite the info of a channel."""

    slot: int
    key: ChannelKey
    number: int
    info: ChannelInfo | None
    created: int
    updated: int


@attrs.frozen
class ChangeList:
    """Change members or a list (`table`) of a channel: empty it if `clear`, then remove, then add."""

    slot: int
    table: int
    number: int
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    clear: bool = False


@attrs.frozen
class WipeChannel:
    """Delete members, lists and messages of a channel; its sequence goes on behind `last_seq`."""

    slot: int
    number: int
    last_seq: int


@attrs.frozen
class DeleteMessages:
    """Delete messages of a channel; its sequence goes on behind `last_seq`."""

    slot: int
    number: int
    seqs: tuple[int, ...]
    last_seq: int


@attrs.frozen
class DropChannel:
    """Forget a channel that has no messages and whose id never comes again; its number is not given again."""

    slot: int
    key: ChannelKey
    number: int


@attrs.define(eq=False)
class ReviseMessage:
    """Replace a stored message, and say what happened to it (None: only its marks changed)."""

    slot: int
    number: int
    message: Message
    revision: Revision | None


@attrs.frozen
class PutRows:
    """Set and delete (None) rows of one slot that have no rules of their own."""

    slot: int
    rows: tuple[tuple[bytes, bytes | None], ...]


@attrs.frozen
class PutDevice:
    """Set the token and level of one device flag of a uid."""

    slot: int
    uid: str
    flag: int
    device: DeviceToken


@attrs.frozen
class ChangeSystemUids:
    """Add and remove system accounts (slot 0)."""

    slot: int
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


@attrs.frozen
class PutPosition:
    """Set a user's position in a channel."""

    slot: int
    uid: str
    position: records.Position


@attrs.frozen
class DropPosition:
    """Forget a user's position in a channel."""

    slot: int
    uid: str
    channel: ChannelKey


@attrs.frozen
class PutMeta:
    """Set a fact about this node's store."""

    slot: int
    name: str
    value: bytes


@attrs.frozen
class PutCursor:
    """Move a consumer of the commit log."""

    slot: int
    consumer: str
    message_id: int


@attrs.frozen
class PutQueued:
    """Add an entry to a durable queue, behind every other."""

    slot: int
    queue: str
    number: int
    payload: bytes


@attrs.frozen
class DropQueued:
    """Remove the entries `first` to `last` of a durable queue; those that are not there are no error."""

    slot: int
    queue: str
    first: int
    last: int


Operation = (
    AppendMessages
    | CreateChannel
    | PutChannelInfo
    | ChangeList
    | WipeChannel
    | DeleteMessages
    | DropChannel
    | ReviseMessage
    | PutRows
    | PutDevice
    | ChangeSystemUids
    | PutPosition
    | DropPosition
    | PutMeta
    | PutCursor
    | PutQueued
    | DropQueued
)


_STREAM_TABLES = (keys.STREAM, keys.LANE, keys.STREAM_EVENT, keys.EVENT_ID)
_TABLES_OF_CHANNEL = (keys.MEMBER, keys.DENIED, keys.ALLOWED, keys.REVISION, *_STREAM_TABLES)


def apply(txn: lmdb.Transaction, operation: Operation) -> None:
    """Apply one operation to a write transaction. Synchronous; raises only what LMDB raises."""
    _APPLY[type(operation)](txn, operation)


def _append_messages(txn: lmdb.Transaction, op: AppendMessages) -> None:
    _put_encoded(txn, rows.of_messages(op.slot, op.number, op.messages))


def _create_channel(txn: lmdb.Transaction, op: CreateChannel) -> None:
    record = records.ChannelRecord(number=op.number, info=None, created=op.now, updated=op.now)
    txn.put(keys.channel(op.key), records.encode_channel(record))
    txn.put(keys.numbered(op.slot, keys.NAME, op.number), records.encode_name(op.key))
    txn.put(keys.counter(op.slot), op.number.to_bytes(4, "big"))


def _put_channel_info(txn: lmdb.Transaction, op: PutChannelInfo) -> None:
    record = records.ChannelRecord(number=op.number, info=op.info, created=op.created, updated=op.updated)
    txn.put(keys.channel(op.key), records.encode_channel(record))


def _change_list(txn: lmdb.Transaction, op: ChangeList) -> None:
    if op.clear:
        delete_range(txn, keys.numbered(op.slot, op.table, op.number))
    for uid in op.remove:
        txn.delete(keys.listed(op.slot, op.table, op.number, uid))
    for uid in op.add:
        txn.put(keys.listed(op.slot, op.table, op.number, uid), uid.encode())


def _wipe_channel(txn: lmdb.Transaction, op: WipeChannel) -> None:
    prefix = keys.numbered(op.slot, keys.MESSAGE, op.number)
    with txn.cursor() as cursor:
        found = cursor.set_range(prefix)
        while found and cursor.key().startswith(prefix):
            _drop_references(txn, op.slot, cursor.value())
            found = cursor.set_range(prefix) if cursor.delete() else False
    for table in _TABLES_OF_CHANNEL:
        delete_range(txn, keys.numbered(op.slot, table, op.number))
    txn.put(keys.numbered(op.slot, keys.FLOOR, op.number), op.last_seq.to_bytes(8, "big"))


def _drop_references(txn: lmdb.Transaction, slot: int, record: bytes) -> None:
    message_id, timestamp, expire = records.id_and_time(record)
    txn.delete(keys.log(message_id))
    if expire:
        txn.delete(keys.expiry(slot, timestamp + expire, message_id))


def _delete_messages(txn: lmdb.Transaction, op: DeleteMessages) -> None:
    for seq in op.seqs:
        key = keys.message(op.slot, op.number, seq)
        record = txn.get(key)
        if record is None:
            continue
        _drop_references(txn, op.slot, record)
        txn.delete(key)
        _, marks = records.sender_and_flags(record)
        if marks & REVISED:
            txn.delete(keys.revision(op.slot, op.number, seq))
        if marks & STREAMED:
            _drop_stream(txn, op, records.decode_message(record, ChannelKey("", 0), seq))
    txn.put(keys.numbered(op.slot, keys.FLOOR, op.number), op.last_seq.to_bytes(8, "big"))


def _drop_stream(txn: lmdb.Transaction, op: DeleteMessages, message: Message) -> None:
    """Delete the stream of a message, unless a newer message with the same number has taken it over."""
    prefixes = [keys.streamed(op.slot, table, op.number, message.client_msg_no) for table in _STREAM_TABLES]
    head = txn.get(prefixes[0])
    if head is not None and records.decode_stream(head).message_id == message.message_id:
        for prefix in prefixes:
            delete_range(txn, prefix)


def _drop_channel(txn: lmdb.Transaction, op: DropChannel) -> None:
    for table in (*_TABLES_OF_CHANNEL, keys.FLOOR, keys.NAME):
        delete_range(txn, keys.numbered(op.slot, table, op.number))
    txn.delete(keys.channel(op.key))


def _revise_message(txn: lmdb.Transaction, op: ReviseMessage) -> None:
    message = op.message
    txn.put(keys.message(op.slot, op.number, message.seq), records.encode_message(message))
    if op.revision is not None:
        txn.put(keys.revision(op.slot, op.number, message.seq), records.encode_revision(op.revision))


def _put_rows(txn: lmdb.Transaction, op: PutRows) -> None:
    for key, value in op.rows:
        if value is None:
            txn.delete(key)
        else:
            txn.put(key, value)


def _put_device(txn: lmdb.Transaction, op: PutDevice) -> None:
    txn.put(keys.device(op.uid, op.flag), records.encode_device(op.uid, op.device))


def _change_system_uids(txn: lmdb.Transaction, op: ChangeSystemUids) -> None:
    for uid in op.remove:
        txn.delete(keys.system_uid(uid))
    for uid in op.add:
        txn.put(keys.system_uid(uid), uid.encode())


def _put_position(txn: lmdb.Transaction, op: PutPosition) -> None:
    txn.put(keys.conversation(op.uid, op.position.channel), records.encode_position(op.position))


def _drop_position(txn: lmdb.Transaction, op: DropPosition) -> None:
    txn.delete(keys.conversation(op.uid, op.channel))


def _put_meta(txn: lmdb.Transaction, op: PutMeta) -> None:
    txn.put(keys.meta(op.name), op.value)


def _put_cursor(txn: lmdb.Transaction, op: PutCursor) -> None:
    _put_encoded(txn, rows.of_cursor(op.consumer, op.message_id))


def _put_encoded(txn: lmdb.Transaction, encoded: bytes) -> None:
    for key, value in rows.decode(encoded):
        txn.put(key, value)


def _put_queued(txn: lmdb.Transaction, op: PutQueued) -> None:
    state = queue_state(txn, op.queue)
    txn.put(keys.queued(op.queue, op.number), op.payload)
    _put_queue_state(txn, op.queue, last=op.number, count=state.count + 1, size=state.size + len(op.payload))


def _drop_queued(txn: lmdb.Transaction, op: DropQueued) -> None:
    state = queue_state(txn, op.queue)
    count, size = state.count, state.size
    first, behind = keys.queued(op.queue, op.first), keys.queued(op.queue, op.last)
    with txn.cursor() as cursor:
        found = cursor.set_range(first)
        while found and first <= cursor.key() <= behind:
            count -= 1
            size -= len(cursor.value())
            cursor.delete()
            found = cursor.set_range(first)
    _put_queue_state(txn, op.queue, last=state.last, count=count, size=size)


def _put_queue_state(txn: lmdb.Transaction, queue: str, *, last: int, count: int, size: int) -> None:
    state = records.QueueState(last=last, count=count, size=size)
    txn.put(keys.queue_state(queue), records.encode_queue_state(state))


def delete_range(txn: lmdb.Transaction, prefix: bytes) -> None:
    """Delete every key that begins with `prefix`."""
    with txn.cursor() as cursor:
        found = cursor.set_range(prefix)
        while found and cursor.key().startswith(prefix):
            cursor.delete()
            found = cursor.set_range(prefix)


_APPLY: dict[type, Callable[[lmdb.Transaction, Any], None]] = {
    AppendMessages: _append_messages,
    CreateChannel: _create_channel,
    PutChannelInfo: _put_channel_info,
    ChangeList: _change_list,
    WipeChannel: _wipe_channel,
    DeleteMessages: _delete_messages,
    DropChannel: _drop_channel,
    ReviseMessage: _revise_message,
    PutRows: _put_rows,
    PutDevice: _put_device,
    ChangeSystemUids: _change_system_uids,
    PutPosition: _put_position,
    DropPosition: _drop_position,
    PutMeta: _put_meta,
    PutCursor: _put_cursor,
    PutQueued: _put_queued,
    DropQueued: _drop_queued,
}


def put_position(uid: str, position: records.Position) -> PutPosition:
    """Return the operation that sets a position, in the uid's slot."""
    return PutPosition(slot_of(uid), uid, position)
