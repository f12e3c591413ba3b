"""Watching presence against a scripted server, on both event loops."""

import json
from collections.abc import Iterable
from typing import Any

import anyio
import pytest
import trio
import trio.testing

import triolet_protocol as wire
from tests.unit.client.fakes import BACKENDS, connected, run
from triolet_client import Client, DeviceState, Reason, UserState, WatchReader, WatchRefused
from triolet_client._watch import Watches


def device(flag: int = 0, **more: int) -> dict[str, int]:
    given = {"flag": flag, "level": 0, "online": 1, "connections": 1, "since": 5, "last_seen": 0, "logout": 0}
    return {**given, **more}


def event(data: Any, kind: str = "presence") -> wire.EventFrame:
    text = data if isinstance(data, bytes) else json.dumps(data).encode()
    return wire.EventFrame("e1", kind, 1, text)


def user(uid: str, *devices: dict[str, int]) -> dict[str, object]:
    return {"uid": uid, "online": int(bool(devices)), "devices": list(devices)}


async def first_state(client: Client, uids: list[str], found: list[Any]) -> None:
    with client.watch(uids) as states:
        try:
            found.append(await anext(states))
        except WatchRefused as exc:
            found.append(exc)


@BACKENDS
def test_what_goes_over_the_wire(backend: str) -> None:
    """A SUB of the data channel `presence:` with the uids in its parameters, and an UNSUB at the end."""

    async def main() -> None:
        found: list[Any] = []
        async with connected() as (_, line, client), anyio.create_task_group() as tasks:
            tasks.start_soon(first_state, client, ["bob", "bob", "eve"], found)
            sub = (await line.take(wire.SubReceived)).sub
            assert (sub.channel_id, sub.channel_type, sub.action) == ("presence:", 7, 0)
            assert json.loads(sub.param) == {"uids": ["bob", "eve"], "expire": 86_400}
            await line.send(wire.SubAck(sub.sub_no, "presence:", 7, 0, 1))
            await line.send(event({"users": [user("bob", device(1, level=1, connections=2))]}))
            end = (await line.take(wire.SubReceived)).sub
            assert (end.action, json.loads(end.param)) == (1, {"uids": ["bob", "eve"]})
        web = DeviceState(
            device_flag=1, is_online=True, level=1, connections=2, since=5, last_seen=0, has_logged_out=False
        )
        assert found == [UserState(uid="bob", is_online=True, devices=(web,))]

    run(backend, main)


@BACKENDS
def test_states_that_nobody_asked_for_or_that_are_broken_are_passed_over(backend: str) -> None:
    async def main() -> None:
        found: list[Any] = []
        async with connected() as (_, line, client), anyio.create_task_group() as tasks:
            tasks.start_soon(first_state, client, ["bob"], found)
            await line.take(wire.SubReceived)
            for data in (b"", b"[]", b"{", b'{"users":7}', b'{"users":[{"uid":"bob"}]}', b"[" * 30_000):
                await line.send(event(data))
            await line.send(event({"users": [user("eve", device())]}), event({"users": [user("bob")]}))
            await line.take(wire.SubReceived)
        assert found == [UserState(uid="bob", is_online=False, devices=())]

    run(backend, main)


@BACKENDS
def test_a_refusal_is_raised(backend: str) -> None:
    async def main() -> None:
        found: list[Any] = []
        async with connected() as (_, line, client), anyio.create_task_group() as tasks:
            tasks.start_soon(first_state, client, ["bob"], found)
            number = (await line.take(wire.SubReceived)).sub.sub_no
            await line.send(
                event({"sub_no": "another", "reason": 11, "uids": ["x"]}, "presence.refused"),
                event({"sub_no": number, "reason": 11, "uids": ["bob"]}, "presence.refused"),
                wire.SubAck("another", "presence:", 7, 0, 11),
                wire.SubAck(number, "presence:", 7, 0, 11),
            )
            await line.take(wire.SubReceived)
        [refusal] = found
        assert (refusal.reason, refusal.uids) == (Reason.NOT_ALLOW_SEND, ("bob",))

    run(backend, main)


@BACKENDS
def test_every_new_session_is_asked_again(backend: str) -> None:
    async def main() -> None:
        found: list[Any] = []
        async with connected() as (server, line, client), anyio.create_task_group() as tasks:
            tasks.start_soon(first_state, client, ["bob"], found)
            first = (await line.take(wire.SubReceived)).sub
            await line.stream.aclose()
            again = await server.log_in()
            second = (await again.take(wire.SubReceived)).sub
            assert second.param == first.param
            await again.send(event({"users": [user("bob", device())]}))
            await again.take(wire.SubReceived)
        assert [state.is_online for state in found] == [True]

    run(backend, main)


@BACKENDS
def test_a_reader_that_is_slow_gets_the_newest_state_of_each(backend: str) -> None:
    async def main() -> None:
        async with connected() as (_, line, client):
            with client.watch(["bob", "eve"]) as states, client.events() as events:
                for online in (1, 0, 1, 0):
                    await line.send(event({"users": [user("bob", *[device()] * online), user("eve")]}))
                for _ in range(4):
                    await anext(events)
                seen = [await anext(states) for _ in range(2)]
                assert [(state.uid, state.is_online) for state in seen] == [("eve", False), ("bob", False)]
                with anyio.move_on_after(0) as scope:
                    await anext(states)
                assert scope.cancelled_caught

    run(backend, main)


@pytest.mark.parametrize("seconds", [8 * 3600 - 1, 8 * 3600 + 1])
def test_it_is_renewed_every_eight_hours(seconds: int) -> None:
    """While somebody waits for the next state; the clock is the test's."""
    clock = trio.testing.MockClock()
    renewed: list[wire.Sub] = []

    async def answer(line: Any) -> None:
        while True:
            renewed.append((await line.take(wire.SubReceived)).sub)

    async def main() -> None:
        async with connected() as (_, line, client), trio.open_nursery() as nursery:
            nursery.start_soon(first_state, client, ["bob"], [])
            nursery.start_soon(answer, line)
            await trio.testing.wait_all_tasks_blocked()
            clock.jump(seconds)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    trio.run(main, clock=clock)
    assert len([sub for sub in renewed if sub.action == 0]) == (2 if seconds > 8 * 3600 else 1)


def test_what_is_no_uid_is_a_mistake_of_the_caller() -> None:
    for uid in ("", "x" * 513):
        with pytest.raises(ValueError, match="a uid has 1 to 512 bytes"):
            WatchReader(Watches(), [uid])


def test_every_request_fits_a_packet() -> None:
    """Whatever JSON makes of the ids."""

    sent: list[list[str]] = []

    class Session:
        def watch(self, sub_no: str, uids: Iterable[str], expire_s: int) -> None:
            sent.append(list(uids))

        def unwatch(self, sub_no: str, uids: Iterable[str]) -> None:
            raise AssertionError("nobody left")

    uids = [f"{number:03}" + "\n" * 509 for number in range(60)] + [f"{number:03}" for number in range(120)]
    watches = Watches()
    watches.begin(Session())
    watches.add(WatchReader(watches, uids))
    assert [uid for part in sent for uid in part] == uids
    assert all(len(json.dumps(part)) < 32_767 and len(part) <= 50 for part in sent)
