"""The hot endpoints in front of Quart, as a plain ASGI application; every other request goes on to Quart.

Both ways end in `Service.answer`, so that a request is answered alike whichever it takes: Quart costs about 700 µs
of processor per request, this 60. The server of our own does without ASGI for them.
"""

import os
import socket
import urllib.parse
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from triolet_api._answers import Content
from triolet_api._call import Route
from triolet_api._heads import headers_of
from triolet_api._parser import Request
from triolet_api._service import HttpRequest, Service, refusal
from triolet_core import speedups

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

HOT = frozenset(
    {
        "/message/send",
        "/message/sendbatch",
        "/message/sync",
        "/channel/messagesync",
        "/conversation/sync",
        "/user/onlinestatus",
    }
)
"""What a busy backend calls for every message; the rest may take its time."""
DROPPED_BYTES = 1 << 20
"""How much of a body that is too long is read, so that its sender gets the answer."""
_NOTHING: Mapping[str, str] = {}
_compiled = speedups.find(os.environ)


class Front:
    """Answers the hot endpoints."""

    def __init__(self, service: Service, routes: Iterable[Route], behind: Application) -> None:
        self._service = service
        self._behind = behind
        self.routes = {route.path: route for route in routes if route.path in HOT and route.method == "POST"}
        self._most = service.services.config.max_body_bytes
        self.start = service.start
        """Answer a request to a hot endpoint without waiting, see `Service.start`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        route = self.routes.get(scope.get("path", "")) if scope["type"] == "http" else None
        is_hot = route is not None and scope["method"] == "POST"
        if not is_hot and (scope["type"] != "http" or _announced(scope) <= self._most):
            await self._behind(scope, receive, send)
            return
        body = await self._body(receive)
        if body is None or route is None:
            content = refusal("Request Entity Too Large", 413, "request_entity_too_large")
        else:
            content = await self._service.answer(route, _request(scope, body))
        await send({"type": "http.response.start", "status": content.status, "headers": headers_of(content)})
        await send({"type": "http.response.body", "body": content.body, "more_body": False})

    async def answer(self, route: Route, request: HttpRequest) -> Content:
        """Answer a request to a hot endpoint."""
        return await self._service.answer(route, request)

    def receive(
        self, sock: socket.socket, size: int, whole: deque[Request | HttpRequest], peer: str
    ) -> tuple[bytes, int] | None:
        """Read once from a non-blocking socket, and take the plain requests to hot endpoints that come first.

        Returns:
            (what follows them, bytes that were read: none if the client has ended or is gone); None if nothing came.
        """
        if _compiled is None:
            return received(sock, size)
        found = _compiled.receive_requests(sock.fileno(), size, self.routes, self._most)
        if found is None:
            return None
        for path, query, headers, body in found[0]:
            named = _query(query) if query else _NOTHING
            whole.append(HttpRequest("POST", path, headers, named, body, peer, _NOTHING))
        return found[1:]  # type: ignore[no-any-return]  # of the compiled function

    def hot_request(self, request: Request, peer: str) -> HttpRequest | None:
        """Return a request to a hot endpoint as `Service` takes it, None if it is to another."""
        raw, _, query = request.url.partition(b"?")
        path = raw.decode("ascii", "replace")
        if path not in self.routes or request.method != "POST":
            return None
        headers = _by_name(request.headers)
        return HttpRequest("POST", path, headers, _query(query), bytes(request.body), peer)

    async def _body(self, receive: Receive) -> bytes | None:
        """Return the whole body, None if it is too long.

        Of one that is, a part more is read and dropped: a server that closes on a client that still sends may lose
        the answer to a reset.
        """
        message = await receive()
        body: bytes = message.get("body", b"")
        read = len(body)
        while message.get("more_body") and read <= self._most + DROPPED_BYTES:
            message = await receive()
            read += len(message.get("body", b""))
            if read <= self._most:
                body += message.get("body", b"")
        return body if read <= self._most else None


def received(sock: socket.socket, size: int) -> tuple[bytes, int] | None:
    """Read once from a non-blocking socket; returns the bytes and how many they are, None if nothing came."""
    try:
        data = sock.recv(size)
    except BlockingIOError:
        return None
    except OSError:
        return b"", 0
    return data, len(data)


def _announced(scope: Scope) -> int:
    length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    return int(length[:20]) if length.isdigit() else 0


def _request(scope: Scope, body: bytes) -> HttpRequest:
    client = scope.get("client") or ("", 0)
    headers = _by_name(scope["headers"])
    return HttpRequest("POST", scope["path"], headers, _query(scope["query_string"]), body, client[0])


def _by_name(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}


def _query(text: bytes) -> Mapping[str, str]:
    return dict(urllib.parse.parse_qsl(text.decode("latin-1"))) if text else {}
