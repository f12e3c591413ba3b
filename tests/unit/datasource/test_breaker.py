import pytest

from triolet_datasource._breaker import Breaker, State


@pytest.fixture
def breaker() -> Breaker:
    return Breaker(failures=3, pause_s=5)


def fail(breaker: Breaker, times: int, *, now: float = 0) -> list[bool]:
    return [breaker.failed(now) for _ in range(times)]


def test_it_opens_after_failures_in_a_row_and_says_so_once(breaker: Breaker) -> None:
    assert fail(breaker, 2) == [False, False]
    assert breaker.succeeded() is False
    assert fail(breaker, 4) == [False, False, True, False]
    assert not breaker.admit(4.9)


def test_after_the_pause_one_request_is_admitted_alone(breaker: Breaker) -> None:
    fail(breaker, 3)
    assert [breaker.admit(5), breaker.admit(5), breaker.admit(100)] == [True, False, False]


def test_a_successful_probe_closes_it_and_failures_count_anew(breaker: Breaker) -> None:
    fail(breaker, 3)
    breaker.admit(5)
    assert breaker.succeeded() is True
    assert [breaker.admit(5), breaker.admit(5)] == [True, True]
    assert fail(breaker, 2) == [False, False]


def test_a_failed_probe_begins_the_pause_anew(breaker: Breaker) -> None:
    fail(breaker, 3)
    breaker.admit(5)
    assert breaker.failed(5) is False
    assert [breaker.admit(9.9), breaker.admit(10)] == [False, True]


def test_an_abandoned_probe_leaves_the_next_one_to_try(breaker: Breaker) -> None:
    fail(breaker, 3)
    breaker.admit(5)
    breaker.abandoned()
    assert [breaker.admit(5), breaker.admit(5)] == [True, False]


def test_an_abandoned_request_of_a_closed_one_changes_nothing(breaker: Breaker) -> None:
    breaker.abandoned()
    assert breaker.state is State.CLOSED


def test_late_failures_do_not_prolong_the_pause_and_a_late_success_ends_it(breaker: Breaker) -> None:
    fail(breaker, 3)
    fail(breaker, 3, now=4)
    assert breaker.state is State.OPEN
    assert breaker.admit(5)
    breaker.abandoned()
    assert breaker.succeeded() is True
    assert breaker.admit(0)
