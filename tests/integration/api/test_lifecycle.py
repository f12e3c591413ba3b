"""Recalling, editing and deleting messages; expiry. Ours: no reference server has it."""

import base64
import json
from pathlib import Path
from typing import Any

from tests.integration.api.support import GROUP, HELLO, Api, api_in, page, stored
from triolet_core import Device
from triolet_core.model import SYNC_ONCE
from triolet_core.testing import MemorySession

BASE = {**GROUP, "login_uid": "bob"}


async def commands(api: Api, uid: str) -> list[Any]:
    """Return the payloads of the commands that wait for a user."""
    waiting = await api.post("/message/sync", {"uid": uid})
    return [json.loads(base64.b64decode(each["payload"])) for each in waiting]


async def test_a_message_is_taken_back(tmp_path: Path) -> None:
    """POST /message/recall: the payload is gone; online devices and later readers are told; again is no error."""
    async with api_in(tmp_path) as api:
        await api.post("/channel", {**GROUP, "subscribers": ["ann", "bob"]})
        bob = MemorySession(Device(uid="bob"))
        api.server.broker.presence.register(bob)
        sent = await api.send("g", 2, client_msg_no="n1")
        body = {**GROUP, "message_id": sent["message_idstr"], "from_uid": "ann"}
        data = {"message_id": "#1", "message_idstr": "#1", "kind": 1, "at": "T", "version": 1}
        for _ in range(2):
            assert api.shown(await api.post("/message/recall", body)) == {"status": 200, "data": data}
        change = {"kind": 1, "by": "ann", "at": "T", "version": 1}
        shown = stored(1, "n1", payload="", is_deleted=1, revision=change)
        assert api.shown(await api.post("/channel/messagesync", BASE)) == page(shown)
        param = {"message_id": sent["message_idstr"], "message_seq": 1, "by": "ann"}
        told = [{"type": 99, "cmd": "messageRevoke", "param": param}]
        assert await commands(api, "bob") == told
        await api.server.broker.flush()
        assert [json.loads(each.payload) for each in bob.received if each.flags & SYNC_ONCE] == told
        assert await api.post("/message/edit", {**body, "payload": HELLO}) == (404, "the message was recalled")


async def test_a_message_is_edited(tmp_path: Path) -> None:
    """POST /message/edit: `payload`, or `content` and `type`; the version counts."""
    async with api_in(tmp_path) as api:
        await api.post("/channel", {**GROUP, "subscribers": ["ann", "bob"]})
        sent = await api.send("g", 2, client_msg_no="n1")
        body = {**GROUP, "message_id": sent["message_id"], "login_uid": "ann"}
        for version, text in enumerate(("new", "newer"), 1):
            answer = await api.post("/message/edit", {**body, "content": text, "type": 1})
            data = {"message_id": "#1", "message_idstr": "#1", "kind": 2, "at": "T", "version": version}
            assert api.shown(answer) == {"status": 200, "data": data}
        payload = base64.b64encode(b'{"type":1,"content":"newer"}').decode()
        shown = stored(1, "n1", payload=payload, revision={"kind": 2, "by": "ann", "at": "T", "version": 2})
        assert api.shown(await api.post("/channel/messagesync", BASE)) == page(shown)
        assert [each["cmd"] for each in await commands(api, "bob")] == ["messageEdit", "messageEdit"]
        assert (await api.post("/messages", {**BASE, "keyword": "newer"}))["messages"]
        assert not (await api.post("/messages", {**BASE, "keyword": "hello"}))["messages"]


async def test_messages_are_deleted(tmp_path: Path) -> None:
    """POST /message/delete: by number, by id, or a range with both ends; numbers are not used again."""
    async with api_in(tmp_path) as api:
        await api.post("/channel", {**GROUP, "subscribers": ["ann", "bob"]})
        ids = [(await api.send("g", 2))["message_id"] for _ in range(8)]
        for body, count, left in (
            ({"message_seqs": [2, 99]}, 1, [1, 3, 4, 5, 6, 7, 8]),
            ({"message_ids": [ids[3], 5]}, 1, [1, 3, 5, 6, 7, 8]),
            ({"message_seqs": [1], "message_ids": [ids[0]]}, 1, [3, 5, 6, 7, 8]),
            ({"start_message_seq": 4, "end_message_seq": 7}, 3, [3, 8]),
            ({"start_message_seq": 4, "end_message_seq": 7}, 0, [3, 8]),
            ({"message_seqs": [8]}, 1, [3]),
        ):
            assert await api.post("/message/delete", {**GROUP, **body}) == {"status": 200, "deleted": count}, body
            assert await api.seqs("g") == left
        assert (await api.send("g", 2))["message_seq"] == 9
        found = await commands(api, "bob")
        assert {each["cmd"] for each in found} == {"messageDelete"}
        assert found[0]["param"] == {"message_seqs": [2]}


async def test_what_is_wrong_with_a_change(tmp_path: Path) -> None:
    async with api_in(tmp_path) as api:
        sent = await api.send("other", 2)
        for path in ("/message/recall", "/message/edit"):
            more = {"payload": HELLO}
            assert await api.post(path, {**GROUP, **more}) == (400, "message_id不能为空！")
            assert await api.post(path, {**GROUP, **more, "message_id": 5}) == (404, "no such message")
            elsewhere = {**GROUP, **more, "message_id": sent["message_id"]}
            assert await api.post(path, elsewhere) == (404, "no such message")
            person = {"channel_id": "bob", "channel_type": 1, "message_id": 5, **more}
            assert await api.post(path, person) == (400, "login_uid不能为空！")
        assert await api.post("/message/edit", {**GROUP, "message_id": 5}) == (400, "payload不能为空！")
        assert await api.post("/message/delete", GROUP) == (400, "message_seqs, message_ids, or a range")
        for bounds in ({"start_message_seq": 3, "end_message_seq": 2}, {"end_message_seq": 2}):
            refused = await api.post("/message/delete", {**GROUP, **bounds})
            assert refused == (400, "start_message_seq, end_message_seq: 0 < start ≤ end")


async def test_a_message_between_two_persons_is_taken_back(tmp_path: Path) -> None:
    async with api_in(tmp_path) as api:
        sent = await api.send("bob")
        body = {"channel_id": "ann", "channel_type": 1, "login_uid": "bob", "message_id": sent["message_id"]}
        assert (await api.post("/message/recall", body))["data"]["kind"] == 1
        for uid in ("ann", "bob"):
            assert [each["param"]["by"] for each in await commands(api, uid)] == ["bob"]


async def test_an_expired_message_is_not_shown(tmp_path: Path) -> None:
    """`expire` of /message/send, in seconds."""
    async with api_in(tmp_path) as api:
        await api.send("g", 2, expire=3600)
        await api.send("g", 2)
        assert await api.seqs("g") == [1, 2]
        messages, later = api.server.broker.messages, 4000
        clock = messages._clock_s
        messages._clock_s = lambda: clock() + later
        assert await api.seqs("g") == [2]
        body = {**BASE, "message_seqs": [1, 2]}
        assert [each["message_seq"] for each in (await api.post("/messages", body))["messages"]] == [2]
