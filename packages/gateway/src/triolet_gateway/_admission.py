"""Who may connect: bounds on connections, blocked addresses, and whose word about others is taken."""

import ipaddress
from collections.abc import Sequence

from triolet_core import Broker, ConfigError
from triolet_gateway._config import GatewayConfig

UNIX = "unix"
"""The host of every peer on a Unix socket; `gateway.proxyFrom` may name it."""
Peer = tuple[str, int]
"""Host and port."""
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Proxies:
    """The peers that speak for others and may name them."""

    def __init__(self, config: GatewayConfig) -> None:
        self._networks = networks("gateway.proxyFrom", config.proxy_from)
        self._trusts_unix = UNIX in config.proxy_from

    def is_proxy(self, host: str) -> bool:
        """Whether a peer is one of them."""
        if not self._networks or host == UNIX:
            return host == UNIX and self._trusts_unix
        address = ipaddress.ip_address(host.partition("%")[0])
        return any(address in network for network in self._networks)


class Admission(Proxies):
    """Counts the connections that are open, from their first byte to the end of their socket."""

    def __init__(self, config: GatewayConfig, broker: Broker) -> None:
        super().__init__(config)
        self._config = config
        self._broker = broker
        self._by_host: dict[str, int] = {}
        self.count = 0

    def enter(self, host: str) -> bool:
        """Count a new connection in; False if it is one too many, or blocked."""
        total = self._config.max_connections
        if (total and self.count >= total) or not self._is_welcome(host):
            return False
        self.count += 1
        self._add(host)
        return True

    def move(self, host: str, client: str) -> bool:
        """Count a connection for the client that its proxy named; False, and nothing changed, if it is one too many."""
        if not self._is_welcome(client):
            return False
        self._remove(host)
        self._add(client)
        return True

    def leave(self, host: str) -> None:
        """Count a connection out."""
        self.count -= 1
        self._remove(host)

    def _is_welcome(self, host: str) -> bool:
        if host == UNIX or self.is_proxy(host):
            return True
        most = self._config.max_connections_per_address
        if most and self._by_host.get(host, 0) >= most:
            return False
        return not self._broker.addresses.is_blocked(host)

    def _add(self, host: str) -> None:
        if not (host == UNIX or self.is_proxy(host)):
            self._by_host[host] = self._by_host.get(host, 0) + 1

    def _remove(self, host: str) -> None:
        left = self._by_host.get(host, 0) - 1
        if left > 0:
            self._by_host[host] = left
        else:
            self._by_host.pop(host, None)


def networks(key: str, texts: Sequence[str]) -> tuple[Network, ...]:
    """Return addresses and networks, `unix` left out.

    Raises:
        ConfigError: One is neither.
    """
    try:
        return tuple(ipaddress.ip_network(text, strict=False) for text in texts if text != UNIX)
    except ValueError as exc:
        raise ConfigError(key, f"{exc}; write addresses, networks such as 10.0.0.0/8, or {UNIX}") from exc


def client_of(headers: Sequence[tuple[bytes, bytes]], proxies: Proxies) -> str | None:
    """Return the client that a trusted HTTP proxy names: the last address of the way that is no proxy of ours.

    Source: wire-protocol.md, section 1.1; X-Forwarded-For before X-Real-IP.
    """
    named: dict[bytes, bytes] = {}
    for name, value in headers:
        key = name.lower()
        named[key] = named[key] + b"," + value if key in named else value
    way = named.get(b"x-forwarded-for") or named.get(b"x-real-ip") or b""
    client = None
    for text in reversed(way.decode("latin-1").split(",")):
        try:
            client = str(ipaddress.ip_address(text.strip()))
        except ValueError:
            return client
        if not proxies.is_proxy(client):
            return client
    return client
