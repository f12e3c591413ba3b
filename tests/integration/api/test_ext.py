"""Our additions below /ext/v1. http-api.md, section 11."""

import base64
import json
import time
from pathlib import Path
from typing import Any

import attrs
import trio

import triolet_protocol as wire
from tests.integration.api.support import GROUP, HELLO, OK, api_in, stored
from tests.wkclient import client
from triolet_core import Device, ReasonCode, ServerConfig
from triolet_core.config import PresenceConfig
from triolet_core.testing import MemorySession


async def test_it_is_mounted_only_if_it_is_on(tmp_path: Path) -> None:
    async with api_in(tmp_path) as api:
        assert (await api.ask("POST", "/ext/v1/users/ban", {"uid": "a"})).status_code == 404
        assert "/ext/v1/users/ban" not in (await api.get("/openapi.json"))["paths"]


async def test_a_user_is_banned(tmp_path: Path) -> None:
    """POST /ext/v1/users/ban, …/unban: DISCONNECT 19, and no login."""
    async with api_in(tmp_path, ext_on=True) as api:
        async with client(api.server) as ann:
            assert await ann.connect("ann") == ReasonCode.SUCCESS
            assert await api.post("/ext/v1/users/ban", {"uid": "ann"}) == OK
            assert (await ann.wait_for(wire.DisconnectReceived)).disconnect.reason_code == ReasonCode.BAN
        async with client(api.server) as ann:
            assert await ann.connect("ann") == ReasonCode.BAN
        assert await api.post("/ext/v1/users/unban", {"uid": "ann"}) == OK
        async with client(api.server) as ann:
            assert await ann.connect("ann") == ReasonCode.SUCCESS
        assert await api.post("/ext/v1/users/ban", {}) == (400, "uid is missing")


async def test_lists_of_a_user(tmp_path: Path) -> None:
    """POST /ext/v1/users/blacklist/add, …/remove, users/whitelist/add, …/remove; GET /ext/v1/users/blacklist."""
    async with api_in(tmp_path, ext_on=True) as api:
        body = {"uid": "ann", "targets": ["eve", "bob"]}
        assert await api.post("/ext/v1/users/blacklist/add", body) == OK
        assert await api.get("/ext/v1/users/blacklist?uid=ann") == {"status": 200, "data": ["bob", "eve"]}
        assert await api.post("/ext/v1/users/blacklist/remove", {"uid": "ann", "targets": ["bob"]}) == OK
        assert await api.get("/channel/blacklist?channel_id=ann&channel_type=1&format=uids") == ["eve"]
        assert await api.post("/ext/v1/users/whitelist/add", body) == OK
        assert await api.post("/ext/v1/users/whitelist/remove", {"uid": "ann", "targets": ["bob"]}) == OK
        assert await api.get("/channel/whitelist?channel_id=ann&channel_type=1&format=uids") == ["eve"]
        assert await api.post("/ext/v1/users/blacklist/add", {"uid": "ann"}) == (400, "targets is missing")
        assert await api.get("/ext/v1/users/blacklist") == (400, "uid is missing")


async def test_who_is_online(tmp_path: Path) -> None:
    """GET /ext/v1/users/online."""
    async with api_in(tmp_path, ext_on=True) as api:
        for flag in (1, 0, 1):
            api.server.broker.presence.register(MemorySession(Device(uid="ann", flag=flag, device_id=str(flag))))
        rows = [{"uid": "ann", "device_flags": [0, 1]}, {"uid": "bob", "device_flags": []}]
        assert await api.get("/ext/v1/users/online?uids=ann,,bob") == {"status": 200, "data": rows}
        assert await api.get("/ext/v1/users/online") == (400, "uids is missing")


async def test_messages_to_many(tmp_path: Path) -> None:
    """POST /ext/v1/messages/private and …/group: ids as text, what became of each."""
    async with api_in(tmp_path, ext_on=True) as api:
        await api.post("/channel", {**GROUP, "ban": 1})
        body = {"from": "ann", "to": ["a", "b", "a"], "content": "hello", "type": 1, "header": {"red_dot": 1}}
        answer = await api.post("/ext/v1/messages/private", body)
        row = {"message_seq": 1, "reason": "success"}
        rows = [{"uid": uid, "message_id": f"#{number}", **row} for number, uid in enumerate("ab", 1)]
        assert api.shown(answer) == {"status": 200, "data": rows}
        assert all(isinstance(each["message_id"], str) for each in answer["data"])
        answer = await api.post("/ext/v1/messages/group", {"from": "ann", "to": ["g", "h"], "payload": HELLO})
        assert [(each["uid"], each["reason"]) for each in answer["data"]] == [("g", "ban"), ("h", "success")]
        assert await api.seqs("h") == [1]
        assert await api.post("/ext/v1/messages/private", {"payload": HELLO}) == (400, "to is missing")
        many = {"to": [str(number) for number in range(1001)], "payload": HELLO}
        assert await api.post("/ext/v1/messages/private", many) == (400, "to: 1001 > 1000")


