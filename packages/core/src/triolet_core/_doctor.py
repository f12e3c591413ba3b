"""Why does it not start? Looks at what a start needs and says what it finds."""

import os
import resource
import socket
from collections.abc import Iterator
from functools import partial
from importlib import metadata
from typing import Any

import attrs
import trio

from triolet_core.config import ServerConfig, parse_address
from triolet_core.errors import ConfigError, StoreError
from triolet_core.plugin import PluginSpec
from triolet_core.store import open_store

_LISTENERS = ("tcp_addr", "ws_addr", "http_addr")
FEW_FILES = 4096


@attrs.frozen
class Finding:
    """One thing that was looked at."""

    is_good: bool
    text: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.is_good else 'BAD '} {self.text}"


def examine(config: ServerConfig, specs: tuple[PluginSpec, ...]) -> Iterator[Finding]:
    """Yield a finding for each thing a start needs. Changes nothing but makes the data directory."""
    for notice in config.notices:
        yield Finding(is_good=True, text=f"note: {notice}")
    for spec in specs:
        yield Finding(is_good=True, text=f"plugin {spec.name} {_version(spec)}")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield Finding(hard >= FEW_FILES, f"open files: {soft}, may be raised to {hard} (one per connection)")
    yield _data(config)
    yield _store(config)
    yield from _addresses(config)


def _version(spec: PluginSpec) -> str:
    try:
        return metadata.version(f"triolet-{spec.name}")
    except metadata.PackageNotFoundError:
        return "(own)"


def _data(config: ServerConfig) -> Finding:
    path = config.node.data_path
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        return Finding(is_good=False, text=f"data directory {path}: {exc.strerror}")
    return Finding(os.access(path, os.W_OK), f"data directory {path.resolve()} is writable")


def _store(config: ServerConfig) -> Finding:
    try:
        trio.run(partial(try_store, config))
    except StoreError as exc:
        return Finding(is_good=False, text=f"store: {exc}")
    return Finding(is_good=True, text="store opens")


async def try_store(config: ServerConfig) -> dict[str, Any]:
    """Open and close the store; returns LMDB's figures.

    Raises:
        StoreError: It does not open.
    """

    async def ignore(batch: "object") -> None:
        del batch

    after: Any = ignore
    async with open_store(
        config.node.data_path, config.store, config.message, node=config.node.id, after_commit=after
    ) as store:
        return {**store.env.stat(), **store.env.info()}


def _addresses(config: ServerConfig) -> Iterator[Finding]:
    for name, part in config.sections.items():
        for attribute in _LISTENERS:
            address = getattr(part, attribute, "")
            if address:
                yield _address(f"{name} address", address)


def _address(what: str, address: str) -> Finding:
    try:
        host, port = parse_address(what, address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
    except ConfigError as exc:
        return Finding(is_good=False, text=str(exc))
    except OSError as exc:
        return Finding(is_good=False, text=f"{what} {address}: {exc.strerror}")
    return Finding(is_good=True, text=f"{what} {address} is free")
