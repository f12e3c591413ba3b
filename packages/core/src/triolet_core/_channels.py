"""Channels: info, members, lists; what the permission and delivery of a message need to know of them.

What was read is kept in a bounded cache and dropped when it changes, so that a message in a busy channel reads
nothing. A change is visible to the next message as soon as its caller is answered.
"""

from collections.abc import Callable, Sequence

import attrs
import cachetools
import trio

from triolet_core._facts import Facts, read_all_facts, read_facts
from triolet_core.hooks import Hooks
from triolet_core.model import (
    ChannelInfo,
    ChannelKey,
    ChannelType,
    ReasonCode,
    ends_of,
    listed_channel,
    parent_of,
    slot_of,
)
from triolet_core.store import Store, _queries
from triolet_core.store import _keys as keys
from triolet_core.store._records import Position
from triolet_core.store._sealer import Sealer
from triolet_core.store._tables import (
    ChangeList,
    ChangeSystemUids,
    DropPosition,
    PutChannelInfo,
    WipeChannel,
    put_position,
)

WITHOUT_RECENTS = frozenset({ChannelType.INFO, ChannelType.DATA, ChannelType.TEMP, ChannelType.LIVE})
"""Types whose channels never stand in a conversation list (semantics.md, section 1.1)."""
_READ_ON_LOOP = 2_000
"""Longest list that is read on the loop (about 2 ms); longer ones are read in a thread."""


