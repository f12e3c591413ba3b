"""The gateway plugin of triolet: clients over TCP and WebSocket."""

from triolet_gateway._config import GatewayConfig as GatewayConfig
from triolet_gateway._plugin import plugin as plugin
