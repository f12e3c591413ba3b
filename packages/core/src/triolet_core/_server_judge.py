"""What is decided about a draft of the server without waiting: most are plain, and what they depend on is known."""

from triolet_core import _permission
from triolet_core._channels import Channels
from triolet_core._recent import Recent
from triolet_core._send_batch import Judged
from triolet_core.compat import Compat
from triolet_core.hooks import Hooks
from triolet_core.model import DUP, NO_PERSIST, SYNC_ONCE, ChannelKey, ChannelType, Draft, channel_key

_ASK_FIRST = frozenset({ChannelType.COMMUNITY_TOPIC, ChannelType.DATA})
"""Types whose messages depend on more than the facts of one channel."""
_KEYS = 10_000


class ServerJudge:
    """Decides as `Messages` does for a sender that is the server."""

    def __init__(self, channels: Channels, hooks: Hooks, compat: Compat) -> None:
        self._channels = channels
        self._hooks = hooks
        self._compat = compat
        self._keys: Recent[tuple[str, str, int], ChannelKey] = Recent(_KEYS)
        """The stored keys of channels by sender, name and type: to make one takes five times as long as to find it."""

    def judge(self, uid: str, draft: Draft) -> Judged | None:
        """Decide on a plausible draft; None if it is no plain one, or somebody has to be asked."""
        kind, flags = draft.channel_type, draft.flags
        if kind in _ASK_FIRST or flags & (SYNC_ONCE | DUP) or self._hooks.authorize_send.is_answered:
            return None
        if draft.refusal or not draft.client_msg_no:
            return None
        name = (uid, draft.channel_id, kind)
        key = self._keys.find(name)
        if key is None:
            key = channel_key(*name)
            self._keys.keep(name, key)
        facts = self._channels.known.cached(key)
        if facts is None or facts.has_new_members:
            return None
        opens_all = self._compat.stores_into_banned_channels
        reason = _permission.decide_for_server(
            kind, draft.channel_id, facts.info, stores_into_banned_channels=opens_all
        )
        return Judged(draft, key, reason, persist=not flags & NO_PERSIST)
