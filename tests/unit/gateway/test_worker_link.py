"""The stream between the core and a worker: frames, descriptors in their order, and what waits."""

import os
import resource
import socket
from collections.abc import Iterator

import msgspec
import pytest
import trio
import trio.testing

from triolet_gateway.workers import _orders as orders
from triolet_gateway.workers._link import DESCRIPTORS_WAITING, Link, LinkStalled, SocketsLost

Pair = tuple[Link[orders.AnyOrder], socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A link, and the socket at its other end."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    link = Link(ours, orders.decoder)
    yield link, theirs
    link.close()
    theirs.close()


async def written(link: Link[orders.AnyOrder], theirs: socket.socket) -> bytes:
    """Return what a link writes of what was put."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.write_forever)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return theirs.recv(1 << 20)


async def test_what_is_put_together_is_one_frame_and_comes_in_order_however_it_is_cut(pair: Pair) -> None:
    link, theirs = pair
    sent = [orders.Abort(1), orders.SendRaw(2, b"x" * 1000), orders.Finish(3)]
    for order in sent:
        link.put(orders.encode(order))
    data = await written(link, theirs) + await _second(link, theirs)
    received: list[orders.AnyOrder] = []
    frames: list[int] = []

    async def read() -> None:
        while (frame := await link.next_frame()) is not None:
            received.extend(frame)
            frames.append(len(frame))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        for at in range(len(data)):
            theirs.send(data[at : at + 1])
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert [type(each) for each in received] == [*map(type, sent), orders.Pause]
    assert received[:3] == sent
    assert frames == [3, 1]
    assert link.received == 2


async def _second(link: Link[orders.AnyOrder], theirs: socket.socket) -> bytes:
    link.put(orders.encode(orders.Pause(4)))
    return await written(link, theirs)


async def test_a_turn_is_sent_at_its_end_without_another_task(pair: Pair) -> None:
    link, theirs = pair
    with link:
        link.put(orders.encode(orders.Abort(1)))
        link.put(orders.encode(orders.Abort(2)))
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
    assert orders.decoder.decode(theirs.recv(1000)[8:]) == [orders.Abort(1), orders.Abort(2)]
    assert link.pending == 0


async def test_each_end_says_how_many_frames_it_has_handled() -> None:
    ours, theirs = (Link(each, orders.decoder) for each in socket.socketpair())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.write_forever)
        nursery.start_soon(theirs.write_forever)
        for number in range(3):
            ours.put(orders.encode(orders.Abort(number)))
            await theirs.next_frame()
        theirs.put(orders.encode(orders.Abort(9)))
        await ours.next_frame()
        assert ours.confirmed == 2  # the third is being handled
        nursery.cancel_scope.cancel()
    ours.close()
    theirs.close()


async def test_sockets_come_with_the_order_that_speaks_of_them() -> None:
    ours, theirs = (Link(each, orders.decoder) for each in socket.socketpair())
    kept, given = zip(*(socket.socketpair() for _ in range(300)), strict=True)
    seen = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.write_forever)
        for number, each in enumerate(given):
            assert ours.give(each, orders.encode(orders.Open(number, "h", 1, orders.TCP)))
        with trio.fail_after(5):
            while seen < len(given):
                for order in await theirs.next_frame() or ():
                    assert isinstance(order, orders.Open)
                    with socket.socket(fileno=theirs.taken.popleft()) as taken:
                        taken.send(b"%d" % order.number)
                    seen += 1
        nursery.cancel_scope.cancel()
    assert [each.recv(10) for each in kept] == [b"%d" % number for number in range(300)]
    assert {each.fileno() for each in given} == {-1}
    for each in (*kept, ours, theirs):
        each.close()


async def test_sockets_for_which_there_are_no_files_left_are_the_end() -> None:
    """The system drops those, and the next order would get the socket of another."""
    ours, theirs = (Link(each, orders.decoder) for each in socket.socketpair())
    kept, given = zip(*(socket.socketpair() for _ in range(3)), strict=True)
    for number, each in enumerate(given):
        assert ours.give(each, orders.encode(orders.Open(number, "h", 1, orders.TCP)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.write_forever)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(each) for each in os.listdir("/proc/self/fd"))
    fill = [os.dup(0) for _ in range(highest)]  # below the limit that is set now everything is taken
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(fill) + 2, hard))
        with pytest.raises(SocketsLost):
            await theirs.next_frame()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in fill:
            os.close(number)
    assert len(theirs.taken) == 1
    for each in (*kept, ours, theirs):
        each.close()


async def test_only_so_many_sockets_wait_and_those_not_sent_are_closed(pair: Pair) -> None:
    link, _ = pair
    waiting = [socket.socket() for _ in range(DESCRIPTORS_WAITING + 1)]
    taken = [link.give(each, orders.encode(orders.Open(1, "h", 1, orders.TCP))) for each in waiting]
    assert taken == [True] * DESCRIPTORS_WAITING + [False]
    waiting[-1].close()
    link.close()
    assert {each.fileno() for each in waiting} == {-1}


async def test_who_waits_for_room_goes_on_when_the_other_end_has_read(pair: Pair) -> None:
    link, theirs = pair
    went_on = trio.Event()

    async def wait() -> None:
        await link.wait_room(1000)
        went_on.set()

    link.put(orders.encode(orders.SendRaw(1, bytes(1 << 20))))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.write_forever)
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert not went_on.is_set()
        with trio.fail_after(5):
            while not went_on.is_set():
                await trio.lowlevel.wait_readable(theirs)
                theirs.recv(1 << 20)
                await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_an_end_that_reads_nothing_is_taken_for_dead(pair: Pair, autojump_clock: trio.testing.MockClock) -> None:
    link, _ = pair
    link.put(orders.encode(orders.SendRaw(1, bytes(1 << 22))))
    with pytest.raises(LinkStalled):
        await link.write_forever()


async def test_what_is_no_frame_is_an_error_and_an_end_is_an_end(pair: Pair) -> None:
    link, theirs = pair
    theirs.send(b"\0\0\0\1" + b"\0\0\0\0" + b"\xc1")
    with pytest.raises(msgspec.MsgspecError):
        await link.next_frame()
    ours, other = socket.socketpair()
    other.close()
    assert await Link(ours, orders.decoder).next_frame() is None
    ours.close()


def test_an_order_of_a_wrong_shape_is_an_error() -> None:
    wrong = msgspec.msgpack.encode([[2, "one", []]])
    with pytest.raises(msgspec.ValidationError):
        orders.decoder.decode(wrong)
