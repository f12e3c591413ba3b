"""Events of messages (http-api.md, sections 6.8 and 6.9; semantics.md, section 7.2)."""

import json
import time
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from triolet_core import (
    Broker,
    ChannelInfo,
    ChannelKey,
    ChannelMismatch,
    Device,
    Draft,
    EventDraft,
    EventReceipt,
    ServerConfig,
    StreamClosed,
    StreamLimit,
    StreamState,
)
from triolet_core.config import StoreConfig, StreamConfig
from triolet_core.model import STREAMED, SYSTEM_UID, person_channel_id
from triolet_core.testing import FakeClock, MemorySession, SlowStepGuard, open_test_broker

BOT = Device(uid="bot", is_server=True)
PAIR = ChannelKey(person_channel_id("bot", "a"), 1)
GROUP = ChannelKey("g", 2)


def settings(**changes: Any) -> ServerConfig:
    return ServerConfig(stream=StreamConfig(**changes))


async def begin(broker: Broker, no: str = "n", to: str = "a", kind: int = 1) -> int:
    """Send the message that a stream belongs to; returns its id."""
    receipt = await broker.messages.send(BOT, Draft(to, kind, b"{}", client_msg_no=no, is_stream=True))
    return receipt.message_id


async def add(broker: Broker, event_id: str, kind: str, payload: Any = None, **more: Any) -> EventReceipt:
    fields = {"channel": PAIR, "client_msg_no": "n", **more}
    return await broker.streams.add(
        EventDraft(event_id=event_id, event_type=f"stream.{kind}", payload=payload, **fields)
    )


async def say(broker: Broker, event_id: str, text: str, **more: Any) -> EventReceipt:
    return await add(broker, event_id, "delta", {"kind": "text", "delta": text}, **more)


def state(broker: Broker, no: str = "n", channel: ChannelKey = PAIR) -> StreamState:
    found = broker.streams.state(channel, no)
    assert found is not None
    return found


def lanes(broker: Broker, **more: Any) -> dict[str, tuple[str, str]]:
    """Status and text of each lane."""
    shown = {}
    for lane in state(broker, **more).lanes:
        snapshot = json.loads(lane.snapshot) if lane.snapshot else ""
        shown[lane.key] = (lane.status, snapshot["text"] if isinstance(snapshot, dict) else snapshot)
    return shown


def data_of(session: MemorySession) -> list[dict[str, Any]]:
    return [json.loads(event.data) for event in session.events]


def online(broker: Broker, uid: str) -> MemorySession:
    session = MemorySession(Device(uid=uid))
    broker.presence.register(session)
    return session


# --- what events do


async def test_deltas_are_joined_and_a_close_keeps_the_text(tmp_path: Path) -> None:
    """Conformance 84."""
    async with open_test_broker(tmp_path) as broker:
        message_id = await begin(broker)
        first = await say(broker, "1", "a")
        assert (first.event_seq, first.status, first.event_key) == (0, "open", "main")
        assert (first.message_id, first.from_uid) == (message_id, "bot")
        await say(broker, "2", "b")
        assert lanes(broker) == {"main": ("open", "ab")}
        end = await add(broker, "3", "close", {"end_reason": 1})
        assert (end.event_seq, end.status) == (1, "closed")
        assert lanes(broker) == {"main": ("closed", "ab")}
        [lane] = state(broker).lanes
        assert (lane.end_reason, lane.last_event_seq) == (1, 1)