async def test_messages_are_changed_and_read(tmp_path: Path) -> None:
    """POST /ext/v1/messages/recall, …/modify, …/delete; GET /ext/v1/messages/history."""
    async with api_in(tmp_path, ext_on=True) as api:
        ids = [(await api.send("g", 2, client_msg_no=f"n{number}"))["message_idstr"] for number in (1, 2, 3)]
        assert await api.post("/ext/v1/messages/recall", {**GROUP, "uid": "ann", "message_id": ids[0]}) == OK
        body = {**GROUP, "uid": "ann", "message_id": ids[1], "content": "new", "type": 1}
        assert await api.post("/ext/v1/messages/modify", body) == OK
        assert await api.post("/ext/v1/messages/delete", {**GROUP, "message_ids": [ids[2], "5"]}) == OK

        def change(kind: int) -> dict[str, Any]:
            return {"kind": kind, "by": "ann", "at": "T", "version": 1}

        new = base64.b64encode(b'{"type":1,"content":"new"}').decode()
        api.shown([{"message_id": each} for each in ids])
        shown = [
            stored(1, "n1", "#1", payload="", is_deleted=1, revision=change(1)),
            stored(2, "n2", "#2", payload=new, revision=change(2)),
        ]
        now = int(time.time())
        for query in ("", f"&from={now - 60}&to={now + 60}&limit=10"):
            found = await api.get(f"/ext/v1/messages/history?channel_id=g&channel_type=2{query}")
            assert api.shown(found) == {"status": 200, "more": 0, "data": shown}
        found = await api.get("/ext/v1/messages/history?channel_id=g&channel_type=2&limit=1")
        assert (found["more"], [each["message_seq"] for each in found["data"]]) == (1, [2])
        for path in ("recall", "modify"):
            wrong = {**GROUP, "message_id": 5, "payload": HELLO}
            assert await api.post(f"/ext/v1/messages/{path}", wrong) == (404, "no such message")
            assert await api.post(f"/ext/v1/messages/{path}", GROUP) == (400, "message_id is missing")
        person = "/ext/v1/messages/history?channel_id=bob&channel_type=1"
        assert await api.get(person) == (400, "uid is missing")


async def test_the_retention_of_a_channel(tmp_path: Path) -> None:
    """POST /ext/v1/channels/retention; `reset` leaves it to the settings again."""
    async with api_in(tmp_path, ext_on=True) as api:
        info = "/channel/info?channel_id=g&channel_type=2"
        for body, kept in (({"keep_seconds": 60, "keep_count": 5}, (60, 5)), ({"keep_count": 9, "reset": 1}, (0, 0))):
            assert await api.post("/ext/v1/channels/retention", {**GROUP, **body}) == OK
            found = await api.get(info)
            assert (found["keep_seconds"], found["keep_count"]) == kept


