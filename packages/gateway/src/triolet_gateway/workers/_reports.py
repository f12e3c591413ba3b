"""What a worker reports to the core."""

import msgspec

import triolet_protocol as wire


class Report(msgspec.Struct, array_like=True, gc=False, tag_field="_tag"):
    """Base of all."""


class Packets(Report):
    """Something that came from a client, to be handled in its order."""

    number: int
    """Of the connection."""
    size: int
    """Bytes that came since the report before."""


class Ready(Report, tag=0):
    """The first: it serves."""


class Took(Packets, tag=1):
    """Ordinary packets of one read."""

    sends: list[wire.SendFields]
    marks: list[wire.Mark]
    acked: bytes
    """Message ids of RECVACKs that end repetition, 8 bytes each, in network order."""
    recvacks: int
    pings: int


class Wanted(Packets, tag=2):
    """A CONNECT."""

    version: int
    """Of the connection, which may be lower than the client's."""
    is_limao: bool
    is_json: bool
    has_events: bool
    names_streams: bool
    device_flag: int
    device_id: str
    uid: str
    token: str
    client_timestamp: int
    key_problem: str
    """Why there is no agreement on keys; empty if there is one, or none is needed."""


class Subscribed(Packets, tag=3):
    """A SUB."""

    sub_no: str
    channel_id: str
    channel_type: int
    action: int
    param: str


class Answered(Packets, tag=4):
    """A JSON-RPC request that needs nobody to decide."""

    answer: bytes
    error: str


class Streamed(Packets, tag=5):
    """Messages of which some are parts of streams, and EVENTs of streams."""

    sends: list[wire.SendFields]
    marks: list[wire.Mark]
    streams: list[tuple[int, str, bool]]
    events: list[tuple[int, tuple[str, str, int, bytes]]]


class SaidGoodBye(Packets, tag=6):
    """A DISCONNECT."""


class Renamed(Packets, tag=7):
    """A proxy names its client."""

    host: str
    port: int


class Broke(Packets, tag=8):
    """The client broke the protocol."""

    reason: int
    detail: str
    answer: bytes


class Crashed(Report, tag=9):
    """An error in our code ended the connection."""

    number: int
    traceback: str


class Slow(Report, tag=10):
    """The client reads too slowly and is left."""

    number: int


class Dropped(Report, tag=11):
    """An EVENT was not sent: the client knows none, or it would be too long."""

    number: int
    type: str


class Closed(Report, tag=12):
    """The socket is closed; the last of a connection."""

    number: int
    bytes_in: int
    bytes_out: int
    pings: int


class Traffic(Report, tag=13):
    """What connections carried since the last of these: (number, bytes in, bytes out, PINGs answered here, pending)."""

    connections: list[tuple[int, int, int, int, int]]
    pending: int
    """Bytes that wait for clients of this worker."""


class Acked(Report, tag=16):
    """The same RECVACKs of connections, and nothing else of each; at the end of a turn of the worker."""

    numbers: list[int]
    sizes: list[int]
    """Bytes that came from each."""
    acked: bytes
    recvacks: int


class Drained(Report, tag=14):
    """Nothing waits for any client."""


class Trouble(Report, tag=15):
    """Something for the log."""

    text: str
    problem: str


AnyReport = (
    Ready
    | Took
    | Wanted
    | Subscribed
    | Answered
    | Streamed
    | SaidGoodBye
    | Renamed
    | Broke
    | Crashed
    | Slow
    | Dropped
    | Closed
    | Traffic
    | Acked
    | Drained
    | Trouble
)
encode = msgspec.msgpack.Encoder().encode
decoder = msgspec.msgpack.Decoder(list[AnyReport])
