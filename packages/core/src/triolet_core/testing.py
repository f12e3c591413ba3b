"""Tools for the tests of plugins and of triolet itself."""

import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import attrs
import trio

from triolet_core._broker import Broker, open_broker
from triolet_core.config import ServerConfig
from triolet_core.model import Device, Draft, Event, Message
from triolet_core.session import ConnectionStatistics

_CONNECTION_IDS = count(1)


@attrs.define(eq=False)
class MemorySession:
    """A session that keeps what it is given."""

    device: Device
    connection_id: int = attrs.Factory(lambda: next(_CONNECTION_IDS))
    received: list[Message] = attrs.Factory(list)
    events: list[Event] = attrs.Factory(list)
    pushes: int = 0
    kicks: list[tuple[int, str, bool]] = attrs.Factory(list)
    """(reason, text, whether a DISCONNECT was to be sent) of each kick."""
    is_full: bool = False
    started_at: float = attrs.Factory(time.time)

    def push(self, messages: Sequence[Message]) -> bool:
        """Keep the messages."""
        if self.is_full:
            return False
        self.pushes += 1
        self.received.extend(messages)
        return True

    @staticmethod
    def push_many(sessions: Sequence["MemorySession"], messages: Sequence[Message]) -> int:
        """Push to each."""
        return sum(session.push(messages) for session in sessions)

    def push_event(self, event: Event) -> bool:
        """Keep the event."""
        self.events.append(event)
        return not self.is_full

    def statistics(self) -> ConnectionStatistics:
        """Count what was kept."""
        size = sum(len(message.payload) for message in self.received)
        packets = len(self.received) + len(self.events)
        return ConnectionStatistics(
            connection_id=self.connection_id,
            device=self.device,
            host="memory",
            port=0,
            protocol_version=0,
            started_at=self.started_at,
            last_activity=self.started_at,
            in_messages=0,
            in_message_bytes=0,
            in_packets=0,
            in_packet_bytes=0,
            out_messages=len(self.received),
            out_message_bytes=size,
            out_packets=packets,
            out_packet_bytes=size + sum(len(event.data) for event in self.events),
            pending_bytes=0,
        )

    def kick(self, reason: int, text: str, *, notify: bool, grace_s: float) -> None:
        """Note the kick."""
        self.kicks.append((int(reason), text, notify))


@attrs.define(eq=False)
class FakeClock:
    """A time of day that stands still until it is moved: `clock_s` of `open_test_broker`."""

    now: float = 1_700_000_000.0
    """Seconds since 1970."""

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def move(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


def draft(channel_id: str, payload: bytes = b"hello", *, channel_type: int = 1, client_msg_no: str = "") -> Draft:
    """Return a draft for a channel."""
    return Draft(channel_id=channel_id, channel_type=channel_type, payload=payload, client_msg_no=client_msg_no)


@asynccontextmanager
async def open_test_broker(
    directory: Path, config: ServerConfig | None = None, *, clock_s: Callable[[], float] = time.time
) -> AsyncIterator[Broker]:
    """Open a broker without plugins on a store in `directory`; `clock_s` tells it the time of day."""
    config = config or ServerConfig()
    node = attrs.evolve(config.node, data_dir=str(directory))
    async with open_broker(attrs.evolve(config, node=node), clock_s=clock_s) as broker:
        yield broker


class SlowStepGuard(trio.abc.Instrument):
    """Finds tasks that hold the loop for longer than `limit_s`; `slow` lists (task name, seconds).

    With `time.thread_time` as the clock only what the loop itself computes counts, not what else the machine does.
    """

    def __init__(self, limit_s: float = 0.05, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self.limit_s = limit_s
        self._clock = clock
        self.slow: list[tuple[str, float]] = []
        self._since = math.inf  # until a step begins under it

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Note when the step began."""
        self._since = self._clock()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Note a step that took too long."""
        taken = self._clock() - self._since
        if taken > self.limit_s:
            self.slow.append((task.name, taken))
