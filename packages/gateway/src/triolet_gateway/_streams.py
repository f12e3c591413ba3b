"""Streams that clients write: begun by a message with a stream bit, gone on with by more of them or by EVENTs.

Theory of operation. A SEND with a stream bit that names no stream begins one: it is stored like any message, and its
client_msg_no is the stream's number. A SEND that names one is a piece: it becomes an event of that stream, has no
place in its channel (seq 0), and readers get it as an EVENT. An empty piece, or JSON-RPC's header bit `end`, ends the
stream. Where a SEND has no field for the number (version 5, LiMaoIM) the client_msg_no is that of the stream, and a
repeat is known by its client_seq. An EVENT `stream.*` of a client is one for the stream in its data; the EVENT
`stream.ack` (JSON-RPC: the result) answers it.

Only the sender of its first message writes a stream, and from one connection at a time: the last that wrote. If that
one ends, and no other goes on within `gateway.streamGrace`, the stream is closed.

Source: semantics.md, section 7.1; wire-protocol.md, sections 2.6 and 3.3. The rest is our own: no server had it.
"""

import json
from collections.abc import Sequence
from itertools import starmap
from typing import TYPE_CHECKING, Any

import attrs
import trio

import triolet_protocol as wire
from triolet_core import (
    Broker,
    ChannelKey,
    ChannelMismatch,
    Draft,
    EventDraft,
    EventReceipt,
    Overloaded,
    ReasonCode,
    Receipt,
    StoreClosed,
    StreamClosed,
    StreamLimit,
    TrioletError,
    channel_key,
)
from triolet_core.model import NO_PERSIST
from triolet_gateway._stream_pieces import BadEvent, closing, event_of, piece_of, replaced

if TYPE_CHECKING:
    from triolet_gateway._gateway import Gateway
    from triolet_gateway._session import ClientSession

PATIENCE_S = 60.0
"""Longest wait for a commit whose outcome nobody knows."""
At = tuple[ChannelKey, str]
"""A stream: its channel and number."""


@attrs.define(eq=False)
class _Writer:
    """Who writes a stream now."""

    session: "ClientSession"
    first_seq: int
    """The client_seq of the message that began it."""


