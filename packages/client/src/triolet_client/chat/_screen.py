"""The screen, by prompt_toolkit: rooms at the left, the open one beside them, a line to type in below."""

from collections.abc import Callable
from typing import Any

from prompt_toolkit.application import Application, get_app
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.data_structures import Point
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import (
    BufferControl,
    ConditionalContainer,
    Dimension,
    FormattedTextControl,
    HSplit,
    Layout,
    VSplit,
    Window,
)
from prompt_toolkit.layout.processors import BeforeInput
from prompt_toolkit.output import Output
from prompt_toolkit.styles import Style

from triolet_client.chat._rooms import Rooms, last_row, sidebar, talk

SIDEBAR = 22
PAGE = 10
WIDE_COLUMNS = 50
"""A narrower terminal has no list of rooms: what is said would stand in a column of a few letters."""
_KEYS = " Enter send   Tab next room   PgUp PgDn scroll   /help   Ctrl-Q leave"
_STYLE = Style.from_dict(
    {
        "bar": "reverse",
        "bar.bad": "reverse fg:ansired",
        "room.current": "bold underline",
        "room.unread": "bold",
        "count": "fg:ansiyellow bold",
        "day": "fg:ansibrightblack",
        "time": "fg:ansibrightblack",
        "own": "fg:ansigreen bold",
        "other": "fg:ansicyan bold",
        "mark": "fg:ansibrightblack",
        "failed": "fg:ansired bold",
        "hint": "fg:ansibrightblack italic",
        "line": "fg:ansibrightblack",
    }
)


class Screen:
    """Shows rooms, and tells what the user does. `on_text` gets each line, `on_step` each change of the room."""

    def __init__(
        self,
        rooms: Rooms,
        status: Callable[[], tuple[str, bool]],
        on_text: Callable[[str], None],
        on_step: Callable[[], None],
        *,
        source: Input | None = None,
        output: Output | None = None,
    ) -> None:
        self._rooms = rooms
        self._status = status
        self._on_text = on_text
        self._on_step = on_step
        self._buffer = Buffer(multiline=False, accept_handler=self._accept)
        self.notice = ""
        """Something for the user to read, until he types."""
        self.app: Application[None] = Application(
            layout=Layout(self._layout(), focused_element=self._buffer),
            key_bindings=self._keys(),
            style=_STYLE,
            full_screen=True,
            input=source,
            output=output,
        )

    def refresh(self) -> None:
        """Draw anew, soon."""
        self.app.invalidate()

    def leave(self) -> None:
        """End the application."""
        if self.app.is_running and not self.app.is_done:
            self.app.exit()

    async def run(self) -> None:
        """Show the screen until the user leaves."""
        await self.app.run_async(handle_sigint=False)

    def _accept(self, buffer: Buffer) -> bool:
        text = buffer.text.strip()
        self.notice = ""
        if text:
            self._on_text(text)
        return False  # the line is emptied

    # --- layout

    def _layout(self) -> HSplit:
        rooms = Window(
            FormattedTextControl(lambda: FormattedText(sidebar(self._rooms, SIDEBAR))), width=SIDEBAR, wrap_lines=False
        )
        beside = VSplit([rooms, Window(width=1, char="│", style="class:line")])
        lines = Window(
            FormattedTextControl(
                lambda: FormattedText(talk(self._rooms)), get_cursor_position=self._cursor, show_cursor=False
            ),
            wrap_lines=True,
        )
        entry = Window(
            BufferControl(self._buffer, input_processors=[BeforeInput(self._prompt)]),
            height=Dimension(min=1, max=5),
            dont_extend_height=True,
            wrap_lines=True,
        )
        return HSplit(
            [
                Window(FormattedTextControl(self._bar), height=1, style="class:bar"),
                VSplit([ConditionalContainer(beside, filter=Condition(_is_wide)), lines]),
                Window(height=1, char="─", style="class:line"),
                entry,
                Window(FormattedTextControl(self._hint), height=1),
            ]
        )

    def _bar(self) -> FormattedText:
        state, is_good = self._status()
        room = self._rooms.current
        name = f"  {room.name}" if room is not None else ""
        style = "" if is_good else "class:bar.bad"
        return FormattedText([("", f" {self._rooms.uid}{name}  "), (style, f" {state} ")])

    def _hint(self) -> FormattedText:
        return FormattedText([("class:failed", f" {self.notice}") if self.notice else ("class:hint", _KEYS)])

    def _prompt(self) -> str:
        return f"{self._rooms.current.name}> " if self._rooms.current is not None else "> "

    def _cursor(self) -> Point:
        return Point(0, last_row(self._rooms))

    # --- keys

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        def bind(*names: str, do: Callable[[], Any]) -> None:
            def handler(event: KeyPressEvent) -> None:
                do()

            for name in names:
                keys.add(name)(handler)

        bind("c-q", "c-c", do=self.leave)
        bind("tab", "c-down", do=lambda: self._step(1))
        bind("s-tab", "c-up", do=lambda: self._step(-1))
        bind("pageup", do=lambda: self._rooms.move(PAGE))
        bind("pagedown", do=lambda: self._rooms.move(-PAGE))
        return keys

    def _step(self, by: int) -> None:
        if self._rooms.step(by) is not None:
            self._on_step()


def _is_wide() -> bool:
    """Whether there is room for the list of rooms beside what is said."""
    return get_app().output.get_size().columns >= WIDE_COLUMNS
