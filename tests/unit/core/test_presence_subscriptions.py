"""Watching presence: states at once, the newest of each user once an interval, bounds, ends. docs/presence.md."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from triolet_core import BackendError, ReasonCode, ServerConfig, WatchAnswer
from triolet_core._presence_subscriptions import PresenceSubscriptions
from triolet_core.config import PresenceConfig, Seconds
from triolet_core.hooks import WatchRequest
from triolet_core.model import ChannelKey, Device, DeviceLevel
from triolet_core.testing import FakeClock, MemorySession, open_test_broker

OK = WatchAnswer(reason=ReasonCode.SUCCESS)


def config(**presence: Any) -> ServerConfig:
    return attrs.evolve(ServerConfig(), presence=PresenceConfig(**{"watch": "anybody", **presence}))


def session(uid: str, *, flag: int = 0, level: int = 0, started_at: float = 1_700_000_000.0) -> MemorySession:
    device = Device(uid=uid, flag=flag, level=DeviceLevel(level), device_id=f"{uid}-{flag}-{started_at}")
    return MemorySession(device, started_at=started_at)


def told(watcher: MemorySession) -> list[list[tuple[str, int]]]:
    """Return what each event told: (uid, online) of its users; forgets it."""
    events, watcher.events[:] = list(watcher.events), []
    assert {event.type for event in events} <= {"presence"}
    return [[(user["uid"], user["online"]) for user in json.loads(event.data)["users"]] for event in events]


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def pass_time(clock: trio.testing.MockClock, seconds: float) -> None:
    clock.jump(seconds)
    await settle()


async def test_the_present_states_come_at_once_and_changes_after(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    async with open_test_broker(tmp_path, config()) as broker:
        ann, bob = session("ann"), session("bob")
        broker.presence.register(ann)
        broker.presence.register(bob)
        assert await broker.presence_subscriptions.subscribe(ann, ["bob", "eve"]) == OK
        await settle()
        assert told(ann) == [[("bob", 1), ("eve", 0)]]
        await pass_time(mock_clock, 1)
        broker.presence.unregister(bob)
        broker.presence.register(session("eve"))
        await settle()
        assert told(ann) == [[("bob", 0), ("eve", 1)]]


async def test_a_state_names_each_kind_of_device(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    """Flag, highest level, connections, the earliest beginning; of what is gone when, and whether it logged out."""
    now = FakeClock()
    async with open_test_broker(tmp_path, config(), clock_s=now) as broker:
        ann, phone = session("ann"), session("bob", level=1, started_at=now.now + 5)
        tabs = [session("bob", flag=1, started_at=now.now + second) for second in (9, 7)]
        lost = session("bob", flag=2)
        for each in (ann, phone, *tabs, lost):
            broker.presence.register(each)
        now.move(60)
        broker.presence.unregister(phone, logout=True)
        broker.presence.unregister(lost)
        await broker.presence_subscriptions.subscribe(ann, ["bob"])
        await settle()
        [event] = ann.events
        assert event.timestamp == 1_700_000_060_000
        off = {"level": 0, "online": 0, "connections": 0, "since": 0, "last_seen": 1_700_000_060}
        web = {"level": 0, "online": 1, "connections": 2, "since": 1_700_000_007, "last_seen": 0}
        devices = [{"flag": 0, **off, "logout": 1}, {"flag": 1, **web, "logout": 0}, {"flag": 2, **off, "logout": 0}]
        assert json.loads(event.data) == {"users": [{"uid": "bob", "online": 1, "devices": devices}]}


async def test_a_device_that_is_back_was_not_last_seen_earlier(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path, config()) as broker:
        first = session("bob")
        broker.presence.register(first)
        broker.presence.unregister(first)
        broker.presence.register(session("bob"))
        [device] = broker.presence_subscriptions.status("bob").devices
        assert (device.online, device.last_seen) == (True, 0)


async def test_only_the_newest_state_is_sent_within_an_interval(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    async with open_test_broker(tmp_path, config(interval=Seconds(2))) as broker:
        ann = session("ann")
        broker.presence.register(ann)
        await broker.presence_subscriptions.subscribe(ann, ["bob"])
        await settle()
        assert told(ann) == [[("bob", 0)]]
        for _ in range(50):
            bob = session("bob")
            broker.presence.register(bob)
            broker.presence.unregister(bob)
        broker.presence.register(session("bob"))
        await settle()
        assert told(ann) == []
        await pass_time(mock_clock, 1.9)
        assert told(ann) == []
        await pass_time(mock_clock, 0.1)
        assert told(ann) == [[("bob", 1)]]


async def test_no_more_users_are_told_of_than_an_interval_allows(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    """The rest follows an interval later, the longest waiting first."""
    async with open_test_broker(tmp_path, config(changes_per_interval=2)) as broker:
        ann = session("ann")
        broker.presence.register(ann)
        await broker.presence_subscriptions.subscribe(ann, list("abcde"))
        seen = []
        for _ in range(4):
            await settle()
            seen.append(told(ann))
            mock_clock.jump(1)
        assert seen == [[[("a", 0), ("b", 0)]], [[("c", 0), ("d", 0)]], [[("e", 0)]], []]


async def test_an_event_is_not_longer_than_a_frame_may_be(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    async with open_test_broker(tmp_path, config()) as broker:
        ann = session("ann")
        broker.presence.register(ann)
        uids = [f"{number}".rjust(512, "x") for number in range(200)]
        await broker.presence_subscriptions.subscribe(ann, uids)
        names: list[str] = []
        for _ in range(3):
            await pass_time(mock_clock, 1)
        assert all(len(event.data) < 70_000 for event in ann.events)
        names = [uid for event in told(ann) for uid, _ in event]
        assert names == uids


async def test_whom_a_session_watches_ends_with_it(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path, config()) as broker:
        ann = session("ann")
        broker.presence.register(ann)
        subscriptions = broker.presence_subscriptions
        await subscriptions.subscribe(ann, ["bob", "eve"])
        assert (subscriptions.total, subscriptions.watcher_count) == (2, 1)
        broker.presence.unregister(ann)
        assert (subscriptions.total, subscriptions.watcher_count) == (0, 0)
        broker.presence.register(session("bob"))
        await settle()
        assert told(ann) == []
        again = session("ann")
        broker.presence.register(again)
        await settle()
        assert told(again) == []


async def test_who_no_longer_watches_hears_nothing(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path, config()) as broker:
        ann = session("ann")
        broker.presence.register(ann)
        subscriptions = broker.presence_subscriptions
        await subscriptions.subscribe(ann, ["bob", "eve", "joe"])
        subscriptions.unsubscribe(ann, ["bob", "unknown"])
        await settle()
        assert told(ann) == [[("eve", 0), ("joe", 0)]]
        subscriptions.unsubscribe(ann)
        broker.presence.register(session("eve"))
        await settle()
        assert told(ann) == []
        assert (subscriptions.total, subscriptions.watcher_count) == (0, 0)


async def test_a_subscription_ends(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    """It says nothing after its time, and its place is free a minute later at most; asking again prolongs it."""
    async with open_test_broker(tmp_path, config(max_expire=Seconds(1000))) as broker:
        ann = session("ann")
        broker.presence.register(ann)
        subscriptions = broker.presence_subscriptions
        for uid, ttl_s in (("bob", 90), ("eve", 200), ("joe", 5000), ("kim", 0)):
            await subscriptions.subscribe(ann, [uid], ttl_s)
        assert subscriptions.targets(ann) == {"bob": 90, "eve": 200, "joe": 1000, "kim": 1000}
        await pass_time(mock_clock, 80)
        await subscriptions.subscribe(ann, ["eve"], 200)
        await pass_time(mock_clock, 5)
        told(ann)
        await pass_time(mock_clock, 5)
        broker.presence.register(session("bob"))
        broker.presence.register(session("eve"))
        await settle()
        assert told(ann) == [[("eve", 1)]]
        assert list(subscriptions.targets(ann)) == ["eve", "joe", "kim"]
        await pass_time(mock_clock, 60)
        assert subscriptions.total == 3
        await pass_time(mock_clock, 1000)
        assert (subscriptions.total, subscriptions.watcher_count, subscriptions.targets(ann)) == (0, 0, {})


async def test_what_a_backend_subscribes_is_told_to_all_devices_and_to_new_ones(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    """It outlives connections; nobody is asked, whatever the setting."""
    async with open_test_broker(tmp_path, config(watch="nobody")) as broker:
        subscriptions = broker.presence_subscriptions
        assert subscriptions.subscribe_user("ann", ["bob"]) == OK
        await settle()
        phone, laptop = session("ann"), session("ann", flag=2)
        broker.presence.register(phone)
        await settle()
        assert told(phone) == [[("bob", 0)]]
        await pass_time(mock_clock, 1)
        broker.presence.register(laptop)
        await settle()
        assert told(laptop) == [[("bob", 0)]]
        await pass_time(mock_clock, 1)
        told(phone)
        broker.presence.register(session("bob"))
        await settle()
        assert (told(phone), told(laptop)) == ([[("bob", 1)]], [[("bob", 1)]])
        for each in (phone, laptop):
            broker.presence.unregister(each)
        assert list(subscriptions.targets("ann")) == ["bob"]
        subscriptions.unsubscribe("ann")
        assert subscriptions.total == 0


# --- bounds


async def test_a_request_names_so_many_users_at_most(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path, config(users_per_call=2)) as broker:
        ann = session("ann")
        broker.presence.register(ann)
        subscribe = broker.presence_subscriptions.subscribe
        assert await subscribe(ann, ["a", "b", "c"]) == WatchAnswer(reason=ReasonCode.RATE_LIMIT)
        assert await subscribe(ann, ["a", "b"]) == OK


@pytest.mark.parametrize("uids", [[], [""], ["a\0b"], ["x" * 513], ["\ud800" * 200]])
async def test_what_is_no_uid_cannot_be_watched(tmp_path: Path, uids: Sequence[str]) -> None:
    async with open_test_broker(tmp_path, config()) as broker:
        ann = session("ann")
        broker.presence.register(ann)
        wrong = WatchAnswer(reason=ReasonCode.CHANNEL_ID_ERROR)
        assert await broker.presence_subscriptions.subscribe(ann, uids) == wrong
        assert broker.presence_subscriptions.subscribe_user("ann", uids) == wrong
        assert broker.presence_subscriptions.subscribe_user("", ["bob"]) == wrong


async def test_a_watcher_has_so_many_subscriptions(tmp_path: Path) -> None:
    """A repeat takes no new place, and what is too much changes nothing."""
    async with open_test_broker(tmp_path, config(subscriptions=3)) as broker:
        ann, eve = session("ann"), session("eve")
        broker.presence.register(ann)
        broker.presence.register(eve)
        subscriptions = broker.presence_subscriptions
        assert await subscriptions.subscribe(ann, ["a", "b"]) == OK
        assert await subscriptions.subscribe(ann, ["b", "c", "d"]) == WatchAnswer(reason=ReasonCode.RATE_LIMIT)
        assert list(subscriptions.targets(ann)) == ["a", "b"]
        assert await subscriptions.subscribe(ann, ["b", "c", "c"]) == OK
        assert await subscriptions.subscribe(eve, ["a"]) == OK


async def test_a_user_has_so_many_watchers(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path, config(watchers=1)) as broker:
        ann, eve = session("ann"), session("eve")
        broker.presence.register(ann)
        broker.presence.register(eve)
        subscriptions = broker.presence_subscriptions
        assert await subscriptions.subscribe(ann, ["bob"]) == OK
        full = WatchAnswer(reason=ReasonCode.RATE_LIMIT, refused=("bob",))
        assert await subscriptions.subscribe(eve, ["joe", "bob"]) == full
        assert subscriptions.targets(eve) == {}
        assert await subscriptions.subscribe(ann, ["bob"]) == OK
        broker.presence.unregister(ann)
        assert await subscriptions.subscribe(eve, ["bob"]) == OK


async def test_the_server_holds_so_many_subscriptions(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path, config(total_subscriptions=3)) as broker:
        subscriptions = broker.presence_subscriptions
        assert subscriptions.subscribe_user("ann", ["a", "b"]) == OK
        assert subscriptions.subscribe_user("eve", ["a", "b"]) == WatchAnswer(reason=ReasonCode.RATE_LIMIT)
        assert subscriptions.subscribe_user("eve", ["b"]) == OK


async def test_of_so_many_users_the_last_time_is_kept(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path, config(last_seen_count=2)) as broker:
        for uid in ("a", "b", "c"):
            each = session(uid)
            broker.presence.register(each)
            broker.presence.unregister(each)
        known = [bool(broker.presence_subscriptions.status(uid).devices) for uid in ("a", "b", "c")]
        assert known == [False, True, True]


# --- who may


async def asked(broker_config: ServerConfig, path: Path) -> list[ReasonCode]:
    """Return how ann's wishes to watch herself, a user who lists her, another, and one who denies her are answered."""
    async with open_test_broker(path, broker_config) as broker:
        await broker.channels.add_allowed(ChannelKey("friend", 1), ["ann"])
        await broker.channels.add_allowed(ChannelKey("foe", 1), ["ann"])
        await broker.channels.add_denied(ChannelKey("foe", 1), ["ann"])
        ann = session("ann")
        broker.presence.register(ann)
        uids = ("ann", "friend", "other", "foe")
        return [(await broker.presence_subscriptions.subscribe(ann, [uid])).reason for uid in uids]


