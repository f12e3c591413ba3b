"""Recall, edit and deletion of stored messages (issue 4, data life cycle)."""

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from triolet_core import (
    SYSTEM_UID,
    Broker,
    ChannelInfo,
    ChannelKey,
    Device,
    Draft,
    NotFound,
    Query,
    ReasonCode,
    Revision,
    RevisionKind,
)
from triolet_core import _revisions as revisions
from triolet_core.hooks import SendRequest, Verdict
from triolet_core.model import REVISED, SYNC_ONCE, ChannelType, person_channel_id
from triolet_core.testing import FakeClock, MemorySession, draft, open_test_broker

A, B = Device(uid="a"), Device(uid="b")
AB = ChannelKey(person_channel_id("a", "b"), 1)
GROUP = ChannelKey("g", 2)


async def say(broker: Broker, sender: Device, payload: bytes, to: str = "", kind: int = 1) -> int:
    to = to or ("b" if sender is A else "a")
    receipt = await broker.messages.send(sender, draft(to, payload, channel_type=kind))
    assert receipt.reason == ReasonCode.SUCCESS
    return receipt.message_id


def history(broker: Broker, key: ChannelKey = AB) -> list[tuple[int, bytes]]:
    page = broker.messages.sync(key, start=0, end=0, limit=10_000, newer=False)
    return [(message.seq, message.payload) for message in page.messages]


def marks(broker: Broker, key: ChannelKey = AB) -> dict[int, Revision]:
    return broker.revisions.revisions(broker.messages.sync(key, start=0, end=0, limit=100, newer=False).messages)


def told(payload: bytes) -> tuple[str, dict[str, Any]]:
    command = json.loads(payload)
    assert command["type"] == 99
    return command["cmd"], command["param"]


def queue(broker: Broker, uid: str) -> list[tuple[str, dict[str, Any]]]:
    return [told(each.message.payload) for each in broker.commands.waiting(uid)]


async def test_a_recalled_message_keeps_its_place_and_loses_its_text(tmp_path: Path) -> None:
    """Conformance 99, but that a second recall is no error."""
    clock = FakeClock()
    async with open_test_broker(tmp_path, clock_s=clock) as broker:
        ids = [await say(broker, A, str(n).encode()) for n in range(3)]
        clock.move(5)
        revision = await broker.revisions.recall(AB, ids[1], by="owner")
        assert revision == Revision(kind=RevisionKind.RECALLED, by="owner", at=int(clock.now), version=1)
        assert history(broker) == [(1, b"0"), (2, b""), (3, b"2")]
        clock.move(5)
        assert await broker.revisions.recall(AB, ids[1], by="another") == revision
        assert len(queue(broker, "b")) == 1
    async with open_test_broker(tmp_path) as broker:
        assert history(broker) == [(1, b"0"), (2, b""), (3, b"2")]
        assert marks(broker) == {ids[1]: revision}
        message = broker.messages.by_id(AB, ids[1])
        assert message is not None
        assert message.marks & REVISED
        assert broker.revisions.revision(message) == revision
        assert (message.sender, message.client_msg_no, message.timestamp) == ("a", "", 1_700_000_000)


