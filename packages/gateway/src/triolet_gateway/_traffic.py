"""What one connection has carried."""

from typing import TYPE_CHECKING

import trio

from triolet_core.session import ConnectionStatistics

if TYPE_CHECKING:
    from triolet_gateway._session import ClientSession


class Traffic:
    """Counters of a connection, part of its session: plain integers, since there may be very many of them."""

    __slots__ = (
        "in_message_bytes",
        "in_messages",
        "in_packet_bytes",
        "in_packets",
        "out_message_bytes",
        "out_messages",
        "out_packet_bytes",
        "out_packets",
    )

    def __init__(self) -> None:
        self.in_messages = self.in_message_bytes = self.in_packets = self.in_packet_bytes = 0
        self.out_messages = self.out_message_bytes = self.out_packets = self.out_packet_bytes = 0


def statistics_of(session: "ClientSession") -> ConnectionStatistics:
    """Return the counters of a session, its times as seconds since 1970."""
    to_unix = session.gateway.broker.clock_s() - trio.current_time()
    return ConnectionStatistics(
        connection_id=session.connection_id,
        device=session.device,
        host=session.peer[0],
        port=session.peer[1],
        protocol_version=session.connection.version,
        started_at=to_unix + session.started_at,
        last_activity=to_unix + session.last_activity,
        in_messages=session.in_messages,
        in_message_bytes=session.in_message_bytes,
        in_packets=session.in_packets,
        in_packet_bytes=session.in_packet_bytes,
        out_messages=session.out_messages,
        out_message_bytes=session.out_message_bytes,
        out_packets=session.out_packets,
        out_packet_bytes=session.out_packet_bytes,
        pending_bytes=session.outbox.pending,
    )
