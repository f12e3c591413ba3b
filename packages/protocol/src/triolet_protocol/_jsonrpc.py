"""State machine of one JSON-RPC client, the server's end; no IO, no clock. Source: wire-protocol.md, section 7.

It has the states, events and calls of `Connection`, so that a session need not know which it has. An answer belongs
to a request, so the ids of unanswered requests are kept here: pings and subscriptions are answered in the order in
which they came, messages by a client_seq that this end gives them, a batch as one array when its last answer is there.
A request that cannot be understood is an `AnswerReady` and the connection goes on; before the login it ends.

On a WebSocket every `receive_data` is a message, and what is cut off in it is lost; on a stream the rest may follow,
and what is no JSON ends the connection: nobody knows where the next request begins.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from triolet_protocol import _frames as frames
from triolet_protocol import _jsonframes as jsonframes
from triolet_protocol._crypto import KeyPair
from triolet_protocol._errors import LocalProtocolError, RemoteProtocolError, RequestError
from triolet_protocol._events import (
    AnswerReady,
    Batch,
    ConnectReceived,
    DisconnectReceived,
    Event,
    PingReceived,
    RecvAckReceived,
    SendReceived,
    SubReceived,
)
from triolet_protocol._frames import LATEST_VERSION, Family, Frame
from triolet_protocol._hot import RECV_OVERHEAD, Mark, Receipt, RecvFields
from triolet_protocol._jsonframes import INVALID_PARAMS, Members
from triolet_protocol._jsontext import PARSE_ERROR, Splitter, begins_json, dump, parse
from triolet_protocol._numbers import ReasonCode
from triolet_protocol._state import Limits, State

INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
EVENTS_AT_ONCE = 256
"""Most requests that one call of `events` takes: their answers are written before the next are read."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_REQUESTS = frozenset({"connect", "send", "ping", "subscribe", "unsubscribe", "recvack", "disconnect"})
_NOTIFICATIONS = frozenset({"recvack", "disconnect"})
_NOTHING: dict[str, object] = {}


