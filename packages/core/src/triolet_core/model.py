"""Domain records and enumerations, no behaviour beyond naming a channel."""

import enum
import random
import zlib
from typing import NamedTuple

import attrs

SLOT_COUNT = 256
"""Number of slots the store is divided into; fixed by the file format (architecture, section 0 point 8)."""

SYSTEM_UID = "____system"
MANAGER_UID = "____manager"
SYSTEM_DEVICE_ID = "____device"
RESERVED_UIDS = frozenset({SYSTEM_UID, MANAGER_UID, SYSTEM_DEVICE_ID})
COMMAND_SUFFIX = "____cmd"
FORBIDDEN_ID_CHARACTERS = "@#&"
MAX_ID_BYTES = 512
"""Longest uid, channel id or client_msg_no accepted from outside (http-api-errors.md, section 1)."""

# Header bits of a message, as they stand in the low nibble of a frame. Plain integers: they are used per message.
NO_PERSIST = 0x01
RED_DOT = 0x02
SYNC_ONCE = 0x04
DUP = 0x08

# Setting bits of a message (wire-protocol.md, section 5.4).
SETTING_RECEIPT = 0x80
SETTING_SIGNAL = 0x20
SETTING_NO_ENCRYPT = 0x10
SETTING_TOPIC = 0x08
SETTING_STREAM_V1 = 0x04
SETTING_STREAM = 0x02


class ChannelType(enum.IntEnum):
    """Kinds of channel (semantics.md, section 1.1). Other numbers up to 255 are legal and act like GROUP."""

    PERSON = 1
    GROUP = 2
    CUSTOMER_SERVICE = 3
    COMMUNITY = 4
    COMMUNITY_TOPIC = 5
    INFO = 6
    DATA = 7
    TEMP = 8
    LIVE = 9
    VISITORS = 10
    AGENT = 11
    AGENT_GROUP = 12


PAIRS = frozenset({ChannelType.PERSON, ChannelType.AGENT})
"""Types whose channels have two ends, each of which sees them under the name of the other."""


class ReasonCode(enum.IntEnum):
    """Why something was refused; 1 is success (wire-protocol.md, section 5.1)."""

    UNKNOWN = 0
    SUCCESS = 1
    AUTH_FAIL = 2
    SUBSCRIBER_NOT_EXIST = 3
    IN_BLACKLIST = 4
    CHANNEL_NOT_EXIST = 5
    USER_NOT_ON_NODE = 6
    SENDER_OFFLINE = 7
    MSG_KEY_ERROR = 8
    PAYLOAD_DECODE_ERROR = 9
    FORWARD_SEND_PACKET_ERROR = 10
    NOT_ALLOW_SEND = 11
    CONNECT_KICK = 12
    NOT_IN_WHITELIST = 13
    QUERY_TOKEN_ERROR = 14
    SYSTEM_ERROR = 15
    CHANNEL_ID_ERROR = 16
    NODE_MATCH_ERROR = 17
    NODE_NOT_MATCH = 18
    BAN = 19
    NOT_SUPPORT_HEADER = 20
    CLIENT_KEY_IS_EMPTY = 21
    RATE_LIMIT = 22
    NOT_SUPPORT_CHANNEL_TYPE = 23
    DISBAND = 24
    SEND_BAN = 25


class DeviceFlag(enum.IntEnum):
    """Kind of device. Other numbers are accepted from clients and kept apart."""

    APP = 0
    WEB = 1
    PC = 2
    SYSTEM = 99


class DeviceLevel(enum.IntEnum):
    """Whether a device displaces others of its kind."""

    SLAVE = 0
    MASTER = 1


class ChannelKey(NamedTuple):
    """A channel as it is stored: the normalised id and the type.

    A tuple and not an attrs class because it is a dictionary key on the path of every message.
    """

    id: str
    type: int


def new_client_msg_no() -> str:
    """Return a number for a message whose sender gave none: 32 hex digits and a 0, as the reference makes them.

    It has to be unique, not secret: no system call for each.
    """
    return random.getrandbits(128).to_bytes(16, "big").hex() + "0"


def slot_of(stored_id: str) -> int:
    """Return the slot (0 to 255) of a stored channel id or uid: crc32 of its UTF-8 bytes modulo 256."""
    return zlib.crc32(stored_id.encode()) % SLOT_COUNT


def person_channel_id(a: str, b: str) -> str:
    """Return the stored id of the person channel of two uids: the one with the larger crc32 first.

    Equal hashes of different uids are ordered by their bytes, so that both directions agree.

    Source: semantics.md, section 1.2.
    """
    key_a, key_b = (zlib.crc32(a.encode()), a.encode()), (zlib.crc32(b.encode()), b.encode())
    return f"{a}@{b}" if key_a >= key_b else f"{b}@{a}"


def channel_key(sender: str, channel_id: str, channel_type: int) -> ChannelKey:
    """Return the stored key of a channel as `sender` names it.

    Person channels join both uids, agent channels the sender and the agent; an agent id that already holds
    an `@` is taken as stored. Every other type stores the id as it is.
    """
    if channel_type == ChannelType.PERSON:
        return ChannelKey(person_channel_id(sender, channel_id), channel_type)
    if channel_type == ChannelType.AGENT and "@" not in channel_id:
        return ChannelKey(f"{sender}@{channel_id}", channel_type)
    return ChannelKey(channel_id, channel_type)


def ends_of(key: ChannelKey) -> tuple[str, str]:
    """Return the two uids that a person or agent channel joins."""
    first, _, second = key.id.partition("@")
    return first, second


