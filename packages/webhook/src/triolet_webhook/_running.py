"""The plugin at work: a task per event, a recorder of presence, a watch over what waits, the question before a send."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Protocol

import attrs
import trio

from triolet_core.hooks import PresenceChange, Subscription
from triolet_core.plugin import PluginContext
from triolet_webhook._config import WebhookConfig
from triolet_webhook._courier import Courier
from triolet_webhook._events import LOGOUT, NOTIFY, OFFLINE, ONLINE_STATUS, is_wanted
from triolet_webhook._http import HttpReceiver
from triolet_webhook._log_consumer import LogConsumer
from triolet_webhook._log_stream import LogStream
from triolet_webhook._parts import make_service, open_receiver
from triolet_webhook._pre_send import ORDER, PreSend
from triolet_webhook._presence import QUEUE_LIMIT, PresenceRecorder
from triolet_webhook._service import WebhookService
from triolet_webhook._status import StatusConsumer

WATCH_S = 5.0
"""Between two looks at the backlogs and the bounds of the dead letters."""
OFFLINE_COUNT = 2_000
"""Messages looked at together for recipients who are away; most of them have none."""
OFFLINE_INTERVAL_S = 0.02
"""Wait for more messages before msg.offline looks at them: it costs less to look at some together."""
DRAIN_SHARE = 0.5
"""Share of the stop budget for pushing what is left; the rest is durable and pushed after the next start."""


class Consumer(Protocol):
    """What pushes one kind of event."""

    async def run(self) -> None:
        """Push until the server stops."""

    async def watch(self) -> None:
        """Look at the backlog."""

    def figures(self) -> dict[str, int | float]:
        """Return counters and the backlog."""


async def run(context: PluginContext[Any], task_status: trio.TaskStatus[None]) -> None:
    """Push events and answer questions until the server stops and what can be pushed is."""
    async with AsyncExitStack() as stack:
        await _answer_before_send(context, stack)
        consumers = await _open_consumers(context, stack)
        if not consumers:
            context.log.info("webhook is idle", reason=_why_idle(context.config))
            task_status.started()
            await context.stopping.wait()
            return
        _log_start(context, consumers)
        await _serve(context, consumers, task_status)


def _why_idle(config: WebhookConfig) -> str:
    if config.http_addr or config.grpc_addr:
        return "webhook.focusEvents names no event that is pushed"
    return "no address is set (webhook.httpAddr, webhook.grpcAddr)"


def _log_start(context: PluginContext[WebhookConfig], consumers: Mapping[str, Consumer]) -> None:
    service: WebhookService = context.broker.services["webhook"]
    both = bool(context.config.grpc_addr and context.config.http_addr)
    context.log.info(
        "webhook starts",
        form=service.receiver.form,
        address=service.receiver.address,
        events=sorted(consumers),
        **({"note": "webhook.httpAddr is set too and not used: gRPC wins"} if both else {}),
    )


async def _answer_before_send(context: PluginContext[WebhookConfig], stack: AsyncExitStack) -> None:
    """Register for the question if there is somebody to pass it on to; otherwise nothing is asked."""
    config = context.config
    if not config.pre_send_url:
        return
    receiver = await stack.enter_async_context(HttpReceiver.open("webhook.preSend.url", config.pre_send_url, config))
    pre_send = PreSend(
        receiver, context.broker.config.message.max_payload_bytes, config.pre_send_fail_open, context.log
    )
    context.broker.metrics.add_source("webhook_pre_send", pre_send.figures)
    stack.enter_context(
        context.hooks.authorize_send.responder(
            "webhook",
            pre_send.answer,
            order=ORDER,
            on_failure=pre_send.on_failure,
            deadline_s=config.pre_send_timeout,
            in_flight=config.pre_send_concurrency,
        )
    )
    context.log.info("messages are asked about before they are stored", address=receiver.address)


async def _open_consumers(context: PluginContext[WebhookConfig], stack: AsyncExitStack) -> dict[str, Consumer]:
    """Return what pushes each event that is wanted, by a name for the metrics; the service is registered."""
    config, broker = context.config, context.broker
    if not (config.grpc_addr or config.http_addr):
        return {}
    service = make_service(context, await stack.enter_async_context(await open_receiver(config)))
    broker.services["webhook"] = service
    stack.callback(broker.services.pop, "webhook", None)
    consumers: dict[str, Consumer] = {}
    for event, interval_s in ((NOTIFY, config.msg_notify_event_push_interval), (OFFLINE, OFFLINE_INTERVAL_S)):
        if is_wanted(event, config.focus_events):
            consumers[_short(event)] = await _log_consumer(context, service, event, interval_s)
    wanted = tuple(event for event in (ONLINE_STATUS, LOGOUT) if is_wanted(event, config.focus_events))
    if wanted:
        changes = stack.enter_context(context.hooks.presence_changed.subscribe(limit=QUEUE_LIMIT))
        consumers["presence"] = await _status_consumer(context, service, wanted, changes)
    for name, consumer in consumers.items():
        broker.metrics.add_source(f"webhook_{name}", consumer.figures)
    broker.metrics.add_source("webhook_dead", lambda: _dead_figures(service))
    return consumers


def _short(event: str) -> str:
    return event.rpartition(".")[2]


def _courier(context: PluginContext[WebhookConfig], service: WebhookService, event: str) -> Courier:
    config = context.config
    return Courier(
        service.receiver,
        config.msg_notify_event_retry_max_count,
        config.retry_first,
        config.retry_longest,
        context.stopping,
        context.log.bind(event_name=event),
    )


def _count_at_once(config: WebhookConfig, event: str) -> int:
    """Return how many messages are looked at together: a push's worth, or more where each is a push of its own."""
    if event == OFFLINE and config.offline_form != "array":
        return max(OFFLINE_COUNT, config.msg_notify_event_count_per_push)
    return config.msg_notify_event_count_per_push