@dataclass(slots=True, eq=False)
class _Batch:
    """Answers of one array."""

    missing: int
    answers: list[dict[str, object]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Request:
    """Whom an answer is for. An empty id is one that was given and is left out of the answer."""

    id: str | None = None
    batch: _Batch | None = None
    method: str = ""


class JsonConnection:
    """The server's end of one JSON-RPC connection."""

    __slots__ = (
        "_connect",
        "_error",
        "_items",
        "_limits",
        "_make_number",
        "_numbers",
        "_pings",
        "_sends",
        "_splitter",
        "_subs",
        "_texts",
        "is_stream",
        "state",
        "version",
    )
    family = Family.WUKONG
    is_encrypted = False
    has_events = True

    def __init__(self, limits: Limits, make_number: Callable[[], str], *, is_stream: bool = False) -> None:
        """`make_number` returns a client_msg_no for a message that came without one."""
        self._limits = limits
        self._make_number = make_number
        self._splitter = Splitter(limits.max_frame_size, limits.max_json_depth)
        self._texts: deque[bytes] = deque()
        self._items: deque[tuple[Any, _Batch | None]] = deque()
        self._error: RemoteProtocolError | None = None
        self._connect = _Request()
        self._pings: deque[_Request] = deque()
        self._subs: deque[_Request] = deque()
        self._sends: dict[int, _Request] = {}
        self._numbers = count(1)
        self.is_stream = is_stream
        self.state = State.IDLE
        self.version = LATEST_VERSION

    @property
    def is_drained(self) -> bool:
        """As of `Connection`; that cannot be told without looking."""
        return False

    # --- in

    def receive_data(self, data: bytes) -> None:
        """Take a WebSocket message, or bytes of a stream; none means that the stream has ended."""
        if not data:
            self.state = State.CLOSED
        elif self.state is not State.CLOSED:
            self._texts.append(data)

    def events(self) -> list[Event]:
        """Return the next events, the earliest first; none if nothing is complete.

        Raises:
            RemoteProtocolError: The connection ends; events before the error come first, the error with the next call.
        """
        if self._error is not None:
            raise self._end(self._error)
        events: list[Event] = []
        try:
            for _ in range(EVENTS_AT_ONCE):
                if self.state in (State.PENDING, State.CLOSED):
                    break
                found = self._next_item()
                if found is None:
                    break
                events += self._on_item(*found)
        except RemoteProtocolError as exc:
            if not events:
                raise self._end(exc) from None
            self._error = exc
        return events

    def batch(self) -> Batch:
        """Return the next events, sorted by kind.

        Raises:
            RemoteProtocolError: As `events`.
        """
        batch = Batch()
        for event in self.events():
            batch.append(event)
        return batch

    def _end(self, error: RemoteProtocolError) -> RemoteProtocolError:
        self.state = State.CLOSED
        self._error = None
        self._texts.clear()
        self._items.clear()
        self._splitter.clear()
        return error

    def _next_item(self) -> tuple[Any, _Batch | None] | None:
        """Return the next value of an array or of the stream, with its batch; None if there is none."""
        while not self._items:
            try:
                value = self._next_value()
            except RequestError as exc:
                return exc, None
            if value is None:
                return None
            self._open(value[0])
        return self._items.popleft()

    def _open(self, value: Any) -> None:
        if not isinstance(value, list):
            self._items.append((value, None))
        elif 0 < len(value) <= self._limits.max_batch:
            batch = _Batch(len(value))
            self._items.extend((item, batch) for item in value)
        else:
            wrong = RequestError(
                INVALID_REQUEST, f"a batch of {len(value)} requests, not 1 to {self._limits.max_batch}"
            )
            self._items.append((wrong, None))

    def _next_value(self) -> tuple[Any] | None:
        splitter = self._splitter
        while True:
            try:
                text = splitter.next_text()
            except RequestError as exc:
                self._lose_track(exc)
                raise
            if text is not None:
                return (self._parse(text),)
            self._check_login(splitter.waiting)
            if splitter.waiting and not self.is_stream:
                splitter.clear()
                raise RequestError(PARSE_ERROR, "a JSON text is cut off")
            if not self._texts:
                return None
            message = self._texts.popleft()
            self._check_first(message)
            splitter.feed(message)

    def _parse(self, text: bytes) -> Any:
        self._check_login(len(text))
        try:
            return parse(text)
        except RequestError as exc:
            self._lose_track(exc)
            raise

    def _lose_track(self, error: RequestError) -> None:
        """Drop the rest of a message; a stream ends here."""
        if self.is_stream:
            raise self._fatal(error, _Request(id=""))
        self._splitter.clear()

    def _check_login(self, size: int) -> None:
        if self.state is State.IDLE and size > self._limits.max_login_bytes:
            limit = self._limits.max_login_bytes
            raise RemoteProtocolError(ReasonCode.UNKNOWN, f"more than {limit} bytes before a whole connect")

    def _check_first(self, message: bytes) -> None:
        """A message that is not JSON at all, not even after a byte order mark, ends the connection."""
        is_json = begins_json(message) is not False or message.startswith(_BYTE_ORDER_MARK)
        if not is_json and not self.is_stream:
            error = RequestError(PARSE_ERROR, "neither an object nor an array")
            raise self._fatal(error, _Request(id=""))

    def _on_item(self, value: Any, batch: _Batch | None) -> list[Event]:
        request = _Request(batch=batch)
        try:
            if isinstance(value, RequestError):
                raise value
            return self._on_message(value, request)
        except RequestError as exc:
            if self.state is State.IDLE:
                raise self._fatal(exc, request) from None
            if request.id is None:
                request.id = ""  # JSON-RPC answers these too, without an id
            return [AnswerReady(self._answer(request, jsonframes.error(exc.code, exc.detail)), exc.detail)]

    def _fatal(self, error: RequestError, request: _Request) -> RemoteProtocolError:
        """Return what ends the connection: answered if it is known to whom, and after a login in any case."""
        has_answer = bool(request.id) or self.state is not State.IDLE
        answer = self._answer(request, jsonframes.error(error.code, error.detail)) if has_answer else b""
        return RemoteProtocolError(ReasonCode.UNKNOWN, error.detail, answer)

    def _on_message(self, value: Any, request: _Request) -> list[Event]:
        if not isinstance(value, dict):
            raise RequestError(INVALID_REQUEST, "a request is no object")
        members = Members(value)
        self._read_envelope(members, request)
        method = request.method
        if method not in (_NOTIFICATIONS if request.id is None else _REQUESTS):
            raise RequestError(METHOD_NOT_FOUND, "there is no such method, or it needs an id")
        if self.state is State.IDLE and method != "connect":
            raise RequestError(INVALID_REQUEST, "the first request is no connect")
        return self._call(method, self._params(members, method), request)

    def _read_envelope(self, members: Members, request: _Request) -> None:
        try:
            if "id" in members:
                if members.get("id") is None:
                    raise RequestError(INVALID_REQUEST, "the id is null")
                request.id = members.text("id")
            if members.text("jsonrpc") not in ("", "2.0"):
                raise RequestError(INVALID_REQUEST, "the version is not 2.0")
            request.method = members.text("method")
        except RequestError as exc:
            raise RequestError(INVALID_REQUEST, exc.detail) from None
        if not request.method:
            raise RequestError(INVALID_REQUEST, "no request, for it has no method")

    def _params(self, members: Members, method: str) -> Members:
        params = members.get("params")
        if params is None and "params" not in members and method != "ping":
            raise RequestError(INVALID_PARAMS, "params are missing")
        if not isinstance(params, dict | None):
            raise RequestError(INVALID_PARAMS, "params are no object")
        return Members(params or {}, "params.")

    def _call(self, method: str, params: Members, request: _Request) -> list[Event]:
        match method:
            case "connect":
                return [self._on_connect(params, request)]
            case "send":
                return [self._on_send(params, request)]
            case "ping":
                self._pings.append(request)
                return [PingReceived()]
            case "recvack":
                return [RecvAckReceived(jsonframes.read_recvack(params)), *self._done(request)]
            case "disconnect":
                return [*self._done(request), DisconnectReceived(jsonframes.read_disconnect(params))]
            case _:
                sub = jsonframes.read_sub(params, int(method == "unsubscribe"))
                self._subs.append(request)
                return [SubReceived(sub)]

    def _on_connect(self, params: Members, request: _Request) -> ConnectReceived:
        if self.state is not State.IDLE:
            raise RequestError(INVALID_REQUEST, "connected already")
        frame = jsonframes.read_connect(params)
        self.version = min(frame.version, LATEST_VERSION)
        self._connect = request
        self.state = State.PENDING
        return ConnectReceived(frame)

    def _on_send(self, params: Members, request: _Request) -> SendReceived:
        send = jsonframes.read_send(params, next(self._numbers))
        send.client_msg_no = send.client_msg_no or self._make_number()
        refusal = 0
        if params.number("channelType") != send.channel_type:
            refusal = ReasonCode.NOT_SUPPORT_CHANNEL_TYPE
        elif len(send.payload) * 4 // 3 + RECV_OVERHEAD + len(send.topic) > self._limits.max_frame_size:
            send.payload = b""
            refusal = ReasonCode.PAYLOAD_DECODE_ERROR  # no RECV could hold it
        self._sends[send.client_seq] = request
        return SendReceived(send, refusal)

    def _done(self, request: _Request) -> list[Event]:
        """Return the answer of a request that has no result; a notification in a batch may complete that."""
        answer = self._answer(request, {"result": _NOTHING})
        return [AnswerReady(answer)] if answer else []

    # --- out

    def _answer(self, request: _Request, body: dict[str, object]) -> bytes:
        """Return the answer to a request, of its whole batch if this was the last, nothing if there is none yet."""
        answer: dict[str, object] | None = None
        if request.id is not None:
            answer = {"jsonrpc": "2.0", **({"id": request.id} if request.id else {}), **body}
        batch = request.batch
        if batch is None:
            return dump(answer) if answer is not None else b""
        batch.missing -= 1
        if answer is not None:
            batch.answers.append(answer)
        return dump(batch.answers) if not batch.missing and batch.answers else b""

    def accept(
        self, private_key: bytes | KeyPair, salt: bytes, *, time_diff_ms: int, node_id: int, encrypt: bool = True
    ) -> bytes:
        """Let the client in and return the result of its `connect`. Keys are not used: TLS is what encrypts here."""
        self._decide(State.READY)
        frame = frames.ConnAck(time_diff_ms, ReasonCode.SUCCESS, node_id=node_id, server_version=self.version)
        return self._answer(self._connect, {"result": jsonframes.connack(frame)})

    def reject(self, reason: int) -> bytes:
        """Turn the client away; returns the error, since some clients take every result for success."""
        self._decide(State.CLOSED)
        return self._answer(self._connect, jsonframes.error(reason, jsonframes.reason_name(reason)))

    def _decide(self, state: State) -> None:
        if self.state is not State.PENDING:
            raise LocalProtocolError(f"no connect is waiting (state {self.state.value})")
        self.state = state

    def encode_recvs(self, recvs: Sequence[RecvFields], *, apart: bool = False) -> list[bytes]:
        """Return the `recv` notifications of messages; always each apart, and the same for every receiver."""
        return [self.send(jsonframes.recv_frame(fields)) for fields in recvs]

    def encode_sendacks(
        self, marks: Sequence[Mark], receipts: Sequence[Receipt], *, apart: bool = False
    ) -> list[bytes]:
        """Return the results of messages; always each apart."""
        return [
            self._answer(self._sends.pop(number), {"result": jsonframes.sendack(flags, message_id, seq, reason)})
            for (number, flags), (reason, message_id, seq) in zip(marks, receipts, strict=True)
        ]

    def send(self, frame: Frame) -> bytes:
        """Return the bytes of a frame: the answer to the oldest `ping` or `subscribe`, or a notification.

        Raises:
            LocalProtocolError: There is nothing to answer, or no such message.
        """
        match frame:
            case frames.Pong():
                return self._answer(_oldest(self._pings), {"result": _NOTHING})
            case frames.SubAck():
                return self._answer(_oldest(self._subs), {"result": jsonframes.suback(frame)})
            case frames.Recv():
                return jsonframes.notification("recv", jsonframes.recv(frame))
            case frames.EventFrame():
                return jsonframes.notification("event", jsonframes.event(frame))
            case frames.Disconnect():
                return jsonframes.notification("disconnect", jsonframes.disconnect(frame))
            case _:
                raise LocalProtocolError(f"JSON-RPC has no {type(frame).__name__} of a server")


def _oldest(requests: deque[_Request]) -> _Request:
    if not requests:
        raise LocalProtocolError("no request waits for this answer")
    return requests.popleft()
