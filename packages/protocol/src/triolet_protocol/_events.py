"""What a connection tells: one record per thing that the peer did."""

from dataclasses import dataclass, field
from typing import NamedTuple

from triolet_protocol import _frames
from triolet_protocol._hot import Mark, Read, SendFields
from triolet_protocol._numbers import NO_PERSIST, SETTING_STREAM, SETTING_STREAM_V1

_STREAM_BITS = SETTING_STREAM | SETTING_STREAM_V1


def is_stream_event(kind: str) -> bool:
    """Whether an EVENT of this type belongs to a stream; of others there are none from clients."""
    return kind[:7].lower() == "stream."


@dataclass(slots=True)
class ConnectReceived:
    """A client wants in."""

    connect: _frames.Connect


@dataclass(slots=True, eq=False)
class SendReceived:
    """A message; decrypted, or with the reason to refuse it."""

    send: _frames.Send
    refusal: int = 0


@dataclass(slots=True)
class RecvAckReceived:
    """A message was received."""

    recvack: _frames.RecvAck


@dataclass(slots=True)
class PingReceived:
    """Wants a PONG."""


@dataclass(slots=True)
class SubReceived:
    """Wants a SUBACK."""

    sub: _frames.Sub


@dataclass(slots=True)
class DisconnectReceived:
    """The peer says good-bye."""

    disconnect: _frames.Disconnect


@dataclass(slots=True)
class ClosedByPeer:
    """The stream has ended."""


@dataclass(slots=True)
class ConnAckReceived:
    """The server has decided."""

    connack: _frames.ConnAck


@dataclass(slots=True)
class SendAckReceived:
    """A message was accepted or refused."""

    sendack: _frames.SendAck


@dataclass(slots=True)
class RecvReceived:
    """A message; checked and decrypted."""

    recv: _frames.Recv


@dataclass(slots=True)
class PongReceived:
    """Answer to a PING."""


@dataclass(slots=True)
class SubAckReceived:
    """Answer to a SUB."""

    suback: _frames.SubAck


@dataclass(slots=True)
class EventReceived:
    """An EVENT."""

    event: _frames.EventFrame


@dataclass(slots=True)
class AnswerReady:
    """A JSON-RPC request was answered without anybody having to decide."""

    answer: bytes = field(repr=False)
    """What to send, possibly nothing yet."""
    error: str = ""
    """What was wrong with the request, for the log; empty if nothing was."""


Event = (
    ConnectReceived
    | SendReceived
    | RecvAckReceived
    | PingReceived
    | SubReceived
    | DisconnectReceived
    | ClosedByPeer
    | ConnAckReceived
    | SendAckReceived
    | RecvReceived
    | PongReceived
    | SubAckReceived
    | EventReceived
    | AnswerReady
)


class StreamSend(NamedTuple):
    """What a SEND with a stream bit says besides."""

    stream_no: str
    """Empty where the layout has no such field."""
    ends: bool


@dataclass(slots=True, eq=False)
class Batch:
    """What one read brought, by kind; within a kind in order."""

    sends: list[SendFields] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    """One of each SEND, for its SENDACK."""
    acked: list[int] = field(default_factory=list)
    """Message ids of the RECVACKs that end repetition."""
    recvacks: int = 0
    pings: int = 0
    events: list[Event] = field(default_factory=list)
    """Everything else."""
    streams: dict[int, StreamSend] = field(default_factory=dict)
    """Those of `sends` that have a stream bit, by their place."""
    stream_events: list[tuple[int, _frames.EventFrame]] = field(default_factory=list)
    """EVENTs, and how many SENDs came before each."""

    def __len__(self) -> int:
        """Return how many packets came."""
        return len(self.sends) + self.recvacks + self.pings + len(self.events) + len(self.stream_events)

    def __bool__(self) -> bool:
        """Whether any came."""
        return bool(self.sends or self.recvacks or self.pings or self.events or self.stream_events)

    def extend(self, found: Read) -> None:
        """Add what the hot path has read."""
        if not self:  # as a rule one call finds everything
            _, self.sends, self.marks, self.acked, self.recvacks, self.pings = found
            return
        _, sends, marks, acked, recvacks, pings = found
        self.sends += sends
        self.marks += marks
        self.acked += acked
        self.recvacks += recvacks
        self.pings += pings

    def append(self, event: Event) -> None:
        """Sort one event in."""
        match event:
            case SendReceived(send=send, refusal=refusal):
                if send.setting & _STREAM_BITS:
                    self.streams[len(self.sends)] = StreamSend(send.stream_no, send.ends_stream)
                self.sends.append(
                    (
                        send.channel_id,
                        send.channel_type,
                        send.payload,
                        send.client_msg_no,
                        send.flags,
                        send.setting,
                        send.expire,
                        send.topic,
                        refusal,
                    )
                )
                self.marks.append((send.client_seq, send.flags))
            case RecvAckReceived(recvack=recvack):
                self.recvacks += 1
                if not recvack.flags & NO_PERSIST:
                    self.acked.append(recvack.message_id)
            case PingReceived():
                self.pings += 1
            case EventReceived(event=frame):
                self.stream_events.append((len(self.sends), frame))
            case _:
                self.events.append(event)
