"""The webhook plugin of triolet."""

from triolet_webhook._config import WebhookConfig as WebhookConfig
from triolet_webhook._plugin import plugin as plugin
