"""Where clients connect to, what is connected, closing it. http-api.md, sections 4.6, 4.7, 8.1."""

import re
from pathlib import Path

import triolet_protocol as wire
from tests.integration.api.support import OK, api_in
from tests.wkclient import client
from triolet_core import Device
from triolet_core.testing import MemorySession

CONNECTION = {
    "id": 0,
    "uid": "ann",
    "ip": "127.0.0.1",
    "port": 0,
    "last_activity": "T",
    "uptime": "T",
    "idle": "T",
    "pending_bytes": 0,
    "in_msgs": 0,
    "out_msgs": 0,
    "in_msg_bytes": 0,
    "out_msg_bytes": 0,
    "in_packets": 1,
    "out_packets": 1,
    "in_packet_bytes": 0,
    "out_packet_bytes": 0,
    "in_bytes": 0,
    "out_bytes": 0,
    "device": "Web(从)",
    "device_id": "d1",
    "version": 0,
    "proxy_type_format": "本地连接",
    "leader_id": 1001,
    "node_id": 1001,
}


async def test_where_to_connect(tmp_path: Path) -> None:
    """GET /route: `intranet` counts only as exactly 1; POST /route/batch: one element for the one node."""
    async with api_in(tmp_path) as api:
        here = {"tcp_addr": api.server.broker.endpoints["tcp"], "ws_addr": "", "wss_addr": ""}
        inside = {"tcp_addr": "", "ws_addr": "", "wss_addr": ""}
        for query in ("", "?uid=ann", "?intranet=0", "?intranet=true"):
            assert await api.get(f"/route{query}") == here
        assert await api.get("/route?intranet=1") == inside
        assert await api.post("/route/batch", ["a", "b"]) == [{**here, "uids": ["a", "b"]}]
        assert await api.post("/route/batch", {"uids": ["a"]}) == [{**here, "uids": ["a"]}]
        assert await api.post("/route/batch", []) == [{**here, "uids": []}]
        assert await api.post("/route/batch?intranet=1", ["a"]) == [{**inside, "uids": ["a"]}]
        assert await api.post("/route/batch", {"a": 1}) == (400, "数据格式有误！")


async def test_connections_are_listed(tmp_path: Path) -> None:
    """GET /connz: the fields of WuKongIM 2.2.5 and 1.2.6; `offset` and `limit` below 0 are 0, no limit is 20."""
    async with api_in(tmp_path) as api, client(api.server) as ann, client(api.server) as bob:
        await ann.connect("ann", flag=1)
        await bob.connect("bob")
        listed = await api.get("/connz?uid=an")
        [row] = listed["connections"]
        assert re.fullmatch(r"\d+h\d+m\d+s", row["uptime"])
        assert min(row["in_packet_bytes"], row["out_packet_bytes"], row["port"], row["id"], row["version"]) > 0
        assert (row["in_bytes"], row["out_bytes"]) == (row["in_packet_bytes"], row["out_packet_bytes"])
        settled = ("id", "port", "in_packet_bytes", "out_packet_bytes", "in_bytes", "out_bytes", "version")
        assert api.shown({**row, **dict.fromkeys(settled, 0)}) == CONNECTION
        assert api.shown({**listed, "connections": []}) == {
            "connections": [],
            "now": "T",
            "total": 1,
            "offset": 0,
            "limit": 20,
        }
        assert (await api.get("/api/connz"))["total"] == 2
        for query, uids in (
            ("sort=id", ["ann", "bob"]),
            ("sort=idDesc", ["bob", "ann"]),
            ("sort=uptime", ["bob", "ann"]),
            ("sort=nonsense", ["ann", "bob"]),
            ("limit=1", ["ann"]),
            ("offset=1&limit=1", ["bob"]),
            ("offset=-5&limit=-5", ["ann", "bob"]),
            ("offset=99999999999999999999", []),
            ("limit=abc&node_id=1001", ["ann", "bob"]),
        ):
            found = (await api.get(f"/connz?{query}"))["connections"]
            assert [each["uid"] for each in found] == uids, query
        assert await api.get("/connz?node_id=7") == (400, "节点不存在！")


async def test_a_connection_is_closed_with_and_without_a_word(tmp_path: Path) -> None:
    """POST /conn/kick tells the client, POST /conn/remove does not; one that does not exist is OK."""
    async with api_in(tmp_path) as api, client(api.server) as ann, client(api.server) as bob:
        await ann.connect("ann")
        await bob.connect("bob")
        [(ann_id, _)], [(bob_id, _)] = await api.online("ann"), await api.online("bob")
        body = {"uid": "ann", "conn_id": ann_id, "node_id": 1001, "op_node_id": 1001}
        assert await api.post("/conn/kick", {**body, "uid": "bob"}) == OK
        await ann.ping()
        assert await api.post("/conn/kick", body) == OK
        kicked = (await ann.wait_for(wire.DisconnectReceived)).disconnect
        assert (kicked.reason_code, kicked.reason) == (12, "server kick")
        assert await api.post("/conn/remove", {"uid": "bob", "conn_id": str(bob_id)}) == OK
        await bob.wait_closed()
        assert not bob.waiting
        for path in ("/conn/kick", "/conn/remove"):
            assert await api.post(path, {"uid": "ann", "conn_id": 999_999}) == OK
            assert await api.post(path, {"uid": "ann"}) == (400, "conn_id is 0")
            assert await api.post(path, {**body, "op_node_id": 7}) == (400, "node not found")


async def test_a_page_of_connections_is_at_most_1000(tmp_path: Path) -> None:
    async with api_in(tmp_path) as api:
        for number in range(1005):
            api.server.broker.presence.register(MemorySession(Device(uid=f"u{number}", device_id=str(number))))
        assert len((await api.get("/connz?limit=5000"))["connections"]) == 1000
