"""Starts plugins in order, supervises them, stops them in reverse order.

Theory of operation. Every plugin has one task in one nursery and passes through: starting -> ready (it called
`started()`, or returned) -> stopping (its event is set) -> done (its task ended). The host starts the next one when the
last is ready, and on the way out sets the `stopping` of the next one when the last is done, all within one budget
(`shutdown.timeout`); what is not done then is cancelled. A plugin that raises is run again (RESTART) or ends the
server: the block that `open_host` guards is cancelled, everything stops in order, and `PluginError` comes out.
"""

import graphlib
import math
import traceback
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import structlog
import trio
from structlog.typing import FilteringBoundLogger

from triolet_core.config import ServerConfig, section
from triolet_core.errors import ConfigError, PluginError
from triolet_core.plugin import OnFailure, PluginContext, PluginSpec

if TYPE_CHECKING:
    from triolet_core._broker import Broker

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 30.0
"""Bounds of the wait before a failed plugin runs again. One that ran longer than the second starts at the first."""


def enabled(specs: Iterable[PluginSpec], config: ServerConfig) -> list[PluginSpec]:
    """Return the plugins that neither `plugins.disabled` nor `on: false` in their section switches off."""
    return [
        spec
        for spec in specs
        if spec.name not in config.plugins.disabled
        and getattr(section(config, spec.name, spec.config_class), "on", True)
    ]


def in_start_order(specs: Iterable[PluginSpec]) -> list[PluginSpec]:
    """Sort plugins so that each follows those it requires or comes after; equal ranks by name.

    Raises:
        ConfigError: Two plugins have one name, a required one is not there, or they wait for each other.
    """
    by_name: dict[str, PluginSpec] = {}
    for spec in specs:
        if spec.name in by_name:
            raise ConfigError("plugins", f"two plugins have the name {spec.name!r}")
        by_name[spec.name] = spec
    sorter: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter()
    for name, spec in sorted(by_name.items()):
        _check_requirements(spec, by_name)
        sorter.add(name, *sorted(spec.requires | (spec.after & by_name.keys())))
    try:
        sorter.prepare()
    except graphlib.CycleError as exc:
        circle = " -> ".join(reversed(exc.args[1]))
        raise ConfigError("plugins", f"plugins require each other in a circle: {circle}") from exc
    return [by_name[name] for name in _by_rank(sorter)]


def _check_requirements(spec: PluginSpec, by_name: dict[str, PluginSpec]) -> None:
    missing = sorted(spec.requires - by_name.keys())
    if missing:
        raise ConfigError("plugins", f"plugin {spec.name!r} requires {', '.join(missing)}, which is not enabled")


def _by_rank(sorter: graphlib.TopologicalSorter[str]) -> Iterator[str]:
    while sorter.is_active():
        rank = sorted(sorter.get_ready())
        yield from rank
        sorter.done(*rank)


@attrs.define(eq=False)
class _Plugin:
    """One plugin of a running host. It is its own task status: `started()` counts once, whatever the restarts."""

    spec: PluginSpec
    context: PluginContext[Any]
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    ready: trio.Event = attrs.Factory(trio.Event)
    done: trio.Event = attrs.Factory(trio.Event)
    has_started: bool = False
    task: trio.lowlevel.Task | None = None

    def started(self, value: None = None) -> None:
        """Take the plugin's word that it is ready."""
        self.has_started = True
        self.ready.set()

    @property
    def phase(self) -> str:
        return "running" if self.has_started else "starting"


