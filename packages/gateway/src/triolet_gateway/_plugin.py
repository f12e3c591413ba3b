"""The plugin: opens the listeners, closes them first when the server stops."""

import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
import trio

from triolet_core import ConfigError
from triolet_core.plugin import PluginContext, PluginSpec
from triolet_gateway import _listen, _transports
from triolet_gateway._config import GatewayConfig
from triolet_gateway._gateway import Gateway
from triolet_gateway._room import room_of_server
from triolet_gateway._tls import Certificates
from triolet_gateway.workers import KINDS, Pool
from triolet_protocol import is_compiled

SHARE_OF_GRACE = 0.5
"""Part of the stop budget that clients may use to take what waits for them."""
_SWITCH = {"0": "", "false": "", "1": "wss://0.0.0.0:5210", "true": "wss://0.0.0.0:5210"}
"""What LiMaoIM's `wssOn` means as an address."""


@attrs.frozen
class _Listener:
    """One address, under a kind: tcp, tls, ws or wss."""

    kind: str
    key: str
    address: str
    serve: _listen.Serve


async def run(
    context: PluginContext[Any],
    *,
    task_status: trio.TaskStatus[None],
    on_ready: Callable[[Gateway], None] = lambda gateway: None,
) -> None:
    """Serve clients until the host asks for an end; then acknowledge what was sent and close."""
    async with trio.open_nursery() as connections:
        gateway = Gateway(context, connections)
        context.log.info("hot path chosen", compiled=is_compiled())
        _tell_room(gateway)
        context.broker.metrics.add_source("gateway", gateway.statistics)
        context.broker.metrics.add_compatible("gateway", gateway.compatible_statistics)
        pool = Pool(gateway) if gateway.config.workers else None
        async with trio.open_nursery() as listeners:
            kinds = await _listen_on_all(gateway, pool, listeners, connections)
            connections.start_soon(gateway.reactor.run)
            connections.start_soon(gateway.patience.run)
            connections.start_soon(gateway.turn_wheel)
            connections.start_soon(gateway.retry_forever)
            on_ready(gateway)
            task_status.started()
            await context.stopping.wait()
            gateway.is_stopping = True
            for kind in kinds:
                context.broker.endpoints.pop(kind, None)
            listeners.cancel_scope.cancel()
        await _finish(gateway, pool, context)
        connections.cancel_scope.cancel()


async def _listen_on_all(
    gateway: Gateway, pool: Pool | None, listeners: trio.Nursery, connections: trio.Nursery
) -> list[str]:
    """Open every listener; returns their names among the endpoints. Workers serve before anybody connects."""
    wanted = await _wanted(gateway, pool, listeners)
    if pool is not None:
        await connections.start(pool.run)
        wanted = [attrs.evolve(each, serve=pool.serve(KINDS[each.kind])) for each in wanted]
    handed_over = _listen.inherited(os.environ, os.getpid())
    kinds = []
    for each in wanted:
        sock = _claim(each, handed_over)
        is_ours = sock is None
        if sock is None and each.address:
            sock = await _open(each)
        if sock is None:
            continue
        kind = f"{each.kind}+unix" if sock.family == socket.AF_UNIX else each.kind
        gateway.broker.endpoints[kind] = _listen.bound_address(sock)
        kinds.append(kind)
        listeners.start_soon(_accept, gateway, sock, each.serve, is_ours)
    for sock in handed_over.values():
        sock.detach()  # somebody else's
    return kinds


def _tell_room(gateway: Gateway) -> None:
    """Say how many connections there can be, and warn if fewer than are allowed."""
    workers, most = gateway.config.workers, gateway.config.max_connections
    room = room_of_server(workers)
    way_out = "raise the limit of open files (ulimit -n, LimitNOFILE=), or gateway.workers: each has a limit of its own"
    if most > room:
        gateway.log.warning("gateway.maxConnections is out of reach", limit=most, room=room, way_out=way_out)
    else:
        gateway.log.info("room for connections", room=room, workers=workers, way_out=way_out)


def _claim(listener: _Listener, handed_over: dict[str, socket.socket]) -> socket.socket | None:
    """Take the socket that was handed over for a listener: by its kind, or by its address."""
    for name in (listener.kind, listener.address.rpartition("://")[2]):
        if name in handed_over:
            sock = handed_over.pop(name)
            sock.settimeout(0)
            return sock
    return None


async def _wanted(gateway: Gateway, pool: Pool | None, listeners: trio.Nursery) -> list[_Listener]:
    config = gateway.config
    wss_addr = _SWITCH.get(config.wss_addr.lower(), config.wss_addr)
    wanted = [
        _Listener("tcp", "addr", config.tcp_addr, _transports.serve_tcp),
        _Listener("ws", "wsAddr", config.ws_addr, _transports.serve_websocket),
    ]
    if not (config.tls_addr or wss_addr):
        return wanted
    certificates = await trio.to_thread.run_sync(Certificates, config.cert_file, config.key_file)
    also = []
    if pool is not None:
        pool.has_tls = True
        also.append(pool.reload)
    listeners.start_soon(certificates.reload_on_signal, gateway.log, *also)
    return [
        *wanted,
        _Listener("tls", "tlsAddr", config.tls_addr, partial(_transports.serve_tcp, certificates=certificates)),
        _Listener("wss", "wssAddr", wss_addr, partial(_transports.serve_websocket, certificates=certificates)),
    ]


async def _open(listener: _Listener) -> socket.socket:
    try:
        return await trio.to_thread.run_sync(_listen.open_listener, listener.key, listener.address)
    except OSError as exc:
        raise ConfigError(
            listener.key, f"cannot listen on {listener.address}: {exc.strerror}; choose another address"
        ) from exc


async def _accept(gateway: Gateway, listener: socket.socket, serve: _listen.Serve, is_ours: bool) -> None:  # noqa: FBT001  # started in a nursery
    try:
        await _listen.accept_forever(gateway, listener, serve)
    finally:
        _listen.close(listener, is_ours=is_ours)


async def _finish(gateway: Gateway, pool: Pool | None, context: PluginContext[GatewayConfig]) -> None:
    """Let what is submitted be stored and acknowledged, and outboxes run empty."""
    with trio.move_on_after(context.grace_left() * SHARE_OF_GRACE):
        await context.broker.flush()
        if pool is not None:
            await pool.drain()
        while gateway.draining:  # noqa: ASYNC110  # rare, bounded
            await trio.sleep(0.01)


plugin = PluginSpec(
    name="gateway", run=run, config_class=GatewayConfig, after=frozenset({"api", "webhook", "datasource"})
)
