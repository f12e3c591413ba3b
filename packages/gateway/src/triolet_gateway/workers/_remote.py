"""A session whose socket is in a worker: reports of it come in, orders to it go out."""

import struct
from collections import deque
from collections.abc import Sequence
from itertools import starmap
from typing import TYPE_CHECKING, Any

import trio

import triolet_protocol as wire
from triolet_core import Draft
from triolet_gateway._admission import Peer
from triolet_gateway._fanout import Sent
from triolet_gateway._gateway import Gateway
from triolet_gateway._guard import crash
from triolet_gateway._session import ClientSession
from triolet_gateway.workers import _orders as orders
from triolet_gateway.workers import _reports as reports

if TYPE_CHECKING:
    from triolet_gateway.workers._worker import Worker

_ID_BYTES = 8


class RemoteConnection:
    """Stands for the protocol of a client; what it encodes are orders to the worker that has the keys."""

    __slots__ = ("_number", "family", "has_events", "key_problem", "names_streams", "state", "version")
    is_drained = True

    def __init__(self, number: int) -> None:
        self._number = number
        self.family = wire.Family.WUKONG
        self.has_events = self.names_streams = False
        self.key_problem = ""
        self.state = wire.State.IDLE
        self.version = 0

    def on_wanted(self, report: reports.Wanted) -> wire.Connect:
        """Take over what the worker knows of a client that wants in."""
        self.family = wire.Family.LIMAO if report.is_limao else wire.Family.WUKONG
        self.version = report.version
        self.has_events, self.names_streams = report.has_events, report.names_streams
        self.key_problem = report.key_problem
        self.state = wire.State.PENDING
        return wire.Connect(
            report.version,
            report.device_flag,
            report.device_id,
            report.uid,
            report.token,
            report.client_timestamp,
            client_key="",
        )

    def receive_data(self, data: bytes) -> None:
        """Do nothing: bytes come to the worker."""

    def batch(self) -> wire.Batch:
        """Return nothing: packets come as reports."""
        return wire.Batch()

    def accept(
        self, private_key: wire.KeyPair, salt: bytes, *, time_diff_ms: int, node_id: int, encrypt: bool = True
    ) -> bytes:
        """Let the client in. The worker has agreed with it on keys already, and knows whether to encrypt.

        Raises:
            RemoteProtocolError: There was no agreement.
        """
        if self.key_problem:
            raise wire.RemoteProtocolError(
                wire.ReasonCode.AUTH_FAIL, self.key_problem, self.reject(wire.ReasonCode.AUTH_FAIL)
            )
        self.state = wire.State.READY
        return orders.encode(orders.Accept(self._number, salt, time_diff_ms, node_id))

    def reject(self, reason: int) -> bytes:
        """Turn the client away."""
        self.state = wire.State.CLOSED
        return orders.encode(orders.Reject(self._number, reason))

    def send(self, frame: wire.Frame) -> bytes:
        """Order a frame.

        Raises:
            LocalProtocolError: A session sends no such frame, or none holds it.
        """
        number = self._number
        match frame:
            case wire.Pong():
                order: orders.Order = orders.SendPong(number)
            case wire.SubAck():
                order = orders.SendSubAck(
                    number, frame.sub_no, frame.channel_id, frame.channel_type, frame.action, frame.reason_code
                )
            case wire.EventFrame():
                order = orders.SendEvent(number, frame.id, frame.type, frame.timestamp, frame.data)
            case wire.Disconnect():
                order = orders.SendDisconnect(number, frame.reason_code, frame.reason)
            case _:
                raise wire.LocalProtocolError(f"a session sends no {type(frame).__name__}")
        try:
            return orders.encode(order)
        except (UnicodeEncodeError, OverflowError) as exc:
            raise wire.LocalProtocolError(f"a {type(frame).__name__} holds what no frame does") from exc

    def encode_recvs(self, recvs: Sequence[wire.RecvFields], *, apart: bool = False) -> list[bytes]:
        """Order RECVs."""
        return [orders.encode(orders.Deliver([self._number], list(recvs)))]

    def encode_sendacks(
        self, marks: Sequence[wire.Mark], receipts: Sequence[tuple[int, int, int]], *, apart: bool = False
    ) -> list[bytes]:
        """Order SENDACKs."""
        return [orders.encode(orders.Acknowledge(self._number, list(marks), list(receipts)))]


