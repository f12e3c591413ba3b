"""Logins of one turn of the reactor: decided and answered eight at a time, at its end.

An answer wakes its client. Where each is sent as soon as it is made, clients of one process wake up and fall asleep
again for every single one: 175 µs of the server's processor time for a login, and 135 with all sent together (50 and
37 µs of a generator with 32 at a time). Eight also agree on keys in the time of two (`triolet_protocol.agree`). More
than that at a time would only let clients wait that could already go on, while nobody uses the other processor: at
best 11,500 logins/s with all 32 together, and 14,500 with eight.
"""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import triolet_protocol as wire

if TYPE_CHECKING:
    from triolet_gateway._session import ClientSession

TOGETHER = 8
"""Logins that are answered by one write of all."""
Waiting = tuple["ClientSession", wire.Connect]


class Arrivals:
    """Is entered around what comes in at a time; enters the turn of the broker, which ends after the answers."""

    def __init__(self, turn: AbstractContextManager[None]) -> None:
        self._turn = turn
        self._is_open = False
        self._waiting: list[Waiting] = []
        """At most one of each connection that is ready in a turn."""

    def __enter__(self) -> None:
        self._turn.__enter__()
        self._is_open = True

    def __exit__(self, *_: object) -> None:
        self._is_open = False
        try:
            if self._waiting:
                self._answer()
        finally:
            self._turn.__exit__(None, None, None)

    def takes(self, session: "ClientSession", connect: wire.Connect) -> bool:
        """Let a login wait for the end of the turn; False if there is none. Its connection keeps what comes behind."""
        if self._is_open:
            self._waiting.append((session, connect))
        return self._is_open

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting, []
        reactor = waiting[0][0].gateway.reactor
        for start in range(0, len(waiting), TOGETHER):
            if start:
                reactor.flush()
            _answer_some(waiting[start : start + TOGETHER])


def _answer_some(waiting: list[Waiting]) -> None:
    """Agree on keys with clients, decide about them, and answer."""
    gateway = waiting[0][0].gateway
    pair = gateway.keys.pair()
    pairs = [pair] * len(waiting)
    if not gateway.config.disable_encryption:
        pairs = wire.agree(pair, [connect.client_key for _, connect in waiting])
    decided = [
        (session, session.decide(connect, keys)) for (session, connect), keys in zip(waiting, pairs, strict=True)
    ]
    for session, login in decided:
        if login:  # neither has the session crashed, nor is somebody asked
            session.let_in(login)
