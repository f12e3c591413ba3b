"""Health and numbers. http-api.md, sections 8.2 to 8.5 and 8.18."""

import re
from pathlib import Path

import trio

from tests.integration.api.support import GROUP, api_in
from tests.wkclient import client

VARZ = {
    "server_id": "1001",
    "server_name": "triolet",
    "connections": 1,
    "user_handler_count": 1,
    "user_handler_conn_count": 1,
    "uptime": "T",
    "in_msgs": 1,
    "out_msgs": 0,
    "slow_clients": 0,
    "retry_queue": 0,
    "ws_addr": "",
    "wss_addr": "",
    "manager_addr": "",
    "manager_on": 0,
    "monitor_addr": "",
    "monitor_on": 0,
    "commit": "",
    "commit_date": "",
    "tree_state": "",
    "api_url": "",
    "manager_uid": "____manager",
    "manager_token_on": 0,
    "conversation_cache_count": 0,
}
MEASURED = {"version", "goroutine", "mem", "cpu", "in_bytes", "out_bytes", "tcp_addr"}
PACKETS = ("send", "sendack", "recv", "recvack", "conn", "connack", "ping", "pong")


async def test_health(tmp_path: Path) -> None:
    """GET /health and /readyz say what is wrong when nothing can be stored; /healthz that the process lives."""
    async with api_in(tmp_path, token="secret") as api:
        for path in ("/health", "/healthz", "/readyz"):
            assert await api.get(path) == {"status": "ok"}
        api.server.broker._store.writer.is_full = True
        for path in ("/health", "/readyz"):
            answer = await api.ask("GET", path)
            shown = {"status": "error", "message": "the store is full"}
            assert (answer.status_code, answer.json()) == (500, shown)
        assert await api.get("/healthz") == {"status": "ok"}


async def test_the_server_in_numbers(tmp_path: Path) -> None:
    """GET /varz and its alias /api/varz; `show=conn` adds the rows of /connz."""
    async with api_in(tmp_path) as api, client(api.server) as ann:
        await ann.connect("ann")
        await api.post("/channel", {**GROUP, "subscribers": ["ann"]})
        await ann.send("g", channel_type=2)
        for path in ("/varz", "/api/varz"):
            found = await api.get(path)
            assert api.shown({name: value for name, value in found.items() if name not in MEASURED}) == VARZ
            assert set(found) == VARZ.keys() | MEASURED
            assert found["tcp_addr"] == api.server.broker.endpoints["tcp"]
            assert re.fullmatch(r"\d+h\d+m\d+s", found["uptime"])
            assert min(found[name] for name in ("goroutine", "mem", "in_bytes", "out_bytes")) > 0
        conns = (await api.get("/varz?show=conn&conn_limit=-5"))["conns"]
        assert [each["uid"] for each in conns] == ["ann"]
        setting = {"logger": {"trace_on": 0, "loki_on": 0}, "prometheus_on": 1, "stress_on": 0}
        assert await api.get("/varz/setting") == setting


async def test_metrics(tmp_path: Path) -> None:
    """GET /metrics and /api/metrics: the reference's names with its two labels, ours beside."""
    async with api_in(tmp_path) as api, client(api.server) as ann:
        await ann.connect("ann")
        await ann.ping()
        for path in ("/metrics", "/api/metrics"):
            answer = await api.ask("GET", path)
            assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
            lines = answer.text.splitlines()
            labels = '{otel_scope_name="metrics",otel_scope_version=""}'
            assert f"app_conn_count_total{labels} 1.0" in lines
            assert f"app_ping_count_total{labels} 1.0" in lines
            for name in PACKETS:
                stem = f"app_{name}" if name in ("ping", "pong") else f"app_{name}_packet"
                assert any(line.startswith(f"{stem}_count_total{labels} ") for line in lines)
            assert any(line.startswith(f"system_extranet_incoming_bytes_total{labels} ") for line in lines)
            assert any(line.startswith("triolet_broker_commits_total ") for line in lines)
            assert any(line.startswith("triolet_api_requests_total ") for line in lines)


async def test_the_charts_work_without_prometheus(tmp_path: Path) -> None:
    """GET /metrics/app, /metrics/cluster, /metrics/system: a point between each two samples."""
    async with api_in(tmp_path) as api, client(api.server) as ann:
        await ann.connect("ann")
        with trio.fail_after(10):
            while not await api.get("/metrics/app"):
                await ann.ping()
        [point, *_] = await api.get("/metrics/app?latest=60")
        rates = {f"{name}_packet_{kind}_rate" for name in PACKETS for kind in ("count", "bytes")}
        counts = {"conn_count", "online_user_count", "online_device_count", "timestamp"}
        assert set(point) == rates | counts
        assert point["conn_count"] in (0, 1)
        [point, *_] = await api.get("/metrics/cluster")
        assert point["channel_propose_count_rate"] == [{"label": "1", "value": 0.0}]
        [point, *_] = await api.get("/metrics/system")
        assert point["memstats_alloc_bytes"] > 1_000_000
        assert await api.get("/metrics/app?latest=0") == []


async def test_the_charts_of_the_old_monitor(tmp_path: Path) -> None:
    """GET /api/chart/realtime, GET /chart/upstream_packet_count: sixty samples, zeros where there are none."""
    async with api_in(tmp_path) as api:
        names = ["conn_nums", "upstream_packets", "upstream_traffics", "downstream_packets", "downstream_traffics"]
        assert await api.get("/api/chart/realtime?last=1") == dict.fromkeys(names, [0.0] * 60)
        assert await api.get("/chart/upstream_packet_count") == [0.0] * 60


async def test_reading_numbers_changes_nothing(tmp_path: Path) -> None:
    async with api_in(tmp_path) as api:
        before = api.server.broker.statistics().commits_total
        for path in ("/varz", "/metrics", "/connz", "/metrics/app", "/api/chart/realtime"):
            await api.ask("GET", path)
        assert api.server.broker.statistics().commits_total == before
