"""Pushes one event of the commit log, batch after batch, and keeps its backlog within bounds."""

from collections.abc import Hashable

import attrs
import trio

from triolet_webhook._config import WebhookConfig
from triolet_webhook._courier import Courier, Outcome
from triolet_webhook._dead import DeadLetter, DeadLetters
from triolet_webhook._log_stream import LogStream
from triolet_webhook._messages import Consignment, Packer

WARN_AT = 0.8
"""Share of a bound from which on it is warned of."""
CUT_TO = 0.9
"""Share of a bound that is left when it was passed, so that not every message makes a dead letter of its own."""


@attrs.define(eq=False)
class LogConsumer:
    """One event that comes from messages."""

    stream: LogStream
    packer: Packer
    courier: Courier
    dead: DeadLetters
    config: WebhookConfig
    _warned: bool = False

    async def run(self) -> None:
        """Push until the server stops and nothing is left, or a last attempt fails."""
        await self._cut_backlog()
        while batch := await self.stream.take():
            consignments = await self.packer.consignments(batch)
            if any(each.lane is None for each in consignments):
                await self.stream.note_sending(batch)
            if consignments and not await self._push_all(consignments):
                break
            await self.stream.finish(batch, pushed=bool(consignments))
            await self._cut_backlog()
        await self.stream.acknowledge()

    async def _push_all(self, consignments: list[Consignment]) -> bool:
        """Push the lanes side by side, at most `webhook.offlineConcurrency`; False if something was left."""
        lanes: dict[Hashable, list[Consignment]] = {}
        for each in consignments:
            lanes.setdefault(each.lane, []).append(each)
        limiter = trio.CapacityLimiter(self.config.offline_concurrency)
        left: list[Consignment] = []

        async def serve(lane: list[Consignment]) -> None:
            async with limiter:
                for each in lane:
                    if not await self._push(each):
                        left.append(each)
                        return

        async with trio.open_nursery() as nursery:
            for lane in lanes.values():
                nursery.start_soon(serve, lane)
        return not left

    async def _push(self, consignment: Consignment) -> bool:
        """Push one; it is buried if that fails too often. False if it is left for the next start."""
        result = await self.courier.deliver(consignment.make, is_hopeless=self.is_over_bound)
        if result.outcome is Outcome.GIVEN_UP:
            first, last = consignment.messages[0].message_id, consignment.messages[-1].message_id
            await self._bury(consignment.event_id, result.reason, result.attempts, first - 1, last)
        return result.outcome is not Outcome.LEFT

    async def _bury(self, event_id: str, reason: str, attempts: int, after: int, up_to: int) -> None:
        letter = DeadLetter(
            event=self.packer.event,
            event_id=event_id,
            reason=reason,
            attempts=attempts,
            died_s=self.dead.now_s,
            after=after,
            up_to=up_to,
        )
        await self.dead.bury(letter)

    # --- the backlog

    def load(self) -> float:
        """Return the backlog as a share of its bounds, the larger of bytes and age."""
        config = self.config
        return max(self.stream.backlog_bytes / config.backlog_bytes, self.stream.age_s() / config.backlog_age)

    def is_over_bound(self) -> bool:
        """Whether more waits, or longer, than it may."""
        return self.load() > 1

    async def _cut_backlog(self) -> None:
        """Move the oldest to the dead letters if the backlog is over its bounds: one letter for all of them."""
        if not self.is_over_bound():
            return
        stream, config = self.stream, self.config
        await stream.measure()
        end = await stream.surplus_end(int(config.backlog_bytes * CUT_TO), config.backlog_age * CUT_TO)
        if end:
            reason = "more waits than webhook.backlogBytes and webhook.backlogAge allow"
            await self._bury(f"{stream.position + 1}-{end}", reason, 0, stream.position, end)
            await stream.skip_to(end)

    async def watch(self) -> None:
        """Measure, and warn once whenever the backlog comes near its bounds."""
        await self.stream.measure()
        load = self.load()
        if load >= WARN_AT and not self._warned:
            self.courier.log.warning(
                "the backlog comes near its bound",
                messages=self.stream.backlog_count,
                bytes=self.stream.backlog_bytes,
                age_s=int(self.stream.age_s()),
                bounds="webhook.backlogBytes and webhook.backlogAge",
            )
        self._warned = load >= WARN_AT

    def figures(self) -> dict[str, int | float]:
        """Return counters and the backlog."""
        return {
            **attrs.asdict(self.courier.counters),
            "backlog_messages": self.stream.backlog_count,
            "backlog_bytes": self.stream.backlog_bytes,
            "backlog_age_seconds": self.stream.age_s(),
        }
