"""A data source on loopback, and what senders see of its answers. Time is virtual: it moves when a test says so."""

import base64
from pathlib import Path

import attrs
import pytest
import structlog.testing
import trio
import trio.testing

from tests.business import (
    ANN,
    BOB,
    BOT,
    PLUGINS,
    TEAM,
    TIMEOUT_S,
    TTL_S,
    Asked,
    Clock,
    config_in,
    failures,
    http,
    never,
    open_both,
    open_business,
    send,
    until,
)
from tests.wkclient import client
from triolet_core import ChannelInfo, Device, PluginError, ReasonCode, open_server


async def test_members_of_an_unknown_group_are_asked_for_and_get_the_message(tmp_path: Path, mock_clock: Clock) -> None:
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


async def test_who_is_no_member_is_refused(tmp_path: Path, mock_clock: Clock) -> None:
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
async def test_what_a_sender_sees_of_an_answer(tmp_path: Path, mock_clock: Clock, name: str) -> None:
    """Issue 5; conformance 79, 80. A failure is not kept: the next message asks again."""
    reply, reason = ANSWERS[name]
    async with open_both(tmp_path) as (server, business):
        business.set("getSubscribers", reply)
        assert await send(server) == reason
        assert "/elsewhere" not in [each.what for each in business.asked]
        if reason == ReasonCode.SYSTEM_ERROR:
            business.set("getSubscribers", ["ann"])
            assert await send(server) == ReasonCode.SUCCESS


async def test_a_connection_that_is_closed_without_an_answer_is_a_failure(tmp_path: Path, mock_clock: Clock) -> None:
    async def hang_up(asked: Asked, stream: trio.abc.Stream) -> None:
        await stream.aclose()

    async with open_both(tmp_path) as (server, business):
        business.set("getSubscribers", hang_up)
        assert await send(server) == ReasonCode.SYSTEM_ERROR


async def test_nobody_there_is_a_failure(tmp_path: Path, mock_clock: Clock) -> None:
    async with open_business() as gone:
        pass
    async with open_both(tmp_path, business=gone) as (server, _):
        assert await send(server) == ReasonCode.SYSTEM_ERROR
        assert await send(server, to="bob", kind=1) == ReasonCode.SYSTEM_ERROR


async def test_an_answer_after_ten_seconds_comes_too_late(tmp_path: Path, mock_clock: Clock) -> None:
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


async def test_a_group_of_fifty_thousand_is_taken(tmp_path: Path, mock_clock: Clock) -> None:
    async with open_both(tmp_path) as (server, business):
        business.set("getSubscribers", [f"user-{n}" for n in range(50_000)] + ["ann"])
        assert await send(server) == ReasonCode.SUCCESS
        for uid in ("user-0", "user-49999"):
            assert [each.channel for each in server.broker.conversations.list(uid)] == [TEAM]


# --- the address


@pytest.mark.parametrize("address", ["127.0.0.1:8090", "ftp://127.0.0.1/", "http://", "no url", "http://[::1"])
async def test_an_address_that_is_no_url_ends_the_start(tmp_path: Path, address: str) -> None:
    with pytest.raises(PluginError, match="not a URL such as"):
        async with open_server(config_in(tmp_path, addr=address), plugins=PLUGINS):
            pytest.fail("the block must not run")


async def test_without_an_address_nobody_is_asked(tmp_path: Path, mock_clock: Clock) -> None:
    async with open_both(tmp_path, addr="") as (server, business):
        await server.broker.channels.create(TEAM, ChannelInfo(), ["ann"])
        assert await send(server) == ReasonCode.SUCCESS
        assert business.asked == []
        assert server.broker.services == {}


async def test_user_and_password_of_the_address_are_sent_and_not_logged(tmp_path: Path, mock_clock: Clock) -> None:
    async with open_business() as business:
        address = business.url.replace("//", "//me:s%40crt@")
        with structlog.testing.capture_logs() as logs:
            async with open_both(tmp_path, business=business, addr=address, user_info_on=True) as (server, _):
                business.set("getSubscribers", http(b"", status="500 Oops"))
                assert await send(server) == ReasonCode.SYSTEM_ERROR
                await server.broker.users.info("ann")
        expected = "Basic " + base64.b64encode(b"me:s@crt").decode()
        assert {each.authorization for each in business.asked} == {expected}
        assert "crt" not in repr(logs)


# --- persons and lists


