"""The port through which core sees one connected device. Gateways implement it."""

from collections.abc import Sequence
from typing import Protocol

from triolet_core.model import Device, Event, Message


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

    def push_event(self, event: Event) -> bool:
        """Hand over an event; devices that know no events do not get it. False as in `push`."""
        ...

    def kick(self, reason: int, text: str, *, notify: bool, grace_s: float) -> None:
        """Take nothing more from this device and close it after `grace_s` seconds.

        With `notify` it is first sent a DISCONNECT with `reason` and `text`. Calling it again has no effect.
        """
        ...
