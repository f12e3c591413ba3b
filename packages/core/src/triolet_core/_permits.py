"""What was decided about senders and channels, for as long as nothing changes that it depends on.

Only leave to send is kept: a refusal is rare, and may end by what no fact says, such as a guest's coming.
"""

from triolet_core._facts import KnownFacts
from triolet_core.model import ChannelKey

MOST = 16_384
"""Decisions that are kept (about 300 bytes each); then all are made anew."""
Place = tuple[str, str, int]
"""A sender, and a channel as it names it: id and type."""
Permit = tuple[ChannelKey, bool]
"""The channel, and whether it keeps messages."""


class Permits:
    """Decisions by sender and channel, all of one revision of the facts."""

    def __init__(self, known: KnownFacts) -> None:
        self._known = known
        self._revision = known.revision
        self._permits: dict[Place, Permit] = {}

    def find(self, place: Place) -> Permit | None:
        """Return what was decided, if it still holds."""
        return self._permits.get(place) if self._revision == self._known.revision else None

    def add(self, place: Place, permit: Permit) -> None:
        """Keep what was decided just now."""
        if self._revision != self._known.revision or len(self._permits) >= MOST:
            self._permits.clear()
            self._revision = self._known.revision
        self._permits[place] = permit
