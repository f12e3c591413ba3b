"""Deliveries that wait for their acknowledgement are bounded, by count and by bytes."""

from triolet_core.model import NO_PERSIST, RED_DOT, SYNC_ONCE, ChannelKey, Message
from triolet_gateway._unacked import Unacked, runs_of
from triolet_protocol import _frames as frames
from triolet_protocol import encode
from triolet_protocol._hot import match_recvacks

REPEATS = 2


def message(number: int, size: int = 1, flags: int = 0) -> Message:
    return Message(number, number, ChannelKey("c", 2), "u", "n", 0, flags, 0, 0, "", b"x" * size)


def ids(unacked: Unacked, now: float = 10.0) -> list[int]:
    return [each.message_id for each in unacked.take_due(now, 60)]


def add(unacked: Unacked, messages: list[Message], due: float = 1) -> None:
    runs = runs_of(messages, due, REPEATS)
    unacked.add(runs, sum(len(run.ids) for run in runs), sum(run.size for run in runs))


def recvacks(*numbers: int) -> bytes:
    return b"".join(encode(frames.RecvAck(number, 1), 5) for number in numbers)


def test_the_oldest_is_forgotten_when_there_are_too_many() -> None:
    unacked = Unacked(3, 1000)
    add(unacked, [message(n) for n in range(5)])
    assert ids(unacked) == [2, 3, 4]


def test_the_oldest_are_forgotten_when_they_are_too_large() -> None:
    unacked = Unacked(100, 1000)
    add(unacked, [message(1, 400), message(2, 400), message(3, 400)])
    assert ids(unacked) == [2, 3]
    unacked.discard([2])
    add(unacked, [message(4, 600)])
    assert ids(unacked, 100) == [3, 4]
    add(unacked, [message(5, 2000)])
    assert len(unacked) == 0


def test_each_is_repeated_so_often_and_no_more() -> None:
    unacked = Unacked(10, 1000)
    add(unacked, [message(1)], 10)
    assert ids(unacked, 9) == []
    assert ids(unacked, 10) == [1]
    assert ids(unacked, 69) == []
    assert ids(unacked, 70) == [1]
    assert ids(unacked, 130) == []
    assert len(unacked) == 0


def test_what_was_confirmed_and_is_a_command_is_told() -> None:
    unacked = Unacked(10, 1000)
    add(unacked, [message(1), message(2, flags=SYNC_ONCE)])
    assert unacked.discard([1, 2, 3]) == [2]


def test_what_is_confirmed_in_order_is_done_with() -> None:
    unacked = Unacked(10, 1000)
    add(unacked, [message(n, 10) for n in (1, 2, 3)])
    add(unacked, [message(n, 10) for n in (4, 5, 6)], 2)
    assert unacked.discard([1, 2]) == []
    assert len(unacked) == 4
    assert unacked.discard([3, 4]) == []
    assert ids(unacked) == [5, 6]
    unacked.discard([5, 6])
    assert len(unacked) == 0
    add(unacked, [message(7, 995)])
    assert ids(unacked) == [7]


def test_what_is_confirmed_in_any_order_is_done_with() -> None:
    unacked = Unacked(10, 1000)
    add(unacked, [message(n) for n in (1, 2, 3)])
    add(unacked, [message(n, flags=SYNC_ONCE) for n in (4, 5)])
    assert unacked.discard([5, 99, 2]) == [5]
    add(unacked, [message(6), message(7)])
    assert unacked.discard([6, 1, 7]) == []
    assert ids(unacked) == [3, 4]
    assert unacked.discard([4, 3]) == [4]
    assert len(unacked) == 0


def test_runs_are_shared_and_each_session_is_done_with_its_own() -> None:
    one, other = Unacked(300, 1000), Unacked(2, 1000)
    runs = runs_of([message(n) for n in range(100)], 1, REPEATS)
    for unacked in (one, other):
        unacked.add(runs, 100, 100)
    one.discard(list(range(99)))
    assert ids(one) == [99]
    assert ids(other) == [98, 99]


def test_only_what_is_stored_is_kept() -> None:
    unacked = Unacked(10, 1000)
    add(unacked, [message(1), message(2, flags=NO_PERSIST)])
    assert ids(unacked) == [1]


