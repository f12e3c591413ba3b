"""Messages of the commit log as parcels: `msg.notify` and `msg.offline`."""

from collections.abc import Hashable, Sequence
from typing import Any, Protocol

import attrs
import trio

from triolet_core import SYSTEM_UID, BackendError, Broker, ChannelType, Message
from triolet_webhook._courier import Make
from triolet_webhook._events import NOTIFY, OFFLINE, body_of, message_object, offline_object
from triolet_webhook._receiver import DeliveryFailed, Parcel

SLICE = 1_000
"""Recipients between two checkpoints."""
PACKED_IN_THREAD = 2_000
"""From this number on the list of recipients is encoded in a thread: gzip takes about 1 ms per 1,000 uids."""


@attrs.frozen(kw_only=True)
class Consignment:
    """Messages that are pushed together. Those of one lane go one after the other."""

    messages: Sequence[Message]
    lane: Hashable
    make: Make

    @property
    def event_id(self) -> str:
        """What the parcel is called however often it is made."""
        return event_id_of(self.messages)


def event_id_of(messages: Sequence[Message]) -> str:
    """Return the ids of the first and the last message; message ids are unique in a cluster."""
    return f"{messages[0].message_id}-{messages[-1].message_id}"


class Packer(Protocol):
    """Turns a batch of the log into what is pushed."""

    @property
    def event(self) -> str:
        """Name of the event."""
        ...

    def consignments(self, batch: Sequence[Message]) -> list[Consignment]:
        """Return what is to be pushed for a batch, in order."""
        ...


@attrs.frozen
class NotifyPacker:
    """Every message, as arrays."""

    event: str = NOTIFY

    def consignments(self, batch: Sequence[Message]) -> list[Consignment]:
        """Return the batch as one push."""
        parcel = Parcel(
            event=NOTIFY,
            event_id=event_id_of(batch),
            body=body_of([message_object(message) for message in batch]),
        )

        async def make() -> Parcel:
            return parcel

        return [Consignment(messages=batch, lane=None, make=make)]


@attrs.frozen(kw_only=True)
class OfflinePacker:
    """Messages with the recipients that no device could be reached of when the push is made."""

    broker: Broker
    as_array: bool
    limiter: trio.CapacityLimiter = attrs.Factory(lambda: trio.CapacityLimiter(2))
    event: str = OFFLINE

    def consignments(self, batch: Sequence[Message]) -> list[Consignment]:
        """Return one push per message, or one for all in the form `array`; whether it is needed is seen later."""
        if self.as_array:
            return [self._consignment(batch, None)]
        return [self._consignment([message], message.channel) for message in batch]

    def _consignment(self, messages: Sequence[Message], lane: Hashable) -> Consignment:
        async def make() -> Parcel | None:
            objects = [each for message in messages if (each := await self._object(message)) is not None]
            if not objects:
                return None
            body = body_of(objects if self.as_array else objects[0])
            return Parcel(event=OFFLINE, event_id=event_id_of(messages), body=body)

        return Consignment(messages=messages, lane=lane, make=make)

    async def _object(self, message: Message) -> dict[str, Any] | None:
        """Return the body of one message, None if everybody is reachable."""
        if message.channel.type == ChannelType.AGENT:
            return None
        to_uids = await self._unreachable(message)
        if not to_uids:
            return None
        config = self.broker.config

        def make() -> dict[str, Any]:
            above = config.channel.subscriber_compress_of_count
            return offline_object(message, to_uids, node=config.node.id, compress_above=above)

        if len(to_uids) < PACKED_IN_THREAD:
            return make()
        return await trio.to_thread.run_sync(make, limiter=self.limiter)

    async def _unreachable(self, message: Message) -> list[str]:
        """Return the recipients without the sender, the system account and who is online; sorted."""
        broker = self.broker
        try:
            uids = await broker.channels.recipients(message.channel)
        except BackendError as exc:
            raise DeliveryFailed(f"the members of the channel are not known: {exc.responder}") from exc
        found = []
        for count, uid in enumerate(uids, 1):
            if uid not in (message.sender, SYSTEM_UID) and not broker.presence.is_reachable(uid):
                found.append(uid)
            if not count % SLICE:
                await trio.lowlevel.checkpoint()
        return sorted(found)
