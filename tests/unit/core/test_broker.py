from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from triolet_core import ChannelInfo, ChannelKey, Device, Draft, ReasonCode, ServerConfig
from triolet_core.hooks import Hooks, SendRequest, Verdict
from triolet_core.model import NO_PERSIST, RED_DOT, SYNC_ONCE, person_channel_id
from triolet_core.testing import MemorySession, draft, open_test_broker

A, B, C = (Device(uid=uid, device_id=f"{uid}1") for uid in "abc")
AB = ChannelKey(person_channel_id("a", "b"), 1)
GROUP = ChannelKey("g", 2)


async def test_a_person_message_reaches_the_receiver_and_the_senders_other_device(tmp_path: Path) -> None:
    """Conformance 21, 37, 38."""
    async with open_test_broker(tmp_path) as broker:
        here, other, peer = MemorySession(A), MemorySession(attrs.evolve(A, flag=1)), MemorySession(B)
        for session in (here, other, peer):
            broker.presence.register(session)
        receipts: list[tuple[int, int]] = []
        await broker.messages.submit(A, [draft("b")], lambda rs: receipts.extend((r.reason, r.seq) for r in rs), here)
        await broker.flush()
        assert receipts == [(1, 1)]
        assert [m.payload for m in peer.received] == [b"hello"]
        assert [m.payload for m in other.received] == [b"hello"]
        assert here.received == []


async def test_both_directions_share_one_line_of_sequences(tmp_path: Path) -> None:
    """Conformance 40."""
    async with open_test_broker(tmp_path) as broker:
        seqs = [(await broker.messages.send(d, draft(to))).seq for d, to in ((A, "b"), (B, "a"), (A, "b"))]
        assert seqs == [1, 2, 3]


async def test_a_group_of_a_thousand_gets_every_message_once_and_in_order_from_two_senders(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        uids = [f"u{n}" for n in range(1000)]
        await broker.channels.create(GROUP, ChannelInfo(), [*uids, "a", "b"])
        sessions = [MemorySession(Device(uid=uid)) for uid in uids]
        for session in sessions:
            broker.presence.register(session)
        async with trio.open_nursery() as nursery:
            for sender in (A, B):
                nursery.start_soon(send_hundred, broker, sender)
        await broker.flush()
        expected = list(range(1, 201))
        assert all([m.seq for m in session.received] == expected for session in sessions)


async def test_channels_with_common_members_share_writes_and_keep_their_order(tmp_path: Path) -> None:
    """One push for each session and wake; those who get the same get it together."""
    async with open_test_broker(tmp_path) as broker:
        groups = [ChannelKey(f"g{n}", 2) for n in range(3)]
        members = {"g0": ["a", "b", "c"], "g1": ["b", "c"], "g2": ["a", "c"]}
        for key in groups:
            await broker.channels.create(key, ChannelInfo(), members[key.id])
        sessions = {device.uid: MemorySession(device) for device in (A, B, C)}
        for session in sessions.values():
            broker.presence.register(session)
        sender = Device(uid="s", is_server=True)
        drafts = [draft(f"g{n % 3}", str(n).encode(), channel_type=2) for n in range(30)]
        await broker.messages.send_many(sender, drafts)
        await broker.flush()
        for uid, session in sessions.items():
            for number in range(3):
                expected = [str(n).encode() for n in range(number, 30, 3)] if uid in members[f"g{number}"] else []
                assert [m.payload for m in session.received if m.channel.id == f"g{number}"] == expected
            assert session.pushes <= 3, "a push for each lane at most"


async def send_hundred(broker: object, sender: Device) -> None:
    for n in range(10):
        drafts = [draft("g", f"{n} {i}".encode(), channel_type=2) for i in range(10)]
        await broker.messages.send_many(sender, drafts)  # type: ignore[attr-defined]


async def test_what_is_not_to_be_kept_is_delivered_with_seq_0_and_not_stored(tmp_path: Path) -> None:
    """Conformance 41."""
    async with open_test_broker(tmp_path) as broker:
        peer = MemorySession(B)
        broker.presence.register(peer)
        receipt = await broker.messages.send(A, Draft("b", 1, b"x", flags=NO_PERSIST))
        await broker.flush()
        assert (receipt.reason, receipt.seq) == (1, 0)
        assert [m.seq for m in peer.received] == [0]
        assert broker.messages.max_seq(AB) == 0


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        ({}, ReasonCode.SUBSCRIBER_NOT_EXIST),
        ({"members": ["a", "b"]}, ReasonCode.SUCCESS),
        ({"members": ["b"]}, ReasonCode.SUBSCRIBER_NOT_EXIST),
        ({"members": ["a"], "denied": ["a"]}, ReasonCode.IN_BLACKLIST),
        ({"members": ["a", "b"], "allowed": ["b"]}, ReasonCode.NOT_IN_WHITELIST),
        ({"members": ["a"], "info": ChannelInfo(ban=True, disband=True)}, ReasonCode.BAN),
        ({"members": ["a"], "info": ChannelInfo(disband=True)}, ReasonCode.DISBAND),
    ],
)
async def test_group_refusals(tmp_path: Path, prepare: dict[str, object], expected: ReasonCode) -> None:
    """Conformance 25 to 29."""
    async with open_test_broker(tmp_path) as broker:
        if "members" in prepare:
            await broker.channels.create(GROUP, prepare.get("info", ChannelInfo()), prepare["members"])  # type: ignore[arg-type]
        if "denied" in prepare:
            await broker.channels.add_denied(GROUP, prepare["denied"])  # type: ignore[arg-type]
        if "allowed" in prepare:
            await broker.channels.add_allowed(GROUP, prepare["allowed"])  # type: ignore[arg-type]
        receipt = await broker.messages.send(A, draft("g", channel_type=2))
        assert receipt.reason == expected
        assert (receipt.seq > 0) == (expected == ReasonCode.SUCCESS)
        assert receipt.message_id > 0


