"""An example plugin: refuses messages that hold certain words, and counts the devices that connect."""

from typing import Any

import attrs
import trio

from triolet_core import ReasonCode
from triolet_core.config import setting
from triolet_core.hooks import PresenceChange, SendRequest, Subscription, Verdict
from triolet_core.plugin import OnFailure, PluginContext, PluginSpec


@attrs.frozen(kw_only=True)
class WordFilterConfig:
    """Section `wordfilter`."""

    on: bool = setting(default=True, doc="run the plugin")
    words: tuple[str, ...] = setting(("casino",), doc="words that no message may hold, whatever their case")


@attrs.define(eq=False)
class Filter:
    """Judges messages and counts what it saw."""

    words: tuple[bytes, ...]
    refused: int = 0
    devices: int = 0

    async def judge(self, request: SendRequest) -> Verdict | None:
        """Refuse a message that holds a word; say nothing about any other."""
        payload = request.draft.payload.lower()
        if not any(word in payload for word in self.words):
            return None
        self.refused += 1
        return Verdict(reason=ReasonCode.NOT_ALLOW_SEND)

    async def count_devices(self, changes: Subscription[PresenceChange]) -> None:
        """Count the devices that connect."""
        async for change in changes.receive:
            self.devices += change.online


def let_pass(request: SendRequest) -> Verdict:
    """What a late or failed judgement counts as: a chat matters more than its filter."""
    return Verdict(reason=ReasonCode.SUCCESS)


async def run(context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
    """Judge and count until the server stops."""
    config: WordFilterConfig = context.config
    words = Filter(tuple(word.lower().encode() for word in config.words))
    hooks = context.hooks
    with (
        hooks.authorize_send.responder("wordfilter", words.judge, on_failure=let_pass),
        hooks.presence_changed.subscribe() as changes,
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(words.count_devices, changes)
            task_status.started()
            await context.stopping.wait()
            nursery.cancel_scope.cancel()
    context.log.info("word filter ends", refused=words.refused, devices=words.devices)


plugin = PluginSpec(
    name="wordfilter",
    run=run,
    config_class=WordFilterConfig,
    on_failure=OnFailure.RESTART,
)
