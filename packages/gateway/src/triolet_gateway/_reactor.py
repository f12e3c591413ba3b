"""One task for the sockets of all clients: it owns an epoll descriptor, and Trio waits for that descriptor.

Theory of operation. A task of its own takes 3 to 4 KB of each connection and two passes of the scheduler for each
read (measured: 9.9 against 5.9 µs for an echo), so connections are objects that are called when their socket is
ready, and nothing they do then waits. Who has to wait (a login, facts that must be read, a full queue) says so; its
socket is taken out of epoll and a task of the gateway's nursery finishes the work and puts it back. An error that
leaves a connection's code is that connection's end and nobody else's.

Fairness: a socket is read `LOOKS` times per turn at most, `READ_BYTES` each; after `TURN_BYTES` of all sockets the
other tasks have their turn. Everything is level-triggered: what is not read now is reported again.

All that are ready are read in one call, and what a turn writes goes out in one call at its end: the interpreter's lock
is not given away for each socket, and a client that gets several frames is woken once.
"""

import select
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import trio

import triolet_protocol as wire

READ_BYTES = 65536
TURN_BYTES = 4 * READ_BYTES
LOOKS = 3
"""How often a turn looks who is ready: what came in while others were served shares their commit."""
_MOST_EVENTS = 256
READABLE, WRITABLE = select.EPOLLIN, select.EPOLLOUT
Ready = tuple[int, int]
"""A descriptor, and its events."""


class Connection(Protocol):
    """Somebody with a socket."""

    @property
    def readable(self) -> int:
        """The socket's descriptor if it may be read, else -1."""
        ...

    def on_ready(self, events: int) -> int:
        """Read or write what is possible now; must not raise. Returns how many bytes were read."""
        ...

    def on_data(self, data: bytes) -> None:
        """Take what was read from the socket, b"" if the peer is gone; must not raise."""
        ...

    def take_leaving(self) -> tuple[int, bytes]:
        """Return the socket's descriptor and what was given to `Reactor.leave`; it is written now."""
        ...

    def on_left(self, data: bytes) -> None:
        """Take back what the socket did not take; must not raise."""
        ...

    def close(self) -> None:
        """Close the socket, after `Reactor.watch(..., 0)`."""
        ...


class Reactor:
    """Calls connections whose sockets are ready."""

    def __init__(self, turn: AbstractContextManager[None]) -> None:
        """`turn` is entered around what comes in at a time."""
        self._turns = turn
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._leaving: list[Connection] = []
        self._leaving_bytes = 0
        self._budget = 0
        """Bytes that may still be read in this turn."""
        self.now = 0.0
        """When this turn began, on Trio's clock; or when bytes came last from a client in memory."""
        self.is_in_turn = False
        """Whether writes are to be collected (`leave`), since this turn's end writes them."""

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, descriptor: int, connection: Connection) -> None:
        """Call this connection from now on when what is waited for (`watch`) happens."""
        self._connections[descriptor] = connection

    def remove(self, descriptor: int) -> None:
        """Forget a connection that nothing is waited for."""
        self._connections.pop(descriptor, None)

    def watch(self, descriptor: int, before: int, after: int) -> None:
        """Wait for other events than `before`: READABLE, WRITABLE, both or (0) none, not even for a lost connection."""
        if not after:
            self._epoll.unregister(descriptor)
        elif before:
            self._epoll.modify(descriptor, after)
        else:
            self._epoll.register(descriptor, after)

    def leave(self, connection: Connection | None, size: int) -> None:
        """Count bytes that go out at the end of the turn, or now if there is much; and who has them, if new."""
        if connection is not None:
            self._leaving.append(connection)
        self._leaving_bytes += size
        if self._leaving_bytes >= TURN_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what connections have to go out (`take_leaving`)."""
        if not self._leaving:
            return
        leaving, self._leaving, self._leaving_bytes = self._leaving, [], 0
        for number, data in wire.write_sockets([connection.take_leaving() for connection in leaving]):
            leaving[number].on_left(data)

    async def run(self) -> None:
        """Serve until cancelled, then close every connection."""
        try:
            while True:
                await trio.lowlevel.wait_readable(self._epoll)
                await self._turn()
        finally:
            for connection in tuple(self._connections.values()):
                connection.close()
            self._epoll.close()

    async def _turn(self) -> None:
        """Serve all that are ready, and let what they sent be committed. A checkpoint only if there is much."""
        left = self._take_turn(self._epoll.poll(0, _MOST_EVENTS))
        while left:
            await trio.lowlevel.checkpoint()
            left = self._take_turn([each for each in left if self._may_be_read(each[0])])

    def _may_be_read(self, descriptor: int) -> bool:
        """Whether nobody has paused or closed a connection since it was ready; it is found again when it may be."""
        connection = self._connections.get(descriptor)
        return connection is not None and connection.readable == descriptor

    def look(self, descriptors: Sequence[int]) -> None:
        """Take a turn in which these sockets are read whether or not they are ready; what is left is found ready."""
        self._take_turn([(descriptor, READABLE) for descriptor in descriptors])

    def _take_turn(self, ready: list[Ready]) -> list[Ready]:
        self.now = trio.current_time()
        self.is_in_turn = True
        try:
            with self._turns:
                left = self._serve_all(ready)
        finally:
            self.is_in_turn = False
        self.flush()
        return left

    def _serve_all(self, ready: list[Ready]) -> list[Ready]:
        """Serve who is ready, and who becomes so meanwhile; returns who is left when much was read."""
        self._budget = TURN_BYTES
        for _ in range(LOOKS - 1):
            left = self._serve(ready)
            if left:
                return left
            ready = self._epoll.poll(0, _MOST_EVENTS)
            if not ready:
                return []
        return self._serve(ready)

    def _serve(self, ready: list[Ready]) -> list[Ready]:
        """Serve while more may be read; returns who is left. Reads first, so that no socket is closed before that."""
        if self._budget <= 0:
            return ready
        readable = [
            descriptor for descriptor, events in ready if events == READABLE and descriptor in self._connections
        ]
        others = [each for each in ready if each[1] != READABLE]
        connections = [self._connections[descriptor] for descriptor in readable]
        found = wire.read_sockets(readable, READ_BYTES, self._budget)
        for connection, data in zip(connections, found):  # noqa: B905  # what is enough may be fewer
            if data is not None:
                connection.on_data(data)
                self._budget -= len(data)
        left = [(descriptor, READABLE) for descriptor in readable[len(found) :]]
        for number, (descriptor, events) in enumerate(others):
            if self._budget <= 0:
                return left + others[number:]
            other = self._connections.get(descriptor)
            if other is not None:
                self._budget -= other.on_ready(events)
        return left
