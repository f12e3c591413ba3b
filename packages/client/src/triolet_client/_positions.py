"""How far each channel was handed on: what is new, what was there already, where something is missing. No IO.

Theory of operation. Stored messages of a channel are numbered from 1 without holes. The position of a channel is the
number up to which everything was handed on. A device's own messages are not delivered to it; their numbers come with
the acknowledgements and are kept as intervals until the position reaches them. Commands have numbers of another kind
and are told apart by their ids. A channel without a position is one that nothing is known of: its next message is new.
"""

import enum
from collections.abc import Mapping
from typing import Generic, TypeVar

import attrs

from triolet_client._model import DATA, LIVE, TEMP, Channel, Message

WITHOUT_CONVERSATION = frozenset({DATA, TEMP, LIVE})
_INTERVALS = 64
"""Runs of own messages remembered per channel; the oldest is forgotten, and recognised by its client_msg_no."""
K = TypeVar("K")


class RecentSet(Generic[K]):
    """The newest keys, a bounded number."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._keys: dict[K, None] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._keys

    def add(self, key: K) -> None:
        """Remember a key; the oldest is forgotten beyond the limit."""
        self._keys.pop(key, None)
        self._keys[key] = None
        if len(self._keys) > self._limit:
            del self._keys[next(iter(self._keys))]


class Verdict(enum.Enum):
    """What to do with a message that arrived."""

    NEW = "new"
    KNOWN = "known"
    GAP = "gap"
    """Something before it is missing."""


@attrs.define(eq=False)
class _Place:
    seq: int | None = None
    """The position; None: nothing is known yet."""
    own: list[list[int]] = attrs.Factory(list)
    """Intervals [first, last] of own numbers beyond the position, rising."""


class Positions:
    """The positions of one user."""

    def __init__(self, limit: int, known: Mapping[Channel, int] | None = None, remembered: int = 10_000) -> None:
        self._limit = limit
        self._places: dict[Channel, _Place] = {channel: _Place(seq) for channel, seq in (known or {}).items()}
        self._commands: RecentSet[int] = RecentSet(remembered)
        self._sent: RecentSet[str] = RecentSet(remembered)

    def known(self) -> dict[Channel, int]:
        """Return every position, to be saved and given to the next `open_client`."""
        return {channel: place.seq for channel, place in self._places.items() if place.seq is not None}

    def of(self, channel: Channel) -> int | None:
        """Return a position, None if nothing is known of the channel."""
        place = self._places.get(channel)
        return place.seq if place is not None else None

    def judge(self, message: Message) -> Verdict:
        """Say whether a message is new. Changes nothing."""
        if message.is_command:
            return Verdict.KNOWN if message.message_id in self._commands else Verdict.NEW
        if message.seq <= 0 or not message.is_stored:
            return Verdict.NEW
        position = self.of(message.channel)
        if position is None or message.seq == position + 1:
            return Verdict.NEW
        return Verdict.KNOWN if message.seq <= position else Verdict.GAP

    def is_own(self, message: Message, uid: str) -> bool:
        """Whether this device sent it: such a message comes back only when it is caught up with."""
        return message.from_uid == uid and message.client_msg_no in self._sent

    def handed_on(self, message: Message) -> None:
        """Note that a message reached its reader."""
        if message.is_command:
            self._commands.add(message.message_id)
        elif message.seq > 0 and message.is_stored:
            self.settle(message.channel, message.seq)

    def settle(self, channel: Channel, seq: int) -> None:
        """Take everything up to a number as handed on; positions never go back."""
        place = self._place(channel)
        place.seq = seq if place.seq is None else max(place.seq, seq)
        self._absorb(place)

    def begin_unlisted(self, message: Message) -> None:
        """Note where a channel begins that no list of conversations will name: with its first message that arrived."""
        is_unlisted = message.channel.type in WITHOUT_CONVERSATION and not message.is_command
        if is_unlisted and message.seq > 0 and message.is_stored and self.of(message.channel) is None:
            self.settle(message.channel, message.seq - 1)

    def sending(self, client_msg_no: str) -> None:
        """Note the number of a message before it goes out."""
        self._sent.add(client_msg_no)

    def sent(self, channel: Channel, seq: int) -> None:
        """Note that an own message got a number."""
        if seq <= 0:
            return
        place = self._place(channel)
        if place.seq is not None and seq <= place.seq:
            return
        if place.own and place.own[-1][1] + 1 == seq:
            place.own[-1][1] = seq
        else:
            place.own.append([seq, seq])
            place.own.sort()
        del place.own[:-_INTERVALS]
        if place.seq is not None:
            self._absorb(place)

    def _absorb(self, place: _Place) -> None:
        """Move the position over own messages that follow it."""
        assert place.seq is not None  # noqa: S101  # the callers' condition
        while place.own and place.own[0][0] <= place.seq + 1:
            place.seq = max(place.seq, place.own.pop(0)[1])

    def _place(self, channel: Channel) -> _Place:
        """Return the place of a channel, which is now the one that was used last."""
        place = self._places.pop(channel, None) or _Place()
        self._places[channel] = place
        if len(self._places) > self._limit:
            del self._places[next(iter(self._places))]
        return place
