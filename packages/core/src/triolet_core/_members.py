"""Read positions of those who join and leave a channel, be it by a call or because a data source names them."""

from collections.abc import Iterable, Sequence

import cachetools
import lmdb
import trio

from triolet_core._facts import Facts, KnownFacts
from triolet_core.model import ChannelKey, ChannelType, slot_of
from triolet_core.store import Store, _queries
from triolet_core.store._records import Position
from triolet_core.store._sealer import Sealer
from triolet_core.store._tables import DropPosition, put_position

WITHOUT_RECENTS = frozenset({ChannelType.INFO, ChannelType.DATA, ChannelType.TEMP, ChannelType.LIVE})
"""Types whose channels never stand in a conversation list (semantics.md, section 1.1)."""
_OPENED_AT_ONCE = 1_000
"""Most positions written in one transaction for members that a data source named, so that messages pass between."""


class NamedMembers:
    """The members that a data source has named, as far as their positions have been seen to."""

    def __init__(self, store: Store, known: KnownFacts, *, cache_count: int) -> None:
        self._store = store
        self._known = known
        self._followed: cachetools.LRUCache[ChannelKey, frozenset[str]] = cachetools.LRUCache(cache_count)
        self._following: dict[ChannelKey, trio.Event] = {}

    async def follow(self, key: ChannelKey, facts: Facts) -> None:
        """Give those who are named the positions that added members get, and take them back from who is no longer.

        Waits for the commit, so it is called before a message is queued and never by its delivery, which the writer
        may be waiting for. One task does it per channel, the others wait for it. Who left is only known of those who
        were members since the start.
        """
        while facts.has_new_members:
            under_way = self._following.get(key)
            if under_way is not None:
                await under_way.wait()
                continue
            done = self._following[key] = trio.Event()
            try:
                if self._known.cached(key) is facts:  # else newer ones are, or will be, followed
                    await self._follow(key, facts.members)
                facts.has_new_members = False
            finally:
                del self._following[key]
                done.set()

    async def _follow(self, key: ChannelKey, members: frozenset[str]) -> None:
        before = self._followed.get(key, frozenset())
        if members == before or key.type in WITHOUT_RECENTS:
            return
        new = await self._store.read_long(lambda txn: _without_position(txn, key, members - before))
        for start in range(0, len(new), _OPENED_AT_ONCE):
            await self._open(key, new[start : start + _OPENED_AT_ONCE])
        gone = tuple(before - members)
        if gone:
            await self._store.writer.change(lambda sealer: drop_positions(sealer, key, gone))
        self._followed[key] = members

    async def _open(self, key: ChannelKey, uids: Sequence[str]) -> None:
        await self._store.writer.change(lambda sealer: open_positions(sealer, key, uids))


def open_positions(sealer: Sealer, key: ChannelKey, uids: Iterable[str]) -> None:
    """Give each uid without a position one that has read everything so far."""
    if key.type in WITHOUT_RECENTS:
        return
    seq = sealer.tail(key).seq
    for uid in uids:
        if _queries.position(sealer.txn, uid, key) is None:
            position = Position(channel=key, read_to=seq, created=sealer.now, updated=sealer.now)
            sealer.emit(put_position(uid, position))


def drop_positions(sealer: Sealer, key: ChannelKey, uids: Iterable[str]) -> None:
    """Remove the positions of uids."""
    for uid in uids:
        sealer.emit(DropPosition(slot_of(uid), uid, key))


def _without_position(txn: lmdb.Transaction, key: ChannelKey, uids: Iterable[str]) -> list[str]:
    return sorted(uid for uid in uids if _queries.position(txn, uid, key) is None)
