"""What a connection tells: one record per thing that the peer did."""

import attrs

from triolet_gateway.protocol import _frames


@attrs.define
class ConnectReceived:
    """A client wants in."""

    connect: _frames.Connect


@attrs.define(eq=False)
class SendReceived:
    """A message; decrypted, or with the reason to refuse it."""

    send: _frames.Send
    refusal: int = 0


@attrs.define
class RecvAckReceived:
    """A message was received."""

    recvack: _frames.RecvAck


@attrs.define
class PingReceived:
    """Wants a PONG."""


@attrs.define
class SubReceived:
    """Wants a SUBACK."""

    sub: _frames.Sub


@attrs.define
class DisconnectReceived:
    """The peer says good-bye."""

    disconnect: _frames.Disconnect


@attrs.define
class ClosedByPeer:
    """The stream has ended."""


@attrs.define
class ConnAckReceived:
    """The server has decided."""

    connack: _frames.ConnAck


@attrs.define
class SendAckReceived:
    """A message was accepted or refused."""

    sendack: _frames.SendAck


@attrs.define
class RecvReceived:
    """A message; checked and decrypted."""

    recv: _frames.Recv


@attrs.define
class PongReceived:
    """Answer to a PING."""


@attrs.define
class SubAckReceived:
    """Answer to a SUB."""

    suback: _frames.SubAck


@attrs.define
class EventReceived:
    """An EVENT."""

    event: _frames.EventFrame


@attrs.define
class AnswerReady:
    """A JSON-RPC request was answered without anybody having to decide."""

    answer: bytes = attrs.field(repr=False)
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
