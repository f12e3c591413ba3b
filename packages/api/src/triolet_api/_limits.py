"""How much one caller may ask for, and repeats of what was answered already."""

import math
from collections.abc import Callable

import attrs
import cachetools
import trio

from triolet_api._errors import ApiError

_CALLERS = 100_000
IDEMPOTENCY_S = 600.0
_ANSWERS = 10_000


@attrs.define
class _Bucket:
    left: float
    at: float


class RateLimit:
    """A bucket of tokens per caller: as many at once as per second."""

    def __init__(self, per_second: int, clock: Callable[[], float] = trio.current_time) -> None:
        self._per_second = per_second
        self.is_on = per_second > 0
        self._clock = clock
        self._buckets: cachetools.LRUCache[str, _Bucket] = cachetools.LRUCache(_CALLERS)

    def has(self, caller: str) -> bool:
        """Whether a request would not be one too many."""
        if not self._per_second:
            return True
        bucket = self._buckets.get(caller)
        return bucket is None or self._left(bucket, self._clock()) >= 1

    def take(self, caller: str) -> None:
        """Count a request.

        Raises:
            ApiError: It is one too many (429).
        """
        if not self._per_second:
            return
        now = self._clock()
        bucket = self._buckets.get(caller)
        if bucket is None:
            bucket = self._buckets[caller] = _Bucket(self._per_second, now)
        bucket.left = self._left(bucket, now)
        bucket.at = now
        if bucket.left < 1:
            wait = math.ceil((1 - bucket.left) / self._per_second * 1000)
            raise ApiError(f"rate limited: again in {wait} ms (api.ratePerSecond)", status=429, code="rate_limited")
        bucket.left -= 1

    def _left(self, bucket: _Bucket, now: float) -> float:
        return min(self._per_second, bucket.left + (now - bucket.at) * self._per_second)


@attrs.define(eq=False)
class Repeats:
    """Answers by Idempotency-Key, for ten minutes; a repeat that comes too early waits for the first."""

    answers: cachetools.TTLCache[str, bytes] = attrs.Factory(lambda: cachetools.TTLCache(_ANSWERS, IDEMPOTENCY_S))
    waiting: dict[str, trio.Event] = attrs.Factory(dict)
