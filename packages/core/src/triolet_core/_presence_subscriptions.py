"""Who watches whose presence, and the changes on their way to them.

Theory of operation. A watcher is a session, or a uid that a backend has subscribed: then all its sessions. It has
targets, each with an end, and the targets whose newest state it has not been told yet: new ones, and those that
changed. One task sends each watcher what it has not been told, at most so many users at a time and not more often than
once an interval; what changes twice before it is sent is sent once, as it is then. So nothing queues up: what waits
for a watcher are names of its own targets, and a watcher that does not read is the outbox's affair.

What a session watches ends with it. What a backend subscribed a uid to lasts until its end or the server's, and a
device that logs in is told all of it.
"""

import heapq
import json
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import count

import attrs
import trio

from triolet_core._channels import Channels
from triolet_core._device_status import Statuses, UserStatus, status_json
from triolet_core._presence import Presence
from triolet_core._watch_rules import forbidden
from triolet_core.config import PresenceConfig
from triolet_core.errors import BackendError
from triolet_core.hooks import Hooks
from triolet_core.model import MAX_ID_BYTES, Event, ReasonCode
from triolet_core.session import Session

EVENT_TYPE = "presence"
MAX_EVENT_BYTES = 65_536
"""An EVENT that has grown beyond takes no more users; the rest waits for the next interval."""
EXPIRY_STEP_S = 60
"""Ends are looked at so often. A subscription that is over sends nothing, but its place is free up to so much later."""
_FLUSHES_AT_ONCE = 100


@attrs.frozen(kw_only=True)
class WatchAnswer:
    """What became of a subscription. It is made whole or not at all."""

    reason: ReasonCode
    refused: tuple[str, ...] = ()
    """The users who were the reason, if it was about some of them."""


@attrs.define(eq=False)
class _Watcher:
    owner: Session | str
    targets: dict[str, float] = attrs.Factory(dict)
    """When each ends, on Trio's clock."""
    dirty: dict[str, None] = attrs.Factory(dict)
    """Targets whose newest state is still to be sent, the longest waiting first."""
    next_at: float = -math.inf
    """Not to be sent anything before."""
    is_due: bool = False
    """Whether it stands in the queue of those to be sent something."""


