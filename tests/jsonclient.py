"""A JSON-RPC client for tests, on a WebSocket or a TCP connection."""

import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import trio
import trio_websocket


class JsonClient:
    """One connection. `wait_for` takes the first message that fits; others are kept."""

    def __init__(self, stream: Any, *, is_websocket: bool) -> None:
        self.stream = stream
        self.is_websocket = is_websocket
        self.waiting: list[Any] = []
        self._ids = count(1)
        self._buffer = ""

    async def send_text(self, text: str) -> None:
        if self.is_websocket:
            await self.stream.send_message(text)
        else:
            await self.stream.send_all(text.encode())

    async def _receive(self) -> None:
        try:
            if self.is_websocket:
                text = await self.stream.get_message()
                assert isinstance(text, str)
                self.waiting.append(json.loads(text))
                return
            data = await self.stream.receive_some(65536)
        except (trio.BrokenResourceError, trio_websocket.ConnectionClosed):
            raise EOFError from None
        if not data:
            raise EOFError
        self._buffer += data.decode()
        while self._buffer:
            try:
                message, end = json.JSONDecoder().raw_decode(self._buffer)
            except ValueError:
                return
            self.waiting.append(message)
            self._buffer = self._buffer[end:]

    async def take(self) -> Any:
        """Return the next message, whatever it is."""
        while not self.waiting:
            await self._receive()
        return self.waiting.pop(0)

    async def wait_for(self, **members: Any) -> Any:
        """Return the next message with these members."""
        while True:
            for message in self.waiting:
                if all(message.get(name) == value for name, value in members.items()):
                    self.waiting.remove(message)
                    return message
            await self._receive()

    async def call(self, method: str, **params: Any) -> Any:
        """Make a request; returns the whole answer."""
        request = f"r{next(self._ids)}"
        await self.send_text(json.dumps({"id": request, "method": method, "params": params}))
        return await self.wait_for(id=request)

    async def connect(self, uid: str, **params: Any) -> Any:
        return await self.call("connect", uid=uid, deviceId="d1", clientTimestamp=1, **params)

    async def send(self, channel_id: str, payload: bytes = b"hi", *, channel_type: int = 1, **params: Any) -> Any:
        """Send a message; returns the result."""
        answer = await self.call(
            "send", channelId=channel_id, channelType=channel_type, payload=b64encode(payload).decode(), **params
        )
        return answer["result"]

    async def receive(self) -> Any:
        """Take the next message, acknowledge it, and return its params with the payload decoded."""
        params = (await self.wait_for(method="recv"))["params"]
        acknowledged = {name: params[name] for name in ("header", "messageId", "messageSeq") if name in params}
        await self.send_text(json.dumps({"method": "recvack", "params": acknowledged}))
        return {**params, "payload": b64decode(params["payload"])}

    async def wait_closed(self) -> None:
        """Read until the server has closed the connection."""
        while True:
            try:
                await self._receive()
            except EOFError:
                return


@asynccontextmanager
async def json_client(server: Any, kind: str = "ws") -> AsyncIterator[JsonClient]:
    address = server.broker.endpoints[kind]
    host, _, port = address.rpartition(":")
    async with await trio.open_tcp_stream(host.strip("[]"), int(port)) as stream, trio.open_nursery() as nursery:
        if kind == "tcp":
            yield JsonClient(stream, is_websocket=False)
            return
        websocket = await trio_websocket.wrap_client_stream(nursery, stream, address, "/")
        yield JsonClient(websocket, is_websocket=True)
        await websocket.aclose()
        nursery.cancel_scope.cancel()
