"""Whatever happens to the connection and to the API, a reader gets each message of others once, in order."""

from collections.abc import Callable, Mapping
from functools import partial

import anyio
import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from triolet_client import ApiUnavailable, Backoff, Channel, ClientClosed, Conversation, Message, Settings, Statistics
from triolet_client._api import Page
from triolet_client._feed import Feed
from triolet_client._positions import Positions

CHANNELS = (Channel.person("bob"), Channel.group("g"), Channel.temporary("t"))
COMMAND = 0x04
TEMPORARY = 8


class World:
    """A server: its API, and a connection that carries what it is told to, unless it is down."""

    def __init__(self) -> None:
        self.stored: dict[Channel, list[Message]] = {channel: [] for channel in CHANNELS}
        self.waiting: list[Message] = []
        self.failures = 0
        self.is_up = True
        self.acks: list[int] = []

    def acknowledge(self, message: Message) -> None:
        self.acks.append(message.message_id)

    def _answer(self) -> None:
        if self.failures:
            self.failures -= 1
            raise ApiUnavailable("/", "the test says so")

    # --- the API, as the feed uses it

    async def conversations(self, positions: Mapping[Channel, int] | None = None) -> list[Conversation]:
        self._answer()
        return [
            Conversation(
                channel=channel, unread=0, last_seq=len(found), read_to=0, deleted_to=0, timestamp=1, last=found[-1]
            )
            for channel, found in self.stored.items()
            if found and channel.type != TEMPORARY and (positions or {}).get(channel, 0) < len(found)
        ]

    async def newer(self, channel: Channel, start: int, end: int, limit: int) -> Page:
        self._answer()
        found = [each for each in self.stored.get(channel, ()) if each.seq >= start and (not end or each.seq < end)]
        return Page(tuple(found[:limit]), len(found) > limit)

    async def older(self, channel: Channel, start: int, limit: int) -> Page:
        self._answer()
        found = [each for each in self.stored.get(channel, ()) if not start or each.seq <= start]
        return Page(tuple(found[-limit:]), len(found) > limit)

    async def commands(self, limit: int) -> list[Message]:
        self._answer()
        return [attrs.evolve(each, seq=place) for place, each in enumerate(self.waiting[:limit], 1)]

    async def acknowledge_commands(self, place: int) -> None:
        self._answer()
        del self.waiting[:place]


class Run:
    """One reader, and what happens to it."""

    def __init__(self, inbox: int) -> None:
        self.world = World()
        self.positions = Positions(100, {}, remembered=1000)
        options = Settings(inbox=inbox, page=3, backoff=Backoff(first_s=0, longest_s=0))
        self.feed = Feed("ann", self.world, self.positions, options, Statistics())  # type: ignore[arg-type]
        self.feed.mark_stale()
        self.read: list[Message] = []
        self.ids = iter(range(1, 10**6))
        self.first: dict[Channel, int] = {}
        """The first number of each channel that arrived live."""

    def _store(self, channel: Channel, sender: str) -> Message:
        number = next(self.ids)
        found = self.world.stored[channel]
        message = Message(
            message_id=number,
            seq=len(found) + 1,
            channel=channel,
            from_uid=sender,
            client_msg_no=f"no-{number}",
            timestamp=1,
            payload=b"",
        )
        found.append(message)
        return message

    async def other_sends(self, channel: Channel) -> None:
        self._push(self._store(channel, "bob"))

    async def command(self, channel: Channel) -> None:
        message = attrs.evolve(self._store(CHANNELS[0], "bob"), flags=COMMAND, channel=channel)
        self.world.stored[CHANNELS[0]].pop()
        self.world.waiting.append(message)
        self._push(message)

    async def own_send(self, channel: Channel) -> None:
        """Its number is noted before it goes out; the acknowledgement is lost if the connection is down."""
        message = self._store(channel, "ann")
        self.positions.sending(message.client_msg_no)
        if self.world.is_up:
            self.positions.sent(channel, message.seq)

    async def repeat(self, channel: Channel) -> None:
        theirs = [each for each in self.world.stored[channel] if each.from_uid == "bob"]
        if theirs and theirs[-1].seq <= (self.positions.of(channel) or 0):
            self._push(theirs[-1])

    def _push(self, message: Message) -> None:
        if self.world.is_up:
            if not message.is_command:
                self.first.setdefault(message.channel, message.seq)
            self.feed.push(message, self.world)

    async def down(self, _: Channel) -> None:
        self.world.is_up = False

    async def up(self, _: Channel) -> None:
        if not self.world.is_up:
            self.world.is_up = True
            self.feed.mark_stale()

    async def api_fails(self, _: Channel) -> None:
        self.world.failures = 2

    async def take(self, _: Channel) -> None:
        """Read for a while, and be cancelled at some await."""
        with anyio.CancelScope() as scope:
            for _turn in range(5):
                self.read.append(await self.feed.next())
                if len(self.read) % 3 == 0:
                    scope.cancel()

    async def finish(self) -> None:
        await self.up(CHANNELS[0])
        self.feed.mark_stale()
        self.world.failures = 0
        self.feed.fail(ClientClosed("done"))
        try:
            while True:
                self.read.append(await self.feed.next())
        except ClientClosed:
            return


STEPS: dict[str, Callable[[Run, Channel], object]] = {
    name: getattr(Run, name)
    for name in ("other_sends", "command", "own_send", "repeat", "down", "up", "api_fails", "take")
}
STEP = st.tuples(st.sampled_from(sorted(STEPS)), st.sampled_from(CHANNELS))


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 6), st.lists(STEP, max_size=60))
def test_each_message_of_others_is_read_once_and_in_order(inbox: int, steps: list[tuple[str, Channel]]) -> None:
    anyio.run(partial(_play, inbox, steps), backend="trio")


async def _play(inbox: int, steps: list[tuple[str, Channel]]) -> None:
    run = Run(inbox)
    commands = 0
    for name, channel in steps:
        commands += name == "command"
        if name == "take" and not _has_something(run):
            continue
        await STEPS[name](run, channel)  # type: ignore[misc]
    await run.finish()
    for channel in CHANNELS:
        expected = [each.seq for each in run.world.stored[channel] if each.from_uid == "bob"]
        read = [each.seq for each in run.read if each.channel == channel and not each.is_command]
        if channel.type == TEMPORARY:  # nothing lists such a channel until something of it arrived
            expected = [seq for seq in expected if seq >= run.first.get(channel, 10**6)]
        assert read == expected
    taken = [each.message_id for each in run.read if each.is_command]
    assert len(taken) == commands
    assert len(set(taken)) == commands


def _has_something(run: Run) -> bool:
    """Whether five messages can be read without waiting for ever."""
    unread = sum(
        each.from_uid == "bob" and each.seq > (run.positions.of(channel) or 0)
        for channel, found in run.world.stored.items()
        for each in found
        if channel.type != TEMPORARY
    )
    return unread >= 5 and run.world.is_up
