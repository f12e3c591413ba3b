"""A part of a long list in order: there may be 100,000 connections, and sorting them at once stops everybody."""

import heapq
from collections.abc import Callable, Sequence
from itertools import islice
from operator import itemgetter
from typing import Any, TypeVar

import trio

STEP = 250
"""After so many others have their turn."""

T = TypeVar("T")


async def sorted_slice(
    items: Sequence[T], key: Callable[[T], Any], *, descending: bool, start: int, count: int
) -> list[T]:
    """Return `sorted(items, key=key, reverse=descending)[start : start + count]`.

    A checkpoint after every `STEP` items; not one if there are none.
    """
    runs: list[list[tuple[Any, T]]] = []
    for at in range(0, len(items), STEP):
        run = [(key(each), each) for each in items[at : at + STEP]]
        run.sort(key=itemgetter(0), reverse=descending)
        runs.append(run)
        await trio.lowlevel.checkpoint()
    merged = heapq.merge(*runs, key=itemgetter(0), reverse=descending)
    found: list[T] = []
    for number, (_, each) in enumerate(islice(merged, start + count), 1):
        if number > start:
            found.append(each)
        if not number % STEP:
            await trio.lowlevel.checkpoint()
    return found
