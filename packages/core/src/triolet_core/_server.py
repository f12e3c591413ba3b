"""The composition root: a broker with plugins around a block of the caller's."""

import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from triolet_core import config as _config
from triolet_core._broker import Broker, open_broker
from triolet_core._host import PluginHost, leaf_of, open_host
from triolet_core.config import ServerConfig
from triolet_core.plugin import PluginSpec, discover_plugins


@attrs.frozen(eq=False)
class Server:
    """A running server."""

    broker: Broker
    _host: PluginHost

    @property
    def plugins(self) -> tuple[str, ...]:
        """Names of the plugins that run, in the order of their start."""
        return self._host.names

    def request_stop(self) -> None:
        """Begin to stop gracefully, as leaving the block does; the block itself goes on."""
        self._host.request_stop()

    async def wait_stopped(self) -> None:
        """Wait until every plugin has stopped. Nothing stops before `request_stop()`."""
        await self._host.stopped.wait()


@asynccontextmanager
async def open_server(
    config: ServerConfig, *, plugins: Iterable[PluginSpec] | None = None, clock_s: Callable[[], float] = time.time
) -> AsyncIterator[Server]:
    """Run a server around a block of the caller's task.

    Leaving the block, also with an error, stops gracefully: plugins in reverse order within `shutdown.timeout`, then
    everything queued is committed. Cancelling the scope around it stops now; what was acknowledged is safe. A plugin
    that fails for good cancels the block.

    Args:
        config: All settings.
        plugins: What to run, if enabled; None is every installed plugin.
        clock_s: Tells the time of day, in seconds since 1970.

    Raises:
        ConfigError: The plugins cannot be put in order.
        PluginError: A plugin could not be loaded or started, or failed while running; its cause is kept.
        StoreError: The store cannot be opened.
    """
    specs = tuple(plugins) if plugins is not None else await _discover()
    error: BaseException | None = None
    try:
        async with open_broker(config, clock_s=clock_s) as broker:
            try:
                async with open_host(broker, config, specs) as host:
                    yield Server(broker, host)
            except Exception as exc:  # kept until the broker has written everything, then raised
                error = exc
    except BaseExceptionGroup as group:
        error = leaf_of(group)  # outside of the group, so that the leaf keeps its own cause and context
    if error is not None:
        raise error


def load_config(
    path: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    plugins: Iterable[PluginSpec] | None = None,
) -> ServerConfig:
    """Load the settings of core and of the plugins.

    Args:
        path: YAML or TOML file (`.toml`).
        overrides: `key=value`, the strongest source.
        environ: `WK_…` and `TRIOLET_…` variables; None is the process's.
        plugins: Whose settings there are; None is every installed plugin, which is imported for that.

    Raises:
        ConfigErrors: Every wrong value, with its key, its origin and what is accepted.
        PluginError: An installed plugin could not be loaded.
    """
    specs = discover_plugins() if plugins is None else plugins
    return _config.load_config(path, overrides=overrides, environ=environ, plugins=specs)


async def _discover() -> tuple[PluginSpec, ...]:
    """Load the installed plugins in a thread: importing them takes long."""
    return await trio.to_thread.run_sync(discover_plugins, limiter=trio.CapacityLimiter(1))