class Channels:
    """Reads and changes of channels, with the cache of facts."""

    def __init__(self, store: Store, hooks: Hooks, *, cache_count: int) -> None:
        self._store = store
        self._hooks = hooks
        self._facts: cachetools.LRUCache[ChannelKey, Facts] = cachetools.LRUCache(cache_count)
        self._temp: dict[ChannelKey, dict[str, int]] = {}
        self._loading: dict[ChannelKey, list[trio.Event]] = {}
        self._system: frozenset[str] | None = None

    # --- facts

    def cached(self, key: ChannelKey) -> Facts | None:
        """Return the facts of a channel if they are known, or can be read at once."""
        facts = self._facts.get(key)
        if facts is None and not self._is_asked(key):
            facts = self._store.read(lambda txn: read_facts(txn, key, _READ_ON_LOOP))
            if facts is not None:
                self._facts[key] = facts
        return facts

    async def facts(self, key: ChannelKey) -> Facts:
        """Return the facts of a channel; asks a data source if one has registered.

        Raises:
            BackendError: The data source failed and has no failure answer.
        """
        facts = self.cached(key)
        while facts is None:
            facts = await self._load(key)
        self._facts[key] = facts
        return facts

    async def _load(self, key: ChannelKey) -> Facts | None:
        """Read facts in a thread and ask about them; None if they changed meanwhile."""
        changed = trio.Event()
        loading = self._loading.setdefault(key, [])
        loading.append(changed)
        try:
            read = await self._store.read_long(lambda txn: read_all_facts(txn, key))
            facts = await self._ask(key, read)
        finally:
            loading.remove(changed)
            if not loading:
                self._loading.pop(key, None)
        return None if changed.is_set() else facts

    def _is_asked(self, key: ChannelKey) -> bool:
        hooks = self._hooks
        lists = hooks.denylist.is_answered or hooks.allowlist.is_answered
        return lists or (
            key.type != ChannelType.PERSON and (hooks.subscribers.is_answered or hooks.channel_info.is_answered)
        )

    async def _ask(self, key: ChannelKey, facts: Facts) -> Facts:
        if not self._is_asked(key):
            return facts
        info = None if key.type == ChannelType.PERSON else await self._hooks.channel_info.ask(key)
        members = None if key.type == ChannelType.PERSON else await self._hooks.subscribers.ask(key)
        denied = await self._hooks.denylist.ask(key)
        allowed = await self._hooks.allowlist.ask(key)
        return Facts(
            info=facts.info if info is None else info,
            exists=facts.exists or bool(members),
            members=facts.members if members is None else frozenset(members),
            denied=facts.denied if denied is None else frozenset(denied),
            allowed=facts.allowed if allowed is None else frozenset(allowed),
        )

    def forget(self, key: ChannelKey) -> None:
        """Drop what is known of a channel and tell who keeps copies."""
        for changed in self._loading.get(key, ()):
            changed.set()
        self._facts.pop(key, None)
        self._hooks.channel_changed.publish(key)

    async def members_and_guests(self, key: ChannelKey) -> frozenset[str]:
        """Return who belongs to a channel, temporary members included; a topic without own members has its parent's."""
        key = listed_channel(key)
        members = (await self.facts(key)).members
        if key.type == ChannelType.COMMUNITY_TOPIC and not members:
            members = (await self.facts(parent_of(key))).members
        guests = self._temp.get(key)
        return members | guests.keys() if guests else members

    async def recipients(self, key: ChannelKey) -> frozenset[str]:
        """Return the uids that a message of a channel goes to (semantics.md, section 1.1)."""
        plain = listed_channel(key)
        if plain.type in (ChannelType.PERSON, ChannelType.AGENT):
            return frozenset(ends_of(plain))
        uids = await self.members_and_guests(plain)
        if plain.type == ChannelType.VISITORS:
            return uids | {plain.id}
        if plain.type == ChannelType.CUSTOMER_SERVICE:
            return uids | {plain.id.partition("|")[0]}
        return uids

    # --- reading

    def info(self, key: ChannelKey) -> ChannelInfo | None:
        """Return the info of a channel, None if none was set."""
        record = self._store.read(lambda txn: _queries.channel_record(txn, key))
        return None if record is None else record.info

    def members(self, key: ChannelKey) -> list[str]:
        """Return the stored members."""
        return self._list(keys.MEMBER, key)

    def denied(self, key: ChannelKey) -> list[str]:
        """Return the denylist."""
        return self._list(keys.DENIED, key)

    def allowed(self, key: ChannelKey) -> list[str]:
        """Return the allowlist."""
        return self._list(keys.ALLOWED, key)

    def _list(self, table: int, key: ChannelKey) -> list[str]:
        return self._store.read(lambda txn: _queries.listed(txn, table, key)) or []

    # --- changing; each is one transaction

    async def _change(self, key: ChannelKey, function: Callable[[Sealer], None]) -> None:
        await self._store.writer.change(function, after=lambda: self.forget(key))

    async def put_info(self, key: ChannelKey, info: ChannelInfo) -> None:
        """Overwrite the info of a channel, which is made if need be."""
        await self._change(key, lambda sealer: _put_info(sealer, key, info))

    async def create(
        self, key: ChannelKey, info: ChannelInfo, members: Sequence[str] | None, *, replace: bool = False
    ) -> None:
        """Create or update a channel: its info is overwritten, members are added to it or take the place of others."""

        def function(sealer: Sealer) -> None:
            _put_info(sealer, key, info)
            if members is not None:
                _add_members(sealer, key, members, replace=replace)

        await self._change(key, function)

    async def add_members(self, key: ChannelKey, uids: Sequence[str], *, replace: bool = False) -> None:
        """Add members; each new one has read everything so far."""
        await self._change(key, lambda sealer: _add_members(sealer, key, uids, replace=replace))

    async def remove_members(self, key: ChannelKey, uids: Sequence[str]) -> None:
        """Remove members and their conversations of the channel."""

        def function(sealer: Sealer) -> None:
            tail = sealer.tail(key)
            sealer.emit(ChangeList(tail.slot, keys.MEMBER, tail.number, remove=tuple(uids)))
            _drop_positions(sealer, key, uids)

        await self._change(key, function)

    async def remove_all_members(self, key: ChannelKey) -> None:
        """Remove every member; conversations stay."""
        await self._clear(key, keys.MEMBER)

    async def add_denied(self, key: ChannelKey, uids: Sequence[str]) -> None:
        """Put uids on the denylist; their conversations of a group go."""
        await self._put_list(key, keys.DENIED, uids, clear=False)

    async def set_denied(self, key: ChannelKey, uids: Sequence[str]) -> None:
        """Replace the denylist."""
        await self._put_list(key, keys.DENIED, uids, clear=True)

    async def remove_denied(self, key: ChannelKey, uids: Sequence[str]) -> None:
        """Take uids off the denylist; a member gets his conversation back."""

        def function(sealer: Sealer) -> None:
            tail = sealer.tail(key)
            sealer.emit(ChangeList(tail.slot, keys.DENIED, tail.number, remove=tuple(uids)))
            back = [uid for uid in uids if _queries.is_listed(sealer.txn, keys.MEMBER, key, uid)]
            _open_positions(sealer, key, back)

        await self._change(key, function)

    async def remove_all_denied(self, key: ChannelKey) -> None:
        """Empty the denylist."""
        await self._clear(key, keys.DENIED)

    async def add_allowed(self, key: ChannelKey, uids: Sequence[str]) -> None:
        """Put uids on the allowlist."""
        await self._put_list(key, keys.ALLOWED, uids, clear=False)

    async def set_allowed(self, key: ChannelKey, uids: Sequence[str]) -> None:
        """Replace the allowlist."""
        await self._put_list(key, keys.ALLOWED, uids, clear=True)

    async def remove_allowed(self, key: ChannelKey, uids: Sequence[str]) -> None:
        """Take uids off the allowlist."""

        def function(sealer: Sealer) -> None:
            tail = sealer.tail(key)
            sealer.emit(ChangeList(tail.slot, keys.ALLOWED, tail.number, remove=tuple(uids)))

        await self._change(key, function)

    async def remove_all_allowed(self, key: ChannelKey) -> None:
        """Empty the allowlist."""
        await self._clear(key, keys.ALLOWED)

    async def _put_list(self, key: ChannelKey, table: int, uids: Sequence[str], *, clear: bool) -> None:
        def function(sealer: Sealer) -> None:
            tail = sealer.tail(key)
            sealer.emit(ChangeList(tail.slot, table, tail.number, add=tuple(uids), clear=clear))
            if table == keys.DENIED and key.type != ChannelType.PERSON:
                _drop_positions(sealer, key, uids)

        await self._change(key, function)

    async def _clear(self, key: ChannelKey, table: int) -> None:
        def function(sealer: Sealer) -> None:
            tail = sealer.tail(key)
            sealer.emit(ChangeList(tail.slot, table, tail.number, clear=True))

        await self._change(key, function)

    async def delete(self, key: ChannelKey) -> None:
        """Disband a channel and delete its members, lists and messages; its sequence counter stays."""

        def function(sealer: Sealer) -> None:
            record = _queries.channel_record(sealer.txn, key)
            if record is None:
                return
            tail = sealer.tail(key)
            uids = _queries.listed(sealer.txn, keys.MEMBER, key) or []
            _drop_positions(sealer, key, uids)
            sealer.emit(WipeChannel(tail.slot, tail.number, tail.seq))
            _put_info(sealer, key, attrs.evolve(record.info or ChannelInfo(), disband=True))

        await self._change(key, function)

    # --- temporary members, in memory

    def set_temp_members(self, key: ChannelKey, uids: Sequence[str]) -> None:
        """Replace the temporary members; they are gone after a restart."""
        if uids:
            self._temp[key] = dict.fromkeys(uids, 1)
        else:
            self._temp.pop(key, None)

    def add_temp_member(self, key: ChannelKey, uid: str) -> None:
        """Add a temporary member; each add wants its own remove."""
        guests = self._temp.setdefault(key, {})
        guests[uid] = guests.get(uid, 0) + 1

    def remove_temp_member(self, key: ChannelKey, uid: str) -> None:
        """Undo one add."""
        guests = self._temp.get(key)
        if guests is None or uid not in guests:
            return
        guests[uid] -= 1
        if not guests[uid]:
            del guests[uid]
        if not guests:
            del self._temp[key]

    def has_temp_members(self, key: ChannelKey) -> bool:
        """Whether a channel has temporary members."""
        return key in self._temp

    # --- system accounts

    async def load_system_uids(self) -> None:
        """Ask a data source, if there is one, and the store."""
        stored = self._store.read(_queries.system_uids)
        asked = await self._hooks.system_uids.ask(None) if self._hooks.system_uids.is_answered else None
        self._system = frozenset(stored) | frozenset(asked or ())

    def system_uids(self) -> list[str]:
        """Return the system accounts, sorted."""
        return sorted(self._system_set())

    def _system_set(self) -> frozenset[str]:
        if self._system is None:
            self._system = frozenset(self._store.read(_queries.system_uids))
        return self._system

    def is_system(self, uid: str) -> bool:
        """Whether a uid is a system account."""
        return uid in self._system_set()

    async def change_system_uids(self, add: Sequence[str], remove: Sequence[str]) -> None:
        """Add and remove system accounts."""
        operation = ChangeSystemUids(0, tuple(add), tuple(remove))

        def after() -> None:
            self._system = self._system_set() - frozenset(remove) | frozenset(add)

        await self._store.writer.change(lambda sealer: sealer.emit(operation), after=after)