async def test_history_tells_which_messages_have_events(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        message_id = await begin(broker)
        plain = await broker.messages.send(BOT, Draft("a", 1, b"x", client_msg_no="plain"))
        await say(broker, "1", "a")
        page = broker.messages.sync(PAIR, start=0, end=0, limit=10, newer=False)
        assert [bool(message.marks & STREAMED) for message in page.messages] == [True, False]
        found = broker.streams.states(page.messages)
        assert list(found) == [message_id]
        assert found[message_id].lanes[0].snapshot == '{"kind":"text","text":"a"}'
        await say(broker, "2", "later", client_msg_no="plain")  # any message may get events
        page = broker.messages.sync(PAIR, start=0, end=0, limit=10, newer=False)
        assert list(broker.streams.states(page.messages)) == [message_id, plain.message_id]


async def test_a_snapshot_replaces_what_was_collected_and_deltas_go_on_from_it(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await begin(broker)
        await say(broker, "1", "wrong")
        receipt = await add(broker, "2", "snapshot", {"kind": "text", "text": "right"})
        assert (receipt.event_seq, receipt.status) == (1, "open")
        await say(broker, "3", "!")
        assert lanes(broker) == {"main": ("open", "right!")}


@pytest.mark.parametrize(
    ("payloads", "expected"),
    [
        ([{"kind": "json", "value": 1}, {"kind": "json", "value": 2}], {"kind": "json", "value": 2}),
        ([{"kind": "text", "delta": "a"}, [1, 2]], [1, 2]),
        ([[1], {"kind": "text", "delta": "a"}], {"kind": "text", "text": "a"}),
        ([{"kind": "text", "delta": 5}], {"kind": "text", "delta": 5}),
        ([None], None),
        ([{"kind": "text", "delta": "😀\ud800"}], {"kind": "text", "text": "😀\ud800"}),
    ],
)
async def test_of_other_kinds_the_last_delta_is_kept(tmp_path: Path, payloads: list[Any], expected: Any) -> None:
    async with open_test_broker(tmp_path) as broker:
        session = online(broker, "a")
        for n, payload in enumerate(payloads):
            await add(broker, str(n), "delta", payload)
        assert json.loads(state(broker).lanes[0].snapshot) == expected
        assert data_of(session)[-1]["payload"] == payloads[-1]


@pytest.mark.parametrize(("kind", "status"), [("close", "closed"), ("error", "error"), ("cancel", "cancelled")])
async def test_each_end_has_its_status_and_may_bring_a_text_of_its_own(tmp_path: Path, kind: str, status: str) -> None:
    async with open_test_broker(tmp_path) as broker:
        session = online(broker, "a")
        await begin(broker)
        await say(broker, "1", "a")
        payload = {"end_reason": 3, "error": "too long", "snapshot": {"kind": "text", "text": "own"}}
        assert (await add(broker, "2", kind, payload)).status == status
        [lane] = state(broker).lanes
        assert (lane.status, lane.end_reason, lane.error) == (status, 3, "too long")
        assert lanes(broker) == {"main": (status, "own")}
        assert data_of(session)[-1]["stream_status"] == status


async def test_the_end_is_told_with_the_text_that_was_collected(tmp_path: Path) -> None:
    """A device that missed the deltas has it all."""
    async with open_test_broker(tmp_path) as broker:
        await begin(broker)
        await say(broker, "1", "ab")
        late = online(broker, "a")
        await add(broker, "2", "close")
        assert data_of(late)[0]["payload"] == {"snapshot": {"kind": "text", "text": "ab"}}


async def test_a_finish_ends_every_lane(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await begin(broker)
        await say(broker, "1", "a")
        await say(broker, "2", "t", event_key="tool")
        await add(broker, "3", "error", event_key="tool")
        await say(broker, "4", "s", event_key="side")
        receipt = await add(broker, "5", "finish")
        assert (receipt.event_key, receipt.status, receipt.event_seq) == ("__finish__", "closed", 2)
        ended = {"__finish__": ("closed", ""), "main": ("closed", "a"), "side": ("closed", "s"), "tool": ("error", "t")}
        assert lanes(broker) == ended
        assert state(broker).stream.is_finished
        for key in ("main", "new"):
            with pytest.raises(StreamClosed):
                await say(broker, f"6{key}", "x", event_key=key)
        assert lanes(broker) == ended


async def test_types_do_not_mind_case(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        draft = EventDraft(channel=PAIR, client_msg_no="n", event_id="1", event_type="Stream.CLOSE")
        assert (await broker.streams.add(draft)).status == "closed"


async def test_a_custom_event_is_stored_and_leaves_the_text_alone(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        session = online(broker, "a")
        await begin(broker)
        await say(broker, "1", "a")
        draft = EventDraft(channel=PAIR, client_msg_no="n", event_id="2", event_type="Mood", payload={"is": "good"})
        receipt = await broker.streams.add(draft)
        assert (receipt.event_seq, receipt.status) == (1, "open")
        assert lanes(broker) == {"main": ("open", "a")}
        assert (session.events[-1].type, data_of(session)[-1]["payload"]) == ("Mood", {"is": "good"})
        await say(broker, "3", "b")
        assert lanes(broker) == {"main": ("open", "ab")}


async def test_numbers_rise_over_all_lanes(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await begin(broker)
        receipts = [await add(broker, str(n), "snapshot", n, event_key=f"k{n % 2}") for n in range(4)]
        assert [receipt.event_seq for receipt in receipts] == [1, 2, 3, 4]


# --- repeats and what comes too late


async def test_a_repeated_event_is_answered_as_the_first_time_and_told_once(tmp_path: Path) -> None:
    """Conformance 86; Go applies a repeated delta again."""
    async with open_test_broker(tmp_path) as broker:
        session = online(broker, "a")
        await begin(broker)
        sent = []
        for _ in range(2):
            sent.append(
                (await say(broker, "1", "Hel"), await add(broker, "2", "snapshot", {"kind": "text", "text": "Hel"}))
            )
        await say(broker, "3", "lo")
        await add(broker, "4", "close")
        again = (await say(broker, "1", "Hel"), await add(broker, "2", "snapshot"))
        for first, repeated in zip((*sent[0], *sent[0]), (*sent[1], *again), strict=True):
            assert attrs.evolve(repeated, is_new=True) == first
            assert not repeated.is_new
        assert lanes(broker) == {"main": ("closed", "Hello")}
        assert [event.id for event in session.events] == ["1", "2", "3", "4"]


async def test_a_delta_after_the_end_is_refused_and_other_events_are_ignored(tmp_path: Path) -> None:
    """Conformance 85."""
    async with open_test_broker(tmp_path) as broker:
        session = online(broker, "a")
        await begin(broker)
        await say(broker, "1", "a")
        end = await add(broker, "2", "close")
        with pytest.raises(StreamClosed):
            await say(broker, "3", "b")
        for kind in ("close", "error", "snapshot"):
            late = await add(broker, f"4{kind}", kind, {"kind": "text", "text": "late"})
            assert (late.event_seq, late.status, late.is_new) == (end.event_seq, "closed", False)
        assert lanes(broker) == {"main": ("closed", "a")}
        assert [event.id for event in session.events] == ["1", "2"]


async def test_lanes_end_one_by_one(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await begin(broker)
        await say(broker, "1", "a")
        await say(broker, "2", "t", event_key="tool")
        await add(broker, "3", "close")
        await say(broker, "4", "u", event_key="tool")
        assert lanes(broker) == {"main": ("closed", "a"), "tool": ("open", "tu")}


async def test_the_same_event_id_in_two_streams_is_two_events(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        for no in ("n", "m"):
            await begin(broker, no)
            await say(broker, "1", no, client_msg_no=no)
        assert lanes(broker) == {"main": ("open", "n")}
        assert lanes(broker, no="m") == {"main": ("open", "m")}


async def test_an_event_for_another_channel_is_refused_also_after_a_restart(tmp_path: Path) -> None:
    other = ChannelKey(person_channel_id("bot", "b"), 1)
    async with open_test_broker(tmp_path) as broker:
        await begin(broker)
        with pytest.raises(ChannelMismatch):
            await say(broker, "1", "x", channel=other)
        await say(broker, "1", "x")
    async with open_test_broker(tmp_path) as broker:
        with pytest.raises(ChannelMismatch):
            await say(broker, "2", "y", channel=other)
        assert broker.streams.state(other, "n") is None


# --- who is told


async def test_members_are_told_and_each_end_of_a_person_channel_sees_the_other(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        sessions = [online(broker, uid) for uid in ("a", "bot", "c")]
        message_id = await begin(broker)
        await say(broker, "1", "x", occurred_at=1234)
        assert [[data["channel_id"] for data in data_of(session)] for session in sessions] == [["bot"], ["a"], []]
        [event] = sessions[0].events
        assert (event.id, event.type, event.timestamp) == ("1", "stream.delta", 1234)
        assert json.loads(event.data) == {
            "client_msg_no": "n",
            "channel_id": "bot",
            "channel_type": 1,
            "from_uid": "bot",
            "message_id": message_id,
            "event_key": "main",
            "msg_event_seq": 0,
            "stream_status": "open",
            "visibility": "public",
            "payload": {"kind": "text", "delta": "x"},
        }


async def test_an_event_without_a_time_has_the_servers(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path, clock_s=FakeClock(1_700_000_000.5)) as broker:
        session = online(broker, "a")
        await begin(broker)
        await say(broker, "1", "x")
        assert session.events[0].timestamp == 1_700_000_000_500


async def test_an_event_without_a_sender_is_from_whoever_began_the_stream(tmp_path: Path) -> None:
    """In 2.2.5 it falls to the system and so into another channel once the stream has ended."""
    async with open_test_broker(tmp_path) as broker:
        assert (await say(broker, "1", "x", client_msg_no="unknown")).from_uid == SYSTEM_UID
        await begin(broker)
        assert (await add(broker, "1", "close")).from_uid == "bot"
        assert (await add(broker, "2", "close")).from_uid == "bot"
        assert (await add(broker, "3", "close", from_uid="a")).from_uid == "a"


async def test_private_events_are_told_to_their_sender_only_and_stay_private(tmp_path: Path) -> None:
    """Also when the lane is closed without saying so again: the close carries the text."""
    async with open_test_broker(tmp_path) as broker:
        peer, sender = online(broker, "a"), online(broker, "bot")
        await begin(broker)
        await say(broker, "1", "thought", event_key="mind", visibility="private")
        await say(broker, "2", "s", event_key="staff", visibility="restricted")
        await say(broker, "3", "word")
        await add(broker, "4", "close", event_key="mind")
        assert [event.id for event in peer.events] == ["2", "3"]
        assert [event.id for event in sender.events] == ["1", "2", "3", "4"]

        def keys(include_private: bool) -> list[str]:
            found, _ = broker.streams.lanes_after(
                PAIR, "n", event_key="", after=0, limit=0, include_private=include_private
            )
            return [lane.key for lane in found]

        assert keys(False) == ["main"]
        assert sorted(keys(True)) == ["main", "mind", "staff"]


async def test_a_data_source_that_is_down_does_not_lose_the_event(tmp_path: Path) -> None:
    async def fail(key: ChannelKey) -> None:
        raise RuntimeError("down")

    async with open_test_broker(tmp_path) as broker:
        with broker.hooks.subscribers.responder("source", fail, on_failure=None):
            await say(broker, "1", "a", channel=GROUP)
            assert lanes(broker, channel=GROUP) == {"main": ("open", "a")}


@pytest.mark.slow
async def test_a_large_group_is_told_without_holding_the_loop(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        uids = [f"u{n}" for n in range(5000)]
        await broker.channels.create(GROUP, ChannelInfo(), uids)
        sessions = [online(broker, uid) for uid in uids]
        await begin(broker, "n", "g", 2)
        await broker.channels.facts(GROUP)
        guard = SlowStepGuard(clock=time.thread_time)
        trio.lowlevel.add_instrument(guard)
        await add(broker, "1", "snapshot", {"kind": "text", "text": "x" * 10_000}, channel=GROUP)
        trio.lowlevel.remove_instrument(guard)
        assert guard.slow == []
        assert all(len(session.events) == 1 for session in sessions)


# --- readers


async def test_a_reader_who_joins_midway_gets_the_text_so_far_and_what_has_changed_since(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await begin(broker)
        await say(broker, "1", "a")
        await add(broker, "2", "snapshot", 1, event_key="x")
        await add(broker, "3", "close", event_key="x")

        def changed(after: int, key: str = "", limit: int = 0) -> tuple[list[str], bool]:
            found, more = broker.streams.lanes_after(
                PAIR, "n", event_key=key, after=after, limit=limit, include_private=False
            )
            return [lane.key for lane in found], more

        assert changed(0) == (["main", "x"], False)
        assert changed(2) == (["main"], False)  # open: its deltas have no number
        assert changed(0, "x") == (["x"], False)
        await add(broker, "4", "close")
        assert changed(2) == (["main"], False)
        assert changed(3) == ([], False)


async def test_pages_of_lanes_come_to_an_end_and_leave_nothing_out(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await begin(broker)
        for n in range(7):
            await say(broker, f"d{n}", "x", event_key=f"open{n}")
        for n in range(5):
            await add(broker, f"s{n}", "snapshot", n, event_key=f"key{n}")
        seen: list[str] = []
        after, more = 0, True
        while more:
            found, more = broker.streams.lanes_after(
                PAIR, "n", event_key="", after=after, limit=2, include_private=False
            )
            seen += [lane.key for lane in found if lane.key not in seen]
            after = max(lane.last_event_seq for lane in found)
        assert sorted(seen) == sorted([f"open{n}" for n in range(7)] + [f"key{n}" for n in range(5)])
        await add(broker, "end", "finish")  # closes all of them under one number
        found, more = broker.streams.lanes_after(PAIR, "n", event_key="", after=5, limit=2, include_private=False)
        assert (len(found), more) == (13, False)


async def test_a_stream_that_does_not_exist_has_no_lanes(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        assert broker.streams.state(PAIR, "n") is None
        assert broker.streams.lanes_after(PAIR, "n", event_key="", after=0, limit=0, include_private=True) == (
            [],
            False,
        )


# --- bounds


async def test_a_stream_takes_so_many_events_and_can_still_be_ended(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path, settings(max_chunks_per_stream=2)) as broker:
        await begin(broker)
        await say(broker, "1", "a")
        await say(broker, "2", "b")
        for kind, key in (("delta", "main"), ("snapshot", "main"), ("close", "another")):
            with pytest.raises(StreamLimit, match="maxChunksPerStream"):
                await add(broker, f"3{kind}", kind, event_key=key)
        assert (await add(broker, "4", "close")).status == "closed"
        assert (await add(broker, "5", "finish")).status == "closed"


@pytest.mark.parametrize("kind", ["delta", "snapshot", "close"])
async def test_a_text_is_bounded_in_bytes_and_what_is_too_long_changes_nothing(tmp_path: Path, kind: str) -> None:
    long = {"kind": "text", "delta": "é" * 50}
    payload = {"snapshot": long} if kind == "close" else long
    async with open_test_broker(tmp_path, settings(max_memory_size=100)) as broker:
        await begin(broker)
        await say(broker, "1", "short")
        with pytest.raises(StreamLimit, match="maxMemorySize"):
            await add(broker, "2", kind, payload)
        assert lanes(broker) == {"main": ("open", "short")}
        await say(broker, "2", "er")
        assert lanes(broker) == {"main": ("open", "shorter")}


async def test_so_many_streams_may_be_open_and_other_events_still_pass(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path, settings(max_streams=2)) as broker:
        for no in ("1", "2"):
            await say(broker, "1", "a", client_msg_no=no)
        with pytest.raises(StreamLimit, match="maxStreams"):
            await say(broker, "1", "a", client_msg_no="3")
        await say(broker, "2", "b", client_msg_no="1")
        custom = EventDraft(channel=PAIR, client_msg_no="3", event_id="c", event_type="custom")
        assert (await broker.streams.add(custom)).event_seq == 1
        await add(broker, "3", "close", client_msg_no="1")
        await say(broker, "1", "a", client_msg_no="3")
        assert lanes(broker, no="3") == {"main": ("open", "a")}


# --- restarts, silence, deletion


async def test_a_stream_goes_on_after_a_restart_in_its_middle(tmp_path: Path) -> None:
    """2.2.5 loses the open text."""
    async with open_test_broker(tmp_path) as broker:
        message_id = await begin(broker)
        await say(broker, "1", "a")
        await add(broker, "2", "snapshot", {"kind": "text", "text": "A"})
    async with open_test_broker(tmp_path) as broker:
        assert lanes(broker) == {"main": ("open", "A")}
        assert not (await say(broker, "1", "a")).is_new
        receipt = await say(broker, "3", "b")
        assert (receipt.message_id, receipt.event_seq, receipt.from_uid) == (message_id, 1, "bot")
        assert (await add(broker, "4", "close")).event_seq == 2
    async with open_test_broker(tmp_path) as broker:
        assert lanes(broker) == {"main": ("closed", "Ab")}
        with pytest.raises(StreamClosed):
            await say(broker, "5", "c")


async def silence(broker: Broker, clock: FakeClock, seconds: float) -> None:
    clock.move(seconds)
    await broker.streams.end_silent()


async def test_a_stream_whose_writer_is_silent_is_closed_and_told_of(tmp_path: Path) -> None:
    clock = FakeClock()
    async with open_test_broker(tmp_path, settings(chunk_inactivity_timeout=30), clock_s=clock) as broker:
        session = online(broker, "a")
        await begin(broker)
        await say(broker, "1", "a")
        await silence(broker, clock, 20)
        await say(broker, "2", "b")
        await silence(broker, clock, 20)
        assert lanes(broker) == {"main": ("open", "ab")}
        await silence(broker, clock, 10)
        assert lanes(broker) == {"main": ("closed", "ab")}
        [lane] = state(broker).lanes
        assert (lane.end_reason, lane.last_event_seq) == (2, 1)
        assert session.events[-1].type == "stream.close"
        assert data_of(session)[-1]["payload"] == {"end_reason": 2, "snapshot": {"kind": "text", "text": "ab"}}
        with pytest.raises(StreamClosed):
            await say(broker, "3", "c")
        await silence(broker, clock, 100)
        assert [event.id for event in session.events] == ["1", "2", "n:main:timeout"]


@pytest.mark.parametrize("last", ["close", "custom", "repeat", "ignored"])
async def test_the_other_lanes_of_a_silent_stream_are_closed_whatever_came_last(tmp_path: Path, last: str) -> None:
    clock = FakeClock()
    async with open_test_broker(tmp_path, clock_s=clock) as broker:
        await begin(broker)
        await say(broker, "1", "t", event_key="tool")
        await say(broker, "2", "m")
        await add(broker, "3", "close")
        if last == "custom":
            await broker.streams.add(
                EventDraft(channel=PAIR, client_msg_no="n", event_id="4", event_type="x", event_key="x")
            )
        elif last == "repeat":
            await add(broker, "3", "close")
        elif last == "ignored":
            await add(broker, "5", "cancel")
        await silence(broker, clock, 31)
        assert lanes(broker)["tool"] == ("closed", "t")


async def test_a_private_stream_that_is_silent_stays_private(tmp_path: Path) -> None:
    clock = FakeClock()
    async with open_test_broker(tmp_path, clock_s=clock) as broker:
        peer, sender = online(broker, "a"), online(broker, "bot")
        await begin(broker)
        await say(broker, "1", "x", visibility="private")
        await silence(broker, clock, 31)
        assert peer.events == []
        assert [event.id for event in sender.events] == ["1", "n:main:timeout"]


async def test_a_writer_that_falls_silent_during_a_restart_is_noticed(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The server's own task ends the stream, on its own clock."""
    config = settings(chunk_inactivity_timeout=30, cleanup_interval=5)
    base = 1_700_000_000.0

    def now() -> float:
        return base + autojump_clock.current_time()

    async with open_test_broker(tmp_path, config, clock_s=now) as broker:
        await begin(broker)
        await say(broker, "1", "a")
    async with open_test_broker(tmp_path, config, clock_s=now) as broker:
        await trio.sleep(60)
        await broker.flush()
        assert lanes(broker) == {"main": ("closed", "a")}


async def test_the_watch_over_silent_streams_outlives_a_full_store_and_a_foreign_claim(tmp_path: Path) -> None:
    clock = FakeClock()
    config = attrs.evolve(settings(), store=StoreConfig(map_size=1 << 18))  # type: ignore[arg-type]
    async with open_test_broker(tmp_path, config, clock_s=clock) as broker:
        await begin(broker)
        await say(broker, "1", "a")
        broker.streams.remember(GROUP, "n")
        with pytest.raises(ExceptionGroup):
            async with trio.open_nursery() as nursery:
                for n in range(200):
                    nursery.start_soon(fill, broker, n)
        await silence(broker, clock, 31)
        await silence(broker, clock, 31)
        assert lanes(broker)["main"][1] == "a"  # closed or, without room, still open: but nothing fell over


async def fill(broker: Broker, n: int) -> None:
    receipt = await broker.messages.send(BOT, Draft("z", 1, b"x" * 4000))
    if receipt.seq == 0:
        raise RuntimeError("full")


async def test_with_its_message_a_stream_is_gone_and_its_writer_too_late(tmp_path: Path) -> None:
    clock = FakeClock()
    async with open_test_broker(tmp_path, clock_s=clock) as broker:
        await begin(broker)
        await say(broker, "1", "secret")
        await broker.revisions.delete(PAIR, [1])
        assert broker.streams.state(PAIR, "n") is None
        with pytest.raises(StreamClosed):
            await say(broker, "2", "more")
    async with open_test_broker(tmp_path, clock_s=clock) as broker:
        with pytest.raises(StreamClosed):
            await say(broker, "2", "more")
        await trio.testing.wait_all_tasks_blocked()
        await silence(broker, clock, 31)
        assert broker.streams.state(PAIR, "n") is None
        await begin(broker)
        await say(broker, "1", "new")
        assert lanes(broker) == {"main": ("open", "new")}


async def test_a_recalled_message_keeps_nothing_of_what_was_streamed(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        message_id = await begin(broker)
        await say(broker, "1", "secret")
        await add(broker, "2", "snapshot", {"kind": "text", "text": "secret"})
        await broker.revisions.recall(PAIR, message_id, by="bot")
        assert state(broker).lanes == ()
        with pytest.raises(StreamClosed):
            await say(broker, "3", "more")
        assert not (await add(broker, "4", "close")).is_new
        plain = await broker.messages.send(BOT, Draft("a", 1, b"x", client_msg_no="plain"))
        await broker.revisions.recall(PAIR, plain.message_id, by="bot")
        with pytest.raises(StreamClosed):
            await say(broker, "1", "x", client_msg_no="plain")


async def test_a_second_stream_under_the_same_number_starts_afresh(tmp_path: Path) -> None:
    config = ServerConfig()
    config = attrs.evolve(config, message=attrs.evolve(config.message, dedupe=0))
    async with open_test_broker(tmp_path, config) as broker:
        first = await begin(broker)
        await say(broker, "1", "old")
        await add(broker, "2", "close")
        second = await begin(broker)
        assert (await say(broker, "1", "new")).message_id == second
        assert lanes(broker) == {"main": ("open", "new")}
        page = broker.messages.sync(PAIR, start=0, end=0, limit=10, newer=False)
        assert list(broker.streams.states(page.messages)) == [second]
        assert [message.message_id for message in page.messages] == [first, second]
        await broker.revisions.delete(PAIR, [1])
        assert lanes(broker) == {"main": ("open", "new")}


async def test_events_that_come_before_their_message_belong_to_it(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await say(broker, "1", "early")
        message_id = await begin(broker)
        await say(broker, "2", " bird")
        assert lanes(broker) == {"main": ("open", "early bird")}
        assert state(broker).stream.message_id == message_id


async def test_a_cancelled_writer_leaves_the_event_whole_and_watched(tmp_path: Path) -> None:
    clock = FakeClock()
    async with open_test_broker(tmp_path, clock_s=clock) as broker:
        await begin(broker)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(say, broker, "1", "a")
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await broker.flush()
        assert lanes(broker) == {"main": ("open", "a")}
        await silence(broker, clock, 31)
        assert lanes(broker) == {"main": ("closed", "a")}
