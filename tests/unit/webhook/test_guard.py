"""Which addresses a receiver may have."""

import socket
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.integration.test_webhook import serving
from triolet_core import PluginError
from triolet_webhook._guard import RESOLVED_FOR_S, AddressGuard, is_refused
from triolet_webhook._receiver import DeliveryFailed


@pytest.mark.parametrize(
    ("address", "refused"),
    [
        ("169.254.169.254", True),
        ("169.254.0.1", True),
        ("::ffff:169.254.169.254", True),
        ("64:ff9b::a9fe:a9fe", True),
        ("2002:a9fe:a9fe::1", True),
        ("fe80::1", True),
        ("fe80::1%eth0", True),
        ("fd00:ec2::254", True),
        ("100.100.100.200", True),
        ("0.0.0.0", True),
        ("::", True),
        ("224.0.0.1", True),
        ("127.0.0.1", False),
        ("::1", False),
        ("10.0.0.8", False),
        ("192.168.1.1", False),
        ("93.184.216.34", False),
        ("64:ff9b::5db8:d822", False),
    ],
)
def test_link_local_and_metadata_addresses_are_refused(address: str, *, refused: bool) -> None:
    assert is_refused(address) == refused


class Names(trio.abc.HostnameResolver):
    """Resolves every name to what it is told."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked = 0

    async def getaddrinfo(self, host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        self.asked += 1
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        kind = {False: socket.AF_INET, True: socket.AF_INET6}
        return [(kind[":" in each], socket.SOCK_STREAM, 6, "", (each, port)) for each in self.addresses]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


async def test_a_name_is_checked_by_what_it_resolves_to() -> None:
    trio.socket.set_custom_hostname_resolver(Names("169.254.169.254", "fe80::1"))
    with pytest.raises(DeliveryFailed, match=r"webhook\.allowLinkLocal"):
        await AddressGuard("innocent.example", 80).addresses()
    assert await AddressGuard("innocent.example", 80, allow_link_local=True).addresses() == (
        "169.254.169.254",
        "fe80::1",
    )


async def test_only_the_addresses_that_are_allowed_are_used() -> None:
    trio.socket.set_custom_hostname_resolver(Names("169.254.169.254", "10.0.0.1", "10.0.0.1"))
    assert await AddressGuard("mixed.example", 80).addresses() == ("10.0.0.1",)


async def test_an_unknown_name_is_a_failed_attempt() -> None:
    trio.socket.set_custom_hostname_resolver(Names())
    with pytest.raises(DeliveryFailed, match="cannot be resolved"):
        await AddressGuard("nowhere.example", 80).addresses()


async def test_a_name_is_resolved_again_after_a_while_and_after_a_failure(autojump_clock: object) -> None:
    names = Names("10.0.0.1")
    trio.socket.set_custom_hostname_resolver(names)
    guard = AddressGuard("moving.example", 80)
    await guard.addresses()
    await guard.addresses()
    assert names.asked == 1
    await trio.sleep(RESOLVED_FOR_S + 1)
    await guard.addresses()
    assert names.asked == 2
    guard.forget()
    await guard.addresses()
    assert names.asked == 3


@pytest.mark.parametrize(
    "settings",
    [
        {"http_addr": "http://169.254.169.254/latest"},
        {"http_addr": "http://[fe80::1]/"},
        {"grpc_addr": "169.254.169.254:80"},
        {"pre_send_url": "http://169.254.169.254/"},
        {"http_addr": "ftp://127.0.0.1/"},
        {"http_addr": "127.0.0.1:8080"},
        {"http_addr": "http://"},
        {"grpc_addr": "somewhere"},
    ],
)
async def test_an_address_that_cannot_be_used_ends_the_start(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(PluginError):
        async with serving(tmp_path, **settings):
            raise AssertionError
