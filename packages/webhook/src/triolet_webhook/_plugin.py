"""The plugin. What it works with, an HTTP client above all, is loaded only where an address is set: that takes long."""

import importlib
from typing import Any

import trio

from triolet_core.plugin import OnFailure, PluginContext, PluginSpec
from triolet_webhook._command import command
from triolet_webhook._config import WebhookConfig


async def run(context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
    """Push events and answer questions until the server stops; without an address there is nothing to do."""
    config = context.config
    if not (config.http_addr or config.grpc_addr or config.pre_send_url):
        context.log.info("webhook is idle", reason="no address is set (webhook.httpAddr, webhook.grpcAddr)")
        task_status.started()
        await context.stopping.wait()
        return
    running = await trio.to_thread.run_sync(
        importlib.import_module, "triolet_webhook._running", limiter=trio.CapacityLimiter(1)
    )
    await running.run(context, task_status)


plugin = PluginSpec(
    name="webhook",
    run=run,
    config_class=WebhookConfig,
    on_failure=OnFailure.RESTART,
    command=command,
)
