"""The hot endpoints in front of Quart, as a plain ASGI application; every other request goes on to Quart.

Both ways end in `Service.answer`, so that a request is answered alike whichever it takes: Quart costs about 700 µs
of processor per request, this 60.
"""

import urllib.parse
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from triolet_api._answers import Content
from triolet_api._call import Route
from triolet_api._service import CORS, HttpRequest, Service, refusal

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
_CORS = [(name.lower().encode(), value.encode()) for name, value in CORS]


class Front:
    """Answers the hot endpoints."""

    def __init__(self, service: Service, routes: Iterable[Route], behind: Application) -> None:
        self._service = service
        self._behind = behind
        self._routes = {route.path: route for route in routes if route.path in HOT and route.method == "POST"}
        self._most = service.services.config.max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        route = self._routes.get(scope.get("path", "")) if scope["type"] == "http" else None
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


def _announced(scope: Scope) -> int:
    length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    return int(length[:20]) if length.isdigit() else 0


def _request(scope: Scope, body: bytes) -> HttpRequest:
    client = scope.get("client") or ("", 0)
    return HttpRequest(
        method="POST",
        path=scope["path"],
        headers={name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
        query=_query(scope["query_string"]),
        body=body,
        peer=client[0],
    )


def _query(text: bytes) -> Mapping[str, str]:
    return dict(urllib.parse.parse_qsl(text.decode("latin-1"))) if text else {}


def headers_of(content: Content) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer."""
    return [
        (b"content-type", content.content_type.encode()),
        (b"content-length", str(len(content.body)).encode()),
        *((name.lower().encode(), value.encode()) for name, value in content.headers),
        *_CORS,
    ]
