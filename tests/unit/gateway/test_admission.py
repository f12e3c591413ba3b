"""Whose word about clients is taken, and how many may come."""

from pathlib import Path
from typing import Any

import pytest

from triolet_core import ConfigError
from triolet_core.testing import open_test_broker
from triolet_gateway import GatewayConfig
from triolet_gateway._admission import Admission, client_of, networks


async def admission(path: Path, **settings: Any) -> Admission:
    async with open_test_broker(path) as broker:
        return Admission(GatewayConfig(**settings), broker)


async def test_the_client_is_the_last_of_the_way_that_is_no_proxy_of_ours(tmp_path: Path) -> None:
    """Whoever is before it may say what it likes."""
    door = await admission(tmp_path, proxy_from=("10.0.0.0/8", "::1"))
    for way, client in (
        (b"1.2.3.4", "1.2.3.4"),
        (b"6.6.6.6, 1.2.3.4, 10.0.0.1", "1.2.3.4"),
        (b"10.0.0.2,10.0.0.1", "10.0.0.2"),
        (b"evil, 10.0.0.1", "10.0.0.1"),
        (b"evil", None),
        (b"", None),
    ):
        assert client_of([(b"X-Forwarded-For", way)], door) == client
    assert client_of([(b"x-real-ip", b"1.2.3.4")], door) == "1.2.3.4"
    assert client_of([(b"X-Forwarded-For", b"6.6.6.6"), (b"x-forwarded-for", b"1.2.3.4")], door) == "1.2.3.4"


async def test_proxies_and_unix_sockets_are_not_counted_by_address(tmp_path: Path) -> None:
    door = await admission(tmp_path, proxy_from=("10.0.0.0/8", "unix"), max_connections_per_address=1)
    assert [door.enter(host) for host in ("10.0.0.1", "10.0.0.1", "unix", "unix")] == [True] * 4
    assert door.is_proxy("unix")
    assert door.move("10.0.0.1", "1.2.3.4")
    assert not door.move("10.0.0.1", "1.2.3.4")
    assert not door.enter("1.2.3.4")
    door.leave("1.2.3.4")
    assert door.enter("1.2.3.4")
    assert door.count == 4


async def test_the_total_counts_everything(tmp_path: Path) -> None:
    door = await admission(tmp_path, max_connections=2)
    assert [door.enter(f"1.2.3.{n}") for n in range(3)] == [True, True, False]
    door.leave("1.2.3.0")
    assert door.enter("1.2.3.9")
    assert not door.is_proxy("unix")


async def test_a_blocked_address_is_turned_away_also_behind_a_proxy(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        door = Admission(GatewayConfig(proxy_from=("10.0.0.1",)), broker)
        await broker.addresses.block(["1.2.3.4"])
        assert not door.enter("1.2.3.4")
        assert door.enter("10.0.0.1")
        assert not door.move("10.0.0.1", "1.2.3.4")
        assert door.count == 1


def test_a_wrong_network_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"gateway\.proxyFrom"):
        networks("gateway.proxyFrom", ["10.0.0.1", "balancer.example"])
