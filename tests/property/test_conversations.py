"""The invariant of docs/conversations.md over random histories, with restarts.

unread = messages by others behind max(read, deleted), and the list is complete, ordered and immediately consistent.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from triolet_core import (
    RED_DOT,
    SYNC_ONCE,
    Broker,
    ChannelInfo,
    ChannelKey,
    Device,
    Draft,
    ReasonCode,
    ServerConfig,
)
from triolet_core.config import CompatConfig, RetentionConfig, StoreConfig
from triolet_core.model import NO_PERSIST, ends_of, person_channel_id, slot_of
from triolet_core.testing import FakeClock, open_test_broker

UIDS = ("a", "b", "c")
GROUPS = (ChannelKey("g", 2),)
CHANNELS = (*(ChannelKey(person_channel_id(*pair), 1) for pair in ("ab", "ac")), *GROUPS)
KEPT = 6
"""Messages that a group keeps when retention has been by."""

# --- what may happen

uids, channels, groups = st.sampled_from(UIDS), st.sampled_from(CHANNELS), st.sampled_from(GROUPS)
few = st.integers(0, 5)


@attrs.frozen
class Send:
    uid: str
    channel: ChannelKey
    flags: int
    expire: int
    count: int


@attrs.frozen
class MarkRead:
    """Up to the newest, or to as many messages before it."""

    uid: str
    channel: ChannelKey
    back: int | None


@attrs.frozen
class SetUnread:
    uid: str
    channel: ChannelKey
    count: int


@attrs.frozen
class DeleteConversation:
    uid: str
    channel: ChannelKey


@attrs.frozen
class AddMember:
    uid: str
    channel: ChannelKey


@attrs.frozen
class RemoveMember:
    uid: str
    channel: ChannelKey


@attrs.frozen
class Recall:
    channel: ChannelKey
    nth: int


@attrs.frozen
class DeleteMessages:
    """So many, up to so many before the newest."""

    channel: ChannelKey
    count: int
    back: int


@attrs.frozen
class Wait:
    """Time passes; with `sweep` retention comes by."""

    seconds: int
    sweep: bool


@attrs.frozen
class Restart:
    pass


STEPS = st.one_of(
    st.builds(
        Send,
        uids,
        channels,
        st.sampled_from([0, RED_DOT, RED_DOT, NO_PERSIST, SYNC_ONCE]),
        st.sampled_from([0, 20]),
        st.integers(1, 3),
    ),
    *(st.builds(Send, uids, channels, st.just(RED_DOT), st.just(0), st.just(1)) for _ in range(3)),
    st.builds(MarkRead, uids, channels, st.none() | few),
    st.builds(SetUnread, uids, channels, few),
    st.builds(DeleteConversation, uids, channels),
    st.builds(AddMember, uids, groups),
    st.builds(RemoveMember, uids, groups),
    st.builds(Recall, channels, few),
    st.builds(DeleteMessages, channels, st.integers(1, 3), st.integers(0, 2)),
    st.builds(Wait, st.sampled_from([1, 20]), st.booleans()),
    st.builds(Restart),
)


# --- what is to be expected


@attrs.define
class Sent:
    """A message as the model knows it."""

    message_id: int
    seq: int
    sender: str
    is_red: bool
    due: float


@attrs.define
class View:
    """A conversation as the model knows it."""

    read: int = 0
    deleted: int = 0


@attrs.define
class Model:
    """Keeps the read position with every send, which the server avoids."""

    counts_all: bool
    now: Callable[[], float]
    newest: dict[ChannelKey, int] = attrs.Factory(dict)
    messages: dict[ChannelKey, list[Sent]] = attrs.Factory(lambda: {key: [] for key in CHANNELS})
    members: dict[ChannelKey, set[str]] = attrs.Factory(lambda: {GROUPS[0]: {"a", "b"}})
    views: dict[tuple[str, ChannelKey], View] = attrs.Factory(dict)

    def alive(self, key: ChannelKey) -> list[Sent]:
        return [each for each in self.messages[key] if each.due > self.now()]

    def is_member(self, uid: str, key: ChannelKey) -> bool:
        return uid in (ends_of(key) if key.type == 1 else self.members[key])

    def unread_seqs(self, uid: str, key: ChannelKey, behind: int) -> list[int]:
        return [
            each.seq
            for each in self.alive(key)
            if each.sender != uid and each.seq > behind and (self.counts_all or each.is_red)
        ]

    def view(self, uid: str, key: ChannelKey) -> View | None:
        """Return a view, made if the channel ever had a message."""
        if not self.newest.get(key):
            return None
        return self.views.setdefault((uid, key), View())

    def sent(self, uid: str, key: ChannelKey, message: Sent) -> None:
        self.messages[key].append(message)
        self.newest[key] = message.seq
        if key.type == 1 and message.seq == 1:
            for end in ends_of(key):
                self.views.setdefault((end, key), View())
        if (uid, key) in self.views:
            self.views[uid, key].read = message.seq

    def set_unread(self, uid: str, key: ChannelKey, count: int) -> None:
        view = self.view(uid, key)
        if view is not None:
            candidates = self.unread_seqs(uid, key, view.deleted)
            lowest = candidates[-count] if 0 < count <= len(candidates) else 1
            view.read = lowest - 1 if count else self.newest[key]

    def sweep(self) -> None:
        for key in CHANNELS:
            self.messages[key] = self.alive(key)
            if key in GROUPS:
                self.messages[key] = self.messages[key][-KEPT:]

    def list_of(self, uid: str) -> list[tuple[ChannelKey, int, int]]:
        """Return (channel, newest message id, unread), the newest first."""
        found = []
        for (owner, key), view in self.views.items():
            alive = self.alive(key)
            if owner == uid and alive and alive[-1].seq > view.deleted:
                found.append((key, alive[-1].message_id, len(self.unread_seqs(uid, key, max(view.read, view.deleted)))))
        return sorted(found, key=lambda row: row[1], reverse=True)


# --- the driver


class Driver:
    """Does each step to the server and to the model."""

    def __init__(self, model: Model, clock: FakeClock) -> None:
        self.model = model
        self.clock = clock
        self.broker: Broker

    async def do(self, step: object) -> None:
        broker, model = self.broker, self.model
        match step:
            case Send():
                await self._send(step)
            case MarkRead(uid, key, back):
                newest = model.newest.get(key, 0)
                seq = None if back is None else max(newest - back, 0)
                await broker.conversations.mark_read(uid, key, seq)
                view = model.view(uid, key)
                if view is not None:
                    view.read = max(view.read, newest if seq is None else seq)
            case SetUnread(uid, key, count):
                await broker.conversations.set_unread(uid, key, count)
                model.set_unread(uid, key, count)
            case DeleteConversation(uid, key):
                await broker.conversations.delete(uid, key)
                if (uid, key) in model.views:
                    model.views[uid, key] = View(model.newest.get(key, 0), model.newest.get(key, 0))
            case AddMember(uid, key):
                await broker.channels.add_members(key, [uid])
                model.members[key].add(uid)
                model.views.setdefault((uid, key), View(model.newest.get(key, 0)))
            case RemoveMember(uid, key):
                await broker.channels.remove_members(key, [uid])
                model.members[key].discard(uid)
                model.views.pop((uid, key), None)
            case Recall(key, nth):
                alive = model.alive(key)
                if alive:
                    await broker.revisions.recall(key, alive[nth % len(alive)].message_id, by="a")
            case DeleteMessages(key, count, back):
                last = model.newest.get(key, 0) - back
                first = last - count + 1
                await broker.revisions.delete_range(key, first, last)
                model.messages[key] = [each for each in model.messages[key] if not first <= each.seq <= last]
            case Wait(seconds, sweep):
                self.clock.move(seconds)
                if sweep:
                    for key in CHANNELS:
                        await broker.retention.sweep(slot_of(key.id))
                    model.sweep()

    async def _send(self, step: Send) -> None:
        key, uid = step.channel, step.uid
        is_command = bool(step.flags & SYNC_ONCE)
        if key.type == 1 and uid not in ends_of(key):
            return
        to = next(end for end in ends_of(key) if end != uid) if key.type == 1 else key.id
        drafts = [Draft(to, key.type, b"x", flags=step.flags, expire=step.expire) for _ in range(step.count)]
        receipts = await self.broker.messages.send_many(Device(uid=uid, is_server=is_command), drafts)
        is_member = self.model.is_member(uid, key)
        assert {receipt.reason == ReasonCode.SUCCESS for receipt in receipts} == {is_command or is_member}
        if not is_member or is_command or step.flags & NO_PERSIST:
            return
        for receipt in receipts:
            assert receipt.seq == self.model.newest.get(key, 0) + 1
            due = self.clock.now + step.expire if step.expire else float("inf")
            self.model.sent(uid, key, Sent(receipt.message_id, receipt.seq, uid, bool(step.flags & RED_DOT), due))

    def check(self) -> None:
        """Compare what every user sees."""
        conversations = self.broker.conversations
        for uid in UIDS:
            listed = [
                (each.channel, each.last.message_id, each.unread)
                for each in conversations.list(uid)
                if each.last is not None
            ]
            assert listed == self.model.list_of(uid)
            for key in CHANNELS:
                found, view = conversations.get(uid, key), self.model.views.get((uid, key))
                assert (found is None) == (view is None)
                if found is not None and view is not None:
                    assert found.deleted_to == view.deleted
                    assert found.unread == len(self.model.unread_seqs(uid, key, max(view.read, view.deleted)))
                    assert found.unread == len(self.model.unread_seqs(uid, key, max(found.read_to, found.deleted_to)))


async def play(steps: list[object], profile: str) -> None:
    clock = FakeClock()
    config = ServerConfig(
        store=StoreConfig(sync="off"),
        compat=CompatConfig(profile=profile),
        retention=RetentionConfig(types=tuple(f"{key.type}:0:{KEPT}" for key in GROUPS)),
    )
    model = Model(counts_all=profile == "wukongim-2", now=clock)
    driver = Driver(model, clock)
    lives = [[]]
    for step in steps:
        if isinstance(step, Restart):
            lives.append([])
        else:
            lives[-1].append(step)
    with tempfile.TemporaryDirectory() as directory:
        for number, life in enumerate(lives):
            async with open_test_broker(Path(directory), config, clock_s=clock) as driver.broker:
                if not number:
                    for key, members in model.members.items():
                        await driver.broker.channels.create(key, ChannelInfo(), sorted(members))
                        model.views |= {(uid, key): View() for uid in members}
                driver.check()
                for step in life:
                    await driver.do(step)
                    driver.check()


AB = CHANNELS[0]


@pytest.mark.slow
@pytest.mark.timeout(400)  # hypothesis takes that long to make a failure small
@pytest.mark.parametrize("profile", ["wukongim-2", "limaoim"])
@example([Send("b", AB, RED_DOT, 0, 2), Send("a", AB, RED_DOT, 0, 1), SetUnread("a", AB, 2), Restart()])
@example([Send("b", AB, RED_DOT, 0, 2), Send("a", AB, RED_DOT, 0, 1), DeleteMessages(AB, 1, 0), Restart()])
@example(
    [
        *(Send("b", AB, RED_DOT, 0, 2), Send("a", AB, RED_DOT, 0, 1)),
        *(SetUnread("a", AB, 2), DeleteMessages(AB, 1, 0), Restart()),
    ]
)
@example([Send("b", AB, RED_DOT, 20, 2), Send("a", AB, RED_DOT, 20, 1), Wait(20, sweep=True), SetUnread("a", AB, 2)])
@given(st.lists(STEPS, min_size=30, max_size=60))
@settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=70,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
async def test_unread_counts_and_the_list_hold_in_every_history(profile: str, steps: list[object]) -> None:
    await play(steps, profile)
