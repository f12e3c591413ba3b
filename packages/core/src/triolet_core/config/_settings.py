"""The settings of core."""

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import attrs

from triolet_core.compat import CHOICES, Compat, Profile
from triolet_core.config._values import Bytes, Seconds, parse_seconds, setting

_PROFILES = tuple(profile.value for profile in Profile)


@attrs.frozen(kw_only=True)
class NodeConfig:
    """Who this server is and where its data is."""

    id: int = setting(1001, key="cluster.nodeId", ge=0, le=1023, doc="node part of message ids")
    mode: str = setting("release", key="mode", one_of=("debug", "release", "test", "bench"), doc="debug logs more")
    root_dir: str = setting("./data", key="rootDir", doc="directory of everything that is kept")
    data_dir: str = setting("", key="dataDir", doc="directory of the store; empty: `data` in rootDir")

    @property
    def root_path(self) -> Path:
        """Directory of everything that is kept."""
        return Path(self.root_dir).expanduser()

    @property
    def data_path(self) -> Path:
        """Directory of the store."""
        return Path(self.data_dir).expanduser() if self.data_dir else self.root_path / "data"


@attrs.frozen(kw_only=True)
class StoreConfig:
    """The message store."""

    map_size: Bytes = setting(
        Bytes(1 << 40), gt=0, le=1 << 46, doc="most bytes the store may take (address space, not disk)"
    )
    sync: str = setting(
        "full",
        one_of=("full", "nometa", "off"),
        doc="full: what is acknowledged survives a power cut; nometa: the last commits of the tree may not, with what"
        " is behind them; off: nothing is synced, only a crash of the process is survived",
    )
    queue_limit: int = setting(65536, gt=0, doc="messages that may wait for a commit")
    queue_timeout: Seconds = setting(Seconds(5), gt=0, doc="longest wait for a place in the queue")
    max_batch: int = setting(2048, gt=0, doc="most messages in one commit")


@attrs.frozen(kw_only=True)
class MessageConfig:
    """Messages."""

    dedupe: Seconds = setting(
        Seconds(600),
        ge=0,
        doc="a repeat of sender, channel, client_msg_no and payload within this time answers the first; 0: off",
    )
    dedupe_entries: int = setting(500_000, gt=1, doc="most sends remembered for that (about 120 bytes each)")
    max_payload_bytes: Bytes = setting(Bytes(1 << 20), gt=0, doc="longest payload")
    disable_command_sync: bool = setting(
        default=False, key="disableCMDMessageSync", doc="/message/sync hands out nothing"
    )


@attrs.frozen(kw_only=True)
class AuthConfig:
    """Who may connect."""

    token_auth_on: bool = setting(default=False, key="tokenAuthOn", doc="compare the token of CONNECT with /user/token")
    manager_token: str = setting("", key="managerToken", secret=True, doc="token that every API call must carry")
    manager_uid: str = setting("____manager", key="managerUID", doc="uid that connects with the manager token")
    visitors_on: bool = setting(default=False, key="customerService.visitorsOn", doc="visitors need no token")
    visitors_suffix: str = setting("___vstr", key="customerService.visitorsSuffix", doc="end of a visitor's uid")


@attrs.frozen(kw_only=True)
class PermissionConfig:
    """Who may send."""

    whitelist_off_of_person: bool = setting(
        default=True, key="whitelistOffOfPerson", doc="strangers may write to a person without an allowlist entry"
    )
    create_if_no_exist: bool = setting(
        default=True, key="channel.createIfNoExist", doc="false: an unknown channel is refused with 5 instead of 3"
    )


@attrs.frozen(kw_only=True)
class ChannelConfig:
    """Channels."""

    cache_count: int = setting(100_000, gt=0, doc="channels whose facts are kept in memory")
    online_cmd_channel_id: str = setting("systemcmdonline", doc="channel of commands that are not stored")
    subscriber_compress_of_count: int = setting(0, ge=0, doc="msg.offline: more recipients than this are gzipped")
    tmp_suffix: str = setting("@tmp", key="tmpChannel.suffix", doc="end of the id of a temporary channel")


