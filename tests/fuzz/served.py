"""A whole server in a thread, and what one client may do to it over a socket."""

import contextlib
import logging
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import attrs
import structlog
import trio

import triolet_api
import triolet_gateway
from triolet_core import Server, ServerConfig, open_server
from triolet_gateway import GatewayConfig

PATIENCE_S = 20.0
"""The server closes what a client has closed; a connection that stays open for so long is a finding."""
_FAILURES = ("gateway_crashes_total", "api_failed_total")
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
_PROXY = b"PROXY TCP4 192.0.2.7 192.0.2.1 56324 5100\r\n"


@cache
def server() -> Server:
    """Start the server of this process, which lives as long as that."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    started, running = threading.Event(), list[Server]()

    async def serve() -> None:
        async with open_server(_config(), plugins=[triolet_gateway.plugin, triolet_api.plugin]) as made:
            running.append(made)
            started.set()
            await trio.sleep_forever()

    ThreadPoolExecutor(1).submit(trio.run, serve)
    assert started.wait(PATIENCE_S)
    return running[0]


def _config() -> ServerConfig:
    path = tempfile.mkdtemp(prefix="triolet-fuzz-")
    addresses = {"tcp_addr": "127.0.0.1:0", "ws_addr": "127.0.0.1:0"}
    limits = {"max_frame_size": 4096, "max_login_bytes": 2048, "outbox_bytes": 65536}
    section = GatewayConfig(**addresses, **limits, proxy_from=("127.0.0.2",))  # type: ignore[arg-type]
    config = ServerConfig()
    node = attrs.evolve(config.node, data_dir=path, root_dir=str(Path(path)))
    api = triolet_api.plugin.config_class(http_addr="127.0.0.1:0")
    return attrs.evolve(config, node=node, sections={"gateway": section, "api": api})


def failures(served: Server) -> Mapping[str, int | float]:
    """Return how often code of a connection or a request has raised what it should not."""
    values = served.broker.metrics.values()
    return {name: values[name] for name in _FAILURES}


@contextlib.contextmanager
def connected(kind: str, *, is_proxied: bool = False) -> Iterator[socket.socket]:
    """Connect as a client; as a balancer from another address."""
    host, _, port = server().broker.endpoints[kind].rpartition(":")
    with socket.create_connection((host, int(port)), PATIENCE_S, ("127.0.0.2" if is_proxied else host, 0)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if is_proxied:
            sock.sendall(_PROXY)
        yield sock


def upgrade(sock: socket.socket) -> None:
    """Shake hands as a WebSocket client."""
    sock.sendall(UPGRADE)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += sock.recv(4096) or b"\r\n\r\n"
    assert answer.startswith(b"HTTP/1.1 101 ")


def ws_frame(first: int, payload: bytes) -> bytes:
    """Return a frame of a client, its mask zero so that the payload stays as it is."""
    size = len(payload)
    head = bytes((first, 0x80 | size)) if size < 126 else bytes((first, 0xFE)) + size.to_bytes(2, "big")
    return head + bytes(4) + payload


def say(sock: socket.socket, reads: Sequence[bytes]) -> bytes:
    """Send what a client says, then its end; returns what the server says until it ends."""
    heard = b""
    try:
        for data in reads:
            sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
    except TimeoutError:
        raise
    except OSError:  # it has closed the connection before we were done
        pass
    with contextlib.suppress(ConnectionError):
        while data := sock.recv(65536):
            heard += data
    return heard
