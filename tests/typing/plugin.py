"""A plugin written against the public types only. Checked by mypy, never run."""

from typing import assert_type

import attrs
import trio

from triolet_core import ChannelKey, Device, Draft, Message, MessagePage, Receipt, UserInfo
from triolet_core.config import Seconds, setting
from triolet_core.hooks import OfflineMessage, SendRequest, Subscription, Verdict
from triolet_core.plugin import OnFailure, PluginContext, PluginSpec


@attrs.frozen(kw_only=True)
class WordsConfig:
    """Settings."""

    words: tuple[str, ...] = setting((), doc="words that are refused")
    pause: Seconds = setting(Seconds(1), doc="a duration")


async def refuse(request: SendRequest) -> Verdict | None:
    """Answer a question."""
    assert_type(request.draft, Draft)
    return Verdict(reason=11) if b"word" in request.draft.payload else None


async def name(uid: str) -> UserInfo | None:
    """Answer a question, or leave it to others."""
    return UserInfo(uid=uid, name="Ann") if uid == "ann" else None


async def run(context: PluginContext[WordsConfig], *, task_status: trio.TaskStatus[None]) -> None:
    """Use what a plugin may use."""
    assert_type(context.config.pause, Seconds)
    hooks = context.hooks
    with (
        hooks.authorize_send.responder("words", refuse, on_failure=lambda request: Verdict(reason=15)),
        hooks.user_info.responder("words", name, on_failure=lambda uid: None, deadline_s=1),
        hooks.offline_messages.subscribe() as offline,
    ):
        assert_type(offline, Subscription[OfflineMessage])
        task_status.started()
        receipt = await context.broker.messages.send(Device(uid="a"), Draft("b", 1, b"x"))
        assert_type(receipt, Receipt)
        page = context.broker.messages.sync(ChannelKey("g", 2), start=0, end=0, limit=1, newer=False)
        assert_type(page, MessagePage)
        assert_type(context.broker.commits.read(0, 10), list[Message])
        assert_type(await context.broker.users.info("ann"), UserInfo | None)
        context.broker.channels.forget(ChannelKey("g", 2))
        await context.stopping.wait()


plugin = PluginSpec(name="words", run=run, config_class=WordsConfig, on_failure=OnFailure.RESTART)
