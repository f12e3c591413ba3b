"""Events of a message: the pieces of a streamed answer, and whatever else a backend hangs on a message.

Events belong to a lane (event key) of a stream (channel and client_msg_no). A delta adds to the lane's snapshot; every
other event is stored under the next number of the stream. All of it is in the store when the caller is answered, so
that a reader who joins midway, or after a restart, gets what he missed.

Source: http-api.md, sections 6.8 and 6.9; semantics.md, section 7.2.
"""

import json
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import attrs
import cachetools
import lmdb
import structlog
import trio

from triolet_core._channels import Channels
from triolet_core._presence import Presence
from triolet_core.config import StreamConfig
from triolet_core.errors import ChannelMismatch, StreamClosed, StreamLimit
from triolet_core.model import SLOT_COUNT, STREAMED, SYSTEM_UID, ChannelKey, Event, Message, peer_of, slot_of
from triolet_core.store import Store, _queries
from triolet_core.store import _keys as keys
from triolet_core.store import _records as records
from triolet_core.store._records import EventRecord, LaneRecord, StreamRecord
from triolet_core.store._sealer import Sealer
from triolet_core.store._tables import PutRows, ReviseMessage

MAIN_KEY = "main"
FINISH_KEY = "__finish__"
DELTA, SNAPSHOT, FINISH = "stream.delta", "stream.snapshot", "stream.finish"
TERMINAL = {"stream.close": "closed", "stream.error": "error", "stream.cancel": "cancelled", FINISH: "closed"}
"""Events that end a lane, and the status it has then."""
TIMED_OUT = 2
"""End reason of a lane whose writer fell silent."""
PUBLIC, PRIVATE = "public", "private"
MAX_PAGE = 2_000
_ANCHOR_LOOK_BACK = 10_000
_OPEN = b"open streams"


@attrs.frozen(kw_only=True)
class EventDraft:
    """An event before it is accepted."""

    channel: ChannelKey
    client_msg_no: str
    event_id: str
    event_type: str
    event_key: str = MAIN_KEY
    from_uid: str = ""
    visibility: str = PUBLIC
    occurred_at: int = 0
    """Milliseconds since 1970; 0: now."""
    payload: Any = None
    """Any JSON value."""
    shown_type: str = ""
    """What online devices are told as its type, if not `event_type`."""


@attrs.frozen(kw_only=True)
class EventReceipt:
    """What became of an event."""

    client_msg_no: str
    event_key: str
    event_id: str
    event_seq: int
    status: str
    from_uid: str
    message_id: int
    is_new: bool


