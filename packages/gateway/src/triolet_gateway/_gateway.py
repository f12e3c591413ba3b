"""What the connections of one gateway share: the broker, the settings, the clock wheel, the counters."""

import math
from collections.abc import Callable, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any

import attrs
import trio

from triolet_core import Broker, ReasonCode
from triolet_core.plugin import PluginContext
from triolet_gateway._admission import Admission
from triolet_gateway._arrivals import Arrivals
from triolet_gateway._config import GatewayConfig
from triolet_gateway._keys import Keys
from triolet_gateway._patience import Patience
from triolet_gateway._rates import Rates
from triolet_gateway._reactor import Reactor
from triolet_gateway._streams import StreamWriters
from triolet_protocol import Limits, RemoteProtocolError

if TYPE_CHECKING:
    from triolet_gateway._outbox import HasPending
    from triolet_gateway._session import ClientSession

SESSIONS_AT_ONCE = 1000
"""After so many sessions that are looked at others have their turn."""


@attrs.define(eq=False)
class Counters:
    """What happened since the start."""

    accepted_total: int = 0
    refused_total: int = 0
    logins_total: int = 0
    login_failures_total: int = 0
    protocol_errors_total: int = 0
    bad_requests_total: int = 0
    crashes_total: int = 0
    slow_consumers_total: int = 0
    idle_closed_total: int = 0
    workers_lost_total: int = 0
    sends_total: int = 0
    sendacks_total: int = 0
    receives_total: int = 0
    recvacks_total: int = 0
    events_total: int = 0
    repeats_total: int = 0
    pings_total: int = 0
    bytes_in_total: int = 0
    bytes_out_total: int = 0


