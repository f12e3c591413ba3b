"""The port through which core sees one connected device. Gateways implement it."""

from collections.abc import Sequence
from typing import Any, Protocol

from triolet_core.model import Device, Message


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

    def kick(self, reason: int, text: str, *, notify: bool, grace_s: float) -> None:
        """Take nothing more from this device and close it after `grace_s` seconds.

        With `notify` it is first sent a DISCONNECT with `reason` and `text`. Calling it again has no effect.
        """
        ...
