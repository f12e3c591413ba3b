"""What the ends of a connection know of each other: the socket of the session, the session of its protocol.

In one process the session is a `ClientSession` and its protocol a connection of `triolet_protocol`; with workers both
have a stand-in on the other side of the link (see `workers`).
"""

from collections.abc import Sequence
from typing import Protocol

import triolet_protocol as wire
from triolet_gateway._admission import Peer
from triolet_gateway._config import GatewayConfig
from triolet_gateway._outbox import HasPending
from triolet_gateway._reactor import Reactor


class ServerEnd(Protocol):
    """The server's end of the protocol; `triolet_protocol.Connection` says more."""

    state: wire.State
    version: int

    @property
    def family(self) -> wire.Family: ...

    @property
    def has_events(self) -> bool: ...

    @property
    def names_streams(self) -> bool: ...

    @property
    def is_drained(self) -> bool: ...

    def receive_data(self, data: bytes) -> None: ...

    def batch(self) -> wire.Batch: ...

    def accept(
        self, private_key: wire.KeyPair, salt: bytes, *, time_diff_ms: int, node_id: int, encrypt: bool = True
    ) -> bytes: ...

    def reject(self, reason: int) -> bytes: ...

    def send(self, frame: wire.Frame) -> bytes: ...

    def encode_recvs(self, recvs: Sequence[wire.RecvFields], *, apart: bool = False) -> list[bytes]: ...

    def encode_sendacks(
        self, marks: Sequence[wire.Mark], receipts: Sequence[tuple[int, int, int]], *, apart: bool = False
    ) -> list[bytes]: ...


class Surroundings(Protocol):
    """What the sockets of one process share."""

    reactor: Reactor
    draining: set[HasPending]

    @property
    def config(self) -> GatewayConfig: ...

    def dismiss(self, host: str) -> None:
        """Count a connection out."""
        ...


class Served(Protocol):
    """A session as its socket and the layers above that see it."""

    peer: Peer

    @property
    def is_known(self) -> bool:
        """Whether the client has said who it is."""
        ...

    @property
    def is_closing(self) -> bool:
        """Whether nothing more is taken from this client."""
        ...

    @property
    def is_paused(self) -> bool:
        """Whether the transport has to wait with what comes next until `Outbox.resume` is called."""
        ...

    @property
    def is_owed(self) -> bool:
        """Whether the client has said good-bye and waits for the answers to what it sent before."""
        ...

    @property
    def takes_parts(self) -> bool:
        """Whether it does not matter to this client's protocol how its bytes are cut."""
        ...

    @property
    def speaks_for_others(self) -> bool:
        """Whether the peer is a proxy that may name its client."""
        ...

    def open(self) -> None:
        """Begin."""
        ...

    def close(self) -> None:
        """Leave everything; the socket is the caller's."""
        ...

    def rename(self, client: Peer) -> None:
        """Take a proxy's word for whom it speaks.

        Raises:
            RemoteProtocolError: That client may not connect.
        """
        ...

    def take(self, data: bytes) -> None:
        """Handle what came in one read; only while it is not paused."""
        ...

    def go_on(self) -> None:
        """Handle what is complete, until there is something to wait for."""
        ...

    def on_protocol_error(self, error: wire.RemoteProtocolError) -> None:
        """Tell the log, and end."""
        ...

    def on_crash(self) -> None:
        """Tell the log of the exception that is being handled; whoever handles it ends the connection."""
        ...

    def fall_behind(self) -> None:
        """Be left: what was written does not fit into the outbox, or the client is gone."""
        ...
