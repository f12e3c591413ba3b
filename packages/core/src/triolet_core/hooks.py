"""What plugins are asked (answered under a deadline) and told (never waits)."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

import attrs
import structlog
import trio

from triolet_core.errors import BackendError
from triolet_core.model import ChannelInfo, ChannelKey, Device, Draft, Message, UserInfo

Q = TypeVar("Q")
A = TypeVar("A")
E = TypeVar("E")


@attrs.frozen(kw_only=True)
class OfflineMessage:
    """A stored message and the recipients that no device of theirs could be reached for."""

    message: Message
    to_uids: tuple[str, ...]


@attrs.frozen(kw_only=True)
class PresenceChange:
    """One connection came or went (semantics.md, section 4.3); the counts are those after the change."""

    device: Device
    connection_id: int
    online: bool
    same_flag: int
    total: int
    logout: bool = False
    """The client itself said that it leaves (a DISCONNECT frame)."""


@attrs.frozen(kw_only=True)
class SendRequest:
    """A draft that core is about to judge."""

    sender: Device
    channel: ChannelKey
    draft: Draft


@attrs.frozen(kw_only=True)
class Verdict:
    """The answer to a `SendRequest`: a reason code, and a payload that takes the place of the sender's."""

    reason: int
    payload: bytes | None = None


@attrs.frozen(kw_only=True)
class WatchRequest:
    """A user wants to watch the presence of others. The answer to it names those whom it may watch."""

    uid: str
    targets: tuple[str, ...]
    """Without the user itself."""


@attrs.define(eq=False)
class _Responder(Generic[Q, A]):
    name: str
    answer: Callable[[Q], Awaitable[A | None]]
    order: int
    limiter: trio.CapacityLimiter
    deadline_s: float
    on_failure: Callable[[Q], A | None] | None
    asked: int = 0
    failed: int = 0


class Ask(Generic[Q, A]):
    """A question that plugins may answer; the first answer that is not None decides."""

    def __init__(self, name: str, *, deadline_s: float = 5.0, in_flight: int = 64) -> None:
        self.name = name
        self.deadline_s = deadline_s
        self._in_flight = in_flight
        self._responders: list[_Responder[Q, A]] = []

    @property
    def is_answered(self) -> bool:
        """Whether anybody has registered; if not, asking is a waste of a checkpoint."""
        return bool(self._responders)

    @contextmanager
    def responder(
        self,
        name: str,
        answer: Callable[[Q], Awaitable[A | None]],
        *,
        order: int = 0,
        on_failure: Callable[[Q], A | None] | None,
        deadline_s: float | None = None,
        in_flight: int | None = None,
    ) -> Iterator[None]:
        """Register a responder for the length of the block.

        Args:
            name: Shown in logs and metrics.
            answer: Asked with the question; None passes it on. What it raises is a failure and is logged, except
                `BackendError`: that is a failure of which it has told the log itself.
            order: Lower is asked earlier; equal ones by name.
            on_failure: What a late or failed answer counts as; it may raise `BackendError` to the asker, which is
                what None does.
            deadline_s: Longest wait for the answer, the wait for its turn included; None is the question's.
            in_flight: Most questions it works on at once; None is the question's.
        """
        limiter = trio.CapacityLimiter(in_flight or self._in_flight)
        entry = _Responder(name, answer, order, limiter, deadline_s or self.deadline_s, on_failure)
        self._responders.append(entry)
        self._responders.sort(key=lambda each: (each.order, each.name))
        try:
            yield
        finally:
            self._responders.remove(entry)

    async def ask(self, question: Q) -> A | None:
        """Return the first answer, or None if nobody has one.

        Raises:
            BackendError: A responder without a failure answer failed or was late.
        """
        for entry in tuple(self._responders):
            answer = await self._ask_one(entry, question)
            if answer is not None:
                return answer
        return None

    async def _ask_one(self, entry: _Responder[Q, A], question: Q) -> A | None:
        entry.asked += 1
        detail, is_logged = f"no answer within {entry.deadline_s:g} s", False
        with trio.move_on_after(entry.deadline_s):
            try:
                async with entry.limiter:
                    return await entry.answer(question)
            except BackendError as exc:
                detail, is_logged = exc.detail, True
            except Exception as exc:  # a responder is foreign code: its failure has a declared answer
                detail = f"{type(exc).__name__}: {exc}"
        entry.failed += 1
        if not is_logged:
            log = structlog.get_logger()
            log.warning("responder failed", question=self.name, responder=entry.name, detail=detail)
        if entry.on_failure is None:
            raise BackendError(entry.name, detail)
        return entry.on_failure(question)


@attrs.define(eq=False)
class Subscription(Generic[E]):
    """One subscriber's queue. When it is full, events are dropped and counted in `dropped`."""

    send: trio.MemorySendChannel[E]
    receive: trio.MemoryReceiveChannel[E]
    dropped: int = 0


class Topic(Generic[E]):
    """Events that plugins are told of. Publishing never waits."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._subscriptions: list[Subscription[E]] = []

    @property
    def has_subscribers(self) -> bool:
        """Whether anybody listens; if not, the event need not be made."""
        return bool(self._subscriptions)

    @contextmanager
    def subscribe(self, *, limit: int = 1024) -> Iterator[Subscription[E]]:
        """Yield a `Subscription` that holds up to `limit` events."""
        send, receive = trio.open_memory_channel[E](limit)
        subscription = Subscription(send, receive)
        self._subscriptions.append(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.remove(subscription)
            send.close()
            receive.close()

    def publish(self, event: E) -> None:
        """Tell every subscriber; a full one misses the event and counts it."""
        for subscription in self._subscriptions:
            try:
                subscription.send.send_nowait(event)
            except trio.WouldBlock:
                subscription.dropped += 1


@attrs.define(eq=False)
class Hooks:
    """Every question and topic of one server."""

    authorize_send: Ask[SendRequest, Verdict] = attrs.Factory(lambda: Ask("authorize_send"))
    authorize_watch: Ask[WatchRequest, Sequence[str]] = attrs.Factory(lambda: Ask("authorize_watch"))
    subscribers: Ask[ChannelKey, Sequence[str]] = attrs.Factory(lambda: Ask("subscribers"))
    denylist: Ask[ChannelKey, Sequence[str]] = attrs.Factory(lambda: Ask("denylist"))
    allowlist: Ask[ChannelKey, Sequence[str]] = attrs.Factory(lambda: Ask("allowlist"))
    channel_info: Ask[ChannelKey, ChannelInfo] = attrs.Factory(lambda: Ask("channel_info"))
    system_uids: Ask[None, Sequence[str]] = attrs.Factory(lambda: Ask("system_uids"))
    user_info: Ask[str, UserInfo] = attrs.Factory(lambda: Ask("user_info"))
    offline_messages: Topic[OfflineMessage] = attrs.Factory(lambda: Topic("offline_messages"))
    presence_changed: Topic[PresenceChange] = attrs.Factory(lambda: Topic("presence_changed"))
    channel_changed: Topic[ChannelKey] = attrs.Factory(lambda: Topic("channel_changed"))
