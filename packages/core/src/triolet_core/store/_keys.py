"""Key layout of the store, pure.

Every key is slot (2 bytes), table (1 byte), rest. A slot's keys are one range, so that a slot can be exported.
What belongs to this node alone and not to a slot has the slot number 0xFFFF.

| table | rest of the key | value |
|---|---|---|
| CHANNEL | type, packed id | channel record |
| NAME | channel number | type, id |
| COUNTER | | last channel number of the slot |
| MEMBER, DENIED, ALLOWED | channel number, packed uid | uid |
| MESSAGE | channel number, seq | message record |
| FLOOR | channel number | last seq of messages that were deleted |
| REVISION | channel number, seq | who recalled or edited a message, and when |
| EXPIRY | due second, message id | channel number, seq |
| STREAM | channel number, digest of the client_msg_no | stream record |
| LANE | the same, digest of the event key | lane record |
| STREAM_EVENT | as STREAM, number of the event | event record |
| EVENT_ID | as STREAM, digest of the event id | number of the event, status of its lane |
| OPEN_STREAM | digest of channel and client_msg_no | type, channel id, client_msg_no |
| DEVICE | packed uid, flag | device record |
| BINDING | packed uid | plugin binding record |
| ADDRESS | text (slot 0) | blocked IP address |
| SYSTEM | packed uid (slot 0) | uid |
| CONVERSATION | packed uid, type, packed id | conversation record |
| COMMAND | packed uid, place | message id of a command |
| COMMAND_TAIL | packed uid | last place given, last place acknowledged |
| QUEUE | packed name of a queue, number | payload |
| QUEUE_STATE | packed name of a queue | last number, entries, bytes |
| CURSOR (0xFFFF) | consumer | message id it has read up to |
| META (0xFFFF) | name | text or number |
| LOG (0xFFFF) | message id | slot, channel number, seq: in commit order, and the index by id |

Numbers are big-endian, so that keys sort as numbers do. A channel number (4 bytes, counted per slot) stands for
the id in all per-message keys: ids have up to 1,025 bytes, LMDB's keys 511.
"""

import hashlib
import struct

from triolet_core.model import ChannelKey, slot_of

CHANNEL, NAME, COUNTER, MEMBER, DENIED, ALLOWED = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
MESSAGE, FLOOR, REVISION, EXPIRY = 0x10, 0x11, 0x12, 0x13
STREAM, LANE, STREAM_EVENT, EVENT_ID, OPEN_STREAM = 0x18, 0x19, 0x1A, 0x1B, 0x1C
DEVICE, SYSTEM, BINDING, ADDRESS = 0x20, 0x21, 0x22, 0x23
CONVERSATION, COMMAND, COMMAND_TAIL = 0x30, 0x31, 0x32
QUEUE, QUEUE_STATE = 0x40, 0x41

NODE = 0xFFFF
CURSOR, META, LOG = 0x00, 0x01, 0x02
"""The commit log is the end of the tree: it grows there without splitting pages in the middle."""

_PREFIX = struct.Struct(">HB")
_NUMBERED = struct.Struct(">HBI")
_TABLE_AND_NUMBER = struct.Struct(">BI")
_MESSAGE = struct.Struct(">HBIQ")
_LOG = struct.Struct(">HBQ")
_EXPIRY = struct.Struct(">HBIQ")

_LONGEST_PLAIN = 96
_DIGEST_MARK = b"\xff"


def pack_id(text: str) -> bytes:
    """Pack an id so that no packed id is the beginning of another: length and bytes, or a digest if it is long."""
    raw = text.encode()
    if len(raw) <= _LONGEST_PLAIN:
        return bytes((len(raw),)) + raw
    return _DIGEST_MARK + hashlib.blake2b(raw, digest_size=32).digest()


def channel(key: ChannelKey) -> bytes:
    """Key of a channel record."""
    return _PREFIX.pack(slot_of(key.id), CHANNEL) + bytes((key.type,)) + pack_id(key.id)


def counter(slot: int) -> bytes:
    """Key of the channel counter of a slot."""
    return _PREFIX.pack(slot, COUNTER)


def numbered(slot: int, table: int, number: int) -> bytes:
    """Prefix of what belongs to one channel in `table`; the whole key for NAME and FLOOR."""
    return _NUMBERED.pack(slot, table, number)


def in_slot_of(key: bytes, table: int, number: int) -> bytes:
    """Do as `numbered` in the slot of another key."""
    return key[:2] + _TABLE_AND_NUMBER.pack(table, number)


def listed(slot: int, table: int, number: int, uid: str) -> bytes:
    """Key of one uid in one list of a channel."""
    return _NUMBERED.pack(slot, table, number) + pack_id(uid)


