"""What one device gets, whatever it acknowledges and however often it comes back.

The rules (wire-protocol.md, section 6.6; semantics.md, sections 2.4 to 2.6): a connection's first deliveries of a
channel rise by seq and leave nothing out; a repeat is the same message, for so long as it is not acknowledged and not
too often; a new connection gets no repeats of the old one; history fills what came in between, so that the device has
everything once.
"""

import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import attrs
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

import triolet_protocol as wire
from tests.wkclient import Client
from triolet_core import ChannelInfo, ChannelKey, Server, ServerConfig, channel_key, open_server
from triolet_gateway import GatewayConfig
from triolet_gateway.testing import MemoryGateway

INTERVAL_S, REPEATS = 60.0, 2
CHANNELS = {("g", 2): ChannelKey("g", 2), ("ann", 1): channel_key("ann", "bob", 1)}
"""What bob sees as the channel, and its key."""
STEPS = st.one_of(
    st.tuples(st.just("send"), st.integers(0, 1), st.integers(1, 4)),
    st.tuples(st.just("ack"), st.integers(0, 20), st.just(0)),
    st.tuples(st.sampled_from(["wait", "leave", "come back"]), st.just(0), st.just(0)),
)
Seen = tuple[str, int]


class Bob:
    """The device under test, and what it has seen."""

    def __init__(self, server: Server, gateway: MemoryGateway) -> None:
        self._server = server
        self._gateway = gateway
        self.client: Client | None = None
        self.has: dict[Seen, list[int]] = defaultdict(list)
        self._seen: Counter[tuple[Seen, int]] = Counter()
        self._unacked: dict[tuple[Seen, int], wire.Recv] = {}

    async def come_back(self) -> None:
        """Connect, and ask for what was missed."""
        if self.client is not None:
            return
        self.client = Client(self._gateway.connect())
        self._seen.clear()
        self._unacked.clear()
        assert await self.client.connect("bob") == 1
        for seen, key in CHANNELS.items():
            last = self.has[seen][-1] if self.has[seen] else 0
            page = self._server.broker.messages.sync(key, start=last + 1, end=0, limit=1000, newer=True)
            self.has[seen] += [message.seq for message in page.messages]

    async def leave(self) -> None:
        if self.client is not None:
            await self.client.stream.aclose()
            self.client = None
            while self._server.broker.presence.sessions("bob"):
                await trio.lowlevel.checkpoint()

    async def take(self, *, are_repeats: bool = False) -> None:
        """Take everything that was sent to it so far."""
        if self.client is None:
            return
        await self._server.broker.flush()
        await self.client.ping()
        events, self.client.waiting = self.client.waiting, []
        due = {at for at in self._unacked if are_repeats and self._seen[at] <= REPEATS}
        order: dict[Seen, list[int]] = defaultdict(list)
        for event in events:
            assert isinstance(event, wire.RecvReceived)
            recv = event.recv
            seen, seq = (recv.channel_id, recv.channel_type), recv.message_seq
            order[seen].append(seq)
            self._check(seen, seq, recv, is_repeat=are_repeats)
            due.discard((seen, seq))
        assert not due, "what was not acknowledged was not repeated"
        assert all(seqs == sorted(set(seqs)) for seqs in order.values()), "the order of a channel"

    def _check(self, seen: Seen, seq: int, recv: wire.Recv, *, is_repeat: bool) -> None:
        self._seen[seen, seq] += 1
        assert self._seen[seen, seq] <= 1 + REPEATS
        assert is_repeat == (self._seen[seen, seq] > 1)
        if is_repeat:
            assert self._unacked[seen, seq] == recv, "a repeat is the same message and was not acknowledged"
            return
        self._unacked[seen, seq] = recv
        assert seq == (self.has[seen][-1] if self.has[seen] else 0) + 1, "a gap or a duplicate"
        self.has[seen].append(seq)

    async def acknowledge(self, number: int) -> None:
        """Acknowledge one of those that wait."""
        if self.client is None or not self._unacked:
            return
        at = sorted(self._unacked)[number % len(self._unacked)]
        await self.client.send_raw(self.client.connection.recv_ack(self._unacked.pop(at)))
        await self.client.ping()


async def play(steps: Sequence[tuple[str, int, int]], path: Path, clock: trio.testing.MockClock) -> None:
    gateway = MemoryGateway()
    config = ServerConfig()
    section = GatewayConfig(
        tcp_addr="", ws_addr="", retry_interval=INTERVAL_S, retry_max_count=REPEATS, conn_idle_time=1e9
    )
    config = attrs.evolve(config, node=attrs.evolve(config.node, data_dir=str(path)), sections={"gateway": section})
    async with open_server(config, plugins=[gateway.plugin]) as server:
        await server.broker.channels.create(CHANNELS["g", 2], ChannelInfo(), ["ann", "bob"])
        async with gateway.connect() as stream:
            ann, bob = Client(stream), Bob(server, gateway)
            assert await ann.connect("ann") == 1
            await bob.come_back()
            for step, channel, count in [*steps, ("come back", 0, 0)]:
                match step:
                    case "send":
                        to, kind = ("g", 2) if channel else ("bob", 1)
                        await ann.send_raw(b"".join(ann.message(to, channel_type=kind) for _ in range(count)))
                        for _ in range(count):
                            assert (await ann.wait_for(wire.SendAckReceived)).sendack.reason_code == 1
                        await bob.take()
                    case "ack":
                        await bob.acknowledge(channel)
                    case "wait":
                        clock.jump(INTERVAL_S + 1)
                        await trio.testing.wait_all_tasks_blocked()
                        await bob.take(are_repeats=True)
                    case "leave":
                        await bob.leave()
                    case _:
                        await bob.come_back()
            for seen, key in CHANNELS.items():
                assert bob.has[seen] == list(range(1, server.broker.messages.max_seq(key) + 1))
            await bob.leave()


@given(steps=st.lists(STEPS, max_size=25))
@settings(max_examples=40, deadline=None)
def test_a_device_has_everything_once_and_in_order(steps: list[tuple[str, int, int]]) -> None:
    clock = trio.testing.MockClock()
    with tempfile.TemporaryDirectory() as path:
        trio.run(play, steps, Path(path), clock, clock=clock)
