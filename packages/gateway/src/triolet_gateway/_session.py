"""One client as core sees it: how it lives, and what goes out to it. What comes in is in `_intake`."""

from collections import defaultdict
from collections.abc import Sequence

import trio

import triolet_protocol as wire
from triolet_core import Event, Message
from triolet_core.model import PAIRS
from triolet_core.session import ConnectionStatistics
from triolet_gateway._fanout import Sent, frame_of, push_alike, push_one, recvs_of, send_alike
from triolet_gateway._guard import guarded
from triolet_gateway._intake import Intake
from triolet_gateway._traffic import statistics_of


@guarded(
    "acknowledge",
    "decide",
    "expire",
    "fall_behind",
    "kick",
    "let_in",
    "push",
    "push_event",
    "retry",
    "write_counted",
    "_settle",
)
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
        self.unacked = None
        gateway.sessions.discard(self)
        gateway.unwatch(self)
        gateway.retrying.discard(self)
        gateway.broker.presence.unregister(self)
        gateway.held.discard(self)
        gateway.patience.end(self)
        gateway.streams.leave(self)
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
        self.give_up()

    def kick(self, reason: int, text: str, *, notify: bool, grace_s: float) -> None:
        """Take nothing more from this device and close it after `grace_s` seconds."""
        if self._closing:
            return
        self._closing = True
        if notify:
            self.write(wire.Disconnect(0 if self.connection.family is wire.Family.LIMAO else int(reason), text))
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
        return push_one(self, messages)

    @staticmethod
    def push_many(sessions: Sequence["ClientSession"], messages: Sequence[Message]) -> int:
        """Encode messages once for all who see them alike: everybody but their senders, and the ends of a pair."""
        if len(sessions) == 1 or any(message.channel.type in PAIRS for message in messages):
            return sum([session.push(messages) for session in sessions])
        senders = {message.sender for message in messages}
        alike: defaultdict[object, list[ClientSession]] = defaultdict(list)
        taken = 0
        for session in sessions:
            if session.device.uid in senders:
                taken += session.push(messages)
            elif not session._closing:
                alike[session.audience].append(session)
        for group in alike.values():
            taken += push_alike(group, recvs_of(messages, group[0].device.uid), messages)
        return taken

    @staticmethod
    def send_alike(sessions: Sequence["ClientSession"], recvs: Sequence[wire.RecvFields]) -> Sent:
        """Encode messages and send them where nothing waits, to sessions of one audience."""
        return send_alike(sessions, recvs)

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

    def retry(self, now: float) -> None:
        """Repeat what is due, byte for byte."""
        unacked = self.unacked
        due = unacked.take_due(now, self.gateway.config.retry_interval) if unacked else ()
        if not unacked:
            self.gateway.retrying.discard(self)
        if due:
            self.gateway.counters.repeats_total += len(due)
            recvs = recvs_of(due, self.device.uid, flags=wire.DUP if self.gateway.config.retry_sets_dup else 0)
            frames = self.connection.encode_recvs(recvs, apart=self.one_packet_per_write)
            self._send(frames, packets=len(due))

    def write(self, frame: wire.Frame) -> None:
        """Send one frame."""
        self._send([self.connection.send(frame)])

    def _send(self, frames: Sequence[bytes], *, packets: int = 0) -> bool:
        """Send frames in one write; `packets` is how many they hold if some are joined."""
        size = len(frames[0]) if len(frames) == 1 else sum(map(len, frames))
        self.gateway.counters.bytes_out_total += size
        self.out_packets += packets or len(frames)
        self.out_packet_bytes += size
        if self.outbox.write(frames):
            return True
        self.fall_behind()
        return False

    def write_counted(self, frames: Sequence[bytes]) -> bool:
        """Give frames that are counted to the outbox. False if it is full: the client reads too slowly and is left."""
        if self.outbox.write(frames):
            return True
        self.fall_behind()
        return False

    def fall_behind(self) -> None:
        """Be left: what was written does not fit into the outbox, or the client is gone."""
        if not self._closing:
            self._closing = True
            self.gateway.counters.slow_consumers_total += 1
            self.gateway.log.info("slow consumer", connection_id=self.connection_id, uid=self.device.uid)
        self.outbox.abort()
