"""Connections: what they did, closing them, addresses that may not connect. Source: http-api.md, 4.7, 4.8, 8.1."""

import datetime
import time
from collections.abc import Callable

import attrs

from triolet_api._answers import OK, Ok
from triolet_api._call import Call, get, post
from triolet_api._errors import ApiError, missing
from triolet_api._fields import Number, Text, Texts, field
from triolet_api._pages import sorted_slice
from triolet_core import DeviceFlag, ReasonCode
from triolet_core.session import ConnectionStatistics, Session

KICK_TEXT = "server kick"
KICK_GRACE_S = 2.0
MAX_ROWS = 1000
_DEVICES = {DeviceFlag.APP: "App", DeviceFlag.WEB: "Web", DeviceFlag.PC: "PC"}


@attrs.frozen(kw_only=True)
class ConnectionBody:
    """A connection of this node."""

    uid: str = field(Text())
    conn_id: int = field(Number(missing="conn_id is 0"))
    node_id: int = field(Number())
    op_node_id: int = field(Number())


@attrs.frozen(kw_only=True)
class AddressesBody:
    """IP addresses."""

    ips: list[str] = field(Texts(missing="ip列表不能为空！"))


@attrs.frozen(kw_only=True)
class ConnectionsQuery:
    """A page of connections."""

    sort: str = field(Text(doc="id, inMsg, outMsgBytes, uptime, idle, …, each also with Desc"))
    offset: int = field(Number(is_lenient=True, high=2**31))
    limit: int = field(Number(is_lenient=True, default=20, high=MAX_ROWS))
    uid: str = field(Text(doc="part of the uid"))
    node_id: int = field(Number(is_lenient=True))


@attrs.frozen(kw_only=True)
class Connection:
    """A connection."""

    id: int
    uid: str
    ip: str
    port: int
    last_activity: str
    uptime: str
    idle: str
    pending_bytes: int
    in_msgs: int
    out_msgs: int
    in_msg_bytes: int
    out_msg_bytes: int
    in_packets: int
    out_packets: int
    in_packet_bytes: int
    out_packet_bytes: int
    in_bytes: int
    out_bytes: int
    device: str
    device_id: str
    version: int
    proxy_type_format: str
    leader_id: int
    node_id: int


@attrs.frozen(kw_only=True)
class Connections:
    """A page of connections; `total` counts those that match."""

    connections: list[Connection]
    now: str
    total: int
    offset: int
    limit: int


_SORTS: dict[str, Callable[[ConnectionStatistics], float]] = {
    "id": lambda each: each.connection_id,
    "inmsg": lambda each: each.in_messages,
    "outmsg": lambda each: each.out_messages,
    "inmsgbytes": lambda each: each.in_message_bytes,
    "outmsgbytes": lambda each: each.out_message_bytes,
    "inpacket": lambda each: each.in_packets,
    "outpacket": lambda each: each.out_packets,
    "inpacketbytes": lambda each: each.in_packet_bytes,
    "outpacketbytes": lambda each: each.out_packet_bytes,
    "inbytes": lambda each: each.in_packet_bytes,
    "outbytes": lambda each: each.out_packet_bytes,
    "pendingbytes": lambda each: each.pending_bytes,
    "uptime": lambda each: -each.started_at,
    "idle": lambda each: -each.last_activity,
    "protoversion": lambda each: each.protocol_version,
}


async def rows(
    call: Call, *, uid: str = "", sort: str = "", offset: int = 0, limit: int
) -> tuple[list[Connection], int]:
    """Return a page of the connections of users whose uid holds `uid`, sorted, and how many there are of them."""
    found = list(call.broker.presence.all_sessions())
    if uid:
        found = [each for each in found if uid in each.device.uid]
    name = sort.lower()
    key = _SORTS.get(name.removesuffix("desc"))
    if key is None:
        page = found[offset : offset + limit]
    else:
        page = await sorted_slice(
            found, lambda each: key(each.statistics()), descending=name.endswith("desc"), start=offset, count=limit
        )
    now, node_id = time.time(), call.broker.config.node.id
    return [_row(session, node_id, now) for session in page], len(found)