async def test_a_person_message_asks_about_the_recipient_only(tmp_path: Path, mock_clock: Clock) -> None:
    """Conformance 82; semantics.md, section 6.1: neither the sender nor the channel of both is asked about."""
    async with open_both(tmp_path) as (server, business):
        assert await send(server, to="bob", kind=1) == ReasonCode.SUCCESS
        business.set("getBlacklist", ["ann"])
        assert await send(server, to="carl", kind=1) == ReasonCode.IN_BLACKLIST
        asked = [(each.what, each.about["channel_id"]) for each in business.asked if each.about]
        assert asked == [(what, uid) for uid in ("bob", "carl") for what in ("getBlacklist", "getWhitelist")]


async def test_only_friends_may_write_if_strangers_may_not(tmp_path: Path, mock_clock: Clock) -> None:
    async with open_both(tmp_path, strangers=False) as (server, business):
        assert await send(server, to="bob", kind=1) == ReasonCode.NOT_IN_WHITELIST
        business.set("getWhitelist", ["ann"])
        assert await send(server, to="carl", kind=1) == ReasonCode.SUCCESS


async def test_an_allowlist_mutes_the_other_members_of_a_group(tmp_path: Path, mock_clock: Clock) -> None:
    """Conformance 83."""
    async with open_both(tmp_path) as (server, business):
        business.set("getWhitelist", ["ann"])
        assert await send(server, ANN) == ReasonCode.SUCCESS
        assert await send(server, BOB) == ReasonCode.NOT_IN_WHITELIST


async def test_the_answers_take_the_place_of_what_is_stored(tmp_path: Path, mock_clock: Clock) -> None:
    """semantics.md, section 6.1: the data source replaces the store."""
    async with open_both(tmp_path) as (server, _):
        await server.broker.channels.create(TEAM, ChannelInfo(), ["eve"])
        await server.broker.channels.add_denied(TEAM, ["ann"])
        assert await send(server, Device(uid="eve")) == ReasonCode.SUBSCRIBER_NOT_EXIST
        assert await send(server, ANN) == ReasonCode.SUCCESS


async def test_members_see_the_group_in_their_conversations(tmp_path: Path, mock_clock: Clock) -> None:
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


async def test_system_accounts_bypass_lists_and_membership(tmp_path: Path, mock_clock: Clock) -> None:
    """Conformance 81."""
    async with open_both(tmp_path, strangers=False) as (server, business):
        business.set("getBlacklist", ["bot"])
        assert await send(server, BOT, to="bob", kind=1) == ReasonCode.SUCCESS
        assert await send(server, BOT) == ReasonCode.SUCCESS
        assert await send(server, ANN, to="bot", kind=1) == ReasonCode.SUCCESS
        assert server.broker.users.system_uids() == ["bot"]


async def test_system_accounts_and_the_server_send_while_lists_cannot_be_had(tmp_path: Path, mock_clock: Clock) -> None:
    async with open_both(tmp_path) as (server, business):
        for what in ("getSubscribers", "getBlacklist", "getWhitelist"):
            business.set(what, http(b"", status="503 Busy"))
        assert await send(server, ANN) == ReasonCode.SYSTEM_ERROR
        assert await send(server, BOT) == ReasonCode.SUCCESS
        assert await send(server, attrs.evolve(ANN, is_server=True)) == ReasonCode.SUCCESS


async def test_the_server_starts_without_system_accounts_and_asks_again(tmp_path: Path, mock_clock: Clock) -> None:
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


async def test_a_source_that_hangs_does_not_keep_the_server_from_starting(tmp_path: Path, mock_clock: Clock) -> None:
    async with open_business() as business, trio.open_nursery() as nursery:
        business.set("getSystemUIDs", never)

        async def pass_time() -> None:
            await business.wait_asked("getSystemUIDs")
            mock_clock.jump(TIMEOUT_S)

        nursery.start_soon(pass_time)
        async with open_both(tmp_path, business=business) as (server, _):
            assert await send(server) == ReasonCode.SUCCESS


async def test_system_accounts_are_asked_for_again_and_the_last_known_stay(tmp_path: Path, mock_clock: Clock) -> None:
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
    tmp_path: Path, mock_clock: Clock, choice: str, ann: int, bot: int
) -> None:
    async with open_both(tmp_path, on_failure_system_uids=choice) as (server, business):
        await server.broker.users.add_system_uids(["stored"])
        business.set("getSystemUIDs", http(b"", status="500 Oops"))
        mock_clock.jump(TTL_S)
        await business.wait_asked("getSystemUIDs", 2)
        await until(lambda: failures(server) == 1)
        assert (await send(server, ANN), await send(server, BOT)) == (ann, bot)
        assert await send(server, Device(uid="stored")) == ReasonCode.SUCCESS
