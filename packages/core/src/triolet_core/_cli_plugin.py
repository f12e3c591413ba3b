"""Commands that other packages add.

`triolet PLUGIN …` runs a plugin's command on the store of a stopped server; `triolet PROGRAM …` hands the words over to
a program of the entry-point group `triolet.commands`, which needs no server here: a client, say.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from importlib import metadata

import structlog
import trio

from triolet_core._broker import open_broker
from triolet_core.config import ServerConfig, section
from triolet_core.errors import PluginError, StoreError
from triolet_core.plugin import PluginContext, PluginSpec, discover_plugins
from triolet_core.store import FILE_NAME

PROGRAMS = "triolet.commands"
Program = Callable[[Sequence[str]], int]
"""Gets the words behind its name, returns the exit code."""


def find_program(name: str) -> Program | None:
    """Return the installed program of this name.

    Raises:
        PluginError: It cannot be loaded.
    """
    for entry in metadata.entry_points(group=PROGRAMS, name=name):
        try:
            program: Program = entry.load()
        except Exception as exc:
            raise PluginError(entry.name, "loading") from exc
        return program
    return None


def find(name: str) -> PluginSpec | None:
    """Return the installed plugin of this name that has a command."""
    return next((spec for spec in discover_plugins() if spec.name == name and spec.command is not None), None)


async def run(spec: PluginSpec, config: ServerConfig, arguments: argparse.Namespace) -> int:
    """Open the store as a server does, without plugins, and run a plugin's command; returns its exit code.

    Raises:
        StoreError: There is no store, or a server holds it.
    """
    if spec.command is None or not (config.node.data_path / FILE_NAME).exists():
        raise StoreError(f"there is no store in {config.node.data_path}; it is made when a server starts")
    async with open_broker(config) as broker:
        context = PluginContext(
            config=section(config, spec.name, spec.config_class),
            broker=broker,
            hooks=broker.hooks,
            log=structlog.get_logger(spec.name, plugin=spec.name),
            stopping=trio.Event(),
            grace_left=lambda: math.inf,
        )
        return await spec.command.run(context, arguments)
