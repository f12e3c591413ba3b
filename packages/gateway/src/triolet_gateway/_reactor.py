"""One task for the sockets of all clients: it owns an epoll descriptor, and Trio waits for that descriptor.

Theory of operation. A task of its own takes 3 to 4 KB of each connection and two passes of the scheduler for each
read (measured: 9.9 against 5.9 µs for an echo), so connections are objects that are called when their socket is
ready, and nothing they do then waits. Who has to wait (a login, facts that must be read, a full queue) says so; its
socket is taken out of epoll and a task of the gateway's nursery finishes the work and puts it back. An error that
leaves a connection's code is that connection's end and nobody else's.

Fairness: a socket is read once per turn, at most `READ_BYTES`; after `TURN_BYTES` of all sockets the other tasks have
their turn. Everything is level-triggered: what is not read now is reported again.
"""

import select
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

import trio

READ_BYTES = 65536
TURN_BYTES = 4 * READ_BYTES
_MOST_EVENTS = 256
READABLE, WRITABLE = select.EPOLLIN, select.EPOLLOUT


class Connection(Protocol):
    """Somebody with a socket."""

    def on_ready(self, events: int) -> int:
        """Read or write what is possible now; must not raise. Returns how many bytes were read."""
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
        ready = iter(self._epoll.poll(0, _MOST_EVENTS))
        while True:
            with self._turns:
                if not self._serve(ready):
                    return
            await trio.lowlevel.checkpoint()

    def _serve(self, ready: Iterator[tuple[int, int]]) -> bool:
        """Serve until much is read; False if nobody is left."""
        read = 0
        for descriptor, events in ready:
            connection = self._connections.get(descriptor)
            if connection is not None:
                read += connection.on_ready(events)
            if read >= TURN_BYTES:
                return True
        return False
