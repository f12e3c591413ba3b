"""Events of a message: the pieces of a streamed answer, and whatever else a backend hangs on a message.

Events belong to a lane (event key) of a stream (channel and client_msg_no). A delta adds to the lane's snapshot; every
other event is stored under the next number of the stream. All of it is in the store when the caller is answered, so
that a reader who joins midway, or after a restart, gets what he missed. `_stream_events` says how.

Source: http-api.md, sections 6.8 and 6.9; semantics.md, section 7.2.
"""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import cachetools
import structlog
import trio

from triolet_core._channels import Channels
from triolet_core._presence import Presence
from triolet_core._stream_events import (
    CLOSE,
    DELTA,
    MAIN_KEY,
    PRIVATE,
    PUBLIC,
    SNAPSHOT,
    Addition,
    EventDraft,
    EventReceipt,
    StreamState,
    dumps,
    open_row,
    open_streams,
    state_of,
)
from triolet_core.config import StreamConfig
from triolet_core.errors import BackendError, ChannelMismatch, StreamLimit, TrioletError
from triolet_core.model import STREAMED, ChannelKey, Event, Message, peer_of, slot_of
from triolet_core.session import Session
from triolet_core.store import Store
from triolet_core.store._records import LaneRecord
from triolet_core.store._tables import PutRows

TIMED_OUT, WRITER_GONE = 2, 3
"""End reasons of a lane whose writer fell silent, and of one whose writer lost its connection."""
DEFAULT_PAGE, MAX_PAGE = 200, 2_000
SHOWN_BYTES = 256 * 1024
"""Most that a session is shown when it comes online, a quarter of what may wait for it by default."""
_SLICE = 1_000
"""Sessions told between two checkpoints."""