class PresenceSubscriptions:
    """The subscriptions of this node, in memory. Everything but `subscribe` and `run` returns at once."""

    def __init__(
        self,
        presence: Presence,
        channels: Channels,
        hooks: Hooks,
        config: PresenceConfig,
        clock_s: Callable[[], float],
    ) -> None:
        self._presence = presence
        self._channels = channels
        self._hooks = hooks
        self._config = config
        self._clock_s = clock_s
        self._statuses = Statuses(presence, clock_s, last_seen_count=config.last_seen_count)
        self._watchers: dict[Session | str, _Watcher] = {}
        self._by_target: dict[str, dict[_Watcher, None]] = {}
        self._encoded: dict[str, str] = {}
        """JSON of watched users whose state has not changed since it was made."""
        self._count = 0
        self._numbers = count(1)
        self._due: list[tuple[float, int, _Watcher]] = []
        self._ends: dict[int, dict[tuple[_Watcher, str], None]] = {}
        self._end_times: list[int] = []
        self._wake = trio.Event()
        presence.observe(self._on_change)

    @property
    def total(self) -> int:
        """Subscriptions there are."""
        return self._count

    @property
    def watcher_count(self) -> int:
        """Sessions and users that watch somebody."""
        return len(self._watchers)

    # --- reading

    def status(self, uid: str) -> UserStatus:
        """Return what a watcher would see of a user."""
        return self._statuses.of(uid)

    def targets(self, owner: Session | str) -> dict[str, float]:
        """Return whom a session, or a uid that a backend subscribed, watches, and for how many seconds yet."""
        watcher = self._watchers.get(owner)
        now = trio.current_time()
        found = {} if watcher is None else watcher.targets
        return {uid: end - now for uid, end in found.items() if end > now}

    # --- changing

    async def subscribe(self, session: Session, uids: Sequence[str], ttl_s: float = 0) -> WatchAnswer:
        """Let a session watch users, or go on watching them for longer; their states are then sent to it.

        Args:
            session: Who watches.
            uids: Whom, at most `presence.usersPerCall`.
            ttl_s: For how long; 0, and more than `presence.maxExpire`, is that.

        Returns:
            NOT_ALLOW_SEND if it may not watch one of them, SYSTEM_ERROR if nobody could say; else as `subscribe_user`.
        """
        wrong = self._check(uids)
        if wrong is not None:
            return WatchAnswer(reason=wrong)
        try:
            watch = self._config.watch
            refused = await forbidden(self._hooks, self._channels, watch, session.device.uid, uids)
        except BackendError:
            return WatchAnswer(reason=ReasonCode.SYSTEM_ERROR)
        if refused:
            return WatchAnswer(reason=ReasonCode.NOT_ALLOW_SEND, refused=refused)
        if session not in self._presence.sessions(session.device.uid):
            return WatchAnswer(reason=ReasonCode.SENDER_OFFLINE)  # it went while somebody thought about it
        return self._add(session, uids, ttl_s)

    def subscribe_user(self, uid: str, uids: Sequence[str], ttl_s: float = 0) -> WatchAnswer:
        """Let all devices of `uid` watch users. A backend does this, so nobody is asked.

        Returns:
            SUCCESS; CHANNEL_ID_ERROR for uids that there cannot be, or none; RATE_LIMIT if there are too many at once
            or in all, or if one of them has as many watchers as it may have: `refused` names those.
        """
        wrong = self._check(uids) if _is_uid(uid) else ReasonCode.CHANNEL_ID_ERROR
        return self._add(uid, uids, ttl_s) if wrong is None else WatchAnswer(reason=wrong)

    def _check(self, uids: Sequence[str]) -> ReasonCode | None:
        if len(uids) > self._config.users_per_call:
            return ReasonCode.RATE_LIMIT
        return None if uids and all(map(_is_uid, uids)) else ReasonCode.CHANNEL_ID_ERROR

    def _add(self, owner: Session | str, uids: Sequence[str], ttl_s: float) -> WatchAnswer:
        config = self._config
        watcher = self._watchers.get(owner) or _Watcher(owner)
        wanted = tuple(dict.fromkeys(uids))
        new = [uid for uid in wanted if uid not in watcher.targets]
        is_too_much = len(watcher.targets) + len(new) > config.subscriptions
        if is_too_much or self._count + len(new) > config.total_subscriptions:
            return WatchAnswer(reason=ReasonCode.RATE_LIMIT)
        full = tuple(uid for uid in new if len(self._by_target.get(uid, ())) >= config.watchers)
        if full:
            return WatchAnswer(reason=ReasonCode.RATE_LIMIT, refused=full)
        self._watchers[owner] = watcher
        end = trio.current_time() + min(ttl_s or config.max_expire, config.max_expire)
        for uid in wanted:
            self._put(watcher, uid, end)
            self._mark(watcher, uid)
        return WatchAnswer(reason=ReasonCode.SUCCESS)

    def _put(self, watcher: _Watcher, uid: str, end: float) -> None:
        before = watcher.targets.get(uid)
        if before is None:
            self._count += 1
            self._by_target.setdefault(uid, {})[watcher] = None
        else:
            self._ends[_step(before)].pop((watcher, uid), None)
        watcher.targets[uid] = end
        step = _step(end)
        if step not in self._ends:
            self._ends[step] = {}
            heapq.heappush(self._end_times, step)
            self._wake.set()
        self._ends[step][watcher, uid] = None

    def unsubscribe(self, owner: Session | str, uids: Iterable[str] | None = None) -> None:
        """Stop watching users, None: all; those that are not watched are passed over."""
        watcher = self._watchers.get(owner)
        if watcher is None:
            return
        for uid in tuple(watcher.targets if uids is None else uids):
            self._remove(watcher, uid)

    def repeat(self, owner: Session | str) -> None:
        """Send the states of all who are watched once more."""
        watcher = self._watchers.get(owner)
        if watcher is not None:
            for uid in watcher.targets:
                self._mark(watcher, uid)

    def _remove(self, watcher: _Watcher, uid: str) -> None:
        end = watcher.targets.pop(uid, None)
        if end is None:
            return
        self._count -= 1
        watcher.dirty.pop(uid, None)
        self._ends.get(_step(end), {}).pop((watcher, uid), None)
        watchers = self._by_target[uid]
        del watchers[watcher]
        if not watchers:
            del self._by_target[uid]
            self._encoded.pop(uid, None)
        if not watcher.targets:
            self._watchers.pop(watcher.owner, None)

    # --- what happens to sessions

    def _on_change(self, session: Session, *, online: bool, logout: bool) -> None:
        """A session came or went."""
        uid = session.device.uid
        self._statuses.note(session, online=online, logout=logout)
        self._encoded.pop(uid, None)
        for watcher in self._by_target.get(uid, ()):
            self._mark(watcher, uid)
        if online:
            self.repeat(uid)
        else:
            self.unsubscribe(session)

    def _mark(self, watcher: _Watcher, uid: str) -> None:
        watcher.dirty[uid] = None
        if not watcher.is_due:
            self._queue(watcher)

    def _queue(self, watcher: _Watcher) -> None:
        watcher.is_due = True
        heapq.heappush(self._due, (watcher.next_at, next(self._numbers), watcher))
        self._wake.set()

    # --- sending

    async def run(self) -> None:
        """Send changes and end subscriptions, until it is cancelled."""
        while True:
            self._wake = trio.Event()
            now = trio.current_time()
            self._end_due(now)
            await self._flush_due(now)
            with trio.move_on_at(self._next_time()):
                await self._wake.wait()

    def _next_time(self) -> float:
        first = self._due[0][0] if self._due else math.inf
        return min(first, self._end_times[0] * EXPIRY_STEP_S) if self._end_times else first

    def _end_due(self, now: float) -> None:
        while self._end_times and self._end_times[0] * EXPIRY_STEP_S <= now:
            for watcher, uid in tuple(self._ends.pop(heapq.heappop(self._end_times))):
                self._remove(watcher, uid)

    async def _flush_due(self, now: float) -> None:
        done = 0
        while self._due and self._due[0][0] <= now:
            _, _, watcher = heapq.heappop(self._due)
            watcher.is_due = False
            self._flush(watcher, now)
            done += 1
            if not done % _FLUSHES_AT_ONCE:
                await trio.lowlevel.checkpoint()

    def _flush(self, watcher: _Watcher, now: float) -> None:
        texts = self._take(watcher, now)
        if not texts:
            return
        watcher.next_at = now + self._config.interval
        data = f'{{"users":[{",".join(texts)}]}}'.encode()
        timestamp = int(self._clock_s() * 1000)
        event = Event(id=f"presence-{next(self._numbers)}", type=EVENT_TYPE, timestamp=timestamp, data=data)
        owner = watcher.owner
        for session in tuple(self._presence.sessions(owner)) if isinstance(owner, str) else (owner,):
            session.push_event(event)
        if watcher.dirty and not watcher.is_due:
            self._queue(watcher)

    def _take(self, watcher: _Watcher, now: float) -> list[str]:
        """Return the JSON of the next states, and take them for sent; a user who is not there is sent nothing."""
        if isinstance(watcher.owner, str) and not self._presence.sessions(watcher.owner):
            watcher.dirty.clear()
        texts: list[str] = []
        size = 0
        while watcher.dirty and len(texts) < self._config.changes_per_interval and size < MAX_EVENT_BYTES:
            uid = next(iter(watcher.dirty))
            del watcher.dirty[uid]
            if watcher.targets[uid] > now:
                texts.append(self._text(uid))
                size += len(texts[-1])
        return texts

    def _text(self, uid: str) -> str:
        text = self._encoded.get(uid)
        if text is None:
            text = json.dumps(status_json(self._statuses.of(uid)), separators=(",", ":"))
            self._encoded[uid] = text
        return text


def _is_uid(uid: str) -> bool:
    try:
        size = len(uid.encode())
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can say
        return False
    return 0 < size <= MAX_ID_BYTES and "\0" not in uid


def _step(end: float) -> int:
    return math.ceil(end / EXPIRY_STEP_S)
