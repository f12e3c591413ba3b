"""Events of messages, and streams in all four forms. http-api.md, sections 6.8 to 6.12."""

import base64
import json
from pathlib import Path
from typing import Any

from tests.integration.api.conftest import Shared
from tests.integration.api.support import GROUP, HELLO, OK, Api, api_in, sent, stored
from triolet_core import Device
from triolet_core.testing import MemorySession

EVENT = {**GROUP, "client_msg_no": "n1", "from_uid": "ann"}
OLD = {**GROUP, "client_msg_no": "o1", "from_uid": "ann"}


def delta(number: str, text: str, **more: Any) -> dict[str, Any]:
    payload = {"kind": "text", "delta": text}
    return {**EVENT, "event_id": number, "event_type": "stream.delta", "payload": payload, **more}


def done(number: str, seq: int, status: str, key: str = "main") -> dict[str, Any]:
    """Return the answer to an event of n1."""
    data = {**EVENT, "event_id": number, "event_key": key, "msg_event_seq": seq, "stream_status": status}
    return {"status": 200, "data": data}


def meta(*lanes: dict[str, Any], count: int, seq: int, is_open: int = 0) -> dict[str, Any]:
    """Return the events of a message in short."""
    return {
        "has_events": True,
        "completed": not is_open,
        "event_version": count,
        "last_msg_event_seq": seq,
        "event_count": count,
        "open_event_count": is_open,
        "events": list(lanes),
    }


def lane(status: str, seq: int, key: str = "main", **more: Any) -> dict[str, Any]:
    return {"event_key": key, "status": status, **({"last_msg_event_seq": seq} if seq else {}), **more}


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def member(api: Api, *uids: str) -> list[MemorySession]:
    """Make group g and bring its members online."""
    await api.post("/channel", {**GROUP, "subscribers": ["ann", *uids]})
    sessions = [MemorySession(Device(uid=uid)) for uid in uids]
    for session in sessions:
        api.server.broker.presence.register(session)
    return sessions


async def shown(api: Api, number: str, **more: Any) -> dict[str, Any]:
    """Return a message of group g with its snapshots."""
    body = {**GROUP, "login_uid": "bob", "event_summary_mode": "full", **more}
    found = (await api.post("/channel/messagesync", body))["messages"]
    return api.shown(next(each for each in found if each["client_msg_no"] == number))


async def test_events_of_a_message(tmp_path: Path) -> None:
    """POST /message/event: deltas are joined, a repeat counts once, a close ends the lane; others are told."""
    async with api_in(tmp_path) as api:
        [bob] = await member(api, "bob")
        assert api.shown(await api.send("g", 2, is_stream=1, client_msg_no="n1")) == sent(1, "n1")
        assert await api.post("/message/event", delta("1", "Hel", occurred_at=5)) == done("1", 0, "open")
        assert await api.post("/message/event", delta("1", "Hel", occurred_at=5)) == done("1", 0, "open")
        assert await api.post("/message/event", delta("2", "lo", event_type="STREAM.Delta")) == done("2", 0, "open")
        base = stored(1, "n1", setting=2, stream_data=encoded("Hello"))
        text = {"kind": "text", "text": "Hello"}
        running = meta(lane("open", 0, snapshot=text), count=2, seq=0, is_open=1)
        assert await shown(api, "n1") == {**base, "event_meta": running}
        custom = {**EVENT, "event_id": "3", "event_type": "tool.call", "event_key": "tools", "payload": {"n": 1}}
        assert await api.post("/message/event", custom) == done("3", 1, "", "tools")
        close = {**EVENT, "event_id": "4", "event_type": "stream.close", "payload": {"end_reason": 7}}
        assert await api.post("/message/event", close) == done("4", 2, "closed")
        assert await api.post("/message/event", delta("5", "x")) == (400, "stream closed")
        assert await api.post("/message/event", {**close, "event_id": "6"}) == done("6", 2, "closed")
        lanes = [lane("closed", 2, end_reason=7, snapshot=text), lane("", 1, "tools")]
        full = {**base, "end": 1, "end_reason": 7, "event_meta": meta(*lanes, count=4, seq=2)}
        assert await shown(api, "n1") == full
        del lanes[0]["snapshot"]
        short = {**full, "event_meta": meta(*lanes, count=4, seq=2)}
        assert await shown(api, "n1", event_summary_mode="basic") == short
        told = [(each.id, each.type) for each in bob.events]
        assert told == [("1", "stream.delta"), ("2", "stream.delta"), ("3", "tool.call"), ("4", "stream.close")]
        first = bob.events[0]
        assert (first.timestamp, api.shown(json.loads(first.data))) == (
            5,
            {
                "client_msg_no": "n1",
                "channel_id": "g",
                "channel_type": 2,
                "from_uid": "ann",
                "message_id": "#1",
                "event_key": "main",
                "msg_event_seq": 0,
                "stream_status": "open",
                "visibility": "public",
                "payload": {"kind": "text", "delta": "Hel"},
            },
        )
        last = json.loads(bob.events[-1].data)
        assert last["payload"] == {"end_reason": 7, "snapshot": text}


