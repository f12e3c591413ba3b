"""Settings of the webhook."""

import attrs

from triolet_core.config import Seconds, setting


@attrs.frozen(kw_only=True)
class WebhookConfig:
    """Where events are pushed to."""

    on: bool = setting(default=True, doc="run the plugin")
    http_addr: str = setting("", doc="URL that receives POSTs; empty switches HTTP off")
    grpc_addr: str = setting("", doc="host:port of a gRPC receiver; wins over httpAddr")
    msg_notify_event_push_interval: Seconds = setting(Seconds(0.5), gt=0, go=True, doc="longest wait for a batch")
    msg_notify_event_count_per_push: int = setting(100, gt=0, doc="most messages in one push")
    msg_notify_event_retry_max_count: int = setting(5, ge=0, doc="attempts before a batch is set aside")
    focus_events: tuple[str, ...] = setting((), doc="event names to push; empty means all")
    offline_form: str = setting("object", one_of=("object", "array"), doc="body of msg.offline: one message or a list")
    pre_send_url: str = setting("", key="webhook.preSend.url", doc="URL asked before a message is stored")
    pre_send_timeout: Seconds = setting(
        Seconds(0.3), gt=0, key="webhook.preSend.timeout", doc="longest wait for its answer"
    )
    pre_send_fail_open: bool = setting(
        default=True, key="webhook.preSend.failOpen", doc="let a message pass if no answer comes"
    )
