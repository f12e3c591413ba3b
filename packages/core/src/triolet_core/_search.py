"""Looking through messages: by words and time in one channel, or in every channel that a user is in."""

import json
from collections.abc import Callable, Iterator, Sequence

import attrs
import lmdb

from triolet_core.model import ChannelKey, Message
from triolet_core.store import Store, _queries

MAX_FOUND = 1_000
MAX_LOOKED_AT = 1_000_000
"""Messages that one search looks at, so that it ends."""
_CLOCK_STEP_S = 3600
"""How far back the clock may have been set between two messages of a channel."""


@attrs.frozen(kw_only=True)
class Query:
    """What is looked for. Empty and zero mean: whatever it is."""

    keyword: str = ""
    """Part of the text, upper and lower case alike."""
    part: bytes = b""
    """Part of the payload, byte by byte."""
    from_uid: str = ""
    client_msg_no: str = ""
    topic: str = ""
    start: int = 0
    """First second, inclusive."""
    end: int = 0
    """Last second, inclusive."""
    before_id: int = 0
    """Only messages with a lower message id."""
    after_id: int = 0
    """Only messages with a higher message id."""


class Search:
    """Reads through the store in a thread, over a million messages at most."""

    def __init__(self, store: Store, is_alive: Callable[[Message], bool]) -> None:
        self._store = store
        self._is_alive = is_alive

    async def channel(self, key: ChannelKey, query: Query, limit: int) -> tuple[list[Message], bool]:
        """Return the newest `limit` matches in a channel, rising, and whether there are older ones."""

        def look(txn: lmdb.Transaction) -> tuple[list[Message], bool]:
            return self._newest(_queries.messages_back(txn, key, 2**63), query, limit)

        found, more = await self._store.read_long(look)
        found.reverse()
        return found, more

    async def channels(
        self, keys: Sequence[ChannelKey], query: Query, *, offset: int, limit: int
    ) -> tuple[list[Message], int]:
        """Return a page of the matches in several channels, the newest first, and how many there are (up to 1,000)."""

        def look(txn: lmdb.Transaction) -> list[Message]:
            found: list[Message] = []
            for key in keys:
                found += self._newest(_queries.messages_back(txn, key, 2**63), query, MAX_FOUND)[0]
            found.sort(key=lambda message: message.message_id, reverse=True)
            return found[:MAX_FOUND]

        found = await self._store.read_long(look)
        return found[offset : offset + limit], len(found)

    async def everywhere(self, query: Query, limit: int) -> tuple[list[Message], bool]:
        """Return the newest matches of all channels, newest first, and whether there are older ones."""

        def look(txn: lmdb.Transaction) -> tuple[list[Message], bool]:
            return self._newest(_queries.log_back(txn, query.before_id), query, limit)

        return await self._store.read_long(look)

    def _newest(self, messages: Iterator[Message], query: Query, limit: int) -> tuple[list[Message], bool]:
        found: list[Message] = []
        for count, message in enumerate(messages):
            is_behind = query.start and message.timestamp < query.start - _CLOCK_STEP_S
            if count >= MAX_LOOKED_AT or is_behind or message.message_id <= query.after_id:
                break
            if not _matches(message, query) or not self._is_alive(message):
                continue
            if len(found) == limit:
                return found, True
            found.append(message)
        return found, False


def _matches(message: Message, query: Query) -> bool:
    return (
        (not query.from_uid or message.sender == query.from_uid)
        and (not query.client_msg_no or message.client_msg_no == query.client_msg_no)
        and (not query.topic or message.topic == query.topic)
        and query.start <= message.timestamp <= (query.end or message.timestamp)
        and (not query.before_id or message.message_id < query.before_id)
        and (not query.part or query.part in message.payload)
        and (not query.keyword or query.keyword.casefold() in text_of(message.payload).casefold())
    )


def text_of(payload: bytes) -> str:
    """Return the text of a payload: the `content` of a JSON object, otherwise all of it as UTF-8."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return ""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    content = value.get("content") if isinstance(value, dict) else None
    return content if isinstance(content, str) else text
