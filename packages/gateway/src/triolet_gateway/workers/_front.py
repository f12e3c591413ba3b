"""The worker's end of a session: what its socket and layers call, and what the core orders of it."""

import struct
import traceback
import uuid
from collections.abc import Sequence
from typing import Any

import triolet_protocol as wire
from triolet_gateway._admission import Peer, Proxies
from triolet_gateway._config import GatewayConfig
from triolet_gateway._intake import NO_JSON
from triolet_gateway._keys import Keys
from triolet_gateway._outbox import HasPending
from triolet_gateway._reactor import Reactor
from triolet_gateway._served import ServerEnd
from triolet_gateway._socket import SocketConnection
from triolet_gateway.workers import _orders as orders
from triolet_gateway.workers import _reports as reports
from triolet_gateway.workers._link import Link

MOST_BYTES_WAITING = 1 << 20
"""Reports that may wait for the core; beyond, sockets are left alone."""
_HALF = 1 << 31


class PatientReactor(Reactor):
    """Leaves the sockets alone while the core is behind."""

    def __init__(self, turn: "Front", link: Link[orders.AnyOrder]) -> None:
        super().__init__(turn)
        self._link = link

    async def _turn(self) -> None:
        await self._link.wait_room(MOST_BYTES_WAITING)
        await super()._turn()


class Front:
    """What the connections of one worker share."""

    def __init__(self, config: GatewayConfig, link: Link[orders.AnyOrder]) -> None:
        self.config = config
        self.link = link
        self.reactor: Reactor = PatientReactor(self, link)
        self.proxies = Proxies(config)
        self.keys = Keys()
        self.limits = wire.Limits(config.max_frame_size, config.max_login_bytes)
        self.draining: set[HasPending] = set()
        self.sessions: dict[int, FrontSession] = {}
        self._acked: dict[tuple[bytes, int], list[tuple[int, int]]] = {}
        self._is_in_turn = False
        self.changed: set[FrontSession] = set()
        """Those with something to count that is not reported yet."""

    def __enter__(self) -> None:
        """Take a turn of the reactor: RECVACKs that are alike are reported together at its end."""
        self._is_in_turn = True

    def __exit__(self, *_: object) -> None:
        self._is_in_turn = False
        with self.link:
            self._report_acked()

    def report_acked(self, session: "FrontSession", size: int, acked: bytes, recvacks: int) -> None:
        """Tell the core of RECVACKs that came alone, soon."""
        if self._is_in_turn:
            self._acked.setdefault((acked, recvacks), []).append((session.number, size))
        else:
            self.report(reports.Acked([session.number], [size], acked, recvacks))

    def _report_acked(self) -> None:
        alike, self._acked = self._acked, {}
        for (acked, recvacks), senders in alike.items():
            numbers, sizes = zip(*senders, strict=True)
            self.link.put(reports.encode(reports.Acked(list(numbers), list(sizes), acked, recvacks)))

    def dismiss(self, host: str) -> None:
        """Do nothing: the core counts connections."""

    def report(self, report: reports.Report) -> None:
        """Tell the core, after what was told to it before."""
        if self._acked:
            self._report_acked()
        self.link.put(reports.encode(report))

    def report_traffic(self) -> None:
        """Tell the core what was carried."""
        if not self.changed:
            return
        carried = [session.take_traffic() for session in self.changed]
        self.changed.clear()
        self.report(reports.Traffic(carried, sum(each.pending for each in self.draining)))


