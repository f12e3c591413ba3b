"""Which devices of a user may be online together, and what the others are told. semantics.md, section 4."""

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import triolet_protocol as wire
from tests.integration.test_gateway import KINDS, server_in
from tests.jsonclient import json_client
from tests.wkclient import Client, client, let_logins_wait
from triolet_core import ConnectRequest, Server
from triolet_core.model import DeviceLevel

MASTER, SLAVE = DeviceLevel.MASTER, DeviceLevel.SLAVE


async def told(device: Client) -> tuple[int, str]:
    """Return what the DISCONNECT says."""
    goodbye = (await device.wait_for(wire.DisconnectReceived)).disconnect
    return goodbye.reason_code, goodbye.reason


async def says_nothing(device: Client) -> bool:
    """Read to the end; returns whether no DISCONNECT came before it."""
    with pytest.raises(EOFError):
        await device.wait_for(wire.DisconnectReceived)
    return device.is_closed


def online(server: Server, uid: str = "ann") -> list[tuple[int, str]]:
    return sorted((each.device.flag, each.device.device_id) for each in server.broker.presence.sessions(uid))


class Gate:
    """Holds every login between the decision and what follows from it, as a slow data source would."""

    def __init__(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        self._authenticate = server.broker.users.authenticate_nowait
        self._waiting = 0
        self._arrived = trio.lowlevel.ParkingLot()
        self._open = trio.Event()
        let_logins_wait(monkeypatch, server, self._slow)

    async def _slow(self, request: ConnectRequest) -> Any:
        answer = self._authenticate(request)
        self._waiting += 1
        self._arrived.unpark_all()
        await self._open.wait()
        return answer

    async def wait_for(self, count: int) -> None:
        while self._waiting < count:
            await self._arrived.park()

    def open(self) -> None:
        self._open.set()


@pytest.mark.parametrize("is_slow", [False, True])
@KINDS
async def test_of_masters_that_log_in_at_the_same_instant_one_is_left(
    tmp_path: Path, kind: str, is_slow: bool, monkeypatch: pytest.MonkeyPatch, mock_clock: trio.testing.MockClock
) -> None:
    """Also if all were let in before the first was registered; the others are told reason 12 and closed."""
    count = 6
    async with server_in(tmp_path, auth=True) as server:
        await server.broker.users.set_token("ann", 0, MASTER, "t")
        gate = Gate(server, monkeypatch) if is_slow else None
        ends: list[Any] = []

        async def log_in(number: int, kept: trio.MemorySendChannel[int]) -> None:
            async with client(server, kind) as device, kept:
                assert await device.connect("ann", "t", device_id=f"d{number}") == 1
                ends.append(await told(device))
                await kept.send(number)
                await device.wait_closed()
                await kept.send(number)

        send, receive = trio.open_memory_channel[int](count)
        async with trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(log_in, number, send.clone())
            if gate is not None:
                await gate.wait_for(count)
                gate.open()
            for _ in range(count - 1):
                await receive.receive()
            mock_clock.jump(4)
            gone = {await receive.receive() for _ in range(count - 1)}
            [(_, left)] = online(server)
            assert {f"d{number}" for number in gone} | {left} == {f"d{number}" for number in range(count)}
            assert ends == [(12, "login in other device")] * (count - 1)
            [session] = server.broker.presence.sessions("ann")
            assert not session.is_closing  # type: ignore[attr-defined]  # the gateway's own
            nursery.cancel_scope.cancel()


async def test_a_token_that_is_replaced_during_a_slow_login_lets_nobody_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with server_in(tmp_path, auth=True) as server, client(server) as ann:
        await server.broker.users.set_token("ann", 0, SLAVE, "old")
        gate = Gate(server, monkeypatch)
        reasons: list[int] = []

        async def log_in() -> None:
            reasons.append(await ann.connect("ann", "old"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(log_in)
            await gate.wait_for(1)
            await server.broker.users.set_token("ann", 0, SLAVE, "new")
            gate.open()
        assert reasons == [2]
        assert online(server) == []
        await ann.wait_closed()


@pytest.mark.parametrize(
    ("level", "device_id", "flag", "expected", "left"),
    [
        (MASTER, "d2", 0, (12, "login in other device"), [(0, "d2")]),
        (MASTER, "d1", 0, None, [(0, "d1")]),
        (SLAVE, "d1", 0, None, [(0, "d1")]),
        (SLAVE, "d2", 0, ..., [(0, "d1"), (0, "d2")]),
        (MASTER, "d2", 1, ..., [(0, "d1"), (1, "d2")]),
        (MASTER, "d1", 7, ..., [(0, "d1"), (7, "d1")]),
    ],
)
async def test_who_has_to_leave(
    tmp_path: Path,
    level: DeviceLevel,
    device_id: str,
    flag: int,
    expected: Any,
    left: list[tuple[int, str]],
    mock_clock: trio.testing.MockClock,
) -> None:
    """semantics.md, section 4.2; conformance 8 to 11."""
    async with server_in(tmp_path, auth=True) as server, client(server) as old, client(server) as new:
        for each in {0, flag}:
            await server.broker.users.set_token("ann", each, level, "t")
        assert await old.connect("ann", "t", device_id="d1") == 1
        assert await new.connect("ann", "t", device_id=device_id, flag=flag) == 1
        assert online(server) == left
        if expected not in (..., None):
            assert await told(old) == expected
        mock_clock.jump(4)
        if expected is ...:
            await old.ping()
        elif expected is None:
            assert await says_nothing(old)
        else:
            await old.wait_closed()
        await new.ping()


async def test_limaoim_leaves_one_device_of_a_flag_and_says_reason_0(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    """A LiMaoIM client is told in its own words; semantics.md, section 4.2, last line."""
    limao: dict[str, Any] = {"family": wire.Family.LIMAO, "version": 4}
    async with server_in(tmp_path, auth=True) as server, client(server) as old, client(server) as new:
        await server.broker.users.set_token("ann", 0, MASTER, "t")
        await old.connect("ann", "t", device_id="d1", **limao)
        await new.connect("ann", "t", device_id="d2", **limao)
        assert (await told(old))[0] == 0
        mock_clock.jump(6)
        await old.wait_closed()


@pytest.mark.parametrize("level", [MASTER, SLAVE])
async def test_a_new_token_while_connected(
    tmp_path: Path, level: DeviceLevel, mock_clock: trio.testing.MockClock
) -> None:
    """A master is told and closed 10 s later; slaves stay. The old token is worth nothing from then on."""
    async with server_in(tmp_path, auth=True) as server, client(server) as ann, client(server) as again:
        await server.broker.users.set_token("ann", 0, level, "old")
        await ann.connect("ann", "old")
        await server.broker.users.set_token("ann", 0, level, "new")
        if level == SLAVE:
            await ann.ping()
            assert await again.connect("ann", "old", device_id="d2") == 2
            return
        event = await ann.wait_for(wire.DisconnectReceived)
        assert event.disconnect.reason_code == 12
        assert online(server) == [], "it no longer counts"
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(12)
        await ann.wait_closed()


@pytest.mark.parametrize(("flag", "left"), [(-1, [7]), (0, [1, 2, 7]), (2, [0, 1, 7])])
async def test_device_quit_is_for_its_flag(
    tmp_path: Path, flag: int, left: list[int], mock_clock: trio.testing.MockClock
) -> None:
    """-1 is app, web and pc; told with an empty reason. wire-protocol.md, section 6.3."""
    async with (
        server_in(tmp_path) as server,
        client(server) as app,
        client(server, "ws") as web,
        client(server) as pc,
        client(server) as other,
    ):
        devices = {0: app, 1: web, 2: pc, 7: other}
        for each, device in devices.items():
            await device.connect("ann", flag=each)
        await server.broker.users.quit_device("ann", flag)
        assert [each for each, _ in online(server)] == left
        gone = [device for each, device in devices.items() if each not in left]
        for device in gone:
            assert await told(device) == (12, "")
        mock_clock.jump(4)
        for device in gone:
            await device.wait_closed()
        for each in left:
            await devices[each].ping()


async def test_a_kicked_device_sends_nothing_more(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    """wire-protocol.md, 6.1, KICKED: it is told, taken nothing more from, and closed after two seconds."""
    async with server_in(tmp_path) as server, client(server) as bad, json_client(server) as bob:
        await bad.connect("bad")
        await bob.connect("bob")
        await server.broker.users.quit_device("bad", 0)
        await bad.wait_for(wire.DisconnectReceived)
        await bad.send_raw(bad.message("bob", b"too late"))
        assert (await bob.call("ping"))["result"] == {}
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(4)
        await bad.wait_closed()
        assert server.broker.metrics.values()["gateway_sends_total"] == 0
