"""What was decided for one message holds for the next, until anything that it depends on changes."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from triolet_core import BackendError, Broker, ChannelInfo, ChannelKey, Device, Draft, ReasonCode, Receipt, _permits
from triolet_core.testing import open_test_broker

ANN, BOB, GROUP = ChannelKey("ann", 1), ChannelKey("bob", 1), ChannelKey("g", 2)
SENDER = Device(uid="ann")
Change = Callable[[Broker], Awaitable[None]]
CHANGES: dict[str, tuple[Draft, Change, ReasonCode]] = {
    "member removed": (
        Draft("g", 2, b"x"),
        lambda broker: broker.channels.remove_members(GROUP, ["ann"]),
        ReasonCode.SUBSCRIBER_NOT_EXIST,
    ),
    "all members removed": (
        Draft("g", 2, b"x"),
        lambda broker: broker.channels.remove_all_members(GROUP),
        ReasonCode.SUBSCRIBER_NOT_EXIST,
    ),
    "denied by a group": (
        Draft("g", 2, b"x"),
        lambda broker: broker.channels.add_denied(GROUP, ["ann"]),
        ReasonCode.IN_BLACKLIST,
    ),
    "not among the allowed": (
        Draft("g", 2, b"x"),
        lambda broker: broker.channels.set_allowed(GROUP, ["bob"]),
        ReasonCode.NOT_IN_WHITELIST,
    ),
    "banned": (
        Draft("g", 2, b"x"),
        lambda broker: broker.channels.put_info(GROUP, ChannelInfo(ban=True)),
        ReasonCode.BAN,
    ),
    "deleted": (Draft("g", 2, b"x"), lambda broker: broker.channels.delete(GROUP), ReasonCode.DISBAND),
    "denied by a person": (
        Draft("bob", 1, b"x"),
        lambda broker: broker.channels.add_denied(BOB, ["ann"]),
        ReasonCode.IN_BLACKLIST,
    ),
    "the sender may not send": (
        Draft("bob", 1, b"x"),
        lambda broker: broker.channels.put_info(ANN, ChannelInfo(send_ban=True)),
        ReasonCode.SEND_BAN,
    ),
    "no system account any more": (
        Draft("unknown", 2, b"x"),
        lambda broker: broker.channels.change_system_uids([], ["ann"]),
        ReasonCode.SUBSCRIBER_NOT_EXIST,
    ),
}


async def told(broker: Broker, draft: Draft) -> int:
    """Send without a wait, and return what the sender is told."""
    receipts: list[Receipt] = []
    broker.messages.submit_nowait(SENDER, [draft], receipts.extend, None)
    await broker.flush()
    return receipts[0].reason


@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_decides_about_the_next_message(tmp_path: Path, name: str) -> None:
    draft, change, reason = CHANGES[name]
    async with open_test_broker(tmp_path) as broker:
        await broker.channels.create(GROUP, ChannelInfo(), ["ann", "bob"])
        if draft.channel_id == "unknown":
            await broker.channels.change_system_uids(["ann"], [])
        assert [await told(broker, draft) for _ in range(2)] == [ReasonCode.SUCCESS] * 2
        await change(broker)
        assert [await told(broker, draft) for _ in range(2)] == [reason] * 2


async def test_a_refusal_is_looked_at_anew(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await broker.channels.create(GROUP, ChannelInfo(), ["bob"])
        assert await told(broker, Draft("g", 2, b"x")) == ReasonCode.SUBSCRIBER_NOT_EXIST
        await broker.channels.add_members(GROUP, ["ann"])
        assert await told(broker, Draft("g", 2, b"x")) == ReasonCode.SUCCESS


async def test_many_decisions_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_permits, "MOST", 3)
    async with open_test_broker(tmp_path) as broker:
        uids = [f"u{number}" for number in range(8)]
        for uid in [*uids, *uids]:
            assert await told(broker, Draft(uid, 1, b"x")) == ReasonCode.SUCCESS
        await broker.channels.add_denied(ChannelKey("u7", 1), ["ann"])
        assert await told(broker, Draft("u7", 1, b"x")) == ReasonCode.IN_BLACKLIST


async def test_who_was_a_system_account_for_a_while_is_none_any_more(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        broker.channels.cache_system_uids(["ann"], [])
        assert await told(broker, Draft("unknown", 2, b"x")) == ReasonCode.SUCCESS
        broker.channels.cache_system_uids([], ["ann"])
        assert await told(broker, Draft("unknown", 2, b"x")) == ReasonCode.SUBSCRIBER_NOT_EXIST


async def test_what_a_data_source_said_holds_until_it_is_forgotten(tmp_path: Path) -> None:
    denied: list[str] = []

    async def answer(key: ChannelKey) -> tuple[str, ...] | None:
        return tuple(denied)

    async with open_test_broker(tmp_path) as broker:
        await broker.channels.create(GROUP, ChannelInfo(), ["ann", "bob"])
        with broker.hooks.denylist.responder("source", answer, on_failure=None):
            draft = Draft("g", 2, b"x")
            assert (await broker.messages.send(SENDER, draft)).reason == ReasonCode.SUCCESS
            assert await told(broker, draft) == ReasonCode.SUCCESS
            denied.append("ann")
            assert await told(broker, draft) == ReasonCode.SUCCESS
            broker.channels.forget(GROUP)
            with pytest.raises(trio.WouldBlock):
                await told(broker, draft)
            assert (await broker.messages.send(SENDER, draft)).reason == ReasonCode.IN_BLACKLIST


async def test_nobody_is_judged_while_it_is_not_known_who_is_a_system_account(tmp_path: Path) -> None:
    async def fail(question: None) -> tuple[str, ...] | None:
        raise BackendError("source", "down")

    async with open_test_broker(tmp_path) as broker:
        draft = Draft("bob", 1, b"x")
        assert await told(broker, draft) == ReasonCode.SUCCESS
        with broker.hooks.system_uids.responder("source", fail, on_failure=None):
            with pytest.raises(BackendError):
                await broker.channels.load_system_uids()
            with pytest.raises(trio.WouldBlock):
                await told(broker, draft)
            assert (await broker.messages.send(SENDER, draft)).reason == ReasonCode.SYSTEM_ERROR
        await broker.channels.load_system_uids()
        assert await told(broker, draft) == ReasonCode.SUCCESS
