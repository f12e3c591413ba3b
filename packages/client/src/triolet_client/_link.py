"""Keeps a client connected: one session after the other, what is unacknowledged carried over from each to the next.

Theory of operation. The first login is tried once and its failure is the caller's. After that a lost connection is
followed by waits that double, until a login succeeds or is refused for good. A DISCONNECT of the server is an order:
the link ends, and so does everything that waits on it.
"""

import logging
import random
import time
from collections.abc import Callable

import anyio
import anyio.abc
import attrs

from triolet_client._errors import ClientError, ConnectionFailed, Kicked, NotAcknowledged, Refused
from triolet_client._feed import Feed
from triolet_client._model import Channel, Event, Login, Message, Reason, Receipt, Settings, Statistics
from triolet_client._positions import Positions
from triolet_client._session import Session
from triolet_client._streams import EventReader
from triolet_client._transport import Connector
from triolet_client._watch import Watches
from triolet_protocol import DUP, NO_PERSIST, SYNC_ONCE

_FOR_GOOD = frozenset({Reason.AUTH_FAIL, Reason.BAN, Reason.CLIENT_KEY_IS_EMPTY})
"""Refusals that do not get better by coming again."""
_log = logging.getLogger("triolet_client")


@attrs.frozen(kw_only=True)
class Draft:
    """A message to be sent."""

    client_msg_no: str
    channel: Channel
    payload: bytes = attrs.field(repr=False)
    flags: int
    setting: int
    expire: int
    topic: str


@attrs.define(eq=False)
class _Waiting:
    """A message that waits for its acknowledgement."""

    draft: Draft
    done: anyio.Event = attrs.Factory(anyio.Event)
    receipt: Receipt | None = None


class Link:
    """The sessions of one client, and what has to outlive them."""

    def __init__(
        self,
        login: Login,
        connect: Connector,
        feed: Feed,
        positions: Positions,
        settings: Settings,
        statistics: Statistics,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self._login = login
        self._connect = connect
        self._feed = feed
        self._positions = positions
        self._settings = settings
        self._statistics = statistics
        self._clock_s = clock_s
        self._slots = anyio.Semaphore(settings.in_flight)
        self._waiting: dict[int, _Waiting] = {}
        self._client_seq = 0
        self._changed = anyio.Event()
        self.session: Session | None = None
        self.failure: ClientError | None = None
        self.readers: set[EventReader] = set()
        self.watches = Watches()

    # --- life

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keep a session until the link ends; `failure` says why."""
        attempt = 0
        try:
            session = await self._log_in()
            task_status.started()
            while True:
                began = anyio.current_time()
                await self._serve(session)
                if isinstance(session.failure, Kicked):
                    raise session.failure
                if anyio.current_time() - began >= self._settings.backoff.settled_s:
                    attempt = 0
                _log.info("connection lost: %s", session.failure)
                session, attempt = await self._come_back(attempt)
        except ClientError as exc:
            has_started = self._statistics.connects > 0
            self.end(exc)
            if not has_started:
                task_status.started()

    async def _come_back(self, attempt: int) -> tuple[Session, int]:
        """Log in again, as often as it takes; returns the session and how many attempts there were."""
        while True:
            delay_s = self._settings.backoff.delay_s(attempt, random.random())
            attempt += 1
            _log.info("connecting again in %.1f s", delay_s)
            await anyio.sleep(delay_s)
            try:
                return await self._log_in(), attempt
            except Refused as exc:
                if exc.reason in _FOR_GOOD:
                    raise
                _log.warning("%s", exc)
            except ConnectionFailed as exc:
                _log.info("no connection: %s", exc)

    async def _log_in(self) -> Session:
        try:
            with anyio.fail_after(self._settings.connect_timeout_s):
                transport = await self._connect()
        except TimeoutError as exc:
            raise ConnectionFailed("the server does not answer") from exc
        session = Session(transport, self._login, self._settings, self, self._clock_s)
        try:
            await session.log_in()
        except BaseException:
            await transport.aclose()
            raise
        return session

    async def _serve(self, session: Session) -> None:
        self._statistics.connects += 1
        self._feed.server_offset_s = session.server_offset_s
        self._feed.mark_stale()
        for client_seq, waiting in self._waiting.items():  # in the order they were sent
            waiting.draft = attrs.evolve(waiting.draft, flags=waiting.draft.flags | DUP)
            _submit(session, client_seq, waiting.draft)
            self._statistics.resent += 1
        self._set_session(session)
        self.watches.begin(session)
        try:
            await session.run()
        finally:
            self._set_session(None)
            self.watches.lose()
            for reader in self.readers:
                reader.mark_missed()

    def _set_session(self, session: Session | None) -> None:
        self.session = session
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def wait_changed(self) -> None:
        """Wait until a session begins or ends."""
        await self._changed.wait()

    def end(self, failure: ClientError) -> None:
        """End for good: whoever waits is told why."""
        if self.failure is not None:
            return
        self.failure = failure
        self._feed.fail(failure)
        for waiting in self._waiting.values():
            waiting.done.set()
        for reader in self.readers:
            reader.close()
        self.watches.end(failure)
        self._set_session(None)

    # --- out

    async def send(self, draft: Draft) -> Receipt:
        """Send a message and wait for its receipt.

        Raises:
            NotAcknowledged: There is none in time.
            ValueError: It is too long for the protocol.
            ClientError: The link has ended.
        """
        async with self._slots:
            if self.failure is not None:
                raise self.failure
            self._client_seq += 1
            client_seq, waiting = self._client_seq, _Waiting(draft)
            self._positions.sending(draft.client_msg_no)
            self._waiting[client_seq] = waiting
            try:
                if self.session is not None:
                    _submit(self.session, client_seq, draft)
                with anyio.move_on_after(self._settings.send_timeout_s):
                    await waiting.done.wait()
            finally:
                del self._waiting[client_seq]
        if waiting.receipt is not None:
            return waiting.receipt
        raise self.failure or NotAcknowledged(draft.client_msg_no)

    # --- in: implements Listener

    def on_message(self, message: Message, session: Session) -> None:
        """Queue a message."""
        self._feed.push(message, session)

    def on_receipt(self, client_seq: int, reason: int, message_id: int, seq: int) -> None:
        """Wake whoever sent a message."""
        waiting = self._waiting.get(client_seq)
        if waiting is None or waiting.receipt is not None:
            return
        draft = waiting.draft
        receipt = Receipt(reason=reason, message_id=message_id, seq=seq, client_msg_no=draft.client_msg_no)
        if receipt.is_accepted and not draft.flags & (NO_PERSIST | SYNC_ONCE):
            self._positions.sent(draft.channel, seq)
        waiting.receipt = receipt
        waiting.done.set()

    def on_event(self, event: Event) -> None:
        """Hand an event to its readers."""
        self.watches.on_event(event)
        for reader in self.readers:
            reader.put(event)

    def on_suback(self, sub_no: str, reason: int) -> None:
        """Hand on the answer to a subscription."""
        self.watches.on_suback(sub_no, reason)


def _submit(session: Session, client_seq: int, draft: Draft) -> None:
    session.send_message(
        client_seq,
        draft.client_msg_no,
        draft.channel,
        draft.payload,
        flags=draft.flags,
        setting=draft.setting,
        expire=draft.expire,
        topic=draft.topic,
    )
