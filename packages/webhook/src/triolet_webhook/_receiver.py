"""What the streams know of a receiver: it takes a parcel or says why not."""

import hmac
from collections.abc import Callable
from typing import Protocol

import attrs

EVENT_ID = "X-Triolet-Event-Id"
ATTEMPT = "X-Triolet-Attempt"
TIMESTAMP = "X-Triolet-Timestamp"
SIGNATURE = "X-Triolet-Signature"


@attrs.frozen(kw_only=True)
class Parcel:
    """One event on its way."""

    event: str
    event_id: str
    """The same whenever the same event is pushed again."""
    body: bytes = attrs.field(repr=False)
    attempt: int = 1


class DeliveryFailed(Exception):
    """The receiver has not taken a parcel; `reason` holds no payload and no secret."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Receiver(Protocol):
    """The other side of the webhook."""

    @property
    def form(self) -> str:
        """`http` or `grpc`."""
        ...

    @property
    def address(self) -> str:
        """Where it is, without credentials."""
        ...

    async def deliver(self, parcel: Parcel) -> None:
        """Hand a parcel over; it is taken when this returns.

        Raises:
            DeliveryFailed: It is not known to be taken.
        """
        ...


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """Return `sha256=` and the HMAC-SHA256, in hexadecimal, of the timestamp, a dot and the body."""
    return "sha256=" + hmac.digest(secret.encode(), timestamp.encode() + b"." + body, "sha256").hex()


def headers_of(parcel: Parcel, secret: str, clock_s: Callable[[], float]) -> dict[str, str]:
    """Return what tells repeats apart, and the signature if there is a secret."""
    headers = {EVENT_ID: parcel.event_id, ATTEMPT: str(parcel.attempt)}
    if secret:
        timestamp = str(int(clock_s()))
        headers |= {TIMESTAMP: timestamp, SIGNATURE: signature(secret, timestamp, parcel.body)}
    return headers