def test_a_repeat_that_is_delivered_again_counts_once() -> None:
    unacked = Unacked(10, 1000)
    add(unacked, [message(1, 5)])
    add(unacked, [message(1, 5), message(2, 5)])
    assert sorted(ids(unacked)) == [1, 2]
    unacked.discard([1, 2])
    assert len(unacked) == 0


def test_reads_that_confirm_in_order_are_matched() -> None:
    unacked = Unacked(10, 1000)
    add(unacked, [message(1), message(2, flags=SYNC_ONCE)])
    add(unacked, [message(3), message(4)])
    data = recvacks(1, 2, 3)
    assert unacked.match(data + b"p", match_recvacks) == (3, len(data), [2])
    assert unacked.match(recvacks(5, 4), match_recvacks) == (0, 0, [])
    assert unacked.match(recvacks(4, 5), match_recvacks) == (1, 14, [])
    assert len(unacked) == 0


def test_what_was_repeated_is_not_matched() -> None:
    unacked = Unacked(10, 1000)
    add(unacked, [message(1), message(2)])
    assert ids(unacked) == [1, 2]
    assert unacked.match(recvacks(1, 2), match_recvacks) == (0, 0, [])
    unacked.discard([1, 2])
    assert len(unacked) == 0


def test_what_many_got_is_confirmed_by_one_look() -> None:
    [run] = runs_of([message(1, flags=RED_DOT), message(2)], 1, REPEATS, is_shared=True)
    for flags in (0, RED_DOT):
        unacked = Unacked(10, 1000)
        unacked.add([run], 2, 2)
        data = encode(frames.RecvAck(1, 1, flags), 5) + encode(frames.RecvAck(2, 2), 5)
        assert unacked.confirm(data[:-1]) == 0
        assert unacked.confirm(data) == 2
        assert len(unacked) == 0
        assert unacked.confirm(data) == 0


def test_messages_that_came_alone_are_confirmed_by_one_look_at_all_of_their_recvacks() -> None:
    def acks(*numbers: int) -> bytes:
        return b"".join(encode(frames.RecvAck(number, number), 5) for number in numbers)

    unacked = Unacked(10, 1000)
    for number in (1, 2, 3):
        add(unacked, [message(number, size=number)])
    unacked.add(runs_of([message(4), message(5)], 1, REPEATS, is_shared=True), 2, 2)
    for data in (acks(1, 2)[:-1], acks(1, 3), acks(2), acks(1, 2, 3, 4), acks(1) + b"p", b""):
        assert unacked.confirm(data) == 0
        assert len(unacked) == 5
    assert unacked.confirm(acks(1, 2)) == 2
    assert unacked.confirm(acks(3, 4, 5)) == 3
    assert len(unacked) == 0
    add(unacked, [message(6, 1000)])
    assert ids(unacked) == [6], "the bytes of those before are not counted any more"


def test_what_is_half_confirmed_or_was_repeated_takes_a_closer_look() -> None:
    runs = runs_of([message(1), message(2)], 1, REPEATS, is_shared=True)
    unacked = Unacked(10, 1000)
    unacked.add(runs, 2, 2)
    unacked.discard([1])
    assert unacked.confirm(recvacks(1, 2)) == 0
    assert ids(unacked) == [2]
    unacked.add(runs, 2, 2)
    assert unacked.confirm(recvacks(1, 2)) == 0


def test_commands_take_a_closer_look() -> None:
    [run] = runs_of([message(1, flags=SYNC_ONCE)], 1, REPEATS, is_shared=True)
    assert run.acks == ()


def test_numbers_that_a_packet_has_no_room_for_are_confirmed_as_they_were_sent() -> None:
    """A RECV says the lower 32 bits of the place in the channel, and so does its RECVACK."""
    long_ago = message(1)
    long_ago.seq = 2**32 + 7
    runs = runs_of([long_ago], 1, REPEATS, is_shared=True)
    unacked = Unacked(10, 1000)
    unacked.add(runs, 1, 1)
    assert unacked.confirm(encode(frames.RecvAck(1, 7), 5)) == 1
