"""A receiver of webhooks for tests: an application on loopback that keeps what it is sent and answers as told."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import Response, request
from quart_trio import QuartTrio


@attrs.frozen
class Push:
    """One request."""

    event: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Answer = Callable[[Push], Awaitable[Response | tuple[str, int]]]


async def accept(push: Push) -> tuple[str, int]:
    return "", 200


@attrs.define(eq=False)
class TestReceiver:
    """Pushes in the order they came; `answer` may be replaced at any time."""

    __test__ = False
    url: str
    answer: Answer = accept
    pushes: list[Push] = attrs.Factory(list)
    grown: trio.Event = attrs.Factory(trio.Event)

    async def wait_for(self, event: str, count: int = 1) -> list[Push]:
        """Wait until there are `count` pushes of an event, and return them."""
        while len(found := [push for push in self.pushes if push.event == event]) < count:
            await self.grown.wait()
        return found

    async def handle(self) -> Response | tuple[str, int]:
        body = await request.get_data()
        query = dict(request.args)
        push = Push(query.get("event", ""), query, {k.lower(): v for k, v in request.headers.items()}, body)
        answer = await self.answer(push)
        self.pushes.append(push)
        self.grown.set()
        self.grown = trio.Event()
        return answer


@asynccontextmanager
async def open_receiver(path: str = "/webhook") -> AsyncIterator[TestReceiver]:
    """Serve on a free port for the length of the block."""
    listener = trio.socket.socket()
    await listener.bind(("127.0.0.1", 0))
    listener.listen()
    receiver = TestReceiver(f"http://127.0.0.1:{listener.getsockname()[1]}{path}")
    app = QuartTrio("receiver")
    app.add_url_rule(path, view_func=receiver.handle, methods=["POST"])
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = config.accesslog = None
    config.graceful_timeout = 0.1
    config.shutdown_timeout = 1
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve(app, config, shutdown_trigger=stop.wait))
        try:
            yield receiver
        finally:
            stop.set()
