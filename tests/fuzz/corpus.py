"""Where fuzzing begins: the vectors of tests/conformance, and what long runs have found that reaches other code.

The latter is `corpus/TARGET.txt`, an input a line in hexadecimal; `python -m tests.fuzz` adds to it.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "corpus"
VECTORS = HERE.parents[1] / "conformance" / "vectors"
MAX_BYTES = 2048
"""Longest input."""
_WHOLE = b"\xff"
"""Before what comes in one read (`targets.chunks_of`)."""
_V1 = b"PROXY TCP4 192.0.2.7 192.0.2.1 56324 5100\r\n"
_V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\2\7\xc0\0\2\1\xdc\x04\x13\xec"
_HEADERS = (
    _V1,
    b"PROXY TCP6 2001:db8::7 2001:db8::1 65535 5100\r\n",
    b"PROXY UNKNOWN\r\n",
    _V2,
    _V2[:12] + b"\x21\x21\0\x24" + bytes(36),
    _V2[:12] + b"\x20\0\0\0",
)
_UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
_REQUESTS = (
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    _UPGRADE + b"X-Forwarded-For: 192.0.2.9, ::1\r\n\r\n\x81\x81\0\0\0\0{",
    b"POST /message/send HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n{}",
    b"POST /route/batch HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n[1,2\r\n1\r\n]\r\n0\r\n\r\n",
    b"HEAD /varz?show=conn&conn_limit=1 HTTP/1.0\r\n\r\nGET /health HTTP/1.1\r\nHost: y\r\n\r\n",
)


def write(target: str, inputs: Iterable[bytes]) -> None:
    """Keep inputs, each once."""
    lines = sorted({each.hex() for each in inputs}, key=lambda line: (len(line), line))
    HERE.mkdir(exist_ok=True)
    (HERE / f"{target}.txt").write_text("".join(f"{line}\n" for line in lines))


def inputs_of(target: str) -> list[bytes]:
    """Return the inputs that a target begins with."""
    path = HERE / f"{target}.txt"
    kept = [bytes.fromhex(line) for line in path.read_text().split()] if path.exists() else []
    made = [each for each in _SEEDS[target]() if len(each) <= MAX_BYTES]
    return [*dict.fromkeys([*made, *kept])]


def unpack(target: str, directory: Path) -> None:
    """Write each input to a file, as libFuzzer wants them."""
    directory.mkdir(parents=True, exist_ok=True)
    for each in inputs_of(target):
        (directory / hashlib.sha1(each, usedforsecurity=False).hexdigest()).write_bytes(each)


@cache
def _vectors(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


def _frames() -> Iterator[tuple[int, bytes]]:
    """Yield (version, frame) of every vector, malformed ones as well."""
    for entry in _vectors("wkproto")["vectors"] + _vectors("wkproto")["malformed"]:
        for part in entry.get("hexParts") or [entry]:
            yield entry["version"], bytes.fromhex(part["hex"])


def _frame() -> Iterator[bytes]:
    for entry in _vectors("wkproto")["vectors"]:
        is_limao, is_old = entry["codec"] == "limao", entry["codec"] == "wkproto-1.0.21"
        place = entry["version"] - 1 + (6 if is_limao else 0)
        yield bytes((place + (130 if is_old else 0),)) + bytes.fromhex(entry["hex"])  # 130: a multiple of the versions
    for version, raw in _frames():
        yield bytes((version - 1,)) + raw


def _hot() -> Iterator[bytes]:
    for version, raw in _frames():
        if raw[:1] and raw[0] >> 4 in (3, 6, 7):
            yield bytes((1, version - 1, 3)) + raw
    for number, payload in enumerate(_payloads()):
        yield bytes((2, number, number)) + payload


def _payloads() -> Iterator[bytes]:
    for entry in _vectors("crypto")["payloads"]:
        yield bytes.fromhex(entry["plaintextHex"])


def _writing() -> Iterator[bytes]:
    for payload in _payloads():
        yield bytes(range(16)) + b"n\nchannel\nu1\n" + payload


def _crypto() -> Iterator[bytes]:
    vectors = _vectors("crypto")
    yield from _payloads()
    yield from (entry["encrypted"].encode() for entry in vectors["payloads"])
    yield from (entry["clientKey"].encode() for entry in vectors["sessions"])
    yield from (entry["clientKey"].encode() for entry in vectors["negative"] if "clientKey" in entry)


def _proxy() -> Iterator[bytes]:
    for header in _HEADERS:
        yield header
        yield header[:-1]
        yield header + b"\x10rest"


def _connection() -> Iterator[bytes]:
    for version, raw in _frames():
        yield bytes((1 + 4 * (version - 1),)) + _WHOLE + raw
        if raw[:1] and raw[0] >> 4 in (0, 1, 15):
            yield b"\0" + _WHOLE + raw
    for entry in _vectors("crypto")["send"]:
        yield bytes((3 + 4 * 4,)) + _WHOLE + bytes.fromhex(entry["frameHexV5"])


def _jsonrpc() -> Iterator[bytes]:
    for choice, entry in enumerate(_vectors("jsonrpc")["decode"]):
        yield bytes((choice % 4,)) + _WHOLE + entry["text"].encode()
        yield b"\1" + _WHOLE + entry["text"].encode()


def _sockets() -> Iterator[bytes]:
    for number, (_, raw) in enumerate(_frames()):
        if number % 8 == 0:  # the codec has targets of its own
            yield bytes((4,)) + _WHOLE + raw
            yield bytes((6,)) + bytes((min(len(raw) + 1, 254),)) + b"\x82" + raw[:253]
    for number, entry in enumerate(_vectors("jsonrpc")["decode"]):
        if number % 8 == 0:
            yield bytes((12,)) + _WHOLE + entry["text"].encode()
            yield bytes((14,)) + _WHOLE + b"\x81" + entry["text"].encode()
    for request in _REQUESTS:
        yield b"\3" + _WHOLE + request
        yield b"\1" + _WHOLE + request
        yield b"\x11" + _WHOLE + request
    for header in _HEADERS:
        yield b"\0" + _WHOLE + header
    yield b"\2" + b"\3\x01ab" + b"\3\x89pi" + b"\3\x80cd" + b"\3\x88\x03\xe8"  # a fragmented message, a ping, a close


_SEEDS = {
    "frame": _frame,
    "hot": _hot,
    "writing": _writing,
    "crypto": _crypto,
    "proxy": _proxy,
    "connection": _connection,
    "jsonrpc": _jsonrpc,
    "sockets": _sockets,
}
