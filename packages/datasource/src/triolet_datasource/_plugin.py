"""The plugin: idle so far. It registers, starts, stops and can be left out."""

from typing import Any

import trio

from triolet_core.plugin import OnFailure, PluginContext, PluginSpec
from triolet_datasource._config import DatasourceConfig


async def run(context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
    """Say that nothing is sent yet, and wait for the end."""
    context.log.info("datasource is idle", reason=_reason(context.config))
    task_status.started()
    await context.stopping.wait()


def _reason(config: DatasourceConfig) -> str:
    address = config.addr
    return "this version does not call it yet" if address else "no address is set"


plugin = PluginSpec(
    name="datasource",
    run=run,
    config_class=DatasourceConfig,
    on_failure=OnFailure.RESTART,
)
