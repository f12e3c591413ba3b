"""What the permission and delivery of a message need to know of a channel.

Facts come from the store, and from a data source where one has registered; they are kept in a bounded cache, so that
a message in a busy channel reads nothing, and dropped when they change. A change is visible to the next message as
soon as its caller is answered. How long the answers of a data source may be kept is its own business: it calls
`forget` when they are too old.
"""

import attrs
import lmdb
import trio

from triolet_core._recent import Recent
from triolet_core.hooks import Hooks
from triolet_core.model import ChannelInfo, ChannelKey, ChannelType
from triolet_core.store import Store, _queries
from triolet_core.store import _keys as keys

_READ_ON_LOOP = 2_000
"""Longest list that is read on the loop (about 2 ms); longer ones are read in a thread."""
_MOST_LOADS = 3
"""How often facts that change while they are loaded are loaded again before they are used without being kept."""


@attrs.define(eq=False)
class Facts:
    """What is known of one channel."""

    info: ChannelInfo | None
    exists: bool
    members: frozenset[str]
    denied: frozenset[str]
    allowed: frozenset[str]
    has_new_members: bool = False
    """Whether a data source named the members and `NamedMembers.follow` has not seen them yet."""


class KnownFacts:
    """The cache of facts, and how they are found."""

    def __init__(self, store: Store, hooks: Hooks, *, cache_count: int) -> None:
        self._store = store
        self._hooks = hooks
        self._facts: Recent[ChannelKey, Facts] = Recent(cache_count)
        self._infos: Recent[str, ChannelInfo | None] = Recent(cache_count)
        self._loading: dict[ChannelKey, list[trio.Event]] = {}
        self.revision = 0
        """Rises with every change of what decides about messages, of any channel."""

    def cached(self, key: ChannelKey) -> Facts | None:
        """Return the facts of a channel if they are known, or can be read at once."""
        facts = self._facts.find(key)
        if facts is None and not self._is_asked(key):
            facts = self._store.read_facts(lambda txn: _read_facts(txn, key, _READ_ON_LOOP))
            if facts is not None:
                self._facts.keep(key, facts)
        return facts

    def all(self) -> list[tuple[ChannelKey, Facts]]:
        """Return every channel whose facts are in memory."""
        return list(self._facts.items())

    async def get(self, key: ChannelKey) -> Facts:
        """Return the facts of a channel; asks a data source if one has registered.

        Facts that keep changing while they are loaded are returned as they were loaded last, and not kept.

        Raises:
            BackendError: The data source failed and has no failure answer.
        """
        facts = self.cached(key)
        if facts is not None:
            return facts
        for _ in range(_MOST_LOADS):
            facts, is_current = await self._load(key)
            if is_current:
                self._facts.keep(key, facts)
                break
        assert facts is not None  # noqa: S101  # the loop runs at least once
        return facts

    async def _load(self, key: ChannelKey) -> tuple[Facts, bool]:
        """Read facts in a thread and ask about them; False if they changed meanwhile."""
        changed = trio.Event()
        loading = self._loading.setdefault(key, [])
        loading.append(changed)
        try:
            read = await self._store.read_long(lambda txn: _read_all_facts(txn, key))
            facts = await self._ask(key, read)
        finally:
            loading.remove(changed)
            if not loading:
                self._loading.pop(key, None)
        return facts, not changed.is_set()

    def _is_asked(self, key: ChannelKey) -> bool:
        """Whether a data source is asked: about a person under the uid only, never about the channel of two."""
        hooks = self._hooks
        lists = hooks.denylist.is_answered or hooks.allowlist.is_answered
        if key.type == ChannelType.PERSON:
            return lists and "@" not in key.id
        return lists or hooks.subscribers.is_answered or hooks.channel_info.is_answered

    async def _ask(self, key: ChannelKey, facts: Facts) -> Facts:
        """Put a data source's answers in the place of what was read (order: semantics.md, section 6.1)."""
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
            has_new_members=members is not None,
        )

    async def info_in_force(self, key: ChannelKey) -> ChannelInfo | None:
        """Return the info that decides about a channel; a data source is asked for that alone.

        Raises:
            BackendError: The data source failed and has no failure answer.
        """
        facts = self._facts.find(key)
        if facts is not None:
            return facts.info
        if key.type != ChannelType.PERSON and self._hooks.channel_info.is_answered:
            asked = await self._hooks.channel_info.ask(key)
            if asked is not None:
                return asked
        return self._store.read_facts(lambda txn: _read_info(txn, key))

    def person_info(self, uid: str) -> ChannelInfo | None:
        """Return the info of a person's own channel, which only the store knows: nobody is asked."""
        if uid in self._infos:
            self._infos.move_to_end(uid)
            return self._infos[uid]
        key = ChannelKey(uid, ChannelType.PERSON)
        info = self._store.read_facts(lambda txn: _read_info(txn, key))
        self._infos.keep(uid, info)
        return info

    def outdate(self) -> None:
        """Let everything be decided anew: something that decisions depend on has changed."""
        self.revision += 1

    def forget(self, key: ChannelKey) -> None:
        """Drop what is known of a channel; what is being loaded is loaded again."""
        self.outdate()
        for changed in self._loading.get(key, ()):
            changed.set()
        self._facts.pop(key, None)
        if key.type == ChannelType.PERSON:
            self._infos.pop(key.id, None)

    def forget_all(self) -> None:
        """Drop what is known of every channel."""
        self.outdate()
        for loading in self._loading.values():
            for changed in loading:
                changed.set()
        self._facts.clear()
        self._infos.clear()


def _read_info(txn: lmdb.Transaction, key: ChannelKey) -> ChannelInfo | None:
    record = _queries.channel_record(txn, key)
    return None if record is None else record.info


def _read_facts(txn: lmdb.Transaction, key: ChannelKey, limit: int | None) -> Facts | None:
    record = _queries.channel_record(txn, key)
    if record is None:
        return Facts(None, False, frozenset(), frozenset(), frozenset())  # noqa: FBT003  # positional by field
    tables = (keys.MEMBER, keys.DENIED, keys.ALLOWED)
    members, denied, allowed = (_queries.listed(txn, table, key, limit) for table in tables)
    if members is None or denied is None or allowed is None:
        return None
    return Facts(record.info, True, frozenset(members), frozenset(denied), frozenset(allowed))  # noqa: FBT003


def _read_all_facts(txn: lmdb.Transaction, key: ChannelKey) -> Facts:
    facts = _read_facts(txn, key, None)
    if facts is None:
        raise RuntimeError("a list without a limit was cut")
    return facts
