"""The worker process: carries out orders until its link ends."""

import gc
import signal
import socket
import traceback
from collections import defaultdict
from collections.abc import Sequence

import msgspec
import trio

import triolet_protocol as wire
from triolet_core import ConfigError
from triolet_gateway import _fanout
from triolet_gateway._config import GatewayConfig
from triolet_gateway._socket import SocketConnection
from triolet_gateway._tls import Certificates
from triolet_gateway._transports import tcp_layers, websocket_layers
from triolet_gateway.workers import _orders as orders
from triolet_gateway.workers import _reports as reports
from triolet_gateway.workers._front import Front, FrontSession
from triolet_gateway.workers._link import Link

CROWD = 8
"""So many receivers have a message encoded and sent in one call of their own."""
GC_THRESHOLDS = (50_000, 2, 1000)
"""As in the core process: connections leave no circles, and a look at all objects of 17,000 takes 45 ms."""
_TICK_S = 1.0
_DRAIN_LOOK_S = 0.01


def main(descriptor: int) -> None:
    """Serve until the core closes the link. Signals are for the core, which says what they mean."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    gc.set_threshold(*GC_THRESHOLDS)
    trio.run(serve, socket.socket(fileno=descriptor))


async def serve(sock: socket.socket) -> None:
    """Carry out what is ordered over a link, until that ends."""
    link = Link(sock, orders.decoder)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.write_forever)
            process: Process | None = None
            while (frame := await link.next_frame()) is not None:
                if process is None:
                    process = await Process.start(frame, link, nursery)
                else:
                    process.carry_out_all(frame)
            nursery.cancel_scope.cancel()
    except* OSError:
        pass  # the core is gone, which is the end as well
    finally:
        link.close()


class Process:
    """What the orders are about."""

    def __init__(
        self,
        config: GatewayConfig,
        link: Link[orders.AnyOrder],
        certificates: Certificates | None,
        nursery: trio.Nursery,
    ) -> None:
        self._config = config
        self._link = link
        self._certificates = certificates
        self._handler_nursery = nursery
        self._front = Front(config, link)

    @classmethod
    async def start(
        cls, frame: Sequence[orders.AnyOrder], link: Link[orders.AnyOrder], nursery: trio.Nursery
    ) -> "Process":
        """Begin to serve, as the first frame says.

        Raises:
            ValueError: It says nothing of the kind.
        """
        order = frame[0]
        if not isinstance(order, orders.Start):
            raise ValueError("the first order is no start")
        settings = msgspec.json.decode(order.settings)
        config = GatewayConfig(**{**settings, "proxy_from": tuple(settings["proxy_from"])})
        certificates = None
        if order.has_tls:
            certificates = await trio.to_thread.run_sync(Certificates, config.cert_file, config.key_file)
        process = cls(config, link, certificates, nursery)
        nursery.start_soon(process._front.reactor.run)
        nursery.start_soon(process._tick)
        process._front.report(reports.Ready())
        process.carry_out_all(frame[1:])
        return process

    async def _tick(self) -> None:
        """Each second report what was carried, and forget the key pair of that second."""
        interval_s = min(_TICK_S, self._config.conn_idle_time / 4)
        while True:
            await trio.sleep(interval_s)
            self._front.keys.forget()
            self._front.report_traffic()

    def carry_out_all(self, frame: Sequence[orders.AnyOrder]) -> None:
        """Do what the core orders; what goes to one client is one write."""
        reactor = self._front.reactor
        with self._link:
            reactor.is_in_turn = True
            try:
                for order in frame:
                    if isinstance(order, orders.Deliver) and len(order.numbers) >= CROWD:
                        reactor.is_in_turn = False
                        reactor.flush()
                        self._deliver(order)
                        reactor.is_in_turn = True
                    else:
                        self._carry_out(order)
            finally:
                reactor.is_in_turn = False
            reactor.flush()

    def _carry_out(self, order: orders.AnyOrder) -> None:
        match order:
            case orders.Deliver():
                self._deliver(order)
            case orders.Open():
                self._open(order)
            case orders.Reload():
                self._handler_nursery.start_soon(self._reload)
            case orders.Drain():
                self._handler_nursery.start_soon(self._drain)
            case orders.Start():
                raise ValueError("started already")
            case _:
                session = self._front.sessions.get(order.number)
                if session is not None:
                    self._guard(session, order)

    def _guard(self, session: FrontSession, order: orders.AnyOrder) -> None:
        """Carry out an order; what it raises is the end of that connection only."""
        try:
            session.carry_out(order)
        except Exception:
            session.on_crash()
            session.outbox.abort()

    def _open(self, order: orders.Open) -> None:
        sock = socket.socket(fileno=self._link.taken.popleft())
        sock.settimeout(0)
        front, is_websocket = self._front, order.kind in (orders.WS, orders.WSS)
        connection = SocketConnection(front, sock)
        connection.session = FrontSession(
            front, connection, order.number, (order.host, order.port), one_packet_per_write=is_websocket
        )
        certificates = self._certificates if order.kind in (orders.TLS, orders.WSS) else None
        if is_websocket:
            layers = websocket_layers(connection, self._config, front.proxies, certificates)
        else:
            layers = tcp_layers(connection, self._config, certificates)
        try:
            connection.open(layers)
        except OSError as exc:
            sock.close()
            front.report(reports.Trouble("connection not served", str(exc.strerror)))
            front.report(reports.Closed(order.number, 0, 0, 0))

    def _deliver(self, order: orders.Deliver) -> None:
        """Send messages to those who are still there, all of one protocol and transport together."""
        known = self._front.sessions
        alike: defaultdict[object, list[FrontSession]] = defaultdict(list)
        for number in order.numbers:
            session = known.get(number)
            if session is not None:
                alike[type(session.connection), session.one_packet_per_write].append(session)
        for sessions in alike.values():
            try:
                _send_to(sessions, order.recvs)
            except Exception:
                self._front.report(reports.Trouble("messages not sent", traceback.format_exc()))
                for session in sessions:
                    session.outbox.abort()

    async def _reload(self) -> None:
        if self._certificates is not None:
            try:
                await self._certificates.reload()
            except ConfigError as exc:
                self._front.report(reports.Trouble("certificate kept", str(exc)))

    async def _drain(self) -> None:
        while self._front.draining:  # noqa: ASYNC110  # rare, ends with the process
            await trio.sleep(_DRAIN_LOOK_S)
        self._front.report_traffic()
        self._front.report(reports.Drained())


def _send_to(sessions: list[FrontSession], recvs: list[wire.RecvFields]) -> None:
    sizes, left = _fanout.send_alike(sessions, recvs)
    for session, size in zip(sessions, sizes, strict=True):
        session.count_out(size)
    for number, frames in left:
        sessions[number].write_counted(frames)
