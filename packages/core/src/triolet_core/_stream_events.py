"""How an event changes a stream: what is stored of it, and what its sender is answered.

Theory of operation. A stream is the events of one message; it has lanes, one per event key. A lane is empty, then open
once a delta or a snapshot came, then ended (closed, error, cancelled) for good. `stream.finish` ends every lane.
An open stream, one with an open lane, has an OPEN_STREAM row, so that its end is seen to after a restart. The row
outlives a base message that is deleted meanwhile: what its writer says later is then too late, not a new stream.

Source: http-api.md, sections 6.8 and 6.9; semantics.md, section 7.2.
"""

import json
from itertools import islice
from typing import Any

import attrs
import lmdb

from triolet_core.config import StreamConfig
from triolet_core.errors import StreamClosed, StreamLimit
from triolet_core.model import SLOT_COUNT, STREAMED, SYSTEM_UID, ChannelKey, Message, RevisionKind, slot_of
from triolet_core.store import _keys as keys
from triolet_core.store import _queries
from triolet_core.store import _records as records
from triolet_core.store._records import EventRecord, LaneRecord, StreamRecord
from triolet_core.store._sealer import Sealer
from triolet_core.store._tables import PutRows, ReviseMessage

MAIN_KEY = "main"
FINISH_KEY = "__finish__"
DELTA, SNAPSHOT, CLOSE, FINISH = "stream.delta", "stream.snapshot", "stream.close", "stream.finish"
TERMINAL = {CLOSE: "closed", "stream.error": "error", "stream.cancel": "cancelled", FINISH: "closed"}
"""Events that end a lane, and the status it has then."""
PUBLIC, RESTRICTED, PRIVATE = "public", "restricted", "private"
_NARROW = {PUBLIC: 0, RESTRICTED: 1, PRIVATE: 2}
_ANCHOR_LOOK_BACK = 10_000


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

    def plain(self) -> "EventDraft":
        """Return it with its type in lower case if that is one of ours, and the key that a finish always has."""
        kind = self.event_type.lower()
        if kind not in TERMINAL and kind not in (DELTA, SNAPSHOT):
            return self
        return attrs.evolve(self, event_type=kind, event_key=FINISH_KEY if kind == FINISH else self.event_key)


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


