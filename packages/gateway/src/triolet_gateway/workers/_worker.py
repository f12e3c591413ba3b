"""One living worker as the core sees it: its link, its sessions, and what it reports."""

import errno
import socket
from collections.abc import Sequence
from contextlib import AbstractContextManager

import trio

from triolet_gateway._admission import Peer
from triolet_gateway._gateway import Gateway
from triolet_gateway.workers import _orders as orders
from triolet_gateway.workers import _reports as reports
from triolet_gateway.workers._link import Link
from triolet_gateway.workers._remote import RemoteSession

AT_ONCE = 200
"""After so many reports, or sessions that end, others have their turn: the end of a connection takes 20 to 40 µs."""


class Worker:
    """Gives its sessions what is reported."""

    def __init__(
        self, gateway: Gateway, links: AbstractContextManager[None], link: Link[reports.AnyReport], number: int
    ) -> None:
        """`links` is entered around what comes in at a time: orders to whichever worker go out at its end."""
        self._links = links
        self._gateway = gateway
        self._log = gateway.log.bind(worker=number)
        self._pending_there = 0
        self._drained = trio.Event()
        self.link = link
        self.sessions: dict[int, RemoteSession] = {}
        self.is_ready = False

    @property
    def pending(self) -> int:
        """Bytes that wait for the worker, or in it for clients."""
        return self.link.pending + self._pending_there

    # --- out

    def order(self, encoded: Sequence[bytes]) -> bool:
        """Send orders; False if too much waits for the worker already."""
        if self.link.pending + sum(map(len, encoded)) > self._gateway.config.worker_bytes:
            return False
        self.link.put(*encoded)
        return True

    def serve(self, sock: socket.socket, peer: Peer, kind: int) -> None:
        """Hand a socket over.

        Raises:
            OSError: Too many wait already.
        """
        is_websocket = kind in (orders.WS, orders.WSS)
        session = RemoteSession(self._gateway, self, peer, one_packet_per_write=is_websocket)
        number = session.connection_id
        if not self.link.give(sock, orders.encode(orders.Open(number, *peer, kind))):
            raise OSError(errno.ENOBUFS, "the workers are not quick enough")
        self.sessions[number] = session
        session.open()

    async def drain(self) -> None:
        """Wait until nothing waits for its clients, or it is gone."""
        self.link.put(orders.encode(orders.Drain()))
        await self._drained.wait()

    # --- in

    async def read_forever(self, on_ready: trio.Event) -> None:
        """Handle reports until the link ends."""
        while (frame := await self.link.next_frame()) is not None:
            for start in range(0, len(frame), AT_ONCE):
                if start:
                    await trio.lowlevel.checkpoint()
                now = trio.current_time()
                with self._links, self._gateway.broker.turn:
                    for report in frame[start : start + AT_ONCE]:
                        self._on_report(report, now)
            if self.is_ready:
                on_ready.set()

    def _on_report(self, report: reports.AnyReport, now: float) -> None:
        if isinstance(report, reports.Packets):
            session = self.sessions.get(report.number)
            if session is not None:
                session.on_bytes(report.size, now)
                session.on_report(report)
            return
        match report:
            case reports.Acked():
                self._on_acked(report, now)
            case reports.Traffic():
                self._on_traffic(report, now)
            case reports.Ready():
                self.is_ready = True
            case reports.Drained():
                self._gateway.draining.discard(self)
                self._drained.set()
            case reports.Trouble():
                self._log.warning(report.text, problem=report.problem)
            case _:
                self._on_end(report, now)

    def _on_acked(self, report: reports.Acked, now: float) -> None:
        acked, recvacks = report.acked, report.recvacks
        for number, size in zip(report.numbers, report.sizes, strict=True):
            session = self.sessions.get(number)
            if session is not None:
                session.on_bytes(size, now)
                session.on_recvacks(acked, recvacks)

    def _on_end(self, report: reports.Closed | reports.Slow | reports.Crashed | reports.Dropped, now: float) -> None:
        session = self.sessions.get(report.number)
        if session is None:
            return
        match report:
            case reports.Slow():
                session.fall_behind()
            case reports.Crashed():
                self._gateway.counters.crashes_total += 1
                self._log.error("connection crashed", connection_id=report.number, traceback=report.traceback)
            case reports.Dropped():
                self._gateway.counters.events_total -= 1
                self._log.warning("event dropped", connection_id=report.number, type=report.type[:64])
            case reports.Closed():
                self._count(session, report.bytes_in, report.bytes_out, report.pings, now)
                session.on_closed()

    def _on_traffic(self, report: reports.Traffic, now: float) -> None:
        self._pending_there = report.pending
        if report.pending:
            self._gateway.draining.add(self)
        else:
            self._gateway.draining.discard(self)
        for number, bytes_in, bytes_out, pings, pending in report.connections:
            session = self.sessions.get(number)
            if session is not None:
                self._count(session, bytes_in, bytes_out, pings, now)
                session.outbox.pending = pending

    def _count(self, session: RemoteSession, bytes_in: int, bytes_out: int, pings: int, now: float) -> None:
        if bytes_in:
            session.on_bytes(bytes_in, now)
        counters = self._gateway.counters
        counters.bytes_out_total += bytes_out
        counters.pings_total += pings
        session.out_packet_bytes += bytes_out
        session.in_packets += pings
        session.out_packets += pings

    async def lose(self) -> int:
        """The process is gone, its sessions end, whoever cancels that; returns how many."""
        self.is_ready = False
        self._drained.set()
        self._gateway.draining.discard(self)
        lost = tuple(self.sessions.values())
        self.sessions.clear()
        for number, session in enumerate(lost, 1):
            session.vanish()
            if not number % AT_ONCE:
                await trio.lowlevel.cancel_shielded_checkpoint()
        return len(lost)
