"""Deliveries of one connection that wait for their RECVACK. Source: wire-protocol.md, section 6.6.

What was delivered together is one run for everybody who got it, and a client mostly confirms messages in the order in
which they came: then nothing is done per message. What comes in another order, or has to be repeated, is looked at
message by message.
"""

import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

import triolet_protocol as wire
from triolet_core import Message
from triolet_core.model import NO_PERSIST, RED_DOT, SYNC_ONCE

_VERSION = 5
_MOST_SEQ = 0xFFFFFFFF
"""A RECV has the lower 32 bits of a seq, and its RECVACK repeats them."""
_PLAIN_ACK, _FLAGGED_ACK = (wire.encode(wire.RecvAck(0, 0, flags), _VERSION)[:2] for flags in (0, RED_DOT))
LONGEST_RUN = 64
"""Messages of a run. It is kept as a whole until its last message is confirmed, by whoever got it."""


class Run:
    """Messages that were delivered together and may have to be repeated; one for all sessions that got them."""

    __slots__ = ("acks", "due", "has_commands", "ids", "left", "messages", "packed_ids", "size")

    def __init__(self, messages: Sequence[Message], due: float, repeats: int, *, has_commands: bool) -> None:
        self.acks: tuple[bytes, ...] | None = ()
        """What clients send that confirms all of it at once, none if nobody looks for that; None: not made yet."""
        self.messages = messages
        if len(messages) == 1:
            [message] = messages
            self.ids = [message.message_id]
            self.packed_ids = message.message_id.to_bytes(8, "big", signed=True)
            if not has_commands:
                self.acks = _acks_of_one(message)
        else:
            self.ids = [message.message_id for message in messages]
            self.packed_ids = struct.pack(f">{len(messages)}q", *self.ids)
        self.size = bytes_of(messages)
        self.has_commands = has_commands
        self.due = due
        self.left = repeats


class Entry(NamedTuple):
    """A delivery that may have to be repeated."""

    message: Message
    due: float
    left: int


def bytes_of(messages: Sequence[Message]) -> int:
    """Return the bytes of the payloads."""
    return len(messages[0].payload) if len(messages) == 1 else sum([len(message.payload) for message in messages])


def _acks_of_one(message: Message) -> tuple[bytes, ...]:
    rest = message.message_id.to_bytes(8, "big", signed=True) + (message.seq & _MOST_SEQ).to_bytes(4, "big")
    return (_PLAIN_ACK + rest, _FLAGGED_ACK + rest) if message.flags & RED_DOT else (_PLAIN_ACK + rest,)


def acks_of(messages: Sequence[Message]) -> tuple[bytes, ...]:
    """Return the RECVACKs of messages as clients send them in one read: with the flags of the messages, or with none.

    Source: wire-protocol.md, section 3.6.
    """
    each = [_acks_of_one(message) for message in messages]
    return b"".join([acks[0] for acks in each]), b"".join([acks[-1] for acks in each])


def runs_of(messages: Sequence[Message], due: float, repeats: int, *, is_shared: bool = False) -> list[Run]:
    """Return what is to be repeated at `due`, at most `repeats` times; to many sessions if `is_shared`."""
    if len(messages) == 1 and not is_shared and not messages[0].flags & (NO_PERSIST | SYNC_ONCE):
        return [Run(messages, due, repeats, has_commands=False)]
    flags = 0
    for message in messages:
        flags |= message.flags
    if flags & NO_PERSIST:
        messages = [message for message in messages if not message.flags & NO_PERSIST]
    steps = range(0, len(messages), LONGEST_RUN)
    runs = [Run(messages[at : at + LONGEST_RUN], due, repeats, has_commands=flags & SYNC_ONCE > 0) for at in steps]
    if is_shared and not flags & SYNC_ONCE:
        for run in runs:
            run.acks = None
    return runs


def kept_in(runs: Sequence[Run]) -> tuple[int, int]:
    """Return how many messages runs have, and the bytes of their payloads."""
    if len(runs) == 1:
        return len(runs[0].ids), runs[0].size
    return sum([len(run.ids) for run in runs]), sum([run.size for run in runs])