@pytest.mark.parametrize(("rule", "allowed"), [("nobody", 1), ("allowlist", 2), ("anybody", 3)])
async def test_whom_a_client_may_watch(tmp_path: Path, rule: str, allowed: int) -> None:
    yes, no = ReasonCode.SUCCESS, ReasonCode.NOT_ALLOW_SEND
    assert await asked(config(watch=rule), tmp_path) == [yes] * allowed + [no] * (4 - allowed)


async def test_nobody_may_be_watched_unless_somebody_says_so(tmp_path: Path) -> None:
    yes, no = ReasonCode.SUCCESS, ReasonCode.NOT_ALLOW_SEND
    assert await asked(ServerConfig(), tmp_path) == [yes, no, no, no]


async def test_a_refusal_names_who_may_not_be_watched_and_changes_nothing(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path, config(watch="nobody")) as broker:
        ann = session("ann")
        broker.presence.register(ann)
        refused = WatchAnswer(reason=ReasonCode.NOT_ALLOW_SEND, refused=("bob", "eve"))
        assert await broker.presence_subscriptions.subscribe(ann, ["bob", "ann", "eve"]) == refused
        assert broker.presence_subscriptions.targets(ann) == {}


async def test_a_plugin_decides_before_the_setting(tmp_path: Path) -> None:
    """None leaves it to the setting; a failure refuses."""
    questions: list[WatchRequest] = []
    answers: list[Any] = [["bob"], None, BackendError("contacts", "down")]

    async def answer(question: WatchRequest) -> Sequence[str] | None:
        questions.append(question)
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found  # type: ignore[no-any-return]

    async with open_test_broker(tmp_path, config(watch="nobody")) as broker:
        ann = session("ann")
        broker.presence.register(ann)
        subscribe = broker.presence_subscriptions.subscribe
        with broker.hooks.authorize_watch.responder("contacts", answer, on_failure=None):
            assert await subscribe(ann, ["bob", "ann"]) == OK
            assert (await subscribe(ann, ["bob"])).reason == ReasonCode.NOT_ALLOW_SEND
            assert (await subscribe(ann, ["bob"])).reason == ReasonCode.SYSTEM_ERROR
        assert questions == [WatchRequest(uid="ann", targets=("bob",))] * 3


async def test_a_session_that_goes_while_its_wish_is_judged_leaves_nothing(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    held = trio.Event()
    answers: list[WatchAnswer] = []

    async def answer(question: WatchRequest) -> Sequence[str]:
        await held.wait()
        return question.targets

    async def wish(subscriptions: PresenceSubscriptions, ann: MemorySession) -> None:
        answers.append(await subscriptions.subscribe(ann, ["bob"]))

    async with open_test_broker(tmp_path, config()) as broker:
        ann = session("ann")
        broker.presence.register(ann)
        with broker.hooks.authorize_watch.responder("contacts", answer, on_failure=None):
            nursery.start_soon(wish, broker.presence_subscriptions, ann)
            await settle()
            broker.presence.unregister(ann)
            held.set()
            await settle()
        assert answers == [WatchAnswer(reason=ReasonCode.SENDER_OFFLINE)]
        assert (broker.presence_subscriptions.total, broker.presence_subscriptions.watcher_count) == (0, 0)