def refusal_of(info: ChannelInfo | None) -> ReasonCode:
    """Return why nobody may write to a channel with this info, SUCCESS if nothing forbids it."""
    if info is not None and info.ban:
        return ReasonCode.BAN
    if info is not None and info.disband:
        return ReasonCode.DISBAND
    return ReasonCode.SUCCESS


def _put_info(sealer: Sealer, key: ChannelKey, info: ChannelInfo) -> None:
    tail = sealer.tail(key)
    record = _queries.channel_record(sealer.txn, key)
    created = sealer.now if record is None else record.created
    sealer.emit(PutChannelInfo(tail.slot, key, tail.number, info, created, sealer.now))


def _add_members(sealer: Sealer, key: ChannelKey, uids: Sequence[str], *, replace: bool) -> None:
    tail = sealer.tail(key)
    if replace:
        kept = set(uids)
        gone = [uid for uid in _queries.listed(sealer.txn, keys.MEMBER, key) or [] if uid not in kept]
        _drop_positions(sealer, key, gone)
    sealer.emit(ChangeList(tail.slot, keys.MEMBER, tail.number, add=tuple(uids), clear=replace))
    _open_positions(sealer, key, uids)


def _open_positions(sealer: Sealer, key: ChannelKey, uids: Sequence[str]) -> None:
    if key.type in WITHOUT_RECENTS:
        return
    seq = sealer.tail(key).seq
    for uid in uids:
        if _queries.position(sealer.txn, uid, key) is None:
            position = Position(channel=key, read_to=seq, created=sealer.now, updated=sealer.now)
            sealer.emit(put_position(uid, position))


def _drop_positions(sealer: Sealer, key: ChannelKey, uids: Sequence[str]) -> None:
    for uid in uids:
        sealer.emit(DropPosition(slot_of(uid), uid, key))