async def test_the_lanes_of_a_message_are_fetched(tmp_path: Path) -> None:
    """POST /message/eventsync, and as the administrator: a row per lane; private ones only if asked for."""
    async with api_in(tmp_path) as api:
        [ann, bob] = await member(api, "ann", "bob")
        await api.send("g", 2, is_stream=1, client_msg_no="n1")
        await api.post("/message/event", delta("1", "Hi"))
        custom = {**EVENT, "event_type": "tool", "occurred_at": 5}
        await api.post("/message/event", {**custom, "event_id": "2", "event_key": "a"})
        await api.post("/message/event", {**custom, "event_id": "3", "event_key": "b", "visibility": "private"})

        def row(number: str, key: str, seq: int, **more: Any) -> dict[str, Any]:
            payload = {"status": "", "snapshot": None, "end_reason": 0, "error": ""}
            common = {"msg_event_seq": seq, "event_id": number, "event_key": key, "event_type": "tool"}
            return {**common, "visibility": "public", "occurred_at": 5, "payload": payload, **more}

        text = {"status": "open", "snapshot": {"kind": "text", "text": "Hi"}, "end_reason": 0, "error": ""}
        rows = [
            row("1", "main", 0, event_type="stream.delta", payload=text),
            row("2", "a", 1),
            row("3", "b", 2, visibility="private"),
        ]

        async def fetched(**query: Any) -> dict[str, Any]:
            answer = await api.post("/message/eventsync", {**EVENT, **query})
            assert await api.post("/cluster/message/eventsync", {**EVENT, **query}) == answer
            for each in answer["data"]["events"]:
                if each["event_key"] == "main":
                    each["occurred_at"] = 5
            return answer

        def answer(*events: Any, **more: Any) -> dict[str, Any]:
            seqs = [event["msg_event_seq"] for event in events]
            data = {"client_msg_no": "n1", "from_msg_event_seq": 0, "next_msg_event_seq": max(seqs), "more": 0}
            return {"status": 200, "data": {**data, "events": list(events), "filtered_by_event_key": "", **more}}

        assert await fetched() == answer(*rows[:2])
        assert await fetched(include_private=1) == answer(*rows)
        assert await fetched(event_key="a") == answer(rows[1], filtered_by_event_key="a")
        assert await fetched(limit=1, include_private=1) == answer(rows[1], more=1)
        assert await fetched(from_msg_event_seq=1, include_private=1) == answer(rows[0], rows[2], from_msg_event_seq=1)
        none = await fetched(client_msg_no="none", from_msg_event_seq=4)
        assert none["data"]["events"] == []
        assert none["data"]["next_msg_event_seq"] == 4
        assert [each.id for each in ann.events] == ["1", "2", "3"]
        assert [each.id for each in bob.events] == ["1", "2"]


async def test_the_end_of_everything_ends_every_lane(tmp_path: Path) -> None:
    async with api_in(tmp_path) as api:
        await member(api)
        await api.send("g", 2, is_stream=1, client_msg_no="n1")
        await api.post("/message/event", delta("1", "a"))
        await api.post("/message/event", delta("2", "b", event_key="other"))
        finish = {**EVENT, "event_id": "3", "event_type": "stream.finish"}
        assert await api.post("/message/event", finish) == done("3", 1, "closed", "__finish__")
        found = await api.post("/message/eventsync", EVENT)
        assert [each["payload"]["status"] for each in found["data"]["events"]] == ["closed"] * 3
        assert await api.post("/message/event", delta("4", "x", event_key="new")) == (400, "stream closed")


async def test_an_event_names_the_channel_its_stream_is_in(tmp_path: Path) -> None:
    async with api_in(tmp_path) as api:
        await api.send("g", 2, is_stream=1, client_msg_no="n1")
        refused = await api.post("/message/event", delta("1", "a", channel_id="other"))
        assert refused == (400, "message event channel mismatch")


