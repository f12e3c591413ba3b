"""Deliveries that wait for their acknowledgement are bounded, by count and by bytes."""

from triolet_core.model import SYNC_ONCE, ChannelKey, Message
from triolet_gateway._unacked import Unacked, runs_of

REPEATS = 2


def message(number: int, size: int = 1, flags: int = 0) -> Message:
    return Message(number, number, ChannelKey("c", 2), "u", "n", 0, flags, 0, 0, "", b"x" * size)


def ids(unacked: Unacked, now: float = 10.0) -> list[int]:
    return [each.message_id for each in unacked.take_due(now, 60)]


def test_the_oldest_is_forgotten_when_there_are_too_many() -> None:
    unacked = Unacked(3, 1000)
    unacked.add(runs_of([message(n) for n in range(5)], 1, REPEATS))
    assert ids(unacked) == [2, 3, 4]


def test_the_oldest_are_forgotten_when_they_are_too_large() -> None:
    unacked = Unacked(100, 1000)
    unacked.add(runs_of([message(1, 400), message(2, 400), message(3, 400)], 1, REPEATS))
    assert ids(unacked) == [2, 3]
    unacked.discard([2])
    unacked.add(runs_of([message(4, 600)], 1, REPEATS))
    assert ids(unacked, 100) == [3, 4]
    unacked.add(runs_of([message(5, 2000)], 1, REPEATS))
    assert len(unacked) == 0


def test_each_is_repeated_so_often_and_no_more() -> None:
    unacked = Unacked(10, 1000)
    unacked.add(runs_of([message(1)], 10, REPEATS))
    assert ids(unacked, 9) == []
    assert ids(unacked, 10) == [1]
    assert ids(unacked, 69) == []
    assert ids(unacked, 70) == [1]
    assert ids(unacked, 130) == []
    assert len(unacked) == 0


def test_what_was_confirmed_and_is_a_command_is_told() -> None:
    unacked = Unacked(10, 1000)
    unacked.add(runs_of([message(1), message(2, flags=SYNC_ONCE)], 1, REPEATS))
    assert unacked.discard([1, 2, 3]) == [2]
