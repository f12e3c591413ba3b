"""The datasource plugin of triolet."""

from triolet_datasource._config import DatasourceConfig as DatasourceConfig
from triolet_datasource._plugin import plugin as plugin
