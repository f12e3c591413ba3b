"""Rows that are put without a look at others, pure: what may wait in the backlog, and how it is written down.

Rows are kept encoded, one behind the other: a body of the journal is rows, so that nothing is encoded twice, and what
waits for LMDB is a few long bytes objects instead of three small ones a row, which the collector would go through.
"""

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter

from triolet_core import speedups
from triolet_core.model import Message
from triolet_core.store import _keys as keys
from triolet_core.store import _records as records

Row = tuple[bytes, bytes]
"""Key and value."""
_ROW = struct.Struct(">HI")
_key_of = itemgetter(0)
_compiled = speedups.find(os.environ)


def encode(rows: Iterable[Row]) -> bytes:
    """Encode rows: length of the key (2 bytes) and of the value (4), key, value."""
    pack = _ROW.pack
    parts: list[bytes] = []
    for key, value in rows:
        parts += (pack(len(key), len(value)), key, value)
    return b"".join(parts)


def decode(encoded: bytes) -> Iterator[Row]:
    """Yield encoded rows."""
    at = 0
    while at < len(encoded):
        key_size, value_size = _ROW.unpack_from(encoded, at)
        middle = at + _ROW.size + key_size
        yield encoded[at + _ROW.size : middle], encoded[middle : middle + value_size]
        at = middle + value_size


def in_order_of_keys(encoded: list[bytes], at_once: int) -> Iterator[list[Row]]:
    """Yield encoded rows in the order of their keys, `at_once` at a time; of one key the later comes later."""
    if _compiled is not None:
        yield from _compiled.SortedRows(encoded, at_once)
        return
    ordered = sorted([row for each in encoded for row in decode(each)], key=_key_of)
    for start in range(0, len(ordered), at_once):
        yield ordered[start : start + at_once]


def of_messages(slot: int, number: int, messages: list[Message]) -> bytes:
    """Return the rows of messages of one channel: each one, its entry in the commit log, and when it expires."""
    if _compiled is None:
        rows = encode(stored_and_logged(slot, number, messages))
    else:
        prefix, place = keys.numbered(slot, keys.MESSAGE, number), records.encode_log_place(slot, number)
        rows = _compiled.message_rows(messages, prefix, keys.LOG_PREFIX, place)
    expiries = [
        (keys.expiry(slot, each.timestamp + each.expire, each.message_id), records.encode_place(number, each.seq))
        for each in messages
        if each.expire
    ]
    return rows + encode(expiries) if expiries else rows


def stored_and_logged(slot: int, number: int, messages: Sequence[Message]) -> list[Row]:
    """Return each message and its entry in the commit log; compiled and encoded it is `message_rows`."""
    rows: list[Row] = []
    for message in messages:
        rows.append((keys.message(slot, number, message.seq), records.encode_message(message)))
        rows.append((keys.log(message.message_id), records.encode_log(slot, number, message.seq)))
    return rows


def of_cursor(consumer: str, message_id: int) -> bytes:
    """Return the row of a consumer's position in the commit log."""
    return encode([(keys.cursor(consumer), message_id.to_bytes(8, "big"))])
