"""The port through which core sees one connected device. Gateways implement it."""

from collections.abc import Sequence
from typing import Any, Protocol

import attrs

from triolet_core.model import Device, Event, Message


@attrs.frozen(kw_only=True)
class ConnectionStatistics:
    """One connection as it is now. Packets are frames of the protocol, messages those that hold one."""

    connection_id: int
    device: Device
    host: str
    """Address of the peer, or of the client that a proxy named."""
    port: int
    protocol_version: int
    started_at: float
    """Seconds since 1970."""
    last_activity: float
    """Seconds since 1970 of the last byte that came in."""
    in_messages: int
    in_message_bytes: int
    """Bytes of payloads, decrypted."""
    in_packets: int
    in_packet_bytes: int
    out_messages: int
    out_message_bytes: int
    out_packets: int
    out_packet_bytes: int
    pending_bytes: int
    """Bytes that wait for the client to read."""


class Session(Protocol):
    """One authenticated connection. Every method is synchronous and never blocks."""

    @property
    def connection_id(self) -> int:
        """Number of the connection, unique while the process lives."""
        ...

    @property
    def device(self) -> Device:
        """Whose device this is."""
        ...

    def push(self, messages: Sequence[Message]) -> bool:
        """Hand over messages for this device, in order; all of one call go out in one write.

        Returns False if the outbox is full: the session then closes itself as a slow consumer.
        """
        ...

    @staticmethod
    def push_many(sessions: Sequence[Any], messages: Sequence[Message]) -> int:
        """Hand the same messages to sessions of this class, to each as `push` does. Returns how many took them."""
        ...

    def push_event(self, event: Event) -> bool:
        """Hand over an event; devices that know no events do not get it. False as in `push`."""
        ...

    def statistics(self) -> ConnectionStatistics:
        """Return the counters of this connection."""
        ...

    def kick(self, reason: int, text: str, *, notify: bool, grace_s: float) -> None:
        """Take nothing more from this device and close it after `grace_s` seconds.

        With `notify` it is first sent a DISCONNECT with `reason` and `text`. Calling it again has no effect.
        """
        ...
