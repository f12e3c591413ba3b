"""The cluster as one node sees it: itself, leading every slot. Source: http-api.md, sections 8.12, 8.13, 8.16, 8.17."""

import base64
import time
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import attrs
from msgspec import UNSET, UnsetType

from triolet_api._answers import OK, Content, Ok
from triolet_api._call import Call, Nothing, get, post
from triolet_api._errors import ApiError
from triolet_api._fields import Number, Text, field
from triolet_api.routes._connection import duration
from triolet_api.routes._route import addresses
from triolet_core.model import SLOT_COUNT

_NO_NODE = "node not found"
_NO_SLOT = "slot not found"


@attrs.frozen(kw_only=True)
class Node:
    """A node."""

    id: int
    is_leader: int
    role: int
    cluster_addr: str
    api_server_addr: str
    online: int
    offline_count: int | UnsetType = UNSET
    allow_vote: int
    slot_count: int | UnsetType = UNSET
    term: int | UnsetType = UNSET
    slot_leader_count: int | UnsetType = UNSET
    uptime: str | UnsetType = UNSET
    app_version: str | UnsetType = UNSET
    config_version: int | UnsetType = UNSET
    status: int
    status_format: str


@attrs.frozen
class Nodes:
    """Nodes."""

    total: int
    data: list[Node]


@attrs.frozen(kw_only=True)
class Slot:
    """A slot."""

    id: int
    leader_id: int
    term: int
    replicas: list[int]
    channel_count: int
    log_index: int
    status: int
    status_format: str


@attrs.frozen
class Slots:
    """Slots."""

    total: int
    data: list[Slot]


@attrs.frozen(kw_only=True)
class SlotConfig:
    """A slot's place in its log; on one node everything that is committed is applied."""

    id: int
    leader_id: int
    term: int
    replicas: list[int]
    log_max_index: int
    leader_log_max_index: int
    applied_index: int


@attrs.frozen(kw_only=True)
class Replica:
    """A copy of a slot."""

    replica_id: int
    leader_id: int
    running: int
    last_log_seq: int
    last_log_time: int
    term: int
    applied_index: int
    committed_index: int
    conf_version: int
    role: int | UnsetType = UNSET
    role_format: str | UnsetType = UNSET
    last_log_time_format: str | UnsetType = UNSET


@attrs.frozen(kw_only=True)
class SlotsQuery:
    """Slots by number."""

    ids: str = field(Text(is_free=True, doc="numbers, joined by commas"))


@attrs.frozen(kw_only=True)
class MoveBody:
    """From node to node."""

    migrate_from: int = field(Number())
    migrate_to: int = field(Number())


@attrs.frozen(kw_only=True)
class LogsQuery:
    """A page of a log."""

    node_id: int = field(Number(is_lenient=True))
    log_type: int = field(Number(is_lenient=True, default=2))
    slot: int = field(Number(is_lenient=True))
    pre: int = field(Number(is_lenient=True))
    next: int = field(Number(is_lenient=True))
    limit: int = field(Number(is_lenient=True, default=20))


@attrs.frozen(kw_only=True)
class LogRow:
    """An entry of a log; `data` is JSON as a text."""

    id: str
    index: int
    term: int
    cmd: str
    data: str
    time_format: str


@attrs.frozen(kw_only=True)
class Logs:
    """A page of a log: one node keeps none, its store is the state."""

    next: int
    pre: int
    applied: int
    last: int
    more: int
    logs: list[LogRow]


@attrs.frozen(kw_only=True)
class ShardNode:
    """A node as LiMaoIM lists it."""

    node_id: int
    node_raft_addr: str
    node_api_addr: str
    node_rpc_addr: str
    tcp_addr: str
    ws_addr: str


@attrs.frozen(kw_only=True)
class Shard:
    """A range of slots as LiMaoIM lists it; `vaild` is its spelling."""

    vaild_count: int
    vaild_slots: str
    version: int
    slot_count: int
    cluster_id: int
    state: int
    slots: str
    nodes: list[ShardNode]
    leader_id: int
    slot_state: int


def node_id(call: Call) -> int:
    """Return the number of this node."""
    return call.broker.config.node.id


def check_node(call: Call, number: int) -> None:
    """Refuse a node that is not this one (0: any)."""
    if number not in (0, node_id(call)):
        raise ApiError(_NO_NODE, code="no_node")


