"""The same messages for many connections, and events."""

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import TYPE_CHECKING

import trio

import triolet_protocol as wire
from triolet_core import Event, Message
from triolet_gateway._crash import end_crashed
from triolet_gateway._gateway import Gateway
from triolet_gateway._unacked import Entry, entries_of

if TYPE_CHECKING:
    from triolet_gateway._session import ClientSession


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


def push_alike(sessions: Sequence["ClientSession"], messages: Sequence[Message]) -> int:
    """Serve sessions of one protocol and transport for which messages look the same."""
    first, taken = sessions[0], 0
    try:
        recvs = [first._recv(message) for message in messages]
        encoded = encode_alike(recvs, [session.connection for session in sessions], apart=first.one_packet_per_write)
    except Exception:  # whose fault it is shows one by one
        return sum([session.push(messages) for session in sessions])
    entries, count, size = entries_for(first.gateway, messages), len(messages), bytes_of(messages)
    for session, frames in zip(sessions, encoded, strict=True):
        try:
            taken += session._deliver(frames, count, size, entries)
        except Exception:
            end_crashed(session)
    return taken


def entries_for(gateway: Gateway, messages: Sequence[Message]) -> dict[int, Entry]:
    """Return what each session remembers of messages until their RECVACK."""
    config = gateway.config
    return entries_of(messages, trio.current_time() + config.retry_interval, config.retry_max_count)