class Streams:
    """Accepts events, tells online devices, answers readers, ends streams whose writer fell silent."""

    def __init__(
        self,
        store: Store,
        channels: Channels,
        presence: Presence,
        config: StreamConfig,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._channels = channels
        self._presence = presence
        self._config = config
        self._clock_s = clock_s
        self._known: cachetools.LRUCache[str, ChannelKey] = cachetools.LRUCache(config.max_streams)
        self._open = dict.fromkeys(store.read_facts(open_streams), clock_s())
        self._begun: cachetools.LRUCache[tuple[ChannelKey, str], float] = cachetools.LRUCache(config.max_streams)
        """Streams in which nothing was said yet, and since when; those of before a restart are left alone."""
        self._telling: dict[tuple[ChannelKey, str], int] = {}
        """Changes of a stream that are being stored or told."""
        self._late: dict[tuple[ChannelKey, str], list[Session]] = {}
        """Sessions that are shown a stream as soon as nothing of it is being told."""
        for channel, client_msg_no in self._open:
            self.remember(channel, client_msg_no)
        self._log = structlog.get_logger("streams")

    def remember(self, channel: ChannelKey, client_msg_no: str) -> None:
        """Note which channel a stream was begun in, so that an event for another one is refused."""
        self._known[client_msg_no] = channel

    def begin(self, channel: ChannelKey, client_msg_no: str) -> None:
        """Note that the message of a stream is stored: from now on its writer is expected to say something."""
        self.remember(channel, client_msg_no)
        self._begun[channel, client_msg_no] = self._clock_s()

    def channel_of(self, client_msg_no: str) -> ChannelKey | None:
        """Return the channel that a stream was begun in, if that is remembered."""
        return self._known.get(client_msg_no)

    @property
    def open_count(self) -> int:
        """Streams that are open."""
        return len(self._open)

    def has_open(self, channel: ChannelKey) -> bool:
        """Whether a stream is open in a channel."""
        return any(each == channel for each, _ in self._open)

    async def add(self, draft: EventDraft) -> EventReceipt:
        """Store an event and tell the online members of its channel; see `add_all`."""
        return (await self.add_all((draft,)))[0]

    async def add_all(self, drafts: Sequence[EventDraft], exclude: Session | None = None) -> list[EventReceipt]:
        """Store events of one stream, all or none, and tell the online members of its channel but for `exclude`.

        If the caller is cancelled meanwhile, the events may be stored and nobody told; readers find them.

        Raises:
            StreamClosed: A delta for a lane, or a stream, that has ended.
            ChannelMismatch: The stream was begun in another channel.
            StreamLimit: The stream, or the number of open ones, has reached its bound.
            StoreError, Overloaded: They could not be stored.
        """
        at = (drafts[0].channel, drafts[0].client_msg_no)
        if self._known.get(at[1], at[0]) != at[0]:
            raise ChannelMismatch
        drafts = [draft.plain() for draft in drafts]
        opens = at not in self._open and any(draft.event_type in (DELTA, SNAPSHOT) for draft in drafts)
        if opens and len(self._open) >= self._config.max_streams:
            raise StreamLimit("streamCache.maxStreams", self._config.max_streams)
        return await self._add(at, drafts, exclude)

    async def _add(
        self, at: tuple[ChannelKey, str], drafts: Sequence[EventDraft], exclude: Session | None = None
    ) -> list[EventReceipt]:
        self._telling[at] = self._telling.get(at, 0) + 1
        try:
            return await self._store_and_tell(at, drafts, exclude)
        finally:
            self._telling[at] -= 1
            if not self._telling[at]:
                del self._telling[at]
                for session in self._late.pop(at, ()):
                    self._show(at, session, SHOWN_BYTES)

    async def _store_and_tell(
        self, at: tuple[ChannelKey, str], drafts: Sequence[EventDraft], exclude: Session | None
    ) -> list[EventReceipt]:
        now = int(self._clock_s() * 1000)
        drafts = [draft if draft.occurred_at else attrs.evolve(draft, occurred_at=now) for draft in drafts]
        works = [Addition(draft, self._config) for draft in drafts]

        def after() -> None:
            self._begun.pop(at, None)
            if works[-1].is_open:
                self._open[at] = self._clock_s()
            else:
                self._open.pop(at, None)

        receipts = await self._store.writer.change(lambda sealer: [work.run(sealer) for work in works], after=after)
        for draft, work, receipt in zip(drafts, works, receipts, strict=True):
            if receipt.is_new:
                await self._tell(attrs.evolve(draft, visibility=work.visibility), receipt, work.shown, exclude)
        return receipts

    async def _tell(self, draft: EventDraft, receipt: EventReceipt, payload: Any, exclude: Session | None) -> None:
        channel = draft.channel
        try:
            is_private = draft.visibility == PRIVATE
            uids = frozenset({receipt.from_uid}) if is_private else await self._channels.recipients(channel)
        except BackendError:
            return  # logged by the hook; the event is stored and found by whoever reads
        events: dict[str, Event] = {}  # the same one for all, except in channels whose two ends see each other
        told = 0
        for uid in tuple(self._presence.online_among(uids)):
            peer = peer_of(channel, uid)
            event = events.get(peer) or events.setdefault(peer, _event(draft, receipt, payload, peer))
            for session in tuple(self._presence.sessions(uid)):
                told += 1
                if session is not exclude:
                    session.push_event(event)
                if not told % _SLICE:
                    await trio.lowlevel.checkpoint()

    # --- those who come later

    async def catch_up(self, session: Session, room: int = SHOWN_BYTES) -> None:
        """Show a session that has come online what the open streams of its channels have collected.

        It gets a `stream.snapshot` per open lane. What it was told of that lane before is in it, what comes later is
        not, so a reader replaces what it has and goes on from there. The newest streams come first, and what takes
        more than `room` bytes together is left out: readers ask for that.
        """
        uid = session.device.uid
        is_reader: dict[ChannelKey, bool] = {}
        for number, at in enumerate(reversed(tuple(self._open)), 1):
            if at[0] not in is_reader:
                is_reader[at[0]] = await self._is_reader(at[0], uid)
            if is_reader[at[0]] and at in self._telling:
                self._late.setdefault(at, []).append(session)
            elif is_reader[at[0]]:
                room = self._show(at, session, room)
            if not number % _SLICE:
                await trio.lowlevel.checkpoint()

    async def _is_reader(self, channel: ChannelKey, uid: str) -> bool:
        try:
            return uid in await self._channels.recipients(channel)
        except BackendError:
            return False  # logged by the hook; the stream is found by whoever reads

    def _show(self, at: tuple[ChannelKey, str], session: Session, room: int) -> int:
        """Show a stream as far as there is room; returns what is left of it."""
        found = self.state(*at)
        if found is None:
            return room
        uid = session.device.uid
        for lane in found.lanes:
            if lane.status != "open" or (lane.visibility == PRIVATE and uid != found.stream.from_uid):
                continue
            size = len(lane.snapshot.encode())
            if size > room:
                continue
            room -= size
            draft = EventDraft(
                channel=at[0],
                client_msg_no=at[1],
                event_id=lane.event_id,
                event_type=SNAPSHOT,
                visibility=lane.visibility,
                occurred_at=lane.occurred_at,
            )
            receipt = EventReceipt(
                client_msg_no=at[1],
                event_key=lane.key,
                event_id=lane.event_id,
                event_seq=lane.last_event_seq,
                status=lane.status,
                from_uid=found.stream.from_uid,
                message_id=found.stream.message_id,
                is_new=False,
            )
            session.push_event(_event(draft, receipt, json.loads(lane.snapshot), peer_of(at[0], uid)))
        return room

    # --- reading

    def state(self, key: ChannelKey, client_msg_no: str) -> StreamState | None:
        """Return a stream and its lanes, None if there is none."""
        return self._store.read_facts(lambda txn: state_of(txn, key, client_msg_no))

    def lanes_after(
        self, key: ChannelKey, client_msg_no: str, *, event_key: str, after: int, limit: int, include_private: bool
    ) -> tuple[Sequence[LaneRecord], bool]:
        """Return the lanes that changed behind event number `after`, by that number, and whether there are more.

        Lanes of one number stay together, also beyond `limit`, and the last page has every other lane that is open:
        what deltas do to it has no number.
        """
        found = self.state(key, client_msg_no)
        limit = min(limit, MAX_PAGE) if limit > 0 else DEFAULT_PAGE
        lanes = [
            lane
            for lane in (found.lanes if found is not None else ())
            if (not event_key or lane.key == event_key) and (include_private or lane.visibility == PUBLIC)
        ]
        lanes.sort(key=lambda lane: (lane.last_event_seq, lane.key))
        changed = [lane for lane in lanes if lane.last_event_seq > after]
        if len(changed) > limit:
            bound = changed[limit - 1].last_event_seq
            page = [lane for lane in changed if lane.last_event_seq <= bound]
            return page, len(page) < len(changed)
        return [lane for lane in lanes if lane.last_event_seq > after or lane.status == "open"], False

    def states(self, messages: Sequence[Message]) -> dict[int, StreamState]:
        """Return the streams of those messages that have one, by message id."""
        marked = [message for message in messages if message.marks & STREAMED]
        if not marked:
            return {}
        found = self._store.read_facts(
            lambda txn: {each.message_id: state_of(txn, each.channel, each.client_msg_no) for each in marked}
        )
        return {
            message_id: state
            for message_id, state in found.items()
            if state is not None and state.stream.message_id == message_id
        }

    # --- the end of silent streams

    async def run(self) -> None:
        """End the lanes of streams whose writer has said nothing for `streamCache.chunkInactivityTimeout`."""
        while True:
            await trio.sleep(self._config.cleanup_interval)
            await self.end_silent()

    async def end_silent(self) -> None:
        """End what is silent now; what cannot be ended is tried again next time."""
        limit = self._clock_s() - self._config.chunk_inactivity_timeout
        for at in tuple(self._open):
            if self._open.get(at, limit + 1) > limit:
                continue
            try:
                await self._end(*at)
            except TrioletError as exc:
                self._log.warning("stream not ended", detail=str(exc))
        for at, since in tuple(self._begun.items()):
            if since <= limit and self._begun.pop(at, None) is not None:
                try:
                    await self.abandon(*at, reason=TIMED_OUT)
                except TrioletError as exc:
                    self._log.warning("stream not ended", detail=str(exc))

    async def _end(self, channel: ChannelKey, client_msg_no: str) -> None:
        found = self.state(channel, client_msg_no)
        lanes = [lane.key for lane in found.lanes if lane.status == "open"] if found is not None else []
        self._log.info("stream ended", reason="its writer is silent", lanes=len(lanes))
        await self._close(channel, client_msg_no, lanes, TIMED_OUT)
        if not lanes:
            await self._forget(channel, client_msg_no)

    async def abandon(self, channel: ChannelKey, client_msg_no: str, *, reason: int = WRITER_GONE) -> None:
        """Close what is open of a stream whose writer is gone, its main lane also if nothing was said in it yet.

        Raises:
            StoreError, Overloaded: It could not be stored.
        """
        found = self.state(channel, client_msg_no)
        if found is None or found.stream.is_finished:
            return
        lanes = [lane.key for lane in found.lanes if lane.status == "open"] if found.lanes else [MAIN_KEY]
        self._log.info("stream abandoned", reason=reason, lanes=len(lanes))
        await self._close(channel, client_msg_no, lanes, reason)

    async def _close(self, channel: ChannelKey, client_msg_no: str, lanes: Sequence[str], reason: int) -> None:
        for key in lanes:
            draft = EventDraft(
                channel=channel,
                client_msg_no=client_msg_no,
                event_id=f"{client_msg_no}:{key}:{'timeout' if reason == TIMED_OUT else 'gone'}",
                event_type=CLOSE,
                event_key=key,
                payload={"end_reason": reason},
            )
            await self._add((channel, client_msg_no), [draft])

    async def _forget(self, channel: ChannelKey, client_msg_no: str) -> None:
        """Drop the note that a stream is open whose message, and with it all else, was deleted."""
        operation = PutRows(slot_of(channel.id), (open_row(channel, client_msg_no, is_open=False),))

        def after() -> None:
            self._open.pop((channel, client_msg_no), None)

        await self._store.writer.change(lambda sealer: sealer.emit(operation), after=after)


def _event(draft: EventDraft, receipt: EventReceipt, payload: Any, channel_id: str) -> Event:
    data = {
        "client_msg_no": receipt.client_msg_no,
        "channel_id": channel_id,
        "channel_type": draft.channel.type,
        "from_uid": receipt.from_uid,
        "message_id": receipt.message_id,
        "event_key": receipt.event_key,
        "msg_event_seq": receipt.event_seq,
        "stream_status": receipt.status,
        "visibility": draft.visibility,
        "payload": payload,
    }
    kind = draft.shown_type or draft.event_type
    return Event(id=draft.event_id, type=kind, timestamp=draft.occurred_at, data=dumps(data).encode())
