import pytest
from hypothesis import given
from hypothesis import strategies as st

from triolet_core import Overloaded
from triolet_core._ids import EPOCH_MS, RESERVE_TICKS, IdSource, id_of_tick, tick_of_id


def test_an_id_holds_milliseconds_node_and_counter() -> None:
    """41 bits of ms since 1288834974657, 10 of node, 12 of counter. Source: wire-protocol.md, 3.4."""
    assert id_of_tick((1 << 12) | 5, 1001) == (1 << 22) | (1001 << 12) | 5


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 5000)), max_size=30))
def test_ids_rise_whatever_the_clock_does(steps: list[tuple[int, int]]) -> None:
    now = 0
    source = IdSource(1, lambda: EPOCH_MS + now, first_tick=1)
    given_out: list[int] = []
    for clock, count in steps:
        now = clock
        source.ceiling = source.wanted_ceiling(source.now_tick()) or source.ceiling
        given_out += source.block(count)
    assert given_out == sorted(set(given_out))


def test_a_source_stops_at_its_ceiling() -> None:
    source = IdSource(1, lambda: EPOCH_MS, first_tick=1)
    with pytest.raises(Overloaded):
        source.block(1)
    source.ceiling = 1 + RESERVE_TICKS
    assert tick_of_id(source.block(1)[0]) == 1
