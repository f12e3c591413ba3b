"""Wires the services together and owns their tasks."""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import attrs
import trio

from triolet_core._addresses import Addresses
from triolet_core._bindings import Bindings
from triolet_core._catalog import Catalog
from triolet_core._channels import Channels
from triolet_core._commands import Commands
from triolet_core._commits import CommitLog
from triolet_core._conversations import Conversations
from triolet_core._delivery import Delivery, Lanes
from triolet_core._messages import Messages
from triolet_core._metrics import Metrics
from triolet_core._presence import Presence
from triolet_core._presence_subscriptions import PresenceSubscriptions
from triolet_core._queues import DurableQueues
from triolet_core._retention import Retention
from triolet_core._revisions import Revisions
from triolet_core._search import Search
from triolet_core._send_batch import SendBatch
from triolet_core._streams import Streams
from triolet_core._users import Users
from triolet_core.compat import Compat
from triolet_core.config import ServerConfig
from triolet_core.hooks import Hooks
from triolet_core.model import ChannelKey
from triolet_core.store import Store, Turn, Work, open_store

R = TypeVar("R")


@attrs.frozen(kw_only=True)
class BrokerStatistics:
    """Counters since the start, and the present size of things."""

    connections: int
    online_users: int
    commits_total: int
    committed_messages_total: int
    queued_messages: int
    refused_messages_total: int
    delivered_messages_total: int
    offline_recipients_total: int
    failed_deliveries_total: int
    deleted_messages_total: int
    store_bytes: int
    store_used_bytes: int


@attrs.define(eq=False, kw_only=True)
class Broker:
    """Everything that plugins and embedding programs use."""

    config: ServerConfig
    compat: Compat
    hooks: Hooks
    presence: Presence
    presence_subscriptions: PresenceSubscriptions
    channels: Channels
    users: Users
    messages: Messages
    conversations: Conversations
    commands: Commands
    streams: Streams
    revisions: Revisions
    retention: Retention
    search: Search
    catalog: Catalog
    bindings: Bindings
    addresses: Addresses
    commits: CommitLog
    queues: DurableQueues
    metrics: Metrics
    started_at: float
    clock_s: Callable[[], float] = time.time
    """The time of day, in seconds since 1970."""
    endpoints: dict[str, str] = attrs.Factory(dict)
    """What each listener is bound to, host:port by kind: tcp, ws, http."""
    services: dict[str, Any] = attrs.Factory(dict)
    """What plugins offer to others, by the plugin's name; its methods are in the plugin's documentation."""
    plugin_phases: Callable[[], dict[str, str]] = dict
    """What each plugin is doing, by name; set by the host."""
    _store: Store
    _lanes: Lanes

    async def flush(self) -> None:
        """Wait until everything accepted is committed and handed to sessions and topics."""
        await self._store.writer.flush()
        await self._lanes.flush()

    @property
    def turn(self) -> Turn:
        """For a task that serves many at a time: `with broker.turn:` around what takes sends, without an await in it.

        What they bring is committed together at its end, acknowledged and delivered, if nothing has to wait for that.
        """
        return self._store.writer.turn

    async def settled(self, question: Callable[[], R], key: ChannelKey | None = None) -> R:
        """Call a function that reads messages or conversations, and return what it does.

        Its reads see all that was acknowledged before this call. Outside of this they are as right, but may wait for
        the disk on the loop where something has just been sent. Not a checkpoint if nothing has.

        Args:
            question: Reads at once, without waiting.
            key: The one channel whose messages it reads; None: of any.
        """
        return await self._store.settled(question, key)

    def is_settled(self, key: ChannelKey | None = None) -> bool:
        """Whether `settled` would have nothing to wait for."""
        return not self._store.backlog.holds(key)

    def problem(self) -> str | None:
        """Return why messages cannot be stored now, None if they can."""
        writer = self._store.writer
        if writer.is_closed:
            return "the store is closed"
        return "the store is full" if self.is_full else None

    @property
    def is_full(self) -> bool:
        """Whether the last commit found no space."""
        return self._store.writer.is_full

    def statistics(self) -> BrokerStatistics:
        """Return the counters as they are now."""
        writer, lanes, size = self._store.writer, self._lanes, self.catalog.size()
        return BrokerStatistics(
            connections=self.presence.count,
            online_users=self.presence.user_count,
            commits_total=writer.commits,
            committed_messages_total=writer.committed_weight,
            queued_messages=writer.queued,
            refused_messages_total=self.messages.refused,
            delivered_messages_total=lanes.delivered,
            offline_recipients_total=lanes.offline,
            failed_deliveries_total=lanes.failed,
            deleted_messages_total=self.retention.deleted,
            store_bytes=size.file_bytes,
            store_used_bytes=size.used_bytes,
        )


