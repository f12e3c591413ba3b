"""Read positions and unread counts (semantics.md, section 3; docs/conversations.md)."""

from pathlib import Path

import attrs
import pytest

from triolet_core import RED_DOT, SYNC_ONCE, Broker, ChannelInfo, ChannelKey, Device, Draft, ReasonCode, ServerConfig
from triolet_core.config import CompatConfig, ConversationConfig
from triolet_core.model import NO_PERSIST, person_channel_id
from triolet_core.store._records import Position, decode_position, encode_position
from triolet_core.testing import FakeClock, draft, open_test_broker

A, B = Device(uid="a"), Device(uid="b")
AB = ChannelKey(person_channel_id("a", "b"), 1)
GROUP = ChannelKey("g", 2)


async def say(broker: Broker, sender: Device, *, flags: int = RED_DOT, expire: int = 0) -> None:
    to = "b" if sender is A else "a"
    receipt = await broker.messages.send(sender, Draft(to, 1, b"x", flags=flags, expire=expire))
    assert receipt.reason == ReasonCode.SUCCESS


def shown(broker: Broker, uid: str = "a") -> tuple[int, int]:
    """Unread count and read position."""
    found = broker.conversations.get(uid, AB)
    assert found is not None
    return found.unread, found.read_to


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (1, 1), (3, 3), (4, 4), (5, 4), (10**30, 4), (-1, 0)])
async def test_an_unread_count_is_set_to_what_was_asked_or_all_there_is(
    tmp_path: Path, count: int, expected: int
) -> None:
    """Also above the user's own newest message, which 2.2.5 never goes back behind."""
    async with open_test_broker(tmp_path) as broker:
        for sender in (B, B, A, B, A, B, A):
            await say(broker, sender)
        assert shown(broker) == (0, 7)
        await broker.conversations.set_unread("a", AB, count)
        assert shown(broker)[0] == expected
    async with open_test_broker(tmp_path) as broker:
        assert shown(broker)[0] == expected
        await say(broker, B)
        assert shown(broker)[0] == expected + 1
        await say(broker, A)
        assert shown(broker) == (0, 9)


async def test_the_steps_in_the_documentation(tmp_path: Path) -> None:
    """docs/conversations.md, the table."""
    async with open_test_broker(tmp_path) as broker:
        for _ in range(5):
            await say(broker, B)
        assert shown(broker)[0] == 5
        await broker.conversations.mark_read("a", AB)
        assert shown(broker)[0] == 0
        await broker.conversations.set_unread("a", AB, 3)
        assert shown(broker)[0] == 3
        await say(broker, A)
        assert shown(broker)[0] == 0
        await broker.conversations.set_unread("a", AB, 2)
        assert shown(broker)[0] == 2
        await broker.conversations.set_unread("a", AB, 100)
        assert shown(broker)[0] == 5
        await broker.revisions.delete(AB, [5])
        assert shown(broker)[0] == 4
        await broker.revisions.delete(AB, [6])
        assert shown(broker)[0] == 4
        await broker.conversations.delete("a", AB)
        assert broker.conversations.list("a") == []
        await say(broker, B)
        assert shown(broker)[0] == 1