async def _log_consumer(
    context: PluginContext[WebhookConfig], service: WebhookService, event: str, interval_s: float
) -> LogConsumer:
    config = context.config
    stream = LogStream(
        context.broker,
        f"webhook.{_short(event)}",
        context.stopping,
        _count_at_once(config, event),
        config.max_push_bytes,
        interval_s,
    )
    await stream.open()
    courier = _courier(context, service, event)
    return LogConsumer(stream, service.packers[event], courier, service.dead_letters, config)


async def _status_consumer(
    context: PluginContext[WebhookConfig],
    service: WebhookService,
    events: tuple[str, ...],
    changes: Subscription[PresenceChange],
) -> StatusConsumer:
    config = context.config
    rows = config.msg_notify_event_count_per_push
    recorder = PresenceRecorder(context.broker, changes, context.stopping, rows, context.log)
    await recorder.open()
    courier = _courier(context, service, ONLINE_STATUS)
    return StatusConsumer(
        context.broker.queues, recorder, service.status_packer, events, courier, service.dead_letters, config
    )


def _dead_figures(service: WebhookService) -> dict[str, int | float]:
    letters = service.dead_letters
    size = attrs.asdict(letters.size())
    return {**size, "buried_total": letters.buried_total, "dropped_total": letters.dropped_total}


async def _serve(
    context: PluginContext[WebhookConfig], consumers: Mapping[str, Consumer], task_status: trio.TaskStatus[None]
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch, context, consumers)
        await _push(context, consumers, task_status)
        nursery.cancel_scope.cancel()


async def _push(
    context: PluginContext[WebhookConfig], consumers: Mapping[str, Consumer], task_status: trio.TaskStatus[None]
) -> None:
    """Run the consumers; when the server stops they end, within a share of its budget."""
    async with trio.open_nursery() as nursery:
        for consumer in consumers.values():
            nursery.start_soon(consumer.run)
            if isinstance(consumer, StatusConsumer):
                nursery.start_soon(consumer.recorder.run)
        task_status.started()
        await context.stopping.wait()
        nursery.cancel_scope.deadline = trio.current_time() + context.grace_left() * DRAIN_SHARE


async def _watch(context: PluginContext[WebhookConfig], consumers: Mapping[str, Consumer]) -> None:
    service: WebhookService = context.broker.services["webhook"]
    while True:
        for consumer in consumers.values():
            await consumer.watch()
        await service.dead_letters.enforce_bounds()
        await trio.sleep(WATCH_S)