class PluginHost:
    """The plugins of one server. Made by `open_host`."""

    def __init__(self, nursery: trio.Nursery, broker: "Broker", config: ServerConfig) -> None:
        self.body_scope = trio.CancelScope()
        """Cancelled when a plugin ends the server."""
        self.failure: PluginError | None = None
        self.stopped = trio.Event()
        """Set when every plugin is done after a stop."""
        self._stop_requested = trio.Event()
        self._deadline = math.inf
        self._nursery = nursery
        self._broker = broker
        self._config = config
        self._plugins: list[_Plugin] = []
        self._log: FilteringBoundLogger = structlog.get_logger("host")
        broker.plugin_phases = self.phases

    def phases(self) -> dict[str, str]:
        """Return what each plugin is doing, by name."""
        return {plugin.spec.name: plugin.phase for plugin in self._plugins}

    @property
    def names(self) -> tuple[str, ...]:
        """The plugins in the order of their start."""
        return tuple(plugin.spec.name for plugin in self._plugins)

    # --- start

    async def start(self, spec: PluginSpec) -> None:
        """Run a plugin and wait until it is ready.

        If it fails or is not ready in time (`plugins.startTimeout`), the server ends: see `failure`.
        """
        plugin = _Plugin(spec, self._context(spec))
        self._plugins.append(plugin)
        self._nursery.start_soon(self._supervise, plugin, name=f"plugin {spec.name}")
        timeout = self._config.plugins.start_timeout
        with trio.move_on_after(timeout) as waiting:
            await plugin.ready.wait()
        if waiting.cancelled_caught:
            self._log.error("plugin hangs in its start", plugin=spec.name, stack=_stack(plugin.task))
            self._fail(plugin, TimeoutError(f"not ready after {timeout:g} s (plugins.startTimeout)"))
            plugin.scope.cancel()
        await trio.lowlevel.checkpoint()  # it may be ready because it failed, which cancels this

    def _context(self, spec: PluginSpec) -> PluginContext[Any]:
        return PluginContext(
            config=section(self._config, spec.name, spec.config_class),
            broker=self._broker,
            hooks=self._broker.hooks,
            log=structlog.get_logger(spec.name, plugin=spec.name),
            stopping=trio.Event(),
            grace_left=self._grace_left,
        )

    def _grace_left(self) -> float:
        return max(0.0, self._deadline - trio.current_time())

    # --- supervision

    async def _supervise(self, plugin: _Plugin) -> None:
        plugin.task = trio.lowlevel.current_task()
        try:
            with plugin.scope:
                await self._run(plugin)
        except Exception as exc:  # foreign code: its failure ends the server in order, not by falling through it
            self._fail(plugin, exc)
        finally:
            plugin.done.set()
            plugin.ready.set()

    async def _run(self, plugin: _Plugin) -> None:
        """Run until the plugin returns, or raises and may not run again."""
        pause_s = FIRST_PAUSE_S
        while True:
            began = trio.current_time()
            try:
                await plugin.spec.run(plugin.context, task_status=plugin)
                return
            except Exception as exc:
                if plugin.spec.on_failure is not OnFailure.RESTART or not plugin.has_started:
                    raise
                if plugin.context.stopping.is_set():
                    plugin.context.log.error("plugin failed while it stopped", exc_info=exc)
                    return
                if trio.current_time() - began > LONGEST_PAUSE_S:
                    pause_s = FIRST_PAUSE_S
                plugin.context.log.error("plugin failed and runs again", delay_s=pause_s, exc_info=exc)
            with trio.move_on_after(pause_s):
                await plugin.context.stopping.wait()
            if plugin.context.stopping.is_set():
                return
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    def _fail(self, plugin: _Plugin, exc: Exception) -> None:
        cause = leaf_of(exc)
        self._log.error("plugin failed", plugin=plugin.spec.name, phase=plugin.phase, exc_info=cause)
        if self.failure is None:
            self.failure = PluginError(plugin.spec.name, plugin.phase)
            self.failure.__cause__ = cause
        self.body_scope.cancel()

    # --- stop

    def request_stop(self) -> None:
        """Ask for a graceful stop; more calls change nothing."""
        self._stop_requested.set()

    async def stop_when_asked(self) -> None:
        """Wait for `request_stop`, then stop the plugins in reverse order within one budget."""
        await self._stop_requested.wait()
        self._deadline = trio.current_time() + self._config.shutdown.timeout
        with trio.CancelScope(deadline=self._deadline) as budget:
            for plugin in reversed(self._plugins):
                await self._stop(plugin)
        if budget.cancelled_caught:
            late = [plugin.spec.name for plugin in self._plugins if not plugin.done.is_set()]
            self._log.warning("stop took longer than shutdown.timeout", plugins=late)
        for plugin in self._plugins:
            plugin.scope.cancel()
        for plugin in self._plugins:
            await plugin.done.wait()
        self.stopped.set()

    async def _stop(self, plugin: _Plugin) -> None:
        """Stop one plugin, then let what it accepted reach those that are still there."""
        plugin.context.stopping.set()
        await plugin.done.wait()
        self._log.info("plugin stopped", plugin=plugin.spec.name)
        await self._broker.flush()


@asynccontextmanager
async def open_host(broker: "Broker", config: ServerConfig, specs: Iterable[PluginSpec]) -> AsyncIterator[PluginHost]:
    """Run the enabled plugins around a block.

    Leaving the block, normally or with an error, stops them gracefully; cancelling it stops them at once. A plugin
    that ends the server cancels the block. Either end may wait as long as `shutdown.timeout`.

    Raises:
        ConfigError: The plugins cannot be put in order.
        PluginError: One failed; never in a group, its cause kept.
    """
    ordered = in_start_order(enabled(specs, config))
    error: Exception | None = None
    async with trio.open_nursery() as nursery:
        host = PluginHost(nursery, broker, config)
        nursery.start_soon(host.stop_when_asked)
        try:
            with host.body_scope:
                for spec in ordered:
                    await host.start(spec)
                    host._log.info("plugin started", plugin=spec.name)
                yield host
        except Exception as exc:  # kept until the plugins have stopped, then raised
            error = exc
        first = host.failure or error
        host.request_stop()
        await host.stopped.wait()
    outcome = first or host.failure
    if outcome is not None:
        raise outcome


def leaf_of(exc: BaseException) -> BaseException:
    """Return the one exception inside groups of one, else what was given."""
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc


def _stack(task: trio.lowlevel.Task | None) -> str:
    """Return where a task and the tasks below it wait."""
    if task is None:
        return ""
    lines = [f"{task.name}:\n"]
    lines += traceback.StackSummary.extract((frame, number) for frame, number in task.iter_await_frames()).format()
    lines += [_stack(child) for nursery in task.child_nurseries for child in nursery.child_tasks]
    return "".join(lines)
