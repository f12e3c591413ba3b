"""A server that is killed five times and a receiver that flaps: the receiver has what is stored, in order."""

import json
import os
import random
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from triolet_core import Broker, Message
from triolet_core.testing import open_test_broker

SENDER = Path(__file__).with_name("webhook_sender.py")
RECEIVER = Path(__file__).with_name("webhook_flapping.py")
KILLS = 5
MESSAGES = int(os.environ.get("TRIOLET_WEBHOOK_FAULT_MESSAGES", "2000"))
"""100,000 takes minutes; `make test` is content with less."""
TIMEOUT_S = 60 + MESSAGES // 100


@attrs.define(eq=False)
class Taken:
    """What the receiver printed, in the order it did."""

    notified: list[tuple[int, str, int, int]] = attrs.Factory(list)
    """(message id, channel, type, seq) of each message of msg.notify, repeats included."""
    offline: list[tuple[int, str, int, int]] = attrs.Factory(list)
    contents: dict[tuple[str, str], str] = attrs.Factory(dict)
    """Message ids by event and event id."""
    grown: trio.Event = attrs.Factory(trio.Event)

    def add(self, line: bytes) -> bool:
        _, event, event_id, body = line.decode().split(" ", 3)
        value = json.loads(body)
        if event == "user.onlinestatus":
            return True
        messages = value if isinstance(value, list) else [value]
        ids = ",".join(message["message_idstr"] for message in messages)
        assert self.contents.setdefault((event, event_id), ids) == ids
        kept = self.notified if event == "msg.notify" else self.offline
        for message in messages:
            channel = "-".join(sorted((message["from_uid"], message["channel_id"])))
            channel = channel if message["channel_type"] == 1 else message["channel_id"]
            kept.append((message["message_id"], channel, message["channel_type"], message["message_seq"]))
            if event == "msg.offline":
                assert message["from_uid"] not in message["to_uids"]
        self.grown.set()
        self.grown = trio.Event()
        return True

    async def wait_for(self, acknowledged: "Acknowledged") -> None:
        for kept, ids in ((self.notified, acknowledged.ids), (self.offline, acknowledged.to_absent)):
            missing = set(ids)
            seen = 0
            while missing.difference_update(row[0] for row in kept[seen:]) or missing:
                seen = len(kept)
                await self.grown.wait()


@asynccontextmanager
async def child(*words: str | Path) -> AsyncIterator[trio.Process]:
    """Run a script; it is killed at the end."""
    process = await trio.lowlevel.open_process([sys.executable, *map(str, words)], stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdout.aclose()


async def each_line(process: trio.Process, take: Callable[[bytes], bool]) -> None:
    """Give every whole line of the output to `take` until it returns False or there is no more."""
    rest = b""
    async for data in process.stdout:
        *lines, rest = (rest + data).split(b"\n")
        more = [take(line) for line in lines]  # each is taken, whatever the one before says
        if not all(more):
            return


async def keep_receiver(port: int, taken: Taken) -> None:
    """Run the receiver again whenever it has died; between the two nobody listens."""
    for seed in range(100_000):
        async with child(RECEIVER, str(port), str(seed)) as process:
            await each_line(process, taken.add)


@attrs.define(eq=False)
class Acknowledged:
    """What the servers printed."""

    ids: set[int] = attrs.Factory(set)
    to_absent: set[int] = attrs.Factory(set)
    enough: int = 0

    def add(self, line: bytes) -> bool:
        """Take a line; False if the server may end."""
        if line == b"sent":
            return False
        _, number, channel = line.split()
        self.ids.add(int(number))
        if channel == b"g":
            self.to_absent.add(int(number))
        return len(self.ids) < self.enough


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S + 30)
async def test_the_receiver_has_every_message_in_order_whatever_dies(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """At least once, order per channel, repeats with equal ids; what was acknowledged is among it."""
    dice = random.Random(5)
    taken = Taken()
    port = free_port()
    url = f"http://127.0.0.1:{port}/webhook"
    acknowledged = Acknowledged()
    share = MESSAGES // (KILLS + 1)
    with trio.fail_after(TIMEOUT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_receiver, port, taken)
            for run in range(KILLS):
                acknowledged.enough = len(acknowledged.ids) + dice.randrange(share // 2, share)
                async with child(SENDER, tmp_path, url, str(share), str(run)) as server:
                    await each_line(server, acknowledged.add)
            acknowledged.enough = MESSAGES * 2
            async with child(SENDER, tmp_path, url, str(MESSAGES - len(acknowledged.ids)), "last") as server:
                await each_line(server, acknowledged.add)
                await taken.wait_for(acknowledged)
            nursery.cancel_scope.cancel()
    async with open_test_broker(tmp_path) as broker:
        stored = await all_messages(broker)
    assert acknowledged.ids <= stored
    assert {row[0] for row in taken.notified} == stored
    check_order(taken.notified)
    check_order(taken.offline)
    record_property("stored", len(stored))
    record_property("acknowledged", len(acknowledged.ids))
    record_property("notified", len(taken.notified))
    record_property("offline", len(taken.offline))


async def all_messages(broker: Broker) -> set[int]:
    stored: list[Message] = []
    while more := broker.commits.read(stored[-1].message_id if stored else 0, 10_000):
        stored += more
    return {message.message_id for message in stored}


def check_order(rows: list[tuple[int, str, int, int]]) -> None:
    """First occurrences rise by seq in each channel, and a repeat is the same message."""
    seen: dict[int, tuple[str, int, int]] = {}
    newest: dict[tuple[str, int], int] = defaultdict(int)
    for message_id, channel, kind, seq in rows:
        if message_id in seen:
            assert seen[message_id] == (channel, kind, seq)
            continue
        seen[message_id] = (channel, kind, seq)
        assert seq > newest[channel, kind]
        newest[channel, kind] = seq
