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
        value = self._store.read(lambda txn: txn.get(keys.binding(uid)))
        return None if value is None else records.decode_binding(value)

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

        def function(sealer: Sealer) -> None:
            known = sealer.txn.get(keys.binding(uid))
            created = records.decode_binding(known).created if known is not None else sealer.now
            binding = PluginBinding(uid=uid, plugin_no=plugin_no, created=created, updated=sealer.now)
            value = records.encode_binding(binding) if plugin_no else None
            sealer.emit(PutRows(slot_of(uid), ((keys.binding(uid), value),)))

        await self._store.writer.change(function)

    async def unbind(self, uid: str, plugin_no: str = "") -> None:
        """Unbind a uid, from `plugin_no` only if that is given."""
        known = self.of(uid)
        if known is not None and plugin_no in ("", known.plugin_no):
            await self.bind(uid, "")
