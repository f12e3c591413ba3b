"""Answers with a time limit, bounded, the least recently used going first. No IO, no clock."""

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

import attrs

from triolet_datasource._questions import Answer, Question

K = TypeVar("K", bound=Hashable)


@attrs.frozen
class Kept:
    """An answer, and until when it is fresh; after that it is the last known one."""

    answer: Answer
    fresh_until: float

    @property
    def weight(self) -> int:
        """What it counts against the bound: one, and one for each uid."""
        return 1 + len(self.answer) if isinstance(self.answer, tuple) else 1


class Answers:
    """Answers by question. When there is no room the least recently used go, and `on_evicted` is told of each."""

    def __init__(self, *, most: int, on_evicted: Callable[[Question], None]) -> None:
        self.weight = 0
        self._most = most
        self._on_evicted = on_evicted
        self._kept: OrderedDict[Question, Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Question]:
        return iter(self._kept)

    def get(self, question: Question) -> Kept | None:
        """Return an answer, fresh or not."""
        kept = self._kept.get(question)
        if kept is not None:
            self._kept.move_to_end(question)
        return kept

    def put(self, question: Question, kept: Kept) -> None:
        """Keep an answer in place of an older one; one that is larger than the bound goes at once."""
        self.drop(question)
        self._kept[question] = kept
        self.weight += kept.weight
        while self.weight > self._most:
            oldest = next(iter(self._kept))
            self.drop(oldest)
            self._on_evicted(oldest)

    def drop(self, question: Question) -> None:
        """Forget an answer, if it is there."""
        kept = self._kept.pop(question, None)
        if kept is not None:
            self.weight -= kept.weight

    def clear(self) -> None:
        """Forget every answer."""
        self._kept.clear()
        self.weight = 0


class Timetable(Generic[K]):
    """Things that come due after one fixed time each; noting one again begins its time anew."""

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        self._due: OrderedDict[K, float] = OrderedDict()

    @property
    def first(self) -> float:
        """When the first one comes due; infinite if there is none."""
        return next(iter(self._due.values()), math.inf)

    def note(self, thing: K, now: float) -> None:
        """Let a thing come due."""
        self._due.pop(thing, None)
        self._due[thing] = now + self._after_s

    def take(self, now: float, limit: int) -> list[K]:
        """Remove and return up to `limit` things that are due."""
        taken: list[K] = []
        for thing, when in self._due.items():
            if when > now or len(taken) == limit:
                break
            taken.append(thing)
        for thing in taken:
            del self._due[thing]
        return taken
