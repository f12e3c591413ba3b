"""Health, addresses, numbers. Source: http-api.md, sections 4.6 and 8."""

import resource
import time
from importlib import metadata
from typing import Any

from triolet_api._api import Request, Text, gets, posts
from triolet_api._body import BAD_FORMAT, ApiError, list_of_texts

_EVERY_ADDRESS = ("0.0.0.0:", "[::]:")  # read, not bound
_METRICS = "text/plain; version=0.0.4; charset=utf-8"


async def health(request: Request) -> Any:
    """GET /health, /healthz, /readyz."""
    return {"status": "ok"}


async def metrics(request: Request) -> Any:
    """GET /metrics."""
    return Text(request.broker.metrics.render(), _METRICS)


def _addresses(request: Request) -> dict[str, str]:
    external, endpoints = request.broker.config.external, request.broker.endpoints
    host = external.ip or request.host
    if request.query.get("intranet") == "1":
        return {"tcp_addr": external.intranet_tcp_addr, "ws_addr": "", "wss_addr": ""}
    return {
        "tcp_addr": external.tcp_addr or _reachable(host, endpoints.get("tcp", ""), is_set=bool(external.ip)),
        "ws_addr": external.ws_addr or _url(_reachable(host, endpoints.get("ws", ""), is_set=bool(external.ip))),
        "wss_addr": external.wss_addr,
    }


def _reachable(host: str, bound: str, *, is_set: bool) -> str:
    """Put a host that clients can reach in place of "every address", or of any if external.ip is set."""
    if bound and (is_set or bound.startswith(_EVERY_ADDRESS)):
        return f"{host}:{bound.rpartition(':')[2]}"
    return bound


def _url(address: str) -> str:
    return f"ws://{address}" if address else ""


async def route(request: Request) -> Any:
    """GET /route."""
    return _addresses(request)


async def route_batch(request: Request) -> Any:
    """POST /route/batch: a list of uids, or an object that holds one."""
    asked = request.json.get("uids") if isinstance(request.json, dict) else request.json
    if not isinstance(asked, list):
        raise ApiError(BAD_FORMAT, code="bad_json")
    return [{**_addresses(request), "uids": list_of_texts("uids", asked)}]


async def varz(request: Request) -> Any:
    """GET /varz."""
    broker = request.broker
    numbers = broker.metrics.values()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    uptime = max(time.time() - broker.started_at, 1e-9)
    external = broker.config.external
    return {
        "server_id": str(broker.config.node.id),
        "server_name": "triolet",
        "version": metadata.version("triolet-core"),
        "connections": int(numbers.get("gateway_connections", broker.presence.count)),
        "user_handler_count": broker.presence.user_count,
        "user_handler_conn_count": broker.presence.count,
        "uptime": _duration(uptime),
        "goroutine": int(numbers.get("gateway_connections", 0)),
        "mem": usage.ru_maxrss * 1024,
        "cpu": round((usage.ru_utime + usage.ru_stime) / uptime * 100, 2),
        "in_msgs": int(numbers.get("gateway_sends_total", 0)),
        "out_msgs": int(numbers.get("gateway_receives_total", 0)),
        "in_bytes": int(numbers.get("gateway_bytes_in_total", 0)),
        "out_bytes": int(numbers.get("gateway_bytes_out_total", 0)),
        "slow_clients": int(numbers.get("gateway_slow_consumers_total", 0)),
        "retry_queue": int(numbers.get("gateway_unacked_sessions", 0)),
        **_addresses(request),
        "manager_addr": external.manager_addr,
        "manager_on": 0,
        "monitor_addr": external.manager_addr,
        "monitor_on": 0,
        "commit": "",
        "commit_date": "",
        "tree_state": "",
        "api_url": external.api_url,
        "manager_uid": broker.config.auth.manager_uid,
        "manager_token_on": int(bool(broker.config.auth.manager_token)),
        "conversation_cache_count": 0,
    }


def _duration(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}h{minutes}m{left}s"


ROUTES = (
    *gets({"/health": health, "/healthz": health, "/readyz": health}),
    *gets({"/metrics": metrics, "/route": route, "/varz": varz}),
    *posts({"/route/batch": route_batch}),
)
