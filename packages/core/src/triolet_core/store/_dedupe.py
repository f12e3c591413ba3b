"""Repeats of a send inside a bounded window, in memory.

Only a hash and the message id are kept; what is found is compared with the stored message, so that a collision
costs nothing but a look. The window is a function of the commit log and is filled from it at start, in a thread: until
that is done nothing is sent, so that no repeat slips through.
"""

import threading
from collections.abc import Callable

import attrs

from triolet_core.errors import StoreError


@attrs.define(eq=False)
class DedupeWindow:
    """The last sends, in two generations of half the entries each; the older goes when the younger is full."""

    window_s: float
    """0 switches the window off."""
    entries: int
    _young: dict[int, int] = attrs.Factory(dict)
    _old: dict[int, int] = attrs.Factory(dict)
    _uncommitted: list[int] = attrs.Factory(list)
    _filled: threading.Event | None = None
    """Set when it is known whether the window could be filled; None if it need not be."""
    _is_lost: bool = False
    is_on: bool = attrs.field(init=False)
    """Whether repeats are looked for at all."""

    @is_on.default
    def _has_window(self) -> bool:
        return self.window_s > 0

    @property
    def is_ready(self) -> bool:
        """Whether the window can be asked and added to."""
        return self._filled is None or (self._filled.is_set() and not self._is_lost)

    def expect_fill(self) -> None:
        """Be not ready until `fill` is done."""
        self._filled = threading.Event()

    def fill(self, read: Callable[[], dict[int, int]]) -> None:
        """Take the sends that were before, message ids by key; in any thread."""
        self._young = read()
        if self._filled is not None:
            self._filled.set()

    def end_fill(self) -> None:
        """Nobody fills the window any more: let those who wait for it fail, unless it is filled."""
        if self._filled is not None and not self._filled.is_set():
            self._is_lost = True
            self._filled.set()

    def wait_ready(self) -> None:
        """Block the thread until the window is filled.

        Raises:
            StoreError: It will not be.
        """
        if self._filled is not None:
            self._filled.wait()
        if self._is_lost:
            raise StoreError("the last sends could not be read, and without them no repeat would be known")

    def find(self, key: int) -> int | None:
        """Return the id of the message last sent with this key."""
        return self._young.get(key) or self._old.get(key)

    def add(self, key: int, message_id: int) -> None:
        """Remember a send of the transaction under way."""
        if len(self._young) >= self.entries // 2:
            self._old, self._young = self._young, {}
        self._young[key] = message_id
        self._uncommitted.append(key)

    def commit(self) -> None:
        """Keep what was added."""
        self._uncommitted.clear()

    def rollback(self) -> None:
        """Forget what was added since the last commit."""
        for key in self._uncommitted:
            self._young.pop(key, None)
            self._old.pop(key, None)
        self._uncommitted.clear()


def key_of(sender: str, channel_id: str, channel_type: int, client_msg_no: str) -> int:
    """Return the key of a send. Differs between processes (string hashing), hence never stored."""
    return hash((sender, channel_id, channel_type, client_msg_no))
