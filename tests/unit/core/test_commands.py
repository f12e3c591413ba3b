"""The command queues (semantics.md, section 2.8)."""

from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from triolet_core import (
    SYNC_ONCE,
    Broker,
    ChannelInfo,
    ChannelKey,
    Device,
    Draft,
    NotFound,
    ReasonCode,
    ServerConfig,
)
from triolet_core.config import StoreConfig
from triolet_core.model import NO_PERSIST, SYSTEM_UID, ChannelType, person_channel_id
from triolet_core.testing import FakeClock, MemorySession, draft, open_test_broker

SERVER = Device(uid="a", is_server=True)
SYSTEM = Device(uid=SYSTEM_UID, is_server=True)
GROUP = ChannelKey("g", 2)
AB = ChannelKey(person_channel_id("a", "b"), 1)


async def command(broker: Broker, payload: bytes, channel_id: str = "b", kind: int = 1, sender: Device = SERVER) -> int:
    receipt = await broker.messages.send(sender, Draft(channel_id, kind, payload, flags=SYNC_ONCE))
    assert receipt.reason == ReasonCode.SUCCESS
    return receipt.message_id


def waiting(broker: Broker, uid: str, limit: int = 0) -> list[tuple[int, bytes]]:
    return [(each.place, each.message.payload) for each in broker.commands.waiting(uid, limit)]


