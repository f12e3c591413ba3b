"""A data source on loopback, and what senders see of its answers. Time is virtual: it moves when a test says so."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import attrs
import pytest
import trio
import trio.testing

import triolet_datasource
import triolet_gateway
from tests.wkclient import client
from triolet_core import ChannelInfo, ChannelKey, Device, ReasonCode, Server, ServerConfig, open_server
from triolet_core.testing import draft
from triolet_datasource import DatasourceConfig
from triolet_gateway import GatewayConfig

ANN, BOB, BOT = (Device(uid=uid) for uid in ("ann", "bob", "bot"))
TEAM = ChannelKey("team", 2)
ROOT = Path(__file__).parents[2]
TIMEOUT_S, TTL_S, PAUSE_S = 5, 60, 5

Reply = Callable[["Asked", trio.abc.Stream], Awaitable[None]]


@attrs.frozen
class Asked:
    """One request: the command of a POST or the path of a GET, and what it is about."""

    what: str
    about: dict[str, Any]


def http(body: bytes, *, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{headers}\r\n".encode() + body


class Business:
    """The business system: it answers with `replies`, by command or path, and notes what it was asked."""

    def __init__(self) -> None:
        self.replies: dict[str, Any] = {
            "getSubscribers": ["ann", "bob"],
            "getBlacklist": [],
            "getWhitelist": [],
            "getSystemUIDs": ["bot"],
        }
        self.asked: list[Asked] = []
        self.url = ""
        self._arrivals = trio.lowlevel.ParkingLot()

    def set(self, what: str, reply: Any) -> None:
        """Answer with a JSON value, the bytes of a whole response, or a function that writes one."""
        self.replies[what] = reply

    def count(self, what: str) -> int:
        return sum(each.what == what for each in self.asked)

    async def wait_asked(self, what: str, count: int = 1) -> None:
        while self.count(what) < count:
            await self._arrivals.park()

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # the server has hung up
                await self._serve(stream)

    async def _serve(self, stream: trio.SocketStream) -> None:
        data = b""
        while True:
            while b"\r\n\r\n" not in data:
                more = await stream.receive_some()
                if not more:
                    return
                data += more
            head, _, data = data.partition(b"\r\n\r\n")
            method, target = head.decode().split()[:2]
            length = next(
                (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line), 0
            )
            while len(data) < length:
                data += await stream.receive_some()
            body, data = data[:length], data[length:]
            asked = _parse(method, target, body)
            self.asked.append(asked)
            self._arrivals.unpark_all()
            await self._reply(asked, stream)

    async def _reply(self, asked: Asked, stream: trio.SocketStream) -> None:
        reply = self.replies.get(asked.what, http(b"", status="404 Not Found"))
        if callable(reply):
            await reply(asked, stream)
        else:
            await stream.send_all(reply if isinstance(reply, bytes) else http(json.dumps(reply).encode()))


def _parse(method: str, target: str, body: bytes) -> Asked:
    if method == "GET":
        parts = urlsplit(target)
        return Asked(parts.path, dict(parse_qsl(parts.query)))
    command = json.loads(body)
    assert target == "/datasource"
    assert set(command) == {"cmd", "data"}
    return Asked(command["cmd"], command["data"])


@asynccontextmanager
async def open_business() -> AsyncIterator[Business]:
    business = Business()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, business.serve, listeners)
        business.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/datasource"
        yield business
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_both(
    path: Path,
    *,
    business: Business | None = None,
    profile: str = "wukongim-2",
    strangers: bool = True,
    **settings: Any,
) -> AsyncIterator[tuple[Server, Business]]:
    """A business system and a server that asks it."""
    async with open_business() as own:
        business = business or own
        section = DatasourceConfig(**{"addr": business.url, **settings})
        config = ServerConfig()
        config = attrs.evolve(
            config,
            node=attrs.evolve(config.node, data_dir=str(path)),
            compat=attrs.evolve(config.compat, profile=profile),
            permission=attrs.evolve(config.permission, whitelist_off_of_person=strangers),
            sections={"datasource": section, "gateway": GatewayConfig(tcp_addr="127.0.0.1:0", ws_addr="")},
        )
        async with open_server(config, plugins=[triolet_datasource.plugin, triolet_gateway.plugin]) as server:
            yield server, business


async def send(server: Server, sender: Device = ANN, to: str = "team", kind: int = 2) -> int:
    """Send a message; returns the reason code that the sender sees."""
    return (await server.broker.messages.send(sender, draft(to, channel_type=kind))).reason


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that other tasks do without waiting for the clock."""
    while not condition():
        await trio.testing.wait_all_tasks_blocked()


