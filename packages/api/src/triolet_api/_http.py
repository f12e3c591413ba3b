"""A small HTTP/1.1 server for one ASGI application: httptools parses, Trio waits, one task serves a connection.

It does what an API behind a load balancer needs and no more: keep-alive, pipelining in order, chunked bodies, limits on
headers, bodies, times and connections. No TLS, no HTTP/2, no WebSocket: Hypercorn has them (`api.server: hypercorn`).
Requests of one connection are answered one after the other; a connection that waits costs a task and its parser.
"""

import contextlib
import email.utils
import http
import socket
import time
import urllib.parse
from collections import deque
from typing import Any

import attrs
import httptools
import structlog
import trio

from triolet_api._front import Application, Scope, headers_of
from triolet_api._service import refusal

READ_BYTES = 65_536
MAX_HEAD_BYTES = 65_536
"""Request line and headers; Go's default is 1 MiB, nginx's 32 KiB."""
KEEP_ALIVE_S = 75.0
"""How long a connection may wait for its next request (nginx's default)."""
LISTEN_BACKLOG = 1024
LAST_WORD_S = 1.0
"""How long a client that is sent away may take to read why."""
_LOOK_S = 1.0
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in http.HTTPStatus}


@attrs.frozen(kw_only=True)
class HttpLimits:
    """Bounds of one server."""

    max_body_bytes: int
    request_timeout_s: float
    """Longest time for a request to arrive, and for its answer to be taken."""
    max_connections: int


@attrs.define(eq=False)
class _Request:
    """A request as it arrives."""

    url: bytes = b""
    headers: list[tuple[bytes, bytes]] = attrs.Factory(list)
    body: bytearray = attrs.Factory(bytearray)
    method: str = ""
    version: str = "1.1"
    keep_alive: bool = True


class TooLong(Exception):
    """The head or the body of a request exceeds its bound."""


class _Parser:
    """Receives httptools' calls and collects whole requests."""

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._parser = httptools.HttpRequestParser(self)
        self._now = _Request()
        self._head_bytes = 0
        self._in_body = False
        self.wants_continue = False
        self.is_upgrade = False
        self.whole: deque[_Request] = deque()

    @property
    def is_waiting(self) -> bool:
        """Whether nothing of a next request has come."""
        return not self._head_bytes and not self._in_body

    def feed(self, data: bytes) -> None:
        """Parse what came.

        Raises:
            TooLong: Of head or body.
            httptools.HttpParserError: It is no HTTP.
        """
        if not self._in_body:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.is_upgrade = True  # answered as an ordinary request, and the last one of its connection
        except httptools.HttpParserCallbackError as exc:
            raise exc.__context__ if isinstance(exc.__context__, TooLong) else exc from exc
        if not self._in_body and self._head_bytes > MAX_HEAD_BYTES and not self.whole:
            raise TooLong

    def on_message_begin(self) -> None:
        self._now = _Request()

    def on_url(self, url: bytes) -> None:
        self._now.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self._now.headers.append((name, value))
        if name == b"content-length" and value.isdigit() and int(value[:20]) > self._max_body_bytes:
            raise TooLong
        if name == b"expect" and value.lower() == b"100-continue":
            self.wants_continue = True

    def on_headers_complete(self) -> None:
        now, parser = self._now, self._parser
        now.method = parser.get_method().decode("ascii")
        now.version = parser.get_http_version()
        now.keep_alive = parser.should_keep_alive()
        self._in_body = True
        self._head_bytes = 0

    def on_body(self, body: bytes) -> None:
        self._now.body += body
        if len(self._now.body) > self._max_body_bytes:
            raise TooLong

    def on_message_complete(self) -> None:
        self._in_body = False
        self._head_bytes = 0
        self.wants_continue = False
        self.whole.append(self._now)


