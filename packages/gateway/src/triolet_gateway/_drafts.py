"""What clients send, as core takes it."""

from collections.abc import Sequence

from triolet_core import Draft
from triolet_gateway import protocol as wire


def drafts_of(sends: Sequence[wire.SendReceived]) -> tuple[list[Draft], int]:
    """Return a draft per message, and the bytes of all payloads."""
    size = 0
    drafts = []
    for event in sends:
        send = event.send
        size += len(send.payload)
        drafts.append(
            Draft(
                send.channel_id,
                send.channel_type,
                send.payload,
                send.client_msg_no,
                send.flags,
                send.setting,
                send.expire,
                send.topic,
                event.refusal,
            )
        )
    return drafts, size
