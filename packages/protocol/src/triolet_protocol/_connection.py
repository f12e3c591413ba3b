"""State machine of one connection, for both roles; no IO, no clock, no randomness.

Server: IDLE until CONNECT is complete, PENDING while somebody decides, READY after `accept`, CLOSED after `reject`,
an error or the end of the stream. Client: IDLE, PENDING after `connect`, READY after a CONNACK with reason 1.
Bytes that come while PENDING are kept. Anything the peer does ends in an event or in `RemoteProtocolError`.
"""

import os
from collections.abc import Sequence

from triolet_protocol import _choice, _codec, _frames, _hot, _seals
from triolet_protocol._codec import guess
from triolet_protocol._crypto import SALT_LENGTH, KeyPair
from triolet_protocol._errors import LocalProtocolError, NotText, RemoteProtocolError
from triolet_protocol._events import (
    Batch,
    ConnAckReceived,
    ConnectReceived,
    DisconnectReceived,
    Event,
    EventReceived,
    PingReceived,
    PongReceived,
    RecvAckReceived,
    RecvReceived,
    SendAckReceived,
    SendReceived,
    SubAckReceived,
    SubReceived,
    is_stream_event,
)
from triolet_protocol._frames import LATEST_VERSION, Family, Frame, StreamLayout
from triolet_protocol._numbers import NO_PERSIST, RED_DOT, SYNC_ONCE, ReasonCode
from triolet_protocol._state import Limits, Role, State

hot = _choice.choose(os.environ)


