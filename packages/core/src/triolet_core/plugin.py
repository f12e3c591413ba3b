"""The plugin contract: a frozen record behind the entry-point group `triolet.plugins`."""

import argparse
import enum
from collections.abc import Awaitable, Callable
from importlib import metadata
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import attrs
import trio
from structlog.typing import FilteringBoundLogger

from triolet_core.errors import PluginError
from triolet_core.hooks import Hooks

if TYPE_CHECKING:
    from triolet_core._broker import Broker

GROUP = "triolet.plugins"
C = TypeVar("C")


class OnFailure(enum.Enum):
    """What the host does when a running plugin raises."""

    STOP = "stop"
    """Stop everything gracefully; `PluginError` comes out of `open_server`."""
    RESTART = "restart"
    """Log, wait 0.1 s doubling to 30 s, run again."""


@attrs.frozen(kw_only=True)
class PluginContext(Generic[C]):
    """What a plugin receives; it reaches for nothing else."""

    config: C
    broker: "Broker"
    hooks: Hooks
    log: FilteringBoundLogger
    stopping: trio.Event
    """Set when the host asks for an end; the plugin then drains and returns."""
    grace_left: Callable[[], float]
    """Seconds left of the stop budget; infinite before `stopping`."""


class Run(Protocol):
    """The body of a plugin: calls `task_status.started()` when it is ready, returns when it has drained."""

    async def __call__(self, context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
        """Run until `context.stopping` is set and everything is drained."""
        ...


@attrs.frozen(kw_only=True)
class PluginCommand:
    """What a plugin adds to the command line: `triolet NAME …`, run on the store of a stopped server."""

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[PluginContext[Any], argparse.Namespace], Awaitable[int]]
    """Called with a broker that no plugin runs on; returns the exit code."""


@attrs.frozen(kw_only=True)
class PluginSpec:
    """A plugin, listable without being started."""

    name: str
    """Also its configuration section."""
    run: Run
    config_class: type[Any]
    requires: frozenset[str] = frozenset()
    """Plugins that must be enabled and are started before."""
    after: frozenset[str] = frozenset()
    """Plugins that are started before, if enabled."""
    on_failure: OnFailure = OnFailure.STOP
    command: PluginCommand | None = None


def discover_plugins() -> tuple[PluginSpec, ...]:
    """Return every installed plugin, by name.

    Raises:
        PluginError: An entry point cannot be loaded or is no `PluginSpec`.
    """
    found = []
    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda each: each.name):
        try:
            spec = entry.load()
        except Exception as exc:
            raise PluginError(entry.name, "loading") from exc
        if not isinstance(spec, PluginSpec):
            raise PluginError(entry.name, "loading") from TypeError(f"{entry.value} is no PluginSpec")
        found.append(spec)
    return tuple(found)
