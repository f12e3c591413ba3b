"""What a listener makes of an accepted socket: the layers between it and the session."""

import socket

from triolet_gateway._admission import Peer, Proxies
from triolet_gateway._config import GatewayConfig
from triolet_gateway._entrance import Entrance
from triolet_gateway._gateway import Gateway
from triolet_gateway._session import ClientSession
from triolet_gateway._socket import Layer, Layers, SocketConnection
from triolet_gateway._tls import Certificates, Tls
from triolet_gateway._websocket import WebSocket


def serve_tcp(
    gateway: Gateway, sock: socket.SocketType, peer: Peer, *, certificates: Certificates | None = None
) -> None:
    """Serve a client that speaks the protocol on the stream."""
    connection = SocketConnection(gateway, sock)
    connection.session = ClientSession(gateway, connection, peer, one_packet_per_write=False)
    connection.open(tcp_layers(connection, gateway.config, certificates))


def serve_websocket(
    gateway: Gateway, sock: socket.SocketType, peer: Peer, *, certificates: Certificates | None = None
) -> None:
    """Serve a client that speaks the protocol in WebSocket messages."""
    connection = SocketConnection(gateway, sock)
    connection.session = ClientSession(gateway, connection, peer, one_packet_per_write=True)
    connection.open(websocket_layers(connection, gateway.config, gateway.admission, certificates))


def tcp_layers(connection: SocketConnection, config: GatewayConfig, certificates: Certificates | None) -> Layers:
    """Return the layers of a client that speaks the protocol on the stream."""
    is_announced = not connection.session.speaks_for_others
    layers: list[Layer] = []
    if not is_announced or certificates is not None:
        layers.append(
            Entrance(connection.session, config, connection.send, is_announced=is_announced, needs_header=True)
        )
    if certificates is not None:
        layers.append(Tls(certificates.context, connection.send))
    return tuple(layers)


def websocket_layers(
    connection: SocketConnection, config: GatewayConfig, proxies: Proxies, certificates: Certificates | None
) -> Layers:
    """Return the layers of a client that speaks the protocol in WebSocket messages."""
    session = connection.session
    is_announced = not session.speaks_for_others
    layers: list[Layer] = [Entrance(session, config, connection.send, is_announced=is_announced, needs_header=False)]
    if certificates is not None:
        layers.append(Tls(certificates.context, connection.send))
    layers.append(WebSocket(session, proxies, layers[-1].write, max_frame_size=config.max_frame_size))
    return tuple(layers)
