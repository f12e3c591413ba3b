"""One record per packet. Source: wire-protocol.md, section 3; types as in WuKongIMGoProto 1.2.3."""

import enum
from dataclasses import dataclass, field

CONNECT, CONNACK, SEND, SENDACK, RECV, RECVACK, PING, PONG = 1, 2, 3, 4, 5, 6, 7, 8
DISCONNECT, SUB, SUBACK, EVENT = 9, 10, 11, 12

STREAM_ACK = "stream.ack"
"""Type of the EVENT that answers a client's; JSON-RPC has it as the result of `event`."""
LATEST_VERSION = 5
"""Newest version that is negotiated. Version 6 is known to the codec only."""


class Family(enum.Enum):
    """Whose field order a connection uses."""

    WUKONG = "wukong"
    LIMAO = "limao"


class StreamLayout(enum.Enum):
    """Where the two generations of the codec have stream fields, below version 5."""

    NEW = "1.2.3"
    OLD = "1.0"
    EITHER = "either"
    """For SENDs, where the two differ in the bit only: whichever is set."""


@dataclass(slots=True)
class Connect:
    """First packet of a client."""

    version: int
    device_flag: int
    device_id: str
    uid: str
    token: str = field(repr=False)
    client_timestamp: int
    """Milliseconds."""
    client_key: str
    """Base64 of the X25519 public key."""
    flags: int = 0


@dataclass(slots=True)
class ConnAck:
    """Answer to CONNECT."""

    time_diff: int
    """Server time minus client time, milliseconds."""
    reason_code: int
    server_key: str = ""
    salt: str = ""
    node_id: int = 0
    server_version: int = 0
    """Written if flag bit 0 is set."""
    flags: int = 0


@dataclass(slots=True)
class Send:
    """A message from a client; `payload` is as on the wire until it is decrypted."""

    setting: int
    client_seq: int
    client_msg_no: str
    channel_id: str
    channel_type: int
    expire: int
    msg_key: str
    topic: str
    payload: bytes = field(repr=False)
    flags: int = 0
    stream_no: str = ""
    ends_stream: bool = False
    """Header bit `end`, which only JSON-RPC has."""


@dataclass(slots=True)
class SendAck:
    """Answer to SEND."""

    message_id: int
    client_seq: int
    message_seq: int
    reason_code: int
    flags: int = 0
    client_msg_no: str = ""


@dataclass(slots=True)
class Recv:
    """A message for a client."""

    setting: int
    msg_key: str
    from_uid: str
    channel_id: str
    channel_type: int
    expire: int
    client_msg_no: str
    message_id: int
    message_seq: int
    timestamp: int
    topic: str
    payload: bytes = field(repr=False)
    flags: int = 0
    stream_flag: int = 0
    stream_no: str = ""
    stream_id: int = 0
    stream_seq: int = 0


@dataclass(slots=True)
class RecvAck:
    """Answer to RECV."""

    message_id: int
    message_seq: int
    flags: int = 0


@dataclass(slots=True)
class Ping:
    """Keep-alive of a client."""


@dataclass(slots=True)
class Pong:
    """Answer to PING."""


@dataclass(slots=True)
class Disconnect:
    """Good-bye, in either direction."""

    reason_code: int
    reason: str
    flags: int = 0


@dataclass(slots=True)
class Sub:
    """Subscribe to a channel (action 0) or leave it (1)."""

    setting: int
    sub_no: str
    channel_id: str
    channel_type: int
    action: int
    param: str
    flags: int = 0


@dataclass(slots=True)
class SubAck:
    """Answer to SUB."""

    sub_no: str
    channel_id: str
    channel_type: int
    action: int
    reason_code: int
    flags: int = 0


@dataclass(slots=True)
class EventFrame:
    """Something that is no message; not encrypted, not acknowledged. From version 5 on."""

    id: str
    type: str
    timestamp: int
    data: bytes
    flags: int = 0


Frame = Connect | ConnAck | Send | SendAck | Recv | RecvAck | Ping | Pong | Disconnect | Sub | SubAck | EventFrame