class Gateway:
    """Shared state of a gateway."""

    def __init__(self, context: PluginContext[GatewayConfig], nursery: trio.Nursery) -> None:
        self.config = context.config
        self.broker: Broker = context.broker
        self.log: Any = context.log.bind()  # once: a logger that is not bound is made anew for each line
        self.counters = Counters()
        self.admission = Admission(context.config, context.broker)
        rates = Rates(self.config)
        self.rates = rates if rates.are_on else None
        self.streams = StreamWriters(self, context.broker)
        self.in_flight_bytes = 0
        """Payloads that wait for their SENDACK."""
        self.held: set[ClientSession] = set()
        """Who takes nothing more until less waits for the store."""
        self.draining: set[HasPending] = set()
        """Who has bytes that wait for somebody to read."""
        self.arrivals = Arrivals(context.broker.turn)
        self.reactor = Reactor(self.arrivals)
        self.patience = Patience(self.reactor, self.config.retry_interval)
        self.keys = Keys()
        self.now: Callable[[], float] = trio.lowlevel.current_clock().current_time
        """Trio's clock, without the way to it: it is asked for each read."""
        self.limits = Limits(self.config.max_frame_size, self.config.max_login_bytes)
        self.sessions: set[ClientSession] = set()
        self.retrying: set[ClientSession] = set()
        self.is_stopping = False
        self.node_id = context.broker.config.node.id
        self._nursery = nursery
        self._ids = count(1)
        self._buckets: dict[int, set[ClientSession]] = {}

    def start_soon(self, function: Any, *args: object) -> None:
        """Run an async function for as long as the gateway may live."""
        self._nursery.start_soon(function, *args)

    def new_connection_id(self) -> int:
        """Return the number of a new connection."""
        return next(self._ids)

    # --- admission

    def admit(self, host: str) -> bool:
        """Count a new connection in; False if it is one too many, blocked, or we are stopping."""
        if self.is_stopping or not self.admission.enter(host):
            self.counters.refused_total += 1
            return False
        self.counters.accepted_total += 1
        return True

    def rename(self, host: str, client: str) -> None:
        """Count a connection for the client that its proxy named.

        Raises:
            RemoteProtocolError: That client may not connect.
        """
        if not self.admission.move(host, client):
            self.counters.refused_total += 1
            raise RemoteProtocolError(ReasonCode.UNKNOWN, "the client behind the proxy may not connect")

    def dismiss(self, host: str) -> None:
        """Count a connection out."""
        self.admission.leave(host)

    # --- what waits for the store

    @property
    def is_busy(self) -> bool:
        """Whether so much waits for the store that nobody may send more."""
        return self.in_flight_bytes >= self.config.in_flight_bytes_total

    def hold(self, size: int) -> None:
        """Count bytes that wait for the store; those that no longer do are negative."""
        self.in_flight_bytes += size
        if self.held and not self.is_busy:
            for session in tuple(self.held):
                session.look_for_room()

    # --- deadlines: one task for all connections

    def watch(self, session: "ClientSession") -> None:
        """Look at a session when its deadline may have passed (up to a second late)."""
        second = math.ceil(session.deadline) + 1
        if second != session.watched_at:
            self.unwatch(session)
            session.watched_at = second
            self._buckets.setdefault(second, set()).add(session)

    def unwatch(self, session: "ClientSession") -> None:
        """Look at a session no more, so that nothing keeps one that is gone until its deadline."""
        bucket = self._buckets.get(session.watched_at)
        if bucket is not None:
            bucket.discard(session)
            if not bucket:
                del self._buckets[session.watched_at]
        session.watched_at = 0

    async def turn_wheel(self) -> None:
        """Each second look at the sessions whose deadline has come, and forget the key pair of that second.

        Sessions that were active are put off.
        """
        last = math.floor(trio.current_time())
        while True:
            await trio.sleep(1)
            self.keys.forget()
            now = math.floor(trio.current_time())
            for second in range(last + 1, now + 1):
                for number, session in enumerate(self._buckets.pop(second, ()), 1):
                    self._look_at(session)
                    if not number % SESSIONS_AT_ONCE:
                        await trio.lowlevel.checkpoint()
            last = now

    def _look_at(self, session: "ClientSession") -> None:
        if session.deadline <= trio.current_time():
            session.expire()
        elif session in self.sessions:
            self.watch(session)

    async def retry_forever(self) -> None:
        """Repeat deliveries that were not acknowledged."""
        while True:
            await trio.sleep(self.config.retry_scan_interval)
            now = trio.current_time()
            for number, session in enumerate(tuple(self.retrying), 1):
                session.retry(now)
                if not number % SESSIONS_AT_ONCE:
                    await trio.lowlevel.checkpoint()

    # --- numbers

    def statistics(self) -> Mapping[str, int | float]:
        """Return the counters and the present size of things."""
        return {
            **attrs.asdict(self.counters),
            "connections": len(self.sessions),
            "open_sockets": self.admission.count,
            "in_flight_bytes": self.in_flight_bytes,
            "rate_limited_total": 0 if self.rates is None else self.rates.refused,
            "written_streams": self.streams.count,
            "unacked_sessions": len(self.retrying),
            "outbox_bytes": sum(outbox.pending for outbox in self.draining),
        }

    def compatible_statistics(self) -> Mapping[str, int | float]:
        """Return what the reference's dashboards read (http-api.md, section 8.3)."""
        counters = self.counters
        presence = self.broker.presence
        logins = counters.logins_total + counters.login_failures_total
        return {
            "app_conn_count_total": len(self.sessions),
            "app_online_user_count_total": presence.user_count,
            "app_online_device_count_total": presence.count,
            "app_send_packet_count_total": counters.sends_total,
            "app_sendack_packet_count_total": counters.sendacks_total,
            "app_recv_packet_count_total": counters.receives_total,
            "app_recvack_packet_count_total": counters.recvacks_total,
            "app_conn_packet_count_total": logins,
            "app_connack_packet_count_total": logins,
            "app_ping_count_total": counters.pings_total,
            "app_pong_count_total": counters.pings_total,
            "system_extranet_incoming_bytes_total": counters.bytes_in_total,
            "system_extranet_outgoing_bytes_total": counters.bytes_out_total,
        }
