"""Puts receiver, packers and dead letters together, for the plugin and for its command."""

import importlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import trio

from triolet_core import Broker, ConfigError
from triolet_core.plugin import PluginContext
from triolet_webhook._config import WebhookConfig
from triolet_webhook._dead import DeadLetters
from triolet_webhook._events import NOTIFY, OFFLINE
from triolet_webhook._http import HttpReceiver
from triolet_webhook._messages import NotifyPacker, OfflinePacker
from triolet_webhook._receiver import DeliveryFailed, Parcel, Receiver
from triolet_webhook._service import WebhookService
from triolet_webhook._status import StatusPacker


async def open_receiver(config: WebhookConfig) -> AbstractAsyncContextManager[Receiver]:
    """Return the receiver that is configured; gRPC wins.

    Raises:
        ConfigError: gRPC is configured and not installed.
    """
    if not config.grpc_addr:
        return HttpReceiver.open("webhook.httpAddr", config.http_addr, config)
    try:
        module = await trio.to_thread.run_sync(
            importlib.import_module, "triolet_webhook._grpc", limiter=trio.CapacityLimiter(1)
        )
    except ImportError as exc:
        raise ConfigError("webhook.grpcAddr", "gRPC is not installed; pip install 'triolet-webhook[grpc]'") from exc
    receiver: AbstractAsyncContextManager[Receiver] = module.GrpcReceiver.open(config)
    return receiver


def status_packer(broker: Broker, config: WebhookConfig) -> StatusPacker:
    """Return the packer for the form that is configured, or that of the profile."""
    form = config.online_status_format
    three = broker.compat.limao_online_status if form == "auto" else form == "three"
    return StatusPacker(broker.config.node.id, three)


def make_service(context: PluginContext[WebhookConfig], receiver: Receiver) -> WebhookService:
    """Return the service, which holds the packers and the dead letters that the plugin uses too."""
    broker, config = context.broker, context.config
    return WebhookService(
        receiver=receiver,
        dead_letters=DeadLetters(broker.queues, config.dead_bytes, config.dead_age, context.log),
        commits=broker.commits,
        packers={
            NOTIFY: NotifyPacker(),
            OFFLINE: OfflinePacker(broker=broker, as_array=config.offline_form == "array"),
        },
        status_packer=status_packer(broker, config),
        config=config,
    )


@asynccontextmanager
async def open_service(context: PluginContext[Any]) -> AsyncIterator[WebhookService]:
    """Yield the service without the plugin; without an address it can list and drop."""
    if not (context.config.grpc_addr or context.config.http_addr):
        yield make_service(context, _Nobody())
        return
    async with await open_receiver(context.config) as receiver:
        yield make_service(context, receiver)


class _Nobody:
    """No receiver."""

    form = "none"
    address = ""

    async def deliver(self, parcel: Parcel) -> None:
        """Refuse."""
        raise DeliveryFailed(f"no address is set for {parcel.event} (webhook.httpAddr, webhook.grpcAddr)")
