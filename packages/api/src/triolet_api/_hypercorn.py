"""The API served by Hypercorn (`api.server: hypercorn`)."""

import socket
from typing import Any

import hypercorn.trio
from hypercorn.config import Config

from triolet_api._config import ApiConfig
from triolet_api._ending import ending_last
from triolet_core.plugin import PluginContext


async def serve(context: PluginContext[ApiConfig], application: Any, listener: socket.socket, grace_s: float) -> None:
    """Serve until the host asks for an end; requests under way then have `grace_s` seconds."""
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = None
    config.accesslog = None
    config.graceful_timeout = grace_s
    config.read_timeout = int(context.config.request_timeout)
    config.include_server_header = False
    served: Any = ending_last(application)  # Hypercorn types the messages more closely
    await hypercorn.trio.serve(served, config, shutdown_trigger=context.stopping.wait)
