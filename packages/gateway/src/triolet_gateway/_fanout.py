"""The same messages for many connections."""

from collections.abc import Iterable, Sequence
from itertools import repeat

from triolet_core import Message
from triolet_gateway import protocol as wire


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
