"""The plugin: the application is served until the server stops."""

import importlib
import socket
from functools import partial
from typing import Any

import trio

from triolet_api._audit import AuditLog
from triolet_api._auth import Authority, secret_of
from triolet_api._call import Services
from triolet_api._config import ApiConfig, with_mode
from triolet_api._front import Application, Front
from triolet_api._http import LISTEN_BACKLOG, HttpLimits, HttpServer, is_available
from triolet_api._late import LateApplication
from triolet_api._openapi import LateDocument
from triolet_api._samples import Samples
from triolet_api._service import Service
from triolet_api.routes import ROUTES
from triolet_core import ConfigError
from triolet_core.config import is_loopback, parse_address
from triolet_core.plugin import PluginContext, PluginSpec

GRACE_S = 3.0
"""Longest time that requests under way may take when the server stops."""


async def run(context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
    """Serve HTTP until the host asks for an end, then finish the requests under way."""
    host, port = parse_address("httpAddr", context.config.http_addr)
    _check_exposure(context, host)
    service = _service(context, is_exposed=not is_loopback(host))
    listener = _listen(host, port)
    bound = listener.getsockname()
    behind = LateApplication(partial(_load, service))
    front = Front(service, ROUTES, behind)
    is_own = context.config.server != "hypercorn" and is_available()
    serve = _serve if is_own else _serve_hypercorn
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.services.parts["samples"].run)
        nursery.start_soon(service.audit.run)
        nursery.start_soon(behind.run)
        context.broker.metrics.add_source("api", service.statistics)
        context.broker.endpoints["http"] = _shown(*bound[:2])
        task_status.started()
        await serve(context, front, listener)
        nursery.cancel_scope.cancel()
    context.broker.endpoints.pop("http", None)


def _load(service: Service) -> Application:
    """Import what only the application needs, and build it; in a thread."""
    importlib.import_module("jwt")  # or the first login token would load it on the loop
    application: Application = importlib.import_module("triolet_api._app").build(service)
    return application


async def _serve(context: PluginContext[ApiConfig], front: Front, listener: socket.socket) -> None:
    config = context.config
    limits = HttpLimits(
        max_body_bytes=config.max_body_bytes,
        request_timeout_s=config.request_timeout,
        max_connections=config.max_connections,
    )
    await HttpServer(front, limits, context.broker.turn).serve(listener, context.stopping, GRACE_S)


async def _serve_hypercorn(context: PluginContext[ApiConfig], front: Front, listener: socket.socket) -> None:
    """Load Hypercorn, which takes long, only where it is wanted."""
    module = await trio.to_thread.run_sync(
        importlib.import_module, "triolet_api._hypercorn", limiter=trio.CapacityLimiter(1)
    )
    await module.serve(context, front, listener, GRACE_S)


def _service(context: PluginContext[ApiConfig], *, is_exposed: bool) -> Service:
    server = context.broker.config
    config = with_mode(context.config, server.node.mode)
    services = Services(context.broker, config)
    authority = Authority(config, server, secret_of(config, server), is_exposed=is_exposed)
    services.parts |= {
        "samples": Samples(context.broker),
        "authority": authority,
        "document": LateDocument([route for route in ROUTES if route.is_mounted(config)]),
    }
    path = server.node.root_path / config.audit_log if config.audit_log else None
    return Service(services, authority, AuditLog(path), context.log)


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _check_exposure(context: PluginContext[ApiConfig], host: str) -> None:
    config = context.config
    has_credentials = bool(context.broker.config.auth.manager_token or config.super_token or config.users)
    if is_loopback(host) or has_credentials or config.allow_open:
        return
    raise ConfigError(
        "httpAddr",
        f"{host} is reachable by others and there is no managerToken: whoever reaches the API may do everything. Set"
        " managerToken or auth.users, or bind httpAddr to 127.0.0.1, or set api.allowOpen where the network is closed",
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=LISTEN_BACKLOG)
    except OSError as exc:
        raise ConfigError("httpAddr", f"cannot listen on {host}:{port}: {exc.strerror}; choose another") from exc


plugin = PluginSpec(name="api", run=run, config_class=ApiConfig, after=frozenset({"webhook", "datasource"}))