def test_what_is_missing_in_an_event(shared: Shared) -> None:
    for name, path in (
        ("channel_id", "/message/event"),
        ("client_msg_no", "/message/event"),
        ("event_id", "/message/event"),
        ("event_type", "/message/event"),
        ("channel_id", "/message/eventsync"),
        ("client_msg_no", "/message/eventsync"),
    ):
        assert shared.post(path, delta("1", "a", **{name: ""})) == (400, f"{name}不能为空！")


async def test_a_stream_of_the_seed_document(tmp_path: Path) -> None:
    """POST /stream and /stream/chunk: text is joined; a chunk that comes twice counts once; `end` closes."""
    async with api_in(tmp_path) as api:
        [bob] = await member(api, "bob")
        begin = {**GROUP, "from_uid": "ann", "content": "hello", "client_msg_no": "s1"}
        assert api.shown(await api.post("/stream", begin)) == {**sent(1, "s1"), "stream_no": "s1"}
        body = {**GROUP, "stream_no": "s1"}

        def piece(number: str, status: str = "open") -> dict[str, Any]:
            return {"status": 200, "data": {"stream_no": "s1", "chunk_id": number, "stream_status": status}}

        assert await api.post("/stream/chunk", {**body, "content": "one "}) == piece("1")
        assert await api.post("/stream/chunk", {**body, "payload": encoded("two "), "chunk_id": 7}) == piece("7")
        assert await api.post("/stream/chunk", {**body, "content": "again", "chunk_id": "7"}) == piece("7")
        last = {**body, "content": "three", "chunk_id": "z", "end": 1, "end_reason": 3, "from_uid": "ann"}
        assert await api.post("/stream/chunk", last) == piece("z", "closed")
        base = stored(1, "s1", setting=2, end=1, end_reason=3, stream_data=encoded("one two three"))
        text = {"kind": "text", "text": "one two three"}
        summary = meta(lane("closed", 1, end_reason=3, snapshot=text), count=4, seq=1)
        assert await shown(api, "s1") == {**base, "event_meta": summary}
        assert [each.type for each in bob.events] == ["stream.delta"] * 3 + ["stream.close"]
        assert await api.post("/stream/chunk", last) == (400, "流已关闭！")
        assert await api.post("/stream/chunk", {**body, "stream_no": "none", "content": "x"}) == (400, "流不存在！")
        elsewhere = {**body, "channel_id": "other", "content": "x"}
        assert await api.post("/stream/chunk", elsewhere) == (400, "流的频道不匹配！")
        assert await api.post("/stream/chunk", {**GROUP, "content": "x"}) == (400, "stream_no不能为空！")
        assert await api.post("/stream", {**GROUP, "from_uid": "ann"}) == (400, "payload不能为空！")
        assert await api.post("/stream", {"channel_type": 2, "content": "x"}) == (400, "无法处理发送消息请求！")


async def test_a_last_chunk_that_is_refused_closes_nothing(tmp_path: Path) -> None:
    """The piece and the end are one transaction."""
    async with api_in(tmp_path) as api:
        await member(api)
        await api.post("/stream", {**GROUP, "from_uid": "ann", "content": "x", "client_msg_no": "s1"})
        before = api.server.broker.statistics().commits_total
        body = {**GROUP, "stream_no": "s1", "content": "y", "end": 1}
        assert (await api.post("/stream/chunk", body))["data"]["stream_status"] == "closed"
        assert api.server.broker.statistics().commits_total == before + 1


async def test_a_payload_that_is_no_json_text_is_a_piece_all_the_same(tmp_path: Path) -> None:
    async with api_in(tmp_path) as api:
        await member(api)
        for number, start in (("s1", "/stream"), ("v1", "/streammessage/start")):
            await api.post(start, {**GROUP, "from_uid": "ann", "payload": HELLO, "client_msg_no": number})
        half = base64.b64encode(b'{"content":"half \\ud800"}').decode()
        answer = await api.post("/stream/chunk", {**GROUP, "stream_no": "s1", "payload": half})
        assert answer["status"] == 200
        assert (await api.send("g", 2, stream_no="v1", payload=half))["status"] == 200
        assert base64.b64decode((await shown(api, "s1"))["stream_data"]) == b'{"content":"half \\ud800"}'


