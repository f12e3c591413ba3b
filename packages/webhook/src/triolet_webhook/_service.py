"""What others may do with the webhook: look at the dead letters, push them again, drop them."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from triolet_core import CommitLog
from triolet_webhook._config import WebhookConfig
from triolet_webhook._dead import DeadLetter, DeadLetters
from triolet_webhook._messages import Packer
from triolet_webhook._receiver import DeliveryFailed, Parcel, Receiver
from triolet_webhook._status import StatusPacker

MOST_LISTED = 1_000


@attrs.frozen(eq=False)
class WebhookService:
    """`broker.services["webhook"]`. Answers are JSON values."""

    receiver: Receiver
    dead_letters: DeadLetters
    commits: CommitLog
    packers: Mapping[str, Packer]
    status_packer: StatusPacker
    config: WebhookConfig

    async def dead(self, limit: int = 100) -> list[dict[str, Any]]:
        """Return the oldest dead letters, at most `limit` (and 1,000)."""
        letters = self.dead_letters.read(0, max(0, min(limit, MOST_LISTED)))
        return [_shown(number, letter) for number, letter in letters]

    async def resend(self, ids: Sequence[int]) -> dict[str, Any]:
        """Push letters again, in this order, each part of them once; what is taken is forgotten.

        Stops at the first failure: `{"resent": [ids], "failed": id, "reason": text}`. Of a letter that stands for many
        messages those that were taken are pushed again next time, with the same event ids. Unknown ids are left out.
        """
        resent: list[int] = []
        for number in ids:
            letter = self.dead_letters.get(number)
            if letter is None:
                continue
            try:
                await self._push(letter)
            except DeliveryFailed as exc:
                return {"resent": resent, "failed": number, "reason": exc.reason}
            await self.dead_letters.remove([number])
            resent.append(number)
        return {"resent": resent}

    async def drop(self, ids: Sequence[int]) -> dict[str, Any]:
        """Forget letters; returns `{"dropped": [ids]}` of those that were there."""
        known = [number for number in ids if self.dead_letters.get(number) is not None]
        await self.dead_letters.remove(known)
        return {"dropped": known}

    async def _push(self, letter: DeadLetter) -> None:
        """Make the parcels of a letter anew and push them; of messages that are deleted by now there is none."""
        packer = self.packers.get(letter.event)
        if packer is None:
            await self._deliver(self.status_packer.parcel(letter.event, letter.rows, letter.event_id))
            return
        count, most_bytes = self.config.msg_notify_event_count_per_push, self.config.max_push_bytes
        position = letter.after
        while position < letter.up_to:
            found = self.commits.read(position, count, max_bytes=most_bytes)
            if not found:
                return
            batch = [message for message in found if message.message_id <= letter.up_to]
            for consignment in await packer.consignments(batch) if batch else ():
                await self._deliver(await consignment.make())
            position = found[-1].message_id

    async def _deliver(self, parcel: Parcel | None) -> None:
        if parcel is not None:
            await self.receiver.deliver(parcel)


def _shown(number: int, letter: DeadLetter) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": number,
        "event": letter.event,
        "event_id": letter.event_id,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "died": letter.died_s,
    }
    if letter.rows:
        return shown | {"users": sorted({row.uid for row in letter.rows})}
    return shown | {"first_message_id": letter.after + 1, "last_message_id": letter.up_to}
