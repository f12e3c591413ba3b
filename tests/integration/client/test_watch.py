"""`Client.watch` against a server, in memory, on a clock of the test's."""

from collections.abc import Sequence

import pytest
import trio

from triolet_client import Kicked, Reason, UserState, WatchReader, WatchRefused
from triolet_client.testing import ServerForTests
from triolet_core.model import ChannelKey


@pytest.fixture
def triolet_settings() -> Sequence[str]:
    return ("presence.watch=anybody",)


async def next_of(states: WatchReader, count: int = 1) -> list[tuple[str, bool]]:
    with trio.fail_after(1e6):
        found: list[UserState] = [await anext(states) for _ in range(count)]
    return [(state.uid, state.is_online) for state in found]


async def test_the_present_state_comes_first_then_each_change(
    triolet_server: ServerForTests, triolet_clock: object
) -> None:
    server = triolet_server
    async with server.open_client("ann") as ann:
        with ann.watch(["bob", "eve"]) as states:
            assert await next_of(states, 2) == [("bob", False), ("eve", False)]
            async with server.open_client("bob", device_flag=1):
                await server.advance(1)
                state = await anext(states)
                [device] = state.devices
                assert (state.uid, state.is_online) == ("bob", True)
                assert (device.device_flag, device.is_online, device.connections) == (1, True, 1)
                assert (device.since, device.last_seen) == (1_700_000_000, 0)
            await server.advance(1)
            state = await anext(states)
            assert not state.is_online
            assert state.devices[0].last_seen in (1_700_000_001, 1_700_000_002)  # when the server saw it


async def test_leaving_the_block_ends_what_nobody_else_reads(
    triolet_server: ServerForTests, triolet_clock: object
) -> None:
    subscriptions = triolet_server.broker.presence_subscriptions
    async with triolet_server.open_client("ann") as ann:
        with ann.watch(["bob"]) as outer:
            await next_of(outer)
            with ann.watch(["bob", "eve"]) as inner:
                await triolet_server.advance(1)
                assert await next_of(inner, 2) == [("bob", False), ("eve", False)]
            await ann.send("bob", "in the meantime")
            assert subscriptions.total == 1
        await ann.send("bob", "in the meantime")
        assert subscriptions.total == 0


async def test_it_goes_on_after_a_reconnect_and_repeats_nothing(
    triolet_server: ServerForTests, triolet_clock: object
) -> None:
    server = triolet_server
    async with server.open_client("ann") as ann, server.open_client("bob", device_id="b") as bob:
        with ann.watch(["ann", "bob", "eve"]) as states:
            assert await next_of(states, 3) == [("ann", True), ("bob", True), ("eve", False)]
            server.is_reachable = False
            await server.drop_connections()
            await server.advance(20)
            server.is_reachable = True
            await server.advance(60)
            await bob.wait_connected()
            await ann.wait_connected()
            async with server.open_client("eve"):
                await server.advance(5)
                seen = {}
                while "eve" not in seen:
                    seen |= dict(await next_of(states))
                assert seen["eve"]


async def test_a_refusal_is_an_error_that_names_the_users(
    triolet_server: ServerForTests, triolet_clock: object
) -> None:

    await triolet_server.broker.channels.add_denied(ChannelKey("bob", 1), ["ann"])
    async with triolet_server.open_client("ann") as ann:
        with ann.watch(["eve", "bob"]) as states, pytest.raises(WatchRefused) as refusal:
            await anext(states)
    assert (refusal.value.reason, refusal.value.uids) == (Reason.NOT_ALLOW_SEND, ("bob",))
    assert str(refusal.value) == "the server does not tell who is online: not allow send bob"


async def test_a_long_list_is_asked_for_in_parts(triolet_server: ServerForTests, triolet_clock: object) -> None:
    uids = [f"{number}".rjust(512, "x") for number in range(120)]
    async with triolet_server.open_client("ann") as ann:
        with ann.watch(uids) as states:
            found = await next_of(states, 50)
            while len(found) < 120:
                await triolet_server.advance(1)
                found += await next_of(states)
    assert found == [(uid, False) for uid in uids]


async def test_the_end_of_the_client_ends_the_iteration(triolet_server: ServerForTests, triolet_clock: object) -> None:
    async with triolet_server.open_client("ann") as ann:
        with ann.watch(["bob"]) as states:
            await next_of(states)
            reader = states
    assert [state async for state in reader] == []
    with ann.watch(["bob"]) as after:
        assert [state async for state in after] == []


async def test_who_is_put_out_learns_why(triolet_server: ServerForTests, triolet_clock: object) -> None:
    async with triolet_server.open_client("ann") as ann:
        with ann.watch(["bob"]) as states:
            await next_of(states)
            triolet_server.broker.presence.quit("ann", None, Reason.CONNECT_KICK, "out", 1)
            with pytest.raises(Kicked):
                await anext(states)
