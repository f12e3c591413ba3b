"""Streams that clients write, and those who read them. Real sockets; the forms are in docs/streams.md."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import triolet_protocol as wire
from tests.integration.test_gateway import server_in
from tests.jsonclient import JsonClient, json_client
from tests.wkclient import Client, client
from triolet_core import ChannelInfo, ChannelKey, Device, Draft, EventDraft, Server, StreamState, channel_key
from triolet_core.hooks import SendRequest, Verdict
from triolet_core.model import NO_PERSIST, SETTING_STREAM, SETTING_STREAM_V1
from triolet_gateway._session import ClientSession

GROUP = ChannelKey("g", 2)


@asynccontextmanager
async def group(path: Path, *uids: str, **settings: Any) -> AsyncIterator[Server]:
    """Run a server with a group of ann and these."""
    async with server_in(path, **settings) as server:
        await server.broker.channels.create(GROUP, ChannelInfo(), ["ann", *uids])
        yield server


def state(server: Server, number: str, key: ChannelKey = GROUP) -> StreamState:
    found = server.broker.streams.state(key, number)
    assert found is not None
    return found


def text(server: Server, number: str = "s", key: ChannelKey = GROUP) -> tuple[str, str]:
    """Return the status of the main lane and the text it has collected."""
    [lane] = [each for each in state(server, number, key).lanes if each.key == "main"]
    return lane.status, json.loads(lane.snapshot or '{"text":""}')["text"]


async def event(reader: Client) -> tuple[str, Any]:
    frame = (await reader.wait_for(wire.EventReceived)).event
    return frame.type, json.loads(frame.data)["payload"]


async def say(writer: Client, payload: bytes, number: str = "", stream: str = "s", **more: Any) -> wire.SendAck:
    """Write a piece, or with an empty one the end, in a layout that names the stream."""
    return await writer.send("g", payload, channel_type=2, number=number, stream_no=stream, **more)


@pytest.mark.parametrize("setting", [SETTING_STREAM, SETTING_STREAM_V1])
@pytest.mark.parametrize("version", [2, 3, 4])
async def test_a_client_whose_layout_names_streams_writes_one(tmp_path: Path, version: int, setting: int) -> None:
    """wire-protocol.md, 2.6 and 3.3: either bit; a start is a message, a piece has no seq and readers are told."""
    async with group(tmp_path, "bob") as server, client(server) as ann, client(server) as bob:
        await ann.connect("ann", version=version)
        await bob.connect("bob")
        more: dict[str, Any] = {"setting": setting}
        start = await ann.send("g", b"hello", channel_type=2, number="s", **more)
        assert (start.reason_code, start.message_seq) == (1, 1)
        assert (await bob.receive()).client_msg_no == "s"
        for number, piece in (("p1", b"one "), ("p2", b'{"type":1,"content":"two"}')):
            ack = await say(ann, piece, number, **more)
            assert (ack.reason_code, ack.message_seq, ack.message_id) == (1, 0, start.message_id)
        assert text(server) == ("open", "one two")
        assert (await say(ann, b"", "p3", **more)).reason_code == 1
        assert [await event(bob) for _ in range(3)] == [
            ("stream.delta", {"kind": "text", "delta": "one "}),
            ("stream.delta", {"kind": "text", "delta": "two"}),
            ("stream.close", {"snapshot": {"kind": "text", "text": "one two"}}),
        ]
        assert (await say(ann, b"late", "p4", **more)).reason_code == 11
        assert (await ann.send("g", b"a message", channel_type=2)).message_seq == 2


@pytest.mark.parametrize(("family", "version"), [(wire.Family.WUKONG, 5), (wire.Family.LIMAO, 4)])
async def test_where_no_field_names_it_the_client_number_is_the_streams(
    tmp_path: Path, family: wire.Family, version: int
) -> None:
    """All SENDs of a stream have its number; the first is the message, a repeat is known by its client_seq."""
    async with group(tmp_path, "bob") as server, client(server) as ann, client(server) as bob:
        await ann.connect("ann", family=family, version=version)
        await bob.connect("bob")
        start = ann.message("g", b"hello", channel_type=2, number="s", setting=SETTING_STREAM)
        piece = ann.message("g", b"one", channel_type=2, number="s", setting=SETTING_STREAM)
        await ann.send_raw(start + piece + start + piece)
        acks = [(await ann.wait_for(wire.SendAckReceived)).sendack for _ in range(4)]
        assert [(ack.reason_code, ack.message_seq) for ack in acks] == [(1, 1), (1, 0)] * 2
        assert len({ack.message_id for ack in acks}) == 1
        assert text(server) == ("open", "one")
        await ann.send("g", b"", channel_type=2, number="s", setting=SETTING_STREAM)
        assert text(server) == ("closed", "one")
        assert (await bob.receive()).payload == b"hello"
        assert [(await event(bob))[0] for _ in range(2)] == ["stream.delta", "stream.close"]


async def write(ann: JsonClient, content: str, number: str = "", **more: Any) -> Any:
    """Send a message with the stream bit; returns its result."""
    named = {"clientMsgNo": number} if number else {}
    return await ann.send("g", content.encode(), channel_type=2, setting={"stream": True}, **named, **more)


async def test_a_json_client_names_the_stream_and_ends_it_with_its_header_bit(tmp_path: Path) -> None:
    """wire-protocol.md, section 2.2: `end` exists in JSON-RPC headers only."""
    async with group(tmp_path, "bob") as server, json_client(server) as ann, json_client(server) as bob:
        await ann.connect("ann")
        await bob.connect("bob")
        start = await write(ann, "hello", "s")
        assert start["messageSeq"] == 1
        assert await write(ann, "hello", "s") == start, "a repeated start is answered as the first"
        for number in ("p1", "p1", "p2"):
            piece = await write(ann, number, number, streamNo="s")
            assert (piece["reasonCode"], piece["messageSeq"]) == (1, 0)
        last = await write(ann, "!", streamNo="s", header={"end": True})
        assert last["reasonCode"] == 1
        assert text(server) == ("closed", "p1p2!")
        told = [await bob.wait_for(method="event") for _ in range(4)]
        assert [each["params"]["type"] for each in told] == ["stream.delta"] * 3 + ["stream.close"]


def about(number: str = "s", **more: Any) -> dict[str, Any]:
    return {"channel_id": "g", "channel_type": 2, "client_msg_no": number, **more}


DELTA = {"kind": "text", "delta": "x"}


async def test_a_json_client_writes_events(tmp_path: Path) -> None:
    """Method `event`, as the notification that readers get; lanes, and an answer to each."""
    async with group(tmp_path, "bob") as server, json_client(server) as ann, client(server) as bob:
        await ann.connect("ann")
        await bob.connect("bob")
        await write(ann, "hello", "s")

        async def add(number: str, kind: str, data: Any) -> Any:
            return (await ann.call("event", id=number, type=kind, data=data))["result"]

        good = {"client_msg_no": "s", "event_key": "main", "reason_code": 1}
        delta = await add("e1", "stream.delta", about(payload=DELTA))
        assert delta == {**good, "msg_event_seq": 0, "stream_status": "open"}
        assert await add("e1", "stream.delta", about(payload=DELTA)) == delta, "a repeat counts once"
        other = await add("e2", "stream.snapshot", json.dumps(about(event_key="k", payload=[1])))
        assert other == {**good, "event_key": "k", "msg_event_seq": 1, "stream_status": "open"}
        done = await add("e3", "stream.finish", about())
        assert done == {**good, "event_key": "__finish__", "msg_event_seq": 2, "stream_status": "closed"}
        assert (await add("e4", "stream.delta", about(payload=DELTA)))["reason_code"] == 11
        assert [(await event(bob))[0] for _ in range(3)] == ["stream.delta", "stream.snapshot", "stream.finish"]
        assert "error" in await ann.call("event", id="e5", type="other", data={})
        assert (await ann.call("ping"))["result"] == {}


async def test_a_binary_client_writes_events_and_each_is_answered(tmp_path: Path) -> None:
    async with group(tmp_path, "bob") as server, client(server) as ann, client(server) as bob:
        await ann.connect("ann")
        await bob.connect("bob")

        def frame(number: str, kind: str, data: Any) -> bytes:
            return ann.connection.send(wire.EventFrame(number, kind, 0, json.dumps(data).encode()))

        start = ann.message("g", b"hello", channel_type=2, number="s", setting=SETTING_STREAM)
        await ann.send_raw(
            start + frame("e1", "stream.delta", about(payload=DELTA)) + frame("e2", "stream.close", about())
        )
        answers = [(await ann.wait_for(wire.EventReceived)).event for _ in range(2)]
        assert [(each.id, each.type) for each in answers] == [("e1", "stream.ack"), ("e2", "stream.ack")]
        shown = [json.loads(each.data) for each in answers]
        assert [(each["reason_code"], each["stream_status"]) for each in shown] == [(1, "open"), (1, "closed")]
        assert text(server) == ("closed", "x")
        assert [(await event(bob))[0] for _ in range(2)] == ["stream.delta", "stream.close"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", 9),
        (b"\xff", 9),
        (b"[" * 5000, 9),
        (b"[]", 9),
        (b"{}", 9),
        (json.dumps(about(channel_type=True)).encode(), 9),
        (json.dumps(about(channel_type=256)).encode(), 9),
        (json.dumps(about("x" * 600)).encode(), 9),
        (json.dumps(about(channel_id=7)).encode(), 9),
        (json.dumps(about("\ud800")).encode(), 9),
        (json.dumps(about(visibility="secret")).encode(), 9),
        (json.dumps(about("none", payload=DELTA)).encode(), 11),
    ],
)
async def test_an_event_that_cannot_be_taken_is_answered_and_the_connection_goes_on(
    tmp_path: Path, data: bytes, reason: int
) -> None:
    async with group(tmp_path) as server, client(server) as ann:
        await ann.connect("ann")
        await ann.send_raw(ann.connection.send(wire.EventFrame("e", "stream.delta", 0, data)))
        answer = (await ann.wait_for(wire.EventReceived)).event
        assert json.loads(answer.data)["reason_code"] == reason
        await ann.ping()


async def test_an_event_of_no_stream_ends_the_connection(tmp_path: Path) -> None:
    """wire-protocol.md, section 8, line 35."""
    async with server_in(tmp_path) as server, client(server) as ann:
        await ann.connect("ann")
        await ann.send_raw(ann.connection.send(wire.EventFrame("e", "other", 0, b"{}")))
        await ann.wait_closed()


async def test_only_the_sender_of_the_first_message_writes_a_stream(tmp_path: Path) -> None:
    async with group(tmp_path, "bob") as server, client(server) as ann, client(server) as bob, client(server) as eve:
        for each, uid in ((ann, "ann"), (bob, "bob"), (eve, "eve")):
            await each.connect(uid, version=4)
        await ann.send("g", channel_type=2, number="s", setting=SETTING_STREAM)
        assert (await say(bob, b"x", "b1", setting=SETTING_STREAM)).reason_code == 11
        assert (await say(ann, b"x", "a1", "none", setting=SETTING_STREAM)).reason_code == 11
        assert (await eve.send("g", channel_type=2, number="e", setting=SETTING_STREAM)).reason_code == 3
        assert server.broker.metrics.values()["gateway_written_streams"] == 1
        assert (await say(eve, b"x", "e1", "e", setting=SETTING_STREAM)).reason_code == 11
        assert (await bob.send("g", channel_type=2, number="s", setting=SETTING_STREAM)).reason_code == 11
        await server.broker.channels.set_denied(GROUP, ["ann"])
        assert (await say(ann, b"x", "a2", setting=SETTING_STREAM)).reason_code == 4
        assert state(server, "s").lanes == ()


async def test_a_stream_that_the_api_began_is_written_by_its_user(tmp_path: Path) -> None:
    async with group(tmp_path) as server, client(server) as ann:
        await ann.connect("ann", version=4)
        begun = EventDraft(channel=GROUP, client_msg_no="s", event_id="0", event_type="stream.delta", payload=DELTA)
        await server.broker.messages.send(Device(uid="ann", is_server=True), Draft("g", 2, b"hi", "s", is_stream=True))
        await server.broker.streams.add(begun)
        assert (await say(ann, b"y", "p", setting=SETTING_STREAM)).reason_code == 1
        assert text(server) == ("open", "xy")


@asynccontextmanager
async def writer(server: Server, **more: Any) -> AsyncIterator[Client]:
    """Connect ann in a layout that names streams; on leaving, wait until the server has noticed that she is gone."""
    with server.broker.hooks.presence_changed.subscribe() as changes:
        async with client(server) as ann:
            await ann.connect("ann", version=4, **more)
            yield ann
        async for change in changes.receive:
            if not change.online:
                break
    await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize("says", [b"", b"half a sen"])
async def test_a_stream_whose_writer_disconnects_is_closed_and_readers_are_told(
    tmp_path: Path, mock_clock: trio.testing.MockClock, says: bytes
) -> None:
    async with group(tmp_path, "bob") as server, client(server) as bob:
        await bob.connect("bob")
        async with writer(server) as ann:
            await ann.send("g", channel_type=2, number="s", setting=SETTING_STREAM)
            if says:
                await say(ann, says, "p", setting=SETTING_STREAM)
                assert (await event(bob))[0] == "stream.delta"
        mock_clock.jump(4.9)
        await trio.testing.wait_all_tasks_blocked()
        assert [lane.status for lane in state(server, "s").lanes] == ["open"] * bool(says)
        mock_clock.jump(0.2)
        kind, payload = await event(bob)
        assert (kind, payload["end_reason"]) == ("stream.close", 3)
        assert text(server) == ("closed", says.decode())
        assert server.broker.metrics.values()["gateway_written_streams"] == 0


async def test_a_writer_who_is_back_in_time_goes_on(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    """Only what the other connection writes is its own: the stream it did not go on with is closed."""
    async with group(tmp_path, "bob") as server, client(server) as bob:
        await bob.connect("bob")
        async with writer(server) as ann:
            for number in "st":
                await ann.send("g", channel_type=2, number=number, setting=SETTING_STREAM)
            await say(ann, b"one ", "p1", setting=SETTING_STREAM)
        async with writer(server) as again:
            assert (await say(again, b"one ", "p1", setting=SETTING_STREAM)).reason_code == 1, "sent again"
            assert (await say(again, b"two", "p2", setting=SETTING_STREAM)).reason_code == 1
            mock_clock.jump(6)
            assert [(await event(bob))[0] for _ in range(3)] == ["stream.delta", "stream.delta", "stream.close"]
            assert text(server) == ("open", "one two")
            assert text(server, "t") == ("closed", "")
        mock_clock.jump(6)
        assert (await event(bob))[0] == "stream.close"
        assert text(server) == ("closed", "one two")


async def test_a_session_that_writes_no_stream_any_more_is_forgotten(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    """Another connection has gone on with its stream; or it had ended when its turn to write came."""
    async with group(tmp_path) as server, client(server) as again:
        await again.connect("ann", version=4, flag=1)
        async with writer(server) as ann:
            other, gone = server.broker.presence.sessions("ann")
            assert isinstance(other, ClientSession)
            assert isinstance(gone, ClientSession)
            streams = gone.gateway.streams
            await ann.send("g", channel_type=2, number="s", setting=SETTING_STREAM)
            assert (await say(again, b"one", "p1", setting=SETTING_STREAM)).reason_code == 1
        assert set(streams._of_session) == {other}
        streams._claim((GROUP, "s"), gone)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(6)
        await trio.testing.wait_all_tasks_blocked()
        assert not streams._of_session
        assert streams.count == 0


async def test_who_comes_midway_is_shown_what_there_is_and_then_gets_the_rest(tmp_path: Path) -> None:
    async with group(tmp_path, "bob") as server, client(server) as ann, client(server) as bob:
        await ann.connect("ann", version=4)
        await ann.send("g", channel_type=2, number="s", setting=SETTING_STREAM)
        await ann.send("eve", number="t", setting=SETTING_STREAM)
        await ann.send("eve", b"private", number="t1", stream_no="t", setting=SETTING_STREAM)
        for piece in (b"one ", b"two "):
            await say(ann, piece, piece.decode(), setting=SETTING_STREAM)
        await bob.connect("bob")
        assert await event(bob) == ("stream.snapshot", {"kind": "text", "text": "one two "})
        await say(ann, b"three", "3", setting=SETTING_STREAM)
        assert await event(bob) == ("stream.delta", {"kind": "text", "delta": "three"})
        await bob.ping()
        assert bob.waiting == []
        assert text(server, "t", channel_key("ann", "eve", 1)) == ("open", "private")


async def test_one_connection_writes_so_many_streams(tmp_path: Path) -> None:
    async with group(tmp_path, streams=2) as server, client(server) as ann:
        await ann.connect("ann", version=4)
        reasons = [
            (await ann.send("g", channel_type=2, number=each, setting=SETTING_STREAM)).reason_code for each in "abc"
        ]
        assert reasons == [1, 1, 22]
        await say(ann, b"", "end", "a", setting=SETTING_STREAM)
        assert (await ann.send("g", channel_type=2, number="c", setting=SETTING_STREAM)).reason_code == 1


async def test_pieces_count_for_the_rate_and_a_message_not_kept_begins_nothing(tmp_path: Path) -> None:
    async with group(tmp_path, rate_per_connection=0.3, rate_burst=10.0) as server, client(server) as ann:
        await ann.connect("ann", version=4)
        flags = NO_PERSIST
        assert (await ann.send("g", channel_type=2, number="n", setting=SETTING_STREAM, flags=flags)).message_seq == 0
        assert (await say(ann, b"x", "p0", "n", setting=SETTING_STREAM)).reason_code == 11
        await ann.send("g", channel_type=2, number="s", setting=SETTING_STREAM)
        assert [(await say(ann, b"x", f"p{n}", setting=SETTING_STREAM)).reason_code for n in range(2)] == [1, 22]


async def test_a_plugin_judges_pieces_as_it_judges_messages(tmp_path: Path) -> None:
    """The hook before sending may refuse a piece or replace it, whatever its form."""

    async def judge(request: SendRequest) -> Verdict | None:
        if b"bad" in request.draft.payload:
            return Verdict(reason=11)
        return Verdict(reason=1, payload=b"***") if b"rude" in request.draft.payload else None

    async with group(tmp_path) as server, json_client(server) as ann:
        await ann.connect("ann")
        await write(ann, "hello", "s")
        with server.broker.hooks.authorize_send.responder("words", judge, on_failure=None):
            reasons = [(await write(ann, each, streamNo="s"))["reasonCode"] for each in ("bad", "rude ", "fine ")]
            for number, word in enumerate(("bad", "rude")):
                data = about(payload={"kind": "text", "delta": word})
                answer = await ann.call("event", id=str(number), type="stream.delta", data=data)
                reasons.append(answer["result"]["reason_code"])
        assert reasons == [11, 1, 1, 11, 1]
        assert text(server) == ("open", "***fine ***")


async def test_a_piece_that_is_no_text_is_kept_as_it_is(tmp_path: Path) -> None:
    async with group(tmp_path) as server, client(server) as ann:
        await ann.connect("ann", version=4)
        await ann.send("g", channel_type=2, number="s", setting=SETTING_STREAM)
        await say(ann, b"\xff\xfe", "p1", setting=SETTING_STREAM)
        [lane] = state(server, "s").lanes
        assert json.loads(lane.snapshot) == {"kind": "base64", "data": "//4="}
        await say(ann, b'{"type":1,"content":"text"}', "p2", setting=SETTING_STREAM)
        assert text(server) == ("open", "text")