async def test_reading_on_after_a_count_was_set(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        for sender in (B, A, B, B, A):
            await say(broker, sender)
        await broker.conversations.set_unread("a", AB, 3)
        assert shown(broker) == (3, 0)
        await broker.conversations.mark_read("a", AB, 1)
        assert shown(broker) == (2, 1)
        await broker.conversations.mark_read("a", AB, 3)
        assert shown(broker) == (1, 3)
        await broker.conversations.mark_read("a", AB, 2)
        assert shown(broker) == (1, 3)
        await broker.conversations.mark_read("a", AB, 99)
        assert shown(broker) == (0, 5)


async def test_with_red_dots_a_count_is_set_in_messages_that_have_one(tmp_path: Path) -> None:
    config = ServerConfig(compat=CompatConfig(profile="limaoim"))
    async with open_test_broker(tmp_path, config) as broker:
        for flags in (RED_DOT, 0, RED_DOT, 0, 0):
            await say(broker, B, flags=flags)
        assert shown(broker) == (2, 0)
        await broker.conversations.set_unread("a", AB, 1)
        assert shown(broker) == (1, 2)
        await broker.conversations.set_unread("a", AB, 5)
        assert shown(broker)[0] == 2


async def test_deleted_messages_are_not_set_unread(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        for _ in range(3):
            await say(broker, B)
        await broker.conversations.delete("a", AB)
        assert broker.conversations.list("a") == []
        await say(broker, B)
        await broker.conversations.set_unread("a", AB, 9)
        assert shown(broker) == (1, 3)
        await broker.revisions.delete(AB, [4])
        await say(broker, B)
        await say(broker, B)
        await broker.conversations.set_unread("a", AB, 2)
        assert shown(broker)[0] == 2


async def test_an_expired_message_is_neither_unread_nor_the_newest(tmp_path: Path) -> None:
    """Also before retention has deleted it."""
    clock = FakeClock()
    async with open_test_broker(tmp_path, clock_s=clock) as broker:
        await say(broker, B)
        await say(broker, B, expire=10)
        assert shown(broker)[0] == 2
        clock.move(10)
        assert shown(broker)[0] == 1
        [item] = broker.conversations.list("a")
        assert item.last is not None
        assert item.last.seq == 1
        await broker.retention.sweep_all()
        assert shown(broker)[0] == 1


async def test_an_own_message_that_expired_still_says_that_its_sender_had_read(tmp_path: Path) -> None:
    clock = FakeClock()
    async with open_test_broker(tmp_path, clock_s=clock) as broker:
        await say(broker, B)
        await say(broker, A, expire=10)
        await say(broker, B)
        for _ in range(2):
            assert shown(broker) == (1, 2)
            clock.move(10)
            await broker.retention.sweep_all()
        assert shown(broker) == (1, 2)


async def test_neither_commands_nor_what_is_not_kept_make_a_conversation(tmp_path: Path) -> None:
    """Conformance 65."""
    async with open_test_broker(tmp_path) as broker:
        await broker.messages.send(A, Draft("b", 1, b"x", flags=NO_PERSIST))
        await broker.messages.send(attrs.evolve(A, is_server=True), Draft("b", 1, b"x", flags=SYNC_ONCE))
        live = ChannelKey("live", 9)
        await broker.channels.create(live, ChannelInfo(), ["a", "b"])
        await broker.messages.send(A, draft("live", channel_type=9))
        assert broker.conversations.list("a") == broker.conversations.list("b") == []


async def test_conversations_are_listed_by_their_newest_message_up_to_a_number(tmp_path: Path) -> None:
    config = ServerConfig(conversation=ConversationConfig(user_max_count=3))
    async with open_test_broker(tmp_path, config) as broker:
        for peer in "bcdebc":
            await broker.messages.send(A, draft(peer))

        def peers(limit: int | None = None) -> list[str]:
            found = broker.conversations.list("a", limit=limit)
            return [each.channel.id.replace("a", "").replace("@", "") for each in found]

        assert peers() == ["c", "b", "e"]
        assert peers(1) == ["c"]
        assert peers(100) == ["c", "b", "e"]
        assert broker.conversations.list("nobody") == []


async def test_changes_of_what_does_not_exist_change_nothing(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await broker.conversations.mark_read("a", AB)
        await broker.conversations.set_unread("a", AB, 3)
        await broker.conversations.delete("a", AB)
        assert broker.conversations.get("a", AB) is None
        assert broker.conversations.unread("a", AB) == 0


async def test_conversations_can_be_switched_off(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path, ServerConfig(conversation=ConversationConfig(on=False))) as broker:
        await say(broker, B)
        assert broker.conversations.list("a") == []


@pytest.mark.parametrize("set_at", [0, 1, 2**62])
@pytest.mark.parametrize("channel_id", ["b@a", "群", "x" * 1025])
def test_a_position_is_read_as_it_was_written(set_at: int, channel_id: str) -> None:
    key = ChannelKey(channel_id, 200)
    position = Position(channel=key, read_to=2**62, deleted_to=2**62, set_at=set_at, created=1, updated=2**32 - 1)
    assert decode_position(encode_position(position)) == position
