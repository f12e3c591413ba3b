"""What comes in from one client: bytes to packets, packets to the broker; and when the next bytes may come.

Nothing here waits. What has to (sends whose facts must be read or whose queue is full, a login about which somebody
is asked) is a step for a task that is started for it; until its steps are done the session is paused, and so it is
while too much of what it sent waits for the store. Its transport does not read then, until `Outbox.resume` is called.
"""

import uuid
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import starmap
from typing import TYPE_CHECKING

import trio

import triolet_protocol as wire
from triolet_core import Device, Draft, Overloaded, ReasonCode, Receipt, StoreClosed
from triolet_gateway._admission import Peer
from triolet_gateway._gateway import Gateway
from triolet_gateway._guard import crash
from triolet_gateway._login import Login, log_in, log_in_nowait
from triolet_gateway._outbox import Outbox
from triolet_gateway._patience import READS, WITHIN_S
from triolet_gateway._served import ServerEnd
from triolet_gateway._subscriptions import Subscriptions
from triolet_gateway._traffic import Traffic
from triolet_gateway._unacked import Unacked

if TYPE_CHECKING:
    from triolet_gateway._session import ClientSession

CLOSE_AFTER_ANSWER_S = 1.0
"""What a refused client has to read its answer."""
GOOD_BYE_S = 10.0
"""How long a client that said good-bye waits for its last SENDACKs."""
BATCHES_AT_ONCE = 16
"""After so many of one client others have their turn."""
NO_JSON = b'{"jsonrpc":"2.0","error":{"code":-32601,"message":"JSON-RPC is switched off (disableJSONRPC)"}}'
_NOBODY = Device(uid="")
PACKETS, PACKETS_APART, TEXTS, TEXTS_APART = "packets", "packets apart", "texts", "texts apart"
"""Audiences: what sessions can be sent the same, in a write each or each packet in one."""
Step = Callable[[], Awaitable[None]]
Done = Callable[[list[Receipt]], None]


