"""What an administrator looks at: channels, devices, conversations, sizes."""

from pathlib import Path

import attrs

from triolet_core import SYNC_ONCE, ChannelInfo, ChannelKey, Device, Draft
from triolet_core.model import person_channel_id, slot_of
from triolet_core.testing import FakeClock, draft, open_test_broker

A = Device(uid="a")
AB = ChannelKey(person_channel_id("a", "b"), 1)
GROUP = ChannelKey("g", 2)


async def test_a_channel_row_has_its_counts_and_times(tmp_path: Path) -> None:
    clock = FakeClock(1_700_000_000)
    async with open_test_broker(tmp_path, clock_s=clock) as broker:
        await broker.channels.create(GROUP, ChannelInfo(name="G"), ["a", "b", "c"])
        clock.move(10)
        await broker.channels.put_info(GROUP, ChannelInfo(name="H", ban=False))
        await broker.channels.add_denied(GROUP, ["x", "y"])
        await broker.channels.add_allowed(GROUP, ["a"])
        for _ in range(3):
            clock.move(10)
            await broker.messages.send(A, draft("g", channel_type=2))
        await broker.revisions.delete(GROUP, [3])
        row = broker.catalog.channel(GROUP)
        assert row is not None
        assert (row.key, row.slot, row.info.name) == (GROUP, slot_of("g"), "H")
        assert (row.members, row.denied, row.allowed, row.last_seq) == (3, 2, 1, 3)
        assert (row.created, row.updated, row.last_time) == (1_700_000_000, 1_700_000_010, 1_700_000_030)
        assert broker.catalog.channel(AB) is None


async def test_channels_are_listed_the_newest_first_and_can_be_picked(tmp_path: Path) -> None:
    clock = FakeClock()
    async with open_test_broker(tmp_path, clock_s=clock) as broker:
        for name in ("one", "two", "three"):
            await broker.channels.create(ChannelKey(name, 2), ChannelInfo(), [])
            clock.move(1)
        await broker.messages.send(attrs.evolve(A, is_server=True), Draft("b", 1, b"x", flags=SYNC_ONCE))
        rows = await broker.catalog.channels(lambda row: True)
        command = ChannelKey(f"{AB.id}____cmd", 1)
        assert [row.key for row in rows] == [command, *(ChannelKey(name, 2) for name in ("three", "two", "one"))]
        assert [row.key.id for row in await broker.catalog.channels(lambda row: "t" in row.key.id)] == ["three", "two"]
        assert len(await broker.catalog.channels(lambda row: True, most=1)) == 1
        for row in rows:
            assert broker.catalog.channel(row.key) == row
            assert broker.catalog.channel_count(row.slot) == row.number
        assert sum(broker.catalog.channel_counts()) == 4


async def test_a_channel_that_was_emptied_or_deleted_is_still_listed(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await broker.channels.create(GROUP, ChannelInfo(), ["a"])
        await broker.messages.send(A, draft("g", channel_type=2))
        await broker.channels.delete(GROUP)
        row = broker.catalog.channel(GROUP)
        assert row is not None
        assert (row.info.disband, row.members, row.last_seq, row.last_time) == (True, 0, 1, 0)


async def test_devices_of_one_uid_and_of_all(tmp_path: Path) -> None:
    clock = FakeClock(1_700_000_000)
    long = "u" * 300
    async with open_test_broker(tmp_path, clock_s=clock) as broker:
        for uid, flag in (("a", 0), ("a", 1), (long, 0), ("aa", 0)):
            await broker.users.set_token(uid, flag, 1, f"token of {uid[:2]}")
            clock.move(1)
        await broker.users.set_token("a", 0, 0, "another")
        assert [(row.uid, row.flag) for row in await broker.catalog.devices()] == [
            ("aa", 0),
            (long, 0),
            ("a", 1),
            ("a", 0),
        ]
        [web, app] = await broker.catalog.devices("a")
        assert (web.flag, web.device.level, web.device.created, web.device.updated) == (
            1,
            1,
            1_700_000_001,
            1_700_000_001,
        )
        assert (app.flag, app.device.level, app.device.created, app.device.updated) == (
            0,
            0,
            1_700_000_000,
            1_700_000_004,
        )
        assert await broker.catalog.devices("nobody") == []


async def test_conversations_of_a_user_with_and_without_messages(tmp_path: Path) -> None:
    clock = FakeClock(1_700_000_000)
    async with open_test_broker(tmp_path, clock_s=clock) as broker:
        await broker.channels.create(GROUP, ChannelInfo(), ["a", "b"])
        clock.move(5)
        await broker.messages.send(A, draft("b"))
        rows = {row.conversation.channel: row for row in await broker.catalog.conversations("b")}
        assert rows.keys() == {AB, GROUP}
        assert (rows[AB].created, rows[AB].conversation.unread) == (1_700_000_005, 1)
        assert (rows[GROUP].created, rows[GROUP].conversation.last) == (1_700_000_000, None)


async def test_sizes_and_transactions(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        before, transaction = broker.catalog.size(), broker.catalog.last_transaction()
        await broker.messages.send_many(A, [draft("b", b"x" * 1000) for _ in range(500)])
        after = broker.catalog.size()
        assert before.used_bytes < after.used_bytes <= after.file_bytes
        assert after.used_bytes > 500_000
        assert after.rows >= before.rows + 1000  # a message and its entry in the commit log
        assert broker.catalog.last_transaction() > transaction
        assert broker.statistics().store_bytes == after.file_bytes
        last = broker.catalog.last_transaction()
    async with open_test_broker(tmp_path) as broker:
        assert broker.catalog.last_transaction() >= last
