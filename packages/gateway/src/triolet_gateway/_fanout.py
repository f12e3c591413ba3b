"""The same messages for many connections, and events."""

from collections.abc import Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Protocol, cast

import triolet_protocol as wire
from triolet_core import Event, Message
from triolet_core.model import PAIRS, RED_DOT, SYNC_ONCE, SYSTEM_UID, ChannelKey, peer_of, plain_channel
from triolet_gateway._outbox import Outbox
from triolet_gateway._served import ServerEnd
from triolet_gateway._unacked import Unacked, bytes_of, kept_in, runs_of

if TYPE_CHECKING:
    from triolet_gateway._session import ClientSession


Sent = tuple[Sequence[int], Sequence[tuple[int, Sequence[bytes]]]]
"""(bytes of the frames of each session, what is still to be written, by the number of its session)."""


class Receiver(Protocol):
    """A session that is delivered to."""

    @property
    def connection(self) -> ServerEnd:
        """Its protocol."""
        ...

    @property
    def outbox(self) -> Outbox:
        """Where it writes."""
        ...

    @property
    def one_packet_per_write(self) -> bool:
        """Whether packets are not to be joined."""
        ...


def recvs_of(messages: Sequence[Message], uid: str, *, flags: int = 0) -> list[wire.RecvFields]:
    """Return what the RECVs of messages say to a user, with more `flags`; neighbours are mostly of one channel."""
    channel: ChannelKey | None = None
    channel_id, sender, shown_sender, dropped = "", "", "", 0
    recvs = []
    for message in messages:
        if message.sender != sender or message.channel is not channel or message.flags & SYNC_ONCE:
            sender, channel = message.sender, message.channel
            key = plain_channel(channel) if message.flags & SYNC_ONCE else channel
            channel_id = peer_of(key, uid) if key.type in PAIRS else key.id
            shown_sender = "" if sender == SYSTEM_UID else sender
            dropped = RED_DOT if sender == uid else 0
            if message.flags & SYNC_ONCE:
                channel = None
        recvs.append(wire.recv_fields(message, channel_id, shown_sender, message.flags & ~dropped | flags))
    return recvs


def push_one(session: "ClientSession", messages: Sequence[Message]) -> bool:
    """Send messages to a session in one write; what has to be kept is repeated until RECVACK."""
    gateway, count = session.gateway, len(messages)
    config = gateway.config
    recvs = recvs_of(messages, session.device.uid)
    frames = session.connection.encode_recvs(recvs, apart=session.one_packet_per_write)
    runs = runs_of(messages, gateway.now() + config.retry_interval, config.retry_max_count)
    kept, size = kept_in(runs)
    session.out_messages += count
    session.out_message_bytes += size if kept == count else bytes_of(messages)
    if runs:
        if session.unacked is None:
            session.unacked = Unacked(config.unacked, config.unacked_bytes)
        session.unacked.add(runs, kept, size)
        gateway.retrying.add(session)
    gateway.counters.receives_total += count
    return session._send(frames, packets=count)


def push_alike(
    sessions: Sequence["ClientSession"], recvs: Sequence[wire.RecvFields], messages: Sequence[Message]
) -> int:
    """Send messages, all of a session in one write, to sessions of one protocol and transport that see them alike.

    What has to be kept is repeated until RECVACK.

    Returns:
        How many sessions took them.
    """
    gateway, count = sessions[0].gateway, len(messages)
    config = gateway.config
    size = bytes_of(messages)
    due = gateway.now() + config.retry_interval
    runs = runs_of(messages, due, config.retry_max_count, is_shared=len(sessions) > 1)
    sizes, left = sessions[0].send_alike(sessions, recvs)
    for session, length in zip(sessions, sizes, strict=True):
        session.out_messages += count
        session.out_message_bytes += size
        session.out_packets += count
        session.out_packet_bytes += length
    if runs:
        kept, kept_size = kept_in(runs)
        for session in sessions:
            if session.unacked is None:
                session.unacked = Unacked(config.unacked, config.unacked_bytes)
            session.unacked.add(runs, kept, kept_size)
        gateway.retrying.update(sessions)
    gateway.counters.receives_total += count * len(sessions)
    gateway.counters.bytes_out_total += sum(sizes)
    return len(sessions) - sum([not sessions[number].write_counted(frames) for number, frames in left])


def send_alike(sessions: Sequence[Receiver], recvs: Sequence[wire.RecvFields]) -> Sent:
    """Encode messages and send them where nothing waits, to sessions of one protocol and transport."""
    first = sessions[0].connection
    if isinstance(first, wire.JsonConnection):
        texts = first.encode_recvs(recvs)  # not encrypted, hence the same for all
        return [sum(map(len, texts))] * len(sessions), list(enumerate(repeat(texts, len(sessions))))
    connections = cast("list[wire.Connection]", [session.connection for session in sessions])
    if sessions[0].one_packet_per_write:
        apart = list(zip(*[wire.encode_recvs([recv], connections) for recv in recvs], strict=True))
        return [sum(map(len, frames)) for frames in apart], list(enumerate(apart))
    sizes, left = wire.send_recvs(recvs, connections, [session.outbox.descriptor for session in sessions])
    return sizes, [(number, [frames]) for number, frames in left]


def frame_of(event: Event, connection: ServerEnd, limit: int) -> bytes | None:
    """Return the frame of an event, None if none holds it or it would be longer than clients read."""
    try:
        frame = connection.send(wire.EventFrame(event.id, event.type, event.timestamp, event.data))
    except wire.LocalProtocolError:
        return None
    return frame if len(frame) <= limit else None
