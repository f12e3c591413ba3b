"""What workers add: processes that may die, links between them and the core, figures that come later."""

import contextlib
import gc
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import triolet_protocol as wire
from tests.integration.test_gateway import server_in
from tests.serving import running
from tests.wkclient import Client, client
from tests.workers import open_process_here
from triolet_core import ChannelInfo, ChannelKey, ConfigError, Device, Draft, Server
from triolet_core.model import channel_key
from triolet_gateway.workers import _process
from triolet_gateway.workers._remote import RemoteSession

WORKERS = 2


async def wait_until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not holds():
            await trio.sleep(0.005)


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started and not reaped."""
    tasks = Path(f"/proc/{pid}/task")
    return sorted(int(each) for task in tasks.iterdir() for each in (task / "children").read_text().split())


def descriptors_of(pid: int | str) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def value(server: Server, name: str) -> float:
    return server.broker.metrics.values()[f"gateway_{name}"]


@asynccontextmanager
async def clients_of(server: Server, uids: list[str]) -> AsyncIterator[list[Client]]:
    async with contextlib.AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(client(server)) for _ in uids]
        for each, uid in zip(opened, uids, strict=True):
            assert await each.connect(uid) == 1
        yield opened


async def send_for_ever(sender: Client, uid: str, acknowledged: set[tuple[str, str]]) -> None:
    """Send to `x` until the connection ends, and note whatever is acknowledged."""
    numbers: dict[int, str] = {}
    with contextlib.suppress(EOFError, trio.BrokenResourceError, trio.ClosedResourceError):
        for seq in range(1, 1_000_000):
            numbers[seq] = f"{uid}-{seq}"
            await sender.send_raw(sender.message("x", number=numbers[seq]))
            if seq >= 8:
                ack = (await sender.wait_for(wire.SendAckReceived)).sendack
                assert ack.reason_code == 1
                acknowledged.add((uid, numbers[ack.client_seq]))


def stored(server: Server, uid: str) -> set[tuple[str, str]]:
    key = channel_key(uid, "x", 1)
    page = server.broker.messages.sync(key, start=0, end=0, limit=10_000, newer=True)
    return {(uid, message.client_msg_no) for message in page.messages}


async def test_a_killed_worker_costs_its_connections_and_nothing_acknowledged(tmp_path: Path) -> None:
    """The others go on, its users are offline, and another takes its place."""
    uids = [f"u{number}" for number in range(6)]
    acknowledged: set[tuple[str, str]] = set()
    async with server_in(tmp_path, workers=WORKERS) as server, clients_of(server, uids) as opened:
        victim, survivor = children_of(os.getpid())
        async with trio.open_nursery() as nursery:
            for each, uid in zip(opened, uids, strict=True):
                nursery.start_soon(send_for_ever, each, uid, acknowledged)
            await wait_until(lambda: len(acknowledged) > 500)
            os.kill(victim, signal.SIGKILL)
            await wait_until(lambda: server.broker.presence.count == len(uids) // WORKERS)
            before = len(acknowledged)
            await wait_until(lambda: len(acknowledged) > before + 200)
            await wait_until(lambda: len(children_of(os.getpid())) == WORKERS)
            nursery.cancel_scope.cancel()
        assert survivor in children_of(os.getpid())
        assert value(server, "workers_lost_total") == 1
        assert acknowledged <= set().union(*(stored(server, uid) for uid in uids))
        lost = [uid for uid in uids if not server.broker.presence.sessions(uid)]
        await wait_until(lambda: value(server, "open_sockets") == len(uids) - len(lost))
        async with clients_of(server, [*lost, "y"]) as back:
            assert (await back[-1].send(lost[0], b"again")).reason_code == 1
            assert (await back[0].receive()).payload == b"again"


async def test_others_have_their_turn_while_the_connections_of_a_dead_worker_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be as many as it could have open files, and each takes 20 µs."""
    monkeypatch.setattr("triolet_gateway.workers._worker.AT_ONCE", 2)
    turns = 0
    seen: list[int] = []

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    def note(session: Any, *, online: bool, logout: bool) -> None:
        seen.append(turns)

    async with server_in(tmp_path, workers=1) as server, clients_of(server, [f"u{n}" for n in range(6)]):
        server.broker.presence.observe(note)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            os.kill(children_of(os.getpid())[0], signal.SIGKILL)
            await wait_until(lambda: len(seen) == 6)
            nursery.cancel_scope.cancel()
        assert len(set(seen)) >= 2  # of 3; whose turn is first is left to chance
        await wait_until(lambda: value(server, "workers_lost_total") == 1)


