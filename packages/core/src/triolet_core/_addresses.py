"""Addresses that may not connect and may not call."""

import ipaddress
from collections.abc import Sequence

from triolet_core.store import Store, _queries
from triolet_core.store import _keys as keys
from triolet_core.store._sealer import Sealer
from triolet_core.store._tables import PutRows


class Addresses:
    """The list of blocked addresses, kept in the store and in memory."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._blocked = frozenset(
            store.read_facts(lambda txn: [value.decode() for _, value in _queries.rows(txn, keys.addresses())])
        )

    def blocked(self) -> list[str]:
        """Return the list, sorted."""
        return sorted(self._blocked)

    def is_blocked(self, address: str) -> bool:
        """Whether a peer is turned away; one without an IP address (a Unix socket) never is."""
        try:
            return bool(self._blocked) and plain(address) in self._blocked
        except ValueError:
            return False

    async def block(self, addresses: Sequence[str]) -> None:
        """Turn addresses away from now on; connections that are open stay.

        Raises:
            ValueError: One is no address; nothing is changed.
        """
        await self._change({plain(each) for each in addresses}, set())

    async def unblock(self, addresses: Sequence[str]) -> None:
        """Let addresses in again."""
        await self._change(set(), {plain(each) for each in addresses})

    async def _change(self, add: set[str], remove: set[str]) -> None:
        def function(sealer: Sealer) -> None:
            rows: list[tuple[bytes, bytes | None]] = [(keys.addresses() + each.encode(), None) for each in remove]
            rows += [(keys.addresses() + each.encode(), each.encode()) for each in add]
            sealer.emit(PutRows(0, tuple(rows)))

        def after() -> None:
            self._blocked = self._blocked - remove | add

        await self._store.writer.change(function, after=after)


def plain(address: str) -> str:
    """Return an address in its one spelling; IPv4 in IPv6 clothes is IPv4.

    Raises:
        ValueError: It is no address.
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)
