"""Where clients connect to. Source: http-api.md, section 4.6."""

from typing import Any

import attrs

from triolet_api._call import Call, ask, get
from triolet_api._errors import BAD_FORMAT, ApiError
from triolet_api._fields import Text, field, list_of_texts
from triolet_api.routes._user import UIDS

_EVERY_ADDRESS = ("0.0.0.0:", "[::]:")  # read, not bound


@attrs.frozen(kw_only=True)
class RouteQuery:
    """For whom, and from where."""

    uid: str = field(Text(doc="without effect on one node"))
    intranet: str = field(Text(doc="1: the addresses inside"))


@attrs.frozen(kw_only=True)
class BatchQuery:
    """From where."""

    intranet: str = field(Text(doc="1: the addresses inside"))


@attrs.frozen(kw_only=True)
class Addresses:
    """Addresses of a node; empty where it does not listen."""

    tcp_addr: str
    ws_addr: str
    wss_addr: str


@attrs.frozen(kw_only=True)
class BatchAddresses(Addresses):
    """Addresses of a node, and whose they are."""

    uids: list[str]


def addresses(call: Call) -> Addresses:
    """Return the addresses that a caller asks for."""
    external, endpoints = call.broker.config.external, call.broker.endpoints
    if call.query.get("intranet") == "1":
        return Addresses(tcp_addr=external.intranet_tcp_addr, ws_addr="", wss_addr="")
    host, is_set = external.ip or call.host, bool(external.ip)
    return Addresses(
        tcp_addr=external.tcp_addr or _reachable(host, endpoints.get("tcp", ""), is_set=is_set),
        ws_addr=external.ws_addr or _url("ws", _reachable(host, endpoints.get("ws", ""), is_set=is_set)),
        wss_addr=external.wss_addr or _url("wss", _reachable(host, endpoints.get("wss", ""), is_set=is_set)),
    )


def _reachable(host: str, bound: str, *, is_set: bool) -> str:
    """Put a host that clients can reach in place of "every address", or of any if external.ip is set."""
    if bound and host and (is_set or bound.startswith(_EVERY_ADDRESS)):
        return f"{host}:{bound.rpartition(':')[2]}"
    return bound


def _url(scheme: str, address: str) -> str:
    return f"{scheme}://{address}" if address else ""


async def route(call: Call, query: RouteQuery) -> Addresses:
    """Return the addresses that a client connects to."""
    return addresses(call)


async def route_batch(call: Call, query: BatchQuery) -> list[BatchAddresses]:
    """Return the addresses for many users: a list of uids, or an object that holds one."""
    asked: Any = call.json
    if isinstance(asked, dict):
        asked = next((value for name, value in asked.items() if name.lower() == "uids"), None)
    if not isinstance(asked, list):
        raise ApiError(BAD_FORMAT, code="bad_json")
    return [BatchAddresses(**attrs.asdict(addresses(call)), uids=list_of_texts("uids", asked, call.rules))]


ROUTES = (
    get("/route", route, RouteQuery, Addresses),
    ask("/route/batch", route_batch, None, list[BatchAddresses], takes=UIDS, query=BatchQuery),
)
