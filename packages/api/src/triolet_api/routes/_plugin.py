"""Plugins of this server, and the uids they speak for. Source: http-api.md, section 8.10."""

import time
from importlib import metadata
from typing import Any

import attrs

from triolet_api._answers import OK, Content, MessageObject, Ok, message_objects
from triolet_api._call import Call, Route, ask, get, post
from triolet_api._errors import ApiError, missing
from triolet_api._fields import Anything, Number, Text, field
from triolet_api._fields import ChannelType as TypeField
from triolet_api.routes._cluster_nodes import check_node, node_id
from triolet_core import Query
from triolet_core.model import peer_of

_NORMAL, _ERROR, _DISABLED = 1, 2, 4
MAX_FOUND = 1000


@attrs.frozen(kw_only=True)
class PluginsQuery:
    """Which plugins."""

    type: str = field(Text(doc="ai: those that answer for uids"))
    node_id: int = field(Number(is_lenient=True))


@attrs.frozen(kw_only=True)
class PluginRow:
    """A plugin of this server; its configuration is in the settings."""

    node_id: int
    no: str
    name: str
    config_template: dict[str, Any]
    config: dict[str, Any]
    created_at: int
    updated_at: int
    status: int
    version: str
    methods: list[str]
    priority: int
    is_ai: int


@attrs.frozen(kw_only=True)
class ConfigBody:
    """A plugin's settings."""

    config: Any = field(Anything())
    node_id: int = field(Number(missing="node_id不能为空"))


@attrs.frozen(kw_only=True)
class BindBody:
    """A plugin and a uid that it speaks for."""

    plugin_no: str = field(Text(missing="plugin_no不能为空！"))
    uid: str = field(Text(missing="uid不能为空！"))


@attrs.frozen(kw_only=True)
class BindQuery:
    """Whose bindings."""

    plugin_no: str = field(Text())
    uid: str = field(Text())


@attrs.frozen(kw_only=True)
class BindRow:
    """A plugin and a uid that it speaks for; times in nanoseconds."""

    plugin_no: str
    uid: str
    created_at: int
    updated_at: int


@attrs.frozen(kw_only=True)
class UninstallBody:
    """A plugin."""

    plugin_no: str = field(Text(missing="plugin_no不能为空！"))
    node_id: int = field(Number())


@attrs.frozen(kw_only=True)
class UserSearchBody:
    """What a user looks for in his channels."""

    uid: str = field(Text(missing="uid不能为空！"))
    payload: Any = field(Anything(doc="text, or an object with `content`"))
    keyword: str = field(Text(is_free=True))
    from_uid: str = field(Text())
    channel_id: str = field(Text())
    channel_type: int = field(TypeField(is_optional=True))
    topic: str = field(Text())
    start_time: int = field(Number(doc="seconds, inclusive"))
    end_time: int = field(Number(doc="seconds, inclusive"))
    limit: int = field(Number(default=10, high=MAX_FOUND))
    page: int = field(Number(default=1, high=10**6))

    @property
    def words(self) -> str:
        """What is looked for."""
        given = self.payload
        text = given.get("content") if isinstance(given, dict) else given
        return self.keyword or (text if isinstance(text, str) else "")


@attrs.frozen(kw_only=True)
class UserSearchAnswer:
    """A page of what was found, the newest first; `cost` in milliseconds, `total` up to 1,000."""

    cost: int
    total: int
    limit: int
    page: int
    messages: list[MessageObject]


def _version(name: str) -> str:
    try:
        return metadata.version(f"triolet-{name}")
    except metadata.PackageNotFoundError:
        return ""


async def plugins(call: Call, query: PluginsQuery) -> list[PluginRow]:
    """List the plugins of this server, and those that uids are bound to."""
    check_node(call, query.node_id)
    bound = {each.plugin_no for each in await call.broker.bindings.all()}
    phases = call.broker.plugin_phases()
    started = int(call.broker.started_at) * 10**9
    disabled = call.broker.config.plugins.disabled
    states = {
        **dict.fromkeys(disabled, _DISABLED),
        **{name: _NORMAL if phase != "failed" else _ERROR for name, phase in phases.items()},
    }
    return [
        PluginRow(
            node_id=node_id(call),
            no=name,
            name=name,
            config_template={},
            config={},
            created_at=started,
            updated_at=started,
            status=state,
            version=_version(name),
            methods=["Route"] if hasattr(call.broker.services.get(name), "handle_http") else [],
            priority=0,
            is_ai=int(name in bound),
        )
        for name, state in sorted(states.items())
        if query.type != "ai" or name in bound
    ]


