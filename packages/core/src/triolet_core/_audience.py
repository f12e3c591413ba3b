"""Who of a large channel is online, kept from message to message.

A snapshot holds for as long as the members are the same and none of them came or went since. Without it each message
would look at every member or at everybody who is online, whichever are fewer.
"""

from collections.abc import Sequence

import attrs
import cachetools

from triolet_core._presence import MOST_CHANGES, Presence
from triolet_core.model import ChannelKey
from triolet_core.session import Session

SMALL = 64
"""Channels of so many members or fewer are looked at anew each time."""
KEPT_SESSIONS = 20_000
"""Most sessions in snapshots, of all channels together; the channel that had no message for longest goes first."""


@attrs.define(eq=False)
class _Snapshot:
    uids: frozenset[str]
    sessions: list[Session]
    version: int
    """`Presence.version` for which it is known to hold."""


class Audiences:
    """The snapshots."""

    def __init__(self, presence: Presence) -> None:
        self._presence = presence
        self._kept: cachetools.LRUCache[ChannelKey, _Snapshot] = cachetools.LRUCache(
            KEPT_SESSIONS, getsizeof=lambda snapshot: 1 + len(snapshot.sessions)
        )
        self._looked_at = presence.version
        presence.observe(self._note)

    def sessions(self, channel: ChannelKey, uids: frozenset[str]) -> Sequence[Session]:
        """Return the sessions of those of `uids` that are online, for a message of a channel; do not change it."""
        if len(uids) <= SMALL:
            return self._find(uids)
        presence = self._presence
        kept = self._kept.get(channel)
        if kept is not None and kept.uids is uids:
            changed = presence.changed_since(kept.version)
            if changed is not None and uids.isdisjoint(changed):
                kept.version = presence.version
                return kept.sessions
        found = _Snapshot(uids, self._find(uids), presence.version)
        if len(found.sessions) < KEPT_SESSIONS:
            self._kept[channel] = found
        else:
            self._kept.pop(channel, None)
        return found.sessions

    def _note(self, *_: object, **__: object) -> None:
        """Drop now and then what nobody can know to hold any more: it would keep the sessions that have gone."""
        if self._presence.version - self._looked_at < MOST_CHANGES:
            return
        self._looked_at = self._presence.version
        for channel in list(self._kept):
            kept = cachetools.Cache.__getitem__(self._kept, channel)  # that of an LRUCache would count as a use
            if kept.version <= self._looked_at - MOST_CHANGES:
                del self._kept[channel]

    def _find(self, uids: frozenset[str]) -> list[Session]:
        online = uids if len(uids) <= 2 else self._presence.online_among(uids)
        sessions = self._presence.sessions
        return [session for uid in online for session in sessions(uid)]
