"""How long answers of a data source are used, and what counts when there is none. Time is virtual."""

import json
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.business import ANN, PAUSE_S, TEAM, TTL_S, Asked, Clock, http, open_both, send, until
from triolet_core import ChannelInfo, ChannelKey, Device, ReasonCode


async def test_an_answer_is_asked_for_again_when_it_is_too_old(tmp_path: Path, mock_clock: Clock) -> None:
    async with open_both(tmp_path) as (server, business):
        assert await send(server) == ReasonCode.SUCCESS
        business.set("getSubscribers", ["bob"])
        mock_clock.jump(TTL_S - 1)
        await trio.testing.wait_all_tasks_blocked()
        assert await send(server) == ReasonCode.SUCCESS
        assert business.count("getSubscribers") == 1
        mock_clock.jump(1)
        await trio.testing.wait_all_tasks_blocked()
        assert await send(server) == ReasonCode.SUBSCRIBER_NOT_EXIST
        assert business.count("getSubscribers") == 2


async def test_a_hundred_senders_cost_one_request(tmp_path: Path, mock_clock: Clock) -> None:
    """Single flight, and one that gives up costs the others nothing."""
    release = trio.Event()

    async def when_released(asked: Asked, stream: trio.abc.Stream) -> None:
        await release.wait()
        await stream.send_all(http(json.dumps([f"u{n}" for n in range(100)]).encode()))

    async with open_both(tmp_path) as (server, business), trio.open_nursery() as nursery:
        business.set("getSubscribers", when_released)
        reasons: list[int] = []
        first = trio.CancelScope()

        async def say(sender: Device, scope: trio.CancelScope) -> None:
            with scope:
                reasons.append(await send(server, sender))

        nursery.start_soon(say, Device(uid="u0"), first)
        await business.wait_asked("getSubscribers")
        for n in range(1, 100):
            nursery.start_soon(say, Device(uid=f"u{n}"), trio.CancelScope())
        await trio.testing.wait_all_tasks_blocked()
        first.cancel()
        await trio.testing.wait_all_tasks_blocked()
        release.set()
        await until(lambda: len(reasons) == 99)
        assert set(reasons) == {ReasonCode.SUCCESS}
        assert [business.count(what) for what in ("getSubscribers", "getBlacklist", "getWhitelist")] == [1, 1, 1]


async def test_what_is_pushed_out_of_the_cache_is_asked_for_again(tmp_path: Path, mock_clock: Clock) -> None:
    """`datasource.cacheEntries` bounds what core concludes from answers, too."""
    async with open_both(tmp_path, cache_entries=12) as (server, business):
        for group in ("g1", "g2", "g3", "g1"):
            assert await send(server, to=group) == ReasonCode.SUCCESS
        asked = [each.about["channel_id"] for each in business.asked if each.what == "getSubscribers"]
        assert asked == ["g1", "g2", "g3", "g1"]
        assert server.broker.metrics.values()["datasource_kept_weight"] <= 12


@pytest.mark.parametrize("which", [("team", 2), ("team", None), (None, None)])
async def test_invalidated_answers_are_asked_for_again(
    tmp_path: Path, mock_clock: Clock, which: tuple[str | None, int | None]
) -> None:
    async with open_both(tmp_path) as (server, business):
        assert await send(server) == ReasonCode.SUCCESS
        business.set("getSubscribers", ["bob"])
        server.broker.services["datasource"].invalidate(*which)
        assert await send(server) == ReasonCode.SUBSCRIBER_NOT_EXIST


async def test_invalidating_one_channel_leaves_the_others(tmp_path: Path, mock_clock: Clock) -> None:
    async with open_both(tmp_path) as (server, business):
        assert await send(server) == ReasonCode.SUCCESS
        server.broker.services["datasource"].invalidate("other", None)
        server.broker.services["datasource"].invalidate("team", 3)
        assert await send(server) == ReasonCode.SUCCESS
        assert business.count("getSubscribers") == 1


async def test_invalidating_everything_asks_for_system_accounts_at_once(tmp_path: Path, mock_clock: Clock) -> None:
    async with open_both(tmp_path) as (server, business):
        business.set("getSystemUIDs", ["robot"])
        server.broker.services["datasource"].invalidate(None, None)
        await business.wait_asked("getSystemUIDs", 2)
        await until(lambda: server.broker.users.system_uids() == ["robot"])


async def test_an_answer_under_way_when_it_is_invalidated_is_not_kept(tmp_path: Path, mock_clock: Clock) -> None:
    release = trio.Event()

    async def old_when_released(asked: Asked, stream: trio.abc.Stream) -> None:
        await release.wait()
        await stream.send_all(http(b'["ann"]'))

    async with open_both(tmp_path) as (server, business), trio.open_nursery() as nursery:
        business.set("getSubscribers", old_when_released)
        reasons: list[int] = []

        async def say() -> None:
            reasons.append(await send(server))

        nursery.start_soon(say)
        await business.wait_asked("getSubscribers")
        business.set("getSubscribers", ["bob"])
        server.broker.services["datasource"].invalidate("team", 2)
        release.set()
        await business.wait_asked("getSubscribers", 2)
        await until(lambda: bool(reasons))
        assert reasons == [ReasonCode.SUBSCRIBER_NOT_EXIST]


