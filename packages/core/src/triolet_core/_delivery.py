"""From committed messages to the sessions of their recipients.

Lanes keep the order: a channel always uses the same lane, and the writer feeds the lanes in commit order. A lane
takes everything that is waiting, collects it per session, and pushes each session once, so that a burst in a
group costs one write per member and not one per message. Sessions that get the same are pushed together, so that
what can be done once for all of them is.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

import attrs
import structlog
import trio

from triolet_core._audience import Audiences
from triolet_core._channels import Channels
from triolet_core._presence import Presence
from triolet_core.errors import BackendError
from triolet_core.hooks import Hooks, OfflineMessage
from triolet_core.model import (
    NO_PERSIST,
    PAIRS,
    SYSTEM_UID,
    ChannelKey,
    ChannelType,
    Message,
    ends_of,
    plain_channel,
)
from triolet_core.session import Session

LANES = 8
LANE_BATCHES = 64
"""Batches that wait in a lane; when it is full the writer waits."""
CROWDED = 8
"""Batches in a lane at which senders to its groups are held back: the last member has a message soon after its sender
has the acknowledgement, and the lane is never so full that the writer would wait."""
SLICE = 1_000
"""Recipients between two checkpoints, or messages of all recipients if each gets several, so that a large group does
not hold the loop."""
MOST_COLLECTED = 16_000
"""Pushes collected before sessions are served, a bound on memory."""


@attrs.define(eq=False)
class Delivery:
    """Messages of one channel on their way, and the session that sent them, which gets no copy."""

    messages: list[Message]
    exclude: Session | None
    to_uids: tuple[str, ...] = ()


def _run_of(delivery: Delivery) -> tuple[ChannelKey, Session | None, tuple[str, ...]]:
    return delivery.messages[0].channel, delivery.exclude, delivery.to_uids


def _count(batch: Sequence[Delivery]) -> int:
    return sum([len(delivery.messages) for delivery in batch])


@attrs.define(eq=False)
class _Trail:
    """Runs of messages, the last of them and those before; sessions that get the same share one trail."""

    messages: list[Message]
    before: "_Trail | None" = None

    def all_messages(self) -> list[Message]:
        """Return the messages of every run, in order."""
        runs = []
        trail: _Trail | None = self
        while trail is not None:
            runs.append(trail.messages)
            trail = trail.before
        return [message for run in reversed(runs) for message in run]


class _Collected:
    """What each session is to get."""

    def __init__(self) -> None:
        self._start = _Trail([])
        self._first: tuple[Sequence[Session], list[Message]] | None = None
        """The first run; it has no trails while it is the only one."""
        self._trails: dict[Session, _Trail] = {}
        self._runs = 0
        self.count = 0

    def add(self, sessions: Sequence[Session], messages: list[Message]) -> None:
        """Add a run of messages that all these sessions get."""
        self.count += len(sessions) * len(messages)
        if self._first is None:
            self._first = (sessions, messages)
            return
        if not self._runs:
            self._follow(*self._first)
        self._follow(sessions, messages)

    def _follow(self, sessions: Sequence[Session], messages: list[Message]) -> None:
        self._runs += 1
        trails, start = self._trails, self._start
        after: dict[_Trail, _Trail] = {}
        """Where those go on who came along the same trail."""
        for session in sessions:
            before = trails.get(session, start)
            trail = after.get(before)
            if trail is None:
                trail = after[before] = _Trail(messages, before)
            trails[session] = trail

    def groups(self) -> Iterator[tuple[list[Message], list[Session]]]:
        """Yield messages, and the sessions of one class that get exactly them."""
        if self._first is not None and not self._runs:
            yield from self._only(*self._first)
            return
        groups: dict[tuple[_Trail, type[Session]], list[Session]] = {}
        for session, trail in self._trails.items():
            groups.setdefault((trail, type(session)), []).append(session)
        for (trail, _), sessions in groups.items():
            yield trail.all_messages(), sessions

    def _only(
        self, sessions: Sequence[Session], messages: list[Message]
    ) -> Iterator[tuple[list[Message], list[Session]]]:
        if len(set(map(type, sessions))) == 1:
            yield messages, list(sessions)
            return
        by_class: dict[type[Session], list[Session]] = {}
        for session in sessions:
            by_class.setdefault(type(session), []).append(session)
        for those in by_class.values():
            yield messages, those


class Lanes:
    """The delivery tasks and their queues."""

    def __init__(self, presence: Presence, channels: Channels, hooks: Hooks) -> None:
        self._presence = presence
        self._audiences = Audiences(presence)
        self._channels = channels
        self._hooks = hooks
        self._log = structlog.get_logger("delivery")
        ends = [trio.open_memory_channel[list[Delivery]](LANE_BATCHES) for _ in range(LANES)]
        self._senders = [send for send, _ in ends]
        self._receivers = [receive for _, receive in ends]
        self._loads = [0] * LANES
        """Batches that each lane has or is serving."""
        self._rooms = [trio.lowlevel.ParkingLot() for _ in range(LANES)]
        self._idle = trio.lowlevel.ParkingLot()
        self.delivered = 0
        self.offline = 0
        self.failed = 0

    async def run(self) -> None:
        """Serve every lane until cancelled."""
        async with trio.open_nursery() as nursery:
            for lane in range(LANES):
                nursery.start_soon(self._serve, lane)

    async def hand_over(self, deliveries: Sequence[Delivery]) -> None:
        """Give committed messages to their lanes, in order; waits while a lane is full.

        Those between two that are not there, and that nobody else wants to know of, go no further.
        """
        by_lane: dict[int, list[Delivery]] = {}
        for delivery in deliveries:
            channel = delivery.messages[0].channel
            if not delivery.to_uids and self._has_nobody(channel):
                continue
            by_lane.setdefault(hash(channel) % LANES, []).append(delivery)
        for lane, batch in by_lane.items():
            self._loads[lane] += 1
            await self._senders[lane].send(batch)

    def is_crowded(self, channel: ChannelKey) -> bool:
        """Whether so much of a channel is on its way that whoever sends to it has to wait, so that nobody else does."""
        return channel.type not in PAIRS and self._loads[hash(channel) % LANES] >= CROWDED

    async def wait_for_room(self, channel: ChannelKey) -> None:
        """Wait while a channel is crowded."""
        while self.is_crowded(channel):
            await self._rooms[hash(channel) % LANES].park()

    @property
    def has_room(self) -> bool:
        """Whether every lane takes a batch without waiting."""
        return max(self._loads) < LANE_BATCHES

    def hand_over_nowait(self, deliveries: Sequence[Delivery]) -> None:
        """Give committed messages to their lanes, while those have room; but deliver those between two on the spot.

        Where something waits in their lane they go behind it.
        """
        by_lane: dict[int, list[Delivery]] = {}
        by_session: dict[Session, list[Message]] = {}
        reports_offline = self._hooks.offline_messages.has_subscribers
        for delivery in deliveries:
            channel = delivery.messages[0].channel
            is_pair = channel.type in PAIRS and not delivery.to_uids
            sessions: Sequence[Session] = ()
            if is_pair:
                sessions = self._sessions_of_pair(channel)
                if not sessions and not reports_offline:
                    continue
            lane = hash(channel) % LANES
            if not is_pair or self._loads[lane] or lane in by_lane:
                by_lane.setdefault(lane, []).append(delivery)
                continue
            for session in sessions:  # each end sees them under the name of the other, so that nothing is shared
                if session is not delivery.exclude:
                    waiting = by_session.get(session)
                    by_session[session] = delivery.messages if waiting is None else waiting + delivery.messages
            if reports_offline:
                self._report_offline(delivery.messages, frozenset(ends_of(plain_channel(channel))))
        for lane, batch in by_lane.items():
            self._loads[lane] += 1
            self._senders[lane].send_nowait(batch)
        try:
            for session, messages in by_session.items():
                self.delivered += session.push(messages) * len(messages)
        except Exception:  # as in a lane
            self.failed += 1
            self._log.exception("delivery failed")

    def _sessions_of_pair(self, channel: ChannelKey) -> Sequence[Session]:
        first, second = ends_of(plain_channel(channel))
        sessions = self._presence.sessions(first)
        if first == second:
            return sessions
        others = self._presence.sessions(second)
        return [*sessions, *others] if sessions and others else sessions or others

    def _collect(self, collected: _Collected, channel: ChannelKey, uids: frozenset[str], delivery: Delivery) -> None:
        exclude, messages = delivery.exclude, delivery.messages
        sessions = self._audiences.sessions(channel, uids)
        if exclude is not None:
            sessions = [session for session in sessions if session is not exclude]
        collected.add(sessions, messages)
        self._report_offline(messages, uids)

    def _has_nobody(self, channel: ChannelKey) -> bool:
        if channel.type not in PAIRS or self._hooks.offline_messages.has_subscribers:
            return False
        return not self._sessions_of_pair(channel)

    async def flush(self) -> None:
        """Wait until the lanes are empty."""
        while any(self._loads):
            await self._idle.park()

    async def _serve(self, lane: int) -> None:
        receive = self._receivers[lane]
        async for batch in receive:
            taken, count = 1, _count(batch)
            try:
                while count < MOST_COLLECTED:
                    more = receive.receive_nowait()
                    taken += 1
                    count += _count(more)
                    batch += more
                    del more  # as the batch itself below
            except trio.WouldBlock:
                pass  # that was everything
            try:
                await self._deliver(batch)
            except Exception:  # foreign code (a session, a data source) must not end the lane
                self.failed += 1
                self._log.exception("delivery failed", messages=count)
            del batch  # or it would keep its senders until the next one comes
            self._loads[lane] -= taken
            if self._rooms[lane] and self._loads[lane] < CROWDED:
                self._rooms[lane].unpark_all()
            if not any(self._loads):
                self._idle.unpark_all()

    async def _deliver(self, batch: Sequence[Delivery]) -> None:
        collected = _Collected()
        for (channel, exclude, to_uids), run in groupby(batch, _run_of):
            messages = [message for delivery in run for message in delivery.messages]
            try:
                uids = frozenset(to_uids) or await self._channels.recipients(channel)
            except BackendError:
                self.failed += len(messages)  # logged by the hook; the messages are stored and come by sync
                continue
            self._collect(collected, channel, uids, Delivery(messages, exclude, to_uids))
            if collected.count >= MOST_COLLECTED:
                await self._push(collected)
                collected = _Collected()
        await self._push(collected)

    async def _push(self, collected: _Collected) -> None:
        pushed = 0
        for messages, sessions in collected.groups():
            step = max(1, SLICE // len(messages))
            for start in range(0, len(sessions), step):
                some = sessions[start : start + step]
                self.delivered += type(some[0]).push_many(some, messages) * len(messages)
                pushed += len(some) * len(messages)
                if pushed >= SLICE:
                    pushed = 0
                    await trio.lowlevel.checkpoint()

    def _report_offline(self, messages: Sequence[Message], uids: frozenset[str]) -> None:
        """Tell those who want to know which of `uids` no device could be reached for."""
        if not self._hooks.offline_messages.has_subscribers:
            return
        reachable = self._presence.is_reachable
        for message in messages:
            if message.flags & NO_PERSIST or message.channel.type == ChannelType.AGENT:
                continue
            offline = tuple(uid for uid in uids if uid not in (message.sender, SYSTEM_UID) and not reachable(uid))
            if offline:
                self.offline += len(offline)
                self._hooks.offline_messages.publish(OfflineMessage(message=message, to_uids=offline))
