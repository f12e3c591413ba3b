"""Heads of HTTP/1.1 answers. What is the same for all is made once, the date once a second."""

import email.utils
import http
import time

from triolet_api._answers import JSON, Content
from triolet_api._service import CORS

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in http.HTTPStatus}
_CORS = [(name.lower().encode(), value.encode()) for name, value in CORS]
_CLOSE = b"connection: close\r\n"
_CORS_LINES = b"".join(b"%s: %s\r\n" % header for header in _CORS)
_JSON_END = {False: b"\r\n" + _CORS_LINES + b"\r\n", True: b"\r\n" + _CORS_LINES + _CLOSE + b"\r\n"}


def headers_of(content: Content) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer."""
    return [
        (b"content-type", content.content_type.encode()),
        (b"content-length", str(len(content.body)).encode()),
        *((name.lower().encode(), value.encode()) for name, value in content.headers),
        *_CORS,
    ]


def head(status: int, headers: list[tuple[bytes, bytes]], *, is_last: bool) -> bytes:
    """Return the head of an answer, `is_last` if the connection is closed after it."""
    lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status, _lines_of_now()[0]]
    lines += [b"%s: %s\r\n" % header for header in headers]
    lines.append(_CLOSE + b"\r\n" if is_last else b"\r\n")
    return b"".join(lines)


def json_head(length: int, *, is_last: bool) -> bytes:
    """Return the head of an answer with status 200 and a JSON body of `length` bytes."""
    start = _of_now[2] if _of_now[0] == int(time.time()) else _lines_of_now()[1]
    return b"%b%d%b" % (start, length, _JSON_END[is_last])


_of_now: tuple[int, bytes, bytes] = (0, b"", b"")


def _lines_of_now() -> tuple[bytes, bytes]:
    """Return the line of the date, and a head of JSON up to its length."""
    global _of_now  # made once a second
    now = int(time.time())
    if _of_now[0] != now:
        date = b"date: %s\r\n" % email.utils.formatdate(now, usegmt=True).encode()
        start = b"%b%bcontent-type: %b\r\ncontent-length: " % (_STATUS_LINES[200], date, JSON.encode())
        _of_now = (now, date, start)
    return _of_now[1:]