class Intake(Traffic, ABC):
    """The half of a session that the transport calls."""

    __slots__ = (
        "_closing",
        "_has_begun",
        "_has_ended",
        "_in_flight",
        "_in_flight_bytes",
        "_is_held",
        "_is_leaving",
        "_small_reads",
        "_small_since",
        "_steps",
        "_subscriptions",
        "audience",
        "close_at",
        "connection",
        "connection_id",
        "device",
        "gateway",
        "last_activity",
        "one_packet_per_write",
        "outbox",
        "peer",
        "started_at",
        "unacked",
        "watched_at",
    )

    def __init__(self, gateway: Gateway, outbox: Outbox, peer: Peer, *, one_packet_per_write: bool) -> None:
        super().__init__()
        self.gateway = gateway
        self.outbox = outbox
        self.peer = peer
        self.one_packet_per_write = one_packet_per_write
        self.connection: ServerEnd = wire.Connection(wire.Role.SERVER, gateway.limits)
        self.audience: object = PACKETS_APART if one_packet_per_write else PACKETS
        """Whatever is equal for sessions that can be sent the same messages together."""
        self.connection_id = gateway.new_connection_id()
        self.device = _NOBODY
        self.started_at = self.last_activity = trio.current_time()
        self.close_at = 0.0
        self.watched_at = 0
        """The second at which the gateway looks at its deadline, 0 if it does not."""
        self._has_begun = self._has_ended = False
        self._in_flight = self._in_flight_bytes = 0
        self._small_reads, self._small_since = 0, self.started_at
        """Reads that had RECVACKs only, since then."""
        self._is_held = self._is_leaving = False
        self._steps: deque[Step] | None = None
        self.unacked: Unacked | None = None
        self._subscriptions: Subscriptions | None = None
        self._closing = False

    @property
    def is_known(self) -> bool:
        """Whether the client has said who it is."""
        return self.connection.state is not wire.State.IDLE

    @property
    def is_closing(self) -> bool:
        """Whether nothing more is taken from this client."""
        return self._closing

    @property
    def is_paused(self) -> bool:
        """Whether the transport has to wait with what comes next until `Outbox.resume` is called."""
        return self._is_held or self._steps is not None

    @property
    def is_owed(self) -> bool:
        """Whether the client has said good-bye and waits for the answers to what it sent before."""
        return self._is_leaving and not self._has_ended

    @property
    def takes_parts(self) -> bool:
        """Whether it does not matter to this client's protocol how its bytes are cut."""
        return self._has_begun and isinstance(self.connection, wire.Connection)

    @abstractmethod
    def _send(self, frames: Sequence[bytes], *, packets: int = 0) -> bool:
        """Send frames in one write; `packets` is how many they hold if some are joined."""

    @property
    def speaks_for_others(self) -> bool:
        """Whether the peer is a proxy that may name its client."""
        return self.gateway.admission.is_proxy(self.peer[0])

    def rename(self, client: Peer) -> None:
        """Take a proxy's word for whom it speaks.

        Raises:
            RemoteProtocolError: That client may not connect.
        """
        self.gateway.rename(self.peer[0], client[0])
        self.peer = client

    # --- bytes

    def take(self, data: bytes) -> None:
        """Handle what came in one read; only while it is not paused."""
        gateway, size = self.gateway, len(data)
        gateway.counters.bytes_in_total += size
        self.in_packet_bytes += size
        self.last_activity = gateway.reactor.now
        if self._closing or gateway.is_stopping:
            return  # what a stopping server does not acknowledge the client sends again
        unacked = self.unacked
        if unacked is not None and unacked.count:
            count = unacked.confirm(data) if self.connection.is_drained else 0
            if count:  # as a rule
                self._on_expected(count, unacked)
                return
            data = self._take_recvacks(data, unacked)
            if not data:
                return
        if self._has_begun or self._begin(data):
            self.connection.receive_data(data)
            self.go_on()

    def _begin(self, data: bytes) -> bool:
        """Choose the protocol by the first byte that is no white space. False if there is nothing to take."""
        is_json = wire.begins_json(data)
        if is_json is None:
            return False
        self._has_begun = True
        if not is_json:
            self.one_packet_per_write = False  # where a packet ends can be seen
            self.audience = PACKETS
            return True
        self.outbox.use_text()
        if self.gateway.config.disable_jsonrpc:
            self.gateway.counters.protocol_errors_total += 1
            self.end(NO_JSON)
            return False
        self.connection = wire.JsonConnection(
            self.gateway.limits, lambda: uuid.uuid4().hex, is_stream=not self.one_packet_per_write
        )
        self.audience = TEXTS_APART if self.one_packet_per_write else TEXTS
        return True

    def go_on(self) -> None:
        """Handle what is complete, until there is something to wait for."""
        connection, count = self.connection, 0
        try:
            while not (self._closing or self._is_held or self._steps is not None):
                batch = connection.batch()
                if not batch:
                    self.gateway.patience.end(self._as_session())  # the rest of a packet may be short
                    return
                self._on_batch(batch)
                if connection.is_drained:
                    return
                count += 1
                if count == BATCHES_AT_ONCE:
                    self._later(trio.lowlevel.checkpoint)
        except wire.RemoteProtocolError as exc:
            self.on_protocol_error(exc)

    def on_protocol_error(self, error: wire.RemoteProtocolError) -> None:
        """Tell the log, and end."""
        self.gateway.counters.protocol_errors_total += 1
        self.gateway.log.info("protocol error", connection_id=self.connection_id, detail=error.detail)
        self.end(error.answer)

    def on_crash(self) -> None:
        """Tell the log of the exception that is being handled; whoever handles it ends the connection."""
        self._closing = True
        self.gateway.counters.crashes_total += 1
        self.gateway.log.exception("connection crashed", connection_id=self.connection_id)

    def give_up(self) -> None:
        """End the connection now, without a word."""
        self._closing = True
        self.outbox.abort()

    # --- steps that wait

    def _later(self, step: Step) -> None:
        """Do something that waits, after what waits already; nothing more is taken until it is done."""
        if self._steps is None:
            self._steps = deque()
            self.gateway.start_soon(self._take_steps)
        self._steps.append(step)

    async def _take_steps(self) -> None:
        """Do what waits. An error here ends this connection only."""
        steps = self._steps
        try:
            while steps:
                await steps.popleft()()
        except Exception:
            crash(self._as_session())
        self._steps = None
        if self._is_leaving:
            self._end_if_answered()
        elif not self._is_held:
            self.outbox.resume()

    # --- packets

    def _on_batch(self, batch: wire.Batch) -> None:
        """Handle a batch, a good-bye after everything else."""
        self.in_packets += len(batch)
        if batch.pings:
            self.gateway.counters.pings_total += batch.pings
            self._send([self.connection.send(wire.Pong()) for _ in range(batch.pings)])
        if batch.recvacks:
            self._on_recvacks(batch)
        is_leaving = False
        for event in batch.events:
            match event:
                case wire.ConnectReceived():
                    self._on_connect(event.connect)
                case wire.SubReceived():
                    self._later(partial(self._on_sub, event.sub))
                case wire.AnswerReady():
                    self._answer(event)
                case wire.DisconnectReceived():
                    is_leaving = True
                case _:
                    self.gateway.log.debug("event without effect", connection_id=self.connection_id)
        if batch.streams or batch.stream_events:
            self._later(partial(self.gateway.streams.submit, self._as_session(), batch))
        elif batch.sends:
            self._offer(list(starmap(Draft, batch.sends)), batch.marks)
        if is_leaving:
            self._leave()

    def _answer(self, event: wire.AnswerReady) -> None:
        if event.error:
            self.gateway.counters.bad_requests_total += 1
            self.gateway.log.debug("bad request", connection_id=self.connection_id, detail=event.error)
        self._send([event.answer])

    def _on_connect(self, connect: wire.Connect) -> None:
        """Let the client in or turn it away, at the end of this turn if there is one and nobody has to be asked."""
        keeps_bytes = isinstance(self.connection, wire.Connection)
        if keeps_bytes and self.gateway.arrivals.takes(self._as_session(), connect):
            return
        login = self.decide(connect, self.gateway.keys.pair())
        if login is not None:
            self._on_login(login)

    def decide(self, connect: wire.Connect, keys: wire.KeyPair) -> Login | None:
        """Decide about a login; None if somebody has to be asked, which is begun.

        Args:
            connect: What the client said.
            keys: Our half of the key agreement, which may have been made already (`wire.agree`).
        """
        try:
            return log_in_nowait(self.gateway, self.connection, connect, keys, self.connection_id)
        except trio.WouldBlock:
            self._later(partial(self._login, connect))
            return None

    def let_in(self, login: Login) -> None:
        """Do what was decided at the end of a turn, and go on with what came behind the CONNECT."""
        self._on_login(login)
        if not self.connection.is_drained:
            self.outbox.resume()

    async def _login(self, connect: wire.Connect) -> None:
        self._on_login(await log_in(self.gateway, self.connection, connect, self.connection_id))

    def _on_login(self, login: Login) -> None:
        gateway = self.gateway
        if login.device is None:
            self.end(login.answer)
            return
        if self._closing:  # its client did not wait
            return
        self.device = login.device
        gateway.broker.presence.register(self._as_session())  # those it displaces are told first
        self._send([login.answer])
        gateway.streams.greet(self._as_session())
        if gateway.config.conn_idle_time < gateway.config.login_timeout:
            gateway.watch(self._as_session())

    @abstractmethod
    def _as_session(self) -> "ClientSession":
        """Return this as core knows it."""

    def _take_recvacks(self, data: bytes, unacked: Unacked) -> bytes:
        """Take the RECVACKs that `data` begins with, if they are those that are expected next; returns what follows."""
        connection = self.connection
        if not isinstance(connection, wire.Connection):
            return data
        count, offset, commands = unacked.match(data, connection.match_recvacks)
        if count:
            self._on_expected(count, unacked, commands)
        return data[offset:]

    def _on_expected(self, count: int, unacked: Unacked, commands: Sequence[int] = ()) -> None:
        """Take note of RECVACKs that confirmed what was expected next."""
        self.in_packets += count
        self.gateway.counters.recvacks_total += count
        self._on_confirmed(unacked, commands)
        self._small_reads += 1
        if self._small_reads == READS:
            self._consider_patience()

    def _consider_patience(self) -> None:
        """Many reads had RECVACKs only: if they came one soon after the other, let more come together."""
        now = self.gateway.reactor.now
        connection = self.connection
        if now - self._small_since <= WITHIN_S and isinstance(connection, wire.Connection) and connection.is_encrypted:
            self.gateway.patience.add(self._as_session())
        self._small_reads, self._small_since = 0, now

    def _on_recvacks(self, batch: wire.Batch) -> None:
        self.gateway.counters.recvacks_total += batch.recvacks
        if self.unacked and batch.acked:
            self._on_confirmed(self.unacked, self.unacked.discard(batch.acked))

    def _on_confirmed(self, unacked: Unacked, commands: Sequence[int]) -> None:
        if not unacked.count:
            self.gateway.retrying.discard(self._as_session())
        if commands:
            self._later(partial(self._confirm, commands))

    async def _confirm(self, commands: Sequence[int]) -> None:
        for message_id in commands:
            await self.gateway.broker.commands.confirm(self.device.uid, message_id)

    async def _on_sub(self, sub: wire.Sub) -> None:
        if self._has_ended:  # nobody would take it out of the channel again
            return
        if self._subscriptions is None:
            gateway = self.gateway
            self._subscriptions = Subscriptions(gateway.broker, self._as_session(), gateway.config.subscriptions)
        answer = await self._subscriptions.on_sub(sub, has_events=self.connection.has_events)
        self._send([self.connection.send(answer)])

    # --- messages

    def _offer(self, drafts: list[Draft], marks: Sequence[wire.Mark]) -> None:
        """Queue messages for the next commit, at once if nothing has to be waited for."""
        gateway = self.gateway
        size, done = self._count(drafts, marks)
        if gateway.rates is None and self._steps is None:
            try:
                gateway.broker.messages.submit_nowait(self.device, drafts, done, self._as_session())
            except trio.WouldBlock:
                self._later(partial(self._submit, drafts, done, size))
            except StoreClosed:
                self._hold(-size)
                self.end()
        else:
            self._later(partial(self._submit, drafts, done, size))
        self._hold_back()

    async def submit(self, drafts: list[Draft], marks: Sequence[wire.Mark]) -> None:
        """Queue messages for the next commit. For a step that waits: it has its turn already."""
        size, done = self._count(drafts, marks)
        await self._submit(drafts, done, size)
        self._hold_back()

    def _count(self, drafts: Sequence[Draft], marks: Sequence[wire.Mark]) -> tuple[int, Done]:
        """Count messages in; returns their size, and what is to be called with their receipts."""
        count = len(drafts)
        size = len(drafts[0].payload) if count == 1 else sum([len(draft.payload) for draft in drafts])
        self.gateway.counters.sends_total += count
        self.in_messages += count
        self.in_message_bytes += size
        self._in_flight += count
        self._in_flight_bytes += size
        self.gateway.in_flight_bytes += size
        return size, partial(self._settle, marks, size)

    def _hold_back(self) -> None:
        """Take nothing more while too much waits for the store."""
        if self._is_full or self.gateway.is_busy:
            self._is_held = True
            self.look_for_room()

    async def _submit(self, drafts: list[Draft], done: Done, size: int) -> None:
        gateway = self.gateway
        try:
            if gateway.rates is not None:
                await gateway.rates.apply(self.connection_id, self.device.uid, drafts)
            await gateway.broker.messages.submit(self.device, drafts, done, self._as_session())
        except Overloaded:
            done([Receipt(ReasonCode.RATE_LIMIT, 0, 0)] * len(drafts))
        except StoreClosed:
            self._hold(-size)
            self.end()
        except BaseException:  # whatever it is, nothing was queued
            self._hold(-size)
            raise

    def _hold(self, size: int) -> None:
        self._in_flight_bytes += size
        self.gateway.hold(size)

    @property
    def _is_full(self) -> bool:
        config = self.gateway.config
        return self._in_flight >= config.in_flight or self._in_flight_bytes >= config.in_flight_bytes

    def _settle(self, marks: Sequence[wire.Mark], size: int, receipts: Sequence[Receipt]) -> None:
        """Answer messages that no longer wait for the store. The writer calls this."""
        self._in_flight -= len(marks)
        self._hold(-size)
        Intake.acknowledge(self, marks, receipts)  # this is guarded as a whole
        if self._is_leaving:
            self._end_if_answered()
        elif self._is_held:
            self.look_for_room()

    def acknowledge(self, marks: Sequence[wire.Mark], receipts: Sequence[Receipt]) -> None:
        """Answer messages."""
        self.gateway.counters.sendacks_total += len(marks)
        if not self._has_ended:
            frames = self.connection.encode_sendacks(marks, receipts, apart=self.one_packet_per_write)
            self._send(frames, packets=len(marks))

    def look_for_room(self) -> None:
        """Take more from this client if less waits for the store now: of its own, and of all clients."""
        gateway = self.gateway
        gateway.held.discard(self._as_session())
        if not self._is_held or self._is_full or self._has_ended:
            return  # its next receipts are the time to look again
        if gateway.is_busy:
            gateway.held.add(self._as_session())
            return
        self._is_held = False
        if self._steps is None:
            self.outbox.resume()

    # --- the end

    def _leave(self) -> None:
        """The client said good-bye: nobody takes it for online, but it is told what became of its messages."""
        self.gateway.broker.presence.unregister(self._as_session(), logout=True)
        self._closing = self._is_leaving = True
        self.close_at = trio.current_time() + GOOD_BYE_S
        self.gateway.watch(self._as_session())
        self._end_if_answered()

    def _end_if_answered(self) -> None:
        if not (self._in_flight or self._steps is not None or self._has_ended):
            self.end()

    def end(self, answer: bytes = b"") -> None:
        """Send a last answer and close soon; nobody takes this device for online any more."""
        if answer:
            self.outbox.write([answer])
        self._closing = self._has_ended = True
        self.gateway.broker.presence.unregister(self._as_session())
        self.close_at = trio.current_time() + CLOSE_AFTER_ANSWER_S
        self.gateway.watch(self._as_session())
        self.outbox.finish()
