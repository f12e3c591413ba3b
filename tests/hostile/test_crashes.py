"""A bug in the code of one connection ends that connection only, is logged once with its number, and counted."""

from pathlib import Path
from typing import Any

import pytest
import trio

from tests.integration.test_gateway import server_in
from tests.wkclient import client
from triolet_core import ChannelInfo, ChannelKey, Device, Draft, Server

GROUP = ChannelKey("g", 2)
KINDS = pytest.mark.parametrize("kind", ["tcp", "ws"])


def break_for(server: Server, uid: str, name: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Let what one user's connection does with its socket or its protocol raise; returns its number."""
    [session] = server.broker.presence.sessions(uid)
    made: Any = session
    sound = getattr(type(made), name)

    def fail(self: Any, *args: Any, **more: Any) -> Any:
        if self.device.uid == uid:
            raise RuntimeError("a bug")
        return sound(self, *args, **more)

    monkeypatch.setattr(type(made), name, fail)
    return session.statistics().connection_id


def check(server: Server, number: int, logged: str) -> None:
    assert server.broker.metrics.values()["gateway_crashes_total"] == 1
    assert logged.count("RuntimeError: a bug") == 1
    assert logged.count("connection crashed") == 1
    assert f"connection_id={number}" in logged.partition("connection crashed")[2].partition("\n")[0]


@KINDS
@pytest.mark.parametrize("name", ["_send", "_recv", "_deliver"])
async def test_while_messages_are_delivered(
    tmp_path: Path, kind: str, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lane that delivers is shared: the other members get the same message all the same."""
    async with (
        server_in(tmp_path) as server,
        client(server, kind) as ann,
        client(server, kind) as bob,
        client(server, "tcp") as carl,
    ):
        await server.broker.channels.create(GROUP, ChannelInfo(), ["ann", "bob", "carl"])
        for uid, each in (("ann", ann), ("bob", bob), ("carl", carl)):
            await each.connect(uid)
        number = break_for(server, "ann", name, monkeypatch)
        await server.broker.messages.send(Device(uid="ann", is_server=True), Draft("g", 2, b"one"))
        assert (await bob.receive()).payload == b"one"
        assert (await carl.receive()).payload == b"one"
        await ann.wait_closed()
        await bob.ping()
        check(server, number, capsys.readouterr().out)


@KINDS
async def test_while_messages_are_acknowledged(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with server_in(tmp_path) as server, client(server, kind) as ann, client(server, kind) as bob:
        await ann.connect("ann")
        await bob.connect("bob")
        number = break_for(server, "ann", "_acknowledge", monkeypatch)
        await ann.send_raw(ann.message("bob", b"one"))
        assert (await bob.receive()).payload == b"one"
        await ann.wait_closed()
        assert (await bob.send("ann")).reason_code == 1
        check(server, number, capsys.readouterr().out)
        with trio.fail_after(5):
            while server.broker.metrics.values()["gateway_in_flight_bytes"]:
                await trio.sleep(0.01)


@KINDS
@pytest.mark.parametrize("name", ["retry", "expire"])
async def test_while_the_clock_is_looked_at(
    tmp_path: Path, kind: str, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One task looks at all connections, and goes on."""
    times = {"retry_interval": 0.1, "retry_scan_interval": 0.05, "conn_idle_time": 30.0 if name == "retry" else 0.5}
    async with server_in(tmp_path, **times) as server, client(server, kind) as ann, client(server, kind) as bob:
        await ann.connect("ann")
        await bob.connect("bob")
        number = break_for(server, "ann", name, monkeypatch)
        if name == "retry":
            sender = Device(uid="x", is_server=True)
            await server.broker.messages.send_many(sender, [Draft("ann", 1, b"one"), Draft("bob", 1, b"one")])
            for _ in range(2):
                assert (await bob.receive(ack=False)).payload == b"one"
        await ann.wait_closed()
        if name == "expire":
            await bob.wait_closed()
        check(server, number, capsys.readouterr().out)
