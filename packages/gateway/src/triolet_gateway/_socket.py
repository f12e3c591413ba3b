"""One accepted socket: what comes in goes through the layers of its listener to the session, and the other way out.

A connection of plain TCP has no layers. It has no task either: see `_reactor`.
"""

import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVarTuple

import triolet_protocol as wire
from triolet_gateway._reactor import READ_BYTES, READABLE, WRITABLE
from triolet_gateway._served import Served, Surroundings


class Layer(Protocol):
    """A protocol between the socket and the session: the header of a balancer, TLS, WebSocket."""

    @property
    def shows_parts(self) -> bool:
        """Whether the layer above gets what came of a packet that is not complete."""
        ...

    def receive(self, data: bytes) -> Iterator[bytes]:
        """Yield what bytes from below say to the layer above; b"" is the peer's good-bye.

        Raises:
            RemoteProtocolError: The peer broke the protocol; the answer, if there is one, is sent by `finish`.
        """
        ...

    def write(self, frames: Sequence[bytes]) -> bool:
        """Send frames through this layer; as `Outbox.write`."""
        ...

    def use_text(self) -> None:
        """As `Outbox.use_text`."""
        ...

    def finish(self) -> None:
        """Say good-bye."""
        ...


Layers = tuple[Layer, ...]
"""Lowest first."""
Arguments = TypeVarTuple("Arguments")


