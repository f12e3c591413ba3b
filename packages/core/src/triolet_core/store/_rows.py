"""Rows that are put without a look at others, pure: what may wait in the backlog."""

from collections.abc import Sequence

from triolet_core.model import Message
from triolet_core.store import _keys as keys
from triolet_core.store import _records as records

Row = tuple[bytes, bytes]
"""Key and value."""


def of_messages(slot: int, number: int, messages: Sequence[Message]) -> list[Row]:
    """Return the rows of messages of one channel: each one, its entry in the commit log, and when it expires."""
    rows: list[Row] = []
    for message in messages:
        rows.append((keys.message(slot, number, message.seq), records.encode_message(message)))
        rows.append((keys.log(message.message_id), records.encode_log(slot, number, message.seq)))
        if message.expire:
            due = keys.expiry(slot, message.timestamp + message.expire, message.message_id)
            rows.append((due, records.encode_place(number, message.seq)))
    return rows


def of_cursor(consumer: str, message_id: int) -> Row:
    """Return the row of a consumer's position in the commit log."""
    return keys.cursor(consumer), message_id.to_bytes(8, "big")