def failures(server: Server) -> float:
    return server.broker.metrics.values()["datasource_failures_total"]


async def never(asked: Asked, stream: trio.abc.Stream) -> None:
    await trio.sleep_forever()


async def test_members_of_an_unknown_group_are_asked_for_and_get_the_message(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    """Conformance 77, 78: over the wire, in the order of semantics.md section 6.1, and only once."""
    async with open_both(tmp_path) as (server, business), client(server) as ann, client(server) as bob:
        await ann.connect("ann")
        await bob.connect("bob")
        for text in (b"1", b"2"):
            assert (await ann.send("team", text, channel_type=2)).reason_code == ReasonCode.SUCCESS
            assert (await bob.receive()).payload == text
        about = {"channel_id": "team", "channel_type": 2}
        team = [each for each in business.asked if each.about == about]
        assert [each.what for each in team] == ["getSubscribers", "getBlacklist", "getWhitelist"]
        assert business.asked[0] == Asked("getSystemUIDs", {})


async def test_who_is_no_member_is_refused(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    async with open_both(tmp_path) as (server, _):
        assert await send(server, Device(uid="eve")) == ReasonCode.SUBSCRIBER_NOT_EXIST


BIG = 50 * 1024 * 1024


async def fifty_megabytes(asked: Asked, stream: trio.abc.Stream) -> None:
    part = b'"' + b"u" * 65533 + b'",'
    await stream.send_all(f"HTTP/1.1 200 OK\r\ncontent-length: {BIG}\r\n\r\n[".encode())
    for _ in range(BIG // len(part)):
        await stream.send_all(part)


ANSWERS = {
    "an empty list": ([], ReasonCode.SUBSCRIBER_NOT_EXIST),
    "null": (None, ReasonCode.SUBSCRIBER_NOT_EXIST),
    "HTTP 500": (http(b"[]", status="500 Oops"), ReasonCode.SYSTEM_ERROR),
    "HTTP 204": (b"HTTP/1.1 204 No Content\r\n\r\n", ReasonCode.SYSTEM_ERROR),
    "HTTP 404": (http(b"[]", status="404 Not Found"), ReasonCode.SYSTEM_ERROR),
    "HTML": (http(b"<html>login</html>", headers="content-type: text/html\r\n"), ReasonCode.SYSTEM_ERROR),
    "cut JSON": (http(b'["ann", "bo'), ReasonCode.SYSTEM_ERROR),
    "an empty body": (http(b""), ReasonCode.SYSTEM_ERROR),
    "bytes that are no text": (http(b"\xff\xfe\x00["), ReasonCode.SYSTEM_ERROR),
    "deep nesting": (http(b"[" * 200_000), ReasonCode.SYSTEM_ERROR),
    "an object": ({"uids": ["ann"]}, ReasonCode.SYSTEM_ERROR),
    "numbers": ([1, 2], ReasonCode.SYSTEM_ERROR),
    "a text": ("ann", ReasonCode.SYSTEM_ERROR),
    "a null in the list": (["ann", None], ReasonCode.SYSTEM_ERROR),
    "a redirect": (http(b"", status="302 Found", headers="location: /elsewhere\r\n"), ReasonCode.SYSTEM_ERROR),
    "no HTTP": (b"220 mail.example ESMTP\r\n\r\n", ReasonCode.SYSTEM_ERROR),
    "a compressed list": (http(b"[]", headers="content-encoding: gzip\r\n"), ReasonCode.SYSTEM_ERROR),
    "50 MB": (fifty_megabytes, ReasonCode.SYSTEM_ERROR),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_what_a_sender_sees_of_an_answer(tmp_path: Path, mock_clock: trio.testing.MockClock, name: str) -> None:
    """Issue 5; conformance 79, 80. A failure is not kept: the next message asks again."""
    reply, reason = ANSWERS[name]
    async with open_both(tmp_path) as (server, business):
        business.set("getSubscribers", reply)
        assert await send(server) == reason
        assert "/elsewhere" not in [each.what for each in business.asked]
        if reason == ReasonCode.SYSTEM_ERROR:
            business.set("getSubscribers", ["ann"])
            assert await send(server) == ReasonCode.SUCCESS


async def test_a_connection_that_is_closed_without_an_answer_is_a_failure(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    async def hang_up(asked: Asked, stream: trio.abc.Stream) -> None:
        await stream.aclose()

    async with open_both(tmp_path) as (server, business):
        business.set("getSubscribers", hang_up)
        assert await send(server) == ReasonCode.SYSTEM_ERROR


async def test_nobody_there_is_a_failure(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    async with open_business() as gone:
        pass
    async with open_both(tmp_path, business=gone) as (server, _):
        assert await send(server) == ReasonCode.SYSTEM_ERROR
        assert await send(server, to="bob", kind=1) == ReasonCode.SYSTEM_ERROR


async def test_an_answer_after_ten_seconds_comes_too_late(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    """The sender waits for `datasource.timeout` and gets 15."""

    async def late(asked: Asked, stream: trio.abc.Stream) -> None:
        await trio.sleep(10)
        await stream.send_all(http(b'["ann"]'))

    async with open_both(tmp_path) as (server, business), trio.open_nursery() as nursery:
        business.set("getSubscribers", late)
        reasons: list[int] = []

        async def say() -> None:
            reasons.append(await send(server))

        nursery.start_soon(say)
        await business.wait_asked("getSubscribers")
        mock_clock.jump(TIMEOUT_S - 0.1)
        await trio.testing.wait_all_tasks_blocked()
        assert reasons == []
        mock_clock.jump(0.2)
        await until(lambda: bool(reasons))
        assert reasons == [ReasonCode.SYSTEM_ERROR]


# --- persons and lists


async def test_a_person_message_asks_about_the_recipient_only(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    """Conformance 82; semantics.md, section 6.1: neither the sender nor the channel of both is asked about."""
    async with open_both(tmp_path) as (server, business):
        assert await send(server, to="bob", kind=1) == ReasonCode.SUCCESS
        business.set("getBlacklist", ["ann"])
        assert await send(server, to="carl", kind=1) == ReasonCode.IN_BLACKLIST
        asked = [(each.what, each.about["channel_id"]) for each in business.asked if each.about]
        assert asked == [(what, uid) for uid in ("bob", "carl") for what in ("getBlacklist", "getWhitelist")]


async def test_only_friends_may_write_if_strangers_may_not(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    async with open_both(tmp_path, strangers=False) as (server, business):
        assert await send(server, to="bob", kind=1) == ReasonCode.NOT_IN_WHITELIST
        business.set("getWhitelist", ["ann"])
        assert await send(server, to="carl", kind=1) == ReasonCode.SUCCESS


async def test_an_allowlist_mutes_the_other_members_of_a_group(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    """Conformance 83."""
    async with open_both(tmp_path) as (server, business):
        business.set("getWhitelist", ["ann"])
        assert await send(server, ANN) == ReasonCode.SUCCESS
        assert await send(server, BOB) == ReasonCode.NOT_IN_WHITELIST


async def test_the_answers_take_the_place_of_what_is_stored(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    """semantics.md, section 6.1: the data source replaces the store."""
    async with open_both(tmp_path) as (server, _):
        await server.broker.channels.create(TEAM, ChannelInfo(), ["eve"])
        await server.broker.channels.add_denied(TEAM, ["ann"])
        assert await send(server, Device(uid="eve")) == ReasonCode.SUBSCRIBER_NOT_EXIST
        assert await send(server, ANN) == ReasonCode.SUCCESS


async def test_members_see_the_group_in_their_conversations(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    """As for members added over the API (semantics.md, section 3.2), who left loses it."""
    async with open_both(tmp_path) as (server, business):
        conversations = server.broker.conversations
        assert await send(server) == ReasonCode.SUCCESS
        assert [each.channel for each in conversations.list("bob")] == [TEAM]
        assert conversations.get("bob", TEAM).read_to == 0  # type: ignore[union-attr]
        business.set("getSubscribers", ["ann", "carl"])
        server.broker.services["datasource"].invalidate("team", 2)
        assert await send(server) == ReasonCode.SUCCESS
        assert conversations.list("bob") == []
        assert [each.channel for each in conversations.list("carl")] == [TEAM]


# --- system accounts


async def test_system_accounts_bypass_lists_and_membership(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    """Conformance 81."""
    async with open_both(tmp_path, strangers=False) as (server, business):
        business.set("getBlacklist", ["bot"])
        assert await send(server, BOT, to="bob", kind=1) == ReasonCode.SUCCESS
        assert await send(server, BOT) == ReasonCode.SUCCESS
        assert await send(server, ANN, to="bot", kind=1) == ReasonCode.SUCCESS
        assert server.broker.users.system_uids() == ["bot"]


async def test_system_accounts_and_the_server_send_while_lists_cannot_be_had(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    async with open_both(tmp_path) as (server, business):
        for what in ("getSubscribers", "getBlacklist", "getWhitelist"):
            business.set(what, http(b"", status="503 Busy"))
        assert await send(server, ANN) == ReasonCode.SYSTEM_ERROR
        assert await send(server, BOT) == ReasonCode.SUCCESS
        assert await send(server, attrs.evolve(ANN, is_server=True)) == ReasonCode.SUCCESS


async def test_the_server_starts_without_system_accounts_and_asks_again(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    async with open_business() as business:
        business.set("getSystemUIDs", http(b"", status="500 Oops"))
        async with open_both(tmp_path, business=business) as (server, _):
            await server.broker.users.add_system_uids(["stored"])
            assert await send(server, BOT) == ReasonCode.SUBSCRIBER_NOT_EXIST
            assert await send(server, Device(uid="stored")) == ReasonCode.SUCCESS
            business.set("getSystemUIDs", ["bot"])
            mock_clock.jump(1)
            await business.wait_asked("getSystemUIDs", 2)
            await until(lambda: server.broker.users.is_system("bot"))
            assert await send(server, BOT) == ReasonCode.SUCCESS
            assert server.broker.users.system_uids() == ["bot", "stored"]


async def test_a_source_that_hangs_does_not_keep_the_server_from_starting(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    async with open_business() as business, trio.open_nursery() as nursery:
        business.set("getSystemUIDs", never)

        async def pass_time() -> None:
            await business.wait_asked("getSystemUIDs")
            mock_clock.jump(TIMEOUT_S)

        nursery.start_soon(pass_time)
        async with open_both(tmp_path, business=business) as (server, _):
            assert await send(server) == ReasonCode.SUCCESS


async def test_system_accounts_are_asked_for_again_and_the_last_known_stay(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    async with open_both(tmp_path) as (server, business):
        business.set("getSystemUIDs", http(b"", status="500 Oops"))
        mock_clock.jump(TTL_S)
        await business.wait_asked("getSystemUIDs", 2)
        await until(lambda: failures(server) == 1)
        assert server.broker.users.system_uids() == ["bot"]
        business.set("getSystemUIDs", ["robot"])
        mock_clock.jump(1)
        await until(lambda: server.broker.users.system_uids() == ["robot"])


@pytest.mark.parametrize(
    ("choice", "ann", "bot"),
    [
        ("refuse", ReasonCode.SYSTEM_ERROR, ReasonCode.SUCCESS),
        ("last", ReasonCode.SUCCESS, ReasonCode.SUCCESS),
        ("pass", ReasonCode.SUCCESS, ReasonCode.SUBSCRIBER_NOT_EXIST),
    ],
)
async def test_the_failure_answer_for_system_accounts(
    tmp_path: Path, mock_clock: trio.testing.MockClock, choice: str, ann: int, bot: int
) -> None:
    async with open_both(tmp_path, on_failure_system_uids=choice) as (server, business):
        await server.broker.users.add_system_uids(["stored"])
        business.set("getSystemUIDs", http(b"", status="500 Oops"))
        mock_clock.jump(TTL_S)
        await business.wait_asked("getSystemUIDs", 2)
        await until(lambda: failures(server) == 1)
        assert (await send(server, ANN), await send(server, BOT)) == (ann, bot)
        assert await send(server, Device(uid="stored")) == ReasonCode.SUCCESS


# --- keeping answers


async def test_an_answer_is_asked_for_again_when_it_is_too_old(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
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


async def test_a_hundred_senders_cost_one_request(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
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


async def test_what_is_pushed_out_of_the_cache_is_asked_for_again(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    """`datasource.cacheEntries` bounds what core concludes from answers, too."""
    async with open_both(tmp_path, cache_entries=12) as (server, business):
        for group in ("g1", "g2", "g3", "g1"):
            assert await send(server, to=group) == ReasonCode.SUCCESS
        asked = [each.about["channel_id"] for each in business.asked if each.what == "getSubscribers"]
        assert asked == ["g1", "g2", "g3", "g1"]
        assert server.broker.metrics.values()["datasource_kept_weight"] <= 12


@pytest.mark.parametrize("which", [("team", 2), ("team", None), (None, None)])
async def test_invalidated_answers_are_asked_for_again(
    tmp_path: Path, mock_clock: trio.testing.MockClock, which: tuple[str | None, int | None]
) -> None:
    async with open_both(tmp_path) as (server, business):
        assert await send(server) == ReasonCode.SUCCESS
        business.set("getSubscribers", ["bob"])
        server.broker.services["datasource"].invalidate(*which)
        assert await send(server) == ReasonCode.SUBSCRIBER_NOT_EXIST


async def test_invalidating_one_channel_leaves_the_others(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    async with open_both(tmp_path) as (server, business):
        assert await send(server) == ReasonCode.SUCCESS
        server.broker.services["datasource"].invalidate("other", None)
        server.broker.services["datasource"].invalidate("team", 3)
        assert await send(server) == ReasonCode.SUCCESS
        assert business.count("getSubscribers") == 1


async def test_invalidating_everything_asks_for_system_accounts_at_once(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    async with open_both(tmp_path) as (server, business):
        business.set("getSystemUIDs", ["robot"])
        server.broker.services["datasource"].invalidate(None, None)
        await business.wait_asked("getSystemUIDs", 2)
        await until(lambda: server.broker.users.system_uids() == ["robot"])


async def test_an_answer_under_way_when_it_is_invalidated_is_not_kept(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
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


async def test_a_change_over_the_api_asks_again(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
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
    tmp_path: Path, mock_clock: trio.testing.MockClock, question: str, choice: str, known: int, unknown: int
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


async def test_a_failure_answer_is_used_only_until_the_next_try(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
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


async def test_after_failures_in_a_row_nobody_is_asked_for_a_while(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
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


async def test_no_more_requests_than_allowed_are_under_way(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
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


# --- channel info and user info


def channel_info(**fields: Any) -> dict[str, Any]:
    return {"channel_id": "team", "channel_type": 2, "name": "The team", **fields}


async def test_channel_info_by_get_decides_with_what_it_names(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
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


async def test_channel_info_by_post_is_asked_first(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
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
async def test_what_a_sender_sees_of_channel_info(
    tmp_path: Path, mock_clock: trio.testing.MockClock, reply: Any, reason: int
) -> None:
    """Not found and null leave the stored info in force."""
    async with open_both(tmp_path, channel_info_on=True) as (server, business):
        business.set("/datasource/channel/info", reply)
        assert await send(server) == reason


@pytest.mark.parametrize(
    ("choice", "reason"), [("refuse", ReasonCode.SYSTEM_ERROR), ("last", ReasonCode.BAN), ("pass", ReasonCode.SUCCESS)]
)
async def test_the_failure_answer_of_channel_info_is_a_setting(
    tmp_path: Path, mock_clock: trio.testing.MockClock, choice: str, reason: int
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


async def test_user_info_is_asked_for_and_kept(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
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
async def test_a_user_that_nobody_knows_has_no_info(
    tmp_path: Path, mock_clock: trio.testing.MockClock, reply: Any
) -> None:
    """A failure is a field left out, never an error (semantics.md, section 6.2)."""
    async with open_both(tmp_path, user_info_on=True) as (server, business):
        business.set("/datasource/user/info", reply)
        assert await server.broker.users.info("ann") is None


async def test_nothing_is_asked_that_is_not_switched_on(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    async with open_both(tmp_path) as (server, business):
        assert await server.broker.users.info("ann") is None
        assert await send(server) == ReasonCode.SUCCESS
        assert not [each for each in business.asked if "info" in each.what.lower()]


# --- the example


async def test_the_example_answers_everything(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
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