class _Connection:
    """One client. Answers its requests in order until it leaves, breaks a rule, or the server stops."""

    def __init__(self, server: "HttpServer", sock: socket.socket) -> None:
        self._server = server
        self._sock = sock
        self._parser = _Parser(server.limits.max_body_bytes)
        self.scope = trio.CancelScope()
        self.since = trio.current_time()
        """When what it waits for began."""
        self.is_working = False
        self.is_idle = True
        self.is_late = False
        """Whether a request did not arrive in time."""
        self._peer = _address(sock.getpeername())
        self._here = _address(sock.getsockname())

    async def serve(self) -> None:
        with self._sock:
            with self.scope:
                try:
                    while await self._next():
                        pass
                except (OSError, trio.ClosedResourceError):
                    pass  # the client is gone
            if self.is_late:
                await self._tell_late()

    async def _tell_late(self) -> None:
        """Say why, if the client still listens."""
        with trio.move_on_after(LAST_WORD_S, shield=True), contextlib.suppress(OSError, trio.ClosedResourceError):
            await self._dismiss(408)

    async def _next(self) -> bool:
        """Answer what has come in whole, or read on; False at the end."""
        while self._parser.whole:
            request = self._parser.whole.popleft()
            is_last = not request.keep_alive or self._server.is_stopping or self._parser.is_upgrade
            self.is_working, self.is_idle = True, False
            await self._answer(request, is_last=is_last)
            self.is_working = False
            if is_last:
                return False
        self.is_idle = self._parser.is_waiting
        if self.is_idle:
            self.since = trio.current_time()
            if self._server.is_stopping:
                return False
        data = await self._receive()
        if not data:
            return False
        if self.is_idle:
            self.since, self.is_idle = trio.current_time(), False
        return await self._take(data)

    async def _take(self, data: bytes) -> bool:
        status = self._parsed(data)
        if status:
            return await self._dismiss(status)
        if self._parser.wants_continue and not self._parser.whole:
            self._parser.wants_continue = False
            await self._send(_CONTINUE)
        return True

    def _parsed(self, data: bytes) -> int:
        """Parse what came; returns the status of the refusal if it is none that is taken, else 0."""
        try:
            self._parser.feed(data)
        except TooLong:
            return 413
        except httptools.HttpParserError:
            return 400
        return 0

    async def _dismiss(self, status: int) -> bool:
        """Say what is wrong and read on for a while: to close with data unread would take the answer back."""
        self.is_working = True
        with trio.move_on_after(LAST_WORD_S):
            await self._refuse(status)
            self._sock.shutdown(socket.SHUT_WR)
            while await self._receive():
                pass
        return False

    async def _refuse(self, status: int) -> None:
        phrase = http.HTTPStatus(status).phrase
        content = refusal(phrase, status, phrase.lower().replace(" ", "_"))
        await self._send(_head(status, headers_of(content), is_last=True) + content.body)

    async def _answer(self, request: _Request, *, is_last: bool) -> None:
        answer = _Answer(self, request, is_last=is_last)
        try:
            await self._server.application(self._scope(request), answer.receive, answer.send)
            return
        except Exception:  # the application answers its own errors: this one is a bug in it
            self._server.log.exception("request failed")
        if not answer.has_begun:
            await self._refuse(500)
        raise trio.ClosedResourceError

    def _scope(self, request: _Request) -> Scope:
        raw, _, query = request.url.partition(b"?")
        if not raw.startswith(b"/"):  # the absolute form of proxies
            raw = urllib.parse.urlsplit(raw).path or b"/"
        path = raw.decode("ascii", "replace")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": request.version,
            "method": request.method,
            "scheme": "http",
            "path": urllib.parse.unquote(path) if "%" in path else path,
            "raw_path": raw,
            "query_string": query,
            "root_path": "",
            "headers": request.headers,
            "client": self._peer,
            "server": self._here,
        }

    async def _send(self, data: bytes) -> None:
        self.since = trio.current_time()
        view = memoryview(data)
        while view:
            try:
                view = view[self._sock.send(view) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._sock)

    async def _receive(self) -> bytes:
        """Wait for data. Straight from the socket: Trio's own calls would let others have a turn once more."""
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            with contextlib.suppress(BlockingIOError):
                return self._sock.recv(READ_BYTES)

    async def write(self, data: bytes) -> None:
        """Send a part of an answer; the client has to take it in time."""
        self.is_working = False
        await self._send(data)
        self.is_working = True


