"""Channels: info, members, lists; what the permission and delivery of a message need to know of them.

What a message needs to know of its channel is kept in memory (`_facts`); each change drops it there.
"""

from collections.abc import Callable, Sequence

import attrs

from triolet_core._facts import Facts as Facts
from triolet_core._facts import KnownFacts
from triolet_core._members import NamedMembers, drop_positions, open_positions
from triolet_core.errors import BackendError
from triolet_core.hooks import Hooks
from triolet_core.model import (
    ChannelInfo,
    ChannelKey,
    ChannelType,
    ReasonCode,
    ends_of,
    listed_channel,
    parent_of,
)
from triolet_core.store import Store, _queries
from triolet_core.store import _keys as keys
from triolet_core.store._sealer import Sealer
from triolet_core.store._tables import (
    ChangeList,
    ChangeSystemUids,
    PutChannelInfo,
    WipeChannel,
)


class Channels:
    """Reads and changes of channels, with the cache of facts."""

    def __init__(
        self, store: Store, hooks: Hooks, *, cache_count: int, wiped: Callable[[], None] | None = None
    ) -> None:
        self._store = store
        self._wiped = wiped
        self._hooks = hooks
        self.known = KnownFacts(store, hooks, cache_count=cache_count)
        self.named = NamedMembers(store, self.known, cache_count=cache_count)
        self._temp: dict[ChannelKey, dict[str, int]] = {}
        self._system: frozenset[str] | None = None
        self._cached_system: frozenset[str] = frozenset()
        self._system_failure: BackendError | None = None

    # --- facts

    async def facts(self, key: ChannelKey) -> Facts:
        """Return the facts of a channel; asks a data source if one has registered.

        Raises:
            BackendError: The data source failed and has no failure answer.
        """
        return await self.known.get(key)

    def cached_channels(self) -> list[tuple[ChannelKey, Facts]]:
        """Return the channels whose facts are in memory."""
        return self.known.all()

    def forget(self, key: ChannelKey) -> None:
        """Drop what is known of a channel: the next message reads, and asks a data source, anew."""
        self.known.forget(key)

    def forget_all(self) -> None:
        """Drop what is known of every channel."""
        self.known.forget_all()

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
        record = self._store.read_facts(lambda txn: _queries.channel_record(txn, key))
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
        return self._store.read_facts(lambda txn: _queries.listed(txn, table, key)) or []

    # --- changing; each is one transaction

    async def _change(self, key: ChannelKey, function: Callable[[Sealer], None]) -> None:
        await self._store.writer.change(function, after=lambda: self._changed(key))

    def _changed(self, key: ChannelKey) -> None:
        """Drop what is known of a channel and tell who keeps copies."""
        self.forget(key)
        self._hooks.channel_changed.publish(key)

    async def put_info(self, key: ChannelKey, info: ChannelInfo) -> None:
        """Overwrite the info of a channel, which is made if need be."""
        await self.update(key, lambda _: info, None)

    async def create(
        self, key: ChannelKey, info: ChannelInfo, members: Sequence[str] | None, *, replace: bool = False
    ) -> None:
        """Create or update a channel: its info is overwritten, members are added to it or take the place of others."""
        await self.update(key, lambda _: info, members, replace=replace)

    async def update(
        self,
        key: ChannelKey,
        change: Callable[[ChannelInfo | None], ChannelInfo],
        members: Sequence[str] | None,
        *,
        replace: bool = False,
    ) -> None:
        """Change the info of a channel, which is made if need be, and its members, in one transaction."""

        def function(sealer: Sealer) -> None:
            record = _queries.channel_record(sealer.txn, key)
            _put_info(sealer, key, change(record.info if record is not None else None))
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
            drop_positions(sealer, key, uids)

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
            open_positions(sealer, key, back)

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
                drop_positions(sealer, key, uids)

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
            drop_positions(sealer, key, uids)
            sealer.emit(WipeChannel(tail.slot, tail.number, tail.seq))
            _put_info(sealer, key, attrs.evolve(record.info or ChannelInfo(), disband=True))

        def after() -> None:
            if self._wiped is not None:
                self._wiped()
            self.forget(key)

        await self._store.writer.change(function, after=after)

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
        """Ask a data source, if there is one, and read the store.

        Raises:
            BackendError: The data source failed and has no failure answer. Until this is called with success, who is
                not known to be a system account cannot be judged (`check_system_uids`).
        """
        try:
            asked = await self._hooks.system_uids.ask(None)
        except BackendError as exc:
            self._system_failure = exc
            self.known.outdate()
            raise
        self._system_failure = None
        stored = self._store.read_facts(_queries.system_uids)
        self._system = frozenset(stored) | frozenset(asked or ()) | self._cached_system
        self.known.outdate()

    def check_system_uids(self) -> None:
        """Raise the `BackendError` of the last `load_system_uids`, if it failed."""
        if self._system_failure is not None:
            raise BackendError(self._system_failure.responder, self._system_failure.detail)

    def system_uids(self) -> list[str]:
        """Return the system accounts that are kept, sorted."""
        return sorted(self._system_set() - self._cached_system)

    def cache_system_uids(self, add: Sequence[str], remove: Sequence[str]) -> None:
        """Add and remove system accounts until the next start, without keeping or listing them."""
        known = self._system_set()
        self._cached_system = self._cached_system - frozenset(remove) | (frozenset(add) - known)
        self._system = known - frozenset(remove) | frozenset(add)
        self.known.outdate()

    def _system_set(self) -> frozenset[str]:
        if self._system is None:
            self._system = frozenset(self._store.read_facts(_queries.system_uids))
        return self._system

    def is_system(self, uid: str) -> bool:
        """Whether a uid is a system account."""
        return uid in self._system_set()

    async def change_system_uids(self, add: Sequence[str], remove: Sequence[str]) -> None:
        """Add and remove system accounts."""
        operation = ChangeSystemUids(0, tuple(add), tuple(remove))

        def after() -> None:
            self._system = self._system_set() - frozenset(remove) | frozenset(add)
            self._cached_system -= frozenset(add) | frozenset(remove)
            self.known.outdate()

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
        drop_positions(sealer, key, gone)
    sealer.emit(ChangeList(tail.slot, keys.MEMBER, tail.number, add=tuple(uids), clear=replace))
    open_positions(sealer, key, uids)
