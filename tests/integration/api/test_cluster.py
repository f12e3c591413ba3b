"""The cluster as one node sees it: nodes, slots, channels, what an administrator searches. Sections 8.12 to 8.17."""

import base64
from pathlib import Path
from typing import Any

from tests.integration.api.support import GROUP, HELLO, OK, Api, api_in, stored
from tests.wkclient import client

NODE = {
    "id": 1001,
    "is_leader": 1,
    "role": 0,
    "cluster_addr": "",
    "api_server_addr": "",
    "online": 1,
    "allow_vote": 1,
    "status": 3,
    "status_format": "已加入",
}
STATE = {"slot_count": 256, "term": 1, "slot_leader_count": 256, "app_version": "0.1.0", "config_version": 1}
CHANNEL_ROW = {
    "id": 0,
    "slot": 118,
    **GROUP,
    "ban": 0,
    "disband": 0,
    "subscriber_count": 2,
    "allowlist_count": 1,
    "denylist_count": 1,
    "last_msg_seq": 1,
    "last_msg_time": "T",
    "last_msg_time_format": "T",
    "status_format": "正常",
    "created_at": "T",
    "updated_at": "T",
    "created_at_format": "T",
    "updated_at_format": "T",
}
CHANNEL_CLUSTER = {
    **GROUP,
    "channel_type_format": "群组",
    "replica_count": 1,
    "replicas": [1001],
    "leader_id": 1001,
    "learder_id": 1001,
    "term": 1,
    "slot_id": 118,
    "slot_leader_id": 1001,
    "last_message_seq": 1,
    "last_append_time": "T",
    "active": 1,
    "active_format": "运行中",
    "status": 0,
    "status_format": "正常",
    "migrate_from": 0,
    "migrate_to": 0,
    "created_at": "T",
    "updated_at": "T",
    "created_at_format": "T",
    "updated_at_format": "T",
}


async def fill(api: Api) -> Any:
    """Make group g with two members, lists, and a message; returns the answer to the message."""
    await api.post("/channel", {**GROUP, "subscribers": ["ann", "bob"]})
    await api.post("/channel/whitelist_add", {**GROUP, "uids": ["ann"]})
    await api.post("/channel/blacklist_add", {**GROUP, "uids": ["eve"]})
    return await api.send("g", 2, client_msg_no="n1")


async def test_nodes(tmp_path: Path) -> None:
    """GET /cluster/nodes, /cluster/node, /cluster/simpleNodes, /cluster/info."""
    async with api_in(tmp_path) as api:
        addresses = {
            "cluster_addr": api.server.broker.endpoints["tcp"],
            "api_server_addr": f"http://{api.server.broker.endpoints['http']}",
        }
        simple = {**NODE, **addresses}
        full = {**simple, **STATE, "uptime": "T"}
        assert api.shown(await api.get("/cluster/node")) == full
        assert api.shown(await api.get("/cluster/nodes")) == {"total": 1, "data": [full]}
        assert await api.get("/cluster/simpleNodes") == {"total": 1, "data": [simple]}
        info = await api.get("/cluster/info")
        node = {"id": 1001, "clusterAddr": addresses["cluster_addr"], "apiServerAddr": addresses["api_server_addr"]}
        more = {"online": True, "allowVote": True, "status": 3, "createdAt": info["nodes"][0]["createdAt"]}
        slots = [{"id": number, "leader": 1001, "term": 1, "replicas": [1001]} for number in range(256)]
        counts = {"slotCount": 256, "slotReplicaCount": 1, "channelReplicaCount": 1}
        assert info == {"version": 1, **counts, "term": 1, "nodes": [{**node, **more}], "slots": slots}


async def test_the_cluster_of_limaoim(tmp_path: Path) -> None:
    """GET /cluster: one shard that is ready and holds every slot; the bitmap agrees with the range."""
    async with api_in(tmp_path) as api:
        [shard] = await api.get("/cluster")
        tcp = api.server.broker.endpoints["tcp"]
        assert shard == {
            "vaild_count": 256,
            "vaild_slots": "0-255",
            "version": 1,
            "slot_count": 256,
            "cluster_id": 1,
            "state": 1,
            "slots": base64.b64encode(b"\xff" * 32).decode(),
            "nodes": [
                {
                    "node_id": 1001,
                    "node_raft_addr": tcp,
                    "node_api_addr": f"http://{api.server.broker.endpoints['http']}",
                    "node_rpc_addr": tcp,
                    "tcp_addr": tcp,
                    "ws_addr": "",
                }
            ],
            "leader_id": 1001,
            "slot_state": 1,
        }