@attrs.frozen(kw_only=True)
class StreamState:
    """A stream and its lanes, as they are now."""

    stream: StreamRecord
    lanes: tuple[LaneRecord, ...]


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
        self._open: dict[tuple[ChannelKey, str], float] = {}
        self._log = structlog.get_logger("streams")

    def remember(self, channel: ChannelKey, client_msg_no: str) -> None:
        """Note which channel a stream was begun in, so that an event for another one is refused."""
        self._known[client_msg_no] = channel

    def channel_of(self, client_msg_no: str) -> ChannelKey | None:
        """Return the channel that a stream was begun in, if that is remembered."""
        return self._known.get(client_msg_no)

    def has_open(self, channel: ChannelKey) -> bool:
        """Whether a stream is open in a channel."""
        return any(each == channel for each, _ in self._open)

    async def add(self, draft: EventDraft) -> EventReceipt:
        """Store an event and tell the online members of its channel.

        Raises:
            StreamClosed: A delta for a lane, or a stream, that has ended.
            ChannelMismatch: The stream was begun in another channel.
            StreamLimit: The stream, or the number of open ones, has reached its bound.
        """
        if self._known.get(draft.client_msg_no, draft.channel) != draft.channel:
            raise ChannelMismatch
        at = (draft.channel, draft.client_msg_no)
        if at not in self._open and len(self._open) >= self._config.max_streams:
            raise StreamLimit("streamCache.maxStreams", self._config.max_streams)
        if not draft.occurred_at:
            draft = attrs.evolve(draft, occurred_at=int(self._clock_s() * 1000))
        work = _Addition(draft, self._config)
        receipt = await self._store.writer.change(work.run)
        if work.is_open:
            self._open[at] = self._clock_s()
        else:
            self._open.pop(at, None)
        if receipt.is_new:
            await self._tell(draft, receipt, work.shown)
        return receipt

    async def _tell(self, draft: EventDraft, receipt: EventReceipt, payload: Any) -> None:
        uids = await self._channels.recipients(draft.channel)
        if draft.visibility == PRIVATE:
            uids = frozenset({receipt.from_uid})
        for uid in self._presence.online_among(uids):
            event = _event(draft, receipt, payload, uid)
            for session in self._presence.sessions(uid):
                session.push_event(event)

    # --- reading

    def state(self, key: ChannelKey, client_msg_no: str) -> StreamState | None:
        """Return a stream and its lanes, None if there is none."""
        return self._store.read(lambda txn: state_of(txn, key, client_msg_no))

    def lanes_after(
        self, key: ChannelKey, client_msg_no: str, *, event_key: str, after: int, limit: int, include_private: bool
    ) -> tuple[Sequence[LaneRecord], bool]:
        """Return the lanes that changed behind event number `after`, by that number, and whether there are more."""
        found = self.state(key, client_msg_no)
        limit = min(limit, MAX_PAGE) if limit > 0 else 200
        lanes = [
            lane
            for lane in (found.lanes if found is not None else ())
            if (not event_key or lane.key == event_key)
            and (lane.last_event_seq > after or lane.status == "open")
            and (include_private or lane.visibility == PUBLIC)
        ]
        lanes.sort(key=lambda lane: (lane.last_event_seq, lane.key))
        return lanes[:limit], len(lanes) > limit

    def states(self, messages: Sequence[Message]) -> dict[int, StreamState]:
        """Return the streams of those messages that have one, by message id."""
        marked = [message for message in messages if message.marks & STREAMED]
        if not marked:
            return {}
        with self._store.snapshot() as txn:
            found = {each.message_id: state_of(txn, each.channel, each.client_msg_no) for each in marked}
        return {message_id: state for message_id, state in found.items() if state is not None}

    # --- the end of silent streams

    async def run(self) -> None:
        """End the lanes of streams whose writer has said nothing for `streamCache.chunkInactivityTimeout`."""
        self._open |= dict.fromkeys(self._store.read(_open_streams), self._clock_s())
        while True:
            await trio.sleep(self._config.cleanup_interval)
            await self.end_silent()

    async def end_silent(self) -> None:
        """End what is silent now."""
        limit = self._clock_s() - self._config.chunk_inactivity_timeout
        for (channel, client_msg_no), active in list(self._open.items()):
            if active <= limit:
                await self._end(channel, client_msg_no)

    async def _end(self, channel: ChannelKey, client_msg_no: str) -> None:
        self._log.info("stream ended", reason="its writer is silent")
        found = self.state(channel, client_msg_no)
        for lane in found.lanes if found is not None else ():
            if lane.status == "open":
                draft = EventDraft(
                    channel=channel,
                    client_msg_no=client_msg_no,
                    event_id=f"{client_msg_no}:{lane.key}:timeout",
                    event_type="stream.close",
                    event_key=lane.key,
                    visibility=lane.visibility,
                    payload={"end_reason": TIMED_OUT},
                )
                await self.add(draft)
        self._open.pop((channel, client_msg_no), None)


