"""Channels in the administrator's eyes. Source: http-api.md, sections 8.12 and 8.14."""

import datetime
from typing import Any

import attrs

from triolet_api._answers import OK, Ok
from triolet_api._call import Call, ask, get, post
from triolet_api._fields import ChannelType as TypeField
from triolet_api._fields import MaybeNumber, Number, Objects, Text, field
from triolet_api.routes._cluster_nodes import MoveBody, check_move, check_node, node_id
from triolet_core import ChannelKey, ChannelRow
from triolet_core.model import slot_of

TYPES = {
    1: "个人",
    2: "群组",
    3: "客服",
    4: "社区",
    5: "社区话题",
    6: "资讯",
    7: "数据",
    8: "临时",
    9: "直播",
    10: "访客",
    11: "代理",
    12: "代理组",
}
MAX_LIMIT = 10_000


@attrs.frozen(kw_only=True)
class ChannelsQuery:
    """Which channels; an absent bound is none."""

    channel_id: str = field(Text(doc="part of the id"))
    channel_type: int = field(Number(is_lenient=True, high=255))
    limit: int = field(Number(is_lenient=True, default=20, high=MAX_LIMIT))
    offset_created_at: int = field(Number(is_lenient=True, doc="nanoseconds"))
    pre: int = field(Number(is_lenient=True, high=1, doc="1: newer ones"))
    node_id: int = field(Number(is_lenient=True))
    running: int = field(Number(is_lenient=True))
    ban: int | None = field(MaybeNumber(is_lenient=True))
    disband: int | None = field(MaybeNumber(is_lenient=True))
    subscriber_count_gte: int | None = field(MaybeNumber(is_lenient=True))
    subscriber_count_lte: int | None = field(MaybeNumber(is_lenient=True))
    allowlist_count_gte: int | None = field(MaybeNumber(is_lenient=True))
    allowlist_count_lte: int | None = field(MaybeNumber(is_lenient=True))
    denylist_count_gte: int | None = field(MaybeNumber(is_lenient=True))
    denylist_count_lte: int | None = field(MaybeNumber(is_lenient=True))

    def accepts(self, row: ChannelRow) -> bool:
        """Whether a channel is wanted."""
        return (
            self.channel_id in row.key.id
            and self.channel_type in (0, row.key.type)
            and self.ban in (None, int(row.info.ban))
            and self.disband in (None, int(row.info.disband))
            and _within(row.members, self.subscriber_count_gte, self.subscriber_count_lte)
            and _within(row.allowed, self.allowlist_count_gte, self.allowlist_count_lte)
            and _within(row.denied, self.denylist_count_gte, self.denylist_count_lte)
        )


def _within(count: int, low: int | None, high: int | None) -> bool:
    return (low is None or count >= low) and (high is None or count <= high)


@attrs.frozen(kw_only=True)
class NodeQuery:
    """A node."""

    node_id: int = field(Number(is_lenient=True, doc="0: this one"))


@attrs.frozen(kw_only=True)
class ChannelInfoRow:
    """A channel with its counts."""

    id: int
    slot: int
    channel_id: str
    channel_type: int
    ban: int
    disband: int
    subscriber_count: int
    allowlist_count: int
    denylist_count: int
    last_msg_seq: int
    last_msg_time: int
    last_msg_time_format: str
    status_format: str
    created_at: int
    updated_at: int
    created_at_format: str
    updated_at_format: str


@attrs.frozen
class ChannelRows:
    """A page of channels."""

    total: int
    more: int
    data: list[ChannelInfoRow]


@attrs.frozen(kw_only=True)
class ChannelCluster:
    """Where a channel lives."""

    channel_id: str
    channel_type: int
    channel_type_format: str
    replica_count: int
    replicas: list[int]
    leader_id: int
    term: int
    slot_id: int
    slot_leader_id: int
    last_message_seq: int
    last_append_time: str
    active: int
    active_format: str
    status: int
    status_format: str
    migrate_from: int
    migrate_to: int
    created_at: int
    updated_at: int
    created_at_format: str
    updated_at_format: str
    learder_id: int
    """As WuKongIM spells it."""