async def test_a_change_over_the_api_asks_again(tmp_path: Path, mock_clock: Clock) -> None:
    async with open_both(tmp_path) as (server, business):
        assert await send(server) == ReasonCode.SUCCESS
        business.set("getSubscribers", ["bob"])
        await server.broker.channels.remove_members(TEAM, ["ann"])
        await trio.testing.wait_all_tasks_blocked()
        assert await send(server) == ReasonCode.SUBSCRIBER_NOT_EXIST


# --- failure answers and the breaker

LISTS = {"subscribers": "getSubscribers", "denylist": "getBlacklist", "allowlist": "getWhitelist"}


@pytest.mark.parametrize("question", LISTS)
@pytest.mark.parametrize(
    ("choice", "known", "unknown"),
    [
        ("refuse", ReasonCode.SYSTEM_ERROR, ReasonCode.SYSTEM_ERROR),
        ("last", ReasonCode.SUCCESS, ReasonCode.SYSTEM_ERROR),
        ("pass", ReasonCode.SUCCESS, ReasonCode.SUCCESS),
    ],
)
async def test_the_failure_answer_of_each_list_is_a_setting(
    tmp_path: Path, mock_clock: Clock, question: str, choice: str, known: int, unknown: int
) -> None:
    """For a group that was known before the failure and one that was not; ann is a stored member of both."""
    async with open_both(tmp_path, **{f"on_failure_{question}": choice}) as (server, business):
        for group in ("team", "new"):
            await server.broker.channels.create(ChannelKey(group, 2), ChannelInfo(), ["ann"])
        await trio.testing.wait_all_tasks_blocked()
        assert await send(server) == ReasonCode.SUCCESS
        business.set(LISTS[question], http(b"", status="500 Oops"))
        mock_clock.jump(TTL_S)
        await trio.testing.wait_all_tasks_blocked()
        assert (await send(server), await send(server, to="new")) == (known, unknown)


async def test_a_failure_answer_is_used_only_until_the_next_try(tmp_path: Path, mock_clock: Clock) -> None:
    async with open_both(tmp_path) as (server, business):
        assert await send(server) == ReasonCode.SUCCESS
        business.set("getSubscribers", http(b"", status="500 Oops"))
        mock_clock.jump(TTL_S)
        await trio.testing.wait_all_tasks_blocked()
        assert [await send(server), await send(server)] == [ReasonCode.SUCCESS] * 2
        assert business.count("getSubscribers") == 2
        business.set("getSubscribers", ["bob"])
        mock_clock.jump(PAUSE_S)
        await trio.testing.wait_all_tasks_blocked()
        assert await send(server) == ReasonCode.SUBSCRIBER_NOT_EXIST


async def test_after_failures_in_a_row_nobody_is_asked_for_a_while(tmp_path: Path, mock_clock: Clock) -> None:
    """Closed, open, half open and open again, half open and closed."""
    async with open_both(tmp_path, breaker_failures=3) as (server, business):
        business.set("getSubscribers", http(b"", status="500 Oops"))
        for n in range(6):
            assert await send(server, to=f"g{n}") == ReasonCode.SYSTEM_ERROR
        assert business.count("getSubscribers") == 3
        mock_clock.jump(PAUSE_S)
        for n in range(3):
            assert await send(server, to=f"g{n}") == ReasonCode.SYSTEM_ERROR
        assert business.count("getSubscribers") == 4
        assert server.broker.metrics.values()["datasource_breaker_is_open"] == 1
        business.set("getSubscribers", ["ann"])
        assert await send(server) == ReasonCode.SYSTEM_ERROR
        mock_clock.jump(PAUSE_S)
        assert await send(server) == ReasonCode.SUCCESS
        assert server.broker.metrics.values()["datasource_breaker_is_open"] == 0


async def test_no_more_requests_than_allowed_are_under_way(tmp_path: Path, mock_clock: Clock) -> None:
    under_way, most, releases = 0, 0, trio.Semaphore(0)

    async def when_released(asked: Asked, stream: trio.abc.Stream) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await releases.acquire()
        under_way -= 1
        await stream.send_all(http(b'["ann"]'))

    async with open_both(tmp_path, max_concurrent=3) as (server, business):
        business.set("getSubscribers", when_released)
        async with trio.open_nursery() as nursery:
            for n in range(20):
                nursery.start_soon(send, server, ANN, f"g{n}")
            await business.wait_asked("getSubscribers", 3)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(20):
                releases.release()
        assert most == 3
        assert business.count("getSubscribers") == 20
