"""The plugin: opens the listeners, closes them first when the server stops."""

from typing import Any

import trio

from triolet_core import ConfigError
from triolet_core.config import parse_address
from triolet_core.plugin import PluginContext, PluginSpec
from triolet_gateway import _tcp, _websocket
from triolet_gateway._config import GatewayConfig
from triolet_gateway._gateway import Gateway

SHARE_OF_GRACE = 0.5
"""Part of the stop budget that clients may use to take what waits for them."""


async def run(context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
    """Serve clients until the host asks for an end; then acknowledge what was sent and close."""
    async with trio.open_nursery() as connections:
        gateway = Gateway(context, connections)
        context.broker.metrics.add_source("gateway", gateway.statistics)
        context.broker.metrics.add_compatible("gateway", gateway.compatible_statistics)
        async with trio.open_nursery() as listeners:
            await _listen(gateway, connections, listeners)
            connections.start_soon(gateway.turn_wheel)
            connections.start_soon(gateway.retry_forever)
            task_status.started()
            await context.stopping.wait()
            gateway.is_stopping = True
            for kind in ("tcp", "ws"):
                context.broker.endpoints.pop(kind, None)
            listeners.cancel_scope.cancel()
        await _finish(gateway, context)
        connections.cancel_scope.cancel()


async def _listen(gateway: Gateway, connections: trio.Nursery, listeners: trio.Nursery) -> None:
    config = gateway.config
    endpoints = gateway.broker.endpoints
    try:
        if config.tcp_addr:
            listener = _tcp.listen(*parse_address("addr", config.tcp_addr))
            endpoints["tcp"] = _tcp.bound_address(listener)
            listeners.start_soon(_accept, gateway, listener)
        if config.ws_addr:
            host, port = parse_address("wsAddr", config.ws_addr)
            server = await connections.start(_websocket.serve_forever, gateway, host, port)
            endpoints["ws"] = f"[{host}]:{server.port}" if ":" in host else f"{host}:{server.port}"
    except OSError as exc:
        raise ConfigError("addr, wsAddr", f"cannot listen: {exc.strerror}; choose another address") from exc


async def _accept(gateway: Gateway, listener: Any) -> None:
    with listener:
        await _tcp.accept_forever(gateway, listener)


async def _finish(gateway: Gateway, context: PluginContext[GatewayConfig]) -> None:
    """Let what is submitted be stored and acknowledged, and outboxes run empty."""
    with trio.move_on_after(context.grace_left() * SHARE_OF_GRACE):
        await context.broker.flush()
        while any(session.outbox.pending for session in gateway.sessions):  # noqa: ASYNC110  # rare, bounded
            await trio.sleep(0.01)


plugin = PluginSpec(
    name="gateway", run=run, config_class=GatewayConfig, after=frozenset({"api", "webhook", "datasource"})
)
