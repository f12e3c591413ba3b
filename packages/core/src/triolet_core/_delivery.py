"""From committed messages to the sessions of their recipients.

Lanes keep the order: a channel always uses the same lane, and the writer feeds the lanes in commit order. A lane
takes everything that is waiting, collects it per session, and pushes each session once, so that a burst in a
group costs one write per member and not one per message.
"""

from collections.abc import Sequence

import attrs
import structlog
import trio

from triolet_core._channels import Channels
from triolet_core._presence import Presence
from triolet_core.errors import BackendError
from triolet_core.hooks import Hooks, OfflineMessage
from triolet_core.model import NO_PERSIST, SYSTEM_UID, ChannelType, Message
from triolet_core.session import Session

LANES = 8
LANE_BATCHES = 64
"""Batches that wait in a lane; when it is full the writer waits."""
SLICE = 1_000
"""Recipients between two checkpoints, so that a large group does not hold the loop."""
MOST_COLLECTED = 16_000
"""Pushes collected before sessions are served, a bound on memory."""


@attrs.define(eq=False)
class Delivery:
    """One message on its way, and the session that sent it, which gets no copy."""

    message: Message
    exclude: Session | None
    to_uids: tuple[str, ...] = ()


class Lanes:
    """The delivery tasks and their queues."""

    def __init__(self, presence: Presence, channels: Channels, hooks: Hooks) -> None:
        self._presence = presence
        self._channels = channels
        self._hooks = hooks
        self._log = structlog.get_logger("delivery")
        ends = [trio.open_memory_channel[list[Delivery]](LANE_BATCHES) for _ in range(LANES)]
        self._senders = [send for send, _ in ends]
        self._receivers = [receive for _, receive in ends]
        self._waiting = 0
        self._idle = trio.lowlevel.ParkingLot()
        self.delivered = 0
        self.offline = 0
        self.failed = 0

    async def run(self) -> None:
        """Serve every lane until cancelled."""
        async with trio.open_nursery() as nursery:
            for receive in self._receivers:
                nursery.start_soon(self._serve, receive)

    async def hand_over(self, deliveries: Sequence[Delivery]) -> None:
        """Give committed messages to their lanes, in order; waits while a lane is full."""
        by_lane: dict[int, list[Delivery]] = {}
        for delivery in deliveries:
            by_lane.setdefault(hash(delivery.message.channel) % LANES, []).append(delivery)
        for lane, batch in by_lane.items():
            self._waiting += 1
            await self._senders[lane].send(batch)

    async def flush(self) -> None:
        """Wait until the lanes are empty."""
        while self._waiting:
            await self._idle.park()

    async def _serve(self, receive: trio.MemoryReceiveChannel[list[Delivery]]) -> None:
        async for batch in receive:
            taken = 1
            try:
                while len(batch) < MOST_COLLECTED:
                    batch += receive.receive_nowait()
                    taken += 1
            except trio.WouldBlock:
                pass  # that was everything
            try:
                await self._deliver(batch)
            except Exception:  # foreign code (a session, a data source) must not end the lane
                self.failed += 1
                self._log.exception("delivery failed", messages=len(batch))
            self._waiting -= taken
            if not self._waiting:
                self._idle.unpark_all()

    async def _deliver(self, batch: Sequence[Delivery]) -> None:
        collected: dict[Session, list[Message]] = {}
        count = 0
        for delivery in batch:
            try:
                uids = frozenset(delivery.to_uids) or await self._channels.recipients(delivery.message.channel)
            except BackendError:
                self.failed += 1  # logged by the hook; the message is stored and comes by sync
                continue
            count += self._collect(delivery, uids, collected)
            self._report_offline(delivery.message, uids)
            if count >= MOST_COLLECTED:
                await self._push(collected)
                collected, count = {}, 0
        await self._push(collected)

    def _collect(self, delivery: Delivery, uids: frozenset[str], collected: dict[Session, list[Message]]) -> int:
        message, exclude = delivery.message, delivery.exclude
        online = uids if len(uids) <= 2 else self._presence.online_among(uids)
        count = 0
        for uid in online:
            for session in self._presence.sessions(uid):
                if session is exclude:
                    continue
                count += 1
                waiting = collected.get(session)
                if waiting is None:
                    collected[session] = [message]
                else:
                    waiting.append(message)
        return count

    async def _push(self, collected: dict[Session, list[Message]]) -> None:
        for count, (session, messages) in enumerate(collected.items(), 1):
            if session.push(messages):
                self.delivered += len(messages)
            if not count % SLICE:
                await trio.lowlevel.checkpoint()

    def _report_offline(self, message: Message, uids: frozenset[str]) -> None:
        topic = self._hooks.offline_messages
        if not topic.has_subscribers or message.flags & NO_PERSIST or message.channel.type == ChannelType.AGENT:
            return
        reachable = self._presence.is_reachable
        offline = tuple(uid for uid in uids if uid not in (message.sender, SYSTEM_UID) and not reachable(uid))
        if offline:
            self.offline += len(offline)
            topic.publish(OfflineMessage(message=message, to_uids=offline))
