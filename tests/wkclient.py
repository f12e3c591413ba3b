"""A client for tests: the protocol's own client role on a TCP or WebSocket connection."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio_websocket

import triolet_protocol as wire


class Client:
    """One connection. `wait_for` takes the next event of a kind; others are kept."""

    def __init__(self, stream: Any, *, is_websocket: bool = False) -> None:
        self.stream = stream
        self.is_websocket = is_websocket
        self.connection = wire.Connection(wire.Role.CLIENT)
        self.waiting: list[wire.Event] = []
        self.is_closed = False
        self._seq = 0

    async def send_raw(self, data: bytes) -> None:
        if self.is_websocket:
            await self.stream.send_message(data)
        else:
            await self.stream.send_all(data)

    async def _receive(self) -> bytes:
        try:
            if self.is_websocket:
                return await self.stream.get_message()
            return await self.stream.receive_some(65536)
        except (trio.BrokenResourceError, trio_websocket.ConnectionClosed):
            return b""

    async def wait_for(self, kind: type) -> Any:
        while True:
            for event in self.waiting:
                if isinstance(event, kind):
                    self.waiting.remove(event)
                    return event
            data = await self._receive()
            if not data:
                self.is_closed = True
                raise EOFError
            self.connection.receive_data(data)
            self.waiting += self.connection.events()

    async def wait_closed(self) -> None:
        """Read until the server has closed the connection."""
        while await self._receive():
            pass
        self.is_closed = True

    async def connect(self, uid: str, token: str = "", *, flag: int = 0, device_id: str = "d1", **more: Any) -> int:
        """Log in; returns the reason of the CONNACK."""
        await self.send_raw(
            self.connection.connect(
                uid=uid,
                token=token,
                device_id=device_id,
                device_flag=flag,
                client_timestamp=0,
                private_key=os.urandom(32),
                **more,
            )
        )
        return (await self.wait_for(wire.ConnAckReceived)).connack.reason_code

    def message(
        self, channel_id: str, payload: bytes = b"hi", *, channel_type: int = 1, number: str = "", **more: Any
    ) -> bytes:
        self._seq += 1
        return self.connection.send_message(
            client_seq=self._seq,
            client_msg_no=number or f"{id(self)}-{self._seq}",
            channel_id=channel_id,
            channel_type=channel_type,
            payload=payload,
            **more,
        )

    async def send(self, channel_id: str, payload: bytes = b"hi", **more: Any) -> wire.SendAck:
        """Send a message and wait for its SENDACK."""
        await self.send_raw(self.message(channel_id, payload, **more))
        return (await self.wait_for(wire.SendAckReceived)).sendack

    async def receive(self, *, ack: bool = True) -> wire.Recv:
        """Take the next message."""
        recv = (await self.wait_for(wire.RecvReceived)).recv
        if ack:
            await self.send_raw(self.connection.recv_ack(recv))
        return recv

    async def ping(self) -> None:
        """Send a PING and wait for the PONG: everything sent before has been handled."""
        await self.send_raw(self.connection.ping())
        await self.wait_for(wire.PongReceived)


@asynccontextmanager
async def tcp_client(address: str) -> AsyncIterator[Client]:
    host, _, port = address.rpartition(":")
    async with await trio.open_tcp_stream(host.strip("[]"), int(port)) as stream:
        yield Client(stream)


@asynccontextmanager
async def ws_client(address: str) -> AsyncIterator[Client]:
    host, _, port = address.rpartition(":")
    async with await trio.open_tcp_stream(host.strip("[]"), int(port)) as stream, trio.open_nursery() as nursery:
        websocket = await trio_websocket.wrap_client_stream(nursery, stream, address, "/any/path?q=1")
        yield Client(websocket, is_websocket=True)
        await websocket.aclose()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def client(server: Any, kind: str = "tcp") -> AsyncIterator[Client]:
    opened = tcp_client if kind == "tcp" else ws_client
    async with opened(server.broker.endpoints[kind]) as made:
        yield made


def let_logins_wait(monkeypatch: pytest.MonkeyPatch, server: Any, authenticate: Callable[..., Awaitable[Any]]) -> None:
    """Let `authenticate` decide about logins, which may take its time."""

    def ask_first(request: object) -> Any:
        raise trio.WouldBlock

    monkeypatch.setattr(server.broker.users, "authenticate_nowait", ask_first)
    monkeypatch.setattr(server.broker.users, "authenticate", authenticate)
