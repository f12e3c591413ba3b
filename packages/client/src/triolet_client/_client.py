"""The client as its users see it."""

import ssl
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import anyio
import httpx
from anyio.lowlevel import checkpoint

from triolet_client._api import Api, open_api
from triolet_client._errors import ClientClosed, ClientError, NoApi
from triolet_client._feed import Feed
from triolet_client._link import Draft, Link
from triolet_client._model import Channel, Conversation, Login, Message, Receipt, Settings, Statistics
from triolet_client._positions import Positions
from triolet_client._streams import CANCEL_TIMEOUT_S, MAIN, EventReader, StreamReader, StreamWriter
from triolet_client._transport import Connector, connector
from triolet_client._watch import WatchReader
from triolet_protocol import NO_PERSIST, RED_DOT, SETTING_TOPIC, SYNC_ONCE

FLUSH_TIMEOUT_S = 1.0


class Messages:
    """The messages of a client, for one task at a time. Ends when the client is closed; raises if it was put out."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    def __aiter__(self) -> "Messages":
        return self

    async def __anext__(self) -> Message:
        try:
            return await self._client.receive()
        except ClientClosed:
            raise StopAsyncIteration from None


class Client:
    """One user's device. Made by `open_client`; every method may be called from any task of its loop."""

    def __init__(self, login: Login, api: Api | None, settings: Settings, link: Link, feed: Feed) -> None:
        self.login = login
        self._api = api
        self._settings = settings
        self._link = link
        self._feed = feed
        self._reading = anyio.ResourceGuard("reading messages")

    # --- state

    @property
    def is_connected(self) -> bool:
        """Whether there is a session now."""
        return self._link.session is not None

    @property
    def failure(self) -> ClientError | None:
        """Why the client has ended for good, None while it lives."""
        return self._link.failure

    @property
    def statistics(self) -> Statistics:
        """What happened since the client was opened."""
        return self._feed.statistics

    @property
    def positions(self) -> dict[Channel, int]:
        """How far each channel was handed on: save it, and give it to the next `open_client`."""
        return self._feed.positions.known()

    @property
    def api(self) -> Api:
        """The HTTP API.

        Raises:
            NoApi: The client was opened without its address.
        """
        if self._api is None:
            raise NoApi
        return self._api

    async def wait_changed(self) -> None:
        """Wait until the client has connected, lost the connection, or ended."""
        await self._link.wait_changed()

    async def wait_connected(self) -> None:
        """Wait for a session; there may be one already.

        Raises:
            ClientError: The client has ended.
        """
        await checkpoint()
        while not self.is_connected:
            if self.failure is not None:
                raise self.failure
            await self._link.wait_changed()

    # --- messages

    async def receive(self) -> Message:
        """Return the next message; waits for one. One task at a time.

        Raises:
            ApiError: The API refuses to tell what was missed; the next call asks again.
            Kicked, Refused: The server has put this client out.
            ClientClosed: The client was closed.
        """
        with self._reading:
            return await self._feed.next()

    def messages(self) -> Messages:
        """Return an iterator over `receive`."""
        return Messages(self)

    async def send(
        self,
        channel: Channel | str,
        payload: bytes | str,
        *,
        client_msg_no: str = "",
        red_dot: bool = True,
        no_persist: bool = False,
        sync_once: bool = False,
        expire: int = 0,
        topic: str = "",
        setting: int = 0,
    ) -> Receipt:
        """Send a message and wait for its acknowledgement, over reconnects.

        A refusal is a receipt whose `is_accepted` is false. A message that was not acknowledged when the connection
        broke is sent again with the same number, which the server knows for a while (`message.dedupe`).

        Args:
            channel: Where to; a text is another user's uid.
            payload: What; a text is sent as UTF-8.
            client_msg_no: A unique number; empty makes one.
            red_dot: Whether it counts as unread.
            no_persist: Whether it goes only to those who are online and is not stored.
            sync_once: Whether its readers take it for a command; only those that the API sends are kept per user.
            expire: Seconds after which it is nothing any more; 0: never.
            topic: A word to search by.
            setting: More bits of the protocol (wire-protocol.md, section 5.4).

        Raises:
            NotAcknowledged: No answer within `Settings.send_timeout_s`.
            ValueError: It is too long for the protocol.
            ClientError: The client has ended.
        """
        draft = Draft(
            client_msg_no=client_msg_no or uuid.uuid4().hex,
            channel=_channel(channel),
            payload=_bytes(payload),
            flags=RED_DOT * red_dot | NO_PERSIST * no_persist | SYNC_ONCE * sync_once,
            setting=setting | (SETTING_TOPIC if topic else 0),
            expire=expire,
            topic=topic,
        )
        return await self._link.send(draft)

    # --- conversations

    async def conversations(self) -> list[Conversation]:
        """List the user's conversations, the newest message first."""
        return await self.api.conversations()

    async def history(self, channel: Channel, *, before: int = 0, limit: int = 50) -> tuple[Message, ...]:
        """Return stored messages of a channel, rising: the newest, or those before a number. Nothing is marked."""
        return () if before == 1 else (await self.api.older(channel, max(before - 1, 0), limit)).messages

    # --- presence, events and streams

    def watch(self, uids: Iterable[str]) -> WatchReader:
        """Return a reader of whether users are online; use it as a context manager and iterate over it.

        It goes on over reconnects, and yields a user only if his state is another than the last one it yielded.
        Iterating raises `WatchRefused` if the server does not tell (`presence.watch`); a server that knows nothing of
        watching says nothing.

        Raises:
            ValueError: One of them is no uid.
        """
        return WatchReader(self._link.watches, uids)

    def events(self) -> EventReader:
        """Return a reader of the events from now on; use it as a context manager and iterate over it."""
        return EventReader(self._link.readers, self._settings.events)

    def open_stream(
        self, channel: Channel | str, payload: bytes | str = '{"type":1,"content":""}'
    ) -> AbstractAsyncContextManager[StreamWriter]:
        """Begin a streamed message; leaving the block ends it, with an error as cancelled.

        Needs the API. Entering and leaving wait for it.
        """
        return _open_stream(self.api, _channel(channel), _bytes(payload))

    @asynccontextmanager
    async def follow(
        self, channel: Channel | str, client_msg_no: str, *, key: str = MAIN
    ) -> AsyncIterator[StreamReader]:
        """Follow a streamed message, from whatever it has now to its end."""
        with self.events() as events:
            yield StreamReader(self._api, events, _channel(channel), client_msg_no, key)


