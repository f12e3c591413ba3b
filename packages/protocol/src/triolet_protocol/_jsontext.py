"""JSON texts out of a stream of bytes: cut first, with bounds on length and depth, parsed afterwards."""

import json
import re
from typing import Any, NoReturn

from triolet_protocol._errors import RequestError

PARSE_ERROR = -32700
_SPACE = re.compile(rb"[ \t\r\n]*+")
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+("?)|[{}\[\]]', re.DOTALL)
"""A string, whole or up to the end of what is there, or a bracket."""
_REST_OF_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_QUOTE = ord('"')


class Splitter:
    """Cuts bytes into top-level objects and arrays, each byte looked at once however they arrive."""

    __slots__ = ("_buffer", "_depth", "_is_in_string", "_max_bytes", "_max_depth", "_position", "_start")

    def __init__(self, max_bytes: int, max_depth: int) -> None:
        self._max_bytes = max_bytes
        self._max_depth = max_depth
        self._buffer = b""
        self.clear()

    def clear(self) -> None:
        """Forget what is there."""
        self._buffer = b""
        self._start = self._position = self._depth = 0
        self._is_in_string = False

    def feed(self, data: bytes) -> None:
        """Take bytes."""
        rest = self._buffer[self._start :]
        self._buffer = rest + data if rest else data
        self._position -= self._start
        self._start = 0

    @property
    def waiting(self) -> int:
        """Bytes that no text was cut from yet."""
        return len(self._buffer) - self._start

    def next_text(self) -> bytes | None:
        """Return the next object or array, None if it is not all there.

        Raises:
            RequestError: Something else begins here, or it is too long or too deep. Nothing more can be cut.
        """
        if not self._depth and not self._begin():
            return None
        end = self._find_end()
        if (end or len(self._buffer)) - self._start > self._max_bytes:
            limit = f"a JSON text of more than {self._max_bytes} bytes (gateway.maxFrameSize)"
            raise RequestError(PARSE_ERROR, limit)
        if end is None:
            return None
        text = self._buffer[self._start : end]
        self._start = self._position = end
        return text

    def _begin(self) -> bool:
        buffer = self._buffer
        space = _SPACE.match(buffer, self._start)
        self._start = self._position = space.end() if space else self._start
        if self._start == len(buffer):
            self.clear()
            return False
        if not is_opening(buffer[self._start]):
            raise RequestError(PARSE_ERROR, "neither an object nor an array")
        return True

    def _find_end(self) -> int | None:
        """Go on to the bracket that closes the outermost one; None if it is not there yet."""
        buffer = self._buffer
        if self._is_in_string and not self._leave_string():
            return None
        for token in _TOKEN.finditer(buffer, self._position):
            byte = buffer[token.start()]
            if byte == _QUOTE:
                if not token[1]:
                    self._is_in_string = True
                    self._position = token.end()
                    return None
            elif is_opening(byte):
                self._depth += 1
                if self._depth > self._max_depth:
                    raise RequestError(PARSE_ERROR, f"a JSON text deeper than {self._max_depth}")
            else:
                self._depth -= 1
                if not self._depth:
                    return token.end()
        self._position = len(buffer)
        return None

    def _leave_string(self) -> bool:
        found = _REST_OF_STRING.match(self._buffer, self._position)
        self._position = found.end() if found else self._position
        if self._buffer[self._position : self._position + 1] != b'"':
            return False
        self._position += 1
        self._is_in_string = False
        return True


def is_opening(byte: int) -> bool:
    """Whether an object or an array begins with this byte."""
    return byte in b"{["


def begins_json(data: bytes) -> bool | None:
    """Tell whether a connection that begins with `data` speaks JSON-RPC; None if there is only white space.

    Source: wire-protocol.md, section 1.4.
    """
    rest = data.lstrip(b" \t\r\n")
    return is_opening(rest[0]) if rest else None


def parse(text: bytes) -> Any:
    """Parse one JSON text.

    Raises:
        RequestError: It is no JSON, or no UTF-8.
    """
    try:
        return _DECODER.decode(text.decode())
    except (ValueError, RecursionError):
        raise RequestError(PARSE_ERROR, "no JSON") from None


def clean(text: str) -> str:
    """Return text with lone surrogates, which no encoding holds, replaced, as the reference does."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def dump(value: object) -> bytes:
    """Return compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


_DECODER = json.JSONDecoder(parse_constant=_refuse)
