"""What a listener makes of an accepted socket: the layers between it and the session."""

import socket

from triolet_gateway._admission import Peer
from triolet_gateway._entrance import Entrance
from triolet_gateway._gateway import Gateway
from triolet_gateway._socket import Layer, SocketConnection
from triolet_gateway._tls import Certificates, Tls
from triolet_gateway._websocket import WebSocket


def serve_tcp(gateway: Gateway, sock: socket.socket, peer: Peer, *, certificates: Certificates | None = None) -> None:
    """Serve a client that speaks the protocol on the stream."""
    connection = SocketConnection(gateway, sock, peer, one_packet_per_write=False)
    is_announced = not gateway.admission.is_proxy(peer[0])
    layers: list[Layer] = []
    if not is_announced or certificates is not None:
        layers.append(Entrance(connection.session, connection.send, is_announced=is_announced, needs_header=True))
    if certificates is not None:
        layers.append(Tls(certificates.context, connection.send))
    connection.open(tuple(layers))


def serve_websocket(
    gateway: Gateway, sock: socket.socket, peer: Peer, *, certificates: Certificates | None = None
) -> None:
    """Serve a client that speaks the protocol in WebSocket messages."""
    connection = SocketConnection(gateway, sock, peer, one_packet_per_write=True)
    is_announced = not gateway.admission.is_proxy(peer[0])
    layers: list[Layer] = [Entrance(connection.session, connection.send, is_announced=is_announced, needs_header=False)]
    if certificates is not None:
        layers.append(Tls(certificates.context, connection.send))
    layers.append(WebSocket(connection.session, layers[-1].write))
    connection.open(tuple(layers))