class StreamWriters:
    """The streams that clients of one gateway write."""

    def __init__(self, gateway: "Gateway", broker: Broker) -> None:
        self._gateway = gateway
        self._broker = broker
        self._writers: dict[At, _Writer] = {}
        self._of_session: dict[ClientSession, set[At]] = {}

    @property
    def count(self) -> int:
        """Streams that are being written."""
        return len(self._writers)

    # --- coming and going

    def greet(self, session: "ClientSession") -> None:
        """Show a session that has logged in what the open streams of its channels hold."""
        if self._broker.streams.open_count and session.connection.has_events:
            self._gateway.start_soon(self._catch_up, session)

    async def _catch_up(self, session: "ClientSession") -> None:
        try:
            await self._broker.streams.catch_up(session, self._gateway.config.outbox_bytes // 4)
        except TrioletError as exc:
            self._gateway.log.warning("open streams not shown", connection_id=session.connection_id, detail=str(exc))

    def leave(self, session: "ClientSession") -> None:
        """Give the streams of a session that has ended some time to be gone on with."""
        if self._of_session.get(session):
            self._gateway.start_soon(self._abandon_later, session)

    async def _abandon_later(self, session: "ClientSession") -> None:
        await trio.sleep(self._gateway.config.stream_grace)
        left = self._of_session.pop(session, set())
        for at in left:
            del self._writers[at]
        for at in left:
            if at in self._writers:
                continue
            try:
                await self._broker.streams.abandon(*at)
            except TrioletError as exc:  # its writer's silence ends it later
                self._gateway.log.warning("stream not ended", detail=str(exc))

    def _claim(self, at: At, session: "ClientSession", first_seq: int = -1) -> None:
        writer = self._writers.get(at)
        if writer is None:
            writer = self._writers[at] = _Writer(session, first_seq)
        elif writer.session is not session:
            self._part(writer.session, at)
            writer.session = session
        self._of_session.setdefault(session, set()).add(at)
        if session not in self._gateway.sessions:  # it ended while its batch waited
            self.leave(session)

    def _release(self, at: At) -> None:
        writer = self._writers.pop(at, None)
        if writer is not None:
            self._part(writer.session, at)

    def _part(self, session: "ClientSession", at: At) -> None:
        """Take a stream from a session, which is forgotten with its last one."""
        mine = self._of_session[session]
        mine.discard(at)
        if not mine:
            del self._of_session[session]

    # --- what comes in

    async def submit(self, session: "ClientSession", batch: wire.Batch) -> None:
        """Submit a batch that has parts of streams in it, everything in its order."""
        run: list[Draft] = []
        first = 0
        events = list(reversed(batch.stream_events))
        for place, draft in enumerate(starmap(Draft, batch.sends)):
            has_event = bool(events) and events[-1][0] <= place
            part = batch.streams.get(place)
            if run and (has_event or part is not None):
                await session.submit(run, batch.marks[first:place])
                run = []
            while events and events[-1][0] <= place:
                await self._on_event(session, events.pop()[1])
            if part is not None:
                await self._on_part(session, draft, part, batch.marks[place])
                continue
            first = first if run else place
            run.append(draft)
        if run:
            await session.submit(run, batch.marks[first : first + len(run)])
        while events:
            await self._on_event(session, events.pop()[1])

    async def _on_part(self, session: "ClientSession", draft: Draft, part: wire.StreamSend, mark: wire.Mark) -> None:
        number = draft.client_msg_no
        at = self._at(session, draft, part.stream_no or number)
        if (part.stream_no and part.stream_no != number) or self._is_writer(at, session):
            await self._on_piece(session, draft, part, mark)
        elif draft.refusal or not number or draft.flags & NO_PERSIST:
            await session.submit([draft], [mark])  # no stream without a number, and none of what is not kept
        else:
            await self._begin(session, draft, at, mark)

    async def _begin(self, session: "ClientSession", draft: Draft, at: At, mark: wire.Mark) -> None:
        """Send the message that a stream begins with, and wait until it is stored."""
        if len(self._of_session.get(session, ())) >= self._gateway.config.streams:
            draft.refusal = ReasonCode.RATE_LIMIT
        if self._owner(at):  # somebody else's, which a second beginning would empty
            draft.refusal = ReasonCode.NOT_ALLOW_SEND
        draft.is_stream = not draft.refusal
        if draft.is_stream:
            self._claim(at, session, mark[0])
        receipt = await self._send(session, draft)
        if draft.is_stream and not receipt.seq:
            self._release(at)
        session.acknowledge([mark], [receipt])

    async def _send(self, session: "ClientSession", draft: Draft) -> Receipt:
        answered = trio.Event()
        receipts = [Receipt(ReasonCode.SYSTEM_ERROR, 0, 0)]

        def done(given: list[Receipt]) -> None:
            receipts[:] = given
            answered.set()

        await self._count(session, draft)
        try:
            await self._broker.messages.submit(session.device, [draft], done, session)
        except Overloaded:
            return Receipt(ReasonCode.RATE_LIMIT, 0, 0)
        except StoreClosed:
            session.end()
            return receipts[0]
        with trio.move_on_after(PATIENCE_S):
            await answered.wait()
        return receipts[0]

    async def _count(self, session: "ClientSession", draft: Draft) -> None:
        gateway = self._gateway
        if gateway.rates is not None:
            await gateway.rates.apply(session.connection_id, session.device.uid, [draft])
        gateway.counters.sends_total += 1
        session.in_messages += 1
        session.in_message_bytes += len(draft.payload)

    def _at(self, session: "ClientSession", draft: Draft, number: str) -> At:
        return channel_key(session.device.uid, draft.channel_id, draft.channel_type), number

    def _owner(self, at: At) -> str:
        """Return whose message began a stream; empty if there is none."""
        writer = self._writers.get(at)
        if writer is not None:
            return writer.session.device.uid
        found = self._broker.streams.state(*at)
        return found.stream.from_uid if found is not None and found.stream.message_id else ""

    def _is_writer(self, at: At, session: "ClientSession") -> bool:
        return self._owner(at) == session.device.uid

    # --- pieces

    async def _on_piece(self, session: "ClientSession", draft: Draft, part: wire.StreamSend, mark: wire.Mark) -> None:
        number = part.stream_no or draft.client_msg_no
        at = self._at(session, draft, number)
        writer = self._writers.get(at)
        names = session.connection.names_streams
        is_repeat = number == draft.client_msg_no and (names or (writer is not None and writer.first_seq == mark[0]))
        receipt = self._first(at) if is_repeat else None
        if receipt is None:
            piece_id = draft.client_msg_no if number != draft.client_msg_no else str(mark[0])
            receipt = await self._add_piece(session, draft, at, f"{number}:{piece_id}", ends=part.ends)
        session.acknowledge([mark], [receipt])

    def _first(self, at: At) -> Receipt | None:
        """Return what the message that began a stream was answered, None if it is not stored yet."""
        message = self._broker.messages.by_client_msg_no(*at)
        return None if message is None else Receipt(ReasonCode.SUCCESS, message.message_id, message.seq)

    async def _add_piece(self, session: "ClientSession", draft: Draft, at: At, event_id: str, *, ends: bool) -> Receipt:
        if not self._is_writer(at, session):
            draft.refusal = draft.refusal or ReasonCode.NOT_ALLOW_SEND
        reason = await self._judge(session, draft)
        if reason != ReasonCode.SUCCESS:
            return Receipt(reason, self._broker.messages.new_id(), 0)
        drafts = [piece_of(at, session.device.uid, event_id, draft.payload)] if draft.payload else []
        if ends or not drafts:
            drafts.append(closing(at, session.device.uid))
        return await self._store(session, at, drafts)

    async def _judge(self, session: "ClientSession", draft: Draft) -> int:
        await self._count(session, draft)
        return (await self._broker.messages.judge(session.device, draft))[1]

    async def _store(self, session: "ClientSession", at: At, drafts: Sequence[EventDraft]) -> Receipt:
        receipt = await self._add(session, at, drafts)
        if isinstance(receipt, ReasonCode):
            return Receipt(receipt, self._broker.messages.new_id(), 0)
        return Receipt(ReasonCode.SUCCESS, receipt.message_id, 0)

    async def _add(self, session: "ClientSession", at: At, drafts: Sequence[EventDraft]) -> EventReceipt | ReasonCode:
        """Store events of one stream; returns what became of the last, or why none was."""
        self._claim(at, session)
        size = sum(len(str(draft.payload)) for draft in drafts)
        self._gateway.hold(size)
        try:
            receipt = (await self._broker.streams.add_all(drafts, exclude=session))[-1]
        except StreamClosed:
            self._release(at)
            return ReasonCode.NOT_ALLOW_SEND
        except ChannelMismatch:
            self._release(at)
            return ReasonCode.CHANNEL_ID_ERROR
        except StreamLimit:
            return ReasonCode.RATE_LIMIT
        except StoreClosed:
            session.end()
            return ReasonCode.SYSTEM_ERROR
        except TrioletError as exc:
            self._gateway.log.warning("stream not written", connection_id=session.connection_id, detail=str(exc))
            return ReasonCode.SYSTEM_ERROR
        finally:
            self._gateway.hold(-size)
        if receipt.status not in ("", "open"):
            self._release(at)
        return receipt

    # --- events

    async def _on_event(self, session: "ClientSession", frame: wire.EventFrame) -> None:
        try:
            request = event_of(session.device.uid, frame)
            data: dict[str, Any] = {"client_msg_no": request.client_msg_no, "event_key": request.event_key}
            result = await self._try(session, request)
        except BadEvent as exc:
            self._gateway.counters.bad_requests_total += 1
            self._gateway.log.debug("bad event", connection_id=session.connection_id, detail=str(exc))
            data, result = {}, ReasonCode.PAYLOAD_DECODE_ERROR
        if isinstance(result, EventReceipt):
            data |= {"msg_event_seq": result.event_seq, "stream_status": result.status}
            result = ReasonCode.SUCCESS
        data["reason_code"] = int(result)
        now = int(self._broker.clock_s() * 1000)
        text = json.dumps(data, separators=(",", ":")).encode()
        session.write(wire.EventFrame(frame.id, wire.STREAM_ACK, now, text))

    async def _try(self, session: "ClientSession", request: Any) -> EventReceipt | ReasonCode:
        at: At = (request.channel, request.client_msg_no)
        if not self._is_writer(at, session):
            return ReasonCode.NOT_ALLOW_SEND
        draft, event = request.draft, request.event
        if event.payload is not None:
            reason = await self._judge(session, draft)
            if reason != ReasonCode.SUCCESS:
                return ReasonCode(reason)
            event = replaced(event, request.payload, draft.payload)
        return await self._add(session, at, [event])
