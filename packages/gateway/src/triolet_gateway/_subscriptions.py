"""Channels that one connection has joined as a guest. Source: wire-protocol.md, section 3.8."""

import triolet_protocol as wire
from triolet_core import Broker, ReasonCode
from triolet_core.model import MAX_ID_BYTES, ChannelKey, ChannelType
from triolet_core.session import Session
from triolet_gateway._watching import answer_watch, is_watch

_TAKES_GUESTS = frozenset({ChannelType.DATA, ChannelType.INFO})


class Subscriptions:
    """Temporary memberships of one connection; they end with it."""

    __slots__ = ("_broker", "_keys", "_limit", "_session")

    def __init__(self, broker: Broker, session: Session, limit: int) -> None:
        self._broker = broker
        self._session = session
        self._limit = limit
        self._keys: set[ChannelKey] = set()

    async def on_sub(self, sub: wire.Sub, *, has_events: bool) -> wire.SubAck:
        """Join or leave a data or info channel; the id may carry a query, which is cut off.

        Data channels that are called `presence:…` are no channels: see `_watching`. Only those may be a checkpoint.
        """
        if is_watch(sub):
            return await answer_watch(self._broker, self._session, sub, has_events=has_events)
        channel_id = sub.channel_id.partition("?")[0]
        key = ChannelKey(channel_id, sub.channel_type)
        reason = self._refusal(key, is_join=sub.action == 0)
        if reason == ReasonCode.SUCCESS and sub.action == 0:
            self._join(key)
        elif reason == ReasonCode.SUCCESS:
            self._leave(key)
        return wire.SubAck(sub.sub_no, channel_id, sub.channel_type, sub.action, int(reason))

    def _refusal(self, key: ChannelKey, *, is_join: bool) -> ReasonCode:
        if key.type not in _TAKES_GUESTS:
            return ReasonCode.NOT_SUPPORT_CHANNEL_TYPE
        if not key.id or "\0" in key.id or len(key.id.encode()) > MAX_ID_BYTES:
            return ReasonCode.CHANNEL_ID_ERROR
        if is_join and key not in self._keys and len(self._keys) >= self._limit:
            return ReasonCode.RATE_LIMIT
        return ReasonCode.SUCCESS

    def _join(self, key: ChannelKey) -> None:
        if key not in self._keys:
            self._keys.add(key)
            self._broker.channels.add_temp_member(key, self._session.device.uid)

    def _leave(self, key: ChannelKey) -> None:
        if key in self._keys:
            self._keys.remove(key)
            self._broker.channels.remove_temp_member(key, self._session.device.uid)

    def leave_all(self) -> None:
        """End every membership."""
        for key in tuple(self._keys):
            self._leave(key)
