"""Streamed messages: a writer adds pieces through the API, readers get events and ask for what they missed.

Theory of operation of the reader. An event carries a piece and an id, but no number: a reader that joins midway cannot
tell by itself whether a piece is in the state that it asked for. The state names the event that changed it last. So the
reader keeps the ids of the events it took; once the state names one of them, what came after that one is added and the
reader is in step. Until then, and whenever it missed something, it asks for the state at each event.
"""

import json
import uuid
from collections import deque
from types import TracebackType
from typing import Any, Self

import anyio
import attrs
from anyio.lowlevel import checkpoint

from triolet_client._api import Api
from triolet_client._errors import NoApi
from triolet_client._model import Channel, Event, Lane

MAIN = "main"
DELTA, SNAPSHOT, CLOSE, CANCEL, FINISH = (
    "stream.delta",
    "stream.snapshot",
    "stream.close",
    "stream.cancel",
    "stream.finish",
)
_ENDS = {CLOSE: "closed", "stream.error": "error", CANCEL: "cancelled", FINISH: "closed"}
CANCEL_TIMEOUT_S = 2.0
"""Longest wait of a writer that gives up for the server to know it."""


class EventReader:
    """The events of a client from now on: a bounded queue; the oldest are let go when it is full.

    Use it as a context manager, and iterate over it inside.
    """

    def __init__(self, readers: "set[EventReader]", limit: int) -> None:
        self._readers = readers
        self._events: deque[Event] = deque(maxlen=limit)
        self._limit = limit
        self._changed = anyio.Event()
        self._is_closed = False
        self.dropped = 0
        """Events that found the queue full, and breaks of the connection: what came then is unknown."""

    def __enter__(self) -> Self:
        self._readers.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._readers.discard(self)

    def put(self, event: Event) -> None:
        """Take an event; never blocks."""
        self.dropped += len(self._events) == self._limit
        self._events.append(event)
        self._changed.set()

    def mark_missed(self) -> None:
        """Note that events may have been missed, and wake the reader of a stream."""
        self.dropped += 1
        self._changed.set()

    def close(self) -> None:
        """End the iteration once what is queued was taken."""
        self._is_closed = True
        self._changed.set()

    def take_nowait(self) -> Event | None:
        """Return the next event if there is one."""
        return self._events.popleft() if self._events else None

    @property
    def is_closed(self) -> bool:
        """Whether nothing more comes."""
        return self._is_closed and not self._events

    async def wait(self) -> None:
        """Wait for an event, the end, or a break."""
        if not self._events and not self._is_closed:
            self._changed = anyio.Event()
            await self._changed.wait()

    def __aiter__(self) -> "EventReader":
        return self

    async def __anext__(self) -> Event:
        await checkpoint()
        while True:
            event = self.take_nowait()
            if event is not None:
                return event
            if self.is_closed:
                raise StopAsyncIteration
            await self.wait()


class StreamWriter:
    """Writes a streamed message: pieces of text, then the end. Made by `Client.open_stream`."""

    def __init__(self, api: Api, channel: Channel, client_msg_no: str) -> None:
        self._api = api
        self._channel = channel
        self.client_msg_no = client_msg_no

    async def write(self, text: str, *, key: str = MAIN) -> None:
        """Add a piece of text.

        Raises:
            ApiError: The stream has ended, or is too long.
        """
        await self.add(DELTA, {"kind": "text", "delta": text}, key=key)

    async def add(self, event_type: str, payload: Any, *, key: str = MAIN) -> None:
        """Add an event of any type, with any JSON value."""
        await self._api.add_event(self._channel, self.client_msg_no, uuid.uuid4().hex, event_type, payload, key=key)

    async def finish(self) -> None:
        """End the whole message, with all its lanes."""
        await self.add(FINISH, {}, key=MAIN)

    async def cancel(self) -> None:
        """Say that the writer gave up."""
        await self.add(CANCEL, {})


