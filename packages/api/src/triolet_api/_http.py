"""A small HTTP/1.1 server for one ASGI application: httptools parses, and one task watches over all connections.

It does what an API behind a load balancer needs and no more: keep-alive, pipelining in order, chunked bodies, limits on
headers, bodies, times and connections. No TLS, no HTTP/2, no WebSocket: Hypercorn has them (`api.server: hypercorn`).
All sockets are in one epoll descriptor, registered once and told of changes only, so a request costs neither a task
nor a system call to wait for the next; what has to wait gets a task (`_connection`).
"""

import select
import socket
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any

import attrs
import structlog
import trio

from triolet_api._connection import Connection
from triolet_api._front import Front

KEEP_ALIVE_S = 75.0
"""How long a connection may wait for its next request (nginx's default)."""
LISTEN_BACKLOG = 1024
MOST_EVENTS = 64
"""Connections that are looked at before other tasks have their turn."""
_LOOK_S = 1.0


def is_available() -> bool:
    """Whether this system has what the server waits with."""
    return hasattr(select, "epoll")


@attrs.frozen(kw_only=True)
class HttpLimits:
    """Bounds of one server."""

    max_body_bytes: int
    request_timeout_s: float
    """Longest time for a request to arrive, and for its answer to be taken."""
    max_connections: int


class HttpServer:
    """Serves an application on a listening socket."""

    def __init__(self, front: Front, limits: HttpLimits, turn: AbstractContextManager[None]) -> None:
        """`turn` is entered around what comes in at a time."""
        self._turns = turn
        self.front = front
        self.limits = limits
        self.max_body_bytes = limits.max_body_bytes
        self.log = structlog.get_logger("api")
        self.is_stopping = False
        self.clock = 0.0
        self.refused = 0
        self._connections: dict[int, Connection] = {}
        self._epoll = select.epoll()
        self._events = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
        self._ends = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
        self._handler_nursery: trio.Nursery | None = None

    @property
    def connection_count(self) -> int:
        """Connections that are open."""
        return len(self._connections)

    async def serve(self, listener: socket.socket, stopping: trio.Event, grace_s: float) -> None:
        """Serve until `stopping` is set, then for up to `grace_s` what is under way; closes the listener."""
        try:
            async with trio.open_nursery() as self._handler_nursery:
                self._look()
                self._handler_nursery.start_soon(self._watch)
                self._handler_nursery.start_soon(self._react)
                with trio.socket.from_stdlib_socket(listener) as accepting:
                    async with trio.open_nursery() as accepts:
                        accepts.start_soon(self._accept, accepting)
                        await stopping.wait()
                        accepts.cancel_scope.cancel()
                self._stop()
                with trio.move_on_after(grace_s):
                    while self._connections:  # noqa: ASYNC110  # rare, bounded
                        await trio.sleep(0.01)
                self._handler_nursery.cancel_scope.cancel()
        finally:
            self._handler_nursery = None
            for connection in tuple(self._connections.values()):
                connection.close()
            self._epoll.close()

    def start(self, function: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        """Run a function of a connection in a task that ends with the server."""
        if self._handler_nursery is not None:
            self._handler_nursery.start_soon(function, *arguments)

    def ignore(self, connection: Connection) -> None:
        """Look no more for what a connection sends."""
        self._epoll.unregister(connection.descriptor)

    def forget(self, connection: Connection) -> None:
        """Take note that a connection is closed."""
        self._connections.pop(connection.descriptor, None)

    def _stop(self) -> None:
        self.is_stopping = True
        for connection in tuple(self._connections.values()):
            if connection.is_idle:
                connection.close()

    async def _react(self) -> None:
        poll, connections, ends = self._epoll.poll, self._connections, self._ends
        descriptor = self._epoll.fileno()
        while True:
            await trio.lowlevel.wait_readable(descriptor)
            with self._turns:
                for number, events in poll(0, MOST_EVENTS):
                    connection = connections.get(number)
                    if connection is not None:
                        connection.on_event(has_ended=bool(events & ends))

    async def _accept(self, listener: trio.socket.SocketType) -> None:
        while True:
            try:
                sock, _ = await listener.accept()
            except OSError as exc:
                self.log.warning("cannot accept", detail=exc.strerror)
                await trio.sleep(0.1)
                continue
            if len(self._connections) >= self.limits.max_connections:
                self.refused += 1
                sock.close()
                continue
            plain = socket.socket(fileno=sock.detach())
            plain.setblocking(False)  # noqa: FBT003  # the name of the method says it
            self._add(plain)

    def _add(self, sock: socket.socket) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(self, sock)
        except OSError:
            sock.close()  # gone before it was served
            return
        self._connections[connection.descriptor] = connection
        self._epoll.register(connection.descriptor, self._events)

    async def _watch(self) -> None:
        """Each second close the connections that make the server wait for too long."""
        while True:
            await trio.sleep(_LOOK_S)
            self._look()
            now = trio.current_time()
            for connection in tuple(self._connections.values()):
                limit = KEEP_ALIVE_S if connection.is_idle else self.limits.request_timeout_s
                if not connection.is_working and now - connection.since > limit:
                    connection.give_up()

    def _look(self) -> None:
        self.clock = trio.current_time() + _LOOK_S
