"""Deliveries that wait for their acknowledgement are bounded, by count and by bytes."""

from triolet_core.model import ChannelKey, Message
from triolet_gateway._unacked import Unacked


def message(number: int, size: int = 1) -> Message:
    return Message(number, number, ChannelKey("c", 2), "u", "n", 0, 0, 0, 0, "", b"x" * size)


def ids(unacked: Unacked, now: float = 10.0) -> list[int]:
    return [each.message_id for each in unacked.take_due(now, 60)]


def test_the_oldest_is_forgotten_when_there_are_too_many() -> None:
    unacked = Unacked(repeats=5, most=3, most_bytes=1000)
    unacked.add([message(n) for n in range(5)], due=1)
    assert ids(unacked) == [2, 3, 4]


def test_the_oldest_are_forgotten_when_they_are_too_large() -> None:
    unacked = Unacked(repeats=5, most=100, most_bytes=1000)
    unacked.add([message(1, 400), message(2, 400), message(3, 400)], due=1)
    assert ids(unacked) == [2, 3]
    unacked.discard(2)
    unacked.add([message(4, 600)], due=1)
    assert ids(unacked, 100) == [3, 4]
    unacked.add([message(5, 2000)], due=1)
    assert len(unacked) == 0


def test_each_is_repeated_so_often_and_no_more() -> None:
    unacked = Unacked(repeats=2, most=10, most_bytes=1000)
    unacked.add([message(1)], due=10)
    assert ids(unacked, 9) == []
    assert ids(unacked, 10) == [1]
    assert ids(unacked, 69) == []
    assert ids(unacked, 70) == [1]
    assert ids(unacked, 130) == []
    assert len(unacked) == 0
