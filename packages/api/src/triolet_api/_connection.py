"""One client of the HTTP server: what it sends is read, answered in order, and the answers are written.

Theory of operation. A connection has no task of its own. `on_event` is called when its socket may have something, and
`pump` does all that needs no waiting: it reads, parses, and begins the next request once the one before is answered.
Most requests to the hot endpoints are answered there, or from the commit that they cause, straight to the socket. A
task is started only for what waits: an application that does, a client that does not take its answer, the last
word to one that is sent away. While an answer is under way nothing is read, so a client that asks without taking
what it gets holds one answer and one read.
"""

import contextlib
import http
import socket
import urllib.parse
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import httptools
import structlog
import trio

from triolet_api import _heads
from triolet_api._answers import Content
from triolet_api._call import Route
from triolet_api._front import Front, Scope, received
from triolet_api._parser import Parser, Request, TooLong
from triolet_api._service import Answer, HttpRequest, refusal

READ_BYTES = 65_536
MOST_IN_A_TURN = 16
"""Requests, and reads, of one connection before others have their turn."""
LAST_WORD_S = 1.0
"""How long a client that is sent away may take to read why."""


class Context(Protocol):
    """What connections need of their server."""

    front: Front
    max_body_bytes: int
    is_stopping: bool
    clock: float
    """Trio's time, at most a second fast."""
    log: structlog.typing.FilteringBoundLogger

    def start(self, function: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        """Run a function in a task that ends with the server."""
        ...

    def ignore(self, connection: "Connection") -> None:
        """Call `on_event` no more."""
        ...

    def forget(self, connection: "Connection") -> None:
        """Take note that it is closed."""
        ...


class Connection:
    """One client, until it leaves, breaks a rule, or the server stops."""

    def __init__(self, server: Context, sock: socket.socket) -> None:
        self._server = server
        self._sock = sock
        self.descriptor = sock.fileno()
        self._parser = Parser(server.max_body_bytes)
        self._peer = _address(sock.getpeername())
        self._here = _address(sock.getsockname())
        self.since = server.clock
        """When what it waits for began."""
        self.is_idle = True
        """Whether nothing of a request has come that is not answered."""
        self.is_working = False
        """Whether it is the server's turn."""
        self.is_closed = False
        self._is_busy = False
        """Whether an answer is under way."""
        self._is_last = False
        """Whether that answer is the last one."""
        self._is_pumping = False
        self._is_readable = True
        self._has_ended = False
        self._scope: trio.CancelScope | None = None

    # --- what needs no waiting

    def on_event(self, *, has_ended: bool) -> None:
        """Go on: something came, or the client will say no more."""
        self._is_readable = True
        if has_ended:
            self._has_ended = True
        if not self._is_busy:
            self.pump()

    def pump(self) -> None:
        """Do all that needs no waiting. Never raises."""
        self._is_pumping = True
        try:
            self._pump()
        except OSError:
            self.close()  # the client is gone
        except Exception:  # one connection's bug must not end the others
            self._server.log.exception("connection failed")
            self.close()
        finally:
            self._is_pumping = False

    def _pump(self) -> None:
        whole = self._parser.whole
        for _ in range(MOST_IN_A_TURN):
            if self._is_busy or self.is_closed:
                return
            if whole:
                self._begin(whole.popleft())
            elif self._is_readable:
                self._read()
            else:
                self._rest()
                return
        if not self._is_busy and not self.is_closed:
            self._is_busy = True
            self._server.start(self._go_on)

    def _rest(self) -> None:
        """Wait for the next request, or for the rest of one."""
        self.is_idle = self._parser.is_waiting
        if self.is_idle and self._server.is_stopping:
            self.close()

    def _read(self) -> None:
        parser = self._parser
        if parser.is_waiting:
            found = self._server.front.receive(self._sock, READ_BYTES, parser.whole, self._peer[0])
        else:
            found = received(self._sock, READ_BYTES)
        if found is None:
            self._is_readable = False
            return
        data, size = found
        if not size:
            self.close()
            return
        self._is_readable = self._has_ended or size == READ_BYTES
        if self.is_idle:
            self.since, self.is_idle = self._server.clock, False
        if data:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed(data)
        except TooLong:
            self._dismiss(413)
        except httptools.HttpParserError:
            self._dismiss(400)
        else:
            if self._parser.wants_continue and not self._parser.whole:
                self._parser.wants_continue = False
                self._is_busy = True
                self._send_whole(_heads.CONTINUE)

    def _begin(self, request: Request | HttpRequest) -> None:
        self.is_idle, self._is_busy, self.is_working = False, True, True
        self._is_last = self._server.is_stopping
        if isinstance(request, Request):
            self._is_last = self._is_last or not request.keep_alive or self._parser.is_upgrade
            hot = self._server.front.hot_request(request, self._peer[0])
            if hot is None:
                self._server.start(self._serve, request)
                return
            request = hot
        front = self._server.front
        route = front.routes[request.path]
        if not front.start(route, request, self.reply):
            self._server.start(self._answer, route, request)

    def reply(self, answer: Answer) -> None:
        """Write the answer of the request under way; it is ready. Never raises."""
        if self.is_closed:
            return
        try:
            if isinstance(answer, bytes):
                self._send_whole(_heads.json_head(len(answer), is_last=self._is_last) + answer)
            else:
                self._reply(answer)
        except OSError:
            self.close()  # the client is gone
        except Exception:  # whoever calls has others to serve
            self._server.log.exception("connection failed")
            self.close()

    def _reply(self, answer: tuple[bytes, ...] | Content) -> None:
        if isinstance(answer, tuple):
            length = sum(map(len, answer))
            head = _heads.json_head(length, is_last=self._is_last)
            self._send_parts((head, *answer), len(head) + length)
        else:
            head = _heads.head(answer.status, _heads.headers_of(answer), is_last=self._is_last)
            self._send_whole(head + answer.body)

    def _send_whole(self, data: bytes) -> None:
        """Write; what the client does not take at once goes on in a task."""
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            self._done()
        else:
            self._server.start(self._finish_sending, memoryview(data)[sent:])

    def _send_parts(self, parts: Sequence[bytes], length: int) -> None:
        """Do the same without joining the parts first."""
        try:
            sent = self._sock.sendmsg(parts)
        except BlockingIOError:
            sent = 0
        if sent == length:
            self._done()
        else:
            self._server.start(self._finish_sending, memoryview(b"".join(parts))[sent:])

    def _done(self) -> None:
        """The answer is written."""
        self._is_busy = self.is_working = False
        self.since = self._server.clock
        if self._is_last:
            self.close()
        elif self._is_pumping:
            return  # it goes on
        elif self._is_readable or self._parser.whole:
            self.pump()
        else:
            self._rest()

    def close(self) -> None:
        """Close at once."""
        if not self.is_closed:
            self.is_closed = True
            self._server.forget(self)
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

    # --- tasks

    def give_up(self) -> None:
        """The client made the server wait for too long."""
        if self._scope is not None:
            self._scope.cancel()
        elif self.is_idle:
            self.close()
        else:
            self._dismiss(408)

    async def _waiting(self, function: Callable[[], Awaitable[bool]]) -> None:
        """Run what may wait for the client. It tells whether the connection can go on; so does how it ends."""
        can_go_on = False
        try:
            with trio.CancelScope() as self._scope:
                can_go_on = await function()
        except (OSError, trio.ClosedResourceError):
            pass  # the client is gone
        except Exception:  # one connection's bug must not end the others
            self._server.log.exception("connection failed")
        self._scope = None
        if self.is_closed:
            return
        if can_go_on:
            self._done()
        else:
            self.close()

    async def _go_on(self) -> None:
        await trio.lowlevel.checkpoint()
        self._is_busy = False
        self.pump()

    async def _finish_sending(self, data: memoryview) -> None:
        async def send() -> bool:
            await self.write(data)
            return True

        await self._waiting(send)

    async def _answer(self, route: Route, request: HttpRequest) -> None:
        """Answer a request that waits."""

        async def answer() -> bool:
            content = await self._server.front.answer(route, request)
            await self.write(_whole(content, is_last=self._is_last))
            return True

        await self._waiting(answer)

    async def _serve(self, request: Request) -> None:
        """Let the application answer."""

        async def serve() -> bool:
            reply = _Reply(self, request, is_last=self._is_last)
            try:
                await self._server.front(self._scope_of(request), reply.receive, reply.send)
            except (OSError, trio.ClosedResourceError):
                raise
            except Exception:  # the application answers its own errors: this one is a bug in it
                self._server.log.exception("request failed")
                if not reply.has_begun:
                    await self.write(_whole(_refused(500), is_last=True))
                return False
            return True

        await self._waiting(serve)

    def _dismiss(self, status: int) -> None:
        """Say what is wrong and read on for a while: to close with data unread would take the answer back."""
        self._parser.whole.clear()
        self._is_busy = self.is_working = True
        self._server.ignore(self)
        self._server.start(self._last_word, status)

    async def _last_word(self, status: int) -> None:
        async def tell() -> bool:
            with trio.move_on_after(LAST_WORD_S):
                await self._wait_written(_whole(_refused(status), is_last=True))
                self._sock.shutdown(socket.SHUT_WR)
                while await self._receive():
                    pass
            return False

        await self._waiting(tell)

    async def _receive(self) -> bytes:
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            with contextlib.suppress(BlockingIOError):
                return self._sock.recv(READ_BYTES)

    async def write(self, data: bytes | memoryview) -> None:
        """Send a part of an answer; the client has to take it in time."""
        self.since, self.is_working = self._server.clock, False
        await self._wait_written(data)
        self.is_working = True

    async def _wait_written(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._sock.send(view) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._sock)

    def _scope_of(self, request: Request) -> Scope:
        raw, query = request.target
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


class _Reply:
    """The two channels of ASGI for one request; an answer that is known whole is one write."""

    def __init__(self, connection: Connection, request: Request, *, is_last: bool) -> None:
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
            self._head = _heads.head(message["status"], message["headers"], is_last=self._is_last)
            return
        body = b"" if self._request.method == "HEAD" else message.get("body", b"")
        self.has_begun = True
        head, self._head = self._head, b""
        if head or body:
            await self._connection.write(head + body)


def _refused(status: int) -> Content:
    phrase = http.HTTPStatus(status).phrase
    return refusal(phrase, status, phrase.lower().replace(" ", "_"))


def _whole(content: Content, *, is_last: bool) -> bytes:
    return _heads.head(content.status, _heads.headers_of(content), is_last=is_last) + content.body


def _address(name: Any) -> tuple[str, int]:
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) else ("", 0)
