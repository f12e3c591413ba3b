"""What the reader of a client gets: live messages, and what was missed, in order, without gap or duplicate.

Theory of operation. The connection pushes messages into a bounded queue; nothing else happens in its task. Everything
here runs in the reader's task, when it asks for the next message:

1. What a request brought is handed on, message by message; the position of its channel moves with it.
2. What is planned is asked for, a page at a time.
3. After each login, and when the queue overflowed, the feed is stale: the conversations are listed, and every channel
   that has more than was handed on is planned. This comes before queued messages, so that none of them can hide what
   was missed before it. Then the commands that wait are taken.
4. A queued message is new, known, or shows that something before it is missing; that is planned then.

State changes only between two awaits, never around one, so that a reader may be cancelled at any of them.
"""

import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import anyio
import attrs
from anyio.lowlevel import checkpoint

from triolet_client._api import Api
from triolet_client._errors import ApiUnavailable, ClientError
from triolet_client._model import (
    AGENT,
    PERSON,
    SYSTEM_UID,
    Channel,
    Conversation,
    Message,
    Settings,
    Statistics,
)
from triolet_client._positions import WITHOUT_CONVERSATION, Positions, Verdict

_BETWEEN_USERS = frozenset({PERSON, AGENT})
_SYSTEM = Channel(SYSTEM_UID, PERSON)
_COMMANDS_BETWEEN_SYNCS = 1000
"""Commands that arrive live wait on the server until they are synchronised; so many at most."""
_CLOCK_MARGIN_S = 5
_log = logging.getLogger("triolet_client")
R = TypeVar("R")


class Source(Protocol):
    """The connection that a message came from."""

    def acknowledge(self, message: Message) -> None:
        """Tell the server that it arrived; never blocks."""
        ...


@attrs.define(eq=False)
class _Fetch:
    """Messages of a channel that are to be asked for, from `start` on, below `end` unless that is 0."""

    channel: Channel
    start: int
    end: int = 0
    is_complete: bool = False


