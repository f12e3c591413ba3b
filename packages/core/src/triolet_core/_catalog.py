"""What an administrator looks at: every channel, user, device and conversation of the store, and its size.

These questions read whole tables and run in a thread; nothing here is on the path of a message.
"""

from collections.abc import Callable, Iterator

import attrs
import lmdb

from triolet_core._conversations import Conversations
from triolet_core.model import SLOT_COUNT, ChannelInfo, ChannelKey, Conversation, DeviceToken, slot_of
from triolet_core.store import Store, _queries
from triolet_core.store import _keys as keys
from triolet_core.store import _records as records


@attrs.frozen(kw_only=True)
class ChannelRow:
    """A channel with its counts; times in seconds since 1970."""

    key: ChannelKey
    slot: int
    number: int
    info: ChannelInfo
    members: int
    denied: int
    allowed: int
    last_seq: int
    last_time: int
    created: int
    updated: int


@attrs.frozen(kw_only=True)
class DeviceRow:
    """What is stored for one device flag of a uid."""

    uid: str
    flag: int
    device: DeviceToken


@attrs.frozen(kw_only=True)
class ConversationRow:
    """A conversation and whose it is."""

    uid: str
    conversation: Conversation
    created: int


@attrs.frozen(kw_only=True)
class StoreSize:
    """The size of the file and what of it is in use, in bytes, and the number of rows."""

    file_bytes: int
    used_bytes: int
    rows: int


class Catalog:
    """Reads through the store."""

    def __init__(self, store: Store, conversations: Conversations) -> None:
        self._store = store
        self._conversations = conversations

    async def channels(self, accept: Callable[[ChannelRow], bool], *, most: int = 100_000) -> list[ChannelRow]:
        """Return the channels that `accept` takes, the newest first; it stops looking once it has `most`."""

        def look(txn: lmdb.Transaction) -> list[ChannelRow]:
            found = []
            for slot in range(SLOT_COUNT):
                for key, number in _queries.channels(txn, slot):
                    row = _channel_row(txn, slot, key, number)
                    if accept(row):
                        found.append(row)
                if len(found) >= most:
                    break
            found.sort(key=lambda row: (row.created, row.key), reverse=True)
            return found[:most]

        return await self._store.read_long(look)

    def channel(self, key: ChannelKey) -> ChannelRow | None:
        """Return one channel with its counts."""

        def look(txn: lmdb.Transaction) -> ChannelRow | None:
            record = _queries.channel_record(txn, key)
            return None if record is None else _channel_row(txn, slot_of(key.id), key, record.number)

        return self._store.read(look, key)

    async def devices(self, uid: str = "") -> list[DeviceRow]:
        """Return the devices that have a token stored, of one uid or of all, the newest first."""

        def look(txn: lmdb.Transaction) -> list[DeviceRow]:
            found = [DeviceRow(uid=name, flag=flag, device=device) for name, flag, device in _devices(txn, uid)]
            found.sort(key=lambda row: (row.device.created, row.uid, row.flag), reverse=True)
            return found

        return await self._store.read_long(look)

    async def conversations(self, uid: str) -> list[ConversationRow]:
        """Return the conversations of a user, those without messages too."""

        def look(txn: lmdb.Transaction) -> list[ConversationRow]:
            return [
                ConversationRow(
                    uid=uid, conversation=self._conversations.of_position(txn, uid, each), created=each.created
                )
                for each in _queries.positions(txn, uid)
            ]

        return await self._store.read_long(look)

    def channel_count(self, slot: int) -> int:
        """Return how many channels a slot has ever had."""
        return self._store.read_facts(lambda txn: _queries.last_number(txn, slot))

    def channel_counts(self) -> list[int]:
        """Return that of every slot."""
        return self._store.read_facts(lambda txn: [_queries.last_number(txn, slot) for slot in range(SLOT_COUNT)])

    def last_transaction(self) -> int:
        """Return the number of the last commit, which rises over restarts."""
        return int(self._store.env.info()["last_txnid"]) + self._store.backlog.number

    def size(self) -> StoreSize:
        """Return how large the store is."""
        info, stat = self._store.env.info(), self._store.env.stat()
        return StoreSize(
            file_bytes=(info["last_pgno"] + 1) * stat["psize"],
            used_bytes=(stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]) * stat["psize"],
            rows=stat["entries"],
        )


def _channel_row(txn: lmdb.Transaction, slot: int, key: ChannelKey, number: int) -> ChannelRow:
    record = _queries.channel_record(txn, key) or records.ChannelRecord(number=number, info=None)
    last = next(_queries.messages_back(txn, key, 2**63), None)
    members, denied, allowed = (
        _queries.count(txn, keys.numbered(slot, table, number)) for table in (keys.MEMBER, keys.DENIED, keys.ALLOWED)
    )
    return ChannelRow(
        key=key,
        slot=slot,
        number=number,
        info=record.info or ChannelInfo(),
        members=members,
        denied=denied,
        allowed=allowed,
        last_seq=_queries.last_seq(txn, slot, number),
        last_time=last.timestamp if last is not None else 0,
        created=record.created,
        updated=record.updated,
    )


def _devices(txn: lmdb.Transaction, uid: str) -> Iterator[tuple[str, int, DeviceToken]]:
    if uid:
        for raw, value in _queries.rows(txn, keys.devices(uid)):
            yield uid, raw[-1], records.decode_device(value)
        return
    for slot in range(SLOT_COUNT):
        for raw, value in _queries.rows(txn, keys.table(slot, keys.DEVICE)):
            name = records.device_uid(value)
            if name:
                yield name, raw[-1], records.decode_device(value)