class SocketConnection:
    """A client's socket, non-blocking. The session's outbox, and a connection of the reactor."""

    __slots__ = (
        "_descriptor",
        "_gateway",
        "_interest",
        "_is_aborted",
        "_is_finished",
        "_kept",
        "_layers",
        "_leaving",
        "_pending",
        "_socket",
        "session",
    )

    def __init__(self, gateway: Surroundings, sock: socket.SocketType) -> None:
        """Whoever makes it sets `session` before `open`."""
        self._gateway = gateway
        self._socket = sock
        self._descriptor = sock.fileno()
        """-1 once it is closed."""
        self._interest = 0
        self._layers: Layers = ()
        self._kept: Iterator[bytes] | None = None
        self._leaving: list[bytes] | None = None
        """Frames that the end of the turn writes."""
        self._pending: bytearray | None = None
        self._is_aborted = self._is_finished = False
        self.session: Served

    def open(self, layers: Layers = ()) -> None:
        """Begin to read.

        Raises:
            OSError: The socket cannot be watched; it is the caller's then.
        """
        self._layers = layers
        self._watch(READABLE)
        self._gateway.reactor.add(self._descriptor, self)
        self.session.open()

    @property
    def is_closed(self) -> bool:
        """Whether the socket is."""
        return self._descriptor < 0

    def close(self) -> None:
        """Close the socket and leave everything."""
        if self.is_closed:
            return
        self._write_leaving()
        self._watch(0)
        self._gateway.reactor.remove(self._descriptor)
        self._descriptor = -1
        self._socket.close()
        session = self.session
        del self.session  # no circle is left for the collector
        self._gateway.draining.discard(self)
        self._layers, self._kept, self._pending = (), None, None
        session.close()
        self._gateway.dismiss(session.peer[0])

    def _watch(self, interest: int) -> None:
        if interest != self._interest:
            self._gateway.reactor.watch(self._descriptor, self._interest, interest)
            self._interest = interest

    # --- in

    def on_ready(self, events: int) -> int:
        """Write what waits, read once."""
        if events & WRITABLE:
            self._drain()
        if not events & ~WRITABLE:
            return 0
        if self._is_aborted or not self._interest & READABLE:  # paused, and lost meanwhile
            self.close()
            return 0
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""
        self.on_data(data)
        return len(data)

    def on_data(self, data: bytes) -> None:
        """Take what was read; b"" is the end."""
        if self._descriptor < 0:
            return
        if self._is_aborted:
            self.close()
        elif not data:
            self._on_end()
        elif self._layers:
            self._guard(self._take, data)
        else:
            session = self.session
            try:
                session.take(data)
            except Exception as exc:
                self._fail(session, exc)
            else:
                if session.is_paused and self._descriptor >= 0:
                    self._watch(self._interest & ~READABLE)

    def _take(self, data: bytes) -> None:
        session = self.session
        if session.is_closing:
            session.take(data)
        else:
            self._kept = _through(self._layers, data)
            self._feed()
        if session.is_paused and self._descriptor >= 0:
            self._watch(self._interest & ~READABLE)

    def _feed(self) -> None:
        """Hand the session what the layers have, until it is paused or the peer has said good-bye."""
        kept, session = self._kept, self.session
        if kept is None:
            return
        for chunk in kept:
            if not chunk:
                self._on_end()
                return
            session.take(chunk)
            if session.is_paused or session.is_closing:
                return
        self._kept = None

    @property
    def readable(self) -> int:
        """The socket if it may be read, -1 if the session is paused or it is closed."""
        return self._descriptor if self._interest & READABLE else -1

    def wait_for(self, size: int) -> bool:
        """Let the kernel tell of what comes when there are so many bytes, unless that may be a part nobody knows of."""
        if self.is_closed or not all(layer.shows_parts for layer in self._layers):
            return False
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
        except OSError:
            return False  # the peer is gone, or sockets of this kind cannot wait
        return True

    def pause(self) -> None:
        """Read nothing more until `resume`."""
        if not self.is_closed:
            self._watch(self._interest & ~READABLE)

    def resume(self) -> None:
        """Go on where the session had to wait."""
        if not self.is_closed:
            self._guard(self._go_on)

    def _go_on(self) -> None:
        session = self.session
        session.go_on()
        if not (session.is_paused or session.is_closing):
            self._feed()
        if not (session.is_paused or self.is_closed):
            self._watch(self._interest | READABLE)
        elif not (session.is_closing or self.is_closed):
            self._watch(self._interest & ~READABLE)

    def _on_end(self) -> None:
        """The peer sends nothing more: close, but for one that said good-bye and is still owed an answer."""
        if self.session.is_owed:
            self._watch(self._interest & ~READABLE)
            return
        if self._layers:
            self.finish()
        self.close()

    def _guard(self, function: Callable[[*Arguments], None], *arguments: *Arguments) -> None:
        """Call a function; what it raises is this connection's end."""
        session = self.session
        try:
            function(*arguments)
        except Exception as exc:
            self._fail(session, exc)

    def _fail(self, session: Served, error: Exception) -> None:
        """End this connection for an exception that is being handled."""
        if isinstance(error, wire.RemoteProtocolError):
            session.on_protocol_error(error)
        else:
            session.on_crash()
            self.close()

    # --- out

    def use_text(self) -> None:
        """Tell the highest layer; to a socket bytes are bytes."""
        if self._layers:
            self._layers[-1].use_text()

    @property
    def pending(self) -> int:
        """Bytes that wait."""
        return 0 if self._pending is None else len(self._pending)

    @property
    def descriptor(self) -> int:
        """The socket if it has no layers and nothing waits, not even for the end of a turn, else -1."""
        is_free = not self._layers and self._pending is None and not self._gateway.reactor.is_in_turn
        return self._descriptor if is_free else -1

    def write(self, frames: Sequence[bytes]) -> bool:
        """Send frames, through the layers if there are any."""
        if self._layers:
            return self._layers[-1].write(frames)
        return self.send(frames[0] if len(frames) == 1 else b"".join(frames))

    def send(self, data: bytes) -> bool:
        """Send bytes to the socket, in a turn of the reactor at its end; what it does not take waits."""
        if self._descriptor < 0:
            return False
        reactor = self._gateway.reactor
        if self._leaving is not None:
            self._leaving.append(data)
            reactor.leave(None, len(data))
            return True
        if reactor.is_in_turn and self._pending is None:
            self._leaving = [data]
            reactor.leave(self, len(data))
            return True
        return self._send_now(data)

    def take_leaving(self) -> tuple[int, bytes]:
        """Return what the end of a turn writes, and where."""
        leaving, self._leaving = self._leaving or (), None
        return self._descriptor, leaving[0] if len(leaving) == 1 else b"".join(leaving)

    def on_left(self, data: bytes) -> None:
        """Keep what the socket did not take, or be left by a client that reads too slowly."""
        if not self._send_now(data):
            self.session.fall_behind()

    def _write_leaving(self) -> None:
        """Do not wait for the end of the turn."""
        if self._leaving is not None:
            self._gateway.reactor.flush()

    def _send_now(self, data: bytes) -> bool:
        limit = self._gateway.config.outbox_bytes
        if self._pending is not None:
            if len(self._pending) + len(data) > limit:
                return False
            self._pending += data
            return True
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return False  # the reader sees the same and ends the session
        if sent < len(data):
            if len(data) - sent > limit:
                return False
            self._pending = bytearray(memoryview(data)[sent:])
            self._gateway.draining.add(self)
            self._watch(self._interest | WRITABLE)
        return True

    def _drain(self) -> None:
        if not self._pending:
            return
        try:
            sent = self._socket.send(self._pending)
        except BlockingIOError:
            return
        except OSError:
            self.abort()
            return
        del self._pending[:sent]
        if not self._pending:
            self._pending = None
            self._gateway.draining.discard(self)
            self._watch(self._interest & ~WRITABLE)
            if self._is_finished:
                self._shutdown(socket.SHUT_WR)

    def finish(self) -> None:
        """Say good-bye and half-close once everything is out."""
        if self._is_finished or self.is_closed:
            return
        for layer in reversed(self._layers):
            layer.finish()
        self._write_leaving()
        self._is_finished = True
        self._watch(self._interest | READABLE)
        if self._pending is None:
            self._shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Shut the socket down in both directions; the reactor's next turn closes it."""
        if not self.is_closed:
            self._write_leaving()
            self._is_aborted = True
            self._shutdown(socket.SHUT_RDWR)
            self._watch(READABLE)

    def _shutdown(self, how: int) -> None:
        try:
            self._socket.shutdown(how)
        except OSError:
            return  # it is gone already, which is what was wanted


def _through(layers: Sequence[Layer], data: bytes) -> Iterator[bytes]:
    """Yield what bytes of the socket say to the session."""
    if len(layers) == 1:
        yield from layers[0].receive(data)
        return
    for chunk in layers[0].receive(data):
        if not chunk:
            yield chunk
            return
        yield from _through(layers[1:], chunk)