@attrs.frozen(kw_only=True)
class RetentionConfig:
    """How long messages are kept. What a channel was given itself wins over its type, and that over the default."""

    max_age: Seconds = setting(Seconds(0), ge=0, doc="age at which messages are deleted; 0: they are kept")
    max_count: int = setting(0, ge=0, doc="newest messages kept in a channel; 0: all")
    types: tuple[str, ...] = setting(
        (),
        check=lambda texts: [type_bounds(text) for text in texts],
        doc="other bounds for a channel type, as type:age:count, such as 9:1d:1000",
    )
    cache_days: int = setting(
        7, gt=0, key="offline.cacheDays", doc="days that commands, and messages to listed users, are kept"
    )
    interval: Seconds = setting(Seconds(60), gt=0, doc="time between two looks at the whole store")

    def by_type(self) -> dict[int, tuple[int, int]]:
        """Return (seconds, count) by channel type."""
        return dict(type_bounds(text) for text in self.types)


def type_bounds(text: str) -> tuple[int, tuple[int, int]]:
    """Return (channel type, (seconds, count)) of `type:age:count`; raises ValueError."""
    parts = text.split(":")
    try:
        kind, count = int(parts[0]), int(parts[2])
        age = parse_seconds(parts[1])
    except (ValueError, IndexError):
        kind, age, count = 0, 0.0, -1
    if len(parts) != 3 or not 0 < kind < 256 or count < 0:
        raise ValueError(f"{text!r} is not type:age:count, such as 9:1d:1000")
    return kind, (math.ceil(age), count)


@attrs.frozen(kw_only=True)
class StreamConfig:
    """Streams: messages that events are added to."""

    max_streams: int = setting(10_000, gt=0, key="streamCache.maxStreams", doc="streams that may be open at once")
    max_chunks_per_stream: int = setting(
        10_000, gt=0, key="streamCache.maxChunksPerStream", doc="events that one stream takes"
    )
    max_memory_size: Bytes = setting(
        Bytes(1 << 20), gt=0, key="streamCache.maxMemorySize", doc="longest text that one event key collects"
    )
    chunk_inactivity_timeout: Seconds = setting(
        Seconds(30),
        gt=0,
        go=True,
        key="streamCache.chunkInactivityTimeout",
        doc="a stream whose writer says nothing for so long is closed",
    )
    cleanup_interval: Seconds = setting(
        Seconds(5), gt=0, go=True, key="streamCache.cleanupInterval", doc="time between two looks for such streams"
    )


@attrs.frozen(kw_only=True)
class PresenceConfig:
    """Watching whether others are online (docs/presence.md)."""

    watch: str = setting(
        "nobody",
        one_of=("nobody", "allowlist", "anybody"),
        doc="whom a client may watch: nobody but its own user; users whose allowlist it is on; anybody whose denylist"
        " it is not on. What a plugin answers to `authorize_watch` is stronger, and a backend may always subscribe",
    )
    subscriptions: int = setting(1000, gt=0, doc="users that one device watches, or one uid by order of a backend")
    users_per_call: int = setting(200, gt=0, le=10_000, doc="users in one request to watch")
    watchers: int = setting(5000, gt=0, doc="watchers that one user has")
    total_subscriptions: int = setting(
        1_000_000, gt=0, doc="pairs of watcher and user in memory (about 500 bytes each)"
    )
    max_expire: Seconds = setting(Seconds(30 * 86_400), gt=0, doc="longest subscription, and that of who asks for none")
    interval: Seconds = setting(Seconds(1), gt=0, doc="shortest time between two events to one watcher")
    changes_per_interval: int = setting(200, gt=0, doc="users in one such event; of each only the newest state")
    last_seen_count: int = setting(100_000, gt=0, doc="users that are offline and whose last time online is kept")


@attrs.frozen(kw_only=True)
class ConversationConfig:
    """Recent conversations."""

    on: bool = setting(default=True, doc="keep conversations")
    user_max_count: int = setting(1000, gt=0, doc="most conversations handed out per user")


