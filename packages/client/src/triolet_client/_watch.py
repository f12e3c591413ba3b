"""Watching whether users are online: the same SUB again on every session, the states by EVENT (docs/presence.md)."""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from types import TracebackType
from typing import Any, Protocol, Self

import anyio
from anyio.lowlevel import checkpoint

from triolet_client._errors import ClientClosed, ClientError, WatchRefused
from triolet_client._model import DeviceState, Event, Reason, UserState

PRESENCE, REFUSED = "presence", "presence.refused"
EXPIRE_S = 86_400
"""A subscription ends so long after the last renewal, if the server does not end it earlier."""
RENEW_S = EXPIRE_S / 3
UIDS_PER_REQUEST = 50
"""triolet takes 200 by default (`presence.usersPerCall`)."""
REQUEST_BYTES = 24_000
"""Ids beyond go into another request; a text of the protocol holds 32,767 bytes."""
MAX_UID_BYTES = 512


class Subscriber(Protocol):
    """What a session does here. None of these may wait."""

    def watch(self, sub_no: str, uids: Iterable[str], expire_s: int) -> None:
        """Ask to be told of users."""
        ...

    def unwatch(self, sub_no: str, uids: Iterable[str]) -> None:
        """Ask not to be told of them any more."""
        ...


class Watches:
    """The readers of a client, over its sessions."""

    def __init__(self) -> None:
        self._readers: set[WatchReader] = set()
        self._session: Subscriber | None = None
        self._asked: dict[str, WatchReader] = {}
        self._refused: dict[str, tuple[str, ...]] = {}
        """Users that were refused, by requests whose answer is still to come."""
        self._numbers = count(1)
        self._failure: ClientError | None = None

    # --- life of sessions

    def begin(self, session: Subscriber) -> None:
        """Ask a new session for everything that is watched."""
        self._session = session
        for reader in self._readers:
            self._ask(reader)

    def lose(self) -> None:
        """The session has ended."""
        self._session = None
        self._asked.clear()
        self._refused.clear()

    def end(self, failure: ClientError) -> None:
        """No session comes any more."""
        self._failure = failure
        for reader in self._readers:
            reader.fail(failure)

    # --- readers

    def add(self, reader: "WatchReader") -> None:
        """Let a reader have the states of its users."""
        self._readers.add(reader)
        if self._failure is not None:
            reader.fail(self._failure)
        self._ask(reader)

    def remove(self, reader: "WatchReader") -> None:
        """Let go of a reader, and of users that no other one watches."""
        self._readers.discard(reader)
        self._asked = {number: each for number, each in self._asked.items() if each is not reader}
        others = {uid for each in self._readers for uid in each.uids}
        unused = [uid for uid in reader.uids if uid not in others]
        if self._session is not None:
            for part in _parts(unused):
                self._session.unwatch(self._number(), part)

    def renew(self, reader: "WatchReader") -> None:
        """Ask once more."""
        self._ask(reader)

    def _ask(self, reader: "WatchReader") -> None:
        if self._session is None:
            return
        for part in _parts(reader.uids):
            number = self._number()
            self._asked[number] = reader
            self._session.watch(number, part, EXPIRE_S)

    def _number(self) -> str:
        return f"w{next(self._numbers)}"

    # --- what the server says

    def on_suback(self, sub_no: str, reason: int) -> None:
        """A request was answered."""
        reader = self._asked.pop(sub_no, None)
        uids = self._refused.pop(sub_no, ())
        if reader is not None and reason != Reason.SUCCESS:
            reader.fail(WatchRefused(reason, uids))

    def on_event(self, event: Event) -> None:
        """Take the states out of an event, if it has some."""
        if event.type == PRESENCE:
            for state in _states(event):
                for reader in self._readers:
                    reader.put(state)
        elif event.type == REFUSED:
            data = _object(event.data)
            if data.get("sub_no") in self._asked:
                self._refused[data["sub_no"]] = tuple(str(uid) for uid in data.get("uids") or ())


class WatchReader:
    """The states of some users: the present one of each, then each change. Use it as a context manager and iterate.

    What waits to be read is the newest state of each user, so a slow reader misses changes and never the last one.
    """

    def __init__(self, watches: Watches, uids: Iterable[str]) -> None:
        self._watches = watches
        self.uids = tuple(dict.fromkeys(uids))
        for uid in self.uids:
            if not 0 < len(uid.encode()) <= MAX_UID_BYTES:
                raise ValueError(f"a uid has 1 to {MAX_UID_BYTES} bytes, not {len(uid.encode())}")
        self._known: dict[str, UserState | None] = dict.fromkeys(self.uids)
        self._waiting: dict[str, UserState] = {}
        self._changed = anyio.Event()
        self._failure: ClientError | None = None

    def __enter__(self) -> Self:
        self._watches.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watches.remove(self)
        self.fail(ClientClosed("nobody watches any more"))

    def put(self, state: UserState) -> None:
        """Take a state; one that says nothing new is let go."""
        if state.uid in self._known and self._known[state.uid] != state:
            self._known[state.uid] = state
            self._waiting.pop(state.uid, None)
            self._waiting[state.uid] = state
            self._changed.set()

    def fail(self, failure: ClientError) -> None:
        """End the iteration once what waits was taken."""
        self._failure = self._failure or failure
        self._changed.set()

    def __aiter__(self) -> "WatchReader":
        return self

    async def __anext__(self) -> UserState:
        await checkpoint()
        while not self._waiting:
            if isinstance(self._failure, ClientClosed):
                raise StopAsyncIteration
            if self._failure is not None:
                raise self._failure
            await self._wait()
        return self._waiting.pop(next(iter(self._waiting)))

    async def _wait(self) -> None:
        self._changed = anyio.Event()
        with anyio.move_on_after(RENEW_S) as scope:
            await self._changed.wait()
        if scope.cancelled_caught:
            self._watches.renew(self)


def _parts(uids: Iterable[str]) -> Iterator[list[str]]:
    part: list[str] = []
    size = 0
    for uid in uids:
        needed = len(json.dumps(uid)) + 1  # at least as long as what is sent
        if part and (len(part) >= UIDS_PER_REQUEST or size + needed > REQUEST_BYTES):
            yield part
            part, size = [], 0
        part.append(uid)
        size += needed
    if part:
        yield part


def _object(data: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _states(event: Event) -> list[UserState]:
    """Return the states in an event; none if it is not what the server promises."""
    try:
        return [_state(row) for row in _object(event.data)["users"]]
    except (LookupError, TypeError, ValueError):
        return []


def _state(row: Mapping[str, Any]) -> UserState:
    devices = tuple(
        DeviceState(
            device_flag=int(each["flag"]),
            is_online=bool(each["online"]),
            level=int(each["level"]),
            connections=int(each["connections"]),
            since=int(each["since"]),
            last_seen=int(each["last_seen"]),
            has_logged_out=bool(each["logout"]),
        )
        for each in row["devices"]
    )
    return UserState(uid=str(row["uid"]), is_online=bool(row["online"]), devices=devices)
