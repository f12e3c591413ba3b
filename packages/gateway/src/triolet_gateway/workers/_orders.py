"""What the core orders of a worker."""

import msgspec

from triolet_protocol import Mark, RecvFields

TCP, TLS, WS, WSS = range(4)
KINDS = {"tcp": TCP, "tls": TLS, "ws": WS, "wss": WSS}
"""Of listeners."""


class Order(msgspec.Struct, array_like=True, gc=False, tag_field="_tag"):
    """Base of all."""


class Start(Order, tag=0):
    """The first: the settings of the gateway, JSON."""

    settings: bytes
    has_tls: bool


class Open(Order, tag=1):
    """Serve the client whose socket came with this."""

    number: int
    """Of the connection; every other order and report names it."""
    host: str
    port: int
    kind: int


class Deliver(Order, tag=2):
    """Send the same messages to connections."""

    numbers: list[int]
    recvs: list[RecvFields]


class Acknowledge(Order, tag=3):
    """Send SENDACKs."""

    number: int
    marks: list[Mark]
    receipts: list[tuple[int, int, int]]


class Accept(Order, tag=4):
    """Let a client in."""

    number: int
    salt: bytes
    time_diff_ms: int
    node_id: int


class Reject(Order, tag=5):
    """Turn a client away."""

    number: int
    reason: int


class SendPong(Order, tag=6):
    """Answer a PING."""

    number: int


class SendSubAck(Order, tag=7):
    """Answer a SUB."""

    number: int
    sub_no: str
    channel_id: str
    channel_type: int
    action: int
    reason: int


class SendEvent(Order, tag=8):
    """Send an EVENT."""

    number: int
    id: str
    type: str
    timestamp: int
    data: bytes


class SendDisconnect(Order, tag=9):
    """Say good-bye."""

    number: int
    reason: int
    text: str


class SendRaw(Order, tag=10):
    """Send bytes that the worker made."""

    number: int
    data: bytes


class Pause(Order, tag=11):
    """Read nothing more of a connection."""

    number: int


class Resume(Order, tag=12):
    """Read on."""

    number: int


class Ignore(Order, tag=13):
    """Take nothing more from a connection, but see its end."""

    number: int


class Finish(Order, tag=14):
    """Close a connection once everything is out."""

    number: int


class Abort(Order, tag=15):
    """Close a connection now."""

    number: int


class Reload(Order, tag=16):
    """Read the certificate again."""


class Drain(Order, tag=17):
    """Say when nothing waits for any client."""


AnyOrder = (
    Start
    | Open
    | Deliver
    | Acknowledge
    | Accept
    | Reject
    | SendPong
    | SendSubAck
    | SendEvent
    | SendDisconnect
    | SendRaw
    | Pause
    | Resume
    | Ignore
    | Finish
    | Abort
    | Reload
    | Drain
)
encode = msgspec.msgpack.Encoder().encode
decoder = msgspec.msgpack.Decoder(list[AnyOrder])