async def test_slots(tmp_path: Path) -> None:
    """GET /cluster/slots, /cluster/allslot, /cluster/slots/{id}/config, …/replicas, …/localReplica, …/channels."""
    async with api_in(tmp_path) as api:
        await fill(api)
        index = (await api.get("/cluster/slots/118/config"))["applied_index"]
        assert index > 0
        place = {"leader_id": 1001, "term": 1, "replicas": [1001]}

        def slot(number: int, count: int) -> dict[str, Any]:
            return {
                "id": number,
                **place,
                "channel_count": count,
                "log_index": index,
                "status": 0,
                "status_format": "正常",
            }

        assert await api.get("/cluster/slots?ids=0,118") == [slot(0, 0), slot(118, 1)]
        assert await api.get("/cluster/slots") == []
        assert await api.get("/cluster/slots?ids=99999") == []
        assert await api.get("/cluster/slots?ids=x") == (400, "ids: slot numbers, joined by commas")
        everything = await api.get("/cluster/allslot")
        assert everything == {"total": 256, "data": [slot(number, int(number == 118)) for number in range(256)]}
        logs = {"log_max_index": index, "leader_log_max_index": index, "applied_index": index}
        assert await api.get("/cluster/slots/118/config") == {"id": 118, **place, **logs}
        local = {
            "replica_id": 1001,
            "leader_id": 1001,
            "running": 1,
            "last_log_seq": index,
            "last_log_time": 0,
            "term": 1,
            "applied_index": index,
            "committed_index": index,
            "conf_version": 1,
        }
        assert await api.get("/cluster/slots/118/localReplica") == local
        named = {"role": 3, "role_format": "leader", "last_log_time_format": ""}
        assert await api.get("/cluster/slots/118/replicas") == [{**local, **named}]
        rows = [{**GROUP, "slot": 118}]
        assert await api.get("/cluster/slots/118/channels") == {"total": 1, "data": rows}
        for part in ("config", "replicas", "localReplica", "channels"):
            assert await api.get(f"/cluster/slots/9999/{part}") == (400, "slot not found")
            assert (await api.get(f"/cluster/slots/x/{part}"))[0] == 400


async def test_nothing_can_be_moved_off_the_only_node(tmp_path: Path) -> None:
    """POST …/migrate answers in the reference's words; …/election, …/start and …/stop are done."""
    async with api_in(tmp_path) as api:
        await fill(api)
        for path in ("/cluster/slots/3/migrate", "/cluster/channels/g/2/migrate"):
            for source, target, text in (
                (0, 2, "migrateFrom or migrateTo is 0"),
                (2, 2, "migrateFrom is equal to migrateTo"),
                (2, 3, "MigrateFrom not in replicas"),
                (1001, 2, "node not found"),
            ):
                assert await api.post(path, {"migrate_from": source, "migrate_to": target}) == (400, text)
        body = {"migrate_from": 1, "migrate_to": 2}
        assert await api.post("/cluster/slots/256/migrate", body) == (400, "slot not found")
        assert await api.post("/cluster/slots/3/election") == OK
        assert await api.post("/cluster/slots/256/election") == (400, "slot not found")
        for call in ("stop", "start"):
            assert await api.post(f"/cluster/channels/g/2/{call}") == OK
            assert (await api.post(f"/cluster/channels/g/999/{call}"))[0] == 400
        assert (await api.send("g", 2))["message_seq"] == 2


async def test_logs_and_traces_that_one_node_does_not_keep(tmp_path: Path) -> None:
    """GET /cluster/logs, /cluster/devtools/checkLogConflict, /cluster/message/trace, …/recvack."""
    async with api_in(tmp_path) as api:
        index = (await api.get("/cluster/slots/0/config"))["applied_index"]
        empty = {"next": 0, "pre": 0, "applied": index, "last": index, "more": 0, "logs": []}
        assert await api.get("/cluster/logs") == empty
        assert await api.get("/cluster/logs?node_id=1001&log_type=1&limit=abc") == empty
        assert await api.get("/cluster/logs?node_id=7") == (400, "node not found")
        answer = await api.ask("GET", "/cluster/devtools/checkLogConflict")
        assert (answer.status_code, answer.content) == (200, b"")
        for path in ("/cluster/message/trace", "/cluster/message/trace/recvack"):
            assert await api.get(path) == {"nodes": [], "edges": []}


