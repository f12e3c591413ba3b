"""Which plugin (a bot, an agent) speaks for a uid."""

import lmdb

from triolet_core.model import SLOT_COUNT, PluginBinding, slot_of
from triolet_core.store import Store, _queries
from triolet_core.store import _keys as keys
from triolet_core.store import _records as records
from triolet_core.store._sealer import Sealer
from triolet_core.store._tables import PutRows


class Bindings:
    """Reads and changes of plugin bindings; a uid has one at most."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def of(self, uid: str) -> PluginBinding | None:
        """Return the binding of a uid."""
        return self._store.read_facts(lambda txn: _binding(txn, uid))

    async def all(self, *, plugin_no: str = "") -> list[PluginBinding]:
        """Return every binding, or those of one plugin, by uid."""

        def look(txn: lmdb.Transaction) -> list[PluginBinding]:
            return [
                records.decode_binding(value)
                for slot in range(SLOT_COUNT)
                for _, value in _queries.rows(txn, keys.bindings(slot))
            ]

        found = await self._store.read_long(look)
        return sorted(
            (each for each in found if not plugin_no or each.plugin_no == plugin_no), key=lambda each: each.uid
        )

    async def bind(self, uid: str, plugin_no: str) -> None:
        """Bind a uid to a plugin; an empty name unbinds it."""
        if not plugin_no:
            await self.unbind(uid)
            return

        def function(sealer: Sealer) -> None:
            known = _binding(sealer.txn, uid)
            created = sealer.now if known is None else known.created
            binding = PluginBinding(uid=uid, plugin_no=plugin_no, created=created, updated=sealer.now)
            _put(sealer, uid, records.encode_binding(binding))

        await self._store.writer.change(function)

    async def unbind(self, uid: str, plugin_no: str = "") -> None:
        """Unbind a uid, from `plugin_no` only if that is given."""

        def function(sealer: Sealer) -> None:
            known = _binding(sealer.txn, uid)
            if known is not None and plugin_no in ("", known.plugin_no):
                _put(sealer, uid, None)

        await self._store.writer.change(function)


def _binding(txn: lmdb.Transaction, uid: str) -> PluginBinding | None:
    value = txn.get(keys.binding(uid))
    return None if value is None else records.decode_binding(value)


def _put(sealer: Sealer, uid: str, value: bytes | None) -> None:
    sealer.emit(PutRows(slot_of(uid), ((keys.binding(uid), value),)))
