"""Records of the client; channels and messages as this user sees them."""

import enum
from typing import Any, NamedTuple

import attrs

from triolet_protocol import NO_PERSIST, SETTING_STREAM, SETTING_STREAM_V1, SYNC_ONCE, ReasonCode

Reason = ReasonCode

PERSON, GROUP, DATA, TEMP, LIVE, AGENT = 1, 2, 7, 8, 9, 11
SYSTEM_UID = "____system"
"""Who sends what nobody sends."""


def reason_name(reason: int) -> str:
    """Return the name of a reason in lower case, or its number."""
    try:
        return Reason(reason).name.lower().replace("_", " ")
    except ValueError:
        return f"reason {reason}"


class DeviceFlag(enum.IntEnum):
    """Kind of device."""

    APP = 0
    WEB = 1
    PC = 2


class Channel(NamedTuple):
    """A channel as this user names it: for a person, the other user's uid."""

    id: str
    type: int = PERSON

    @classmethod
    def person(cls, uid: str) -> "Channel":
        """Return the channel with another user."""
        return cls(uid, PERSON)

    @classmethod
    def group(cls, group_id: str) -> "Channel":
        """Return a group."""
        return cls(group_id, GROUP)

    @classmethod
    def temporary(cls, channel_id: str) -> "Channel":
        """Return a channel whose members are set by the API and kept in memory only."""
        return cls(channel_id, TEMP)


@attrs.frozen(kw_only=True)
class Login:
    """Who connects, and with which device. Two devices of one user need different `device_id`."""

    uid: str
    token: str = attrs.field(default="", repr=False)
    device_id: str = "python"
    device_flag: int = DeviceFlag.APP


@attrs.frozen(kw_only=True)
class Message:
    """A message that arrived, live or caught up with."""

    message_id: int
    seq: int
    """Place in its channel, from 1; 0 if it is not stored."""
    channel: Channel
    from_uid: str
    """Empty if the system sent it."""
    client_msg_no: str
    timestamp: int
    """Seconds since 1970 when the server accepted it."""
    payload: bytes = attrs.field(repr=False)
    flags: int = 0
    setting: int = 0
    expire: int = 0
    """Seconds after which it is nothing any more; 0: never."""
    topic: str = ""
    is_caught_up: bool = False
    """Whether it came through the HTTP API, after it was missed."""

    @property
    def is_command(self) -> bool:
        """Whether it is a command; one that the API sent is kept for the user until one device has taken it."""
        return bool(self.flags & SYNC_ONCE)

    @property
    def is_stream(self) -> bool:
        """Whether its text grows: see `Client.follow`."""
        return bool(self.setting & (SETTING_STREAM | SETTING_STREAM_V1))

    @property
    def is_stored(self) -> bool:
        """Whether the server keeps it."""
        return not self.flags & NO_PERSIST


@attrs.frozen(kw_only=True)
class Event:
    """Something that happened and is no message: neither stored nor repeated."""

    id: str
    type: str
    timestamp: int
    """Milliseconds since 1970."""
    data: bytes = attrs.field(repr=False)
    """JSON text as a rule."""


@attrs.frozen(kw_only=True)
class Receipt:
    """The server's answer to a message."""

    reason: int
    message_id: int
    seq: int
    client_msg_no: str

    @property
    def is_accepted(self) -> bool:
        """Whether the message was taken, and stored if it is to be stored."""
        return self.reason == Reason.SUCCESS


@attrs.frozen(kw_only=True)
class Conversation:
    """A line of the user's list."""

    channel: Channel
    unread: int
    last_seq: int
    read_to: int
    deleted_to: int
    """Everything up to here the user has deleted for himself."""
    timestamp: int
    """Seconds since 1970 of the newest message."""
    last: Message | None


@attrs.frozen(kw_only=True)
class Presence:
    """A device that is online."""

    uid: str
    device_flag: int


@attrs.frozen(kw_only=True)
class DeviceState:
    """A user's devices of one kind, as `Client.watch` tells of them. Times in seconds since 1970."""

    device_flag: int
    is_online: bool
    level: int
    """The highest of those that are online."""
    connections: int
    since: int
    """When the first of those connections began; 0 if none is online."""
    last_seen: int
    """When the last one went; 0 if one is online."""
    has_logged_out: bool
    """Whether that one said that it leaves, and was not only lost."""


@attrs.frozen(kw_only=True)
class UserState:
    """A user whom `Client.watch` watches. Devices not seen since the server started are not among his."""

    uid: str
    is_online: bool
    devices: tuple[DeviceState, ...]


@attrs.frozen(kw_only=True)
class Lane:
    """One event key of a stream, as the API reports it."""

    key: str
    status: str
    """open, closed, error or cancelled."""
    snapshot: Any
    """What was collected; a text is `{"kind": "text", "text": …}`."""
    event_id: str
    """The event that changed it last."""
    end_reason: int = 0
    error: str = ""

    @property
    def text(self) -> str:
        """The collected text, empty if it is none."""
        text = self.snapshot.get("text") if isinstance(self.snapshot, dict) else None
        return text if isinstance(text, str) else ""

    @property
    def is_open(self) -> bool:
        """Whether more may come."""
        return self.status in ("", "open")


@attrs.frozen(kw_only=True)
class Backoff:
    """How long to wait before the next attempt: doubling, and jittered so that a fleet does not come all at once."""

    first_s: float = 0.5
    longest_s: float = 30.0
    settled_s: float = 10.0
    """A connection that lasted as long counts as good: the next wait is the first again."""

    def delay_s(self, attempt: int, fraction: float) -> float:
        """Return the wait before attempt number `attempt` (from 0); `fraction` is random, 0 to 1."""
        ceiling = min(self.longest_s, self.first_s * 2.0 ** min(attempt, 32))
        return ceiling * (0.5 + fraction / 2)


@attrs.frozen(kw_only=True)
class Settings:
    """Limits of a client. Times in seconds."""

    connect_timeout_s: float = 10.0
    """From the first packet to a decision about the login."""
    send_timeout_s: float = 30.0
    """Longest wait for an acknowledgement, over reconnects; then `NotAcknowledged`."""
    ping_interval_s: float = 50.0
    """The server closes a connection that is silent for three minutes."""
    pong_timeout_s: float = 10.0
    """A server that does not answer for so long is lost."""
    api_timeout_s: float = 10.0
    """Longest wait for an answer of the HTTP API."""
    in_flight: int = 256
    """Messages that may wait for their acknowledgement; more senders wait."""
    inbox: int = 1000
    """Messages that may wait for the reader. Beyond it the newest are let go, and caught up with through the API; what
    is not stored, and everything without an API, is lost then and counted in `Statistics.dropped`."""
    events: int = 1000
    """Events that may wait for one reader. Beyond it the oldest are let go."""
    channels: int = 10_000
    """Channels whose position is kept. The one that was silent for longest is forgotten."""
    page: int = 200
    """Messages of one catch-up request."""
    backoff: Backoff = attrs.Factory(Backoff)


@attrs.define(eq=False)
class Statistics:
    """What happened since the client was opened."""

    connects: int = 0
    received: int = 0
    caught_up: int = 0
    duplicates: int = 0
    """Deliveries that were there already and were not handed on."""
    dropped: int = 0
    """Messages that found the inbox full."""
    gaps: int = 0
    """Holes in a channel's numbers that were asked for through the API."""
    resent: int = 0