async def test_a_stream_as_in_1_2(tmp_path: Path) -> None:
    """POST /streammessage/start, pieces by /message/send with `stream_no`, /streammessage/end."""
    async with api_in(tmp_path) as api:
        await member(api, "bob")
        begin = {**GROUP, "from_uid": "ann", "payload": HELLO, "client_msg_no": "v1"}
        assert await api.post("/streammessage/start", begin) == {"stream_no": "v1"}
        for number, text in (("p1", "one "), ("p2", "two")):
            answer = await api.send("g", 2, stream_no="v1", client_msg_no=number, payload="", content=text)
            assert api.shown(answer) == sent(0, number)
        assert await api.post("/streammessage/end", {**GROUP, "stream_no": "v1"}) == OK
        assert await api.post("/streammessage/end", {**GROUP, "stream_no": "v1"}) == OK
        text = {"kind": "text", "text": "one two"}
        summary = meta(lane("closed", 1, snapshot=text), count=3, seq=1)
        base = stored(1, "v1", setting=2, end=1, stream_data=encoded("one two"))
        assert await shown(api, "v1") == {**base, "event_meta": summary}
        assert await api.send("g", 2, stream_no="v1") == (400, "流已关闭！")
        assert await api.send("other", 2, stream_no="v1") == (400, "流的频道不匹配！")
        assert await api.send("g", 2, stream_no="none") == (400, "流消息元数据不存在！")
        refused = await api.post("/streammessage/end", {**GROUP, "stream_no": "none"})
        assert refused == (400, "流消息元数据不存在！")
        assert await api.seqs("g") == [1]


async def test_a_stream_as_in_2_0_and_2_1(tmp_path: Path) -> None:
    """POST /stream/start and /stream/end; /stream/open and /stream/close."""
    async with api_in(tmp_path) as api:
        await member(api)
        for number, (start, end) in enumerate((("start", "end"), ("open", "close")), 1):
            begin = {**GROUP, "from_uid": "ann", "payload": HELLO, "client_msg_no": start}
            assert await api.post(f"/stream/{start}", begin) == {"stream_no": start}
            await api.send("g", 2, stream_no=start)
            assert await api.post(f"/stream/{end}", {**GROUP, "stream_no": start}) == OK
            found = await shown(api, start)
            assert (found["message_seq"], found["end"], found["stream_data"]) == (number, 1, encoded("hello"))
            assert await api.post(f"/stream/{end}", {**GROUP, "stream_no": "none"}) == (400, "流不存在！")
            wrong = {**GROUP, "channel_id": "other", "stream_no": start}
            assert await api.post(f"/stream/{end}", wrong) == (400, "流的频道不匹配！")
            assert await api.post(f"/stream/{end}", GROUP) == (400, "stream_no不能为空！")
            refused = await api.post(f"/stream/{start}", {**GROUP, "from_uid": "ann"})
            assert refused == (400, "payload不能为空！")


async def test_events_as_in_2_2_1(tmp_path: Path) -> None:
    """POST /event: devices see the types of that time; one running stream in a channel unless forced."""
    async with api_in(tmp_path) as api:
        [bob] = await member(api, "bob")

        async def event(kind: str, data: Any = "", force: int = 0, **more: Any) -> Any:
            body = {"id": "", "type": kind, "timestamp": 5, "data": data}
            return await api.post(f"/event?force={force}", {**OLD, "event": body, **more})

        assert await event("___TextMessageContent", {"delta": "a"}) == (400, "流不存在！")
        assert await event("___TextMessageStart") == OK
        assert await event("___TextMessageStart", client_msg_no="o2") == (400, "频道中已有流正在运行！")
        assert await event("___TextMessageStart", client_msg_no="o2", force=1) == OK
        assert await event("___TextMessageContent", {"delta": "Hel"}) == OK
        assert await event("___TextMessageContent", "lo") == OK
        assert await event("___TextMessageContent", "x", channel_id="other") == (400, "流的频道不匹配！")
        assert await event("___ToolCallArgs", '{"a":1}') == OK
        assert await event("___TextMessageEnd") == OK
        assert await event("___TextMessageContent", "x") == (400, "流已关闭！")
        assert await event("") == (400, "事件类型不能为空！")
        assert await event("custom", client_msg_no="") == (400, "client_msg_no不能为空！")
        kinds = ["Start", "Start", "Content", "Content", None, "End"]
        told = [f"___TextMessage{kind}" if kind else "___ToolCallArgs" for kind in kinds]
        assert [(each.type, each.timestamp) for each in bob.events] == [(kind, 5) for kind in told]
        found = await api.post("/message/eventsync", {**OLD, "event_key": "main"})
        assert [each["payload"]["snapshot"] for each in found["data"]["events"]] == [{"kind": "text", "text": "Hello"}]
