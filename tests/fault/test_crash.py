"""The power fails anywhere: what was acknowledged is there after reopening, and at most what was under way besides."""

import random
from functools import partial
from pathlib import Path

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fault.disk import Crashes
from triolet_core import ChannelKey, Device, Draft, ServerConfig
from triolet_core._broker import Broker
from triolet_core.config import StoreConfig
from triolet_core.model import person_channel_id
from triolet_core.store import _journal
from triolet_core.testing import open_test_broker

Known = tuple[dict[str, list[bytes]], dict[str, int], int]
"""Payloads by channel, read positions by channel, position of a consumer."""
PEERS = ("b", "c")
OPERATIONS = st.one_of(
    st.tuples(st.just("send"), st.sampled_from(PEERS), st.integers(1, 3)),
    st.tuples(st.just("send"), st.sampled_from(PEERS), st.integers(20, 40)),
    st.tuples(st.just("read"), st.sampled_from(PEERS), st.just(0)),
    st.tuples(st.just("settle"), st.just(""), st.just(0)),
    st.tuples(st.just("consume"), st.just(""), st.just(0)),
)


def key_of(peer: str) -> ChannelKey:
    return ChannelKey(person_channel_id("a", peer), 1)


@attrs.define(eq=False)
class World:
    """A broker, and what a client of it knows: `sent` with what is under way, `known` without."""

    broker: Broker
    known: dict[str, list[bytes]] = attrs.Factory(lambda: {peer: [] for peer in PEERS})
    sent: dict[str, list[bytes]] = attrs.Factory(lambda: {peer: [] for peer in PEERS})
    read_to: dict[str, int] = attrs.Factory(lambda: dict.fromkeys(PEERS, 0))
    consumed: int = 0

    async def do(self, what: str, peer: str, count: int) -> None:
        if what == "send":
            payloads = [b"%s %d" % (peer.encode(), len(self.sent[peer]) + n) * 20 for n in range(count)]
            self.sent[peer] += payloads
            await self.broker.messages.send_many(Device(uid="a"), [Draft(peer, 1, payload) for payload in payloads])
            self.known[peer] += payloads
        elif what == "read" and self.known[peer]:
            await self.broker.conversations.mark_read(peer, key_of(peer))
            self.read_to[peer] = len(self.known[peer])
        elif what == "settle":
            await self.broker.settled(lambda: None)
        elif what == "consume":
            await self.broker.commits.acknowledge("consumer", self.broker.commits.end())
            self.consumed = self.broker.commits.end()

    def now(self) -> Known:
        return {peer: list(found) for peer, found in self.known.items()}, dict(self.read_to), self.consumed


def stored(broker: Broker, peer: str) -> list[bytes]:
    messages = broker.messages.sync(key_of(peer), start=1, end=0, limit=10_000, newer=True).messages
    assert [message.seq for message in messages] == list(range(1, len(messages) + 1))
    by_id = [broker.messages.by_id(key_of(peer), message.message_id) for message in messages]
    assert [None if message is None else message.seq for message in by_id] == [message.seq for message in messages]
    return [message.payload for message in messages]


async def check(copy: Path, known: Known, sent: dict[str, list[bytes]]) -> None:
    """Open a copy: nothing of `known` is missing, and nothing is there that was never sent."""
    payloads, read_to, consumed = known
    async with open_test_broker(copy) as broker:
        for peer in PEERS:
            found = stored(broker, peer)
            assert found[: len(payloads[peer])] == payloads[peer]
            assert found == sent[peer][: len(found)]
            conversation = broker.conversations.get(peer, key_of(peer))
            assert conversation is None or conversation.read_to >= read_to[peer]
        assert broker.commits.position("consumer") >= consumed
        await broker.messages.send(Device(uid="a"), Draft("b", 1, b"goes on"))
        assert stored(broker, "b")[-1] == b"goes on"
    assert [(copy / name).stat().st_size for name in _journal.FILE_NAMES] == [0, 0]


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=st.lists(OPERATIONS, min_size=3, max_size=10), seed=st.integers(0, 2**32))
async def test_a_crash_anywhere_loses_nothing_acknowledged(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[str, str, int]], seed: int
) -> None:
    directory, copies = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("copies")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_journal, "GROWTH", 2 * _journal.PAGE)
        patch.setattr(_journal, "ENOUGH", 4 * _journal.PAGE)
        async with open_test_broker(directory) as broker:
            world = World(broker)
            crashes = Crashes(directory, copies, world.now, random.Random(seed))
            for peer in PEERS:
                await world.do("send", peer, 1)
            crashes.attach(patch)
            for operation in operations:
                await world.do(*operation)
            crashes.copy("at the end")
    for copy, _, known in crashes.found:
        await check(copy, known, world.sent)  # type: ignore[arg-type]  # what `now` returns


@pytest.mark.parametrize("sync", ["full", "nometa", "off"])
async def test_what_is_in_the_journal_alone_is_there_after_a_crash(tmp_path: Path, sync: str) -> None:
    """LMDB has none of it: that is seen in the copy."""
    config = attrs.evolve(ServerConfig(), store=StoreConfig(sync=sync))
    async with open_test_broker(tmp_path / "store", config) as broker:
        world = World(broker)
        await world.do("send", "b", 1)
        await broker.settled(lambda: None)
        for count in (1, 40, 1, 900, 1):
            await world.do("send", "b", count)
        assert broker._store.backlog.holds(key_of("b"))
        crashes = Crashes(tmp_path / "store", tmp_path / "copies", world.now, random.Random(0))
        crashes.copy("at the end")
        (tmp_path / "bare").mkdir()
        (tmp_path / "bare" / "triolet.mdb").write_bytes((tmp_path / "copies" / "0" / "triolet.mdb").read_bytes())
        assert len(stored(broker, "b")) == 944
    async with open_test_broker(tmp_path / "bare", config) as broker:
        assert len(stored(broker, "b")) == 1
    await check(tmp_path / "copies" / "0", world.now(), world.sent)


async def test_a_damaged_journal_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path / "store") as broker:
        world = World(broker)
        for _ in range(4):
            await world.do("send", "b", 1)
        crashes = Crashes(tmp_path / "store", tmp_path, world.now, random.Random(0))
        crashes.copy("at the end")
    journal = tmp_path / "0" / _journal.FILE_NAMES[0]
    damaged = bytearray(journal.read_bytes())
    damaged[100] ^= 1
    journal.write_bytes(damaged)
    opening = partial(open_test_broker, tmp_path / "0")
    with pytest.raises(Exception, match="is damaged: record 3 is missing and 5 is there") as caught:
        async with opening():
            pass
    assert "move both journal files away" in str(caught.value)
    for name in _journal.FILE_NAMES:
        (tmp_path / "0" / name).unlink()
    async with opening() as broker:
        assert len(stored(broker, "b")) == 1
