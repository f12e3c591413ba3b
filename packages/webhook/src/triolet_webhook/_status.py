"""Pushes the recorded presence rows, in order: `user.onlinestatus` and, if asked for, `user.logout`."""

import time
from collections.abc import Callable, Sequence

import attrs

from triolet_core import DurableQueues
from triolet_webhook._config import WebhookConfig
from triolet_webhook._courier import Courier, Outcome, Result
from triolet_webhook._dead import DeadLetter, DeadLetters
from triolet_webhook._events import (
    LOGOUT,
    ONLINE_STATUS,
    PresenceRow,
    body_of,
    decode_rows,
    logout_strings,
    status_strings,
)
from triolet_webhook._log_consumer import CUT_TO, WARN_AT
from triolet_webhook._log_stream import first_of
from triolet_webhook._presence import ROWS, PresenceRecorder, remove_rows_up_to
from triolet_webhook._receiver import Parcel

_STRINGS = {ONLINE_STATUS: status_strings, LOGOUT: logout_strings}
CUT_AT_ONCE = 1_000
"""Entries moved to the dead letters in one transaction."""


@attrs.frozen
class StatusPacker:
    """Makes the parcel of an entry."""

    node: int
    three: bool

    def parcel(self, event: str, rows: Sequence[PresenceRow], event_id: str) -> Parcel | None:
        """Return what is pushed, None if no row concerns this event."""
        strings = _STRINGS[event](rows, three=self.three)
        return Parcel(event=event, event_id=event_id, body=body_of(strings)) if strings else None

    def event_id(self, created_ms: int, number: int) -> str:
        """Return what an entry is called however often it is pushed; a new store does not use it again."""
        return f"{self.node}-{created_ms}-{number}"


@attrs.define(eq=False)
class StatusConsumer:
    """The queue of presence rows."""

    queues: DurableQueues
    recorder: PresenceRecorder
    packer: StatusPacker
    events: tuple[str, ...]
    courier: Courier
    dead: DeadLetters
    config: WebhookConfig
    clock_s: Callable[[], float] = time.time
    _warned: bool = False

    async def run(self) -> None:
        """Push until the server stops and nothing is left, or a last attempt fails."""
        while True:
            await self._cut_backlog()
            entries = self.queues.read(ROWS, 0, 1)
            if entries:
                [(number, payload)] = entries
                if not await self._push(number, payload):
                    return
                continue
            if self.recorder.done.is_set():
                return
            await first_of(self.recorder.grown.wait, self.recorder.done.wait)

    async def _push(self, number: int, payload: bytes) -> bool:
        """Push an entry and forget it; False if it is left for the next start."""
        rows, created_ms = decode_rows(payload)
        event_id = self.packer.event_id(created_ms, number)
        edits = []
        for event in self.events:
            parcel = self.packer.parcel(event, rows, event_id)

            async def make(parcel: Parcel | None = parcel) -> Parcel | None:
                return parcel

            result = await self.courier.deliver(make, is_hopeless=self.is_over_bound)
            if result.outcome is Outcome.LEFT:
                return False
            if result.outcome is Outcome.GIVEN_UP:
                edits.append(self.dead.burial(self._letter(event, event_id, result, created_ms, rows)))
        await self.queues.change([*edits, remove_rows_up_to(number)])
        return True

    def _letter(
        self, event: str, event_id: str, result: Result, created_ms: int, rows: list[PresenceRow]
    ) -> DeadLetter:
        return DeadLetter(
            event=event,
            event_id=event_id,
            reason=result.reason,
            attempts=result.attempts,
            died_s=self.dead.now_s,
            up_to=created_ms,
            rows=tuple(rows),
        )

    # --- the backlog

    def age_s(self) -> float:
        """Return how long the oldest entry waits, 0 if none does."""
        entries = self.queues.read(ROWS, 0, 1)
        return max(0.0, self.clock_s() - decode_rows(entries[0][1])[1] / 1000) if entries else 0.0

    def load(self) -> float:
        """Return the backlog as a share of its bounds, the larger of bytes and age."""
        return max(self.queues.size(ROWS).bytes / self.config.backlog_bytes, self.age_s() / self.config.backlog_age)

    def is_over_bound(self) -> bool:
        """Whether more waits, or longer, than it may."""
        return self.load() > 1

    async def _cut_backlog(self) -> None:
        if not self.is_over_bound():
            return
        while self.load() > CUT_TO:
            edits = []
            last = 0
            for number, payload in self.queues.read(ROWS, 0, CUT_AT_ONCE):
                rows, created_ms = decode_rows(payload)
                result = Result(
                    Outcome.GIVEN_UP, 0, "more waits than webhook.backlogBytes and webhook.backlogAge allow"
                )
                event_id = self.packer.event_id(created_ms, number)
                edits += [self.dead.burial(self._letter(e, event_id, result, created_ms, rows)) for e in self.events]
                last = number
                if len(edits) >= max(1, self.queues.size(ROWS).count // 10):
                    break
            await self.queues.change([*edits, remove_rows_up_to(last)])

    async def watch(self) -> None:
        """Warn once whenever the backlog comes near its bounds. Not a checkpoint."""
        load = self.load()
        if load >= WARN_AT and not self._warned:
            self.courier.log.warning(
                "the backlog comes near its bound",
                bytes=self.queues.size(ROWS).bytes,
                age_s=int(self.age_s()),
                bounds="webhook.backlogBytes and webhook.backlogAge",
            )
        self._warned = load >= WARN_AT

    def figures(self) -> dict[str, int | float]:
        """Return counters and the backlog."""
        size = self.queues.size(ROWS)
        return {
            **attrs.asdict(self.courier.counters),
            "backlog_entries": size.count,
            "backlog_bytes": size.bytes,
            "backlog_age_seconds": self.age_s(),
            "compared_total": self.recorder.compared_total,
        }
