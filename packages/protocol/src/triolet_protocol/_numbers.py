"""Numbers of the protocol that stand in frames: reasons, header bits, setting bits.

The core has the same ones under its own names; a test holds them equal.
"""

import enum


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


NO_PERSIST = 0x01
RED_DOT = 0x02
SYNC_ONCE = 0x04
DUP = 0x08
"""Header bits: the low nibble of a frame's first byte (wire-protocol.md, section 2.2)."""

SETTING_RECEIPT = 0x80
SETTING_SIGNAL = 0x20
SETTING_NO_ENCRYPT = 0x10
SETTING_TOPIC = 0x08
SETTING_STREAM_V1 = 0x04
SETTING_STREAM = 0x02
"""Setting bits of a message (wire-protocol.md, section 5.4)."""
