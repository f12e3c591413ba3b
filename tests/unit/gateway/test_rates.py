"""Token buckets; the clock is the test's."""

from collections.abc import Callable
from typing import Any

import pytest
import trio

from triolet_core import Draft
from triolet_gateway import GatewayConfig
from triolet_gateway._rates import MOST_KEYS, Buckets, Rates


def message(channel_id: str = "c") -> Draft:
    return Draft(channel_id, 2, b"x", "n")


def rates(**settings: Any) -> tuple[Rates, Callable[[float], None]]:
    now = [0.0]

    def pass_time(seconds: float) -> None:
        now[0] += seconds

    return Rates(GatewayConfig(**settings), clock_s=lambda: now[0]), pass_time


async def send(limits: Rates, count: int, *, connection: int = 1, uid: str = "u", channel_id: str = "c") -> list[int]:
    """Send messages together; returns their refusals."""
    sends = [message(channel_id) for _ in range(count)]
    await limits.apply(connection, uid, sends)
    return [int(event.refusal) for event in sends]


async def test_a_connection_has_its_rate_and_its_burst() -> None:
    limits, pass_time = rates(rate_per_connection=2, rate_burst=2)
    assert await send(limits, 5) == [0, 0, 0, 0, 22]
    assert await send(limits, 1, connection=2) == [0]
    pass_time(0.5)
    assert await send(limits, 2) == [0, 22]
    pass_time(100)
    assert await send(limits, 5) == [0, 0, 0, 0, 22]
    assert limits.refused == 3


async def test_a_user_is_limited_over_all_connections() -> None:
    limits, _ = rates(rate_per_uid=1)
    assert await send(limits, 1, connection=1) == [0]
    assert await send(limits, 1, connection=2) == [22]
    assert await send(limits, 1, connection=3, uid="other") == [0]


async def test_a_channel_is_limited_over_all_senders() -> None:
    limits, _ = rates(rate_per_channel=1)
    assert await send(limits, 1, uid="a") == [0]
    assert await send(limits, 1, uid="b") == [22]
    assert await send(limits, 1, uid="b", channel_id="d") == [0]


async def test_what_one_limit_refuses_counts_for_no_other() -> None:
    limits, _ = rates(rate_per_uid=2, rate_per_channel=1)
    assert await send(limits, 3) == [0, 22, 22]
    assert await send(limits, 2, channel_id="d") == [0, 22]


async def test_the_profile_is_five_a_second_for_each_connection() -> None:
    """Source: 004_9bde18422623aa70.txt."""
    limits, _ = rates(rate_profile="rongcloud")
    assert await send(limits, 6) == [0] * 5 + [22]
    own, _ = rates(rate_profile="rongcloud", rate_per_connection=1)
    assert await send(own, 2) == [0, 22]


async def test_the_whole_server_makes_senders_wait_and_refuses_what_would_wait_too_long(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """semantics.md, section 8: the same key as LiMaoIM, back-pressure first."""
    limits = Rates(GatewayConfig(max_message_per_second=10))
    start = trio.current_time()
    assert await send(limits, 10) == [0] * 10
    assert trio.current_time() == start
    assert await send(limits, 5) == [0] * 5
    assert trio.current_time() == pytest.approx(start + 0.5)
    assert await send(limits, 30) == [0] * 10 + [22] * 20
    assert trio.current_time() == pytest.approx(start + 1.5)


async def test_a_message_that_is_refused_already_is_left_alone() -> None:
    limits, _ = rates(rate_per_uid=1)
    bad = message()
    bad.refusal = 9
    await limits.apply(1, "u", [bad])
    assert bad.refusal == 9
    assert await send(limits, 1) == [0]


def test_without_settings_nothing_is_limited() -> None:
    assert not rates()[0].are_on
    assert all(rates(**{name: 1})[0].are_on for name in ("rate_per_connection", "rate_per_uid", "rate_per_channel"))


def test_buckets_are_bounded() -> None:
    buckets = Buckets(1, 1)
    for key in range(MOST_KEYS + 10):
        buckets.take(key, 0)
    assert len(buckets) == MOST_KEYS
    assert buckets.tokens(0, 0) == 1
    assert buckets.tokens(MOST_KEYS, 0) == 0
