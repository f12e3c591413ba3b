"""A bug in the code of one connection, met in a task that others share: it ends that connection only."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from triolet_gateway._session import ClientSession


def end_crashed(session: "ClientSession") -> None:
    """Count and log the exception that is being handled, and end its connection."""
    session.gateway.counters.crashes_total += 1
    session.gateway.log.exception("connection crashed", connection_id=session.connection_id)
    session.gateway.retrying.discard(session)
    session.outbox.abort()
