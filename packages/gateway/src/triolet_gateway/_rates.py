"""How many messages a second are taken: from a connection, from a user, into a channel, by the whole server.

Token buckets: `rate` messages a second, and `rateBurst` seconds' worth at once. What is too much for the first three
is refused with reason 22. The whole server has LiMaoIM's rule: reading pauses until it is a connection's turn; only
what would wait for longer than `LONGEST_WAIT_S` is refused.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

import trio

from triolet_core import Draft, ReasonCode, channel_key
from triolet_gateway._config import GatewayConfig

LONGEST_WAIT_S = 1.0
MOST_KEYS = 65536
"""Buckets of one kind that are kept; the one not used for longest goes, and is full when it comes back."""
PROFILES = {"rongcloud": 5.0}
"""Messages a second of one client. Source: 004_9bde18422623aa70.txt, limits of the messaging service."""


class Buckets:
    """Buckets of one kind, by key."""

    def __init__(self, rate: float, burst_s: float) -> None:
        self._rate = rate
        self._size = max(1.0, rate * burst_s)
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def tokens(self, key: Hashable, now: float) -> float:
        """Return what a bucket holds."""
        tokens, at = self._buckets.get(key, (self._size, now))
        return min(self._size, tokens + (now - at) * self._rate)

    def take(self, key: Hashable, now: float, tokens: float = 1.0) -> None:
        """Take from a bucket, whether it holds that much or not."""
        self._buckets[key] = (self.tokens(key, now) - tokens, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > MOST_KEYS:
            self._buckets.popitem(last=False)


class Rates:
    """The limits of one gateway."""

    def __init__(self, config: GatewayConfig, clock_s: Callable[[], float] = trio.current_time) -> None:
        def buckets(rate: float) -> Buckets | None:
            return Buckets(rate, config.rate_burst) if rate else None

        self._clock_s = clock_s
        self._by_connection = buckets(config.rate_per_connection or PROFILES.get(config.rate_profile, 0))
        self._by_uid = buckets(config.rate_per_uid)
        self._by_channel = buckets(config.rate_per_channel)
        self._per_second = config.max_message_per_second
        self._server = Buckets(self._per_second, 1.0)
        self.refused = 0

    @property
    def are_on(self) -> bool:
        """Whether there is any limit."""
        return bool(self._per_second) or any(
            each is not None for each in (self._by_connection, self._by_uid, self._by_channel)
        )

    async def apply(self, connection_id: int, uid: str, drafts: Sequence[Draft]) -> None:
        """Mark messages that are too many with their refusal; wait for the server's turn. Not always a checkpoint."""
        now = self._clock_s()
        taken = [draft for draft in drafts if not draft.refusal and self._take(connection_id, uid, draft, now)]
        if self._per_second and taken:
            await self._wait_turn(taken, now)

    def _take(self, connection_id: int, uid: str, draft: Draft, now: float) -> bool:
        kinds: tuple[tuple[Buckets | None, Hashable], ...] = (
            (self._by_connection, connection_id),
            (self._by_uid, uid),
            (self._by_channel, channel_key(uid, draft.channel_id, draft.channel_type)),
        )
        limits = [(buckets, key) for buckets, key in kinds if buckets is not None]
        if any(buckets.tokens(key, now) < 1 for buckets, key in limits):
            self._refuse([draft])
            return False
        for buckets, key in limits:
            buckets.take(key, now)
        return True

    async def _wait_turn(self, drafts: Sequence[Draft], now: float) -> None:
        here = self._server.tokens(None, now)
        most = max(0, int(here + self._per_second * LONGEST_WAIT_S))
        self._refuse(drafts[most:])
        self._server.take(None, now, min(len(drafts), most))
        debt = -self._server.tokens(None, now)
        if debt > 0:
            await trio.sleep(debt / self._per_second)

    def _refuse(self, drafts: Sequence[Draft]) -> None:
        self.refused += len(drafts)
        for draft in drafts:
            draft.refusal = ReasonCode.RATE_LIMIT
