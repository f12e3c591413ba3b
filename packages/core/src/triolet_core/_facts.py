"""What the permission and delivery of a message need to know of a channel."""

import attrs
import lmdb

from triolet_core.model import ChannelInfo, ChannelKey
from triolet_core.store import _keys as keys
from triolet_core.store import _queries


@attrs.define(eq=False)
class Facts:
    """What is known of one channel."""

    info: ChannelInfo | None
    exists: bool
    members: frozenset[str]
    denied: frozenset[str]
    allowed: frozenset[str]


def read_facts(txn: lmdb.Transaction, key: ChannelKey, limit: int | None) -> Facts | None:
    """Return the facts of a channel, None if a list has more than `limit` entries."""
    record = _queries.channel_record(txn, key)
    if record is None:
        return Facts(None, False, frozenset(), frozenset(), frozenset())  # noqa: FBT003  # positional by field
    lists = []
    for table in (keys.MEMBER, keys.DENIED, keys.ALLOWED):
        uids = _queries.listed(txn, table, key, limit)
        if uids is None:
            return None
        lists.append(frozenset(uids))
    return Facts(record.info, True, *lists)  # noqa: FBT003  # positional by field


def read_all_facts(txn: lmdb.Transaction, key: ChannelKey) -> Facts:
    """Return the facts of a channel, however long its lists are."""
    facts = read_facts(txn, key, None)
    if facts is None:
        raise RuntimeError("a list without a limit was cut")
    return facts
