"""Listening sockets: TCP of both families, Unix, or inherited from systemd; and the loop that accepts."""

import errno
import os
import socket
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

import trio

from triolet_core import ConfigError
from triolet_core.config import parse_address
from triolet_gateway._admission import UNIX, Peer
from triolet_gateway._gateway import Gateway

BACKLOG = 1024
FIRST_INHERITED = 3
"""Number of the first descriptor that systemd hands over. Source: sd_listen_fds(3)."""
_PAUSE_S = 0.1
_TRANSIENT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ENOSPC})
_SCHEME = "unix://"

ACCEPTS_AT_ONCE = 64
"""After so many new connections those that are open have their turn."""
Serve = Callable[[Gateway, socket.SocketType, Peer], None]


def inherited(environ: Mapping[str, str], pid: int, first: int = FIRST_INHERITED) -> dict[str, socket.socket]:
    """Return the sockets that systemd opened for this process, by their FileDescriptorName= or bound address.

    Raises:
        ConfigError: What is handed over is no listening stream socket.
    """
    if environ.get("LISTEN_PID") != str(pid):
        return {}
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, socket.socket] = {}
    for place in range(int(environ.get("LISTEN_FDS") or 0)):
        try:
            sock = socket.socket(fileno=first + place)
            is_listener = sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as exc:
            raise ConfigError("LISTEN_FDS", f"descriptor {first + place} is no socket: {exc.strerror}") from exc
        if not is_listener:
            sock.close()
            raise ConfigError("LISTEN_FDS", f"descriptor {first + place} does not listen to streams")
        os.set_inheritable(sock.fileno(), False)  # noqa: FBT003  # that is its signature
        name = names[place] if place < len(names) else ""
        found[name if name not in ("", "unknown") else bound_address(sock)] = sock
    return found


def open_listener(key: str, address: str) -> socket.socket:
    """Return a non-blocking listener for `host:port`, `[ipv6]:port` or `unix://path`.

    Raises:
        ConfigError: It is no address.
        OSError: The address cannot be used.
    """
    if address.startswith(_SCHEME):
        listener = _open_unix(Path(address.removeprefix(_SCHEME)))
    else:
        listener = _open_tcp(*parse_address(key, address))
    listener.settimeout(0)
    return listener


def _open_tcp(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    takes_both = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=takes_both)


def _open_unix(path: Path) -> socket.socket:
    """Bind a path. Who may connect is a matter of the permissions of its directory and of our umask."""
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _remove_stale(path: Path) -> None:
    """Remove the socket file of a server that is gone; one that answers, or any other file, stays."""
    if not path.exists() or not stat.S_ISSOCK(path.stat().st_mode):
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)


def close(listener: socket.socket, *, is_ours: bool) -> None:
    """Close a listener, and remove the path that we bound it to."""
    path = listener.getsockname() if listener.family == socket.AF_UNIX else None
    listener.close()
    if path and is_ours:
        Path(path).unlink(missing_ok=True)


def bound_address(listener: socket.socket) -> str:
    """Return what a listener is bound to: host:port, or a path."""
    name = listener.getsockname()
    if isinstance(name, str):
        return name
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def peer_of(address: object) -> Peer:
    """Return host and port of an accepted connection; IPv4 in IPv6 clothes is IPv4."""
    if not isinstance(address, tuple):
        return UNIX, 0
    host, port = address[:2]
    return host.removeprefix("::ffff:") if "." in host else host, port


async def accept_forever(gateway: Gateway, listener: socket.socket, serve: Serve) -> None:
    """Accept what is waiting, each time something is; `serve` owns the socket from then on."""
    if listener.family != socket.AF_UNIX:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # Linux hands it on to what is accepted
    family = int(listener.family)
    while True:
        await trio.lowlevel.wait_readable(listener)
        try:
            for _ in range(ACCEPTS_AT_ONCE):
                sock, address = _accept(listener, family)
                _begin(gateway, sock, peer_of(address), serve)
        except BlockingIOError:
            continue
        except OSError as exc:
            if exc.errno not in _TRANSIENT:
                gateway.log.debug("accept failed", error=exc.strerror)
                continue
            gateway.log.warning("no more connections can be accepted", error=exc.strerror)
            await trio.sleep(_PAUSE_S)


def _accept(listener: socket.socket, family: int) -> tuple[socket.SocketType, object]:
    """Accept as `listener.accept` does, but make a socket without the conveniences of Python's, which take 3 µs."""
    descriptor, address = listener._accept()  # type: ignore[attr-defined]  # undocumented; what `accept` calls
    return socket.SocketType(family, socket.SOCK_STREAM, 0, descriptor), address


def _begin(gateway: Gateway, sock: socket.SocketType, peer: Peer, serve: Serve) -> None:
    if not gateway.admit(peer[0]):
        sock.close()
        return
    sock.settimeout(0)
    try:
        serve(gateway, sock, peer)
    except OSError:  # it cannot be watched
        gateway.dismiss(peer[0])
        sock.close()
        raise
