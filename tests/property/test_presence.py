"""Watching presence over random histories.

When things settle the last state that a watcher saw of each of its targets is the truth; what is kept stays within its
bounds, and is gone when everybody has left.
"""

import json
import tempfile
from pathlib import Path

import attrs
import trio
import trio.testing
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from triolet_core import Broker, ReasonCode, ServerConfig
from triolet_core.config import PresenceConfig, Seconds, StoreConfig
from triolet_core.model import Device
from triolet_core.testing import MemorySession, open_test_broker

UIDS = ("a", "b", "c", "d", "e")
CONFIG = PresenceConfig(
    watch="anybody",
    subscriptions=3,
    users_per_call=4,
    watchers=3,
    total_subscriptions=9,
    max_expire=Seconds(100),
    interval=Seconds(2),
    changes_per_interval=2,
    last_seen_count=3,
)
uids = st.sampled_from(UIDS)
targets = st.lists(uids, min_size=1, max_size=4)


@attrs.frozen
class LogIn:
    uid: str
    flag: int


@attrs.frozen
class LogOut:
    number: int


@attrs.frozen
class Watch:
    """By a session, or by order of a backend if there is no such session."""

    number: int
    uid: str
    targets: list[str]
    ttl_s: int


@attrs.frozen
class Leave:
    number: int
    uid: str
    targets: list[str]


@attrs.frozen
class Pass:
    seconds: float


numbers = st.integers(0, 7)
STEPS = st.lists(
    st.one_of(
        st.builds(LogIn, uids, st.integers(0, 1)),
        st.builds(LogOut, numbers),
        st.builds(Watch, numbers, uids, targets, st.sampled_from([0, 30, 90])),
        st.builds(Leave, numbers, uids, targets),
        st.builds(Pass, st.sampled_from([0.5, 1.0, 2.0, 61.0])),
    ),
    max_size=40,
)


class World:
    """A broker and what every session has been told last."""

    def __init__(self, broker: Broker, clock: trio.testing.MockClock) -> None:
        self.broker = broker
        self.clock = clock
        self.sessions: list[MemorySession] = []
        self.logins = 0

    def session(self, number: int) -> MemorySession | None:
        return self.sessions[number] if number < len(self.sessions) else None

    async def apply(self, step: LogIn | LogOut | Watch | Leave | Pass) -> None:
        subscriptions = self.broker.presence_subscriptions
        match step:
            case LogIn(uid, flag) if len(self.sessions) < 8:
                self.logins += 1  # no device comes twice: it would displace the session that it has
                session = MemorySession(Device(uid=uid, flag=flag, device_id=str(self.logins)))
                self.sessions.append(session)
                self.broker.presence.register(session)
            case LogOut(number):
                gone = self.session(number)
                if gone is not None:
                    self.broker.presence.unregister(gone)
                    self.sessions.remove(gone)
            case Watch(number, uid, wanted, ttl_s):
                owner = self.session(number)
                if owner is None:
                    subscriptions.subscribe_user(uid, wanted, ttl_s)
                else:
                    answer = await subscriptions.subscribe(owner, wanted, ttl_s)
                    assert answer.reason in (ReasonCode.SUCCESS, ReasonCode.RATE_LIMIT)
            case Leave(number, uid, wanted):
                subscriptions.unsubscribe(self.session(number) or uid, wanted)
            case Pass(seconds):
                self.clock.jump(seconds)
                await trio.testing.wait_all_tasks_blocked()

    def check_bounds(self) -> None:
        subscriptions = self.broker.presence_subscriptions
        owners = [*self.sessions, *UIDS]
        watched = [uid for owner in owners for uid in subscriptions.targets(owner)]
        assert len(watched) <= subscriptions.total <= CONFIG.total_subscriptions
        assert all(len(subscriptions.targets(owner)) <= CONFIG.subscriptions for owner in owners)
        assert all(watched.count(uid) <= CONFIG.watchers for uid in UIDS)
        assert sum(bool(subscriptions.status(uid).devices) for uid in UIDS) <= len(self.sessions) + 3

    def check_events(self) -> None:
        """No event has more users than it may, nor names one twice."""
        for session in self.sessions:
            for event in session.events:
                names = [user["uid"] for user in json.loads(event.data)["users"]]
                assert len(names) == len(set(names)) <= CONFIG.changes_per_interval

    def check_truth(self) -> None:
        subscriptions = self.broker.presence_subscriptions
        for session in self.sessions:
            seen = {user["uid"]: user["online"] for event in session.events for user in json.loads(event.data)["users"]}
            for uid in {*subscriptions.targets(session), *subscriptions.targets(session.device.uid)}:
                assert seen[uid] == int(bool(self.broker.presence.sessions(uid)))


async def live(steps: list[LogIn | LogOut | Watch | Leave | Pass], clock: trio.testing.MockClock) -> None:
    config = attrs.evolve(ServerConfig(), presence=CONFIG, store=StoreConfig(sync="off", map_size=1 << 24))
    with tempfile.TemporaryDirectory() as directory:
        async with open_test_broker(Path(directory), config) as broker:
            world = World(broker, clock)
            for step in steps:
                await world.apply(step)
                world.check_bounds()
            for _ in range(8):
                await world.apply(Pass(2.0))
            world.check_events()
            world.check_truth()
            for session in tuple(world.sessions):
                broker.presence.unregister(session)
            await world.apply(Pass(161.0))
            assert (broker.presence_subscriptions.total, broker.presence_subscriptions.watcher_count) == (0, 0)


SAME_DEVICE_LATER: list[LogIn | LogOut | Watch | Leave | Pass] = [
    LogIn("a", 0),
    LogIn("a", 0),
    LogOut(0),
    LogIn("a", 0),
    Watch(0, "a", ["b"], 0),
    Watch(1, "a", ["b"], 0),
]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
@example(steps=SAME_DEVICE_LATER)
def test_the_last_state_seen_is_the_truth_and_nothing_is_left(
    steps: list[LogIn | LogOut | Watch | Leave | Pass],
) -> None:
    clock = trio.testing.MockClock()
    trio.run(live, steps, clock, clock=clock)