async def test_a_repeat_with_the_same_key_gets_the_first_answer(tmp_path: Path) -> None:
    """Header `Idempotency-Key`; also for one that comes while the first is under way; refusals are not kept."""
    async with api_in(tmp_path, ext_on=True) as api:
        body = {"from": "ann", "to": ["bob"], "payload": HELLO}
        answers: list[Any] = []

        async def send(key: str) -> None:
            answers.append(await api.post("/ext/v1/messages/private", body, **{"Idempotency-Key": key}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, "k1")
            nursery.start_soon(send, "k1")
        await send("k1")
        assert answers == [answers[0]] * 3
        await send("k2")
        assert await api.seqs("bob", 1) == [1, 2]
        refused = await api.post("/ext/v1/messages/private", {"to": ["bob"]}, **{"Idempotency-Key": "k3"})
        assert refused == (400, "payload不能为空！")
        await send("k3")
        assert await api.seqs("bob", 1) == [1, 2, 3]


def _state(uid: str, *devices: dict[str, int]) -> dict[str, Any]:
    return {"uid": uid, "online": int(any(each["online"] for each in devices)), "devices": list(devices)}


def _device(flag: int, **more: int) -> dict[str, int]:
    device = {"flag": flag, "level": 0, "online": 0, "connections": 0, "since": 0, "last_seen": 0, "logout": 0}
    return {**device, **more}


async def test_the_state_of_each_device(tmp_path: Path) -> None:
    """POST /ext/v1/users/status."""
    async with api_in(tmp_path, ext_on=True) as api:
        presence = api.server.broker.presence
        for flag, started_at in ((1, 20.5), (0, 30.0), (1, 10.5)):
            device = Device(uid="ann", flag=flag, level=flag, device_id=str(started_at))
            presence.register(MemorySession(device, started_at=started_at))
        [app] = [each for each in presence.sessions("ann") if each.device.flag == 0]
        presence.unregister(app, logout=True)
        answer = await api.post("/ext/v1/users/status", {"uids": ["ann", "bob", "ann"]})
        last_seen = answer["data"][0]["devices"][0]["last_seen"]
        assert abs(last_seen - time.time()) < 30
        devices = (
            _device(0, last_seen=last_seen, logout=1),
            _device(1, level=1, online=1, connections=1, since=10),
        )
        assert answer == {"status": 200, "data": [_state("ann", *devices), _state("bob")]}
        assert await api.post("/ext/v1/users/status", {"uids": []}) == (400, "uids is missing")
        many = {"uids": [str(number) for number in range(201)]}
        assert await api.post("/ext/v1/users/status", many) == (400, "uids: 201 > 200 (presence.usersPerCall)")


async def test_a_backend_subscribes_a_user(tmp_path: Path) -> None:
    """POST /ext/v1/users/subscriptions, …/remove; GET /ext/v1/users/subscriptions."""
    path = "/ext/v1/users/subscriptions"
    async with api_in(tmp_path, ext_on=True) as api, client(api.server) as ann:
        assert await ann.connect("ann") == ReasonCode.SUCCESS
        body = {"uid": "ann", "targets": ["bob", "eve"], "ttl_s": 3600}
        assert await api.post(path, body) == {"status": 200, "data": [_state("bob"), _state("eve")]}
        event = (await ann.wait_for(wire.EventReceived)).event
        assert event.type == "presence"
        assert json.loads(event.data) == {"users": [_state("bob"), _state("eve")]}
        listed = await api.get(f"{path}?uid=ann")
        left = [row.pop("ttl_s") for row in listed["data"]]
        assert listed == {"status": 200, "data": [{"uid": "bob"}, {"uid": "eve"}]}
        assert all(3560 < each <= 3600 for each in left)
        assert await api.post(f"{path}/remove", {"uid": "ann", "targets": ["bob"]}) == OK
        assert [row["uid"] for row in (await api.get(f"{path}?uid=ann"))["data"]] == ["eve"]
        assert await api.post(f"{path}/remove", {"uid": "ann"}) == OK
        assert await api.get(f"{path}?uid=ann") == {"status": 200, "data": []}


async def test_a_subscription_that_is_refused_says_why(tmp_path: Path) -> None:
    core = attrs.evolve(ServerConfig(), presence=PresenceConfig(subscriptions=2, watchers=1, users_per_call=3))
    path = "/ext/v1/users/subscriptions"
    async with api_in(tmp_path, ext_on=True, core=core) as api:
        assert await api.post(path, {"uid": "ann"}) == (400, "targets is missing")
        assert await api.post(path, {"targets": ["bob"]}) == (400, "uid is missing")
        four = {"uid": "ann", "targets": ["a", "b", "c", "d"]}
        assert await api.post(path, four) == (400, "targets: 4 > 3 (presence.usersPerCall)")
        three = {"uid": "ann", "targets": ["a", "b", "c"]}
        too_many = (400, "too many subscriptions (presence.subscriptions, presence.totalSubscriptions)")
        assert await api.post(path, three) == too_many
        assert (await api.post(path, {"uid": "ann", "targets": ["a", "b"]}))["status"] == 200
        full = (400, "1 watchers have: b (presence.watchers)")
        assert await api.post(path, {"uid": "eve", "targets": ["c", "b"]}) == full
        answer = await api.ask("POST", path, {"uid": "eve", "targets": ["b"]})
        assert answer.json()["code"] == "too_many_watchers"
        assert await api.get(f"{path}?uid=eve") == {"status": 200, "data": []}
        assert await api.get(path) == (400, "uid is missing")
