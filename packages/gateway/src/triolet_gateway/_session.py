"""One client: bytes in, frames out, and what core needs to see of it."""

import uuid
from collections.abc import Mapping, Sequence
from itertools import starmap

import trio

import triolet_protocol as wire
from triolet_core import Device, Draft, Event, Message, Overloaded, ReasonCode, Receipt, StoreClosed
from triolet_core.model import RED_DOT, SYNC_ONCE, SYSTEM_UID, ChannelType, peer_of, plain_channel
from triolet_core.session import ConnectionStatistics
from triolet_gateway._admission import Peer
from triolet_gateway._crash import end_crashed
from triolet_gateway._fanout import bytes_of, entries_for, frame_of, push_alike
from triolet_gateway._gateway import Gateway
from triolet_gateway._login import log_in
from triolet_gateway._outbox import Outbox
from triolet_gateway._subscriptions import Subscriptions
from triolet_gateway._traffic import Traffic, statistics_of
from triolet_gateway._unacked import Entry, Unacked

CLOSE_AFTER_ANSWER_S = 1.0
"""What a refused client has to read its answer."""
SLICE_BYTES = 65536
"""Most bytes of the binary protocol that are handled before others have their turn."""
_NO_JSON = b'{"jsonrpc":"2.0","error":{"code":-32601,"message":"JSON-RPC is switched off (disableJSONRPC)"}}'
_NOBODY = Device(uid="")
_SEES_PEER = frozenset({ChannelType.PERSON, ChannelType.AGENT})


