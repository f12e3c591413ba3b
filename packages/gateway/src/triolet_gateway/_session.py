"""One client: bytes in, frames out, and what core needs to see of it."""

import os
import time
from collections.abc import Mapping, Sequence
from itertools import starmap
from typing import NamedTuple

import trio

from triolet_core import ConnectRequest, Device, Draft, Message, Overloaded, ReasonCode, Receipt, StoreClosed
from triolet_core.model import (
    NO_PERSIST,
    RED_DOT,
    SYNC_ONCE,
    SYSTEM_UID,
    ChannelKey,
    ChannelType,
    peer_of,
    plain_channel,
)
from triolet_gateway import protocol as wire
from triolet_gateway._gateway import Gateway
from triolet_gateway._outbox import Outbox

CLOSE_AFTER_ANSWER_S = 1.0
"""What a refused client has to read its answer before the socket goes."""
_NOBODY = Device(uid="")
_SEES_PEER = frozenset({ChannelType.PERSON, ChannelType.AGENT})
_TAKES_GUESTS = frozenset({ChannelType.DATA, ChannelType.INFO})


class _Unacked(NamedTuple):
    """A delivery that is repeated until its RECVACK; one for all sessions that were served together."""

    message: Message
    due: float
    left: int


class ClientSession:
    """Implements `triolet_core.session.Session`. One per connection, from the first byte on."""

    __slots__ = (
        "_closing",
        "_in_flight",
        "_room",
        "_subscriptions",
        "_unacked",
        "address",
        "close_at",
        "connection",
        "connection_id",
        "device",
        "gateway",
        "last_activity",
        "one_packet_per_write",
        "outbox",
        "started_at",
    )

    def __init__(self, gateway: Gateway, outbox: Outbox, address: str, *, one_packet_per_write: bool) -> None:
        self.gateway = gateway
        self.outbox = outbox
        self.address = address
        self.one_packet_per_write = one_packet_per_write
        self.connection = wire.Connection(wire.Role.SERVER, gateway.limits)
        self.connection_id = gateway.new_connection_id()
        self.device = _NOBODY
        self.started_at = self.last_activity = trio.current_time()
        self.close_at = 0.0
        self._in_flight = 0
        self._room: trio.Event | None = None
        self._unacked: dict[int, _Unacked] | None = None
        self._subscriptions: list[ChannelKey] | None = None
        self._closing = False

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
        gateway.retrying.discard(self)
        gateway.broker.presence.unregister(self)
        for key in self._subscriptions or ():
            gateway.broker.channels.remove_temp_member(key, self.device.uid)
        self._subscriptions = None
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
        """Send a last answer and close soon."""
        if answer:
            self.outbox.write([answer])
        self._closing = True
        self.close_at = trio.current_time() + CLOSE_AFTER_ANSWER_S
        self.gateway.watch(self)
        self.outbox.finish()

    @property
    def is_closing(self) -> bool:
        """Whether nothing more is taken from this client."""
        return self._closing

    # --- in

    async def on_data(self, data: bytes) -> None:
        """Handle what came in one read. Returns when the next read may come: sends are then queued, not stored."""
        gateway = self.gateway
        gateway.counters.bytes_in_total += len(data)
        self.last_activity = trio.current_time()
        if self._closing or gateway.is_stopping:
            return  # what a stopping server does not acknowledge the client sends again
        self.connection.receive_data(data)
        try:
            while not (batch := self.connection.batch()).is_empty:
                await self._on_batch(batch)
                if self.is_closing:
                    return
        except wire.RemoteProtocolError as exc:
            gateway.counters.protocol_errors_total += 1
            gateway.log.info("protocol error", connection_id=self.connection_id, detail=exc.detail)
            self.end(exc.answer)

    async def _on_batch(self, batch: wire.Batch) -> None:
        for event in batch.events:
            await self._on_rare(event)
        if batch.pings:
            self.gateway.counters.pings_total += batch.pings
            self._send([self.connection.send(wire.Pong())] * batch.pings)
        if batch.recvacks:
            self.gateway.counters.recvacks_total += batch.recvacks
            self._forget(batch.acked)
        if batch.sends:
            await self._submit(batch)

    async def _on_rare(self, event: wire.Event) -> None:
        match event:
            case wire.ConnectReceived():
                await self._login(event.connect)
            case wire.SubReceived():
                self._on_sub(event.sub)
            case wire.DisconnectReceived():
                self.end()
            case _:
                self.gateway.log.debug("event without effect", connection_id=self.connection_id)

    async def _login(self, connect: wire.Connect) -> None:
        gateway = self.gateway
        request = ConnectRequest(
            uid=connect.uid, token=connect.token, device_id=connect.device_id, flag=connect.device_flag
        )
        reason, level = await gateway.broker.users.authenticate(request)
        if reason != ReasonCode.SUCCESS or gateway.is_stopping:
            self._refuse(self.connection.reject(reason if reason != ReasonCode.SUCCESS else ReasonCode.SYSTEM_ERROR))
            gateway.log.info("login refused", connection_id=self.connection_id, uid=connect.uid, reason=int(reason))
            return
        now_ms = int(time.time() * 1000)
        try:
            answer = self.connection.accept(
                os.urandom(32),
                gateway.salt(),
                time_diff_ms=_fit(now_ms - connect.client_timestamp),
                node_id=gateway.node_id,
                encrypt=not gateway.config.disable_encryption,
            )
        except wire.RemoteProtocolError as exc:
            self._refuse(exc.answer)
            gateway.log.info("login refused", connection_id=self.connection_id, detail=exc.detail)
            return
        self.device = Device(uid=connect.uid, device_id=connect.device_id, flag=connect.device_flag, level=int(level))
        gateway.counters.logins_total += 1
        gateway.broker.presence.register(self)  # those it displaces are told first
        self.outbox.write([answer])
        gateway.watch(self)
        gateway.log.debug("login", connection_id=self.connection_id, uid=connect.uid)

    def _refuse(self, answer: bytes) -> None:
        self.gateway.counters.login_failures_total += 1
        self.end(answer)

    async def _submit(self, batch: wire.Batch) -> None:
        gateway = self.gateway
        drafts = list(starmap(Draft, batch.sends))
        marks = batch.marks
        gateway.counters.sends_total += len(drafts)
        self._in_flight += len(drafts)

        def done(receipts: list[Receipt]) -> None:
            self._acknowledge(marks, receipts)

        try:
            await gateway.broker.messages.submit(self.device, drafts, done, self)
        except Overloaded:
            done([Receipt(ReasonCode.RATE_LIMIT, 0, 0)] * len(drafts))
        except StoreClosed:
            self.end()
        while self._in_flight >= gateway.config.in_flight and not self._closing:
            self._room = trio.Event()
            await self._room.wait()

    def _acknowledge(self, marks: Sequence[wire.Mark], receipts: Sequence[Receipt]) -> None:
        self._in_flight -= len(marks)
        self.gateway.counters.sendacks_total += len(marks)
        acks = self.connection.encode_sendacks(marks, receipts)
        if self.one_packet_per_write:
            self._send([acks[at : at + wire.SENDACK_BYTES] for at in range(0, len(acks), wire.SENDACK_BYTES)])
        else:
            self._send([acks])
        if self._room is not None and self._in_flight < self.gateway.config.in_flight:
            self._room.set()

    def _forget(self, acked: Sequence[int]) -> None:
        """Repeat these no more."""
        unacked = self._unacked
        if unacked:
            for message_id in acked:
                unacked.pop(message_id, None)
        if not unacked:
            self._unacked = None
            self.gateway.retrying.discard(self)

    def _on_sub(self, sub: wire.Sub) -> None:
        """Temporary membership of a data or info channel; the id may carry a query, which is cut off."""
        channel_id = sub.channel_id.partition("?")[0]
        key = ChannelKey(channel_id, sub.channel_type)
        reason = ReasonCode.SUCCESS
        if sub.channel_type not in _TAKES_GUESTS:
            reason = ReasonCode.NOT_SUPPORT_CHANNEL_TYPE
        elif not channel_id or "\0" in channel_id:
            reason = ReasonCode.CHANNEL_ID_ERROR
        elif sub.action == 0:
            self._join(key)
        else:
            self._leave(key)
        self._write(wire.SubAck(sub.sub_no, channel_id, sub.channel_type, sub.action, int(reason)))

    def _join(self, key: ChannelKey) -> None:
        joined = self._subscriptions = self._subscriptions or []
        if key not in joined:
            joined.append(key)
            self.gateway.broker.channels.add_temp_member(key, self.device.uid)

    def _leave(self, key: ChannelKey) -> None:
        if self._subscriptions and key in self._subscriptions:
            self._subscriptions.remove(key)
            self.gateway.broker.channels.remove_temp_member(key, self.device.uid)

    # --- out

    def push(self, messages: Sequence[Message]) -> bool:
        """Encode messages for this device and send them in one write; those to be kept are repeated until RECVACK."""
        if self._closing:
            return False
        recvs = [self._recv(message) for message in messages]
        if self.one_packet_per_write:
            frames = [frame for recv in recvs for frame in wire.encode_recvs([recv], [self.connection])]
        else:
            frames = wire.encode_recvs(recvs, [self.connection])
        self._remember(_entries(self.gateway, messages))
        self.gateway.counters.receives_total += len(messages)
        return self._send(frames)

    @staticmethod
    def push_many(sessions: Sequence["ClientSession"], messages: Sequence[Message]) -> int:
        """Encode messages once for all who see them alike: everybody but their senders, and the ends of a pair."""
        if len(sessions) == 1 or any(message.channel.type in _SEES_PEER for message in messages):
            return sum([session.push(messages) for session in sessions])
        senders = {message.sender for message in messages}
        streams: list[ClientSession] = []
        packets: list[ClientSession] = []
        taken = 0
        for session in sessions:
            if session.device.uid in senders:
                taken += session.push(messages)
            elif not session._closing:
                (packets if session.one_packet_per_write else streams).append(session)
        return taken + _push_alike(streams, messages) + _push_alike(packets, messages)

    def _recv(self, message: Message) -> wire.RecvFields:
        uid, sender = self.device.uid, message.sender
        key = plain_channel(message.channel) if message.flags & SYNC_ONCE else message.channel
        channel_id = peer_of(key, uid) if key.type in _SEES_PEER else key.id
        flags = message.flags & ~RED_DOT if sender == uid else message.flags
        return wire.recv_fields(message, channel_id, "" if sender == SYSTEM_UID else sender, flags)

    def _remember(self, entries: Mapping[int, _Unacked]) -> None:
        if not entries:
            return
        unacked = self._unacked
        if unacked is None:
            unacked = self._unacked = dict(entries)
        else:
            unacked.update(entries)
        while len(unacked) > self.gateway.config.unacked:
            del unacked[next(iter(unacked))]  # the oldest is left to synchronisation
        self.gateway.retrying.add(self)

    def retry(self, now: float) -> None:
        """Repeat what is due, byte for byte; forget what was repeated often enough."""
        unacked = self._unacked or {}
        frames = []
        for message_id, entry in list(unacked.items()):
            if entry.due > now:
                continue
            if not entry.left:
                del unacked[message_id]
                continue
            unacked[message_id] = _Unacked(entry.message, now + self.gateway.config.retry_interval, entry.left - 1)
            frames += wire.encode_recvs([self._recv(entry.message)], [self.connection])
        if not unacked:
            self.gateway.retrying.discard(self)
        if frames:
            self.gateway.counters.repeats_total += len(frames)
            self._send(frames)

    def _write(self, frame: wire.Frame) -> None:
        self._send([self.connection.send(frame)])

    def _send(self, frames: Sequence[bytes]) -> bool:
        self.gateway.counters.bytes_out_total += sum(map(len, frames))
        if self.outbox.write(frames):
            return True
        if not self._closing:
            self._closing = True
            self.gateway.counters.slow_consumers_total += 1
            self.gateway.log.info("slow consumer", connection_id=self.connection_id, uid=self.device.uid)
        self.outbox.abort()
        return False