def _row(session: Session, node_id: int, now: float) -> Connection:
    counted, device = session.statistics(), session.device
    kind = _DEVICES.get(device.flag, f"Device{int(device.flag)}")  # type: ignore[call-overload]  # an int finds it too
    return Connection(
        id=session.connection_id,
        uid=device.uid,
        ip=counted.host,
        port=counted.port,
        last_activity=rfc3339(counted.last_activity),
        uptime=duration(now - counted.started_at),
        idle=duration(now - counted.last_activity),
        pending_bytes=counted.pending_bytes,
        in_msgs=counted.in_messages,
        out_msgs=counted.out_messages,
        in_msg_bytes=counted.in_message_bytes,
        out_msg_bytes=counted.out_message_bytes,
        in_packets=counted.in_packets,
        out_packets=counted.out_packets,
        in_packet_bytes=counted.in_packet_bytes,
        out_packet_bytes=counted.out_packet_bytes,
        in_bytes=counted.in_packet_bytes,
        out_bytes=counted.out_packet_bytes,
        device=f"{kind}({'主' if device.level == 1 else '从'})",
        device_id=device.device_id,
        version=counted.protocol_version,
        proxy_type_format="本地连接",
        leader_id=node_id,
        node_id=node_id,
    )


async def connections(call: Call, query: ConnectionsQuery) -> Connections:
    """List connections."""
    if query.node_id not in (0, call.broker.config.node.id):
        raise ApiError("节点不存在！", code="no_node")
    limit = query.limit or 20
    page, total = await rows(call, uid=query.uid, sort=query.sort, offset=query.offset, limit=limit)
    return Connections(
        connections=page,
        now=rfc3339(time.time()),
        total=total,
        offset=query.offset,
        limit=limit,
    )


def _session(call: Call, body: ConnectionBody) -> Session | None:
    if body.op_node_id not in (0, call.broker.config.node.id):
        raise ApiError("node not found", code="no_node")
    found = (each for each in call.broker.presence.all_sessions() if each.connection_id == body.conn_id)
    session = next(found, None)
    return session if session is not None and body.uid in ("", session.device.uid) else None


async def remove(call: Call, body: ConnectionBody) -> Ok:
    """Close a connection without a word."""
    session = _session(call, body)
    if session is not None:
        call.broker.presence.dismiss(session, ReasonCode.CONNECT_KICK, "", notify=False, grace_s=0)
    return OK


async def kick(call: Call, body: ConnectionBody) -> Ok:
    """Tell a client that it is closed, and close the connection."""
    session = _session(call, body)
    if session is not None:
        call.broker.presence.dismiss(session, ReasonCode.CONNECT_KICK, KICK_TEXT, notify=True, grace_s=KICK_GRACE_S)
    return OK


async def block(call: Call, body: AddressesBody) -> Ok:
    """Turn addresses away: neither API calls nor client connections."""
    await _changed(call, body, add=True)
    return OK


async def unblock(call: Call, body: AddressesBody) -> Ok:
    """Let addresses in again."""
    await _changed(call, body, add=False)
    return OK


async def _changed(call: Call, body: AddressesBody, *, add: bool) -> None:
    if not body.ips:
        raise missing("ip列表不能为空！")
    addresses = call.broker.addresses
    try:
        await (addresses.block(body.ips) if add else addresses.unblock(body.ips))
    except ValueError:
        raise ApiError("ips: IPv4 or IPv6 addresses", code="bad_field") from None


async def blocked(call: Call, query: None) -> list[str]:
    """List the addresses that are turned away."""
    return call.broker.addresses.blocked()


def rfc3339(seconds: float) -> str:
    """Return a time with microseconds."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat().replace("+00:00", "Z")


def duration(seconds: float) -> str:
    """Return a duration such as 1h2m3s."""
    hours, rest = divmod(max(int(seconds), 0), 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}h{minutes}m{left}s"


ROUTES = (
    *(get(path, connections, ConnectionsQuery, Connections, is_admin=True) for path in ("/connz", "/api/connz")),
    post("/conn/remove", remove, ConnectionBody, Ok, is_admin=True, resource="connection"),
    post("/conn/kick", kick, ConnectionBody, Ok, is_admin=True, resource="connection"),
    post("/system/ip/blacklist_add", block, AddressesBody, Ok, is_admin=True, resource="ip"),
    post("/system/ip/blacklist_remove", unblock, AddressesBody, Ok, is_admin=True, resource="ip"),
    get("/system/ip/blacklist", blocked, None, list[str], is_admin=True, resource="ip"),
)