def _node(call: Call, *, with_state: bool) -> Node:
    broker = call.broker
    common: dict[str, Any] = {
        "id": node_id(call),
        "is_leader": 1,
        "role": 0,
        "cluster_addr": broker.endpoints.get("tcp", ""),
        "api_server_addr": broker.config.external.api_url or f"http://{broker.endpoints.get('http', '')}",
        "online": 1,
        "allow_vote": 1,
        "status": 3,
        "status_format": "已加入",
    }
    if not with_state:
        return Node(**common)
    return Node(
        **common,
        slot_count=SLOT_COUNT,
        term=1,
        slot_leader_count=SLOT_COUNT,
        uptime=duration(time.time() - broker.started_at),
        app_version=metadata.version("triolet-core"),
        config_version=1,
    )


async def nodes(call: Call, query: None) -> Nodes:
    """List the nodes."""
    return Nodes(1, [_node(call, with_state=True)])


async def simple_nodes(call: Call, query: None) -> Nodes:
    """List the nodes without their state."""
    return Nodes(1, [_node(call, with_state=False)])


async def node(call: Call, query: None) -> Node:
    """Return this node."""
    return _node(call, with_state=True)


def _slot(call: Call, number: int, channel_count: int) -> Slot:
    me = node_id(call)
    return Slot(
        id=number,
        leader_id=me,
        term=1,
        replicas=[me],
        channel_count=channel_count,
        log_index=call.broker.catalog.last_transaction(),
        status=0,
        status_format="正常",
    )


async def slots(call: Call, query: SlotsQuery) -> list[Slot]:
    """Return slots by number."""
    numbers = [each.strip() for each in query.ids.split(",") if each.strip()]
    if any(not each.isdecimal() or len(each) > 9 for each in numbers) or len(numbers) > SLOT_COUNT:
        raise ApiError("ids: slot numbers, joined by commas", code="bad_field")
    catalog = call.broker.catalog
    known = [int(each) for each in numbers if int(each) < SLOT_COUNT]
    return [_slot(call, number, catalog.channel_count(number)) for number in known]


async def all_slots(call: Call, query: None) -> Slots:
    """List every slot."""
    counts = call.broker.catalog.channel_counts()
    return Slots(len(counts), [_slot(call, number, count) for number, count in enumerate(counts)])


def _number(call: Call) -> int:
    number = call.path_number("id")
    if number >= SLOT_COUNT:
        raise ApiError(_NO_SLOT, code="no_slot")
    return number


async def slot_config(call: Call, query: None) -> SlotConfig:
    """Return where a slot is in its log."""
    me, index = node_id(call), call.broker.catalog.last_transaction()
    return SlotConfig(
        id=_number(call),
        leader_id=me,
        term=1,
        replicas=[me],
        log_max_index=index,
        leader_log_max_index=index,
        applied_index=index,
    )


def _replica(call: Call) -> Replica:
    me, index = node_id(call), call.broker.catalog.last_transaction()
    return Replica(
        replica_id=me,
        leader_id=me,
        running=1,
        last_log_seq=index,
        last_log_time=0,
        term=1,
        applied_index=index,
        committed_index=index,
        conf_version=1,
    )


async def slot_replicas(call: Call, query: None) -> list[Replica]:
    """List the copies of a slot."""
    _number(call)
    return [attrs.evolve(_replica(call), role=3, role_format="leader", last_log_time_format="")]


async def slot_local_replica(call: Call, query: None) -> Replica:
    """Return this node's copy of a slot."""
    _number(call)
    return _replica(call)


async def slot_channels(call: Call, query: None) -> dict[str, Any]:
    """List the channels of a slot."""
    number = _number(call)
    found = await call.broker.catalog.channels(lambda row: row.slot == number)
    return {
        "total": len(found),
        "data": [{"channel_id": row.key.id, "channel_type": row.key.type, "slot": row.slot} for row in found],
    }


def check_move(call: Call, body: MoveBody) -> None:
    """Refuse to move what only this node has, in the reference's words."""
    me = node_id(call)
    if body.migrate_from == 0 or body.migrate_to == 0:
        raise ApiError("migrateFrom or migrateTo is 0", code="bad_field")
    if body.migrate_from == body.migrate_to:
        raise ApiError("migrateFrom is equal to migrateTo", code="bad_field")
    if body.migrate_from != me:
        raise ApiError("MigrateFrom not in replicas", code="bad_field")
    raise ApiError(_NO_NODE, code="no_node")