class _Addition:
    """One event on its way into the store."""

    def __init__(self, draft: EventDraft, config: StreamConfig) -> None:
        self._draft = draft
        self._config = config
        self.is_open = False
        self.shown: Any = draft.payload

    def run(self, sealer: Sealer) -> EventReceipt:
        draft = self._draft
        tail = sealer.tail(draft.channel)
        self._prefix = (tail.slot, tail.number, draft.client_msg_no)
        stream = self._stream(sealer)
        lane_key = self._key(keys.LANE) + keys.digest(draft.event_key)
        known = sealer.txn.get(lane_key)
        lane = LaneRecord(key=draft.event_key) if known is None else records.decode_lane(known)
        id_key = self._key(keys.EVENT_ID) + keys.digest(draft.event_id)
        repeated = sealer.txn.get(id_key)
        if repeated is not None:
            self.is_open = lane.status == "open"
            return self._receipt(stream, lane, int.from_bytes(repeated, "big"), is_new=False)
        if stream.is_finished or lane.status not in ("", "open"):
            if draft.event_type == DELTA:
                raise StreamClosed
            return self._receipt(stream, lane, lane.last_event_seq, is_new=False)
        if stream.event_count >= self._config.max_chunks_per_stream and draft.event_type not in TERMINAL:
            raise StreamLimit("streamCache.maxChunksPerStream", self._config.max_chunks_per_stream)
        stream, lane = self._applied(stream, lane, sealer.now)
        rows: list[tuple[bytes, bytes | None]] = [
            (lane_key, records.encode_fields(lane)),
            (self._key(keys.STREAM), records.encode_fields(stream)),
            (id_key, lane.last_event_seq.to_bytes(8, "big")),
        ]
        if draft.event_type != DELTA:
            rows.append(self._stored(stream, lane))
        rows += self._finished(sealer, stream, lane)
        self.is_open = not stream.is_finished and lane.status == "open"
        rows.append(_open_row(tail.slot, draft, is_open=self.is_open))
        sealer.emit(PutRows(tail.slot, tuple(rows)))
        return self._receipt(stream, lane, lane.last_event_seq, is_new=True)

    def _key(self, table: int) -> bytes:
        slot, number, client_msg_no = self._prefix
        return keys.streamed(slot, table, number, client_msg_no)

    def _stream(self, sealer: Sealer) -> StreamRecord:
        value = sealer.txn.get(self._key(keys.STREAM))
        if value is not None:
            return records.decode_stream(value)
        draft = self._draft
        anchor = _anchor(sealer, draft)
        if anchor is None:
            return StreamRecord(client_msg_no=draft.client_msg_no, from_uid=draft.from_uid or SYSTEM_UID)
        if not anchor.marks & STREAMED:
            slot, number, _ = self._prefix
            anchor = attrs.evolve(anchor, marks=anchor.marks | STREAMED)
            sealer.emit(ReviseMessage(slot, number, anchor, None))
        return StreamRecord(client_msg_no=draft.client_msg_no, message_id=anchor.message_id, from_uid=anchor.sender)

    def _applied(self, stream: StreamRecord, lane: LaneRecord, now: int) -> tuple[StreamRecord, LaneRecord]:
        draft = self._draft
        payload = draft.payload
        lane = attrs.evolve(
            lane,
            event_id=draft.event_id,
            event_type=draft.event_type,
            visibility=draft.visibility,
            occurred_at=draft.occurred_at,
        )
        stream = attrs.evolve(stream, event_count=stream.event_count + 1, active=now)
        if draft.event_type == DELTA:
            lane = attrs.evolve(lane, status="open", snapshot=_extended(lane.snapshot, payload))
            if len(lane.snapshot) > self._config.max_memory_size:
                raise StreamLimit("streamCache.maxMemorySize", self._config.max_memory_size)
            return stream, lane
        seq = stream.last_event_seq + 1
        stream = attrs.evolve(stream, last_event_seq=seq, is_finished=draft.event_type == FINISH)
        lane = attrs.evolve(lane, last_event_seq=seq)
        if draft.event_type == SNAPSHOT:
            return stream, attrs.evolve(lane, status="open", snapshot=_dumps(payload))
        if draft.event_type in TERMINAL:
            return stream, _ended(lane, TERMINAL[draft.event_type], payload)
        return stream, lane

    def _stored(self, stream: StreamRecord, lane: LaneRecord) -> tuple[bytes, bytes]:
        draft = self._draft
        payload = draft.payload
        if draft.event_type in TERMINAL and lane.snapshot:
            payload = {**payload} if isinstance(payload, dict) else {}
            payload["snapshot"] = json.loads(lane.snapshot)
            self.shown = payload
        event = EventRecord(
            seq=lane.last_event_seq,
            id=draft.event_id,
            key=draft.event_key,
            type=draft.event_type,
            visibility=draft.visibility,
            occurred_at=draft.occurred_at,
            payload=_dumps(payload),
            from_uid=draft.from_uid or stream.from_uid,
        )
        return self._key(keys.STREAM_EVENT) + event.seq.to_bytes(4, "big"), records.encode_fields(event)

    def _finished(self, sealer: Sealer, stream: StreamRecord, lane: LaneRecord) -> list[tuple[bytes, bytes | None]]:
        """The end of the whole stream closes every lane that is open."""
        if not stream.is_finished:
            return []
        rows: list[tuple[bytes, bytes | None]] = []
        for raw, value in _queries.rows(sealer.txn, self._key(keys.LANE)):
            other = records.decode_lane(value)
            if other.status == "open" and other.key != lane.key:
                closed = attrs.evolve(other, status="closed", last_event_seq=lane.last_event_seq)
                rows.append((raw, records.encode_fields(closed)))
        return rows

    def _receipt(self, stream: StreamRecord, lane: LaneRecord, seq: int, *, is_new: bool) -> EventReceipt:
        return EventReceipt(
            client_msg_no=stream.client_msg_no,
            event_key=lane.key,
            event_id=self._draft.event_id,
            event_seq=seq,
            status=lane.status,
            from_uid=self._draft.from_uid or stream.from_uid,
            message_id=stream.message_id,
            is_new=is_new,
        )


