"""The application behind the hot endpoints, loaded once the server listens: Quart takes longer than all the rest."""

from collections.abc import Callable

import trio

from triolet_api._front import Application, Receive, Scope, Send

LATE_S = 20.0
"""How long the hot endpoints have the processor to themselves after a start, unless somebody wants another one."""


class LateApplication:
    """An ASGI application that is made in a thread; requests wait for it."""

    def __init__(self, load: Callable[[], Application]) -> None:
        """`load` is called once, in a thread."""
        self._load = load
        self._application: Application | None = None
        self._wanted = trio.Event()
        self._ready = trio.Event()

    async def run(self) -> None:
        """Make the application at the first request, or a while after the start; raises what `load` does."""
        with trio.move_on_after(LATE_S):
            await self._wanted.wait()
        self._application = await trio.to_thread.run_sync(self._load, limiter=trio.CapacityLimiter(1))
        self._ready.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Not a checkpoint of its own once the application is there."""
        if self._application is None:
            self._wanted.set()
            await self._ready.wait()
        assert self._application is not None  # noqa: S101  # `run` has set it before the event
        await self._application(scope, receive, send)
