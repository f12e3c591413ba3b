"""The requests of the seed documents in the documents' own shapes.

Sources: 001_f58c7573f0b55264.txt (WuKongIM, integration of a backend), 000_2bdb39509864412f.txt (LiMaoIM).
"""

import base64
import json
from pathlib import Path
from typing import Any

from tests.integration.api.support import GROUP, OK, Api, api_in
from triolet_core import Device
from triolet_core.testing import MemorySession

CONTENT = base64.b64encode(b'{"type":1,"content":"hello"}').decode()


async def history(api: Api) -> list[tuple[int, str]]:
    """Return what group g holds as (sequence, payload)."""
    found = await api.post("/channel/messagesync", {**GROUP, "login_uid": "u1"})
    return [(each["message_seq"], each["payload"]) for each in found["messages"]]


async def test_messages(tmp_path: Path) -> None:
    """001: send with `content` and `type`; a batch that is a list; search; sync."""
    async with api_in(tmp_path) as api:
        body = {**GROUP, "content": "hello", "type": 1, "from_uid": "u1"}
        answer = await api.post("/message/send", {**body, "client_msg_no": "n1"})
        assert (answer["status"], answer["message_seq"], answer["client_msg_no"]) == (200, 1, "n1")
        answers = await api.post("/message/sendbatch", [body, {**body, "channel_id": "h"}])
        assert [(each["status"], each["message_seq"]) for each in answers] == [(200, 2), (200, 1)]
        assert await history(api) == [(1, CONTENT), (2, CONTENT)]
        query = {**GROUP, "keyword": "ell", "start_time": 0, "end_time": 4_000_000_000, "limit": 10}
        found = await api.post("/messages", query)
        assert [each["message_seq"] for each in found["messages"]] == [1, 2]
        assert await api.post("/message/sync", {"uid": "u1"}) == []


async def test_channels(tmp_path: Path) -> None:
    """001: name, avatar, remark, extra; `uids` for members and lists; deletion takes everything."""
    async with api_in(tmp_path) as api:
        texts = {"name": "Team", "avatar": "http://a/b.png", "remark": "r", "extra": {"k": "v"}}
        assert await api.post("/channel", {**GROUP, **texts}) == OK
        assert await api.post("/channel/info", {**GROUP, "remark": "new"}) == OK
        info = await api.get("/channel/info?channel_id=g&channel_type=2")
        assert {name: info[name] for name in texts} == {**texts, "remark": "new"}
        uids = {**GROUP, "uids": ["u1", "u2"]}
        for call in ("subscriber_add", "subscriber_remove"):
            assert await api.post(f"/channel/{call}", uids) == OK
        for name in ("blacklist", "whitelist"):
            for call in ("add", "set", "remove"):
                assert await api.post(f"/channel/{name}_{call}", uids) == OK
        assert await api.get("/channel/whitelist?channel_id=g&channel_type=2") == []
        await api.post("/message/send", {**GROUP, "content": "x", "type": 1, "from_uid": "u1"})
        assert await api.post("/channel/delete", GROUP) == OK
        assert await history(api) == []


async def test_users(tmp_path: Path) -> None:
    """001: token; online status by `{"uids":…}`; a device quits; system accounts."""
    async with api_in(tmp_path) as api:
        assert await api.post("/user/token", {"uid": "u1", "token": "t"}) == OK
        api.server.broker.presence.register(MemorySession(Device(uid="u1", flag=1)))
        rows = [{"uid": "u1", "device_flag": 1, "online": 1}]
        assert await api.post("/user/onlinestatus", {"uids": ["u1", "u2"]}) == rows
        assert await api.post("/user/device_quit", {"uid": "u1", "device_flag": 1}) == OK
        assert await api.post("/user/systemuids_add", {"uids": ["bot"]}) == OK
        assert await api.get("/user/systemuids") == ["bot"]
        assert await api.post("/user/systemuids_remove", {"uids": ["bot"]}) == OK