def message(slot: int, number: int, seq: int) -> bytes:
    """Key of one message."""
    return _MESSAGE.pack(slot, MESSAGE, number, seq)


def seq_of(key: bytes) -> int:
    """Sequence number in the key of a message."""
    return int.from_bytes(key[7:15], "big")


def revision(slot: int, number: int, seq: int) -> bytes:
    """Key of what happened to a message after it was stored."""
    return _MESSAGE.pack(slot, REVISION, number, seq)


def expiries(slot: int) -> bytes:
    """Prefix of the messages of a slot that expire, the earliest first."""
    return _PREFIX.pack(slot, EXPIRY)


def expiry(slot: int, due: int, message_id: int) -> bytes:
    """Key of one message that expires."""
    return _EXPIRY.pack(slot, EXPIRY, min(due, 0xFFFFFFFF), message_id)


def due_of(key: bytes) -> int:
    """Second at which the message of an EXPIRY key expires."""
    return int.from_bytes(key[3:7], "big")


def streamed(slot: int, table: int, number: int, client_msg_no: str) -> bytes:
    """Prefix of what belongs to one stream in `table`; the whole key for STREAM."""
    return _NUMBERED.pack(slot, table, number) + digest(client_msg_no)


def digest(text: str) -> bytes:
    """16 bytes that stand for a text in a key."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def binding(uid: str) -> bytes:
    """Key of the plugin bound to a uid."""
    return bindings(slot_of(uid)) + pack_id(uid)


def bindings(slot: int) -> bytes:
    """Prefix of the plugin bindings of a slot."""
    return _PREFIX.pack(slot, BINDING)


def addresses() -> bytes:
    """Prefix of the blocked addresses."""
    return _PREFIX.pack(0, ADDRESS)


def commands(uid: str) -> bytes:
    """Prefix of the commands that wait for a uid."""
    return _PREFIX.pack(slot_of(uid), COMMAND) + pack_id(uid)


def command(uid: str, place: int) -> bytes:
    """Key of one waiting command."""
    return commands(uid) + place.to_bytes(8, "big")


def command_tail(uid: str) -> bytes:
    """Key of the ends of a uid's queue."""
    return _PREFIX.pack(slot_of(uid), COMMAND_TAIL) + pack_id(uid)


def table(slot: int, table: int) -> bytes:
    """Prefix of a whole table of a slot."""
    return _PREFIX.pack(slot, table)


def devices(uid: str) -> bytes:
    """Prefix of the devices of a uid."""
    return _PREFIX.pack(slot_of(uid), DEVICE) + pack_id(uid)


def device(uid: str, flag: int) -> bytes:
    """Key of one device record."""
    return devices(uid) + bytes((flag,))


def system_uids() -> bytes:
    """Prefix of the system accounts."""
    return _PREFIX.pack(0, SYSTEM)


def system_uid(uid: str) -> bytes:
    """Key of one system account."""
    return system_uids() + pack_id(uid)


def conversations(uid: str) -> bytes:
    """Prefix of the conversations of a uid."""
    return _PREFIX.pack(slot_of(uid), CONVERSATION) + pack_id(uid)


def conversation(uid: str, key: ChannelKey) -> bytes:
    """Key of one conversation record."""
    return conversations(uid) + bytes((key.type,)) + pack_id(key.id)


def queue(name: str) -> bytes:
    """Prefix of the entries of a durable queue."""
    return _PREFIX.pack(slot_of(name), QUEUE) + pack_id(name)


def queued(name: str, number: int) -> bytes:
    """Key of one entry of a durable queue."""
    return queue(name) + number.to_bytes(8, "big")


def number_of_queued(key: bytes) -> int:
    """Number in the key of an entry of a durable queue."""
    return int.from_bytes(key[-8:], "big")


def queue_state(name: str) -> bytes:
    """Key of how much a durable queue holds."""
    return _PREFIX.pack(slot_of(name), QUEUE_STATE) + pack_id(name)


def meta(name: str) -> bytes:
    """Key of a fact about this store."""
    return _PREFIX.pack(NODE, META) + name.encode()


def log(message_id: int) -> bytes:
    """Key of a commit log entry."""
    return _LOG.pack(NODE, LOG, message_id)


LOG_PREFIX = _PREFIX.pack(NODE, LOG)


def id_of_log(key: bytes) -> int:
    """Message id in the key of a commit log entry."""
    return int.from_bytes(key[3:11], "big")


def cursor(consumer: str) -> bytes:
    """Key of a consumer's position in the commit log."""
    return _PREFIX.pack(NODE, CURSOR) + pack_id(consumer)


def after(prefix: bytes) -> bytes:
    """Return the first key behind all keys that begin with `prefix`."""
    return (int.from_bytes(prefix, "big") + 1).to_bytes(len(prefix), "big")
