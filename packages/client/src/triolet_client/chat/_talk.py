"""The client and the screen together."""

import uuid

import anyio
import attrs
from prompt_toolkit.input import Input
from prompt_toolkit.output import Output

from triolet_client._client import Client, open_client
from triolet_client._errors import ClientError
from triolet_client._model import SYSTEM_UID, Message
from triolet_client.chat import ChatOptions
from triolet_client.chat._rooms import FAILED, Line, Room, Rooms, answered, channel_of, printable
from triolet_client.chat._screen import Screen

_HISTORY = 50
_WAITING = 100
"""Lines that may wait to be sent; the user is told to wait beyond."""
_HELP = "/to NAME  write to a user, /to #NAME to a group;  /older  earlier messages;  /quit  leave"


@attrs.frozen
class _Outgoing:
    room: Room
    line: Line
    text: str


@attrs.frozen
class _Load:
    """A room whose messages are to be read; `is_asked`: the user wants earlier ones."""

    room: Room
    is_asked: bool = False


@attrs.frozen
class _Stream:
    """A streamed message and its line."""

    message: Message
    line: Line


class Chat:
    """One user at one terminal."""

    def __init__(self, client: Client, options: ChatOptions, source: Input | None, output: Output | None) -> None:
        self._client = client
        self._options = options
        self._rooms = Rooms(client.login.uid)
        self._screen = Screen(self._rooms, self._status, self._on_text, self._on_step, source=source, output=output)
        self._to_send, self._outgoing = anyio.create_memory_object_stream[_Outgoing](_WAITING)
        self._to_follow, self._following = anyio.create_memory_object_stream[_Stream](_WAITING)
        self._to_load, self._loading = anyio.create_memory_object_stream[_Load](_WAITING)

    async def run(self) -> None:
        """Show the screen until the user leaves."""
        with self._to_send, self._to_load, self._to_follow, self._outgoing, self._loading, self._following:
            async with anyio.create_task_group() as tasks:
                for job in (self._receive, self._watch, self._send, self._load, self._follow_all):
                    tasks.start_soon(job)
                await self._begin()
                await self._screen.run()
                tasks.cancel_scope.cancel()

    async def _begin(self) -> None:
        """Show the conversations, and open one."""
        if self._options.api is not None:
            for each in await self._client.conversations():
                self._rooms.get(each.channel).unread = each.unread
        wanted = self._options.room
        if wanted is None and self._rooms.all:
            wanted = self._rooms.all[0].channel
        if wanted is not None:
            self._rooms.open(wanted)
            self._on_step()

    def _status(self) -> tuple[str, bool]:
        if self._client.failure is not None:
            return str(self._client.failure), False
        return ("connected", True) if self._client.is_connected else ("connecting…", False)

    # --- what the user does; nothing waits

    def _on_text(self, text: str) -> None:
        word, _, rest = text.partition(" ")
        match word:
            case "/quit" | "/q":
                self._screen.leave()
            case "/to" if rest.strip(" #"):
                self._rooms.open(channel_of(rest.strip()))
                self._on_step()
            case "/older":
                self._load_soon(is_asked=True)
            case _ if word.startswith("/"):
                self._screen.notice = _HELP
            case _:
                self._write(text)

    def _on_step(self) -> None:
        """Read the history of the room that was opened, and mark it as read."""
        self._load_soon(is_asked=False)

    def _load_soon(self, *, is_asked: bool) -> None:
        room = self._rooms.current
        if room is None or self._options.api is None:
            return
        try:
            self._to_load.send_nowait(_Load(room, is_asked))
        except anyio.WouldBlock:
            self._screen.notice = "too much at once; try again"

    def _write(self, text: str) -> None:
        room = self._rooms.current
        if room is None:
            self._screen.notice = _HELP
            return
        line = self._rooms.sending(room, text, uuid.uuid4().hex)
        try:
            self._to_send.send_nowait(_Outgoing(room, line, text))
        except anyio.WouldBlock:
            line.mark = f"{FAILED} too much at once"

    # --- tasks

    async def _send(self) -> None:
        async for each in self._outgoing:
            try:
                receipt = await self._client.send(each.room.channel, each.text, client_msg_no=each.line.key)
            except (ClientError, ValueError) as exc:
                each.line.mark = f"{FAILED} {printable(str(exc))}"
            else:
                answered(each.line, receipt)
            self._screen.refresh()

    async def _load(self) -> None:
        async for each in self._loading:
            room = each.room
            try:
                if each.is_asked or not room.is_loaded:
                    await self._load_room(room, is_asked=each.is_asked)
                if room.channel.id != SYSTEM_UID:
                    await self._client.api.mark_read(room.channel)
            except ClientError as exc:
                self._screen.notice = printable(str(exc))
            self._screen.refresh()

    async def _load_room(self, room: Room, *, is_asked: bool) -> None:
        messages = await self._client.history(room.channel, before=room.first_seq, limit=_HISTORY)
        for message, line in zip(messages, self._rooms.loaded(room, messages), strict=True):
            self._follow_soon(message, line)
        if is_asked and not messages:
            self._screen.notice = "there is nothing earlier"

    async def _receive(self) -> None:
        try:
            while True:
                message = await self._client.receive()
                self._follow_soon(message, self._rooms.arrived(message))
                if self._rooms.current is not None and message.channel == self._rooms.current.channel:
                    self._on_step()
                self._screen.refresh()
        except ClientError:
            self._screen.refresh()  # the bar says why

    def _follow_soon(self, message: Message, line: Line) -> None:
        if not message.is_stream or line.is_followed:
            return
        try:
            self._to_follow.send_nowait(_Stream(message, line))
            line.is_followed = True
        except anyio.WouldBlock:
            line.mark = f"{FAILED} too many streams at once"

    async def _follow_all(self) -> None:
        async with anyio.create_task_group() as streams:
            async for each in self._following:
                streams.start_soon(self._follow, each.message, each.line)

    async def _follow(self, message: Message, line: Line) -> None:
        """Show the text of a streamed message as it grows."""
        async with self._client.follow(message.channel, message.client_msg_no) as reader:
            try:
                async for state in reader:
                    line.text = printable(state.text)
                    line.mark = "…" if state.is_open else ""
                    self._screen.refresh()
            except ClientError as exc:
                line.mark = f"{FAILED} {printable(str(exc))}"

    async def _watch(self) -> None:
        while self._client.failure is None:
            await self._client.wait_changed()
            self._screen.refresh()


async def chat(options: ChatOptions, *, source: Input | None = None, output: Output | None = None) -> None:
    """Connect and show the screen until the user leaves.

    Args:
        options: Who, and where to.
        source: Where keys come from; None is the terminal.
        output: Where the screen is; None is the terminal.

    Raises:
        ClientError: The server, or its API, cannot be reached.
        ValueError: The address is none.
    """
    async with open_client(options.login, options.server, api=options.api, api_token=options.api_token) as client:
        await Chat(client, options, source, output).run()
