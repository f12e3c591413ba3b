"""What core asks a data source, when, and what it does with the answers."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import structlog.testing
import trio
import trio.testing

from triolet_core import BackendError, Broker, ChannelInfo, ChannelKey, ConnectRequest, Device, ReasonCode, UserInfo
from triolet_core.testing import MemorySession, draft, open_test_broker

A, B = Device(uid="a"), Device(uid="b")
GROUP = ChannelKey("g", 2)

Lists = Callable[[ChannelKey], Awaitable[Sequence[str] | None]]


async def fails(question: Any) -> None:
    raise BackendError("source", "down")


def lists(*uids: str) -> Lists:
    async def answer(key: ChannelKey) -> Sequence[str]:
        return uids

    return answer


@contextmanager
def source(broker: Broker, **answers: Any) -> Any:
    """Answer some of core's questions, without a failure answer."""
    with ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(getattr(broker.hooks, name).responder("source", answer, on_failure=None))
        yield


async def send(broker: Broker, sender: Device = A) -> int:
    return (await broker.messages.send(sender, draft("g", channel_type=2))).reason


async def test_facts_that_keep_changing_are_used_and_not_kept(tmp_path: Path) -> None:
    """A change at every load must not keep a sender waiting for ever, nor leave old facts behind."""
    asked = 0

    async with open_test_broker(tmp_path) as broker:

        async def members(key: ChannelKey) -> Sequence[str]:
            nonlocal asked
            asked += 1
            broker.channels.forget(key)
            return ["a"]

        with source(broker, subscribers=members):
            assert await send(broker) == ReasonCode.SUCCESS
            before = asked
            assert await send(broker) == ReasonCode.SUCCESS
            assert asked > before