class _Answer:
    """The two channels of ASGI for one request; an answer that is known whole is one write."""

    def __init__(self, connection: _Connection, request: _Request, *, is_last: bool) -> None:
        self._connection = connection
        self._request = request
        self._is_last = is_last
        self._head = b""
        self._is_read = False
        self.has_begun = False

    async def receive(self) -> dict[str, Any]:
        if self._is_read:
            await trio.sleep_forever()  # nothing more comes, and a client that leaves cancels nothing
        self._is_read = True
        return {"type": "http.request", "body": bytes(self._request.body), "more_body": False}

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._head = _head(message["status"], message["headers"], is_last=self._is_last)
            return
        body = b"" if self._request.method == "HEAD" else message.get("body", b"")
        self.has_begun = True
        head, self._head = self._head, b""
        if head or body:
            await self._connection.write(head + body)


def _head(status: int, headers: list[tuple[bytes, bytes]], *, is_last: bool) -> bytes:
    lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status, _date()]
    lines += [b"%s: %s\r\n" % header for header in headers]
    lines.append(b"connection: close\r\n\r\n" if is_last else b"\r\n")
    return b"".join(lines)


_date_line: tuple[int, bytes] = (0, b"")


def _date() -> bytes:
    global _date_line  # made once a second
    now = int(time.time())
    if _date_line[0] != now:
        _date_line = (now, b"date: %s\r\n" % email.utils.formatdate(now, usegmt=True).encode())
    return _date_line[1]


def _address(name: Any) -> tuple[str, int]:
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) else ("", 0)


class HttpServer:
    """Serves an application on a listening socket."""

    def __init__(self, application: Application, limits: HttpLimits) -> None:
        self.application = application
        self.limits = limits
        self.log = structlog.get_logger("api")
        self.is_stopping = False
        self.refused = 0
        self._connections: set[_Connection] = set()

    @property
    def connection_count(self) -> int:
        """Connections that are open."""
        return len(self._connections)

    async def serve(self, listener: socket.socket, stopping: trio.Event, grace_s: float) -> None:
        """Serve until `stopping` is set, then for up to `grace_s` what is under way; closes the listener."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            with trio.socket.from_stdlib_socket(listener) as accepting:
                async with trio.open_nursery() as accepts:
                    accepts.start_soon(self._accept, accepting, nursery)
                    await stopping.wait()
                    accepts.cancel_scope.cancel()
            self.is_stopping = True
            for connection in tuple(self._connections):
                if connection.is_idle:
                    connection.scope.cancel()
            with trio.move_on_after(grace_s):
                while self._connections:  # noqa: ASYNC110  # rare, bounded
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()

    async def _accept(self, listener: trio.socket.SocketType, nursery: trio.Nursery) -> None:
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
            nursery.start_soon(self._serve, plain)

    async def _serve(self, sock: socket.socket) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(self, sock)
        except OSError:
            sock.close()  # gone before it was served
            return
        self._connections.add(connection)
        try:
            await connection.serve()
        except Exception:  # one connection's bug must not end the others
            self.log.exception("connection failed")
        finally:
            self._connections.discard(connection)

    async def _watch(self) -> None:
        """Each second close the connections that make the server wait for too long."""
        while True:
            await trio.sleep(_LOOK_S)
            now = trio.current_time()
            for connection in tuple(self._connections):
                limit = KEEP_ALIVE_S if connection.is_idle else self.limits.request_timeout_s
                if not connection.is_working and now - connection.since > limit:
                    connection.is_late = not connection.is_idle
                    connection.scope.cancel()