class Unacked:
    """The newest deliveries, bounded in number and bytes; the oldest are forgotten and left to synchronisation.

    The older ones are entries by message id, the newer ones runs, of the first of which some may be done with.
    """

    __slots__ = ("_bytes", "_entries", "_most", "_most_bytes", "_runs", "_start", "count")

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._entries: dict[int, Entry] = {}
        self._runs: list[Run] = []
        self._start = 0
        """Messages of the first run that are done with."""
        self.count = 0
        """Deliveries that wait."""
        self._bytes = 0

    def __len__(self) -> int:
        return self.count

    def add(self, runs: Sequence[Run], count: int, size: int) -> None:
        """Remember what goes out now: `count` messages with payloads of `size` bytes."""
        self._runs += runs
        self.count += count
        self._bytes += size
        while self.count > self._most or self._bytes > self._most_bytes:
            if self._entries:
                self._forget(next(iter(self._entries)))
            else:
                rest = len(self._runs[0].ids) - self._start
                self._pass(rest if self.count - rest >= self._most else 1)

    def confirm(self, data: bytes) -> int:
        """Be done with the first runs if `data` is what confirms all of each; returns how many messages those were."""
        if self._start or self._entries:
            return 0
        at = count = size = 0
        for number, run in enumerate(self._runs, 1):
            if run.acks is None:  # the first of those who got it to confirm; in a worker nobody comes here
                run.acks = acks_of(run.messages)
            if not run.acks:
                return 0
            end = at + len(run.acks[0])
            if data[at:end] not in run.acks:
                return 0
            count += len(run.ids)
            size += run.size
            if end == len(data):
                del self._runs[:number]
                self.count -= count
                self._bytes -= size
                return count
            at = end
        return 0

    def match(
        self, data: bytes, match: Callable[[bytes, int, bytes, int], tuple[int, int]]
    ) -> tuple[int, int, list[int]]:
        """Forget what is confirmed in order by the RECVACKs that `data` begins with.

        Args:
            data: What came in.
            match: `match_recvacks` of the connection.

        Returns:
            (RECVACKs read, offset of what follows them, the confirmed messages that are commands).
        """
        total = offset = 0
        commands: list[int] = []
        runs = self._runs
        while runs and offset < len(data) and not self._entries:
            count, offset = match(data, offset, runs[0].packed_ids, self._start)
            if not count:
                break
            total += count
            commands += self._pass(count)
        return total, offset, commands

    def discard(self, message_ids: list[int]) -> list[int]:
        """Forget what the client has confirmed; returns those of them that are commands."""
        commands: list[int] = []
        if self._entries:
            found = [(message_id, self._forget(message_id)) for message_id in message_ids]
            commands = [message_id for message_id, entry in found if entry and entry.message.flags & SYNC_ONCE]
            message_ids = [message_id for message_id, entry in found if not entry]
        done = self._discard_in_order(message_ids, commands)
        if done < len(message_ids) and self._runs:
            self._spread()
            commands += self.discard(message_ids[done:])
        return commands

    def _discard_in_order(self, message_ids: list[int], commands: list[int]) -> int:
        """Forget messages from the first on for as long as they were confirmed so; returns how many."""
        done = 0
        while done < len(message_ids) and self._runs:
            ids = self._runs[0].ids[self._start :] if self._start else self._runs[0].ids
            rest = message_ids[done:] if done else message_ids
            count = min(len(ids), len(rest))
            if ids[:count] != rest[:count]:
                break
            done += count
            commands += self._pass(count)
        return done

    def _pass(self, count: int) -> list[int]:
        """Be done with messages of the first run; returns those that are commands."""
        run, start = self._runs[0], self._start
        end = start + count
        is_whole = count == len(run.ids)
        self.count -= count
        self._bytes -= run.size if is_whole else bytes_of(run.messages[start:end])
        if end == len(run.ids):
            del self._runs[0]
            self._start = 0
        else:
            self._start = end
        if not run.has_commands:
            return []
        return [message.message_id for message in run.messages[start:end] if message.flags & SYNC_ONCE]

    def _spread(self) -> None:
        """Turn runs into entries, in order."""
        for run in self._runs:
            for message in run.messages[self._start :]:
                self._forget(message.message_id)
                self._entries[message.message_id] = Entry(message, run.due, run.left)
            self._start = 0
        self._runs.clear()

    def _forget(self, message_id: int) -> Entry | None:
        entry = self._entries.pop(message_id, None)
        if entry is not None:
            self.count -= 1
            self._bytes -= len(entry.message.payload)
        return entry

    def take_due(self, now: float, interval_s: float) -> list[Message]:
        """Return what is due, and put it off by `interval_s`; forget what was repeated often enough."""
        if self._runs and self._runs[0].due <= now:  # the first is the oldest
            self._spread()
        due = []
        entries = self._entries
        for message_id, (message, when, left) in list(entries.items()):
            if when > now:
                continue
            if not left:
                self._forget(message_id)
                continue
            entries[message_id] = Entry(message, now + interval_s, left - 1)
            due.append(message)
        return due