class FrontSession:
    """One client. Knows how its bytes are to be read and written, and nothing else."""

    __slots__ = (
        "_agreed",
        "_bytes_in",
        "_bytes_out",
        "_front",
        "_has_begun",
        "_is_told_to_pause",
        "_last_frame",
        "_pings",
        "connection",
        "is_closing",
        "is_owed",
        "number",
        "one_packet_per_write",
        "outbox",
        "peer",
    )

    def __init__(
        self, front: Front, outbox: SocketConnection, number: int, peer: Peer, *, one_packet_per_write: bool
    ) -> None:
        self._front = front
        self.outbox = outbox
        self.number = number
        self.peer = peer
        self.one_packet_per_write = one_packet_per_write
        self.connection: ServerEnd = wire.Connection(wire.Role.SERVER, front.limits)
        self._agreed: wire.KeyPair = front.keys.pair()
        self._bytes_in = self._bytes_out = self._pings = 0
        self._last_frame = 0
        """The frame to the core with the last report of this connection."""
        self._has_begun = self._is_told_to_pause = False
        self.is_closing = self.is_owed = False

    # --- what the socket and its layers ask

    @property
    def is_known(self) -> bool:
        """Whether the client has said who it is."""
        return self.connection.state is not wire.State.IDLE

    @property
    def is_paused(self) -> bool:
        """Whether the core decides, or has to wait."""
        return self._is_told_to_pause or self.connection.state is wire.State.PENDING

    @property
    def takes_parts(self) -> bool:
        """Whether it does not matter to this client's protocol how its bytes are cut."""
        return self._has_begun and isinstance(self.connection, wire.Connection)

    @property
    def speaks_for_others(self) -> bool:
        """Whether the peer is a proxy that may name its client."""
        return self._front.proxies.is_proxy(self.peer[0])

    def open(self) -> None:
        """Begin."""
        self._front.sessions[self.number] = self

    def close(self) -> None:
        """Tell the core that the socket is closed."""
        self.is_closing = True
        if self._front.sessions.pop(self.number, None) is not None:
            self._front.changed.discard(self)
            self._front.report(reports.Closed(self.number, self._bytes_in, self._bytes_out, self._pings))

    def rename(self, client: Peer) -> None:
        """Tell the core, which may not want that client."""
        self.peer = client
        self._report(reports.Renamed, *client)

    def on_protocol_error(self, error: wire.RemoteProtocolError) -> None:
        """Tell the core, which ends the connection."""
        self.is_closing = True
        self._report(reports.Broke, int(error.reason), error.detail, error.answer)

    def on_crash(self) -> None:
        """Tell the core of the exception that is being handled."""
        self.is_closing = True
        self._front.report(reports.Crashed(self.number, traceback.format_exc()))

    # --- in

    def take(self, data: bytes) -> None:
        """Handle what came in one read."""
        self._bytes_in += len(data)
        if not self.is_closing and (self._has_begun or self._begin(data)):
            self.connection.receive_data(data)
            self.go_on()
        if self._bytes_in:
            self._front.changed.add(self)

    def _begin(self, data: bytes) -> bool:
        """Choose the protocol by the first byte that is no white space. False if there is nothing to take."""
        is_json = wire.begins_json(data)
        if is_json is None:
            return False
        self._has_begun = True
        if not is_json:
            self.one_packet_per_write = False  # where a packet ends can be seen
        else:
            self.outbox.use_text()
            if self._front.config.disable_jsonrpc:
                raise wire.RemoteProtocolError(wire.ReasonCode.UNKNOWN, "JSON-RPC is switched off", NO_JSON)
            self.connection = wire.JsonConnection(
                self._front.limits, lambda: uuid.uuid4().hex, is_stream=not self.one_packet_per_write
            )
        return True

    def go_on(self) -> None:
        """Report what is complete, until the core has to decide."""
        try:
            while not (self.is_closing or self.is_paused):
                batch = self.connection.batch()
                if not batch:
                    return
                self._on_batch(batch)
                if self.connection.is_drained:
                    return
        except wire.RemoteProtocolError as exc:
            self.on_protocol_error(exc)

    def _on_batch(self, batch: wire.Batch) -> None:
        if len(batch) == batch.pings and self._is_all_handled:
            self._pings += batch.pings
            self._send([self.connection.send(wire.Pong()) for _ in range(batch.pings)])
            return
        is_leaving = False
        for event in batch.events:
            match event:
                case wire.ConnectReceived(connect=connect):
                    self._want(connect)
                case wire.SubReceived(sub=sub):
                    self._report(
                        reports.Subscribed, sub.sub_no, sub.channel_id, sub.channel_type, sub.action, sub.param
                    )
                case wire.AnswerReady(answer=answer, error=error):
                    self._report(reports.Answered, answer, error)
                case wire.DisconnectReceived():
                    is_leaving = True
        self._report_messages(batch)
        if is_leaving:
            self.is_closing = self.is_owed = True
            self._report(reports.SaidGoodBye)

    def _report_messages(self, batch: wire.Batch) -> None:
        sends, marks = batch.sends, batch.marks
        if batch.streams or batch.stream_events:
            streams = [(place, part.stream_no, part.ends) for place, part in batch.streams.items()]
            events = [(place, (each.id, each.type, each.timestamp, each.data)) for place, each in batch.stream_events]
            self._report(reports.Streamed, sends, marks, streams, events)
            sends, marks = [], []
        if batch.recvacks and not (sends or batch.pings):
            size, self._bytes_in = self._bytes_in, 0
            self._last_frame = self._front.link.sent + 1 & 0xFFFFFFFF
            acked = struct.pack(f">{len(batch.acked)}q", *batch.acked)
            self._front.report_acked(self, size, acked, batch.recvacks)
        elif sends or batch.pings:
            acked = struct.pack(f">{len(batch.acked)}q", *batch.acked)
            self._report(reports.Took, sends, marks, acked, batch.recvacks, batch.pings)

    def _want(self, connect: wire.Connect) -> None:
        """Agree on keys, and ask the core for its decision: a client with a bad key must not displace others."""
        connection, problem = self.connection, ""
        is_json = isinstance(connection, wire.JsonConnection)
        is_limao = connection.family is wire.Family.LIMAO
        if not (self._front.config.disable_encryption or is_json or (is_limao and connection.version < 3)):
            try:
                pair = self._front.keys.pair()
                self._agreed = wire.AgreedKeys(pair, pair.aes_key(connect.client_key))
            except wire.RemoteProtocolError as exc:
                problem = exc.detail
        self._report(
            reports.Wanted,
            connection.version,
            is_limao,
            is_json,
            connection.has_events,
            connection.names_streams,
            connect.device_flag,
            connect.device_id,
            connect.uid,
            connect.token,
            connect.client_timestamp,
            problem,
        )

    @property
    def _is_all_handled(self) -> bool:
        """Whether the core has handled every report of this connection."""
        link = self._front.link
        return not self._is_told_to_pause and (link.confirmed - self._last_frame) & 0xFFFFFFFF < _HALF

    def _report(self, kind: type[Any], *fields: object) -> None:
        size, self._bytes_in = self._bytes_in, 0
        self._last_frame = self._front.link.sent + 1 & 0xFFFFFFFF
        self._front.report(kind(self.number, size, *fields))

    def take_traffic(self) -> tuple[int, int, int, int, int]:
        """Return what is to be counted, and begin anew."""
        carried = (self.number, self._bytes_in, self._bytes_out, self._pings, self.outbox.pending)
        self._bytes_in = self._bytes_out = self._pings = 0
        return carried

    # --- out

    def count_out(self, size: int) -> None:
        """Count bytes that are sent."""
        self._bytes_out += size
        self._front.changed.add(self)

    def _send(self, frames: Sequence[bytes]) -> None:
        self.count_out(sum(map(len, frames)))
        self.write_counted(frames)

    def write_counted(self, frames: Sequence[bytes]) -> None:
        """Give frames that are counted to the socket; a client that reads too slowly is left."""
        if not self.outbox.write(frames):
            self.fall_behind()

    def fall_behind(self) -> None:
        """Be left: what was written does not fit into the outbox, or the client is gone."""
        if not self.is_closing:
            self.is_closing = True
            self._front.report(reports.Slow(self.number))
        self.outbox.abort()

    def carry_out(self, order: orders.AnyOrder) -> None:
        """Do what the core orders."""
        connection = self.connection
        match order:
            case orders.Acknowledge():
                apart = self.one_packet_per_write
                self._send(connection.encode_sendacks(order.marks, order.receipts, apart=apart))
            case orders.Accept():
                self._accept(order)
            case orders.Reject():
                self._send([connection.reject(order.reason)])
            case orders.SendPong():
                self._send([connection.send(wire.Pong())])
            case orders.SendSubAck():
                answer = wire.SubAck(order.sub_no, order.channel_id, order.channel_type, order.action, order.reason)
                self._send([connection.send(answer)])
            case orders.SendEvent():
                self._send_event(order)
            case orders.SendDisconnect():
                self._send([connection.send(wire.Disconnect(order.reason, order.text))])
            case orders.SendRaw():
                self._send([order.data])
            case _:
                self._direct(order)

    def _accept(self, order: orders.Accept) -> None:
        answer = self.connection.accept(
            self._agreed,
            order.salt,
            time_diff_ms=order.time_diff_ms,
            node_id=order.node_id,
            encrypt=not self._front.config.disable_encryption,
        )
        self._agreed = self._front.keys.pair()  # nobody needs that key any more
        self._send([answer])
        self.outbox.resume()

    def _send_event(self, order: orders.SendEvent) -> None:
        frame = b""
        try:
            frame = self.connection.send(wire.EventFrame(order.id, order.type, order.timestamp, order.data))
        except wire.LocalProtocolError:
            self._front.report(reports.Dropped(self.number, order.type))
            return
        if len(frame) > self._front.config.max_frame_size:
            self._front.report(reports.Dropped(self.number, order.type))
            return
        self._send([frame])

    def _direct(self, order: orders.AnyOrder) -> None:
        match order:
            case orders.Pause():
                self._is_told_to_pause = True
                self.outbox.pause()
            case orders.Resume():
                self._is_told_to_pause = False
                self.outbox.resume()
            case orders.Ignore():
                self.is_closing = True
            case orders.Finish():
                self.is_closing, self.is_owed = True, False
                self.outbox.finish()
            case orders.Abort():
                self.outbox.abort()
