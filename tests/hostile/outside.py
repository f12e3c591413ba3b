"""A server seen from outside: what it says of itself, what the system says of its process; and sockets to treat it ill.

The sockets are the system's own, without a loop, so that ten thousand of them cost the test little.
"""

import contextlib
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import httpx

import triolet_protocol as wire
from tests.fuzz.served import UPGRADE, ws_frame
from tests.serving import running
from triolet_protocol import _crypto

IP_BIND_ADDRESS_NO_PORT = 24
"""Choose the port when it is known where to: ports are then shared between addresses. Source: linux/in.h."""
POLL_S = 0.02
_CLIENT_KEY = _crypto.KeyPair(bytes(range(32))).public
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER on, for no time: closing sends RST."""


@attrs.define(eq=False)
class Outside:
    """One server in a process of its own."""

    pid: int
    urls: Mapping[str, str]
    http: httpx.Client
    directory: Path

    def address(self, kind: str = "tcp") -> tuple[str, int]:
        host, _, port = self.urls[kind].rpartition("://")[2].rpartition(":")
        return host.strip("[]"), int(port)

    def varz(self) -> dict[str, Any]:
        return self.http.get("/varz").raise_for_status().json()

    def metric(self, name: str) -> float:
        """Return one number of /metrics."""
        for line in self.http.get("/metrics").raise_for_status().text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        raise KeyError(name)

    def private_kb(self) -> int:
        """Return the anonymous memory that is resident: without the store's file, whose pages are the kernel's."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1])
        raise KeyError("RssAnon")

    def sockets(self) -> int:
        """Return how many sockets the process has open."""
        return sum(_is_socket(path) for path in Path(f"/proc/{self.pid}/fd").iterdir())

    def log(self) -> str:
        return (self.directory / "server.log").read_text()


def _is_socket(path: Path) -> bool:
    try:
        return str(path.readlink()).startswith("socket:")
    except OSError:  # closed meanwhile
        return False


@contextlib.contextmanager
def outside(directory: Path, *settings: str) -> Iterator[Outside]:
    """Run a server; at the end no connection may have crashed unless the test has said so."""
    with running(directory, *settings) as (pid, urls), httpx.Client(base_url=urls["http"], timeout=30) as http:
        yield Outside(pid, urls, http, directory)


def eventually(condition: Callable[[], object], *, limit_s: float = 30.0, what: Callable[[], object] = str) -> None:
    """Look until something holds."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, what()
        select.select((), (), (), POLL_S)


def connect_frame(uid: str) -> bytes:
    """Return the CONNECT of a client, always with the same keys."""
    return wire.encode(wire.Connect(5, 0, "d", uid, "", 0, _CLIENT_KEY), 5)


def new_socket(number: int = 0, *, receive_bytes: int = 0) -> socket.socket:
    """Return a non-blocking socket, bound to one of 100 addresses of this machine."""
    sock = socket.socket()
    sock.setblocking(False)
    if receive_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((f"127.0.0.{2 + number % 100}", 0))
    return sock


def reset(sock: socket.socket) -> None:
    """Close a socket as a machine does that has forgotten it."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()


def log_in(
    address: tuple[str, int],
    uids: Iterable[str],
    *,
    limit_s: float = 60.0,
    receive_bytes: int = 0,
    is_websocket: bool = False,
) -> list[socket.socket]:
    """Connect many clients at once, all of them before the first is served, and wait until each is let in."""
    waiting: dict[int, tuple[socket.socket, list[bytes]]] = {}
    opened: list[socket.socket] = []
    with contextlib.ExitStack() as on_failure, select.epoll() as poll:
        for number, uid in enumerate(uids):
            sock = on_failure.enter_context(new_socket(number, receive_bytes=receive_bytes))
            sock.connect_ex(address)
            opened.append(sock)
            frame = connect_frame(uid)
            waiting[sock.fileno()] = sock, [UPGRADE, ws_frame(0x82, frame)] if is_websocket else [frame]
            poll.register(sock, select.EPOLLOUT)
        end = time.monotonic() + limit_s
        while waiting:
            assert time.monotonic() < end, f"{len(waiting)} of {len(opened)} were not let in"
            for fileno, events in poll.poll(1.0):
                sock, steps = waiting[fileno]
                if events & select.EPOLLOUT:
                    poll.modify(fileno, select.EPOLLIN)
                else:
                    _check_answer(sock.recv(4096))
                if steps:
                    sock.sendall(steps.pop(0))
                else:
                    poll.unregister(fileno)
                    del waiting[fileno]
        on_failure.pop_all()
    return opened


def _check_answer(data: bytes) -> None:
    """Take the answer to an upgrade, or a CONNACK, by itself or in a WebSocket's frame."""
    if data.startswith(b"HTTP/1.1 101 "):
        return
    found = wire.decode(data[2:] if data[:1] == b"\x82" else data, 0, 5)
    assert found is not None
    assert isinstance(found[0], wire.ConnAck)
    assert found[0].reason_code == 1


def wait_closed(socks: Iterable[socket.socket], *, limit_s: float = 30.0) -> None:
    """Read until the server has closed each."""
    end = time.monotonic() + limit_s
    for sock in socks:
        sock.settimeout(max(0.01, end - time.monotonic()))
        try:
            while sock.recv(65536):
                pass
        except ConnectionError:
            continue


def ended(socks: Iterable[socket.socket]) -> list[socket.socket]:
    """Return those that the server has closed; what it has said to them is dropped."""
    found = []
    for sock in socks:
        sock.setblocking(False)
        try:
            while sock.recv(65536):
                pass
        except BlockingIOError:
            continue
        except ConnectionError:
            pass
        found.append(sock)
    return found