async def test_a_login_asks_nobody(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        with source(broker, denylist=fails, allowlist=fails):
            request = ConnectRequest(uid="a", token="", device_id="d", flag=0)
            assert (await broker.users.authenticate(request))[0] == ReasonCode.SUCCESS
            await broker.channels.put_info(ChannelKey("a", 1), ChannelInfo(ban=True))
            assert (await broker.users.authenticate(request))[0] == ReasonCode.BAN


async def test_a_send_ban_is_seen_at_once(tmp_path: Path) -> None:
    """Conformance 22, while a data source answers everything else."""
    async with open_test_broker(tmp_path) as broker:
        with source(broker, subscribers=lists("a"), denylist=lists(), allowlist=lists()):
            assert await send(broker) == ReasonCode.SUCCESS
            await broker.channels.put_info(ChannelKey("a", 1), ChannelInfo(send_ban=True))
            assert await send(broker) == ReasonCode.SEND_BAN
            await broker.channels.put_info(ChannelKey("a", 1), ChannelInfo())
            assert await send(broker) == ReasonCode.SUCCESS


async def test_a_closed_channel_is_closed_to_the_server_too_while_lists_cannot_be_had(tmp_path: Path) -> None:
    """semantics.md, section 1.6: step 4 comes before step 7."""
    server = attrs.evolve(A, is_server=True)
    async with open_test_broker(tmp_path) as broker:
        await broker.channels.put_info(GROUP, ChannelInfo(ban=True))
        with source(broker, subscribers=fails):
            assert await send(broker, server) == ReasonCode.BAN
            await broker.channels.put_info(GROUP, ChannelInfo())
            assert await send(broker, server) == ReasonCode.SUCCESS
            with source(broker, channel_info=fails):
                assert await send(broker, server) == ReasonCode.SYSTEM_ERROR


async def test_system_accounts_that_cannot_be_had_refuse_everybody_else(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await broker.channels.create(GROUP, ChannelInfo(), ["a"])
        await broker.users.add_system_uids(["s"])
        with source(broker, system_uids=fails):
            with pytest.raises(BackendError):
                await broker.channels.load_system_uids()
            assert await send(broker) == ReasonCode.SYSTEM_ERROR
            assert await send(broker, Device(uid="s")) == ReasonCode.SUCCESS
            assert await send(broker, attrs.evolve(B, is_server=True)) == ReasonCode.SUCCESS
        await broker.channels.load_system_uids()
        assert await send(broker) == ReasonCode.SUCCESS


async def test_named_members_count_unread_messages_from_the_first(tmp_path: Path) -> None:
    """semantics.md, section 3.2: a member gets a record with what was newest when he was added."""
    async with open_test_broker(tmp_path) as broker:
        with source(broker, subscribers=lists("a", "b")):
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(send, broker)
            assert broker.conversations.unread("b", GROUP) == 10
            assert [each.channel for each in broker.conversations.list("b")] == [GROUP]
            await broker.conversations.mark_read("b", GROUP)
            broker.channels.forget(GROUP)
            assert await send(broker) == ReasonCode.SUCCESS
            last = broker.conversations.get("b", GROUP)
            assert last is not None
            assert last.read_to == 10


async def test_named_members_of_channels_without_conversations_get_none(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        with source(broker, subscribers=lists("a", "b")):
            receipt = await broker.messages.send(A, draft("live", channel_type=9))
            assert receipt.reason == ReasonCode.SUCCESS
        assert broker.conversations.list("b") == []


async def test_a_sender_who_gives_up_leaves_the_members_to_the_next_one(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        with source(broker, subscribers=lists(*(f"u{n}" for n in range(3000)), "a")):
            with trio.CancelScope() as scope:
                scope.cancel()
                await send(broker)
            with trio.move_on_after(0.005):
                await send(broker)
            assert await send(broker) == ReasonCode.SUCCESS
        assert all(broker.conversations.list(f"u{n}") for n in (0, 999, 1000, 2999))


async def test_delivery_asks_again_when_facts_were_forgotten(tmp_path: Path) -> None:
    """The writer waits for a full lane, so delivery may ask, but never waits for the writer."""
    async with open_test_broker(tmp_path) as broker:
        session = MemorySession(B)
        broker.presence.register(session)

        async def members(key: ChannelKey) -> Sequence[str]:
            return ["a", "b"]

        with source(broker, subscribers=members):
            for _ in range(3):
                await broker.messages.submit(
                    A, [draft("g", channel_type=2)], lambda receipts: broker.channels.forget_all()
                )
            await broker.flush()
        assert len(session.received) == 3


async def test_a_failure_that_the_responder_has_logged_is_not_logged_again(tmp_path: Path) -> None:
    """Style guide: one failure is logged once, where it is handled."""

    async def breaks(key: ChannelKey) -> None:
        raise RuntimeError("a bug")

    async with open_test_broker(tmp_path) as broker:
        with structlog.testing.capture_logs() as logs:
            with source(broker, subscribers=fails):
                assert await send(broker) == ReasonCode.SYSTEM_ERROR
            assert logs == []
            with source(broker, subscribers=breaks):
                assert await send(broker) == ReasonCode.SYSTEM_ERROR
            assert [entry["detail"] for entry in logs] == ["RuntimeError: a bug"]


async def test_user_info_comes_from_whoever_knows(tmp_path: Path) -> None:
    async def name(uid: str) -> UserInfo | None:
        return UserInfo(uid=uid, name="Ann") if uid == "ann" else None

    async with open_test_broker(tmp_path) as broker:
        assert await broker.users.info("ann") is None
        with source(broker, user_info=name):
            assert await broker.users.info("ann") == UserInfo(uid="ann", name="Ann")
            assert await broker.users.info("bob") is None
        with source(broker, user_info=fails), pytest.raises(BackendError):
            await broker.users.info("ann")


async def test_accounts_added_until_the_next_start_outlive_a_new_answer(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        broker.channels.cache_system_uids(["s"], ())
        await broker.channels.load_system_uids()
        assert broker.users.is_system("s")
        assert broker.users.system_uids() == []
