"""Settings: their declaration, and loading them from files, variables and arguments."""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from triolet_core.config._load import load
from triolet_core.config._load import schema_of as schema_of
from triolet_core.config._reference import reference as reference
from triolet_core.config._reference import sample as sample
from triolet_core.config._reference import shown as shown
from triolet_core.config._settings import AuthConfig as AuthConfig
from triolet_core.config._settings import ChannelConfig as ChannelConfig
from triolet_core.config._settings import CompatConfig as CompatConfig
from triolet_core.config._settings import ConversationConfig as ConversationConfig
from triolet_core.config._settings import ExternalConfig as ExternalConfig
from triolet_core.config._settings import LogConfig as LogConfig
from triolet_core.config._settings import MessageConfig as MessageConfig
from triolet_core.config._settings import NodeConfig as NodeConfig
from triolet_core.config._settings import PermissionConfig as PermissionConfig
from triolet_core.config._settings import PluginsConfig as PluginsConfig
from triolet_core.config._settings import PresenceConfig as PresenceConfig
from triolet_core.config._settings import RetentionConfig as RetentionConfig
from triolet_core.config._settings import ServerConfig as ServerConfig
from triolet_core.config._settings import ShutdownConfig as ShutdownConfig
from triolet_core.config._settings import StoreConfig as StoreConfig
from triolet_core.config._settings import StreamConfig as StreamConfig
from triolet_core.config._values import Bytes as Bytes
from triolet_core.config._values import Seconds as Seconds
from triolet_core.config._values import setting as setting
from triolet_core.errors import ConfigError


class HasSettings(Protocol):
    """What loading needs to know of a plugin."""

    @property
    def name(self) -> str:
        """Its section."""
        ...

    @property
    def config_class(self) -> type[Any]:
        """The class of its settings."""
        ...


def load_config(
    path: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    plugins: Iterable[HasSettings],
) -> ServerConfig:
    """Load the settings of core and of `plugins`.

    Args:
        path: YAML or TOML file (`.toml`).
        overrides: `key=value`, the strongest source.
        environ: `WK_…` and `TRIOLET_…` variables; None is the process's.
        plugins: Whose settings there are.

    Raises:
        ConfigErrors: Every wrong value, with its key, its origin and what is accepted.
    """
    return load(path, overrides, environ, {spec.name: spec.config_class for spec in plugins})


def parse_address(key: str, text: str) -> tuple[str, int]:
    """Return (host, port) of `host:port`, `scheme://host:port` or `[ipv6]:port`.

    Raises:
        ConfigError: It is none of these.
    """
    _, _, rest = text.rpartition("://")
    host, colon, port = rest.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ConfigError(key, f"{text!r} is not an address such as 127.0.0.1:5100")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104  # what an empty host means to the reference


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def section(config: ServerConfig, name: str, config_class: type[Any]) -> Any:
    """Return the settings of a plugin, its defaults if none were loaded."""
    return config.sections.get(name) or config_class()