def _push_alike(sessions: Sequence[ClientSession], messages: Sequence[Message]) -> int:
    """Serve sessions of one transport for which messages look the same."""
    if not sessions:
        return 0
    gateway, connections = sessions[0].gateway, [session.connection for session in sessions]
    recvs = [sessions[0]._recv(message) for message in messages]
    steps = [[recv] for recv in recvs] if sessions[0].one_packet_per_write else [recvs]
    encoded = zip(*[wire.encode_recvs(step, connections) for step in steps], strict=True)
    entries = _entries(gateway, messages)
    gateway.counters.receives_total += len(messages) * len(sessions)
    taken = 0
    for session, frames in zip(sessions, encoded, strict=True):
        session._remember(entries)
        taken += session._send(frames)
    return taken


def _entries(gateway: Gateway, messages: Sequence[Message]) -> dict[int, _Unacked]:
    """Return what is to be repeated until it is acknowledged."""
    due = trio.current_time() + gateway.config.retry_interval
    left = gateway.config.retry_max_count
    return {message.message_id: _Unacked(message, due, left) for message in messages if not message.flags & NO_PERSIST}


def _fit(milliseconds: int) -> int:
    """Keep a time difference within 64 bits, whatever the client's clock says."""
    return max(-(2**63), min(milliseconds, 2**63 - 1))