class Connection:
    """One end of one connection."""

    __slots__ = (
        "_buffer",
        "_error",
        "_keys",
        "_limits",
        "_peer",
        "_role",
        "connect_frame",
        "family",
        "state",
        "version",
    )

    def __init__(self, role: Role, limits: Limits | None = None) -> None:
        self._role = role
        self._limits = limits or _DEFAULT_LIMITS
        self._buffer = b""
        self._peer = _NO_PEER
        self._keys: KeyPair | None = None
        self._error: RemoteProtocolError | None = None
        self.connect_frame: _frames.Connect | None = None
        self.state = State.IDLE
        self.version = LATEST_VERSION
        self.family = Family.WUKONG

    @property
    def is_encrypted(self) -> bool:
        """Whether payloads are."""
        return self._peer.is_encrypted

    @property
    def names_streams(self) -> bool:
        """Whether a SEND of the peer has a field for the number of its stream."""
        return self.family is Family.WUKONG and _codec.names_streams(self.version)

    @property
    def is_drained(self) -> bool:
        """Whether `batch` would bring nothing more before the next bytes come."""
        return not self._buffer and self._error is None

    @property
    def has_events(self) -> bool:
        """Whether the peer knows EVENT (wire-protocol.md, rule 5)."""
        return self.version >= _codec.FIRST_WITH_EVENTS

    def _agree(self, keys: KeyPair, peer_key: str, salt: bytes) -> None:
        key = keys.aes_key(peer_key)
        self._peer = hot.Peer(self.version, limao=self.family is Family.LIMAO, key=key, iv=salt[:SALT_LENGTH])

    # --- in

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the peer; none means that the stream has ended."""
        if not data:
            self.state = State.CLOSED
        elif self.state is not State.CLOSED:
            self._buffer = self._buffer + data if self._buffer else data

    def events(self) -> list[Event]:
        """Return every event that is complete.

        Raises:
            RemoteProtocolError: The peer broke the protocol; nothing more comes from this connection. Events before
                the error come first, the error with the next call.
        """
        events: list[Event] = []
        self._parse(events)
        return events

    def batch(self) -> Batch:
        """Return everything that is complete, sorted by kind. For servers: messages and acks come much faster so.

        Raises:
            RemoteProtocolError: As `events`.
        """
        if self._error is not None or self.state is not State.READY or self.family is not Family.WUKONG:
            batch, offset = Batch(), 0
        elif not self._buffer:
            return _NOTHING
        else:  # as a rule one call finds everything
            found = hot.read_batch(self._peer, self._buffer, 0, self._limits.max_frame_size)
            offset, sends, marks, acked, recvacks, pings = found
            batch = Batch(sends, marks, acked, recvacks, pings)
            if offset == len(self._buffer):
                self._buffer = b""
                return batch
        self._parse(batch, offset)
        return batch

    def match_recvacks(self, data: bytes, offset: int, ids: bytes, start: int) -> tuple[int, int]:
        """Take RECVACKs that came in and confirm messages in order, instead of `receive_data` (see `_hot`).

        Takes none where bytes wait or the client speaks another layout.
        """
        if self._buffer or self.state is not State.READY or self.family is not Family.WUKONG:
            return 0, offset
        return hot.match_recvacks(data, offset, ids, start)

    def _parse(self, into: list[Event] | Batch, offset: int = 0) -> None:
        """Read on from an offset of what is there; there is no kept error if some of it has been read."""
        self._raise_kept()
        if self.state is State.CLOSED:
            return
        buffer = self._buffer
        try:
            while self.state is not State.PENDING or self._role is Role.CLIENT:
                if isinstance(into, Batch):
                    offset = self._read_hot(into, buffer, offset)
                    if offset == len(buffer):
                        break
                step = self._step(buffer, offset)
                if step is None:
                    self._check_login(len(buffer) - offset)
                    break
                event, offset = step
                if event is not None:
                    into.append(event)
        except RemoteProtocolError as exc:
            self._error = exc
            if not into:
                self._raise_kept()
        self._buffer = buffer[offset:] if offset else buffer

    def _raise_kept(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            self.state = State.CLOSED
            self._buffer = b""
            raise error

    def _read_hot(self, batch: Batch, buffer: bytes, offset: int) -> int:
        if self.state is not State.READY or self.family is not Family.WUKONG:
            return offset
        found = hot.read_batch(self._peer, buffer, offset, self._limits.max_frame_size)
        batch.extend(found)
        return found[0]

    def _check_login(self, waiting: int) -> None:
        if self.state is State.IDLE and waiting > self._limits.max_login_bytes:
            limit = self._limits.max_login_bytes
            raise RemoteProtocolError(ReasonCode.UNKNOWN, f"more than {limit} bytes before a whole CONNECT")

    def _step(self, buffer: bytes, offset: int) -> tuple[Event | None, int] | None:
        bounds = _codec.frame_bounds(buffer, offset, self._limits.max_frame_size)
        if bounds is None:
            self._check_first(buffer, offset)
            return None
        kind, start, end = bounds
        if self.state is State.IDLE and self._role is Role.SERVER:
            self._check_first(buffer, offset)
            return self._on_connect(buffer[start:end], buffer[offset] & 0x0F), end
        if kind == _frames.SEND and self._role is Role.SERVER:
            return self._on_send(buffer, offset, start, end), end
        decoded = _codec.decode(buffer, offset, self.version, self.family, max_frame=self._limits.max_frame_size)
        if decoded is None:
            return None
        return self._on_frame(decoded[0]), end

    def _check_first(self, buffer: bytes, offset: int) -> None:
        if self.state is State.IDLE and self._role is Role.SERVER and offset < len(buffer):
            first = buffer[offset]
            if first >> 4 != _frames.CONNECT:
                raise RemoteProtocolError(ReasonCode.UNKNOWN, f"the first packet is no CONNECT{guess(buffer[offset:])}")

    def _on_connect(self, body: bytes, flags: int) -> ConnectReceived:
        try:
            self.family, connect = _codec.read_connect(body, flags)
        except NotText as exc:
            self.version = min(body[0], LATEST_VERSION)
            refusal = self._connack(_frames.ConnAck(0, ReasonCode.AUTH_FAIL))
            raise RemoteProtocolError(ReasonCode.AUTH_FAIL, exc.detail, refusal) from None
        newest = 4 if self.family is Family.LIMAO else LATEST_VERSION
        self.version = min(connect.version, newest)
        self.connect_frame = connect
        self.state = State.PENDING
        return ConnectReceived(connect)

    def _on_send(self, buffer: bytes, offset: int, start: int, end: int) -> SendReceived:
        most = self._limits.max_frame_size
        decoded = _codec.decode(buffer, offset, self.version, self.family, max_frame=most, streams=StreamLayout.EITHER)
        if decoded is None or not isinstance(decoded[0], _frames.Send):
            raise RemoteProtocolError(ReasonCode.UNKNOWN, "a SEND cannot be read")
        send = decoded[0]
        if end - start + _hot.RECV_OVERHEAD > self._limits.max_frame_size:
            send.payload = b""
            return SendReceived(send, ReasonCode.PAYLOAD_DECODE_ERROR)
        return SendReceived(send, _seals.open_send(send, self._peer, self.family))

    def _on_frame(self, frame: Frame) -> Event | None:
        return self._of_client(frame) if self._role is Role.SERVER else self._of_server(frame)

    def _of_client(self, frame: Frame) -> Event | None:
        match frame:
            case _frames.RecvAck():
                return RecvAckReceived(frame)
            case _frames.Ping():
                return PingReceived()
            case _frames.Sub():
                return SubReceived(frame)
            case _frames.Disconnect():
                return DisconnectReceived(frame)
            case _frames.EventFrame():
                if self.has_events and is_stream_event(frame.type):
                    return EventReceived(frame)
                raise RemoteProtocolError(ReasonCode.UNKNOWN, "of events, clients send those of streams only")
            case _:
                return None  # a second CONNECT and the server's packets are ignored, as the reference does

    def _of_server(self, frame: Frame) -> Event | None:
        match frame:
            case _frames.ConnAck():
                return self._on_connack(frame)
            case _frames.SendAck():
                return SendAckReceived(frame)
            case _frames.Recv():
                return RecvReceived(_seals.open_recv(frame, self._peer))
            case _frames.Pong():
                return PongReceived()
            case _frames.Disconnect():
                return DisconnectReceived(frame)
            case _frames.SubAck():
                return SubAckReceived(frame)
            case _frames.EventFrame():
                return EventReceived(frame)
            case _:
                return None

    def _on_connack(self, frame: _frames.ConnAck) -> ConnAckReceived:
        if frame.reason_code != ReasonCode.SUCCESS:
            self.state = State.CLOSED
            return ConnAckReceived(frame)
        if frame.server_version:
            self.version = min(self.version, frame.server_version)
        if frame.server_key and self._keys is not None:
            salt = frame.salt.encode()
            if len(salt) < SALT_LENGTH:
                raise RemoteProtocolError(ReasonCode.UNKNOWN, f"the salt of a CONNACK has {len(salt)} bytes of 16")
            self._agree(self._keys, frame.server_key, salt)
            self._keys = None
        self.state = State.READY
        return ConnAckReceived(frame)

    # --- out, server

    def accept(
        self, private_key: bytes | KeyPair, salt: bytes, *, time_diff_ms: int, node_id: int, encrypt: bool = True
    ) -> bytes:
        """Let the client in: agree on keys and return the CONNACK.

        Args:
            private_key: 32 fresh random bytes, or a pair made of them; the client's key is fresh in any case.
            salt: 16 random characters of `0-9a-zA-Z`.
            time_diff_ms: Our time minus the client's.
            node_id: This server's number.
            encrypt: False if encryption is off for the whole server.

        Raises:
            RemoteProtocolError: The client's key is unusable; `answer` holds the CONNACK that says so.
        """
        connect = self._pending()
        has_keys = encrypt and not (self.family is Family.LIMAO and self.version < 3)
        server_key = ""
        if has_keys:
            keys = private_key if isinstance(private_key, KeyPair) else KeyPair(private_key)
            try:
                self._agree(keys, connect.client_key, salt)
            except RemoteProtocolError as exc:
                raise RemoteProtocolError(exc.reason, exc.detail, self.reject(exc.reason)) from None
            server_key = keys.public
        else:
            self._peer = hot.Peer(self.version, limao=self.family is Family.LIMAO)
        self.connect_frame = None  # nobody needs the token any more
        self.state = State.READY
        return self._connack(
            _frames.ConnAck(time_diff_ms, ReasonCode.SUCCESS, server_key, salt.decode() if has_keys else "", node_id)
        )

    def reject(self, reason: int) -> bytes:
        """Turn the client away; returns the CONNACK."""
        self._pending()
        self.state = State.CLOSED
        return self._connack(_frames.ConnAck(0, reason))

    def _pending(self) -> _frames.Connect:
        if self.state is not State.PENDING or self.connect_frame is None:
            raise LocalProtocolError(f"no CONNECT is waiting (state {self.state.value})")
        return self.connect_frame

    def _connack(self, frame: _frames.ConnAck) -> bytes:
        if self.family is Family.WUKONG and self.version > 3:
            frame.flags, frame.server_version = 1, self.version
        return _codec.encode(frame, self.version, self.family)

    def encode_recvs(self, recvs: Sequence[_hot.RecvFields], *, apart: bool = False) -> list[bytes]:
        """Return the RECVs of messages for this receiver, encrypted and signed; joined, or each `apart`."""
        if not apart:
            return hot.write_recvs(recvs, [self._peer])
        return [frame for recv in recvs for frame in hot.write_recvs([recv], [self._peer])]

    def encode_sendacks(
        self, marks: Sequence[_hot.Mark], receipts: Sequence[_hot.Receipt], *, apart: bool = False
    ) -> list[bytes]:
        """Return the SENDACKs of a batch; joined, or each `apart`."""
        acks = hot.write_sendacks(marks, receipts, limao=self.family is Family.LIMAO)
        size = _hot.SENDACK_BYTES
        return [acks[at : at + size] for at in range(0, len(acks), size)] if apart else [acks]

    def send(self, frame: Frame) -> bytes:
        """Return the bytes of a frame.

        Raises:
            LocalProtocolError: The peer's version has no such frame.
        """
        _codec.check_version(frame, self.version)
        return _codec.encode(frame, self.version, self.family)

    # --- out, client

    def connect(
        self,
        *,
        uid: str,
        token: str,
        device_id: str,
        device_flag: int,
        client_timestamp: int,
        private_key: bytes,
        version: int = LATEST_VERSION,
        family: Family = Family.WUKONG,
    ) -> bytes:
        """Return the CONNECT of a client."""
        self._keys = KeyPair(private_key)
        self.family, self.version, self.state = family, version, State.PENDING
        frame = _frames.Connect(version, device_flag, device_id, uid, token, client_timestamp, self._keys.public)
        return _codec.encode(frame, version, family)

    def send_message(
        self,
        *,
        client_seq: int,
        client_msg_no: str,
        channel_id: str,
        channel_type: int,
        payload: bytes,
        flags: int = RED_DOT,
        setting: int = 0,
        expire: int = 0,
        topic: str = "",
        stream_no: str = "",
    ) -> bytes:
        """Return a SEND, encrypted and signed."""
        fields = (setting, client_seq, client_msg_no, channel_id, channel_type, expire, "", topic, payload, flags)
        frame = _seals.seal_send(_frames.Send(*fields, stream_no), self._peer)
        return _codec.encode(frame, self.version, self.family, StreamLayout.EITHER)

    def recv_ack(self, recv: _frames.Recv) -> bytes:
        """Return the RECVACK of a RECV, with its flags."""
        flags = recv.flags & (NO_PERSIST | RED_DOT | SYNC_ONCE)
        return _codec.encode(_frames.RecvAck(recv.message_id, recv.message_seq, flags), self.version, self.family)

    def ping(self) -> bytes:
        """Return a PING."""
        return _codec.encode(_frames.Ping(), self.version, self.family)


_DEFAULT_LIMITS = Limits()
_NOTHING = Batch()
_NO_PEER = hot.Peer(LATEST_VERSION)


def is_compiled() -> bool:
    """Whether the compiled hot path is in use."""
    return hot is not _choice.PURE
