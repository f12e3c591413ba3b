"""A part of a long list in order, as `sorted` has it, without holding up others."""

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from triolet_api import _pages
from triolet_api._pages import STEP, sorted_slice

PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers()), max_size=30)


@settings(deadline=None)
@given(PAIRS, st.booleans(), st.integers(0, 40), st.integers(0, 40))
def test_it_is_what_sorted_gives_also_where_items_are_equal(
    items: list[tuple[int, int]], descending: bool, start: int, count: int
) -> None:
    async def main() -> list[tuple[int, int]]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_pages, "STEP", 4)
            return await sorted_slice(items, lambda each: each[0], descending=descending, start=start, count=count)

    expected = sorted(items, key=lambda each: each[0], reverse=descending)[start : start + count]
    assert trio.run(main) == expected


async def test_others_have_their_turn() -> None:
    """Once for each `STEP` that is looked at, and once for each that is taken."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        found = await sorted_slice(range(10 * STEP), lambda each: -each, descending=False, start=0, count=10 * STEP)
        assert found == list(range(10 * STEP))[::-1]
        nursery.cancel_scope.cancel()
    assert turns >= 18  # of 20; whose turn is first is left to chance
