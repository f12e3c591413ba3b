"""Who may watch whom: a responder if there is one, else the setting. Nobody has to ask to watch himself."""

from collections.abc import Sequence

import trio

from triolet_core._channels import Channels
from triolet_core.hooks import Hooks, WatchRequest
from triolet_core.model import ChannelKey, ChannelType

NOBODY, ALLOWLIST, ANYBODY = "nobody", "allowlist", "anybody"
_LOOKS_AT_ONCE = 100


async def forbidden(hooks: Hooks, channels: Channels, rule: str, uid: str, targets: Sequence[str]) -> tuple[str, ...]:
    """Return those of `targets` that `uid` may not watch.

    Whoever stands on a user's denylist may not watch him under any setting; a responder decides alone.

    Raises:
        BackendError: The responder, or the data source that has the lists, failed.
    """
    others = tuple(each for each in targets if each != uid)
    if not others:
        return ()
    if hooks.authorize_watch.is_answered:
        allowed = await hooks.authorize_watch.ask(WatchRequest(uid=uid, targets=others))
        if allowed is not None:
            return tuple(each for each in others if each not in frozenset(allowed))
    if rule == NOBODY:
        return others
    return await _not_by_lists(channels, rule, uid, others)


async def _not_by_lists(channels: Channels, rule: str, uid: str, targets: Sequence[str]) -> tuple[str, ...]:
    refused = []
    for number, target in enumerate(targets, 1):
        facts = await channels.facts(ChannelKey(target, ChannelType.PERSON))
        if uid in facts.denied or (rule == ALLOWLIST and uid not in facts.allowed):
            refused.append(target)
        if not number % _LOOKS_AT_ONCE:
            await trio.lowlevel.checkpoint()
    return tuple(refused)