async def test_an_edited_message_has_its_new_text_and_counts_its_edits(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        message_id = await say(broker, A, b"one")
        await broker.revisions.edit(AB, message_id, b"two", by="a")
        last = await broker.revisions.edit(AB, message_id, b"three", by="b")
        assert (last.kind, last.version, last.by) == (RevisionKind.EDITED, 2, "b")
        assert history(broker) == [(1, b"three")]
        recalled = await broker.revisions.recall(AB, message_id, by="a")
        assert recalled.version == 3
    async with open_test_broker(tmp_path) as broker:
        assert marks(broker) == {message_id: recalled}
        assert broker.commits.read(0, 1)[0].payload == b""


async def test_a_recalled_message_is_not_edited(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        message_id = await say(broker, A, b"x")
        await broker.revisions.recall(AB, message_id, by="a")
        with pytest.raises(NotFound, match="recalled"):
            await broker.revisions.edit(AB, message_id, b"y", by="a")
        assert history(broker) == [(1, b"")]


async def test_of_a_recall_and_edits_at_once_the_recall_wins(tmp_path: Path) -> None:
    """Whatever order they reach the writer in, the text is gone and stays so."""

    async def edit(broker: Broker, message_id: int, n: int) -> None:
        try:
            await broker.revisions.edit(AB, message_id, b"edit %d" % n, by="a")
        except NotFound:
            refused.append(n)

    async with open_test_broker(tmp_path) as broker:
        for _ in range(10):
            refused: list[int] = []
            message_id = await say(broker, A, b"x")
            seq = broker.messages.max_seq(AB)
            async with trio.open_nursery() as nursery:
                for n in range(3):
                    nursery.start_soon(edit, broker, message_id, n)
                    nursery.start_soon(lambda: broker.revisions.recall(AB, message_id, by="a"))  # noqa: B023  # awaited
            assert history(broker)[-1] == (seq, b"")
            [revision] = [each for each_id, each in marks(broker).items() if each_id == message_id]
            assert revision.kind is RevisionKind.RECALLED
            assert revision.version == 4 - len(refused)
        recalls = [param["message_id"] for cmd, param in queue(broker, "b") if cmd == "messageRevoke"]
        assert len(recalls) == len(set(recalls)) == 10


async def test_what_does_not_exist_in_the_channel_is_not_found(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        message_id = await say(broker, A, b"x")
        await say(broker, A, b"y", "c")
        for key, wanted in ((AB, 5), (ChannelKey(person_channel_id("a", "c"), 1), message_id), (GROUP, message_id)):
            with pytest.raises(NotFound):
                await broker.revisions.recall(key, wanted, by="a")
            with pytest.raises(NotFound):
                await broker.revisions.edit(key, wanted, b"z", by="a")
        assert queue(broker, "b") == []


async def test_online_devices_are_told_and_everybody_finds_it_in_the_queue(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await broker.channels.create(GROUP, ChannelInfo(), ["a", "b", "c"])
        online = MemorySession(B)
        broker.presence.register(online)
        ids = [await say(broker, A, str(n).encode(), "g", 2) for n in range(6)]
        await broker.revisions.recall(GROUP, ids[0], by="owner")
        await broker.revisions.edit(GROUP, ids[1], b"new", by="a")
        assert await broker.revisions.delete(GROUP, [3, 3, 99]) == 1
        assert await broker.revisions.delete_range(GROUP, 4, 5) == 2
        await broker.flush()
        commands = [message for message in online.received if message.flags & SYNC_ONCE]
        expected = [
            ("messageRevoke", {"message_id": str(ids[0]), "message_seq": 1, "by": "owner"}),
            ("messageEdit", {"message_id": str(ids[1]), "message_seq": 2, "by": "a"}),
            ("messageDelete", {"message_seqs": [3]}),
            ("messageDelete", {"first_seq": 4, "last_seq": 5}),
        ]
        assert [told(message.payload) for message in commands] == expected
        assert [message.sender for message in commands] == ["a", "a", SYSTEM_UID, SYSTEM_UID]
        assert {message.channel for message in commands} == {ChannelKey("g____cmd", 2)}
        for uid in "abc":
            assert queue(broker, uid) == expected
    async with open_test_broker(tmp_path) as broker:
        assert queue(broker, "c") == expected


@pytest.mark.parametrize("sender", ["u1", "u2", "backend"])
async def test_in_a_person_channel_one_of_its_ends_tells_the_other(tmp_path: Path, sender: str) -> None:
    """Whoever deletes: the command stands in the same conversation for both."""
    key = ChannelKey(person_channel_id("u1", "u2"), 1)
    async with open_test_broker(tmp_path) as broker:
        peers = {uid: MemorySession(Device(uid=uid)) for uid in ("u1", "u2")}
        for session in peers.values():
            broker.presence.register(session)
        speaker = Device(uid="u1" if sender == "backend" else sender)
        message_id = await say(broker, speaker, b"x", "u2" if speaker.uid == "u1" else "u1")
        if sender == "backend":
            await broker.revisions.delete(key, [1])
        else:
            await broker.revisions.recall(key, message_id, by=sender)
        await broker.flush()
        for session in peers.values():
            command = session.received[-1]
            assert command.channel == ChannelKey(f"{key.id}____cmd", 1)
            assert command.sender in ("u1", "u2")
        assert [len(queue(broker, uid)) for uid in ("u1", "u2", sender)] == [1, 1, 0 if sender == "backend" else 1]


async def test_the_answer_of_an_agent_is_recalled_in_its_own_channel(tmp_path: Path) -> None:
    """An agent channel is named by whoever wrote first; the other end may have written too."""
    key = ChannelKey("user@robot", ChannelType.AGENT)
    robot = Device(uid="robot", is_server=True)
    async with open_test_broker(tmp_path) as broker:
        receipt = await broker.messages.send(robot, Draft("user@robot", ChannelType.AGENT, b"x"))
        await broker.revisions.recall(key, receipt.message_id, by="robot")
        assert [cmd for cmd, _ in queue(broker, "user")] == ["messageRevoke"]
        assert broker.messages.max_seq(ChannelKey("user@robot____cmd", 11)) == 1


async def test_a_banned_channel_hears_of_it_too_and_hooks_are_not_asked(tmp_path: Path) -> None:
    async def refuse(request: SendRequest) -> Verdict:
        return Verdict(reason=ReasonCode.NOT_ALLOW_SEND)

    async with open_test_broker(tmp_path) as broker:
        await broker.channels.create(GROUP, ChannelInfo(), ["a", "b"])
        message_id = await say(broker, A, b"x", "g", 2)
        await broker.channels.put_info(GROUP, ChannelInfo(ban=True))
        with broker.hooks.authorize_send.responder("words", refuse, on_failure=None):
            await broker.revisions.recall(GROUP, message_id, by="owner")
        assert len(queue(broker, "b")) == 1


async def test_if_the_members_are_not_known_nothing_is_changed(tmp_path: Path) -> None:
    async def fail(key: ChannelKey) -> None:
        raise RuntimeError("down")

    async with open_test_broker(tmp_path) as broker:
        await broker.channels.create(GROUP, ChannelInfo(), ["a", "b"])
        message_id = await say(broker, A, b"x", "g", 2)
        broker.channels.forget(GROUP)
        with broker.hooks.subscribers.responder("source", fail, on_failure=None):
            for call in (
                lambda: broker.revisions.recall(GROUP, message_id, by="a"),
                lambda: broker.revisions.delete(GROUP, [1]),
            ):
                with pytest.raises(Exception, match="down"):
                    await call()
        assert history(broker, GROUP) == [(1, b"x")]
        assert queue(broker, "b") == []


# --- deletion


async def test_deleted_messages_are_gone_everywhere(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        ids = [await say(broker, A, b"word %d" % n) for n in range(4)]
        await broker.revisions.recall(AB, ids[1], by="a")
        assert await broker.revisions.delete(AB, [2, 3]) == 2
    async with open_test_broker(tmp_path) as broker:
        assert history(broker) == [(1, b"word 0"), (4, b"word 3")]
        assert [message.seq for message in broker.messages.by_seqs(AB, [1, 2, 3, 4])] == [1, 4]
        assert broker.messages.by_id(AB, ids[2]) is None
        found, _ = await broker.search.channel(AB, Query(keyword="word"), 10)
        assert [message.message_id for message in found] == [ids[0], ids[3]]
        assert {message.message_id for message in broker.commits.read(0, 10)} >= {ids[0], ids[3]}
        assert not {message.message_id for message in broker.commits.read(0, 10)} & {ids[1], ids[2]}
        assert marks(broker) == {}
        with pytest.raises(NotFound):
            await broker.revisions.recall(AB, ids[2], by="a")


@pytest.mark.parametrize("what", ["recall", "edit", "delete"])
async def test_a_consumer_of_the_commit_log_misses_no_message_beside_one_that_was_changed(
    tmp_path: Path, what: str
) -> None:
    """And of that one it gets what is left."""
    async with open_test_broker(tmp_path) as broker:
        position = broker.commits.end()
        ids = [await say(broker, A, b"%d" % n, to) for n, to in enumerate("bcbbc")]
        if what == "recall":
            await broker.revisions.recall(AB, ids[2], by="a")
        elif what == "edit":
            await broker.revisions.edit(AB, ids[2], b"new", by="a")
        else:
            await broker.revisions.delete(AB, [2])
        await say(broker, A, b"5")
        await broker.flush()
        expected = {"recall": [b"0", b"1", b"", b"3", b"4"], "edit": [b"0", b"1", b"new", b"3", b"4"]}
        found = [message.payload for message in broker.commits.read(position, 10) if not message.flags & SYNC_ONCE]
        assert found == [*expected.get(what, [b"0", b"1", b"3", b"4"]), b"5"]


@pytest.mark.parametrize("seqs", [[], [0], [-1], [2], [2**63, 2**70], [-(2**70)]])
async def test_deleting_what_is_not_there_changes_and_tells_nothing(tmp_path: Path, seqs: list[int]) -> None:
    async with open_test_broker(tmp_path) as broker:
        await say(broker, A, b"x")
        assert await broker.revisions.delete(AB, seqs) == 0
        assert await broker.revisions.delete(GROUP, [1]) == 0
        assert queue(broker, "b") == []
        assert history(broker) == [(1, b"x")]


@pytest.mark.parametrize(
    ("first", "last", "left"),
    [
        (3, 5, [1, 2, 6, 7]),
        (0, 2, [3, 4, 5, 6, 7]),
        (-(2**70), 2**70, []),
        (5, 4, [1, 2, 3, 4, 5, 6, 7]),
        (8, 20, [1, 2, 3, 4, 5, 6, 7]),
        (7, 7, [1, 2, 3, 4, 5, 6]),
    ],
)
async def test_a_range_includes_both_ends(tmp_path: Path, first: int, last: int, left: list[int]) -> None:
    async with open_test_broker(tmp_path) as broker:
        for _ in range(7):
            await say(broker, A, b"x")
        assert await broker.revisions.delete_range(AB, first, last) == 7 - len(left)
        assert [seq for seq, _ in history(broker)] == left
        assert len(queue(broker, "b")) == (len(left) < 7)


@pytest.mark.parametrize("count", [9, 10, 11, 25])
async def test_a_long_range_goes_in_pieces_and_each_tells_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(revisions, "MAX_DELETED", 10)
    async with open_test_broker(tmp_path) as broker:
        await broker.messages.send_many(A, [draft("b") for _ in range(count + 2)])
        await broker.revisions.delete(AB, [4])
        assert await broker.revisions.delete_range(AB, 2, count + 1) == count - 1
        assert [seq for seq, _ in history(broker)] == [1, count + 2]
        covered = [
            seq for _, param in queue(broker, "b")[1:] for seq in range(param["first_seq"], param["last_seq"] + 1)
        ]
        assert covered == list(range(2, count + 2))


async def test_many_listed_messages_go_in_pieces_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revisions, "MAX_DELETED", 10)
    async with open_test_broker(tmp_path) as broker:
        await broker.messages.send_many(A, [draft("b") for _ in range(25)])
        assert await broker.revisions.delete(AB, range(1, 26)) == 25
        named = [seq for _, param in queue(broker, "b") for seq in param["message_seqs"]]
        assert named == list(range(1, 26))


@pytest.mark.slow
async def test_a_range_of_more_than_ten_thousand(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        for _ in range(3):
            await broker.messages.send_many(A, [draft("b") for _ in range(4_000)])
        assert await broker.revisions.delete_range(AB, 1, 2**63) == 12_000
        assert history(broker) == []
        assert [param["last_seq"] for _, param in queue(broker, "b")] == [10_000, 2**63]


async def test_sequences_go_on_after_the_newest_message_was_deleted_and_the_store_reopened(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        for _ in range(3):
            await say(broker, A, b"x")
        await broker.revisions.delete(AB, [3])
        assert broker.messages.max_seq(AB) == 3
    async with open_test_broker(tmp_path) as broker:
        assert broker.messages.max_seq(AB) == 3
        await say(broker, A, b"y")
        assert [seq for seq, _ in history(broker)] == [1, 2, 4]
        await broker.revisions.delete_range(AB, 1, 4)
    async with open_test_broker(tmp_path) as broker:
        await say(broker, A, b"z")
        assert history(broker) == [(5, b"z")]


async def test_deleted_messages_are_no_longer_unread(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        for _ in range(5):
            await say(broker, B, b"x")
        assert broker.conversations.unread("a", AB) == 5
        await broker.revisions.delete(AB, [2, 5])
        assert broker.conversations.unread("a", AB) == 3
        [item] = broker.conversations.list("a")
        assert item.last is not None
        assert (item.last.seq, item.unread) == (4, 3)
        await broker.revisions.recall(AB, item.last.message_id, by="b")
        assert broker.conversations.unread("a", AB) == 3
        await broker.revisions.delete_range(AB, 1, 9)
        assert broker.conversations.unread("a", AB) == 0
        assert broker.conversations.list("a") == []
        await say(broker, B, b"x")
        assert [each.unread for each in broker.conversations.list("a")] == [1]


async def test_deleting_the_users_own_newest_message_makes_nothing_unread_again(tmp_path: Path) -> None:
    """Who has answered has read."""
    async with open_test_broker(tmp_path) as broker:
        await say(broker, B, b"x")
        await say(broker, A, b"y")
        await say(broker, B, b"z")
        assert broker.conversations.unread("a", AB) == 1
        await broker.revisions.delete(AB, [2])
        assert broker.conversations.unread("a", AB) == 1
    async with open_test_broker(tmp_path) as broker:
        assert broker.conversations.unread("a", AB) == 1


async def test_a_repeated_send_of_a_recalled_message_brings_it_not_back(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        send = Draft("b", 1, b"x", client_msg_no="n")
        receipt = await broker.messages.send(A, send)
        await broker.revisions.recall(AB, receipt.message_id, by="a")
        assert await broker.messages.send(A, attrs.evolve(send)) == receipt
        assert history(broker) == [(1, b"")]


async def test_an_expired_message_is_not_found(tmp_path: Path) -> None:
    clock = FakeClock()
    async with open_test_broker(tmp_path, clock_s=clock) as broker:
        receipt = await broker.messages.send(A, Draft("b", 1, b"x", expire=10))
        clock.move(10)
        with pytest.raises(NotFound):
            await broker.revisions.recall(AB, receipt.message_id, by="a")


async def test_an_edited_message_expires_as_it_was_to(tmp_path: Path) -> None:
    clock = FakeClock()
    async with open_test_broker(tmp_path, clock_s=clock) as broker:
        receipt = await broker.messages.send(A, Draft("b", 1, b"x", expire=10))
        clock.move(5)
        await broker.revisions.edit(AB, receipt.message_id, b"y", by="a")
        clock.move(5)
        assert history(broker) == []
        assert await broker.retention.sweep_all() == 1