async def test_conversations(tmp_path: Path) -> None:
    """001: sync with `limit`; syncMessages of a single channel; unread; delete; channels."""
    async with api_in(tmp_path) as api:
        await api.post("/channel", {**GROUP, "uids": ["u1", "u2"]})
        for text in ("one", "two"):
            await api.post("/message/send", {**GROUP, "content": text, "type": 1, "from_uid": "u1"})
        [row] = await api.post("/conversation/sync", {"uid": "u2", "limit": 20})
        assert (row["channel_id"], row["unread"]) == ("g", 2)
        [part] = await api.post("/conversation/syncMessages", {"uid": "u2", **GROUP, "limit": 1})
        assert (part["channel_id"], len(part["messages"])) == ("g", 1)
        target = {"uid": "u2", **GROUP}
        assert await api.post("/conversations/setUnread", {**target, "unread": 1}) == OK
        assert await api.post("/conversations/clearUnread", target) == OK
        assert await api.post("/conversation/channels", {"uid": "u2"}) == [GROUP]
        assert await api.post("/conversations/delete", target) == OK


async def test_routes_and_streams(tmp_path: Path) -> None:
    """001: /route with `intranet`, /route/batch; /stream and /stream/chunk with `content`."""
    async with api_in(tmp_path) as api:
        names = {"tcp_addr", "ws_addr", "wss_addr"}
        assert set(await api.get("/route?intranet=1")) == set(await api.get("/route")) == names
        [row] = await api.post("/route/batch", ["u1", "u2"])
        assert set(row) == names | {"uids"}
        stream = await api.post("/stream", {**GROUP, "from_uid": "u1", "content": "A"})
        number = stream["stream_no"]
        answer = await api.post("/stream/chunk", {**GROUP, "stream_no": number, "content": "B", "end": 1})
        assert answer["data"] == {"stream_no": number, "chunk_id": "1", "stream_status": "closed"}


async def test_monitoring_and_the_cluster(tmp_path: Path) -> None:
    """001: every address that the document names answers."""
    async with api_in(tmp_path) as api:
        for path in ("nodes", "node", "simpleNodes", "slots", "allslot", "slots/1/config", "channels"):
            assert (await api.ask("GET", f"/cluster/{path}")).status_code == 200, path
        for path in ("/cluster/channels/g/2/config", "/connz", "/varz", "/metrics"):
            assert (await api.ask("GET", path)).status_code == 200, path
        assert (await api.post("/cluster/channel/status", {"channels": [GROUP]}))[0]["channel_id"] == "g"


async def test_authentication(tmp_path: Path) -> None:
    """001: users with rights and `Authorization: Bearer`; the managerToken."""
    users = ("admin:password:*", "user:password:[*:r]")
    async with api_in(tmp_path, users=users, jwt_secret="your-secret-key" * 4, token="your-manager-token") as api:
        answers = {}
        for name in ("admin", "user"):
            login = await api.post("/manager/login", {"username": name, "password": "password"})
            headers = {"Authorization": f"Bearer {login['token']}"}
            read = (await api.ask("GET", "/cluster/nodes", **headers)).status_code
            answers[name] = (read, await api.post("/channel", GROUP, **headers))
        assert answers == {"admin": (200, OK), "user": (200, (400, "没有权限"))}
        assert await api.post("/channel", GROUP, token="your-manager-token") == OK


async def test_the_cluster_of_the_proxy(tmp_path: Path) -> None:
    """000: GET /cluster; ready when `slot_state` and `state` are 1; the keys are those of the sample."""
    sample = json.loads(
        '{"vaild_count":128,"vaild_slots":"0-127","version":18,"slot_count":256,"cluster_id":1,"state":1,"slots":"/w==",'
        '"nodes":[{"node_id":2,"node_raft_addr":"","node_api_addr":"","node_rpc_addr":"","tcp_addr":"","ws_addr":""}],'
        '"leader_id":2,"slot_state":1}'
    )
    async with api_in(tmp_path, profile="limaoim") as api:
        shards: list[dict[str, Any]] = await api.get("/cluster")
        for shard in shards:
            assert set(shard) == set(sample)
            assert [set(node) for node in shard["nodes"]] == [set(sample["nodes"][0])]
            assert (shard["state"], shard["slot_state"]) == (1, 1)
        bits = 0
        for shard in shards:
            bits |= int.from_bytes(base64.b64decode(shard["slots"]), "little")
        assert bits == 2**256 - 1