async def test_a_stop_under_load_stores_what_is_acknowledged_and_reaps_the_workers(tmp_path: Path) -> None:
    uids = [f"u{number}" for number in range(4)]
    acknowledged: set[tuple[str, str]] = set()
    async with contextlib.AsyncExitStack() as stack, trio.open_nursery() as nursery:
        async with server_in(tmp_path, workers=WORKERS) as server:
            opened = await stack.enter_async_context(clients_of(server, uids))
            for each, uid in zip(opened, uids, strict=True):
                nursery.start_soon(send_for_ever, each, uid, acknowledged)
            await wait_until(lambda: len(acknowledged) > 300)
        assert children_of(os.getpid()) == []
        nursery.cancel_scope.cancel()
    async with server_in(tmp_path) as server:
        assert acknowledged <= set().union(*(stored(server, uid) for uid in uids))


async def test_connections_and_servers_that_are_gone_leave_no_descriptors(tmp_path: Path) -> None:
    before = descriptors_of("self")
    async with server_in(tmp_path, workers=WORKERS) as server:
        pids = [os.getpid(), *children_of(os.getpid())]
        async with clients_of(server, ["first", "second"]):
            pass
        await wait_until(lambda: not value(server, "open_sockets"))
        idle = [descriptors_of(pid) for pid in pids]
        async with clients_of(server, [f"u{number}" for number in range(20)]):
            during = [descriptors_of(pid) for pid in pids]
        assert [now - then for now, then in zip(during[1:], idle[1:], strict=True)] == [10, 10]
        await wait_until(lambda: not value(server, "open_sockets"))
        await wait_until(lambda: [descriptors_of(pid) for pid in pids] == idle)
    await wait_until(lambda: descriptors_of("self") <= before)


def test_workers_end_with_a_core_that_is_killed(tmp_path: Path) -> None:
    pids: list[int] = []
    with pytest.raises(AssertionError), running(tmp_path, f"gateway.workers={WORKERS}") as (pid, _):
        pids = children_of(pid)
        assert len(pids) == WORKERS
        os.kill(pid, signal.SIGKILL)
    trio.run(wait_until, lambda: not any(Path(f"/proc/{pid}/fd").exists() and is_alive(pid) for pid in pids))


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


async def test_figures_are_right_within_a_second_or_two(tmp_path: Path) -> None:
    """Packets at once, bytes and PINGs when the worker has reported them."""
    async with server_in(tmp_path, workers=1) as server, clients_of(server, ["ann", "bob"]) as (ann, bob):
        connack = 2
        await ann.send("bob", b"x" * 100)
        await bob.receive()
        for _ in range(3):
            await bob.ping()
        (session,) = server.broker.presence.sessions("bob")
        await wait_until(lambda: session.statistics().in_packets == 5 and value(server, "pings_total") == 3)
        await wait_until(lambda: session.statistics().out_packet_bytes > 200)
        seen = session.statistics()
        assert (seen.in_messages, seen.out_messages, seen.out_message_bytes) == (0, 1, 100)
        assert (seen.out_packets, seen.pending_bytes) == (connack + 3, 0)
        assert seen.in_packet_bytes > 14 + 3
        assert value(server, "bytes_out_total") >= seen.out_packet_bytes
        assert value(server, "outbox_bytes") == 0


async def test_a_bad_key_is_refused_before_it_displaces_anybody(tmp_path: Path) -> None:
    async with server_in(tmp_path, workers=1) as server, clients_of(server, ["ann"]) as (ann,), client(server) as other:
        bad = wire.Connect(4, 0, "d2", "ann", "", 0, "no key")
        await other.send_raw(wire.encode(bad, 4, wire.Family.WUKONG))
        other.connection.state, other.connection.version = wire.State.PENDING, 4
        assert (await other.wait_for(wire.ConnAckReceived)).connack.reason_code == wire.ReasonCode.AUTH_FAIL
        await other.wait_closed()
        await ann.ping()
        assert server.broker.presence.count == 1


async def test_a_pong_says_that_everything_before_was_handled(tmp_path: Path) -> None:
    """Whether the worker answers or the core: a subscription is in force when the PONG is there."""
    async with server_in(tmp_path, workers=WORKERS) as server, clients_of(server, ["ann"]) as (ann,):
        for number in range(30):
            await ann.send_raw(ann.connection.send(wire.Sub(0, f"s{number}", f"d{number}", 7, 0, "")))
            await ann.send_raw(ann.connection.ping())
            await ann.wait_for(wire.PongReceived)
            draft = Draft(f"d{number}", 7, str(number).encode())
            await server.broker.messages.send(Device(uid="bob", is_server=True), draft)
            assert (await ann.receive()).payload == str(number).encode()