def peer_of(key: ChannelKey, uid: str) -> str:
    """Return the channel id that `uid` sees: the other end of a person or agent channel, else the stored id."""
    if key.type not in (ChannelType.PERSON, ChannelType.AGENT):
        return key.id
    first, second = ends_of(key)
    return second if uid == first else first


def command_channel(key: ChannelKey) -> ChannelKey:
    """Return the companion channel that stores the command messages of `key`."""
    return ChannelKey(key.id + COMMAND_SUFFIX, key.type)


def plain_channel(key: ChannelKey) -> ChannelKey:
    """Return the channel that a companion command channel belongs to; other keys come back unchanged."""
    return ChannelKey(key.id.removesuffix(COMMAND_SUFFIX), key.type) if key.id.endswith(COMMAND_SUFFIX) else key


def listed_channel(key: ChannelKey) -> ChannelKey:
    """Return whose members a channel has: a companion the original's, a temporary channel always its own."""
    return key if key.type == ChannelType.TEMP else plain_channel(key)


def parent_of(key: ChannelKey) -> ChannelKey:
    """Return the community that a topic (`parent@topic`) belongs to."""
    return ChannelKey(key.id.partition("@")[0], ChannelType.COMMUNITY)


@attrs.frozen(kw_only=True)
class Device:
    """Who sends: one device of a uid, or the server itself on behalf of a uid (`is_server`)."""

    uid: str
    device_id: str = ""
    flag: int = DeviceFlag.APP
    level: int = DeviceLevel.SLAVE
    is_server: bool = False
    """A send made by the API or by an embedding program; never something that a client says."""


@attrs.frozen(kw_only=True)
class ConnectRequest:
    """What a client says about itself when it connects."""

    uid: str
    token: str = attrs.field(repr=False)
    device_id: str
    flag: int


@attrs.define(eq=False)
class Draft:
    """A message before it is accepted, with the channel as its sender names it. One per SEND."""

    channel_id: str
    channel_type: int
    payload: bytes
    client_msg_no: str = ""
    flags: int = 0
    setting: int = 0
    expire: int = 0
    topic: str = ""
    refusal: int = 0
    """A `ReasonCode` found before core saw the draft (bad msgKey, say); 0 if there is none."""
    to_uids: tuple[str, ...] = ()
    """Who gets it, in place of the channel's members; empty for those."""
    is_stream: bool = False
    """Whether it is the anchor of a stream: events will be added to it."""


@attrs.define(eq=False)
class Message:
    """An accepted message: numbered, timed, and stored unless its flags say NO_PERSIST (then `seq` is 0)."""

    message_id: int
    seq: int
    channel: ChannelKey
    sender: str
    client_msg_no: str
    timestamp: int
    """Seconds since 1970 at the moment of acceptance."""
    flags: int
    setting: int
    expire: int
    topic: str
    payload: bytes
    marks: int = 0
    """REVISED and STREAMED, if something happened to it after it was stored."""


REVISED = 0x80
"""Mark of a message that was recalled or edited."""
STREAMED = 0x40
"""Mark of a message that has events."""


@attrs.frozen(kw_only=True)
class Event:
    """Something that happened and is no message: neither stored nor acknowledged nor repeated."""

    id: str
    type: str
    timestamp: int
    """Milliseconds since 1970; 0 if nobody said."""
    data: bytes = attrs.field(repr=False)
    """What the type asks for, JSON text as a rule."""


class Receipt(NamedTuple):
    """The answer to one draft."""

    reason: int
    message_id: int
    seq: int


@attrs.frozen(kw_only=True)
class ChannelInfo:
    """Flags of a channel and what the backend wants kept with it."""

    large: bool = False
    ban: bool = False
    disband: bool = False
    send_ban: bool = False
    allow_stranger: bool = False
    name: str = ""
    avatar: str = ""
    remark: str = ""
    extra: str = ""
    """JSON text, as the backend gave it."""
    keep_s: int = 0
    """Seconds that its messages are kept; 0: what `retention` says."""
    keep_count: int = 0
    """Newest messages that are kept; 0: what `retention` says."""


@attrs.frozen(kw_only=True)
class UserInfo:
    """What a data source says about a user."""

    uid: str
    name: str = ""
    avatar: str = ""
    remark: str = ""
    extra: str = ""
    """JSON text, as the backend gave it."""


@attrs.frozen(kw_only=True)
class DeviceToken:
    """What `/user/token` stored for one uid and device flag; times in seconds since 1970."""

    token: str = attrs.field(repr=False)
    level: int
    created: int = 0
    updated: int = 0


class RevisionKind(enum.IntEnum):
    """What happened to a message after it was stored."""

    RECALLED = 1
    EDITED = 2


@attrs.frozen(kw_only=True)
class Revision:
    """The last change of a stored message."""

    kind: RevisionKind
    by: str
    at: int
    """Seconds since 1970."""
    version: int
    """1 for the first change."""


@attrs.frozen(kw_only=True)
class PluginBinding:
    """A uid that a plugin (a bot, say) speaks for; times in seconds since 1970."""

    uid: str
    plugin_no: str
    created: int = 0
    updated: int = 0


@attrs.frozen(kw_only=True)
class Conversation:
    """What one user's list shows for one channel."""

    channel: ChannelKey
    unread: int
    read_to: int
    deleted_to: int
    last: Message | None
    updated: int
    """Seconds of the last change of the read position."""


@attrs.frozen(kw_only=True)
class MessagePage:
    """Messages of a channel, rising by seq, and whether more lie beyond."""

    messages: tuple[Message, ...]
    more: bool


class TextPage(NamedTuple):
    """The same as the JSON text of an array of message objects (http-api.md, section 3.4)."""

    text: bytes
    more: bool