@attrs.frozen
class ChannelClusters:
    """A page of channels of a node."""

    total: int
    more: int
    running: int
    data: list[ChannelCluster]


@attrs.frozen(kw_only=True)
class ChannelReplica:
    """A copy of a channel."""

    replica_id: int
    leader_id: int
    running: int
    last_msg_seq: int
    last_msg_time: int
    term: int
    conf_version: int
    role: int
    role_format: str
    last_msg_time_format: str


@attrs.frozen(kw_only=True)
class ChannelBody:
    """A channel."""

    channel_id: str = field(Text(missing="channel_id不能为空！"))
    channel_type: int = field(TypeField())


@attrs.frozen(kw_only=True)
class StatusBody:
    """Channels."""

    channels: list[ChannelBody] = field(Objects(of=ChannelBody))


@attrs.frozen(kw_only=True)
class ChannelStatus:
    """What a channel has."""

    channel_id: str
    channel_type: int
    running: int
    last_msg_seq: int
    last_msg_time: int


def at(seconds: int) -> str:
    """Return a time as the web page shows it; empty for none."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S") if seconds else ""


def page_of(rows: list[ChannelRow], query: ChannelsQuery) -> tuple[list[ChannelRow], bool]:
    """Return a page of channels that are sorted newest first, and whether there are more."""
    offset, limit = query.offset_created_at // 10**9, query.limit or 20
    if offset and query.pre:
        newer = [row for row in rows if row.created > offset]
        return newer[-limit:], len(newer) > limit
    older = [row for row in rows if not offset or row.created < offset]
    return older[:limit], len(older) > limit


def _shown(row: ChannelRow) -> ChannelInfoRow:
    info = row.info
    return ChannelInfoRow(
        id=row.slot << 32 | row.number,
        slot=row.slot,
        channel_id=row.key.id,
        channel_type=row.key.type,
        ban=int(info.ban),
        disband=int(info.disband),
        subscriber_count=row.members,
        allowlist_count=row.allowed,
        denylist_count=row.denied,
        last_msg_seq=row.last_seq,
        last_msg_time=row.last_time * 10**9,
        last_msg_time_format=at(row.last_time),
        status_format="解散" if info.disband else "封禁" if info.ban else "正常",
        created_at=row.created * 10**9,
        updated_at=row.updated * 10**9,
        created_at_format=at(row.created),
        updated_at_format=at(row.updated),
    )


async def channels(call: Call, query: ChannelsQuery) -> ChannelRows:
    """List channels, the newest first."""
    check_node(call, query.node_id)
    rows = await call.broker.catalog.channels(query.accepts)
    page, more = page_of(rows, query)
    return ChannelRows(len(rows), int(more), [_shown(row) for row in page])


def _cluster(call: Call, key: ChannelKey, row: ChannelRow | None) -> ChannelCluster:
    me = node_id(call)
    created, updated = (row.created, row.updated) if row is not None else (0, 0)
    return ChannelCluster(
        channel_id=key.id,
        channel_type=key.type,
        channel_type_format=TYPES.get(key.type, str(key.type)),
        replica_count=1,
        replicas=[me],
        leader_id=me,
        term=1,
        slot_id=slot_of(key.id),
        slot_leader_id=me,
        last_message_seq=row.last_seq if row is not None else 0,
        last_append_time=at(row.last_time) if row is not None else "",
        active=1,
        active_format="运行中",
        status=0,
        status_format="正常",
        migrate_from=0,
        migrate_to=0,
        created_at=created * 10**9,
        updated_at=updated * 10**9,
        created_at_format=at(created),
        updated_at_format=at(updated),
        learder_id=me,
    )


async def node_channels(call: Call, query: ChannelsQuery) -> ChannelClusters:
    """List the channels of a node."""
    check_node(call, call.path_number("id"))
    rows = await call.broker.catalog.channels(query.accepts)
    page, more = page_of(rows, query)
    return ChannelClusters(len(rows), int(more), len(rows), [_cluster(call, row.key, row) for row in page])


def _key(call: Call) -> ChannelKey:
    kind = call.path_number("channel_type", high=255)
    return ChannelKey(call.path["channel_id"], kind)


async def config(call: Call, query: NodeQuery) -> ChannelCluster:
    """Return where a channel lives."""
    check_node(call, query.node_id)
    key = _key(call)
    return _cluster(call, key, call.broker.catalog.channel(key))


async def members(call: Call, query: None) -> list[str]:
    """List the members of a channel."""
    return call.broker.channels.members(_key(call))


async def denied(call: Call, query: None) -> list[str]:
    """List a channel's denylist."""
    return call.broker.channels.denied(_key(call))