class RemoteOutbox:
    """Where a remote session writes: the link to its worker."""

    __slots__ = ("_is_gone", "_worker", "number", "pending", "session")
    descriptor = readable = -1

    def __init__(self, worker: "Worker") -> None:
        """Whoever makes it sets `session` and `number`."""
        self._worker = worker
        self._is_gone = False
        self.session: RemoteSession | None
        """None at the end, so that no circle is left for the collector."""
        self.number: int
        self.pending = 0
        """Bytes that wait in the worker, as it last said."""

    def leave(self) -> None:
        """The socket is closed: nobody has to be told anything."""
        self._is_gone = True

    def use_text(self) -> None:
        """Go on: the worker knows."""

    def write(self, frames: Sequence[bytes]) -> bool:
        """Send orders; False if the worker is too far behind. What a client that has gone is sent is lost."""
        return self._is_gone or self._worker.order(frames)

    def order(self, order: orders.Order) -> None:
        """Send an order that always has room: there are few of its kind in the life of a connection."""
        if not self._is_gone:
            self._worker.link.put(orders.encode(order))

    def wait_for(self, size: int) -> bool:
        """Do nothing: RECVACKs of many clients come together from the worker."""
        return False

    def resume(self) -> None:
        """Go on with what was kept, and let the worker read on."""
        if self.session is not None:
            self.session.resume()

    def finish(self) -> None:
        """Have the socket closed once everything is out."""
        self.order(orders.Finish(self.number))

    def abort(self) -> None:
        """Have the socket closed."""
        if self._is_gone and self.session is not None:
            self.session.vanish()
        self.order(orders.Abort(self.number))


