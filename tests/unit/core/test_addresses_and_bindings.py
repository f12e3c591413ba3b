"""Blocked addresses, and plugins that speak for a uid."""

from pathlib import Path

import pytest
import trio
import trio.testing

from triolet_core import PluginBinding
from triolet_core.testing import FakeClock, open_test_broker


@pytest.mark.parametrize(
    ("blocked", "peer", "expected"),
    [
        ("1.2.3.4", "1.2.3.4", True),
        ("1.2.3.4", "1.2.3.5", False),
        ("1.2.3.4", "::ffff:1.2.3.4", True),
        ("::ffff:1.2.3.4", "1.2.3.4", True),
        ("::ffff:102:304", "1.2.3.4", True),
        ("::1.2.3.4", "1.2.3.4", False),  # not a mapped one
        ("2001:DB8::1", "2001:db8:0:0:0:0:0:1", True),
        ("fe80::1", "fe80::1%eth0", True),
        ("fe80::1%1", "fe80::1%2", True),
        ("1.2.3.4", "", False),
        ("1.2.3.4", "/run/triolet.sock", False),
        ("1.2.3.4", "testclient", False),
    ],
)
async def test_an_address_is_blocked_in_each_of_its_spellings(
    tmp_path: Path, blocked: str, peer: str, expected: bool
) -> None:
    async with open_test_broker(tmp_path) as broker:
        assert not broker.addresses.is_blocked(peer)
        await broker.addresses.block([blocked])
        assert broker.addresses.is_blocked(peer) is expected


async def test_the_list_outlives_a_restart_and_is_in_one_spelling(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await broker.addresses.block(["::FFFF:10.0.0.1", "9.9.9.9", "10.0.0.1", "::1"])
    async with open_test_broker(tmp_path) as broker:
        assert broker.addresses.blocked() == ["10.0.0.1", "9.9.9.9", "::1"]
        await broker.addresses.unblock(["::ffff:9.9.9.9", "8.8.8.8"])
        assert not broker.addresses.is_blocked("9.9.9.9")
    async with open_test_broker(tmp_path) as broker:
        assert broker.addresses.blocked() == ["10.0.0.1", "::1"]


@pytest.mark.parametrize("address", ["", "1.2.3", "1.2.3.4.5", "example.org", "1.2.3.4/8", "01.2.3.4", "[::1]"])
async def test_what_is_no_address_changes_nothing(tmp_path: Path, address: str) -> None:
    async with open_test_broker(tmp_path) as broker:
        for change in (broker.addresses.block, broker.addresses.unblock):
            with pytest.raises(ValueError, match="does not appear to be"):
                await change(["1.1.1.1", address])
        assert broker.addresses.blocked() == []


async def test_a_cancelled_caller_leaves_memory_and_store_agreed(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(broker.addresses.block, ["1.1.1.1"])
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await broker.flush()
        assert broker.addresses.is_blocked("1.1.1.1")


async def test_a_uid_is_bound_to_one_plugin_and_keeps_the_day_it_first_was(tmp_path: Path) -> None:
    clock = FakeClock(1_700_000_000)
    async with open_test_broker(tmp_path, clock_s=clock) as broker:
        assert broker.bindings.of("u") is None
        await broker.bindings.bind("u", "bot")
        clock.move(10)
        await broker.bindings.bind("u", "agent")
        await broker.bindings.bind("v", "bot")
        bound = PluginBinding(uid="u", plugin_no="agent", created=1_700_000_000, updated=1_700_000_010)
        assert broker.bindings.of("u") == bound
    async with open_test_broker(tmp_path) as broker:
        assert broker.bindings.of("u") == bound
        assert [each.uid for each in await broker.bindings.all()] == ["u", "v"]
        assert await broker.bindings.all(plugin_no="agent") == [bound]
        assert await broker.bindings.all(plugin_no="none") == []


async def test_unbinding_from_another_plugin_changes_nothing(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await broker.bindings.bind("u", "bot")
        await broker.bindings.unbind("u", "agent")
        assert broker.bindings.of("u") is not None
        await broker.bindings.unbind("u", "bot")
        assert broker.bindings.of("u") is None
        await broker.bindings.unbind("u")
        await broker.bindings.bind("u", "bot")
        await broker.bindings.bind("u", "")
        assert broker.bindings.of("u") is None
        assert await broker.bindings.all() == []


async def test_long_uids_have_bindings_too(tmp_path: Path) -> None:
    uids = ["x" * 511, "x" * 512, "群" * 100]
    async with open_test_broker(tmp_path) as broker:
        for uid in uids:
            await broker.bindings.bind(uid, uid[:3])
        assert [each.uid for each in await broker.bindings.all()] == sorted(uids)