def _channel(channel: Channel | str) -> Channel:
    return Channel.person(channel) if isinstance(channel, str) else channel


def _bytes(payload: bytes | str) -> bytes:
    return payload.encode() if isinstance(payload, str) else payload


@asynccontextmanager
async def _open_stream(api: Api, channel: Channel, payload: bytes) -> AsyncIterator[StreamWriter]:
    receipt = await api.send(channel, payload, is_stream=True)
    writer = StreamWriter(api, channel, receipt.client_msg_no)
    try:
        yield writer
    except BaseException:
        with anyio.move_on_after(CANCEL_TIMEOUT_S, shield=True), suppress(ClientError):
            await writer.cancel()
        raise
    await writer.finish()


@asynccontextmanager
async def open_client(
    login: Login,
    server: str | Connector = "127.0.0.1:5100",
    *,
    api: str | httpx.AsyncClient | None = None,
    api_token: str = "",
    settings: Settings | None = None,
    positions: Mapping[Channel, int] | None = None,
    tls: ssl.SSLContext | None = None,
    clock_s: Callable[[], float] = time.time,
) -> AsyncIterator[Client]:
    """Connect and keep connected around a block. Leaving it waits a second at most.

    Args:
        login: Who connects.
        server: `host:port`, `tcp://`, `tls://`, `ws://`, `wss://`, or what opens a transport.
        api: Address of the HTTP API, or a ready httpx client with a base address; None: nothing that was missed while
            the connection was down is found again.
        api_token: The manager's token, if the API asks for it.
        settings: Limits and times.
        positions: `Client.positions` of an earlier run: what came since then is handed on first, and channels that
            are not among them from their first message. None: from now on.
        tls: What to trust, for `tls://` and `wss://`; None: the system's certificates.
        clock_s: The time of day.

    Raises:
        Refused: The server does not let this user in.
        ConnectionFailed: It cannot be reached. After the first login the client comes back by itself.
        ApiError, ApiUnavailable: The API cannot say where to begin.
    """
    settings = settings or Settings()
    connect = connector(server, tls) if isinstance(server, str) else server
    places, statistics = Positions(settings.channels, positions), Statistics()
    error: BaseException | None = None
    async with open_api(api, login.uid, api_token, settings.api_timeout_s) as opened:
        feed = Feed(login.uid, opened, places, settings, statistics, clock_s)
        link = Link(login, connect, feed, places, settings, statistics, clock_s)
        await feed.begin(is_resumed=positions is not None)
        try:
            async with anyio.create_task_group() as tasks:
                await tasks.start(link.run)
                if link.failure is not None:
                    raise link.failure
                yield Client(login, opened, settings, link, feed)
                await _close(link)
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            error = _leaf_of(group)  # raised outside of the group, so that it keeps its own cause
        finally:
            link.end(ClientClosed("the client was closed"))
    if error is not None:
        raise error


async def _close(link: Link) -> None:
    """Let the acknowledgements that wait go out."""
    if link.session is not None:
        with anyio.move_on_after(FLUSH_TIMEOUT_S):
            await link.session.wait_written()


def _leaf_of(group: BaseException) -> BaseException:
    """Return the one exception inside groups of one, else what was given."""
    while isinstance(group, BaseExceptionGroup) and len(group.exceptions) == 1:
        group = group.exceptions[0]
    return group