async def configure(call: Call, body: ConfigBody) -> Ok:
    """Refuse: a plugin's configuration is in the settings, which are read at start."""
    raise ApiError("a plugin's configuration is in the server's settings", code="in_settings")


async def uninstall(call: Call, body: UninstallBody) -> Ok:
    """Refuse: a plugin is a Python package, and removed as such."""
    if body.plugin_no not in call.broker.plugin_phases():
        raise ApiError("plugin not found", code="no_plugin", shown=404)
    raise ApiError("a plugin is a Python package: remove it, or name it in plugins.disabled", code="is_package")


async def bind(call: Call, body: BindBody) -> Ok:
    """Let a plugin speak for a uid."""
    await call.broker.bindings.bind(body.uid, body.plugin_no)
    return OK


async def bindings(call: Call, query: BindQuery) -> list[BindRow]:
    """List who speaks for whom."""
    found = await call.broker.bindings.all(plugin_no=query.plugin_no)
    return [
        BindRow(
            plugin_no=each.plugin_no, uid=each.uid, created_at=each.created * 10**9, updated_at=each.updated * 10**9
        )
        for each in found
        if query.uid in ("", each.uid)
    ]


async def unbind(call: Call, body: BindBody) -> Ok:
    """No longer let a plugin speak for a uid."""
    await call.broker.bindings.unbind(body.uid, body.plugin_no)
    return OK


async def user_search(call: Call, body: UserSearchBody) -> UserSearchAnswer:
    """Search the messages of a user's conversations."""
    began = time.perf_counter()
    found = [
        each.channel
        for each in call.broker.conversations.list(body.uid)
        if body.channel_id in ("", peer_of(each.channel, body.uid)) and body.channel_type in (0, each.channel.type)
    ]
    query = Query(
        keyword=body.words, from_uid=body.from_uid, topic=body.topic, start=body.start_time, end=body.end_time
    )
    limit, page = body.limit or 10, max(body.page, 1)
    messages, total = await call.broker.search.channels(found, query, offset=(page - 1) * limit, limit=limit)
    return UserSearchAnswer(
        cost=int((time.perf_counter() - began) * 1000),
        total=total,
        limit=limit,
        page=page,
        messages=message_objects(call.broker, messages),
    )


async def handled(call: Call, body: None) -> Content:
    """Hand a request to a plugin that answers HTTP itself."""
    name, rest = call.path["plugin"], call.path.get("rest", "")
    service = call.broker.services.get(name)
    if name not in call.broker.plugin_phases():
        raise ApiError("plugin not found", code="no_plugin", shown=404)
    if service is None or not hasattr(service, "handle_http"):
        raise missing("the plugin answers no HTTP")
    answer: Content = await service.handle_http(call.method, rest, dict(call.query), call.raw)
    return answer


_ADMIN: dict[str, Any] = {"is_admin": True, "resource": "plugin"}

ROUTES = (
    get("/plugins", plugins, PluginsQuery, list[PluginRow], **_ADMIN),
    post("/pluginconfig/{plugin}", configure, ConfigBody, Ok, is_admin=True, resource="pluginConfigUpdate"),
    post("/plugin/bind", bind, BindBody, Ok, is_admin=True, resource="pluginUserAdd"),
    get("/plugin/bind", bindings, BindQuery, list[BindRow], **_ADMIN),
    post("/plugin/unbind", unbind, BindBody, Ok, is_admin=True, resource="pluginUserDelete"),
    post("/plugin/uninstall", uninstall, UninstallBody, Ok, is_admin=True, resource="pluginUninstall"),
    ask("/plugins/wk.plugin.search/usersearch", user_search, UserSearchBody, UserSearchAnswer, resource="message"),
    Route(method="ANY", path="/plugins/{plugin}/{rest}", handler=handled, action="w", is_admin=True, resource="plugin"),
)