async def test_who_does_not_read_is_left_and_counted_once(tmp_path: Path) -> None:
    """In a group delivery, where one order is for all: the others get everything, in order."""
    uids = [f"m{number}" for number in range(6)]
    async with server_in(tmp_path, workers=WORKERS, outbox_bytes=65536) as server, clients_of(server, uids) as opened:
        await server.broker.channels.create(ChannelKey("g", 2), ChannelInfo(), ["ann", *uids])
        slow, *others = opened
        received: dict[int, list[int]] = {number: [] for number in range(len(others))}

        async def read(number: int, each: Client) -> None:
            while len(received[number]) < count:
                received[number].append((await each.receive()).message_seq)

        count = 400
        async with trio.open_nursery() as nursery:
            for number, each in enumerate(others):
                nursery.start_soon(read, number, each)
            for _ in range(count):
                await server.broker.messages.send(Device(uid="ann", is_server=True), Draft("g", 2, b"x" * 32_000))
        assert set(map(tuple, received.values())) == {tuple(range(1, count + 1))}
        await wait_until(lambda: not server.broker.presence.sessions("m0"))
        assert value(server, "slow_consumers_total") == 1
        await slow.wait_closed()


async def test_what_a_worker_does_not_read_is_bounded(tmp_path: Path) -> None:
    """One that stands still costs its own clients, and `gateway.workerBytes` of memory."""
    uids = ["u0", "u1"]
    bound = 1 << 20
    async with server_in(tmp_path, workers=WORKERS, worker_bytes=bound) as server, clients_of(server, uids) as opened:
        stopped, _ = children_of(os.getpid())
        os.kill(stopped, signal.SIGSTOP)
        try:
            for _ in range(80):
                for uid in uids:
                    await server.broker.messages.send(Device(uid="ann", is_server=True), Draft(uid, 1, b"x" * 32_000))
            await wait_until(lambda: value(server, "slow_consumers_total") == 1)
            (left,) = [uid for uid in uids if server.broker.presence.sessions(uid)]
            served = opened[uids.index(left)]
            assert [(await served.receive()).message_seq for _ in range(80)] == list(range(1, 81))
        finally:
            os.kill(stopped, signal.SIGCONT)
        await opened[1 - uids.index(left)].wait_closed()
        await wait_until(lambda: value(server, "open_sockets") == 1)


async def test_a_connection_that_is_gone_leaves_nothing_to_the_collector(tmp_path: Path) -> None:
    """Which looks at old objects so rarely that a server would keep all that have ever left."""
    async with server_in(tmp_path, workers=1) as server:
        async with clients_of(server, ["ann", "bob"]):
            gc.collect()
            assert len([each for each in gc.get_objects() if isinstance(each, RemoteSession)]) == 2
            gc.disable()
        try:
            await wait_until(lambda: not value(server, "open_sockets"))
            await trio.testing.wait_all_tasks_blocked()
            assert [each for each in gc.get_objects() if isinstance(each, RemoteSession)] == []
        finally:
            gc.enable()


async def test_workers_take_no_more_sockets_than_they_may_have_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes later is closed and may come again when somebody has left; those that are there stay."""
    monkeypatch.setattr("triolet_gateway.workers._pool.room_of_process", lambda: 1)
    async with server_in(tmp_path, workers=WORKERS) as server, clients_of(server, ["ann", "bob"]) as (ann, bob):
        async with client(server) as late:
            await late.wait_closed()
        assert value(server, "open_sockets") == WORKERS
        assert (await ann.send("bob")).reason_code == 1
        await bob.stream.aclose()
        await wait_until(lambda: value(server, "open_sockets") == 1)
        async with client(server) as again:
            assert await again.connect("cid") == 1


async def test_a_worker_that_cannot_serve_is_a_configuration_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triolet_gateway.workers._pool.sys.executable", "/bin/false")
    with pytest.raises(Exception) as caught:
        async with server_in(tmp_path, workers=1):
            pass
    assert isinstance(caught.value.__cause__, ConfigError)
    assert "gateway.workers" in str(caught.value.__cause__)


async def test_an_error_in_a_worker_ends_that_connection_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker is in this process here, so that its code can be broken."""
    monkeypatch.setattr(trio.lowlevel, "open_process", open_process_here)
    async with server_in(tmp_path, workers=1) as server, clients_of(server, ["ann", "bob"]) as (ann, bob):
        (broken,) = [each.connection_id for each in server.broker.presence.sessions("ann")]
        original = _process.FrontSession.carry_out

        def fail(session: Any, order: Any) -> None:
            if session.number == broken:
                raise RuntimeError("a bug")
            original(session, order)

        monkeypatch.setattr(_process.FrontSession, "carry_out", fail)
        await ann.send_raw(ann.message("bob"))
        await ann.wait_closed()
        assert (await bob.receive()).payload == b"hi"
        assert (await bob.send("ann")).reason_code == 1
        await wait_until(lambda: value(server, "connections") == 1)
        assert value(server, "crashes_total") == 1
