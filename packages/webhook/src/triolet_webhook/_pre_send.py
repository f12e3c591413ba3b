"""The question before a message is stored: may it, and as what? Source: seed 004, message callback."""

import base64
import binascii
import json
import uuid

import attrs
from structlog.typing import FilteringBoundLogger

from triolet_core import ReasonCode
from triolet_core.hooks import SendRequest, Verdict
from triolet_webhook._events import BEFORE_SEND, body_of, question_of
from triolet_webhook._http import HttpReceiver
from triolet_webhook._receiver import DeliveryFailed, Parcel

ORDER = 100
"""Asked after the other plugins: what they refuse need not be asked, and an answer of ours is the last word."""
HIGHEST_REASON = 255


@attrs.define(eq=False)
class PreSend:
    """Asks one URL. Failures are core's to answer: by `webhook.preSend.failOpen`."""

    receiver: HttpReceiver
    max_payload_bytes: int
    fail_open: bool
    log: FilteringBoundLogger
    asked_total: int = 0
    refused_total: int = 0
    replaced_total: int = 0
    failed_total: int = 0

    async def answer(self, request: SendRequest) -> Verdict | None:
        """Ask about one message; None lets it pass as it is.

        Raises:
            DeliveryFailed: There is no answer, or none that can be understood.
        """
        self.asked_total += 1
        parcel = Parcel(event=BEFORE_SEND, event_id=uuid.uuid4().hex, body=body_of(question_of(request)))
        verdict = parse_answer(await self.receiver.ask(parcel), self.max_payload_bytes)
        if verdict is not None:
            self.refused_total += verdict.reason != ReasonCode.SUCCESS
            self.replaced_total += verdict.payload is not None
        return verdict

    def on_failure(self, request: SendRequest) -> Verdict:
        """What no answer counts as."""
        del request
        self.failed_total += 1
        return Verdict(reason=ReasonCode.SUCCESS if self.fail_open else ReasonCode.SYSTEM_ERROR)

    def figures(self) -> dict[str, int | float]:
        """Return the counters."""
        return {
            "asked_total": self.asked_total,
            "refused_total": self.refused_total,
            "replaced_total": self.replaced_total,
            "failed_total": self.failed_total,
        }


def parse_answer(answer: bytes, max_payload_bytes: int) -> Verdict | None:
    """Return what `{"allow": bool, "reason": number?, "payload": base64?}` says, None for a plain yes.

    Raises:
        DeliveryFailed: It says nothing that can be done.
    """
    try:
        said = json.loads(answer)
    except ValueError as exc:
        raise DeliveryFailed("the answer is not JSON") from exc
    if not isinstance(said, dict) or not isinstance(said.get("allow"), bool):
        raise DeliveryFailed("the answer has no `allow` that is true or false")
    if not said["allow"]:
        return Verdict(reason=_reason(said.get("reason")))
    if said.get("payload") is None:
        return None
    return Verdict(reason=ReasonCode.SUCCESS, payload=_payload(said["payload"], max_payload_bytes))


def _reason(value: object) -> int:
    if value is None:
        return ReasonCode.NOT_ALLOW_SEND
    if isinstance(value, bool) or not isinstance(value, int):
        raise DeliveryFailed("the answer's `reason` is not a number")
    if value == ReasonCode.SUCCESS or not 0 <= value <= HIGHEST_REASON:
        raise DeliveryFailed("the answer's `reason` is not one of a refusal (0, 2 to 255)")
    return value


def _payload(value: object, max_bytes: int) -> bytes:
    if not isinstance(value, str):
        raise DeliveryFailed("the answer's `payload` is not base64 text")
    try:
        payload = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise DeliveryFailed("the answer's `payload` is not base64") from exc
    if not 0 < len(payload) <= max_bytes:
        raise DeliveryFailed(f"the answer's `payload` has {len(payload)} bytes (message.maxPayloadBytes: {max_bytes})")
    return payload