async def test_a_change_of_members_counts_for_the_next_message(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await broker.channels.create(GROUP, ChannelInfo(), ["a"])
        peer = MemorySession(B)
        broker.presence.register(peer)
        await broker.messages.send(A, draft("g", b"1", channel_type=2))
        await broker.channels.add_members(GROUP, ["b"])
        await broker.messages.send(A, draft("g", b"2", channel_type=2))
        await broker.flush()
        await broker.channels.remove_members(GROUP, ["b"])
        await broker.messages.send(A, draft("g", b"3", channel_type=2))
        await broker.flush()
        assert [m.payload for m in peer.received] == [b"2"]


async def test_denylist_of_a_person_and_system_accounts(tmp_path: Path) -> None:
    """Conformance 22, 31."""
    async with open_test_broker(tmp_path) as broker:
        await broker.channels.add_denied(ChannelKey("b", 1), ["a"])
        assert (await broker.messages.send(A, draft("b"))).reason == ReasonCode.IN_BLACKLIST
        assert (await broker.messages.send(B, draft("a"))).reason == ReasonCode.SUCCESS
        await broker.users.add_system_uids(["a"])
        assert (await broker.messages.send(A, draft("b"))).reason == ReasonCode.SUCCESS


async def test_unread_counts(tmp_path: Path) -> None:
    """Conformance 59 to 62, 64."""
    async with open_test_broker(tmp_path) as broker:
        for _ in range(5):
            await broker.messages.send(B, Draft("a", 1, b"x", flags=RED_DOT))
        [item] = broker.conversations.list("a")
        assert (item.unread, item.last and item.last.seq) == (5, 5)
        assert broker.conversations.unread("b", AB) == 0
        await broker.conversations.mark_read("a", AB)
        assert broker.conversations.unread("a", AB) == 0
        await broker.conversations.set_unread("a", AB, 3)
        assert broker.conversations.unread("a", AB) == 3
        await broker.messages.send(A, draft("b"))
        assert broker.conversations.unread("a", AB) == 0
        await broker.conversations.delete("a", AB)
        assert broker.conversations.list("a") == []
        await broker.messages.send(B, draft("a"))
        assert [c.unread for c in broker.conversations.list("a")] == [1]


async def test_who_joins_late_has_nothing_unread(tmp_path: Path) -> None:
    """Conformance 64."""
    async with open_test_broker(tmp_path) as broker:
        await broker.channels.create(GROUP, ChannelInfo(), ["a"])
        for _ in range(10):
            await broker.messages.send(A, draft("g", channel_type=2))
        await broker.channels.add_members(GROUP, ["b"])
        assert broker.conversations.unread("b", GROUP) == 0
        await broker.messages.send(A, draft("g", channel_type=2))
        assert broker.conversations.unread("b", GROUP) == 1


async def test_a_deleted_channel_that_is_created_again_goes_on_counting(tmp_path: Path) -> None:
    """Conformance 35."""
    async with open_test_broker(tmp_path) as broker:
        await broker.channels.create(GROUP, ChannelInfo(), ["a"])
        await broker.messages.send(A, draft("g", channel_type=2))
        await broker.channels.delete(GROUP)
        assert (await broker.messages.send(A, draft("g", channel_type=2))).reason == ReasonCode.DISBAND
        await broker.channels.create(GROUP, ChannelInfo(), ["a"])
        assert (await broker.messages.send(A, draft("g", channel_type=2))).seq == 2
        assert [m.seq for m in broker.messages.sync(GROUP, start=0, end=0, limit=10, newer=True).messages] == [2]


@pytest.mark.parametrize(
    ("start", "end", "newer", "limit", "seqs", "more"),
    [
        (0, 0, False, 3, [8, 9, 10], True),
        (10, 6, False, 2, [9, 10], True),
        (3, 0, True, 2, [3, 4], True),
        (5, 10, False, 5, [], False),
        (0, 5, False, 5, [], False),
        (3, 6, True, 10, [3, 4, 5], False),
        (5, 0, False, 3, [3, 4, 5], True),
        (20, 0, False, 2, [9, 10], True),
        (9, 0, True, 10, [9, 10], False),
    ],
)
async def test_history_windows(
    tmp_path: Path, start: int, end: int, newer: bool, limit: int, seqs: list[int], more: bool
) -> None:
    """Conformance 51 to 54; semantics.md, 2.9."""
    async with open_test_broker(tmp_path) as broker:
        await broker.messages.send_many(A, [draft("b") for _ in range(10)])
        page = broker.messages.sync(AB, start=start, end=end, limit=limit, newer=newer)
        assert ([m.seq for m in page.messages], page.more) == (seqs, more)


async def test_a_hook_may_refuse_or_replace(tmp_path: Path) -> None:
    """Conformance 96."""

    async def answer(request: SendRequest) -> Verdict | None:
        if b"no" in request.draft.payload:
            return Verdict(reason=ReasonCode.NOT_ALLOW_SEND)
        return Verdict(reason=ReasonCode.SUCCESS, payload=b"***")

    async with open_test_broker(tmp_path) as broker:
        with broker.hooks.authorize_send.responder("words", answer, on_failure=None):
            assert (await broker.messages.send(A, draft("b", b"no"))).reason == ReasonCode.NOT_ALLOW_SEND
            await broker.messages.send(A, draft("b", b"yes"))
        page = broker.messages.sync(AB, start=0, end=0, limit=10, newer=True)
        assert [m.payload for m in page.messages] == [b"***"]


async def test_a_failing_datasource_is_a_system_error_and_heals(tmp_path: Path) -> None:
    """Conformance 77, 79."""
    fails = True

    async def members(key: ChannelKey) -> list[str]:
        if fails:
            raise RuntimeError("down")
        return ["a", "b"]

    async with open_test_broker(tmp_path) as broker:
        with broker.hooks.subscribers.responder("source", members, on_failure=None):
            assert (await broker.messages.send(A, draft("g", channel_type=2))).reason == ReasonCode.SYSTEM_ERROR
            fails = False
            assert (await broker.messages.send(A, draft("g", channel_type=2))).reason == ReasonCode.SUCCESS


async def test_the_commit_log_has_every_message_in_order_for_each_consumer(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        for n in range(3):
            await broker.messages.send(A, draft("b", str(n).encode()))
        first = broker.commits.read(0, 2)
        assert [m.payload for m in first] == [b"0", b"1"]
        await broker.commits.acknowledge("webhook", first[-1].message_id)
    async with open_test_broker(tmp_path) as broker:
        position = broker.commits.position("webhook")
        assert [m.payload for m in broker.commits.read(position, 10)] == [b"2"]


async def test_the_commit_log_gives_no_more_bytes_than_asked_for_but_at_least_a_message(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        for size in (10, 20, 30):
            await broker.messages.send(A, draft("b", b"x" * size))
        await broker.settled(lambda: None)
        assert [len(m.payload) for m in broker.commits.read(0, 10, max_bytes=30)] == [10, 20]
        assert [len(m.payload) for m in broker.commits.read(0, 10, max_bytes=1)] == [10]
        assert broker.commits.end() == broker.commits.read(0, 10)[-1].message_id


async def test_a_consumer_sees_no_seam_between_memory_and_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triolet_core._commits.KEPT_MESSAGES", 8)
    async with open_test_broker(tmp_path) as broker:
        log, sent = broker.commits, []
        for n in range(40):
            sent.append((await broker.messages.send(A, draft("b", str(n).encode()))).message_id)
            for start in range(max(0, n - 25), n + 1):
                assert [m.message_id for m in log.read(sent[start], 3)] == sent[start + 1 : start + 4]
        assert [m.message_id for m in log.read(0, 100)] == sent
        assert log.read(sent[-1], 10) == []
        assert (log.appended_count, log.appended_bytes) == (40, 10 + 60)


async def test_a_log_that_somebody_follows_again_has_what_was_committed_meanwhile(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """What nobody follows is not kept in memory."""
    async with open_test_broker(tmp_path) as broker:
        log, sent = broker.commits, [0]
        for pause_s in (0, 100, 0, 100):
            assert log.read(sent[-1], 10) == []
            await trio.sleep(pause_s)
            for _ in range(3):
                sent.append((await broker.messages.send(A, draft("b"))).message_id)
            assert [m.message_id for m in log.read(sent[-4], 10)] == sent[-3:]
        assert [m.message_id for m in log.read(0, 100)] == sent[1:]


async def test_a_position_is_kept_that_is_committed_together_with_what_needs_a_transaction(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(broker.channels.create, GROUP, ChannelInfo(), ["a"])
            nursery.start_soon(broker.commits.acknowledge, "webhook", 77)
        assert broker.commits.position("webhook") == 77


async def test_messages_that_were_wiped_are_not_in_the_log_and_no_other_is_missing(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await broker.channels.create(GROUP, ChannelInfo(), ["a"])
        await broker.messages.send(A, draft("g", b"wiped", channel_type=2))
        await broker.messages.send(A, draft("b", b"kept"))
        await broker.channels.delete(GROUP)
        assert [m.payload for m in broker.commits.read(0, 10)] == [b"kept"]


async def test_a_recalled_message_is_read_as_it_is_now_and_hides_no_other(tmp_path: Path) -> None:
    """A consumer that is behind sees every message of the channel, the recalled one without its payload."""
    async with open_test_broker(tmp_path) as broker:
        receipts = [await broker.messages.send(A, draft("b", text)) for text in (b"1", b"2", b"3")]
        await broker.revisions.recall(AB, receipts[1].message_id, by="a")
        await broker.flush()
        found = {m.message_id: m.payload for m in broker.commits.read(0, 10)}
        assert [found[receipt.message_id] for receipt in receipts] == [b"1", b"", b"3"]


async def test_the_listed_users_of_a_message_are_kept_with_it(tmp_path: Path) -> None:
    """A message to `subscribers` has no members to ask for afterwards (semantics.md, section 2.7)."""
    server = Device(uid="a", is_server=True)
    async with open_test_broker(tmp_path) as broker:
        await broker.messages.send(server, Draft("0f@tmp", 8, b"x", to_uids=("b", "c")))
        await broker.messages.send(server, Draft("7____cmd", 8, b"x", flags=SYNC_ONCE, to_uids=("d",)))
    async with open_test_broker(tmp_path) as broker:
        uids = [await broker.channels.recipients(message.channel) for message in broker.commits.read(0, 10)]
        assert uids == [{"b", "c"}, {"d"}]


async def test_a_responder_may_have_a_deadline_and_a_bound_of_its_own(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async def never(request: SendRequest) -> Verdict | None:
        await trio.sleep_forever()
        raise AssertionError

    ask = Hooks().authorize_send
    question = SendRequest(sender=A, channel=AB, draft=draft("b"))
    verdict = Verdict(reason=ReasonCode.SUCCESS)
    with ask.responder("slow", never, on_failure=lambda _: verdict, deadline_s=0.3, in_flight=1):
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask.ask, question)
            assert await ask.ask(question) == verdict
        assert trio.current_time() - began == pytest.approx(0.3)


def test_a_server_config_of_defaults_can_be_made() -> None:
    assert ServerConfig().message.dedupe == 600


async def test_a_change_that_meets_a_long_load_is_not_lost(tmp_path: Path) -> None:
    """A group too large to be read on the loop is being read while a member leaves."""
    async with open_test_broker(tmp_path) as broker:
        await broker.channels.create(GROUP, ChannelInfo(), [*(f"u{n}" for n in range(5000)), "a"])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(broker.channels.facts, GROUP)
            nursery.start_soon(broker.channels.remove_members, GROUP, ["a"])
        assert (await broker.messages.send(A, draft("g", channel_type=2))).reason == ReasonCode.SUBSCRIBER_NOT_EXIST


async def test_a_cancelled_sender_leaves_the_message_stored_and_the_broker_whole(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        with trio.CancelScope() as scope:
            scope.cancel()
            await broker.messages.send(A, draft("b", b"1"))
        with trio.move_on_after(0.0001):
            await broker.messages.send(A, draft("b", b"2"))
        receipt = await broker.messages.send(A, draft("b", b"3"))
        page = broker.messages.sync(AB, start=0, end=0, limit=10, newer=True)
        assert [m.seq for m in page.messages] == list(range(1, receipt.seq + 1))


async def test_a_change_whose_caller_is_cancelled_still_counts_for_the_next_message(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await broker.channels.create(GROUP, ChannelInfo(), ["a"])
        assert (await broker.messages.send(A, draft("g", channel_type=2))).reason == ReasonCode.SUCCESS
        async with trio.open_nursery() as nursery:
            nursery.start_soon(broker.channels.remove_members, GROUP, ["a"])
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await broker.flush()
        assert broker.channels.members(GROUP) == []
        assert (await broker.messages.send(A, draft("g", channel_type=2))).reason == ReasonCode.SUBSCRIBER_NOT_EXIST
