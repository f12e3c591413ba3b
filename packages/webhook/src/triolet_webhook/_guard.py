"""Where a receiver may be: names are resolved here, checked, and the checked address is what is connected to."""

import ipaddress
import socket

import attrs
import trio

from triolet_webhook._receiver import DeliveryFailed

RESOLVED_FOR_S = 30.0
"""How long a resolved name counts; short enough to follow a receiver that moves."""

_METADATA = frozenset(
    map(ipaddress.ip_address, ("100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254", "fd20:ce::254"))
)
"""Where clouds tell machines their secrets, beside the link-local 169.254.169.254."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_refused(address: str) -> bool:
    """Whether an address is link-local, a cloud's metadata service, or no single host; also inside IPv6 forms."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            ip = inner
    return ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip in _METADATA


@attrs.define(eq=False)
class AddressGuard:
    """Resolves one receiver's name; at most `RESOLVED_FOR_S` old."""

    host: str
    port: int
    allow_link_local: bool = False
    _addresses: tuple[str, ...] = ()
    _resolved_at: float = 0.0

    async def addresses(self) -> tuple[str, ...]:
        """Return the addresses that may be connected to, at least one.

        Raises:
            DeliveryFailed: The name is unknown, or every address of it is refused.
        """
        now = trio.current_time()
        if not self._addresses or now - self._resolved_at > RESOLVED_FOR_S:
            self._addresses = await self._resolve()
            self._resolved_at = now
        return self._addresses

    def forget(self) -> None:
        """Resolve again next time: the receiver was not reached."""
        self._addresses = ()

    async def _resolve(self) -> tuple[str, ...]:
        try:
            found = await trio.socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as exc:
            raise DeliveryFailed(f"the name {self.host} cannot be resolved: {exc}") from exc
        addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
        allowed = addresses if self.allow_link_local else tuple(each for each in addresses if not is_refused(each))
        if not allowed:
            raise DeliveryFailed(
                f"{self.host} is at {', '.join(addresses)}, a link-local or metadata address; webhook.allowLinkLocal"
                " would allow it"
            )
        return allowed
