"""Why does it not start? Looks at what a start needs and says what it finds; changes nothing."""

import os
import resource
import socket
from collections.abc import Iterable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path

import attrs
import trio

from triolet_core import _cli_store
from triolet_core._host import enabled, in_start_order
from triolet_core.config import ServerConfig, is_loopback, parse_address
from triolet_core.errors import ConfigError, ConfigErrors, StoreError
from triolet_core.plugin import GROUP, PluginSpec
from triolet_core.store import FILE_NAME

FEW_FILES = 4096
"""Fewer open files than this are too few for a server: each connection takes one."""
_LISTENERS = ("tcp_addr", "ws_addr", "tls_addr", "wss_addr", "http_addr")


@attrs.frozen
class Installed:
    """A plugin as the package metadata tell of it; `spec` is None if it cannot be loaded, `problem` says why."""

    name: str
    distribution: str
    spec: PluginSpec | None
    problem: str = ""


@attrs.frozen
class Finding:
    """One thing that was looked at."""

    is_good: bool
    text: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.is_good else 'BAD '} {self.text}"


def installed_plugins() -> tuple[Installed, ...]:
    """Return every plugin by name, those that cannot be loaded too."""
    entries = sorted(metadata.entry_points(group=GROUP), key=lambda each: each.name)
    return tuple(_load(entry) for entry in entries)


def _load(entry: metadata.EntryPoint) -> Installed:
    dist = "unknown distribution" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"
    try:
        spec = entry.load()
    except Exception as exc:  # foreign code: what it raises is the finding
        return Installed(entry.name, dist, None, f"cannot be loaded: {exc!r}")
    if not isinstance(spec, PluginSpec):
        return Installed(entry.name, dist, None, f"cannot be loaded: {entry.value} is no PluginSpec")
    return Installed(entry.name, dist, spec)


def examine(config: ServerConfig | ConfigErrors | ConfigError, plugins: Iterable[Installed]) -> Iterator[Finding]:
    """Yield a finding for each thing a start needs; what needs a configuration is left out if there is none."""
    plugins = tuple(plugins)
    yield from (_plugin(plugin) for plugin in plugins)
    if isinstance(config, ConfigError):
        yield _files(workers=0)
        errors = config.errors if isinstance(config, ConfigErrors) else (config,)
        yield from (Finding(is_good=False, text=f"configuration: {error}") for error in errors)
        return
    yield _files(max(getattr(part, "workers", 0) for part in (None, *config.sections.values())))
    yield from (Finding(is_good=True, text=f"configuration: {notice}") for notice in config.notices)
    yield from _order(config, [plugin.spec for plugin in plugins if plugin.spec is not None])
    yield _directory(config.node.data_path)
    yield _store(config)
    yield from _addresses(config)


def _plugin(plugin: Installed) -> Finding:
    text = f"plugin {plugin.name} ({plugin.distribution})"
    return Finding(not plugin.problem, f"{text} {plugin.problem}" if plugin.problem else text)


def _files(workers: int) -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return Finding(is_good=True, text=f"open files: {soft}, raised to any number at start")
    room = f"{hard} at start, room for as many connections, and a few less,"
    room += f" in each of {workers} workers" if workers else " (N times as many with gateway.workers = N)"
    is_enough = hard >= FEW_FILES
    advice = "" if is_enough else f"; raise the hard limit to {FEW_FILES} or more (one file per connection)"
    return Finding(is_enough, f"open files: {soft}, raised to {room}{advice}")


def _order(config: ServerConfig, specs: list[PluginSpec]) -> Iterator[Finding]:
    try:
        names = ", ".join(spec.name for spec in in_start_order(enabled(specs, config))) or "none"
    except ConfigError as exc:
        yield Finding(is_good=False, text=str(exc))
    else:
        yield Finding(is_good=True, text=f"plugins start in this order: {names}")


def _directory(path: Path) -> Finding:
    """Look at the directory, or at the nearest one above it that exists."""
    above = next((each for each in (path, *path.resolve().parents) if each.exists()), path)
    what = f"data directory {path.resolve()}"
    if not above.is_dir():
        return Finding(is_good=False, text=f"{what}: {above} is not a directory")
    if not os.access(above, os.W_OK | os.X_OK):
        return Finding(is_good=False, text=f"{what}: {above} is not writable")
    return Finding(is_good=True, text=f"{what} {'is writable' if above == path else 'can be made'}")


def _store(config: ServerConfig) -> Finding:
    if not (config.node.data_path / FILE_NAME).exists():
        return Finding(is_good=True, text="store: none yet, it is made at the first start")
    try:
        trio.run(partial(_cli_store.look, config, _cli_store.opens))
    except StoreError as exc:
        return Finding(is_good=False, text=f"store: {exc}")
    return Finding(is_good=True, text="store: opens")


def _addresses(config: ServerConfig) -> Iterator[Finding]:
    """Try each listener's address; the sockets stay bound meanwhile, so that two of ours on one port are found."""
    held: dict[tuple[str, int], str] = {}
    sockets: list[socket.socket] = []
    try:
        for name, part in config.sections.items():
            if name in config.plugins.disabled or not getattr(part, "on", True):
                continue
            for attribute in _LISTENERS:
                address = getattr(part, attribute, "")
                if address:
                    yield _address(f"{name} {attribute.removesuffix('_addr')}", address, held, sockets)
                if address and attribute == "http_addr":
                    yield from _open_api(config, address, is_allowed=getattr(part, "allow_open", False))
    finally:
        for each in sockets:
            each.close()


def _address(listener: str, address: str, held: dict[tuple[str, int], str], sockets: list[socket.socket]) -> Finding:
    what = f"{listener} address {address}"
    if address.startswith("unix://"):
        return _path(what, Path(address.removeprefix("unix://")))
    try:
        host, port = parse_address(what, address)
        other = held.get((host, port)) if port else None
        if other is not None:
            return Finding(is_good=False, text=f"{what} is taken by our own {other} listener; choose another")
        bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        sockets.append(bound)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except ConfigError as exc:
        return Finding(is_good=False, text=str(exc))
    except OSError as exc:
        return Finding(is_good=False, text=f"{what}: {exc.strerror}; choose another or stop what listens there")
    held[host, port] = listener
    return Finding(is_good=True, text=f"{what} is free")


def _path(what: str, path: Path) -> Finding:
    """A Unix socket is bound in a directory where we may write; an old socket file there is replaced."""
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return Finding(is_good=False, text=f"{what}: {path.parent} cannot be written")
    if path.exists() and not path.is_socket():
        return Finding(is_good=False, text=f"{what}: there is a file of another kind")
    return Finding(is_good=True, text=f"{what} is free")


def _open_api(config: ServerConfig, address: str, *, is_allowed: bool) -> Iterator[Finding]:
    """An API that others reach wants a token."""
    try:
        host, _ = parse_address("httpAddr", address)
    except ConfigError:
        return  # said already
    if not (is_loopback(host) or config.auth.manager_token or is_allowed):
        yield Finding(is_good=False, text=f"httpAddr {address} is reached by others: set managerToken")
