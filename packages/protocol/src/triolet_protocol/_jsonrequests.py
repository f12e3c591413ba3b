"""JSON-RPC requests that wait for their answers."""

from collections import deque
from dataclasses import dataclass, field

from triolet_protocol._errors import LocalProtocolError


@dataclass(slots=True, eq=False)
class Requests:
    """A batch: the answers of one array."""

    missing: int
    answers: list[dict[str, object]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Request:
    """Whom an answer is for. An empty id is one that was given and is left out of the answer."""

    id: str | None = None
    batch: Requests | None = None
    method: str = ""


def oldest(requests: deque[Request]) -> Request:
    """Take the request that has waited for longest.

    Raises:
        LocalProtocolError: None does.
    """
    if not requests:
        raise LocalProtocolError("no request waits for this answer")
    return requests.popleft()
