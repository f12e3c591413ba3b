"""The same messages for several connections."""

from collections.abc import Sequence

from triolet_protocol import _connection, _hot, _sockets


def encode_recvs(recvs: Sequence[_hot.RecvFields], receivers: Sequence[_connection.Connection]) -> list[bytes]:
    """Return the RECVs of messages for several receivers who see them alike: all of one receiver joined."""
    return _connection.hot.write_recvs(recvs, [each._peer for each in receivers])


def send_recvs(
    recvs: Sequence[_hot.RecvFields], receivers: Sequence[_connection.Connection], descriptors: Sequence[int]
) -> tuple[list[int], list[_sockets.Left]]:
    """Encode as `encode_recvs` does, and send to the receivers that have a descriptor (see `_hot.send_recvs`)."""
    return _connection.hot.send_recvs(recvs, [each._peer for each in receivers], descriptors)


def read_sockets(descriptors: Sequence[int], most: int, enough: int) -> list[bytes | None]:
    """Read once from each of several sockets (see `_sockets`)."""
    return _connection.hot.read_sockets(descriptors, most, enough)


def write_sockets(outgoing: Sequence[tuple[int, bytes]]) -> list[_sockets.Left]:
    """Write to several sockets; returns what they did not take (see `_sockets`)."""
    return _connection.hot.write_sockets(outgoing)
