"""Messages of the commit log as parcels: `msg.notify` and `msg.offline`."""

from collections.abc import Collection, Hashable, Sequence
from typing import Any, Protocol

import attrs
import trio

from triolet_core import SYSTEM_UID, BackendError, Broker, ChannelKey, ChannelType, Message
from triolet_core.model import ends_of, plain_channel
from triolet_webhook._courier import Make
from triolet_webhook._events import NOTIFY, OFFLINE, body_of, message_object, offline_object
from triolet_webhook._receiver import DeliveryFailed, Parcel

SLICE = 1_000
"""Recipients between two checkpoints."""
PACKED_IN_THREAD = 2_000
"""From this number on the list of recipients is encoded in a thread: gzip takes about 1 ms per 1,000 uids."""
_UNKNOWN = ("",)
"""Stands for recipients that could not be asked for; nobody has this uid."""


@attrs.frozen(kw_only=True)
class Consignment:
    """Messages that are pushed together. Those of one lane go one after the other."""

    messages: Sequence[Message]
    event_id: str
    """What the parcel is called however often it is made."""
    lane: Hashable
    make: Make


def event_id_of(messages: Sequence[Message]) -> str:
    """Return the ids of the first and the last message; message ids are unique in a cluster."""
    return f"{messages[0].message_id}-{messages[-1].message_id}"


class Packer(Protocol):
    """Turns a batch of the log into what is pushed."""

    @property
    def event(self) -> str:
        """Name of the event."""
        ...

    async def consignments(self, batch: Sequence[Message]) -> list[Consignment]:
        """Return what is to be pushed for a batch, in order."""
        ...


@attrs.frozen
class NotifyPacker:
    """Every message, as arrays."""

    event: str = NOTIFY

    async def consignments(self, batch: Sequence[Message]) -> list[Consignment]:
        """Return the batch as one push. Not a checkpoint."""
        parcel = Parcel(
            event=NOTIFY,
            event_id=event_id_of(batch),
            body=body_of([message_object(message) for message in batch]),
        )

        async def make() -> Parcel:
            return parcel

        return [Consignment(messages=batch, event_id=parcel.event_id, lane=None, make=make)]


@attrs.frozen(kw_only=True)
class OfflinePacker:
    """Messages with the recipients that no device could be reached of when the push is made."""

    broker: Broker
    as_array: bool
    limiter: trio.CapacityLimiter = attrs.Factory(lambda: trio.CapacityLimiter(2))
    event: str = OFFLINE

    async def consignments(self, batch: Sequence[Message]) -> list[Consignment]:
        """Return one push per message, or one for all in the form `array`, of those that somebody may miss.

        Whether a push is needed is seen again when it is made. Not a checkpoint while members are known.
        """
        missed = await self._missed(batch)
        if self.as_array:
            return [self._consignment(missed, event_id_of(batch), None)] if missed else []
        return [self._consignment([each], event_id_of([each]), each.channel) for each in missed]

    async def _missed(self, batch: Sequence[Message]) -> list[Message]:
        """Return the messages with a recipient who is not reachable or not known; each channel is looked at once."""
        absent: dict[ChannelKey, Collection[str]] = {}
        missed = []
        for message in batch:
            channel = message.channel
            if channel.type == ChannelType.AGENT:
                continue
            found = absent.get(channel)
            if found is None:
                found = absent[channel] = await self._absent_of(channel)
            if found and any(uid != message.sender for uid in found):
                missed.append(message)
        return missed

    async def _absent_of(self, channel: ChannelKey) -> Collection[str]:
        """Return who of a channel is not reachable; if nobody knows who belongs to it, something that is no uid."""
        if channel.type == ChannelType.PERSON:
            is_reachable = self.broker.presence.is_reachable
            return [uid for uid in ends_of(plain_channel(channel)) if uid != SYSTEM_UID and not is_reachable(uid)]
        try:
            return await self._absent(await self.broker.channels.recipients(channel))
        except BackendError:
            return _UNKNOWN  # asked again, and counted as a failure, when the push is made

    async def _absent(self, uids: Collection[str]) -> list[str]:
        is_reachable = self.broker.presence.is_reachable
        found = []
        for count, uid in enumerate(uids, 1):
            if uid != SYSTEM_UID and not is_reachable(uid):
                found.append(uid)
            if not count % SLICE:
                await trio.lowlevel.checkpoint()
        return found

    def _consignment(self, messages: Sequence[Message], event_id: str, lane: Hashable) -> Consignment:
        async def make() -> Parcel | None:
            objects = [each for message in messages if (each := await self._object(message)) is not None]
            if not objects:
                return None
            body = body_of(objects if self.as_array else objects[0])
            return Parcel(event=OFFLINE, event_id=event_id, body=body)

        return Consignment(messages=messages, event_id=event_id, lane=lane, make=make)

    async def _object(self, message: Message) -> dict[str, Any] | None:
        """Return the body of one message, None if everybody is reachable."""
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
        return sorted(uid for uid in await self._absent(uids) if uid != message.sender)