async def test_channels_are_listed_and_filtered(tmp_path: Path) -> None:
    """GET /cluster/channels and its alias /api/channels, GET /cluster/nodes/{id}/channels."""
    async with api_in(tmp_path) as api:
        await fill(api)
        await api.post("/channel", {"channel_id": "banned", "channel_type": 3, "ban": 1})
        for path in ("/cluster/channels", "/api/channels"):
            found = await api.get(f"{path}?channel_id=g&channel_type=2")
            [row] = found["data"]
            assert api.shown({**row, "id": 0}) == CHANNEL_ROW
            assert {**found, "data": []} == {"total": 1, "more": 0, "data": []}
        for query, ids in (
            ("", {"g", "banned"}),
            ("ban=1", {"banned"}),
            ("ban=0", {"g"}),
            ("disband=1", set()),
            ("channel_type=3", {"banned"}),
            ("channel_id=ann", {"banned"}),
            ("subscriber_count_gte=2", {"g"}),
            ("subscriber_count_lte=0", {"banned"}),
            ("allowlist_count_gte=1&denylist_count_lte=1", {"g"}),
            ("node_id=1001", {"g", "banned"}),
            ("limit=abc&offset_created_at=abc", {"g", "banned"}),
        ):
            assert {row["channel_id"] for row in (await api.get(f"/cluster/channels?{query}"))["data"]} == ids, query
        one = await api.get("/cluster/channels?limit=1")
        assert (one["total"], one["more"], len(one["data"])) == (2, 1, 1)
        assert await api.get("/cluster/channels?node_id=7") == (400, "node not found")
        here = await api.get("/cluster/nodes/1001/channels?channel_type=2")
        assert api.shown(here) == {"total": 1, "more": 0, "running": 1, "data": [CHANNEL_CLUSTER]}
        assert await api.get("/cluster/nodes/7/channels") == (400, "node not found")
        assert (await api.get("/cluster/nodes/x/channels"))[0] == 400


async def test_one_channel(tmp_path: Path) -> None:
    """GET /cluster/channels/{id}/{type}/config, subscribers, denylist, allowlist, replicas, localReplica; status."""
    async with api_in(tmp_path) as api:
        await fill(api)
        one = "/cluster/channels/g/2"
        assert api.shown(await api.get(f"{one}/config")) == CHANNEL_CLUSTER
        assert await api.get(f"{one}/subscribers") == ["ann", "bob"]
        assert await api.get(f"{one}/denylist") == ["eve"]
        assert await api.get(f"{one}/allowlist") == ["ann"]
        replica = {
            "replica_id": 1001,
            "leader_id": 1001,
            "running": 1,
            "last_msg_seq": 1,
            "last_msg_time": "T",
            "term": 1,
            "conf_version": 1,
            "role": 3,
            "role_format": "leader",
            "last_msg_time_format": "T",
        }
        assert api.shown(await api.get(f"{one}/replicas")) == [replica]
        assert api.shown(await api.get(f"{one}/localReplica")) == replica
        none = {"channel_id": "none", "channel_type": 2}
        state = {"running": 1, "last_msg_seq": 1, "last_msg_time": "T"}
        found = await api.post("/cluster/channel/status", {"channels": [GROUP, none]})
        empty = {**none, "running": 0, "last_msg_seq": 0, "last_msg_time": 0}
        assert api.shown(found) == [{**GROUP, **state}, empty]
        assert await api.post("/cluster/channel/status", {}) == []
        for path in ("/cluster/channels/g/999/config", "/cluster/channels/g/x/subscribers"):
            assert await api.get(path) == (400, "channel_type: a number from 0 to 255")
        for odd in ("x" * 600, "a%00b", "%FF", "%F0%9F%98%80"):
            assert await api.get(f"/cluster/channels/{odd}/2/subscribers") == []