def register(sealer: Sealer, message: Message) -> None:
    """Begin the stream of a message, in the transaction that stores it."""
    tail = sealer.tail(message.channel)
    stream = StreamRecord(
        client_msg_no=message.client_msg_no,
        message_id=message.message_id,
        from_uid=message.sender,
        active=sealer.now,
    )
    key = keys.streamed(tail.slot, keys.STREAM, tail.number, message.client_msg_no)
    sealer.emit(PutRows(tail.slot, ((key, records.encode_fields(stream)),)))


def state_of(txn: lmdb.Transaction, key: ChannelKey, client_msg_no: str) -> StreamState | None:
    """Return a stream and its lanes by key, None if there is none."""
    record = _queries.channel_record(txn, key)
    if record is None:
        return None
    at = (record.number, client_msg_no)
    value = txn.get(keys.streamed(slot_of(key.id), keys.STREAM, *at))
    if value is None:
        return None
    prefix = keys.streamed(slot_of(key.id), keys.LANE, *at)
    lanes = [records.decode_lane(lane) for _, lane in _queries.rows(txn, prefix)]
    lanes.sort(key=lambda lane: lane.key)
    return StreamState(stream=records.decode_stream(value), lanes=tuple(lanes))


def _anchor(sealer: Sealer, draft: EventDraft) -> Message | None:
    newest = _queries.messages_back(sealer.txn, draft.channel, 2**63)
    return next((each for each in islice(newest, _ANCHOR_LOOK_BACK) if each.client_msg_no == draft.client_msg_no), None)


def _open_row(slot: int, draft: EventDraft, *, is_open: bool) -> tuple[bytes, bytes | None]:
    channel_id, kind = draft.channel
    key = keys.table(slot, keys.OPEN_STREAM) + keys.digest(f"{kind}\0{channel_id}\0{draft.client_msg_no}")
    return key, records.encode_open(draft.channel, draft.client_msg_no) if is_open else None


def _open_streams(txn: lmdb.Transaction) -> list[tuple[ChannelKey, str]]:
    return [
        records.decode_open(value)
        for slot in range(SLOT_COUNT)
        for _, value in _queries.rows(txn, keys.table(slot, keys.OPEN_STREAM))
    ]


def _extended(snapshot: str, payload: Any) -> str:
    """Add a delta to a snapshot: text is joined, of any other kind the last one is kept."""
    if not isinstance(payload, dict) or payload.get("kind") != "text" or not isinstance(payload.get("delta"), str):
        return _dumps(payload)
    known = json.loads(snapshot) if snapshot else None
    text = known.get("text", "") if isinstance(known, dict) and known.get("kind") == "text" else ""
    return _dumps({"kind": "text", "text": text + payload["delta"]})


def _ended(lane: LaneRecord, status: str, payload: Any) -> LaneRecord:
    given = payload if isinstance(payload, dict) else {}
    snapshot = given.get("snapshot")
    reason, error = given.get("end_reason"), given.get("error")
    return attrs.evolve(
        lane,
        status=status,
        snapshot=lane.snapshot if snapshot is None else _dumps(snapshot),
        end_reason=reason if isinstance(reason, int) and not isinstance(reason, bool) else 0,
        error=error if isinstance(error, str) else "",
    )


def _event(draft: EventDraft, receipt: EventReceipt, payload: Any, uid: str) -> Event:
    data = {
        "client_msg_no": receipt.client_msg_no,
        "channel_id": peer_of(draft.channel, uid),
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
    return Event(id=draft.event_id, type=kind, timestamp=draft.occurred_at, data=_dumps(data).encode())


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
