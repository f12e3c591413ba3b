"""Settings of the data source."""

import attrs

from triolet_core.config import Bytes, Seconds, setting

ON_FAILURE = ("refuse", "last", "pass")
"""Failure answers: none, so that the sender is refused; the last known one, else none; the server's own store."""


@attrs.frozen(kw_only=True)
class DatasourceConfig:
    """Whom to ask, how long answers are kept, and what happens if there is none."""

    on: bool = setting(default=True, doc="run the plugin")
    addr: str = setting("", doc="URL that is asked for members, lists and system accounts")
    channel_info_on: bool = setting(default=False, doc="ask it for channel info, too")
    channel_info_form: str = setting(
        "auto",
        one_of=("auto", "post", "get"),
        doc="how: post sends the command getChannelInfo, get asks GET <addr>/channel/info; auto is post with"
        " compat.profile wukongim-1, else get",
    )
    user_info_on: bool = setting(default=False, doc="ask it for user info, too, with GET <addr>/user/info")
    timeout: Seconds = setting(Seconds(5), gt=0, le=60, doc="longest wait for one answer")
    max_concurrent: int = setting(16, gt=0, doc="most requests at a time; further ones wait within the timeout")
    max_response_bytes: Bytes = setting(Bytes(8 << 20), gt=0, doc="longest answer that is read")
    cache_ttl: Seconds = setting(Seconds(60), ge=1, doc="how long an answer is used before it is asked for again")
    cache_entries: int = setting(1_000_000, gt=0, doc="most uids and answers kept, together")
    breaker_failures: int = setting(5, gt=0, doc="failures in a row after which nobody is asked for a while")
    breaker_pause: Seconds = setting(
        Seconds(5), gt=0, doc="how long; then one request tries. Also the age of a failure answer that is asked again"
    )
    on_failure_subscribers: str = setting(
        "last",
        key="datasource.onFailure.subscribers",
        one_of=ON_FAILURE,
        doc="members cannot be had: refuse senders with 15; use the last known, else refuse; pass on to the own store",
    )
    on_failure_denylist: str = setting(
        "last", key="datasource.onFailure.denylist", one_of=ON_FAILURE, doc="the same for denylists"
    )
    on_failure_allowlist: str = setting(
        "last", key="datasource.onFailure.allowlist", one_of=ON_FAILURE, doc="the same for allowlists"
    )
    on_failure_system_uids: str = setting(
        "last",
        key="datasource.onFailure.systemUids",
        one_of=ON_FAILURE,
        doc="system accounts cannot be had: refuse everybody who is not known to be one; use the last known, else the"
        " stored; only the stored",
    )
    on_failure_channel_info: str = setting(
        "last", key="datasource.onFailure.channelInfo", one_of=ON_FAILURE, doc="as for members, for channel info"
    )
