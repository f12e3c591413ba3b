"""How the benchmarks share out a crowd of connections among processes."""

import resource

import pytest

from benchmarks.crowd import MOST_WORKERS, SPARE_FILES, plan, workers_of

LIMIT = 20_000
EACH = LIMIT - SPARE_FILES


@pytest.mark.parametrize(
    ("wanted", "limit", "workers", "processes"),
    [
        (100_000, LIMIT, 6, 6),
        (100_000, 1 << 20, 0, 1),
        (100_000, resource.RLIM_INFINITY, 0, 1),
        (2000, LIMIT, 0, 1),
        (EACH - 100, LIMIT, 0, 1),
        (EACH - 99, LIMIT, 2, 1),
        (2 * EACH - 100, LIMIT, 2, 2),
        (2 * EACH - 99, LIMIT, 3, 2),
    ],
)
def test_as_many_processes_as_it_takes(wanted: int, limit: int, workers: int, processes: int) -> None:
    """Also for the 100 connections of those who send, which the crowd comes beside."""
    found = plan(wanted, limit)
    assert (found.idle, found.workers, len(found.shares)) == (wanted, workers, processes)


def test_every_connection_is_in_one_share_and_shares_are_alike() -> None:
    found = plan(100_000, LIMIT)
    numbers = [number for first, count in found.shares for number in range(first, first + count)]
    assert numbers == list(range(100_000))
    counts = {count for _, count in found.shares}
    assert max(counts) - min(counts) <= 1
    assert max(counts) <= EACH


@pytest.mark.parametrize(("workers", "idle"), [(0, EACH - 100), (1, EACH - 100), (2, 2 * EACH - 100), (8, 100_000)])
def test_workers_that_somebody_has_chosen_hold_what_they_can(workers: int, idle: int) -> None:
    found = plan(100_000, LIMIT, workers=workers)
    assert (found.idle, found.workers) == (idle, workers)


def test_more_workers_than_there_may_be_are_not_asked_for() -> None:
    found = plan(100_000, 1024)
    assert found.workers == MOST_WORKERS
    assert found.idle == MOST_WORKERS * (1024 - SPARE_FILES) - 100


def test_the_setting_of_the_workers_is_read() -> None:
    assert workers_of(["store.sync=off", "gateway.workers=3"]) == 3
    assert workers_of(["store.sync=off"]) is None