async def allowed(call: Call, query: None) -> list[str]:
    """List a channel's allowlist."""
    return call.broker.channels.allowed(_key(call))


def _replica(call: Call) -> ChannelReplica:
    row, me = call.broker.catalog.channel(_key(call)), node_id(call)
    time = row.last_time if row is not None else 0
    return ChannelReplica(
        replica_id=me,
        leader_id=me,
        running=1,
        last_msg_seq=row.last_seq if row is not None else 0,
        last_msg_time=time * 10**9,
        term=1,
        conf_version=1,
        role=3,
        role_format="leader",
        last_msg_time_format=at(time),
    )


async def replicas(call: Call, query: None) -> list[ChannelReplica]:
    """List the copies of a channel."""
    return [_replica(call)]


async def local_replica(call: Call, query: None) -> ChannelReplica:
    """Return this node's copy of a channel."""
    return _replica(call)


async def start(call: Call, body: None) -> Ok:
    """Leave a channel running: on one node it always is."""
    _key(call)
    return OK


async def stop(call: Call, body: None) -> Ok:
    """Put a channel out of memory; its next message reads it again."""
    call.broker.channels.forget(_key(call))
    return OK


async def migrate(call: Call, body: MoveBody) -> Ok:
    """Refuse to move a channel: there is no other node."""
    _key(call)
    check_move(call, body)
    return OK


async def status(call: Call, body: StatusBody) -> list[ChannelStatus]:
    """Return the last message of channels."""
    if not body.channels:
        return []
    rows = [
        (each, call.broker.catalog.channel(ChannelKey(each.channel_id, each.channel_type))) for each in body.channels
    ]
    return [
        ChannelStatus(
            channel_id=each.channel_id,
            channel_type=each.channel_type,
            running=int(row is not None),
            last_msg_seq=row.last_seq if row is not None else 0,
            last_msg_time=row.last_time * 10**9 if row is not None else 0,
        )
        for each, row in rows
    ]


_READ: dict[str, Any] = {"is_admin": True, "resource": "cluster"}
_ONE = "/cluster/channels/{channel_id}/{channel_type}"

ROUTES = (
    *(get(path, channels, ChannelsQuery, ChannelRows, **_READ) for path in ("/cluster/channels", "/api/channels")),
    get("/cluster/nodes/{id}/channels", node_channels, ChannelsQuery, ChannelClusters, **_READ),
    get(f"{_ONE}/config", config, NodeQuery, ChannelCluster, **_READ),
    get(f"{_ONE}/subscribers", members, None, list[str], **_READ),
    get(f"{_ONE}/denylist", denied, None, list[str], **_READ),
    get(f"{_ONE}/allowlist", allowed, None, list[str], **_READ),
    get(f"{_ONE}/replicas", replicas, None, list[ChannelReplica], **_READ),
    get(f"{_ONE}/localReplica", local_replica, None, ChannelReplica, **_READ),
    post(f"{_ONE}/start", start, None, Ok, is_admin=True, resource="clusterchannelStart"),
    post(f"{_ONE}/stop", stop, None, Ok, is_admin=True, resource="clusterchannelStop"),
    post(f"{_ONE}/migrate", migrate, MoveBody, Ok, is_admin=True, resource="clusterchannelMigrate"),
    ask("/cluster/channel/status", status, StatusBody, list[ChannelStatus], **_READ),
)
