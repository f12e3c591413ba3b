"""Readers of a stream that come late, and streams whose writer is gone."""

import json
from pathlib import Path

import pytest
import trio

from tests.unit.core.test_streams import GROUP, PAIR, add, begin, data_of, lanes, online, say, settings, state
from triolet_core import BackendError, Broker, ChannelInfo, ChannelKey, EventDraft
from triolet_core.testing import FakeClock, MemorySession, open_test_broker

IN_GROUP = {"channel": GROUP, "client_msg_no": "g1"}


async def join(broker: Broker, uid: str) -> MemorySession:
    """Come online as a gateway does it."""
    session = online(broker, uid)
    await broker.streams.catch_up(session)
    return session


async def test_who_comes_late_is_shown_every_open_lane_of_his_channels(tmp_path: Path) -> None:
    """What has ended is history, and what is private or elsewhere is not his."""
    async with open_test_broker(tmp_path) as broker:
        await broker.channels.create(GROUP, ChannelInfo(), ["bot", "a"])
        await begin(broker)
        await begin(broker, "g1", "g", 2)
        await say(broker, "1", "one")
        await say(broker, "2", " two")
        await say(broker, "3", "over", event_key="k")
        await add(broker, "4", "close", {}, event_key="k")
        await say(broker, "5", "mine", event_key="p", visibility="private")
        await say(broker, "6", "ours", **IN_GROUP)
        reader = await join(broker, "a")
        assert [(each.id, each.type) for each in reader.events] == [("6", "stream.snapshot"), ("2", "stream.snapshot")]
        shown = [(each["client_msg_no"], each["channel_id"], each["payload"]["text"]) for each in data_of(reader)]
        assert shown == [("g1", "g", "ours"), ("n", "bot", "one two")]
        writer = await join(broker, "bot")
        assert [(each["channel_id"], each["event_key"]) for each in data_of(writer)] == [
            ("g", "main"),
            ("a", "main"),
            ("a", "p"),
        ]
        assert (await join(broker, "eve")).events == []


@pytest.mark.parametrize("after", range(0, 21, 3))
async def test_a_reader_that_joins_at_any_moment_has_the_text_in_the_end(tmp_path: Path, after: int) -> None:
    """A snapshot replaces what he has, a delta adds to it: nothing is missing and nothing is there twice."""
    pieces = [f"{number} " for number in range(20)]
    async with open_test_broker(tmp_path) as broker:
        await begin(broker)
        first = online(broker, "a")
        late: list[MemorySession] = []

        async def write() -> None:
            for number, piece in enumerate(pieces):
                await say(broker, str(number), piece)

        async def come() -> None:
            while len(first.events) < after:
                await trio.lowlevel.checkpoint()
            late.append(await join(broker, "a"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            nursery.start_soon(come)
        text = ""
        for event, data in zip(late[0].events, data_of(late[0]), strict=True):
            payload = data["payload"]
            text = payload["text"] if event.type == "stream.snapshot" else text + payload["delta"]
        assert text == "".join(pieces)


async def test_members_that_cannot_be_asked_for_cost_the_reader_nothing_else(tmp_path: Path) -> None:
    async def fail(key: ChannelKey) -> None:
        raise BackendError("source", "down")

    async with open_test_broker(tmp_path) as broker:
        await begin(broker)
        await say(broker, "1", "one")
        await begin(broker, "g1", "g", 2)
        await say(broker, "2", "x", **IN_GROUP)
        with broker.hooks.subscribers.responder("source", fail, on_failure=None):
            broker.channels.forget(GROUP)
            assert [each.id for each in (await join(broker, "a")).events] == ["1"]


async def test_what_is_shown_is_bounded_and_the_newest_come_first(tmp_path: Path) -> None:
    """A bot with a thousand open answers must still be able to log in."""
    async with open_test_broker(tmp_path) as broker:
        for number in range(5):
            await begin(broker, str(number))
            await say(broker, f"{number}:1", "x" * (5000 if number == 3 else 100), client_msg_no=str(number))
        reader = online(broker, "a")
        await broker.streams.catch_up(reader, room=400)
        assert [each["client_msg_no"] for each in data_of(reader)] == ["4", "2", "1"]


async def test_the_writer_hears_of_others_events_but_not_of_his_own(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await begin(broker)
        here, there = online(broker, "bot"), online(broker, "bot")
        draft = EventDraft(channel=PAIR, client_msg_no="n", event_id="1", event_type="stream.delta", payload=1)
        await broker.streams.add_all([draft], exclude=here)
        assert (here.events, [each.id for each in there.events]) == ([], ["1"])


async def test_an_abandoned_stream_is_closed_with_its_reason_and_once(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path, settings()) as broker:
        await begin(broker)
        reader = online(broker, "a")
        await say(broker, "1", "one")
        await say(broker, "2", "two", event_key="k")
        for _ in range(2):
            await broker.streams.abandon(PAIR, "n")
        assert lanes(broker) == {"main": ("closed", "one"), "k": ("closed", "two")}
        assert {lane.end_reason for lane in state(broker).lanes} == {3}
        assert [each.type for each in reader.events] == ["stream.delta"] * 2 + ["stream.close"] * 2
        assert broker.streams.open_count == 0


async def test_a_stream_abandoned_before_its_first_piece_is_closed_too(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        await begin(broker)
        reader = online(broker, "a")
        await broker.streams.abandon(PAIR, "n")
        await broker.streams.abandon(PAIR, "unknown")
        assert lanes(broker) == {"main": ("closed", "")}
        assert [json.loads(each.data)["payload"] for each in reader.events] == [{"end_reason": 3}]


async def test_a_stream_in_which_nothing_is_ever_said_is_closed(tmp_path: Path) -> None:
    """Its writer died between the message and the first piece: readers do not wait for ever."""
    clock = FakeClock()
    async with open_test_broker(tmp_path, settings(chunk_inactivity_timeout=30), clock_s=clock) as broker:
        await begin(broker)
        await begin(broker, "spoken", "a")
        reader = online(broker, "a")
        await broker.streams.end_silent()
        await say(broker, "1", "x", client_msg_no="spoken")
        await add(broker, "2", "close", {}, client_msg_no="spoken")
        clock.now += 31
        await broker.streams.end_silent()
        assert lanes(broker) == {"main": ("closed", "")}
        assert lanes(broker, no="spoken") == {"main": ("closed", "x")}
        assert data_of(reader)[-1]["payload"] == {"end_reason": 2}
        await broker.streams.end_silent()
        assert len(reader.events) == 3