class Feed:
    """The messages of one client, for one reader."""

    def __init__(
        self,
        uid: str,
        api: Api | None,
        positions: Positions,
        settings: Settings,
        statistics: Statistics,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self._uid = uid
        self._api = api
        self.positions = positions
        self._settings = settings
        self.statistics = statistics
        self._clock_s = clock_s
        self._queue: deque[tuple[Message, Source]] = deque()
        self._ready: deque[Message] = deque()
        self._plan: deque[_Fetch] = deque()
        self._changed = anyio.Event()
        self._wanted = self._planned = 0
        self._has_commands = False
        self._acknowledged_to = 0
        self._live_commands = 0
        self._newest = 0
        self._asked_at = 0.0
        self.failure: ClientError | None = None
        self.server_offset_s = 0.0
        """Server's time minus ours."""

    # --- from the connection; none of these waits

    def push(self, message: Message, source: Source) -> None:
        """Take a message that arrived; beyond `Settings.inbox` it is let go, and caught up with."""
        self.positions.begin_unlisted(message)
        if len(self._queue) >= self._settings.inbox:
            self.statistics.dropped += 1
            self.mark_stale()
            return
        self._queue.append((message, source))
        self._wake()

    def mark_stale(self) -> None:
        """Note that messages may have been missed."""
        if self._api is not None:
            self._wanted += 1
            self._has_commands = True
            self._wake()

    def fail(self, failure: ClientError) -> None:
        """End the feed: what is queued is still handed on, then this is raised."""
        self.failure = failure
        self._wake()

    def _wake(self) -> None:
        self._changed.set()

    async def _wait(self) -> None:
        self._changed = anyio.Event()
        await self._changed.wait()

    # --- for the reader

    async def next(self) -> Message:
        """Return the next message; waits for one.

        Raises:
            ApiError: The API refuses to tell what was missed. The next call asks again.
            ClientError: The client has ended, and everything was handed on.
        """
        await checkpoint()
        while True:
            message = self._next_ready() or await self._advance()
            if message is not None:
                self.statistics.received += 1
                return message

    async def _advance(self) -> Message | None:
        """Do the next thing that leads to a message; returns one that came live."""
        if self._plan:
            await self._fetch(self._plan[0])
        elif self._wanted != self._planned:
            await self._make_plan()
        elif self._has_commands:
            await self._fetch_commands()
        elif self._queue:
            return self._next_queued()
        elif self.failure is not None:
            raise self.failure
        else:
            await self._wait()
        return None

    def _next_ready(self) -> Message | None:
        while self._ready:
            message = self._ready.popleft()
            verdict = self.positions.judge(message)
            if verdict is Verdict.KNOWN or self.positions.is_own(message, self._uid):
                continue  # it came live meanwhile, or this device sent it
            self.positions.handed_on(message)
            self.statistics.caught_up += 1
            return message
        return None

    def _next_queued(self) -> Message | None:
        message, source = self._queue[0]
        verdict = self.positions.judge(message)
        if verdict is Verdict.GAP and self._api is not None:
            self.statistics.gaps += 1
            start = (self.positions.of(message.channel) or 0) + 1
            self._plan.append(_Fetch(message.channel, start, message.seq))
            return None
        self._queue.popleft()
        source.acknowledge(message)
        if verdict is Verdict.KNOWN:
            self.statistics.duplicates += 1
            return None
        self.positions.handed_on(message)
        if message.is_command:
            self._live_commands += 1
            self._has_commands = self._has_commands or (
                self._api is not None and self._live_commands >= _COMMANDS_BETWEEN_SYNCS
            )
        return message

    # --- catching up

    async def begin(self, *, is_resumed: bool) -> None:
        """Find out where to begin, before the first login: unless positions were saved, what is there is old."""
        if self._api is None or is_resumed:
            return
        self._asked_at = self._clock_s()
        conversations = await self._api.conversations()
        for each in conversations:
            self.positions.settle(each.channel, each.last_seq)
        self._newest = max((each.timestamp for each in conversations), default=0)

    async def _make_plan(self) -> None:
        wanted, asked_at = self._wanted, self._clock_s()
        since = self._since()
        known = self.positions.known()
        conversations = await self._ask(lambda api: api.conversations(known))
        plan = []
        for each in reversed(conversations):
            position = known.get(each.channel)
            if position is None:
                start = await self._first_new(each, since)
            elif each.last_seq > position:
                start = position + 1
            else:
                continue
            plan.append(_Fetch(each.channel, start))
        listed = {each.channel for each in conversations}
        plan += [
            _Fetch(channel, seq + 1)
            for channel, seq in known.items()
            if channel.type in WITHOUT_CONVERSATION and channel not in listed
        ]
        system = known.get(_SYSTEM)
        start = await self._first_since(_SYSTEM, since) if system is None else system + 1
        if start:
            plan.append(_Fetch(_SYSTEM, start))
        self._plan.extend(plan)
        self._planned = wanted
        self._asked_at = asked_at
        self._newest = max((self._newest, *(each.timestamp for each in conversations)))

    async def _first_new(self, conversation: Conversation, since: int) -> int:
        """Return where a channel begins that was not in the list before.

        A channel with another user is new from its first message on. A group may be older than the user's membership:
        what is unread is new, and what is no older than `since`.
        """
        first = conversation.deleted_to + 1
        if since and conversation.channel.type not in _BETWEEN_USERS:
            recent = await self._first_since(conversation.channel, since)
            return max(first, min(recent, conversation.read_to + 1))
        return first

    def _since(self) -> int:
        """Return the server's second after which a channel that was not known has only new messages.

        By our clock and what the server said about it, less a margin; never before the newest message that was listed.
        """
        if not self._asked_at:
            return 0
        return max(self._newest, int(self._asked_at + self.server_offset_s) - _CLOCK_MARGIN_S)

    async def _first_since(self, channel: Channel, since: int) -> int:
        """Return the first number of a channel whose message is no older than `since`, 0 if the channel is empty.

        Backwards, page by page.
        """
        if not since:
            return 1
        above, start = 0, 0
        while True:
            at = start
            page = await self._ask(lambda api: api.older(channel, at, self._settings.page))  # noqa: B023  # awaited here
            if not page.messages:
                return above
            old = [message.seq for message in page.messages if message.timestamp < since]
            if old:
                return old[-1] + 1
            above = page.messages[0].seq
            start = above - 1
            if not start:
                return 1

    async def _fetch(self, fetch: _Fetch) -> None:
        """Ask for the next page of what is planned first; when it is complete, take it as handed on."""
        if fetch.is_complete:
            self._plan.popleft()
            if fetch.start > 1:
                self.positions.settle(fetch.channel, fetch.start - 1)
            return
        limit = self._settings.page
        page = await self._ask(lambda api: api.newer(fetch.channel, fetch.start, fetch.end, limit))
        self._ready.extend(page.messages)
        if page.messages:
            fetch.start = max(fetch.start, page.messages[-1].seq + 1)
        if not (page.more and page.messages):
            fetch.is_complete = True
            fetch.start = max(fetch.start, fetch.end)

    async def _fetch_commands(self) -> None:
        """Acknowledge the commands that were taken, then ask for more."""
        place = self._acknowledged_to
        if place:
            await self._ask(lambda api: api.acknowledge_commands(place))
            self._acknowledged_to = 0
        waiting = await self._ask(lambda api: api.commands(self._settings.page))
        self._live_commands = 0
        self._has_commands = bool(waiting)
        if waiting:
            self._acknowledged_to = waiting[-1].seq
            self._ready.extend(waiting)

    async def _ask(self, ask: Callable[[Api], Awaitable[R]]) -> R:
        """Ask the API until it answers; a refusal, or the end of the client, comes out."""
        assert self._api is not None  # noqa: S101  # nothing is planned without it
        attempt = 0
        while True:
            try:
                return await ask(self._api)
            except ApiUnavailable as exc:
                if self.failure is not None:
                    raise self.failure from exc
                delay_s = self._settings.backoff.delay_s(attempt, random.random())
                _log.warning("catching up waits %.1f s: %s", delay_s, exc)
            attempt += 1
            with anyio.move_on_after(delay_s):
                while self.failure is None:
                    await self._wait()
