"""Rows that are put without a look at others, pure: what may wait in the backlog."""

import os
from collections.abc import Sequence

from triolet_core import speedups
from triolet_core.model import Message
from triolet_core.store import _keys as keys
from triolet_core.store import _records as records

Row = tuple[bytes, bytes]
"""Key and value."""
_compiled = speedups.find(os.environ)


def of_messages(slot: int, number: int, messages: list[Message]) -> list[Row]:
    """Return the rows of messages of one channel: each one, its entry in the commit log, and when it expires."""
    if _compiled is None:
        rows = stored_and_logged(slot, number, messages)
    else:
        prefix, place = keys.numbered(slot, keys.MESSAGE, number), records.encode_log_place(slot, number)
        rows = _compiled.message_rows(messages, prefix, keys.LOG_PREFIX, place)
    for message in messages:
        if message.expire:
            due = keys.expiry(slot, message.timestamp + message.expire, message.message_id)
            rows.append((due, records.encode_place(number, message.seq)))
    return rows


def stored_and_logged(slot: int, number: int, messages: Sequence[Message]) -> list[Row]:
    """Return each message and its entry in the commit log; compiled it is `message_rows`."""
    rows: list[Row] = []
    for message in messages:
        rows.append((keys.message(slot, number, message.seq), records.encode_message(message)))
        rows.append((keys.log(message.message_id), records.encode_log(slot, number, message.seq)))
    return rows


def of_cursor(consumer: str, message_id: int) -> Row:
    """Return the row of a consumer's position in the commit log."""
    return keys.cursor(consumer), message_id.to_bytes(8, "big")
