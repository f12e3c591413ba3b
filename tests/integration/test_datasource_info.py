"""Channel and user info of a data source, and the example that answers everything. Time is virtual."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.business import ANN, BOB, BOT, TEAM, TTL_S, Asked, Business, Clock, http, open_both, send
from triolet_core import ChannelInfo, Device, ReasonCode


def channel_info(**fields: Any) -> dict[str, Any]:
    return {"channel_id": "team", "channel_type": 2, "name": "The team", **fields}


async def test_channel_info_by_get_decides_with_what_it_names(tmp_path: Path, mock_clock: Clock) -> None:
    """Seed 001; a flag that is not named stays as the API has set it."""
    async with open_both(tmp_path, channel_info_on=True) as (server, business):
        business.set("/datasource/channel/info", channel_info())
        assert await send(server) == ReasonCode.SUCCESS
        assert Asked("/datasource/channel/info", {"channel_id": "team", "channel_type": "2"}) in business.asked
        await server.broker.channels.put_info(TEAM, ChannelInfo(ban=True))
        await trio.testing.wait_all_tasks_blocked()
        assert await send(server) == ReasonCode.BAN
        business.set("/datasource/channel/info", channel_info(ban=0, disband=True))
        server.broker.services["datasource"].invalidate("team", 2)
        assert await send(server) == ReasonCode.DISBAND
        assert await send(server, BOT) == ReasonCode.DISBAND


async def test_channel_info_by_post_is_asked_first(tmp_path: Path, mock_clock: Clock) -> None:
    """WuKongIM 1.2.6: getChannelInfo answers the flags, one that is left out is 0."""
    async with open_both(tmp_path, channel_info_on=True, profile="wukongim-1") as (server, business):
        business.set("getChannelInfo", {"ban": 1})
        assert await send(server) == ReasonCode.BAN
        assert [each.what for each in business.asked[1:3]] == ["getChannelInfo", "getSubscribers"]
        business.set("getChannelInfo", {})
        server.broker.services["datasource"].invalidate("team", 2)
        assert await send(server) == ReasonCode.SUCCESS


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (http(b"", status="404 Not Found"), ReasonCode.SUCCESS),
        (None, ReasonCode.SUCCESS),
        (http(b"", status="500 Oops"), ReasonCode.SYSTEM_ERROR),
        ([], ReasonCode.SYSTEM_ERROR),
        (channel_info(channel_id="other"), ReasonCode.SYSTEM_ERROR),
        (channel_info(channel_type=3), ReasonCode.SYSTEM_ERROR),
        (channel_info(ban="yes"), ReasonCode.SYSTEM_ERROR),
        (channel_info(name=7), ReasonCode.SYSTEM_ERROR),
    ],
)
async def test_what_a_sender_sees_of_channel_info(tmp_path: Path, mock_clock: Clock, reply: Any, reason: int) -> None:
    """Not found and null leave the stored info in force."""
    async with open_both(tmp_path, channel_info_on=True) as (server, business):
        business.set("/datasource/channel/info", reply)
        assert await send(server) == reason


@pytest.mark.parametrize(
    ("choice", "reason"), [("refuse", ReasonCode.SYSTEM_ERROR), ("last", ReasonCode.BAN), ("pass", ReasonCode.SUCCESS)]
)
async def test_the_failure_answer_of_channel_info_is_a_setting(
    tmp_path: Path, mock_clock: Clock, choice: str, reason: int
) -> None:
    settings = {"channel_info_on": True, "on_failure_channel_info": choice}
    async with open_both(tmp_path, **settings) as (server, business):
        business.set("/datasource/channel/info", channel_info(ban=1))
        assert await send(server) == ReasonCode.BAN
        business.set("/datasource/channel/info", http(b"", status="500 Oops"))
        mock_clock.jump(TTL_S)
        await trio.testing.wait_all_tasks_blocked()
        assert await send(server) == reason
        assert await send(server, BOT) == reason


async def test_user_info_is_asked_for_and_kept(tmp_path: Path, mock_clock: Clock) -> None:
    """Seed 001: uid, name and avatar, and perhaps remark and extra."""
    async with open_both(tmp_path, user_info_on=True) as (server, business):
        ann = {"uid": "ann", "name": "Ann", "avatar": "http://h/a.png", "extra": {"level": 3}}
        business.set("/datasource/user/info", ann)
        for _ in range(2):
            info = await server.broker.users.info("ann")
            assert info is not None
            assert (info.uid, info.name, info.avatar, info.remark) == ("ann", "Ann", "http://h/a.png", "")
            assert json.loads(info.extra) == {"level": 3}
        assert [each for each in business.asked if "uid" in each.about] == [
            Asked("/datasource/user/info", {"uid": "ann"})
        ]
        business.set("/datasource/user/info", {**ann, "name": "Anna"})
        server.broker.services["datasource"].invalidate("ann", None)
        assert (await server.broker.users.info("ann")).name == "Anna"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "reply", [http(b"", status="404 Not Found"), http(b"", status="500 Oops"), None, [], {"uid": "bob"}, {"name": 1}]
)
async def test_a_user_that_nobody_knows_has_no_info(tmp_path: Path, mock_clock: Clock, reply: Any) -> None:
    """A failure is a field left out, never an error (semantics.md, section 6.2)."""
    async with open_both(tmp_path, user_info_on=True) as (server, business):
        business.set("/datasource/user/info", reply)
        assert await server.broker.users.info("ann") is None


async def test_nothing_is_asked_that_is_not_switched_on(tmp_path: Path, mock_clock: Clock) -> None:
    async with open_both(tmp_path) as (server, business):
        assert await server.broker.users.info("ann") is None
        assert await send(server) == ReasonCode.SUCCESS
        assert not [each for each in business.asked if "info" in each.what.lower()]


# --- the example

ROOT = Path(__file__).parents[2]


async def test_the_example_answers_everything(tmp_path: Path, mock_clock: Clock) -> None:
    """examples/datasource: what its README promises."""
    async with open_example() as example:
        settings = {"channel_info_on": True, "user_info_on": True}
        async with open_both(tmp_path, business=example, **settings) as (server, _):
            carl, eve, helpdesk = (Device(uid=uid) for uid in ("carl", "eve", "helpdesk"))
            assert [await send(server, each) for each in (ANN, BOB, carl, eve, helpdesk)] == [1, 1, 1, 3, 1]
            assert [await send(server, each, to="news") for each in (ANN, BOB, helpdesk)] == [1, 13, 1]
            assert [await send(server, each, to="bob", kind=1) for each in (ANN, carl, helpdesk)] == [1, 4, 1]
            assert await send(server, to="nowhere") == ReasonCode.SUBSCRIBER_NOT_EXIST
            info = await server.broker.users.info("ann")
            assert info is not None
            assert (info.name, info.remark) == ("Ann", "team lead")
            assert await server.broker.users.info("nobody") is None


@asynccontextmanager
async def open_example() -> AsyncIterator[Business]:
    """Run the example as a reader would; it prints where it listens."""
    command = [sys.executable, str(ROOT / "examples" / "datasource" / "source.py"), "127.0.0.1:0"]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(partial(trio.run_process, command, stdout=subprocess.PIPE, check=False))
        example = Business()
        async with process.stdout:
            printed = b""
            while not printed.endswith(b"\n"):
                printed += await process.stdout.receive_some()
            example.url = printed.decode().strip()
            yield example
            process.terminate()
            await process.wait()