async def slot_migrate(call: Call, body: MoveBody) -> Ok:
    """Refuse to move a slot: there is no other node."""
    _number(call)
    check_move(call, body)
    return OK


async def slot_election(call: Call, body: Nothing) -> Ok:
    """Elect the only candidate again."""
    _number(call)
    return OK


async def info(call: Call, query: None) -> dict[str, Any]:
    """Return the cluster's configuration."""
    me = _node(call, with_state=False)
    return {
        "version": 1,
        "slotCount": SLOT_COUNT,
        "slotReplicaCount": 1,
        "channelReplicaCount": 1,
        "term": 1,
        "nodes": [
            {
                "id": me.id,
                "clusterAddr": me.cluster_addr,
                "apiServerAddr": me.api_server_addr,
                "online": True,
                "allowVote": True,
                "status": me.status,
                "createdAt": int(call.broker.started_at),
            }
        ],
        "slots": [{"id": number, "leader": me.id, "term": 1, "replicas": [me.id]} for number in range(SLOT_COUNT)],
    }


async def logs(call: Call, query: LogsQuery) -> Logs:
    """Return a page of the log: one node needs none, so it is empty."""
    check_node(call, query.node_id)
    index = call.broker.catalog.last_transaction()
    return Logs(next=0, pre=0, applied=index, last=index, more=0, logs=[])


async def check_log_conflict(call: Call, query: None) -> Content:
    """Find no conflict."""
    return Content(b"", "text/plain; charset=utf-8")


async def trace(call: Call, query: None) -> dict[str, list[Any]]:
    """Return an empty trace: none is kept."""
    return {"nodes": [], "edges": []}


async def shards(call: Call, query: None) -> list[Shard]:
    """List the ranges of slots as LiMaoIM's proxy does: one, led by this node."""
    me, external = _node(call, with_state=False), addresses(call)
    return [
        Shard(
            vaild_count=SLOT_COUNT,
            vaild_slots=f"0-{SLOT_COUNT - 1}",
            version=1,
            slot_count=SLOT_COUNT,
            cluster_id=1,
            state=1,
            slots=bitmap(range(SLOT_COUNT)),
            nodes=[
                ShardNode(
                    node_id=me.id,
                    node_raft_addr=me.cluster_addr,
                    node_api_addr=me.api_server_addr,
                    node_rpc_addr=me.cluster_addr,
                    tcp_addr=external.tcp_addr,
                    ws_addr=external.ws_addr.removeprefix("ws://"),
                )
            ],
            leader_id=me.id,
            slot_state=1,
        )
    ]


def bitmap(numbers: Sequence[int]) -> str:
    """Return slots as base64 of 32 bytes, bit i in byte i/8, the lowest first."""
    bits = bytearray(SLOT_COUNT // 8)
    for number in numbers:
        bits[number // 8] |= 1 << number % 8
    return base64.b64encode(bytes(bits)).decode()


_READ: dict[str, Any] = {"is_admin": True, "resource": "cluster"}

ROUTES = (
    get("/cluster", shards, None, list[Shard], **_READ),
    get("/cluster/nodes", nodes, None, Nodes, **_READ),
    get("/cluster/simpleNodes", simple_nodes, None, Nodes, **_READ),
    get("/cluster/node", node, None, Node, **_READ),
    get("/cluster/slots", slots, SlotsQuery, list[Slot], **_READ),
    get("/cluster/allslot", all_slots, None, Slots, **_READ),
    get("/cluster/slots/{id}/config", slot_config, None, SlotConfig, **_READ),
    get("/cluster/slots/{id}/replicas", slot_replicas, None, list[Replica], **_READ),
    get("/cluster/slots/{id}/localReplica", slot_local_replica, None, Replica, **_READ),
    get("/cluster/slots/{id}/channels", slot_channels, None, dict[str, Any], **_READ),
    post("/cluster/slots/{id}/migrate", slot_migrate, MoveBody, Ok, is_admin=True, resource="slotMigrate"),
    post("/cluster/slots/{id}/election", slot_election, None, Ok, is_admin=True, resource="slotElection"),
    get("/cluster/info", info, None, dict[str, Any], **_READ),
    get("/cluster/logs", logs, LogsQuery, Logs, **_READ),
    get("/cluster/devtools/checkLogConflict", check_log_conflict, None, None, **_READ),
    get("/cluster/message/trace", trace, None, dict[str, list[Any]], **_READ),
    get("/cluster/message/trace/recvack", trace, None, dict[str, list[Any]], **_READ),
)