@asynccontextmanager
async def open_broker(config: ServerConfig, *, clock_s: Callable[[], float] = time.time) -> AsyncIterator[Broker]:
    """Open the store in `config.node.data_path` and start what works on it; on leaving, flush and close."""
    hooks = Hooks()
    compat = config.compat.choices
    presence = Presence(compat, hooks.presence_changed, only_masters_are_online=config.auth.token_auth_on)
    after_commit = _AfterCommit()
    async with open_store(
        config.node.data_path,
        config.store,
        config.message,
        node=config.node.id,
        after_commit=after_commit,
        clock_s=clock_s,
        cache_count=config.channel.cache_count,
    ) as store:
        commits = CommitLog(store)
        channels = Channels(store, hooks, cache_count=config.channel.cache_count, wiped=commits.forget)
        lanes = Lanes(presence, channels, hooks)
        streams = Streams(store, channels, presence, config.stream, clock_s)
        after_commit.connect(lanes, commits, streams)
        messages = Messages(
            store,
            channels,
            lanes,
            hooks,
            compat,
            config.message,
            config.permission,
            clock_s,
            patience_s=config.store.queue_timeout,
        )
        conversations = Conversations(store, compat, config.conversation, clock_s)
        broker = Broker(
            config=config,
            compat=compat,
            hooks=hooks,
            presence=presence,
            presence_subscriptions=PresenceSubscriptions(presence, channels, hooks, config.presence, clock_s),
            channels=channels,
            users=Users(
                store,
                channels,
                presence,
                hooks,
                config.auth,
                kicks_whatever_the_level=compat.kicks_whatever_the_level,
            ),
            messages=messages,
            conversations=conversations,
            commands=Commands(store, messages.is_alive),
            streams=streams,
            revisions=Revisions(store, messages),
            retention=Retention(
                store, config.retention, tmp_suffix=config.channel.tmp_suffix, forget=channels.forget, clock_s=clock_s
            ),
            search=Search(store, messages.is_alive),
            catalog=Catalog(store, conversations),
            bindings=Bindings(store),
            addresses=Addresses(store),
            commits=commits,
            queues=DurableQueues(store),
            metrics=Metrics(),
            started_at=clock_s(),
            clock_s=clock_s,
            store=store,
            lanes=lanes,
        )
        broker.metrics.add_source("broker", lambda: attrs.asdict(broker.statistics()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lanes.run)
            nursery.start_soon(broker.retention.run)
            nursery.start_soon(broker.streams.run)
            nursery.start_soon(broker.presence_subscriptions.run)
            try:
                yield broker
                await broker.flush()
            finally:
                nursery.cancel_scope.cancel()


class _AfterCommit:
    """What follows a commit: the commit log's readers wake, streams are known, messages go to their lanes."""

    def __init__(self) -> None:
        self._lanes: Lanes | None = None
        self._commits: CommitLog | None = None
        self._streams: Streams | None = None

    def connect(self, lanes: Lanes, commits: CommitLog, streams: Streams) -> None:
        self._lanes = lanes
        self._commits = commits
        self._streams = streams

    @property
    def is_ready(self) -> bool:
        return self._lanes is not None and self._lanes.has_room

    async def __call__(self, batch: Sequence[Work]) -> None:
        deliveries = self._announce(batch)
        if deliveries and self._lanes is not None:
            await self._lanes.hand_over(deliveries)

    def at_once(self, batch: Sequence[Work]) -> None:
        deliveries = self._announce(batch)
        if deliveries and self._lanes is not None:
            self._lanes.hand_over_nowait(deliveries)

    def _announce(self, batch: Sequence[Work]) -> list[Delivery]:
        """Tell those who follow the log; returns what is to be delivered."""
        deliveries: list[Delivery] = []
        is_changed = False
        """Whether messages that are stored already were changed, too."""
        for work in batch:
            if isinstance(work, SendBatch):
                deliveries += work.deliveries
                is_changed = is_changed or work.before is not None
                if self._streams is not None:
                    for channel, client_msg_no in work.streams:
                        self._streams.begin(channel, client_msg_no)
        if deliveries and self._commits is not None:
            stored = [message for delivery in deliveries for message in delivery.messages if message.seq]
            if stored:
                self._commits.announce(stored)
            if is_changed:
                self._commits.forget()
        return deliveries
