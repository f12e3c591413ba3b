"""A receiver without a network, and the parts of the webhook around it."""

import random
from collections.abc import Callable
from typing import Any

import attrs
import structlog
import trio

from triolet_core import Broker
from triolet_core.plugin import PluginContext
from triolet_webhook._config import WebhookConfig
from triolet_webhook._courier import Courier
from triolet_webhook._log_consumer import LogConsumer
from triolet_webhook._log_stream import LogStream
from triolet_webhook._parts import make_service
from triolet_webhook._receiver import DeliveryFailed, Parcel
from triolet_webhook._service import WebhookService


@attrs.define(eq=False)
class FakeReceiver:
    """Takes parcels, unless it is down or told to refuse them."""

    is_down: bool = False
    is_silent: bool = False
    """Takes parcels and never says so."""
    refuses: Callable[[Parcel], bool] = lambda parcel: False
    tried: list[tuple[float, Parcel]] = attrs.Factory(list)
    taken: list[Parcel] = attrs.Factory(list)
    form: str = "fake"
    address: str = "nowhere"
    changed: trio.Event = attrs.Factory(trio.Event)

    async def deliver(self, parcel: Parcel) -> None:
        await trio.lowlevel.checkpoint()
        self.tried.append((trio.current_time(), parcel))
        refused = self.is_down or self.refuses(parcel)
        if not refused:
            self.taken.append(parcel)
        self.changed.set()
        self.changed = trio.Event()
        await trio.lowlevel.checkpoint()
        if self.is_silent:
            await trio.sleep_forever()
        if refused:
            raise DeliveryFailed("down")

    async def wait_for(self, *, tried: int = 0, taken: int = 0) -> None:
        while len(self.tried) < tried or len(self.taken) < taken:
            await self.changed.wait()


@attrs.define(eq=False)
class Rig:
    """What the plugin puts together, around a fake receiver."""

    broker: Broker
    receiver: FakeReceiver
    config: WebhookConfig
    stopping: trio.Event = attrs.Factory(trio.Event)
    now: float | None = None

    def service(self) -> WebhookService:
        context: PluginContext[Any] = PluginContext(
            config=self.config,
            broker=self.broker,
            hooks=self.broker.hooks,
            log=structlog.get_logger(),
            stopping=self.stopping,
            grace_left=lambda: 10.0,
        )
        return make_service(context, self.receiver)

    def courier(self) -> Courier:
        config = self.config
        return Courier(
            self.receiver,
            config.msg_notify_event_retry_max_count,
            config.retry_first,
            config.retry_longest,
            self.stopping,
            structlog.get_logger(),
            dice=random.Random(1),
        )

    async def consumer(self, event: str = "msg.notify", **stream: Any) -> LogConsumer:
        config = self.config
        log = LogStream(
            self.broker,
            f"webhook.{event[4:]}",
            self.stopping,
            config.msg_notify_event_count_per_push,
            config.max_push_bytes,
            0.0,
            **stream,
        )
        await log.open()
        service = self.service()
        return LogConsumer(log, service.packers[event], self.courier(), service.dead_letters, config)
