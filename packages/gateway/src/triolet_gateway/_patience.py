"""Clients that are sent much: their RECVACKs are read several at a time.

Such a client confirms each message by a packet of its own. To be told of each and to read it takes a fourth of what a
delivery does, and nobody waits for it: there is no answer. So where nothing but RECVACKs has come for a while, and many
a second, the kernel tells of a socket only when `ENOUGH` bytes are there (SO_RCVLOWAT). An encrypted SEND is longer and
never waits, and the end of one that came in parts may be short, so a part ends the patience; what is short as a whole,
a PING or the last RECVACKs, is looked for every `INTERVAL_S`. Of a record of TLS no part can be read: nobody is patient
there.
"""

from typing import TYPE_CHECKING

import trio

from triolet_gateway._reactor import Reactor

if TYPE_CHECKING:
    from triolet_gateway._session import ClientSession

ENOUGH = 56
"""Bytes: four RECVACKs of 14 (wire-protocol.md, section 3.6). No encrypted SEND has fewer than 60."""
READS = 16
WITHIN_S = 0.4
"""So many reads of few RECVACKs in this time make the reader patient: more than 40 a second."""
INTERVAL_S = 0.1
_SHORTEST_RETRY_S = 10 * INTERVAL_S
_AT_ONCE = 256


class Patience:
    """Looks after the clients whose sockets are not told of at once."""

    def __init__(self, reactor: Reactor, retry_interval_s: float) -> None:
        """Nobody is waited for where deliveries are repeated so soon that it would bring repeats."""
        self._reactor = reactor
        self._is_on = retry_interval_s >= _SHORTEST_RETRY_S
        self._sessions: dict[ClientSession, int] = {}
        """With the bytes that had come from each when it was looked at last."""
        self._has_some = trio.Event()

    def __len__(self) -> int:
        return len(self._sessions)

    def add(self, session: "ClientSession") -> None:
        """Let a client's RECVACKs come together, if its transport can do that."""
        if self._is_on and session not in self._sessions and session.outbox.wait_for(ENOUGH):
            self._sessions[session] = session.in_packet_bytes
            self._has_some.set()

    def end(self, session: "ClientSession") -> None:
        """Be told at once of all that comes from a client, or look after it no more since it is gone."""
        if self._sessions.pop(session, None) is not None:
            session.outbox.wait_for(1)

    async def run(self) -> None:
        """Read what has come, and let go of those from whom little comes, for ever."""
        while True:
            if not self._sessions:
                self._has_some = trio.Event()
            await self._has_some.wait()
            await trio.sleep(INTERVAL_S)
            sessions = list(self._sessions)
            for start in range(0, len(sessions), _AT_ONCE):
                self._look_at(sessions[start : start + _AT_ONCE])
                await trio.lowlevel.checkpoint()

    def _look_at(self, sessions: "list[ClientSession]") -> None:
        self._reactor.look([session.outbox.readable for session in sessions if session in self._sessions])
        for session in sessions:
            before = self._sessions.get(session)
            if before is None:  # it is gone
                continue
            self._sessions[session] = session.in_packet_bytes
            if session.in_packet_bytes - before < ENOUGH:
                self.end(session)