class Addition:
    """One event on its way into the store; `run` may be called again after an abort."""

    def __init__(self, draft: EventDraft, config: StreamConfig) -> None:
        self._draft = draft
        self._config = config
        self.is_open = False
        self.shown: Any = draft.payload
        self.visibility = draft.visibility

    def run(self, sealer: Sealer) -> EventReceipt:
        """Store the event, in the commit thread.

        Raises:
            StreamClosed: A delta for a lane, or a stream, that has ended.
            StreamLimit: The stream has reached a bound.
        """
        draft = self._draft
        tail = sealer.tail(draft.channel)
        self._prefix = (tail.slot, tail.number, draft.client_msg_no)
        stream = self._stream(sealer)
        self.is_open = stream.open_lanes > 0
        lane_key = self._key(keys.LANE) + keys.digest(draft.event_key)
        known = sealer.txn.get(lane_key)
        lane = LaneRecord(key=draft.event_key) if known is None else records.decode_lane(known)
        self.visibility = max(lane.visibility, draft.visibility, key=lambda each: _NARROW.get(each, 2))
        id_key = self._key(keys.EVENT_ID) + keys.digest(draft.event_id)
        first = sealer.txn.get(id_key)
        if first is not None:
            return self._receipt(stream, int.from_bytes(first[:8], "big"), first[8:].decode(), is_new=False)
        if stream.is_finished or lane.status not in ("", "open"):
            if draft.event_type == DELTA:
                raise StreamClosed
            return self._receipt(stream, lane.last_event_seq, lane.status, is_new=False)
        self._check_count(stream, is_known=known is not None)
        was_open = self.is_open
        stream, lane = self._applied(stream, lane, sealer.now)
        rows: list[tuple[bytes, bytes | None]] = [
            (lane_key, records.encode_fields(lane)),
            (self._key(keys.STREAM), records.encode_fields(stream)),
            (id_key, lane.last_event_seq.to_bytes(8, "big") + lane.status.encode()),
        ]
        if draft.event_type != DELTA:
            rows.append(self._stored(stream, lane))
        rows += self._finished(sealer, stream, lane)
        self.is_open = stream.open_lanes > 0
        if self.is_open != was_open:
            rows.append(open_row(draft.channel, draft.client_msg_no, is_open=self.is_open))
        sealer.emit(PutRows(tail.slot, tuple(rows)))
        return self._receipt(stream, lane.last_event_seq, lane.status, is_new=True)

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
            is_over = sealer.txn.get(open_row(draft.channel, draft.client_msg_no, is_open=False)[0]) is not None
            from_uid = draft.from_uid or SYSTEM_UID
            return StreamRecord(client_msg_no=draft.client_msg_no, from_uid=from_uid, is_finished=is_over)
        revision = _queries.revision(sealer.txn, anchor)
        is_over = revision is not None and revision.kind is RevisionKind.RECALLED
        if not is_over and not anchor.marks & STREAMED:
            slot, number, _ = self._prefix
            marked = attrs.evolve(anchor, marks=anchor.marks | STREAMED)
            sealer.emit(ReviseMessage(slot, number, marked, None))
        return _begun(anchor, is_finished=is_over)

    def _check_count(self, stream: StreamRecord, *, is_known: bool) -> None:
        """Refuse the event if there are too many, unless it ends what is known."""
        ends = self._draft.event_type == FINISH or (is_known and self._draft.event_type in TERMINAL)
        if stream.event_count >= self._config.max_chunks_per_stream and not ends:
            raise StreamLimit("streamCache.maxChunksPerStream", self._config.max_chunks_per_stream)

    def _applied(self, stream: StreamRecord, lane: LaneRecord, now: int) -> tuple[StreamRecord, LaneRecord]:
        draft = self._draft
        was_open = lane.status == "open"
        lane = attrs.evolve(
            lane,
            event_id=draft.event_id,
            event_type=draft.event_type,
            visibility=self.visibility,
            occurred_at=draft.occurred_at,
        )
        stream = attrs.evolve(stream, event_count=stream.event_count + 1, active=now)
        if draft.event_type == DELTA:
            lane = attrs.evolve(lane, status="open", snapshot=_extended(lane.snapshot, draft.payload))
        else:
            seq = stream.last_event_seq + 1
            stream = attrs.evolve(stream, last_event_seq=seq, is_finished=draft.event_type == FINISH)
            lane = attrs.evolve(lane, last_event_seq=seq)
        if draft.event_type == SNAPSHOT:
            lane = attrs.evolve(lane, status="open", snapshot=dumps(draft.payload))
        elif draft.event_type in TERMINAL:
            lane = _ended(lane, TERMINAL[draft.event_type], draft.payload)
        if len(lane.snapshot.encode()) > self._config.max_memory_size:
            raise StreamLimit("streamCache.maxMemorySize", self._config.max_memory_size)
        more = (lane.status == "open") - was_open
        return attrs.evolve(stream, open_lanes=0 if stream.is_finished else stream.open_lanes + more), lane

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
            visibility=self.visibility,
            occurred_at=draft.occurred_at,
            payload=dumps(payload),
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

    def _receipt(self, stream: StreamRecord, seq: int, status: str, *, is_new: bool) -> EventReceipt:
        return EventReceipt(
            client_msg_no=stream.client_msg_no,
            event_key=self._draft.event_key,
            event_id=self._draft.event_id,
            event_seq=seq,
            status=status,
            from_uid=self._draft.from_uid or stream.from_uid,
            message_id=stream.message_id,
            is_new=is_new,
        )


