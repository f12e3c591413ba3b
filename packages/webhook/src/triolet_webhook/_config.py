"""Settings of the webhook."""

import attrs

from triolet_core.config import Bytes, Seconds, setting


@attrs.frozen(kw_only=True)
class WebhookConfig:
    """Where events are pushed to, and how hard that is tried."""

    on: bool = setting(default=True, doc="run the plugin")
    http_addr: str = setting("", doc="URL that receives POSTs; empty switches HTTP off")
    grpc_addr: str = setting("", doc="host:port of a gRPC receiver; wins over httpAddr")
    msg_notify_event_push_interval: Seconds = setting(Seconds(0.5), gt=0, go=True, doc="longest wait for a batch")
    msg_notify_event_count_per_push: int = setting(100, gt=0, doc="most messages in one push")
    msg_notify_event_retry_max_count: int = setting(
        5, ge=0, doc="attempts before an event moves to the dead letters; 0: it is tried for ever"
    )
    focus_events: tuple[str, ...] = setting(
        (), doc="event names to push; empty: msg.notify, msg.offline and user.onlinestatus"
    )
    online_status_format: str = setting(
        "auto",
        one_of=("auto", "six", "three"),
        doc="fields of user.onlinestatus: WuKongIM's six, LiMaoIM's three, or by compat.profile",
    )
    offline_form: str = setting("object", one_of=("object", "array"), doc="body of msg.offline: one message or a list")
    offline_concurrency: int = setting(8, gt=0, doc="calls of msg.offline at once, each for another channel")
    secret: str = setting("", secret=True, doc="key of the HMAC-SHA256 signature; empty: requests are not signed")
    allow_link_local: bool = setting(default=False, doc="allow receivers at link-local and metadata addresses")
    connect_timeout: Seconds = setting(Seconds(5), gt=0, doc="longest wait for a connection")
    timeout: Seconds = setting(Seconds(10), gt=0, doc="longest call, the connection and the answer included")
    retry_first: Seconds = setting(Seconds(1), gt=0, doc="first pause between two attempts; each next one doubles")
    retry_longest: Seconds = setting(Seconds(60), gt=0, doc="longest pause between two attempts")
    max_push_bytes: Bytes = setting(Bytes(4 << 20), gt=0, doc="payload bytes in one push; a longer message goes alone")
    max_answer_bytes: Bytes = setting(Bytes(2 << 20), gt=0, doc="longest answer that is read")
    backlog_bytes: Bytes = setting(
        Bytes(8 << 30),
        gt=0,
        doc="payload bytes that may wait for one event; above it the oldest move to the dead letters",
    )
    backlog_age: Seconds = setting(Seconds(7 * 86400), gt=0, doc="longest wait of an event, likewise")
    dead_bytes: Bytes = setting(Bytes(256 << 20), gt=0, doc="size of the dead letters; above it the oldest are lost")
    dead_age: Seconds = setting(Seconds(30 * 86400), gt=0, doc="how long dead letters are kept")
    pre_send_url: str = setting("", key="webhook.preSend.url", doc="URL asked before a message is stored")
    pre_send_timeout: Seconds = setting(
        Seconds(0.3), gt=0, key="webhook.preSend.timeout", doc="longest wait for its answer"
    )
    pre_send_fail_open: bool = setting(
        default=True, key="webhook.preSend.failOpen", doc="let a message pass if no answer comes"
    )
    pre_send_concurrency: int = setting(
        64, gt=0, key="webhook.preSend.concurrency", doc="questions under way at once; more wait within the timeout"
    )