async def test_each_recipient_has_the_commands_of_every_channel_in_one_rising_queue(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await broker.channels.create(GROUP, ChannelInfo(), ["b", "c"])
        await command(broker, b"1")
        await command(broker, b"2", "g", 2, SYSTEM)
        await command(broker, b"3")
        assert waiting(broker, "b") == [(1, b"1"), (2, b"2"), (3, b"3")]
        assert waiting(broker, "c") == [(1, b"2")]
        assert waiting(broker, "a") == [(1, b"1"), (2, b"3")]
        assert waiting(broker, SYSTEM_UID) == []


async def test_a_command_is_no_message_of_its_channel(tmp_path: Path) -> None:
    """It has a sequence of its own, in the companion channel, and stands in no conversation list."""
    async with open_test_broker(tmp_path) as broker:
        await command(broker, b"1")
        await broker.messages.send(Device(uid="a"), draft("b"))
        assert broker.messages.max_seq(AB) == 1
        [found, *_] = broker.commands.waiting("b")
        assert (found.message.channel, found.message.seq) == (ChannelKey(f"{AB.id}____cmd", 1), 1)
        assert found.message.flags & SYNC_ONCE
        assert [each.channel for each in broker.conversations.list("b")] == [AB]


async def test_a_client_cannot_make_a_command(tmp_path: Path) -> None:
    """Its SyncOnce is passed on with an ordinary message (semantics.md, section 1.3)."""
    async with open_test_broker(tmp_path) as broker:
        await broker.messages.send(Device(uid="a"), Draft("b", 1, b"x", flags=SYNC_ONCE))
        assert waiting(broker, "b") == []
        assert broker.messages.max_seq(AB) == 1


async def test_a_command_that_is_not_to_be_kept_is_in_no_queue(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        peer = MemorySession(Device(uid="b"))
        broker.presence.register(peer)
        await broker.messages.send(SERVER, Draft("b", 1, b"x", flags=SYNC_ONCE | NO_PERSIST))
        await broker.flush()
        assert [(message.seq, message.payload) for message in peer.received] == [(0, b"x")]
        assert waiting(broker, "b") == []


async def test_a_command_is_handed_out_until_it_is_acknowledged_and_never_after(tmp_path: Path) -> None:
    """Conformance 49, 50."""
    async with open_test_broker(tmp_path) as broker:
        for n in range(3):
            await command(broker, str(n).encode())
        everything = [(1, b"0"), (2, b"1"), (3, b"2")]
        assert waiting(broker, "b") == waiting(broker, "b") == everything
        await broker.commands.acknowledge("b", 2)
        assert waiting(broker, "b") == [(3, b"2")]
        await broker.commands.acknowledge("b", 1)
        assert waiting(broker, "b") == [(3, b"2")]
        assert waiting(broker, "a") == everything
        await command(broker, b"3")
        assert waiting(broker, "b") == [(3, b"2"), (4, b"3")]


@pytest.mark.parametrize("place", [4, 1000, 2**63, 2**64])
async def test_what_was_not_handed_out_is_not_acknowledged(tmp_path: Path, place: int) -> None:
    async with open_test_broker(tmp_path) as broker:
        for n in range(4):
            await command(broker, str(n).encode())
        assert waiting(broker, "b", limit=2) == [(1, b"0"), (2, b"1")]
        await broker.commands.acknowledge("b", place)
        assert waiting(broker, "b") == [(3, b"2"), (4, b"3")]


@pytest.mark.parametrize("place", [0, -1, -(2**63)])
async def test_a_place_that_is_none_acknowledges_nothing(tmp_path: Path, place: int) -> None:
    async with open_test_broker(tmp_path) as broker:
        await command(broker, b"1")
        assert waiting(broker, "b") == [(1, b"1")]
        await broker.commands.acknowledge("b", place)
        await broker.commands.acknowledge("nobody", 5)
        assert waiting(broker, "b") == [(1, b"1")]


async def test_the_queue_outlives_a_restart_before_and_after_the_acknowledgement(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        for n in range(3):
            await command(broker, str(n).encode())
        before = waiting(broker, "b")
    async with open_test_broker(tmp_path) as broker:
        assert waiting(broker, "b") == before
    async with open_test_broker(tmp_path) as broker:  # a client that saw them before the restart
        await broker.commands.acknowledge("b", 2)
    async with open_test_broker(tmp_path) as broker:
        assert waiting(broker, "b") == before[2:]
        await broker.commands.acknowledge("b", 3)
        await command(broker, b"3")
    async with open_test_broker(tmp_path) as broker:
        assert waiting(broker, "b") == [(4, b"3")]


async def test_after_a_restart_a_place_that_was_never_given_acknowledges_nothing(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await command(broker, b"1")
    async with open_test_broker(tmp_path) as broker:
        await broker.commands.acknowledge("b", 2)
        assert waiting(broker, "b") == [(1, b"1")]


async def test_a_device_confirms_one_command(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        ids = [await command(broker, str(n).encode()) for n in range(5)]
        for gone in (ids[1], ids[4], ids[1], 0, 2**62):
            await broker.commands.acknowledge_message("b", gone)
        await broker.commands.acknowledge_message("nobody", ids[0])
        assert waiting(broker, "b") == [(1, b"0"), (3, b"2"), (4, b"3")]
        await command(broker, b"5")
        assert waiting(broker, "b")[-1] == (6, b"5")
        assert len(waiting(broker, "a")) == 6


async def test_a_device_confirms_the_newest_of_many_that_wait(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        drafts = [Draft("b", 1, b"%d" % n, flags=SYNC_ONCE) for n in range(1500)]
        receipts = await broker.messages.send_many(SERVER, drafts)
        for receipt in receipts[-2:]:
            await broker.commands.acknowledge_message("b", receipt.message_id)
        assert len(waiting(broker, "b", limit=10_000)) == 1498


async def test_a_page_is_200_and_never_more_than_10_000(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        drafts = [Draft("b", 1, b"%d" % n, flags=SYNC_ONCE) for n in range(10_001)]
        await broker.messages.send_many(SERVER, drafts)
        assert [len(waiting(broker, "b", limit)) for limit in (0, -5, 3, 20_000)] == [200, 200, 3, 10_000]


async def test_a_command_to_listed_users_is_in_their_queues_only(tmp_path: Path) -> None:
    """Conformance 48; in 2.2.5 they never get it (semantics.md, section 2.7)."""
    async with open_test_broker(tmp_path) as broker:
        online = MemorySession(Device(uid="c"))
        broker.presence.register(online)
        send = Draft("123____cmd", ChannelType.TEMP, b"x", flags=SYNC_ONCE, to_uids=("b", "c"))
        await broker.messages.send(SYSTEM, send)
        await broker.flush()
        assert waiting(broker, "b") == waiting(broker, "c") == [(1, b"x")]
        assert waiting(broker, "d") == []
        assert [message.payload for message in online.received] == [b"x"]
        assert broker.conversations.list("b") == []


async def test_listed_users_get_what_is_later_said_in_their_temporary_channel(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        channel = ChannelKey("123____cmd", ChannelType.TEMP)
        send = Draft(*channel, b"x", flags=SYNC_ONCE, to_uids=("b", "c"))
        receipt = await broker.messages.send(SYSTEM, send)
        await broker.revisions.recall(channel, receipt.message_id, by=SYSTEM_UID)
        assert [place for place, _ in waiting(broker, "b")] == [1, 2]


async def test_listing_recipients_does_not_make_them_members_of_a_group_that_has_some(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await broker.channels.create(GROUP, ChannelInfo(), ["b"])
        await broker.messages.send(SYSTEM, Draft("g", 2, b"x", to_uids=("c",)))
        assert broker.channels.members(GROUP) == ["b"]


async def test_a_command_to_a_group_goes_to_who_is_a_member_now(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await broker.channels.create(GROUP, ChannelInfo(), ["b", "c"])
        await broker.channels.remove_members(GROUP, ["c"])
        await command(broker, b"1", "g", 2)
        await broker.channels.add_members(GROUP, ["d"])
        await command(broker, b"2", "g", 2)
        assert waiting(broker, "b") == [(1, b"1"), (2, b"2")]
        assert waiting(broker, "c") == []
        assert waiting(broker, "d") == [(1, b"2")]


async def test_a_repeated_send_is_queued_once(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        for _ in range(2):
            await broker.messages.send(SERVER, Draft("b", 1, b"x", client_msg_no="n", flags=SYNC_ONCE))
        assert waiting(broker, "b") == [(1, b"x")]


async def test_an_expired_command_is_not_handed_out(tmp_path: Path) -> None:
    clock = FakeClock()
    async with open_test_broker(tmp_path, clock_s=clock) as broker:
        await broker.messages.send(SERVER, Draft("b", 1, b"x", flags=SYNC_ONCE, expire=10))
        await command(broker, b"y")
        clock.move(10)
        assert waiting(broker, "b") == [(2, b"y")]


async def test_nothing_is_half_written_when_the_store_is_full(tmp_path: Path) -> None:
    """The message and every queue row are one transaction."""
    config = ServerConfig(store=StoreConfig(map_size=1 << 20))  # type: ignore[arg-type]
    uids = [f"u{n}" for n in range(100)]
    async with open_test_broker(tmp_path, config) as broker:
        await broker.channels.create(GROUP, ChannelInfo(), uids)
        sent = []
        for n in range(200):
            receipt = await broker.messages.send(SYSTEM, Draft("g", 2, b"%d" % n + b"x" * 9000, flags=SYNC_ONCE))
            if receipt.reason != ReasonCode.SUCCESS:
                assert receipt == (ReasonCode.SYSTEM_ERROR, 0, 0)
                break
            sent.append(receipt.message_id)
        assert len(sent) < 200
    async with open_test_broker(tmp_path, config) as broker:
        assert broker.messages.max_seq(ChannelKey("g____cmd", 2)) == len(sent)
        for uid in uids:
            assert [each.message.message_id for each in broker.commands.waiting(uid)] == sent


async def test_nothing_is_half_written_when_the_change_that_is_told_of_fails(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await broker.channels.create(GROUP, ChannelInfo(), ["b"])
        receipt = await broker.messages.send(SYSTEM, draft("g", channel_type=2))
        await broker.revisions.recall(GROUP, receipt.message_id, by="a")
        with pytest.raises(NotFound):
            await broker.revisions.edit(GROUP, receipt.message_id, b"x", by="a")
        assert len(waiting(broker, "b")) == 1


async def test_a_caller_that_is_cancelled_leaves_a_whole_queue(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(command, broker, b"1")
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await broker.flush()
        assert waiting(broker, "b") == waiting(broker, "a") == [(1, b"1")]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(broker.commands.acknowledge, "b", 1)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await broker.flush()
        assert waiting(broker, "b") == []


async def test_commands_of_a_user_whose_name_begins_another_stay_apart(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        long = "u" * 400
        for uid in ("u", "uu", long, long + "v"):
            await command(broker, uid.encode(), uid)
        await broker.commands.acknowledge("u", 1)
        assert waiting(broker, "u") == []
        for uid in ("uu", long, long + "v"):
            assert waiting(broker, uid) == [(1, uid.encode())]


async def test_old_commands_that_nobody_fetched_go(tmp_path: Path) -> None:
    clock = FakeClock()
    config = ServerConfig()
    config = attrs.evolve(config, retention=attrs.evolve(config.retention, cache_days=2))
    async with open_test_broker(tmp_path, config, clock_s=clock) as broker:
        await command(broker, b"old")
        clock.move(1.5 * 86_400)
        await command(broker, b"new")
        clock.move(86_400)
        await broker.retention.sweep_all()
        assert waiting(broker, "b") == [(2, b"new")]
        assert [row.last_seq for row in await broker.catalog.channels(lambda row: row.key.id.endswith("____cmd"))] == [
            2
        ]
