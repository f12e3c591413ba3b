"""What the screen shows, without the screen: rooms, their lines, which one is open. No IO."""

import time
import unicodedata
from collections.abc import Iterable

import attrs

from triolet_client._api import text_of
from triolet_client._model import GROUP, PERSON, Channel, Message, Receipt, reason_name

LINES = 1000
"""Lines kept of a room; the oldest are let go."""
SENDING, SENT, FAILED = "…", "✓", "✗"
Fragments = list[tuple[str, str]]
"""Pieces of text, (style class, text) each."""


@attrs.define(eq=False)
class Line:
    """A message as it is shown."""

    timestamp: int
    who: str
    text: str
    is_own: bool = False
    mark: str = ""
    """What became of an own message."""
    key: str = ""
    """The message's own number: a message that comes twice has one line."""
    is_followed: bool = False
    """Whether a streamed message's text is being filled in."""
    seq: int = 0
    """Its place in the channel, 0 if it has none."""


@attrs.define(eq=False)
class Room:
    """A channel and what is known of it."""

    channel: Channel
    lines: list[Line] = attrs.Factory(list)
    unread: int = 0
    is_loaded: bool = False
    """Whether its history was read."""

    @property
    def name(self) -> str:
        """The name that is shown, and typed: a group with a #."""
        return printable(f"#{self.channel.id}" if self.channel.type != PERSON else self.channel.id)

    @property
    def first_seq(self) -> int:
        """The lowest place in the channel that is shown, 0 if none is."""
        return min((line.seq for line in self.lines if line.seq), default=0)

    def add(self, line: Line) -> Line:
        """Add a line in its place; returns the one that is there if it is already."""
        for known in reversed(self.lines):
            if line.key and known.key == line.key:
                return known
        place = len(self.lines)
        while place and not _is_before(self.lines[place - 1], line):
            place -= 1
        self.lines.insert(place, line)
        del self.lines[:-LINES]
        return line


def _is_before(known: Line, new: Line) -> bool:
    """Whether a line that is there stands before a new one: by place in the channel, or by time if one has none.

    Within a second what has no place, because it is still being sent, stands last.
    """
    if known.seq and new.seq:
        return known.seq < new.seq
    return known.timestamp < new.timestamp or (known.timestamp == new.timestamp and not new.seq)


class Rooms:
    """All rooms of one user."""

    def __init__(self, uid: str) -> None:
        self.uid = uid
        self.current: Room | None = None
        self.scroll = 0
        """Lines above the newest at which the screen stands."""
        self._rooms: dict[Channel, Room] = {}

    @property
    def all(self) -> list[Room]:
        """The rooms in the order they are shown in."""
        return list(self._rooms.values())

    def get(self, channel: Channel) -> Room:
        """Return a room, a new one at the end if need be."""
        return self._rooms.setdefault(channel, Room(channel))

    def open(self, channel: Channel) -> Room:
        """Show a room; what is in it has been read."""
        self.current = self.get(channel)
        self.current.unread = 0
        self.scroll = 0
        return self.current

    def step(self, by: int) -> Room | None:
        """Show the next room, or the one before; round the end."""
        rooms = self.all
        if not rooms:
            return None
        at = rooms.index(self.current) if self.current in rooms else -by
        return self.open(rooms[(at + by) % len(rooms)].channel)

    def move(self, by: int) -> None:
        """Move the screen up (positive) or down."""
        most = len(self.current.lines) - 1 if self.current is not None else 0
        self.scroll = max(0, min(self.scroll + by, most))

    def arrived(self, message: Message) -> Line:
        """Add a message that arrived."""
        room = self.get(message.channel)
        line = room.add(self.line_of(message))
        if room is not self.current and not line.is_own:
            room.unread += 1
        elif self.scroll:
            self.scroll += 1  # what is being read stays where it is
        return line

    def loaded(self, room: Room, messages: Iterable[Message]) -> list[Line]:
        """Add what was read back; returns the lines."""
        room.is_loaded = True
        return [room.add(self.line_of(message)) for message in messages]

    def line_of(self, message: Message) -> Line:
        """Return the line of a message."""
        is_own = message.from_uid == self.uid
        return Line(
            timestamp=message.timestamp,
            who=printable(message.from_uid or "system"),
            text=printable(text_of(message.payload)),
            is_own=is_own,
            mark=SENT if is_own else "",
            key=message.client_msg_no,
            seq=message.seq,
        )

    def sending(self, room: Room, text: str, number: str) -> Line:
        """Add a message that is on its way."""
        self.scroll = 0
        return room.add(Line(int(time.time()), self.uid, printable(text), is_own=True, mark=SENDING, key=number))


def answered(line: Line, receipt: Receipt) -> None:
    """Show what became of an own message."""
    line.mark = SENT if receipt.is_accepted else f"{FAILED} {reason_name(receipt.reason)}"


def printable(text: str) -> str:
    """Return a text without what would control the terminal; newlines stay."""
    return "".join(each if each == "\n" or unicodedata.category(each)[0] != "C" else "\ufffd" for each in text)


def channel_of(name: str) -> Channel:
    """Return the channel that a user means: `#team` is a group, everything else a user."""
    return Channel(name[1:], GROUP) if name.startswith("#") else Channel(name, PERSON)


# --- what is seen


def sidebar(rooms: Rooms, width: int) -> Fragments:
    """Draw the list of rooms."""
    pieces: Fragments = []
    for room in rooms.all:
        count = f" {room.unread}" if room.unread else ""
        name = room.name if len(room.name) + len(count) < width else room.name[: width - len(count) - 2] + "…"
        style = "class:room.current" if room is rooms.current else "class:room.unread" if count else "class:room"
        pieces += [(style, f" {name}".ljust(width - len(count))), ("class:count", count), ("", "\n")]
    return pieces or [("class:hint", " nobody yet")]


def talk(rooms: Rooms) -> Fragments:
    """Draw the lines of the open room."""
    room = rooms.current
    if room is None:
        return [("class:hint", "Type /to NAME to write to a user, /to #NAME to a group.")]
    if not room.lines:
        return [("class:hint", "Nothing here yet.")]
    pieces: Fragments = []
    day = ""
    for line in room.lines[: len(room.lines) - rooms.scroll]:
        moment = time.localtime(line.timestamp)
        if (today := time.strftime("%A, %d %B %Y", moment)) != day:
            pieces.append(("class:day", f"── {today} ──\n"))
            day = today
        who = "class:own" if line.is_own else "class:other"
        first, *rest = line.text.split("\n") if line.text else [""]
        pieces += [("class:time", time.strftime("%H:%M ", moment)), (who, line.who), ("", f"  {first}")]
        pieces += [("", f"\n        {more}") for more in rest]
        if line.mark:
            style = "class:failed" if line.mark.startswith(FAILED) else "class:mark"
            pieces.append((style, f"  {line.mark}"))
        pieces.append(("", "\n"))
    pieces.pop()
    if rooms.scroll:
        pieces.append(("class:hint", f"\n  {rooms.scroll} newer below"))
    return pieces


def last_row(rooms: Rooms) -> int:
    """Return the row of `talk` that the screen has to show."""
    return "".join(text for _, text in talk(rooms)).count("\n")
