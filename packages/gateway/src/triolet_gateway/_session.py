"""One client as core sees it: how it lives, and what goes out to it. What comes in is in `_intake`."""

from collections.abc import Mapping, Sequence

import trio

import triolet_protocol as wire
from triolet_core import Event, Message, ReasonCode
from triolet_core.model import RED_DOT, SYNC_ONCE, SYSTEM_UID, ChannelType, peer_of, plain_channel
from triolet_core.session import ConnectionStatistics
from triolet_gateway._fanout import bytes_of, encode_alike, frame_of
from triolet_gateway._gateway import Gateway
from triolet_gateway._intake import Intake
from triolet_gateway._traffic import statistics_of
from triolet_gateway._unacked import Entry, Unacked, entries_of

_SEES_PEER = frozenset({ChannelType.PERSON, ChannelType.AGENT})


class ClientSession(Intake):
    """Implements `triolet_core.session.Session`. One per connection, from the first byte on."""

    __slots__ = ()

    def _as_session(self) -> "ClientSession":
        return self

    # --- life

    def open(self) -> None:
        """Join the gateway."""
        self.gateway.sessions.add(self)
        self.gateway.watch(self)

    def close(self) -> None:
        """Leave everything; the socket is the caller's."""
        gateway = self.gateway
        self._closing = self._has_ended = True
        gateway.sessions.discard(self)
        gateway.unwatch(self)
        gateway.retrying.discard(self)
        gateway.broker.presence.unregister(self)
        gateway.held.discard(self)
        if self._subscriptions is not None:
            self._subscriptions.leave_all()

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

    def statistics(self) -> ConnectionStatistics:
        """Return the counters of this connection."""
        return statistics_of(self)

    # --- out

    def push(self, messages: Sequence[Message]) -> bool:
        """Encode messages for this device and send them in one write; those to be kept are repeated until RECVACK."""
        if self._closing:
            return False
        recvs = [self._recv(message) for message in messages]
        frames = self.connection.encode_recvs(recvs, apart=self.one_packet_per_write)
        return self._deliver(frames, len(messages), bytes_of(messages), _entries(self.gateway, messages))

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
        return taken + sum([_push_alike(group, messages) for group in alike.values()])

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


def _push_alike(sessions: Sequence[ClientSession], messages: Sequence[Message]) -> int:
    """Serve sessions of one protocol and transport for which messages look the same."""
    first = sessions[0]
    recvs = [first._recv(message) for message in messages]
    encoded = encode_alike(recvs, [session.connection for session in sessions], apart=first.one_packet_per_write)
    entries, count, size = _entries(first.gateway, messages), len(messages), bytes_of(messages)
    pairs = zip(sessions, encoded, strict=True)
    return sum([session._deliver(frames, count, size, entries) for session, frames in pairs])


def _entries(gateway: Gateway, messages: Sequence[Message]) -> dict[int, Entry]:
    config = gateway.config
    return entries_of(messages, trio.current_time() + config.retry_interval, config.retry_max_count)