@attrs.frozen(kw_only=True)
class ExternalConfig:
    """Addresses told to clients."""

    ip: str = setting("", key="external.ip", doc="address that clients reach this server at")
    tcp_addr: str = setting("", key="external.tcpAddr", doc="host:port for /route; empty: from ip or the listener")
    ws_addr: str = setting("", key="external.wsAddr", doc="URL for /route")
    wss_addr: str = setting("", key="external.wssAddr", doc="URL for /route")
    api_url: str = setting("", key="external.apiUrl", doc="URL of the API from outside")
    manager_addr: str = setting("", key="external.managerAddr", doc="shown in /varz")
    intranet_tcp_addr: str = setting("", key="intranet.tcpAddr", doc="host:port for /route?intranet=1")


@attrs.frozen(kw_only=True)
class LogConfig:
    """Logs."""

    level: int = setting(0, key="logger.level", ge=0, le=4, doc="0 by mode, 1 debug, 2 info, 3 warning, 4 error")
    dir: str = setting(
        "", key="logger.dir", doc="directory of triolet.log, instead of standard error; relative to rootDir"
    )
    line_num: bool = setting(default=False, key="logger.lineNum", doc="log the line that logged")


@attrs.frozen(kw_only=True)
class ShutdownConfig:
    """Stopping."""

    timeout: Seconds = setting(Seconds(10), gt=0, doc="longest graceful stop")


@attrs.frozen(kw_only=True)
class PluginsConfig:
    """Plugins."""

    disabled: tuple[str, ...] = setting((), doc="names of installed plugins that are left out")
    start_timeout: Seconds = setting(Seconds(20), gt=0, doc="longest start of one plugin")


@attrs.frozen(kw_only=True)
class CompatConfig:
    """Compatibility."""

    profile: str = setting(
        Profile.WUKONGIM_2.value,
        one_of=_PROFILES,
        spellings=MappingProxyType({"wukongim2": _PROFILES[0], "wukongim1": _PROFILES[1], "limao": _PROFILES[2]}),
        doc="whose behaviour decides where the products contradict each other",
    )

    @property
    def choices(self) -> Compat:
        """The record of choices."""
        return CHOICES[Profile(self.profile)]


@attrs.frozen(kw_only=True)
class ServerConfig:
    """Everything that can be set."""

    node: NodeConfig = attrs.Factory(NodeConfig)
    store: StoreConfig = attrs.Factory(StoreConfig)
    message: MessageConfig = attrs.Factory(MessageConfig)
    auth: AuthConfig = attrs.Factory(AuthConfig)
    permission: PermissionConfig = attrs.Factory(PermissionConfig)
    channel: ChannelConfig = attrs.Factory(ChannelConfig)
    retention: RetentionConfig = attrs.Factory(RetentionConfig)
    stream: StreamConfig = attrs.Factory(StreamConfig)
    presence: PresenceConfig = attrs.Factory(PresenceConfig)
    conversation: ConversationConfig = attrs.Factory(ConversationConfig)
    external: ExternalConfig = attrs.Factory(ExternalConfig)
    log: LogConfig = attrs.Factory(LogConfig)
    shutdown: ShutdownConfig = attrs.Factory(ShutdownConfig)
    plugins: PluginsConfig = attrs.Factory(PluginsConfig)
    compat: CompatConfig = attrs.Factory(CompatConfig)
    sections: Mapping[str, object] = attrs.field(factory=dict)
    """The settings of each plugin, by its name."""
    notices: tuple[str, ...] = ()
    """Keys that are unknown or have no effect, in words."""


CORE_SECTIONS: dict[str, type] = {
    "node": NodeConfig,
    "store": StoreConfig,
    "message": MessageConfig,
    "auth": AuthConfig,
    "permission": PermissionConfig,
    "channel": ChannelConfig,
    "retention": RetentionConfig,
    "stream": StreamConfig,
    "presence": PresenceConfig,
    "conversation": ConversationConfig,
    "external": ExternalConfig,
    "log": LogConfig,
    "shutdown": ShutdownConfig,
    "plugins": PluginsConfig,
    "compat": CompatConfig,
}