@attrs.frozen
class StreamState:
    """A lane of a stream as far as it is known."""

    text: str
    status: str = "open"
    """open, closed, error or cancelled."""
    snapshot: Any = None
    """What was collected if it is no text."""

    @property
    def is_open(self) -> bool:
        """Whether more may come."""
        return self.status in ("", "open")


class StreamReader:
    """Follows one lane of one stream. Iterate over it for the state after each change; it ends with the stream.

    Without the API it knows only what came since it began.
    """

    def __init__(self, api: Api | None, events: EventReader, channel: Channel, client_msg_no: str, key: str) -> None:
        self._api = api
        self._events = events
        self._channel = channel
        self._client_msg_no = client_msg_no
        self._key = key
        self._state: StreamState | None = None
        self._pending: list[Event] = []
        """Events since the last state that was asked for, until one of them is known to be in it."""
        self._is_in_step = api is None
        self._missed = 0

    def __aiter__(self) -> "StreamReader":
        return self

    async def __anext__(self) -> StreamState:
        await checkpoint()
        if self._state is not None and not self._state.is_open:
            raise StopAsyncIteration
        while True:
            before = self._state
            await self._advance()
            if self._state is not None and self._state != before:
                return self._state
            if self._events.is_closed:
                raise StopAsyncIteration

    async def _advance(self) -> None:
        if self._state is None and not self._is_in_step:
            await self._ask()
            return
        event = self._events.take_nowait()
        if self._events.dropped != self._missed and self._api is not None:
            self._is_in_step = False
            await self._ask()
        elif event is None:
            await self._events.wait()
        elif self._is_ours(event):
            await self._take(event)

    async def _take(self, event: Event) -> None:
        if self._is_in_step:
            self._apply(event)
            return
        self._pending.append(event)
        await self._ask()

    async def _ask(self) -> None:
        """Ask for the state; add what came after the event that it names, if that is one we know."""
        if self._api is None:
            raise NoApi
        missed = self._events.dropped
        lanes = await self._api.lanes(self._channel, self._client_msg_no, key=self._key)
        while (event := self._events.take_nowait()) is not None:
            if self._is_ours(event):
                self._pending.append(event)
        lane = next((each for each in lanes if each.key == self._key), None)
        self._missed = missed
        self._state = _state_of(lane)
        ids = [event.id for event in self._pending]
        if lane is not None and lane.event_id in ids:
            later = self._pending[ids.index(lane.event_id) + 1 :]
            self._pending = []
            self._is_in_step = True
            for event in later:
                self._apply(event)

    def _is_ours(self, event: Event) -> bool:
        data = _parsed(event)
        is_lane = data.get("event_key") == self._key or event.type.lower() == FINISH
        return is_lane and data.get("client_msg_no") == self._client_msg_no

    def _apply(self, event: Event) -> None:
        kind, payload = event.type.lower(), _parsed(event).get("payload")
        text = self._state.text if self._state is not None else ""
        given = payload if isinstance(payload, dict) else {}
        if kind == DELTA and given.get("kind") == "text":
            self._state = StreamState(text + str(given.get("delta", "")))
        elif kind in _ENDS:
            snapshot = given.get("snapshot")
            whole = snapshot.get("text") if isinstance(snapshot, dict) else None
            self._state = StreamState(whole if isinstance(whole, str) else text, _ENDS[kind], snapshot)
        elif kind == SNAPSHOT:
            whole = given.get("text")
            self._state = StreamState(whole if isinstance(whole, str) else text, snapshot=payload)
        elif kind == DELTA:
            self._state = StreamState(text, snapshot=payload)


def _parsed(event: Event) -> dict[str, Any]:
    try:
        data = json.loads(event.data)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _state_of(lane: Lane | None) -> StreamState:
    return StreamState("") if lane is None else StreamState(lane.text, lane.status or "open", lane.snapshot)
