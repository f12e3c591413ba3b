"""The plugin: idle so far. It registers, starts, stops and can be left out."""

from typing import Any

import trio

from triolet_core.plugin import OnFailure, PluginContext, PluginSpec
from triolet_webhook._config import WebhookConfig


async def run(context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
    """Say that nothing is sent yet, and wait for the end."""
    context.log.info("webhook is idle", reason=_reason(context.config))
    task_status.started()
    await context.stopping.wait()


def _reason(config: WebhookConfig) -> str:
    address = config.grpc_addr or config.http_addr or config.pre_send_url
    return "this version does not call it yet" if address else "no address is set"


plugin = PluginSpec(
    name="webhook",
    run=run,
    config_class=WebhookConfig,
    on_failure=OnFailure.RESTART,
)
