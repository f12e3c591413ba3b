"""`triolet chat` at a terminal of the test's, against a server."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import pytest
import trio
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from triolet_client import Channel, Client, Login, open_client, text_of
from triolet_client.chat import ChatOptions, main
from triolet_client.chat._talk import chat
from triolet_core import Server, channel_key, load_config, open_server

KEYS = {"tab": "\t", "page up": "\x1b[5~", "leave": "\x11"}


ROWS, COLUMNS = 24, 100


class Terminal(DummyOutput):
    """A terminal that remembers what stands on it."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self._rows = [[" "] * COLUMNS for _ in range(ROWS)]
        self._y = self._x = 0
        self._loop = trio.lowlevel.current_trio_token()
        self._changed = trio.Event()

    @property
    def text(self) -> str:
        return "\n".join("".join(row).rstrip() for row in self._rows)

    def write(self, data: str) -> None:
        for each in data:
            if each == "\r":
                self._x = 0
            elif each == "\n":
                self._y = min(self._y + 1, ROWS - 1)
            else:
                self._rows[self._y][min(self._x, COLUMNS - 1)] = each
                self._x += 1

    write_raw = write

    def cursor_goto(self, row: int = 0, column: int = 0) -> None:
        self._y, self._x = max(row - 1, 0), max(column - 1, 0)

    def cursor_up(self, amount: int) -> None:
        self._y = max(self._y - amount, 0)

    def cursor_down(self, amount: int) -> None:
        self._y = min(self._y + amount, ROWS - 1)

    def cursor_forward(self, amount: int) -> None:
        self._x = min(self._x + amount, COLUMNS - 1)

    def cursor_backward(self, amount: int) -> None:
        self._x = max(min(self._x, COLUMNS) - amount, 0)

    def erase_end_of_line(self) -> None:
        self._rows[self._y][self._x :] = [" "] * (COLUMNS - self._x)

    def erase_down(self) -> None:
        self.erase_end_of_line()
        for row in self._rows[self._y + 1 :]:
            row[:] = [" "] * COLUMNS

    def flush(self) -> None:
        self._loop.run_sync_soon(self._wake)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def get_size(self) -> Size:
        return Size(rows=ROWS, columns=self.columns)

    async def wait_for(self, text: str) -> None:
        """Wait until a text stands on the screen."""
        with trio.move_on_after(10):
            while text not in self.text:
                await self._changed.wait()
        assert text in self.text, self.text


class Session:
    """Someone at the terminal, and somebody to talk to."""

    def __init__(self, keyboard: PipeInput, terminal: Terminal, bob: Client, server: Server) -> None:
        self.keyboard = keyboard
        self.terminal = terminal
        self.bob = bob
        self.server = server

    def type(self, text: str) -> None:
        self.keyboard.send_text(f"{text}\r")

    def press(self, key: str) -> None:
        self.keyboard.send_text(KEYS[key])


@asynccontextmanager
async def running(path: Path) -> AsyncIterator[Server]:
    ports = ["addr=tcp://127.0.0.1:0", "wsAddr=", "httpAddr=127.0.0.1:0", f"rootDir={path}"]
    async with open_server(load_config(overrides=ports, environ={})) as server:
        yield server


@asynccontextmanager
async def chatting(path: Path, *, columns: int = COLUMNS) -> AsyncIterator[Session]:
    async with running(path) as server:
        tcp, api = server.broker.endpoints["tcp"], f"http://{server.broker.endpoints['http']}"
        options = ChatOptions(login=Login(uid="ann"), server=tcp, api=api, api_token="", room=Channel.person("bob"))
        terminal = Terminal(columns)
        with create_pipe_input() as keyboard:
            async with open_client(Login(uid="bob"), tcp, api=api) as bob, trio.open_nursery() as nursery:
                job = partial(chat, options, source=keyboard, output=terminal)
                nursery.start_soon(trio.to_thread.run_sync, partial(anyio.run, job, backend="asyncio"))
                await terminal.wait_for("connected")
                session = Session(keyboard, terminal, bob, server)
                try:
                    yield session
                finally:
                    session.press("leave")


async def test_what_is_typed_is_sent_and_what_comes_is_shown(tmp_path: Path) -> None:
    async with chatting(tmp_path) as ann:
        ann.type("hello bob")
        message = await ann.bob.receive()
        assert (message.from_uid, text_of(message.payload)) == ("ann", "hello bob")
        await ann.terminal.wait_for("✓")
        await ann.bob.send("ann", '{"type":1,"content":"good morning"}')
        await ann.terminal.wait_for("good morning")


async def test_other_rooms_are_counted_and_opened(tmp_path: Path) -> None:
    async with chatting(tmp_path) as ann:
        ann.type("/to cay")
        await ann.terminal.wait_for("cay>")
        await ann.bob.send("ann", "are you there?")
        await ann.terminal.wait_for(" bob                 1│")
        ann.press("tab")
        await ann.terminal.wait_for("are you there?")
        with trio.fail_after(10):  # it was read: the server knows a moment later
            while ann.server.broker.conversations.unread("ann", channel_key("ann", "bob", 1)):
                await trio.lowlevel.checkpoint()


async def test_history_is_read_back(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        tcp, api = server.broker.endpoints["tcp"], f"http://{server.broker.endpoints['http']}"
        async with open_client(Login(uid="bob"), tcp, api=api) as bob:
            for number in range(60):
                await bob.send("ann", f"<{number}>")
    async with chatting(tmp_path) as ann:
        await ann.terminal.wait_for("<59>")
        ann.type("/older")
        ann.type("/older")
        await ann.terminal.wait_for("nothing earlier")
        for _ in range(6):
            ann.press("page up")
        await ann.terminal.wait_for("<0>")


async def test_a_stream_grows_in_its_line(tmp_path: Path) -> None:
    async with chatting(tmp_path) as ann, ann.bob.open_stream("ann") as writer:
        await writer.write("Good ")
        await ann.terminal.wait_for("Good ")
        await writer.write("morning")
        await ann.terminal.wait_for("morning")


@pytest.mark.parametrize(("columns", "has_list"), [(50, True), (49, False)])
async def test_a_narrow_terminal_has_no_list_of_rooms(tmp_path: Path, columns: int, *, has_list: bool) -> None:
    async with chatting(tmp_path, columns=columns) as ann:
        await ann.bob.send("ann", "hello")
        await ann.terminal.wait_for("hello")
        assert ("│" in ann.terminal.text) == has_list


async def test_help_is_shown(tmp_path: Path) -> None:
    async with chatting(tmp_path) as ann:
        ann.type("/what")
        await ann.terminal.wait_for("write to a user")


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["ann", "--server", "127.0.0.1:1", "--api", ""], 1, "cannot connect to 127.0.0.1:1"),
        (["ann", "--server", "http://nowhere", "--api", ""], 2, "is no address"),
    ],
)
def test_what_is_wrong_is_said(words: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == code
    assert text in capsys.readouterr().err


def test_without_its_library_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [each for each in sys.modules if each.startswith(("prompt_toolkit", "triolet_client.chat._"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "prompt_toolkit", None)
    assert main(["ann"]) == 2
    assert "pip install 'triolet-client[chat]'" in capsys.readouterr().err