class ClientSession(Traffic):
    """Implements `triolet_core.session.Session`. One per connection, from the first byte on."""

    __slots__ = (
        "_closing",
        "_has_begun",
        "_in_flight",
        "_in_flight_bytes",
        "_room",
        "_subscriptions",
        "_unacked",
        "bucket",
        "close_at",
        "connection",
        "connection_id",
        "device",
        "gateway",
        "last_activity",
        "one_packet_per_write",
        "outbox",
        "peer",
        "started_at",
    )

    def __init__(self, gateway: Gateway, outbox: Outbox, peer: Peer, *, one_packet_per_write: bool) -> None:
        super().__init__()
        self.gateway = gateway
        self.outbox = outbox
        self.peer = peer
        self.one_packet_per_write = one_packet_per_write
        self.connection: wire.Connection | wire.JsonConnection = wire.Connection(wire.Role.SERVER, gateway.limits)
        self.connection_id = gateway.new_connection_id()
        self.device = _NOBODY
        self.started_at = self.last_activity = trio.current_time()
        self.close_at, self.bucket = 0.0, 0
        self._has_begun = self._closing = False
        self._in_flight = self._in_flight_bytes = 0
        self._room: trio.Event | None = None
        self._unacked: Unacked | None = None
        self._subscriptions: Subscriptions | None = None

    # --- life

    def open(self) -> None:
        """Join the gateway."""
        self.gateway.sessions.add(self)
        self.gateway.watch(self)

    def close(self) -> None:
        """Leave everything; the socket is the caller's."""
        gateway = self.gateway
        self._closing = True
        gateway.sessions.discard(self)
        gateway.unwatch(self)
        gateway.retrying.discard(self)
        gateway.broker.presence.unregister(self)
        if self._subscriptions is not None:
            self._subscriptions.leave_all()
        if self._room is not None:
            self._room.set()

    @property
    def deadline(self) -> float:
        """When this session ends if nothing happens, on Trio's clock."""
        if self.close_at:
            return self.close_at
        config = self.gateway.config
        if self.connection.state is wire.State.READY:
            return self.last_activity + config.conn_idle_time
        return self.started_at + config.login_timeout

    def expire(self) -> None:
        """The deadline has passed."""
        if not self.close_at:
            self.gateway.counters.idle_closed_total += 1
            self.gateway.log.debug("connection closed", reason="silent", connection_id=self.connection_id)
        self._closing = True
        self.outbox.abort()

    def kick(self, reason: int, text: str, *, notify: bool, grace_s: float) -> None:
        """Take nothing more from this device and close it after `grace_s` seconds."""
        if self._closing:
            return
        self._closing = True
        if notify:
            code = ReasonCode.UNKNOWN if self.connection.family is wire.Family.LIMAO else reason
            self._write(wire.Disconnect(int(code), text))
        self.gateway.retrying.discard(self)
        self.close_at = trio.current_time() + grace_s
        self.gateway.watch(self)

    def end(self, answer: bytes = b"") -> None:
        """Send a last answer and close soon; nobody takes this device for online any more."""
        if answer:
            self.outbox.write([answer])
        self._closing = True
        self.gateway.broker.presence.unregister(self)
        self.close_at = trio.current_time() + CLOSE_AFTER_ANSWER_S
        self.gateway.watch(self)
        self.outbox.finish()

    @property
    def is_ready(self) -> bool:
        """Whether the client has logged in."""
        return self.device is not _NOBODY

    @property
    def is_closing(self) -> bool:
        """Whether nothing more is taken from this client."""
        return self._closing

    def statistics(self) -> ConnectionStatistics:
        """Return the counters of this connection."""
        return statistics_of(self)

    # --- in

    async def on_data(self, data: bytes) -> None:
        """Handle what came in one read. Returns when the next read may come: sends are then queued, not stored."""
        gateway = self.gateway
        gateway.counters.bytes_in_total += len(data)
        self.in_packet_bytes += len(data)
        self.last_activity = trio.current_time()
        if self._closing or gateway.is_stopping:
            return  # what a stopping server does not acknowledge the client sends again
        if not self._has_begun and not self._begin(data):
            return
        parts: Sequence[bytes] = (data,)
        if len(data) > SLICE_BYTES and isinstance(self.connection, wire.Connection):
            parts = [data[start : start + SLICE_BYTES] for start in range(0, len(data), SLICE_BYTES)]
        for part in parts:
            self.connection.receive_data(part)
            try:
                while not self._closing and (batch := self.connection.batch()):
                    await self._on_batch(batch)
            except wire.RemoteProtocolError as exc:
                gateway.counters.protocol_errors_total += 1
                gateway.log.info("protocol error", connection_id=self.connection_id, detail=exc.detail)
                self.end(exc.answer)
            if part is not data:
                await trio.lowlevel.checkpoint()  # a WebSocket message may hold millions of pings

    def _begin(self, data: bytes) -> bool:
        """Choose the protocol by the first byte that is no white space. False if there is nothing to take."""
        is_json = wire.begins_json(data)
        if is_json is None:
            return False
        self._has_begun = True
        if not is_json:
            return True
        self.outbox.use_text()
        if self.gateway.config.disable_jsonrpc:
            self.gateway.counters.protocol_errors_total += 1
            self.end(_NO_JSON)
            return False
        self.connection = wire.JsonConnection(
            self.gateway.limits, lambda: uuid.uuid4().hex, is_stream=not self.one_packet_per_write
        )
        return True

    async def _on_batch(self, batch: wire.Batch) -> None:
        """Handle a batch, a good-bye after what is answered and before what is stored."""
        self.in_packets += len(batch)
        if batch.pings:
            self.gateway.counters.pings_total += batch.pings
            self._send([self.connection.send(wire.Pong()) for _ in range(batch.pings)])
        if batch.recvacks:
            await self._on_recvacks(batch)
        for event in batch.events:
            await self._on_rare(event)
        if batch.sends:
            await self._submit(batch)

    async def _on_rare(self, event: wire.Event) -> None:
        match event:
            case wire.ConnectReceived():
                await self._login(event.connect)
            case wire.SubReceived():
                self._on_sub(event.sub)
            case wire.AnswerReady():
                self._answer(event)
            case wire.DisconnectReceived():
                self.gateway.broker.presence.unregister(self, logout=True)
                self.end()
            case _:
                self.gateway.log.debug("event without effect", connection_id=self.connection_id)

    def _answer(self, event: wire.AnswerReady) -> None:
        if event.error:
            self.gateway.counters.bad_requests_total += 1
            self.gateway.log.debug("bad request", connection_id=self.connection_id, detail=event.error)
        self._send([event.answer])

    async def _login(self, connect: wire.Connect) -> None:
        gateway = self.gateway
        login = await log_in(gateway, self.connection, connect, self.connection_id)
        if login.device is None:
            self.end(login.answer)
            return
        self.device = login.device
        gateway.broker.presence.register(self)  # those it displaces are told first
        self._send([login.answer])
        gateway.watch(self)

    async def _submit(self, batch: wire.Batch) -> None:
        gateway = self.gateway
        drafts, marks = list(starmap(Draft, batch.sends)), batch.marks
        size = sum([len(draft.payload) for draft in drafts])
        if gateway.rates is not None:
            await gateway.rates.apply(self.connection_id, self.device.uid, drafts)
        gateway.counters.sends_total += len(drafts)
        self.in_messages += len(drafts)
        self.in_message_bytes += size
        self._in_flight += len(drafts)
        self._hold(size)

        def done(receipts: list[Receipt]) -> None:
            self._hold(-size)
            try:
                self._acknowledge(marks, receipts)
            except Exception:  # in the writer's task
                end_crashed(self)

        try:
            await gateway.broker.messages.submit(self.device, drafts, done, self)
        except Overloaded:
            done([Receipt(ReasonCode.RATE_LIMIT, 0, 0)] * len(drafts))
        except StoreClosed:
            self._hold(-size)
            self.end()
        except BaseException:  # whatever it is, nothing was queued
            self._hold(-size)
            raise
        while self._is_busy and not self._closing:
            self._room = trio.Event()
            await self._room.wait()
        while gateway.is_busy and not self._closing:
            await gateway.room.park()

    def _hold(self, size: int) -> None:
        self._in_flight_bytes += size
        self.gateway.hold(size)

    @property
    def _is_busy(self) -> bool:
        config = self.gateway.config
        return self._in_flight >= config.in_flight or self._in_flight_bytes >= config.in_flight_bytes

    def _acknowledge(self, marks: Sequence[wire.Mark], receipts: Sequence[Receipt]) -> None:
        self._in_flight -= len(marks)
        self.gateway.counters.sendacks_total += len(marks)
        frames = self.connection.encode_sendacks(marks, receipts, apart=self.one_packet_per_write)
        self._send(frames, packets=len(marks))
        if self._room is not None and not self._is_busy:
            self._room.set()

    async def _on_recvacks(self, batch: wire.Batch) -> None:
        self.gateway.counters.recvacks_total += batch.recvacks
        if self._unacked and batch.acked:
            commands = self._unacked.discard(batch.acked)
            if not self._unacked:
                self.gateway.retrying.discard(self)
            for message_id in commands:
                await self.gateway.broker.commands.confirm(self.device.uid, message_id)

    def _on_sub(self, sub: wire.Sub) -> None:
        if self._subscriptions is None:
            gateway = self.gateway
            self._subscriptions = Subscriptions(gateway.broker, self.device.uid, gateway.config.subscriptions)
        self._write(self._subscriptions.on_sub(sub))

    # --- out

    def push(self, messages: Sequence[Message]) -> bool:
        """Encode messages for this device and send them in one write; those to be kept are repeated until RECVACK."""
        if self._closing:
            return False
        try:
            recvs = [self._recv(message) for message in messages]
            frames = self.connection.encode_recvs(recvs, apart=self.one_packet_per_write)
            return self._deliver(frames, len(messages), bytes_of(messages), entries_for(self.gateway, messages))
        except Exception:  # in a lane, with the messages of others behind it
            end_crashed(self)
            return False

    @staticmethod
    def push_many(sessions: Sequence["ClientSession"], messages: Sequence[Message]) -> int:
        """Encode messages once for all who see them alike: everybody but their senders, and the ends of a pair."""
        if len(sessions) == 1 or any(message.channel.type in _SEES_PEER for message in messages):
            return sum([session.push(messages) for session in sessions])
        senders = {message.sender for message in messages}
        alike: dict[tuple[type, bool], list[ClientSession]] = {}
        taken = 0
        for session in sessions:
            if session.device.uid in senders:
                taken += session.push(messages)
            elif not session._closing:
                alike.setdefault((type(session.connection), session.one_packet_per_write), []).append(session)
        return taken + sum([push_alike(group, messages) for group in alike.values()])

    def _deliver(self, frames: Sequence[bytes], count: int, size: int, entries: Mapping[int, Entry]) -> bool:
        """Send the encoded messages, `count` of `size` payload bytes."""
        gateway = self.gateway
        gateway.counters.receives_total += count
        self.out_messages += count
        self.out_message_bytes += size
        if entries:
            if self._unacked is None:
                self._unacked = Unacked(gateway.config.unacked, gateway.config.unacked_bytes)
            self._unacked.add(entries, size if len(entries) == count else None)
            gateway.retrying.add(self)
        return self._send(frames, packets=count)

    def push_event(self, event: Event) -> bool:
        """Send an event to a client that can read it."""
        if self._closing:
            return False
        if not self.connection.has_events:
            return True
        frame = frame_of(event, self.connection, self.gateway.config.max_frame_size)
        if frame is None:
            self.gateway.log.warning("event dropped", connection_id=self.connection_id, type=event.type[:64])
            return True
        self.gateway.counters.events_total += 1
        return self._send([frame])

    def _recv(self, message: Message) -> wire.RecvFields:
        uid, sender = self.device.uid, message.sender
        key = plain_channel(message.channel) if message.flags & SYNC_ONCE else message.channel
        channel_id = peer_of(key, uid) if key.type in _SEES_PEER else key.id
        flags = message.flags & ~RED_DOT if sender == uid else message.flags
        return wire.recv_fields(message, channel_id, "" if sender == SYSTEM_UID else sender, flags)

    def retry(self, now: float) -> None:
        """Repeat what is due, byte for byte."""
        unacked = self._unacked
        due = unacked.take_due(now, self.gateway.config.retry_interval) if unacked else ()
        if not unacked:
            self.gateway.retrying.discard(self)
        if due:
            self.gateway.counters.repeats_total += len(due)
            recvs = [self._recv(message) for message in due]
            frames = self.connection.encode_recvs(recvs, apart=self.one_packet_per_write)
            self._send(frames, packets=len(due))

    def _write(self, frame: wire.Frame) -> None:
        self._send([self.connection.send(frame)])

    def _send(self, frames: Sequence[bytes], *, packets: int = 0) -> bool:
        """Send frames in one write; `packets` is how many they hold if some are joined."""
        size = len(frames[0]) if len(frames) == 1 else sum(map(len, frames))
        self.gateway.counters.bytes_out_total += size
        self.out_packets += packets or len(frames)
        self.out_packet_bytes += size
        if self.outbox.write(frames):
            return True
        if not self._closing:
            self._closing = True
            self.gateway.counters.slow_consumers_total += 1
            self.gateway.log.info("slow consumer", connection_id=self.connection_id, uid=self.device.uid)
        self.outbox.abort()
        return False