def register(sealer: Sealer, message: Message) -> None:
    """Begin the stream of a message, in the transaction that stores it.

    Events that came before their message stay; those of an older message with the same number go.
    """
    tail = sealer.tail(message.channel)
    key = keys.streamed(tail.slot, keys.STREAM, tail.number, message.client_msg_no)
    value = sealer.txn.get(key)
    stream = attrs.evolve(_begun(message), active=sealer.now)
    if value is not None:
        known = records.decode_stream(value)
        if known.message_id:
            _empty(sealer, message)
        else:
            stream = attrs.evolve(known, message_id=message.message_id, from_uid=message.sender)
    sealer.emit(PutRows(tail.slot, ((key, records.encode_fields(stream)),)))


def empty_stream(sealer: Sealer, message: Message) -> None:
    """Delete what the stream of a message has collected, and end it: the message was recalled."""
    found = state_of(sealer.txn, message.channel, message.client_msg_no)
    if found is None or found.stream.message_id != message.message_id:
        return
    _empty(sealer, message)
    stream = attrs.evolve(found.stream, is_finished=True, open_lanes=0)
    tail = sealer.tail(message.channel)
    key = keys.streamed(tail.slot, keys.STREAM, tail.number, message.client_msg_no)
    sealer.emit(PutRows(tail.slot, ((key, records.encode_fields(stream)),)))


def _empty(sealer: Sealer, message: Message) -> None:
    tail = sealer.tail(message.channel)
    tables = (keys.LANE, keys.STREAM_EVENT, keys.EVENT_ID)
    prefixes = [keys.streamed(tail.slot, table, tail.number, message.client_msg_no) for table in tables]
    gone = [raw for prefix in prefixes for raw, _ in _queries.rows(sealer.txn, prefix)]
    row = open_row(message.channel, message.client_msg_no, is_open=False)
    sealer.emit(PutRows(tail.slot, (*((raw, None) for raw in gone), row)))


def _begun(message: Message, *, is_finished: bool = False) -> StreamRecord:
    return StreamRecord(
        client_msg_no=message.client_msg_no,
        message_id=message.message_id,
        from_uid=message.sender,
        is_finished=is_finished,
    )


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


def open_row(channel: ChannelKey, client_msg_no: str, *, is_open: bool) -> tuple[bytes, bytes | None]:
    """Return the row that says that a stream is open, without a value if it is not."""
    key = keys.table(slot_of(channel.id), keys.OPEN_STREAM)
    key += keys.digest(f"{channel.type}\0{channel.id}\0{client_msg_no}")
    return key, records.encode_open(channel, client_msg_no) if is_open else None


def open_streams(txn: lmdb.Transaction) -> list[tuple[ChannelKey, str]]:
    """Return the streams that have an open lane."""
    return [
        records.decode_open(value)
        for slot in range(SLOT_COUNT)
        for _, value in _queries.rows(txn, keys.table(slot, keys.OPEN_STREAM))
    ]


def _anchor(sealer: Sealer, draft: EventDraft) -> Message | None:
    newest = _queries.messages_back(sealer.txn, draft.channel, 2**63)
    return next((each for each in islice(newest, _ANCHOR_LOOK_BACK) if each.client_msg_no == draft.client_msg_no), None)


def _extended(snapshot: str, payload: Any) -> str:
    """Add a delta to a snapshot: text is joined, of any other kind the last one is kept."""
    if not isinstance(payload, dict) or payload.get("kind") != "text" or not isinstance(payload.get("delta"), str):
        return dumps(payload)
    known = json.loads(snapshot) if snapshot else None
    text = known.get("text", "") if isinstance(known, dict) and known.get("kind") == "text" else ""
    return dumps({"kind": "text", "text": str(text) + payload["delta"]})


def _ended(lane: LaneRecord, status: str, payload: Any) -> LaneRecord:
    given = payload if isinstance(payload, dict) else {}
    snapshot = given.get("snapshot")
    reason, error = given.get("end_reason"), given.get("error")
    return attrs.evolve(
        lane,
        status=status,
        snapshot=lane.snapshot if snapshot is None else dumps(snapshot),
        end_reason=reason if isinstance(reason, int) and not isinstance(reason, bool) else 0,
        error=error if isinstance(error, str) else "",
    )


def dumps(value: Any) -> str:
    """Return JSON text that UTF-8 can hold: half a surrogate pair, which JSON allows, stays an escape."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text
