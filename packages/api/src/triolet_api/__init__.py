"""The HTTP API plugin of triolet."""

from triolet_api._config import ApiConfig as ApiConfig
from triolet_api._plugin import plugin as plugin
