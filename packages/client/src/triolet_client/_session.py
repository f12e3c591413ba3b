"""One connection: login, reading, writing, keep-alive. It ends once and says why; it does not come back."""

import json
import os
import time
from collections.abc import Callable, Iterable
from typing import Protocol

import anyio
from anyio.lowlevel import checkpoint

import triolet_protocol as wire
from triolet_client._errors import ClientError, ConnectionFailed, Kicked, Refused
from triolet_client._model import DATA, SYSTEM_UID, Channel, Event, Login, Message, Reason, Settings
from triolet_client._transport import Transport

MAX_WAITING_PACKETS = 10_000
"""Packets that wait to be written. Beyond it acknowledgements of deliveries are left out: the server repeats those."""


class Listener(Protocol):
    """Whoever takes what a session receives. None of these may wait."""

    def on_message(self, message: Message, session: "Session") -> None:
        """A message arrived."""
        ...

    def on_receipt(self, client_seq: int, reason: int, message_id: int, seq: int) -> None:
        """A message was answered."""
        ...

    def on_event(self, event: Event) -> None:
        """An event arrived."""
        ...

    def on_suback(self, sub_no: str, reason: int) -> None:
        """A subscription was answered."""
        ...


class Session:
    """A connection that is logged in, or about to be."""

    def __init__(
        self,
        transport: Transport,
        login: Login,
        settings: Settings,
        listener: Listener,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self._transport = transport
        self._login = login
        self._settings = settings
        self._listener = listener
        self._clock_s = clock_s
        self._connection = wire.Connection(wire.Role.CLIENT)
        self._early: list[wire.Event] = []
        self._outgoing: list[bytes] = []
        self._wake = anyio.Event()
        self._written = anyio.Event()
        self._is_writing = False
        self._pong = anyio.Event()
        self._scope = anyio.CancelScope()
        self.failure: ClientError = ConnectionFailed("the connection is lost")
        """Why it ended."""
        self.server_offset_s = 0.0

    # --- life

    async def log_in(self) -> None:
        """Say who we are and wait for the answer, within `Settings.connect_timeout_s`.

        Raises:
            Refused: The server says no.
            ConnectionFailed: It says nothing, or something else.
        """
        try:
            with anyio.fail_after(self._settings.connect_timeout_s):
                await self._transport.send([self._hello()])
                while not self._early:
                    self._early = await self._receive()
        except TimeoutError as exc:
            raise ConnectionFailed("the server does not answer the login") from exc
        first = self._early.pop(0)
        if not isinstance(first, wire.ConnAckReceived):
            raise ConnectionFailed("the server answers the login with something else")
        if first.connack.reason_code != Reason.SUCCESS:
            raise Refused(first.connack.reason_code)
        self.server_offset_s = first.connack.time_diff / 1000

    def _hello(self) -> bytes:
        login = self._login
        return self._connection.connect(
            uid=login.uid,
            token=login.token,
            device_id=login.device_id,
            device_flag=login.device_flag,
            client_timestamp=int(self._clock_s() * 1000),
            private_key=os.urandom(32),
        )

    async def _receive(self) -> list[wire.Event]:
        data = await self._transport.receive()
        if not data:
            raise ConnectionFailed("the server closed the connection")
        self._connection.receive_data(data)
        try:
            return self._connection.events()
        except wire.RemoteProtocolError as exc:
            raise ConnectionFailed(f"the server breaks the protocol: {exc.detail}") from exc

    async def run(self) -> None:
        """Serve until the connection ends; `failure` says why. Closes the transport."""
        try:
            with self._scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._read)
                    tasks.start_soon(self._write)
                    tasks.start_soon(self._keep_alive)
        finally:
            await self._transport.aclose()

    def _end(self, failure: ClientError) -> None:
        if not self._scope.cancel_called:
            self.failure = failure
            self._scope.cancel()

    async def _read(self) -> None:
        events, self._early = self._early, []
        try:
            while True:
                for event in events:
                    self._on_event(event)
                events = await self._receive()
        except ClientError as exc:
            self._end(exc)

    def _on_event(self, event: wire.Event) -> None:
        match event:
            case wire.RecvReceived():
                self._listener.on_message(_message(event.recv), self)
            case wire.SendAckReceived():
                ack = event.sendack
                self._listener.on_receipt(ack.client_seq, ack.reason_code, ack.message_id, ack.message_seq)
            case wire.EventReceived():
                found = event.event
                self._listener.on_event(Event(id=found.id, type=found.type, timestamp=found.timestamp, data=found.data))
            case wire.SubAckReceived():
                self._listener.on_suback(event.suback.sub_no, event.suback.reason_code)
            case wire.PongReceived():
                self._pong.set()
            case wire.DisconnectReceived():
                raise Kicked(event.disconnect.reason_code, event.disconnect.reason)

    async def _write(self) -> None:
        try:
            while True:
                while self._outgoing:
                    packets, self._outgoing = self._outgoing, []
                    self._is_writing = True
                    await self._transport.send(packets)
                    self._is_writing = False
                self._written.set()
                self._wake = anyio.Event()
                await self._wake.wait()
        except ClientError as exc:
            self._end(exc)

    async def _keep_alive(self) -> None:
        while True:
            await anyio.sleep(self._settings.ping_interval_s)
            self._pong = anyio.Event()
            self._submit(self._connection.ping())
            with anyio.move_on_after(self._settings.pong_timeout_s):
                await self._pong.wait()
            if not self._pong.is_set():
                self._end(ConnectionFailed("the server does not answer a ping"))

    async def wait_written(self) -> None:
        """Wait until everything was handed to the transport; the caller limits the time."""
        await checkpoint()
        while self._outgoing or self._is_writing:
            self._written = anyio.Event()
            await self._written.wait()

    # --- out; nothing waits

    def send_message(
        self,
        client_seq: int,
        client_msg_no: str,
        channel: Channel,
        payload: bytes,
        *,
        flags: int,
        setting: int,
        expire: int,
        topic: str,
    ) -> None:
        """Send a message.

        Raises:
            ValueError: It is too long for the protocol.
        """
        try:
            packet = self._connection.send_message(
                client_seq=client_seq,
                client_msg_no=client_msg_no,
                channel_id=channel.id,
                channel_type=channel.type,
                payload=payload,
                flags=flags,
                setting=setting,
                expire=expire,
                topic=topic,
            )
        except wire.LocalProtocolError as exc:
            raise ValueError(str(exc)) from exc
        if len(packet) > _MAX_PACKET:
            raise ValueError(f"a message of {len(payload)} bytes makes a packet over {_MAX_PACKET}; send less")
        self._submit(packet)

    def acknowledge(self, message: Message) -> None:
        """Tell the server that a message arrived."""
        if len(self._outgoing) < MAX_WAITING_PACKETS:
            flags = message.flags & ~wire.DUP
            self._submit(self._connection.send(wire.RecvAck(message.message_id, message.seq, flags)))

    def watch(self, sub_no: str, uids: Iterable[str], expire_s: int) -> None:
        """Ask to be told whether users are online."""
        self._subscribe(sub_no, _SUBSCRIBE, {"uids": list(uids), "expire": expire_s})

    def unwatch(self, sub_no: str, uids: Iterable[str]) -> None:
        """Ask not to be told of them any more."""
        self._subscribe(sub_no, _UNSUBSCRIBE, {"uids": list(uids)})

    def _subscribe(self, sub_no: str, action: int, param: dict[str, object]) -> None:
        text = json.dumps(param, separators=(",", ":"), ensure_ascii=False)
        self._submit(self._connection.send(wire.Sub(0, sub_no, _PRESENCE, DATA, action, text)))

    def _submit(self, packet: bytes) -> None:
        self._outgoing.append(packet)
        self._wake.set()


_SUBSCRIBE, _UNSUBSCRIBE = 0, 1
_PRESENCE = "presence:"
_MAX_PACKET = wire.Limits().max_frame_size


def _message(recv: wire.Recv) -> Message:
    return Message(
        message_id=recv.message_id,
        seq=recv.message_seq,
        channel=Channel(recv.channel_id or SYSTEM_UID, recv.channel_type),
        from_uid=recv.from_uid,
        client_msg_no=recv.client_msg_no,
        timestamp=recv.timestamp,
        payload=recv.payload,
        flags=recv.flags,
        setting=recv.setting,
        expire=recv.expire,
        topic=recv.topic,
    )
