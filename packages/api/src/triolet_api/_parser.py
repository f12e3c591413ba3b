"""From the bytes of a connection to whole requests, in the order they came: httptools, and limits while they arrive."""

import urllib.parse
from collections import deque

import attrs
import httptools

from triolet_api._service import HttpRequest

MAX_HEAD_BYTES = 65_536
"""Request line and headers; Go's default is 1 MiB, nginx's 32 KiB."""


@attrs.define(eq=False)
class Request:
    """A request as it arrives."""

    url: bytes = b""
    headers: list[tuple[bytes, bytes]] = attrs.Factory(list)
    body: bytearray = attrs.Factory(bytearray)
    method: str = ""
    version: str = "1.1"
    keep_alive: bool = True

    @property
    def target(self) -> tuple[bytes, bytes]:
        """The path as it came, and the query; of the absolute form of proxies the path alone counts."""
        raw, _, query = self.url.partition(b"?")
        if not raw.startswith(b"/"):
            raw = urllib.parse.urlsplit(raw).path or b"/"
        return raw, query


class TooLong(Exception):
    """The head or the body of a request exceeds its bound."""


class Parser:
    """Receives httptools' calls and collects whole requests."""

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._parser = httptools.HttpRequestParser(self)
        self._now = Request()
        self._head_bytes = 0
        self._in_body = False
        self.wants_continue = False
        self.is_upgrade = False
        self.whole: deque[Request | HttpRequest] = deque()

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
        self._now = Request()

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
