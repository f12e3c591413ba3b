"""Health, numbers, samples over time. Source: http-api.md, sections 8.2 to 8.5 and 8.18."""

import platform
import resource
import time
from importlib import metadata
from typing import Any

import attrs
import trio
from msgspec import UNSET, UnsetType

from triolet_api._answers import Content
from triolet_api._call import Call, get
from triolet_api._fields import Number, Text, field
from triolet_api._samples import Samples, chart, points
from triolet_api.routes._connection import Connection, duration, rows
from triolet_api.routes._route import addresses

_METRICS = "text/plain; version=0.0.4; charset=utf-8"
_SERVER_NAME = "triolet"


@attrs.frozen(kw_only=True)
class Health:
    """Whether the server can work."""

    status: str
    message: str | UnsetType = UNSET


@attrs.frozen(kw_only=True)
class VarzQuery:
    """What is shown."""

    show: str = field(Text(doc="conn: connections too"))
    conn_limit: int = field(Number(is_lenient=True, default=20, high=1000))
    node_id: int = field(Number(is_lenient=True))


@attrs.frozen(kw_only=True)
class SamplesQuery:
    """How far back."""

    latest: int = field(Number(is_lenient=True, default=300, high=7 * 86_400, doc="seconds"))
    node_id: int = field(Number(is_lenient=True))


@attrs.frozen(kw_only=True)
class Varz:
    """The server in numbers."""

    server_id: str
    server_name: str
    version: str
    connections: int
    user_handler_count: int
    user_handler_conn_count: int
    uptime: str
    goroutine: int
    mem: int
    cpu: float
    in_msgs: int
    out_msgs: int
    in_bytes: int
    out_bytes: int
    slow_clients: int
    retry_queue: int
    tcp_addr: str
    ws_addr: str
    wss_addr: str
    manager_addr: str
    manager_on: int
    monitor_addr: str
    monitor_on: int
    commit: str
    commit_date: str
    tree_state: str
    api_url: str
    manager_uid: str
    manager_token_on: int
    conversation_cache_count: int
    conns: list[Connection] | UnsetType = UNSET


@attrs.frozen
class LoggerSetting:
    """What the web page may offer."""

    trace_on: int
    loki_on: int


@attrs.frozen
class Setting:
    """What the web page may offer."""

    logger: LoggerSetting
    prometheus_on: int
    stress_on: int


async def live(call: Call, query: None) -> Health:
    """Say that the process answers."""
    return Health(status="ok")


async def ready(call: Call, query: None) -> Any:
    """Say whether messages can be stored; 500 if not."""
    problem = call.broker.problem()
    if problem is None:
        return Health(status="ok")
    body = b'{"status":"error","message":"%s"}' % problem.encode()
    return Content(body, "application/json; charset=utf-8", 500)


async def metrics(call: Call, query: None) -> Content:
    """Return every number in the text form of Prometheus."""
    return Content(call.broker.metrics.render(), _METRICS)


async def varz(call: Call, query: VarzQuery) -> Varz:
    """Return the server in numbers."""
    broker = call.broker
    numbers = broker.metrics.values()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    uptime = max(time.time() - broker.started_at, 1e-9)
    external = broker.config.external
    shown = (await rows(call, limit=query.conn_limit or 20))[0] if query.show == "conn" else UNSET
    here = addresses(call)
    return Varz(
        server_id=str(broker.config.node.id),
        server_name=_SERVER_NAME,
        version=metadata.version("triolet-core"),
        connections=int(numbers.get("gateway_connections", broker.presence.count)),
        user_handler_count=broker.presence.user_count,
        user_handler_conn_count=broker.presence.count,
        uptime=duration(uptime),
        goroutine=trio.lowlevel.current_statistics().tasks_living,
        mem=_resident_bytes(),
        cpu=round((usage.ru_utime + usage.ru_stime) / uptime * 100, 2),
        in_msgs=int(numbers.get("gateway_sends_total", 0)),
        out_msgs=int(numbers.get("gateway_receives_total", 0)),
        in_bytes=int(numbers.get("gateway_bytes_in_total", 0)),
        out_bytes=int(numbers.get("gateway_bytes_out_total", 0)),
        slow_clients=int(numbers.get("gateway_slow_consumers_total", 0)),
        retry_queue=int(numbers.get("gateway_unacked_sessions", 0)),
        tcp_addr=here.tcp_addr,
        ws_addr=here.ws_addr,
        wss_addr=here.wss_addr,
        manager_addr=external.manager_addr,
        manager_on=0,
        monitor_addr=external.manager_addr,
        monitor_on=0,
        commit="",
        commit_date="",
        tree_state="",
        api_url=external.api_url,
        manager_uid=broker.config.auth.manager_uid,
        manager_token_on=int(bool(broker.config.auth.manager_token)),
        conversation_cache_count=0,
        conns=shown,
    )


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", "rb") as file:  # a file of the kernel, in memory
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


async def setting(call: Call, query: None) -> Setting:
    """Say what a web page may offer: the charts work without Prometheus, from the server's own samples."""
    return Setting(LoggerSetting(0, 0), 1, 0)


def _samples(call: Call) -> Samples:
    samples: Samples = call.services.parts["samples"]
    return samples


async def app_samples(call: Call, query: SamplesQuery) -> list[dict[str, float]]:
    """Return connections and packets over time."""
    return points(_samples(call), "app", query.latest)


async def cluster_samples(call: Call, query: SamplesQuery) -> list[dict[str, Any]]:
    """Return what the node stores and delivers over time."""
    return points(_samples(call), "cluster", query.latest)


async def system_samples(call: Call, query: SamplesQuery) -> list[dict[str, float]]:
    """Return traffic, memory and processor over time."""
    return points(_samples(call), "system", query.latest)


async def realtime(call: Call, query: None) -> dict[str, list[float]]:
    """Return the last minute, a number per second, as WuKongIM 1.2.6 does."""
    return chart(_samples(call))


async def upstream_packets(call: Call, query: None) -> list[float]:
    """Return the packets that came in, a number per second of the last minute."""
    return chart(_samples(call))["upstream_packets"]


ROUTES = (
    get("/healthz", live, None, Health, is_free=True),
    get("/health", ready, None, Health, is_free=True),
    get("/readyz", ready, None, Health, is_free=True),
    *(get(path, metrics, None, None, is_admin=True, resource="monitor") for path in ("/metrics", "/api/metrics")),
    *(get(path, varz, VarzQuery, Varz, is_admin=True, resource="monitor") for path in ("/varz", "/api/varz")),
    get("/varz/setting", setting, None, Setting, is_admin=True, resource="monitor"),
    get("/metrics/app", app_samples, SamplesQuery, list[dict[str, float]], is_admin=True, resource="monitor"),
    get("/metrics/cluster", cluster_samples, SamplesQuery, list[dict[str, Any]], is_admin=True, resource="monitor"),
    get("/metrics/system", system_samples, SamplesQuery, list[dict[str, float]], is_admin=True, resource="monitor"),
    get("/api/chart/realtime", realtime, None, dict[str, list[float]], is_admin=True, resource="monitor"),
    get("/chart/upstream_packet_count", upstream_packets, None, list[float], is_admin=True, resource="monitor"),
)
