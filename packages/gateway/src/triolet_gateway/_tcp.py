"""The stream transport, plain or with TLS: one task per connection on a raw non-blocking socket.

A task on a raw socket takes 2.9 KB where a stream takes 5 and a second task 11 (measured), hence no nursery, scope
or timer per connection: deadlines are the gateway's wheel, writing is done by whoever has something to write.
"""

import socket
import ssl

import trio

import triolet_protocol as wire
from triolet_gateway._admission import Peer
from triolet_gateway._gateway import Gateway
from triolet_gateway._outbox import SocketOutbox
from triolet_gateway._session import ClientSession
from triolet_gateway._tls import Certificates, TlsOutbox

READ_BYTES = 65536


async def serve(gateway: Gateway, sock: socket.socket, peer: Peer) -> None:
    """Serve one client until it leaves, is told to, or breaks the protocol. An error here ends this one only."""
    outbox = SocketOutbox(sock, gateway.config.outbox_bytes, gateway.start_soon)
    await _serve(gateway, sock, ClientSession(gateway, outbox, peer, one_packet_per_write=False), None)


async def serve_tls(certificates: Certificates, gateway: Gateway, sock: socket.socket, peer: Peer) -> None:
    """As `serve`, with TLS."""
    outbox = TlsOutbox(sock, gateway.config.outbox_bytes, gateway.start_soon, certificates.context)
    await _serve(gateway, sock, ClientSession(gateway, outbox, peer, one_packet_per_write=False), outbox)


async def _serve(gateway: Gateway, sock: socket.socket, session: ClientSession, tls: TlsOutbox | None) -> None:
    session.open()
    try:
        await _read(sock, session, tls)
    except ssl.SSLError as exc:
        gateway.counters.protocol_errors_total += 1
        gateway.log.info("TLS failed", connection_id=session.connection_id, detail=exc.reason)
    except wire.RemoteProtocolError as exc:
        gateway.counters.protocol_errors_total += 1
        gateway.log.info("protocol error", connection_id=session.connection_id, detail=exc.detail)
    except OSError:
        gateway.log.debug("connection lost", connection_id=session.connection_id)
    except Exception:
        gateway.counters.crashes_total += 1
        gateway.log.exception("connection crashed", connection_id=session.connection_id)
    finally:
        session.close()
        gateway.dismiss(session.peer[0])
        trio.lowlevel.notify_closing(sock)
        sock.close()


async def _read(sock: socket.socket, session: ClientSession, tls: TlsOutbox | None) -> None:
    is_announced = not session.gateway.admission.is_proxy(session.peer[0])
    waiting = b""
    while True:
        await trio.lowlevel.wait_readable(sock)
        try:
            data = sock.recv(READ_BYTES)
        except BlockingIOError:
            continue
        if not data:
            return
        if not is_announced:
            waiting += data
            rest = _take_header(session, waiting)
            if rest is None:
                continue
            is_announced, data = True, rest
        if tls is None:
            await session.on_data(data)
            continue
        for chunk in tls.receive(data):
            if not chunk:
                return
            await session.on_data(chunk)


def _take_header(session: ClientSession, data: bytes) -> bytes | None:
    """Read the PROXY header that a balancer of ours must send; returns what follows, None if it is not all there.

    Raises:
        RemoteProtocolError: There is none, or its client may not connect.
    """
    found = wire.read_header(data)
    if found is None:
        return None
    client, used = found
    if client is not None:
        session.gateway.rename(session.peer[0], client[0])
        session.peer = client
    return data[used:]