async def test_messages_are_searched(tmp_path: Path) -> None:
    """GET /cluster/messages, newest first, ids as text; GET /api/messages in the shape of the old monitor."""
    async with api_in(tmp_path) as api:
        first = await fill(api)
        await api.send("bob", client_msg_no="p1", topic="t")

        def row(name: str, number: str, **more: Any) -> dict[str, Any]:
            return {
                "message_id": name,
                "message_seq": 1,
                "client_msg_no": number,
                "timestamp": "T",
                "timestamp_format": "T",
                **GROUP,
                "topic": "",
                "from_uid": "ann",
                "payload": HELLO,
                "expire": 0,
                "term": 1,
                "is_stream": 0,
                **more,
            }

        api.shown(first)
        person = row("#2", "p1", channel_id="bob@ann", channel_type=1, topic="t")
        group, both = row("#1", "n1"), [person, row("#1", "n1")]
        part = base64.b64encode(b'"hello"').decode()
        none = base64.b64encode(b"nothing").decode()
        for query, rows in (
            ("", both),
            ("channel_id=g&channel_type=2", [group]),
            ("channel_id=bob@ann", [person]),
            ("from_uid=ann", both),
            ("from_uid=bob", []),
            ("client_msg_no=p1", [person]),
            ("topic=t", [person]),
            (f"message_id={first['message_id']}", [group]),
            (f"offset_message_id={first['message_id']}&pre=1", [person]),
            (f"offset_message_id={first['message_id']}", []),
            (f"payload={part}", both),
            (f"payload={none}", []),
            ("limit=1", [person]),
            ("message_id=abc&limit=abc", both),
        ):
            found = await api.get(f"/cluster/messages?{query}")
            assert api.shown(found) == {"total": len(rows), "data": rows}, query
        assert (await api.get("/cluster/messages?payload=!"))[0] == 400
        assert await api.get("/cluster/messages?node_id=7") == (400, "node not found")
        old = await api.get("/api/messages?channel_id=g&channel_type=2")
        shown = {"data": [stored(1, "n1")], "limit": 20, "max_message_seq": 1, "start_message_seq": 1}
        assert api.shown(old) == shown


async def test_users_and_devices_are_listed(tmp_path: Path) -> None:
    """GET /cluster/users, /cluster/devices: of tokens only the end is shown."""
    async with api_in(tmp_path) as api, client(api.server) as ann:
        await api.post("/user/token", {"uid": "ann", "token": "0123456789abcdef", "device_level": 1})
        await ann.connect("ann")
        await api.post("/user/token", {"uid": "bob", "token": "short", "device_flag": 1})
        times = {"created_at": "T", "updated_at": "T", "created_at_format": "T", "updated_at_format": "T"}
        traffic = {"send_msg_count": 0, "recv_msg_count": 0, "send_msg_bytes": 0, "recv_msg_bytes": 0}
        user = {"uid": "ann", "id": 115, "slot": 115, "device_count": 1, "online_device_count": 1, "conn_count": 1}
        found = await api.get("/cluster/users?uid=ann")
        assert api.shown(found) == {"total": 1, "more": 0, "data": [{**user, **times, **traffic}]}
        assert {row["uid"] for row in (await api.get("/cluster/users"))["data"]} == {"ann", "bob"}
        one = await api.get("/cluster/users?limit=1")
        assert (one["total"], one["more"], len(one["data"])) == (2, 1, 1)
        device = {
            "id": 115 << 8,
            "uid": "ann",
            "token": "****cdef",
            "device_flag": 0,
            "device_flag_format": "App",
            "device_level": 1,
            "device_level_format": "主设备",
            "conn_count": 1,
        }
        assert api.shown((await api.get("/cluster/devices?uid=ann"))["data"]) == [{**device, **times, **traffic}]
        [row] = (await api.get("/cluster/devices?device_flag=1"))["data"]
        assert (row["uid"], row["token"], row["device_flag_format"]) == ("bob", "****", "Web")
        for path in ("users", "devices"):
            assert await api.get(f"/cluster/{path}?node_id=7") == (400, "node not found")


async def test_conversations_are_listed(tmp_path: Path) -> None:
    """GET /cluster/conversations (of nobody without a uid), GET /api/conversations."""
    async with api_in(tmp_path) as api:
        await fill(api)
        [row] = (await api.get("/cluster/conversations?uid=bob"))["data"]
        assert row["updated_at"] >= row["created_at"] > 1.7e9
        shown = {
            "id": 1,
            "uid": "bob",
            "type": 0,
            "type_format": "聊天",
            **GROUP,
            "channel_type_format": "群组",
            "unread_count": 1,
            "last_msg_seq": 1,
            "readed_to_msg_seq": 0,
            "created_at": 0,
            "updated_at": 0,
            "created_at_format": "T",
            "updated_at_format": "T",
        }
        assert api.shown({**row, "created_at": 0, "updated_at": 0}) == shown
        assert await api.get("/cluster/conversations") == {"total": 0, "data": []}
        assert await api.get("/cluster/conversations?uid=bob&current_page=2") == {"total": 1, "data": []}
        assert await api.get("/api/conversations?uid=bob") == {"on": 1, "conversations": [row]}
        assert await api.get("/api/conversations") == (400, "param invalid")