class RemoteSession(ClientSession):
    """A session that is fed by reports. Its bytes are counted by the worker, its packets and messages here."""

    __slots__ = ("_has_vanished", "_is_over", "_is_told_to_pause", "_kept", "remote", "worker")
    outbox: RemoteOutbox

    def __init__(self, gateway: Gateway, worker: "Worker", peer: Peer, *, one_packet_per_write: bool) -> None:
        self.worker = worker
        outbox = RemoteOutbox(worker)
        super().__init__(gateway, outbox, peer, one_packet_per_write=one_packet_per_write)
        outbox.session, outbox.number = self, self.connection_id
        self.connection = self.remote = RemoteConnection(self.connection_id)
        self.audience = worker
        self._kept: deque[reports.Packets] | None = None  # an empty one takes 600 bytes
        """Reports that wait for the step before them: what was under way when the worker was told to pause."""
        self._is_told_to_pause = self._is_over = self._has_vanished = False

    # --- in

    def on_bytes(self, size: int, now: float) -> None:
        """Count what came in."""
        self.gateway.counters.bytes_in_total += size
        self.in_packet_bytes += size
        self.last_activity = now

    def on_report(self, report: reports.Packets) -> None:
        """Handle a report, or keep it if those before it wait. An error here ends this connection only."""
        if self._kept or self.is_paused:
            if self._kept is None:
                self._kept = deque()
            self._kept.append(report)
            return
        if self._closing or self.gateway.is_stopping:
            return  # what a stopping server does not acknowledge the client sends again
        self._handle(report)
        self._pause_if_needed()

    def on_recvacks(self, acked: bytes, count: int) -> None:
        """Handle RECVACKs that came alone; they wait for nothing, since nothing follows from them that others see."""
        if self._closing or self.gateway.is_stopping:
            return
        self.in_packets += count
        self.gateway.counters.recvacks_total += count
        try:
            if self.unacked and acked:
                self._on_acked(acked)
        except Exception:
            crash(self)
        if self._steps is not None:
            self._pause_if_needed()

    def resume(self) -> None:
        """Handle what was kept, as far as nothing has to be waited for."""
        self.go_on()
        if self.is_paused:
            return
        if self._is_over:
            self.vanish()
        elif self._is_told_to_pause:
            self._is_told_to_pause = False
            self.outbox.order(orders.Resume(self.connection_id))

    def go_on(self) -> None:
        """Handle what was kept."""
        while self._kept and not self.is_paused:
            report = self._kept.popleft()
            if not (self._closing or self.gateway.is_stopping):
                self._handle(report)

    def _pause_if_needed(self) -> None:
        if self.is_paused and not self._is_told_to_pause and not self._is_over:
            self._is_told_to_pause = True
            self.outbox.order(orders.Pause(self.connection_id))

    def _handle(self, report: reports.Packets) -> None:
        try:
            self._on_packets(report)
        except wire.RemoteProtocolError as exc:
            self.on_protocol_error(exc)
        except Exception:
            crash(self)

    def _on_packets(self, report: reports.Packets) -> None:
        match report:
            case reports.Took():
                self._on_took(report)
            case reports.Wanted():
                self._on_event(wire.ConnectReceived(self.remote.on_wanted(report)))
            case reports.Subscribed():
                sub = wire.Sub(0, report.sub_no, report.channel_id, report.channel_type, report.action, report.param)
                self._on_event(wire.SubReceived(sub))
            case reports.Answered():
                raw = orders.encode(orders.SendRaw(self.connection_id, report.answer))
                self._on_event(wire.AnswerReady(raw, report.error))
            case reports.Streamed():
                self._on_batch(_batch_of(report))
            case reports.SaidGoodBye():
                self._on_event(wire.DisconnectReceived(wire.Disconnect(0, "")))
            case reports.Renamed():
                self.rename((report.host, report.port))
            case reports.Broke():
                raw = orders.encode(orders.SendRaw(self.connection_id, report.answer)) if report.answer else b""
                self.on_protocol_error(wire.RemoteProtocolError(report.reason, report.detail, raw))

    def _on_event(self, event: wire.Event) -> None:
        batch = wire.Batch()
        batch.append(event)
        self._on_batch(batch)

    def _on_took(self, report: reports.Took) -> None:
        """Do what `_on_batch` does, for what nearly all reports are."""
        self.in_packets += len(report.sends) + report.recvacks + report.pings
        if report.pings:
            self.gateway.counters.pings_total += report.pings
            self._send([self.connection.send(wire.Pong())] * report.pings)
        if report.recvacks:
            self.gateway.counters.recvacks_total += report.recvacks
            if self.unacked and report.acked:
                self._on_acked(report.acked)
        if report.sends:
            self._offer(list(starmap(Draft, report.sends)), report.marks)

    def _on_acked(self, ids: bytes) -> None:
        unacked = self.unacked
        if unacked is None:
            return
        _, offset, commands = unacked.match(ids, _match_ids)
        if offset < len(ids):
            rest = ids[offset:]
            commands += unacked.discard(list(struct.unpack(f">{len(rest) // _ID_BYTES}q", rest)))
        self._on_confirmed(unacked, commands)

    # --- out

    @staticmethod
    def send_alike(sessions: Sequence[Any], recvs: Sequence[wire.RecvFields]) -> Sent:
        """Order messages for sessions of one worker; if there is no room, for each by itself."""
        fields = list(recvs)
        order = orders.Deliver([session.connection_id for session in sessions], fields)
        left: Sequence[tuple[int, Sequence[bytes]]] = ()
        if not sessions[0].worker.order([orders.encode(order)]):
            left = [(place, session.connection.encode_recvs(fields)) for place, session in enumerate(sessions)]
        return [0] * len(sessions), left

    def _send(self, frames: Sequence[bytes], *, packets: int = 0) -> bool:
        """Send orders; `packets` is how many packets they make."""
        self.out_packets += packets or len(frames)
        return self.write_counted(frames)

    def kick(self, reason: int, text: str, *, notify: bool, grace_s: float) -> None:
        """Take nothing more from this device and close it after `grace_s` seconds."""
        was_closing = self._closing
        super().kick(reason, text, notify=notify, grace_s=grace_s)
        if not was_closing:
            self.outbox.order(orders.Ignore(self.connection_id))

    # --- the end

    def on_closed(self) -> None:
        """The socket is closed. What the client sent before, and what waits for it, is still handled."""
        self.outbox.leave()
        self._is_over = True
        if not (self._kept and self.is_paused) or self._closing:
            self.vanish()

    def fall_behind(self) -> None:
        """Be left, even if the worker does not come to close the socket."""
        super().fall_behind()
        self.gateway.start_soon(self._vanish_soon)

    async def _vanish_soon(self) -> None:
        await trio.lowlevel.checkpoint()  # whoever delivers may be going through the sessions of this user
        self.vanish()

    def vanish(self) -> None:
        """Leave everything."""
        self.outbox.leave()
        self._kept = None
        if not self._has_vanished:
            self._has_vanished = True
            self.outbox.session = None
            self.worker.sessions.pop(self.connection_id, None)
            self.close()
            self.gateway.dismiss(self.peer[0])


def _batch_of(report: reports.Streamed) -> wire.Batch:
    return wire.Batch(
        sends=report.sends,
        marks=report.marks,
        streams={place: wire.StreamSend(number, ends) for place, number, ends in report.streams},
        stream_events=[(place, wire.EventFrame(*each)) for place, each in report.events],
    )


def _match_ids(data: bytes, offset: int, ids: bytes, start: int) -> tuple[int, int]:
    """Compare ids that were confirmed with those that are expected next; as `wire.Connection.match_recvacks`."""
    size = min(len(data) - offset, len(ids) - _ID_BYTES * start)
    begin = _ID_BYTES * start
    if data[offset : offset + size] != ids[begin : begin + size]:
        return 0, offset
    return size // _ID_BYTES, offset + size
