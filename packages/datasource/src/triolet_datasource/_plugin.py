"""The plugin. Its HTTP client is loaded only where an address is set: that takes long."""

import importlib
from typing import Any

import trio

from triolet_core.plugin import OnFailure, PluginContext, PluginSpec
from triolet_datasource._config import DatasourceConfig

NAME = "datasource"


async def run(context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
    """Answer until the host asks for an end; without an address there is nobody to ask."""
    if not context.config.addr:
        context.log.info("datasource is idle", reason="no address is set")
        task_status.started()
        await context.stopping.wait()
        return
    running = await trio.to_thread.run_sync(
        importlib.import_module, "triolet_datasource._running", limiter=trio.CapacityLimiter(1)
    )
    await running.run(context, task_status)


plugin = PluginSpec(
    name=NAME,
    run=run,
    config_class=DatasourceConfig,
    on_failure=OnFailure.RESTART,
)
