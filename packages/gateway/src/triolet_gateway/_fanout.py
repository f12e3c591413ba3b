"""The same messages for many connections, and events."""

from collections.abc import Iterable, Sequence
from itertools import repeat

import triolet_protocol as wire
from triolet_core import Event, Message


def encode_alike(
    recvs: Sequence[wire.RecvFields], connections: Sequence[wire.Connection | wire.JsonConnection], *, apart: bool
) -> Iterable[Sequence[bytes]]:
    """Return the frames of messages for each of some connections of one protocol; joined, or each `apart`."""
    if isinstance(connections[0], wire.JsonConnection):
        return repeat(connections[0].encode_recvs(recvs), len(connections))  # not encrypted, hence the same for all
    receivers = [each for each in connections if isinstance(each, wire.Connection)]
    steps = [[recv] for recv in recvs] if apart else [recvs]
    return zip(*[wire.encode_recvs(step, receivers) for step in steps], strict=True)


def bytes_of(messages: Sequence[Message]) -> int:
    """Return the bytes of the payloads."""
    return sum([len(message.payload) for message in messages])


def frame_of(event: Event, connection: wire.Connection | wire.JsonConnection, limit: int) -> bytes | None:
    """Return the frame of an event, None if none holds it or it would be longer than clients read."""
    try:
        frame = connection.send(wire.EventFrame(event.id, event.type, event.timestamp, event.data))
    except wire.LocalProtocolError:
        return None
    return frame if len(frame) <= limit else None
