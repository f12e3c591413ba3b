"""The end of an answer that is ready before its request is, for Hypercorn.

An answer may be ready while the request's body is still on its way: nobody knows the path, or the body is too long.
Hypercorn takes the next request from the connection only if it has seen the end of this one, and closing instead would
destroy the answer with a reset. So the last part of the answer, which ends it, waits for the body.
"""

import trio

from triolet_api._front import Application, Receive, Scope, Send

LINGER_S = 5.0
"""Longest wait for the rest of a body that nobody reads; then the connection is closed."""
FINISH_S = 2.0
"""Longest time to hand over the end of an answer when the application is cancelled meanwhile."""


def ending_last(application: Application) -> Application:
    """Return an application whose answers end after their requests.

    The end is shielded: Hypercorn tells an application of a closed connection while it closes it, and Quart, which
    ends itself at that moment, would leave the connection open and deaf.
    """

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        arrived = trio.Event()

        async def watched() -> Scope:
            message = await receive()
            if not message.get("more_body", False):
                arrived.set()
            return message

        async def ended(message: Scope) -> None:
            if message["type"] != "http.response.body" or message.get("more_body", False):
                await send(message)
                return
            if message.get("body"):
                await send({**message, "more_body": True})
            with trio.move_on_after(LINGER_S):
                await arrived.wait()
            with trio.move_on_after(FINISH_S, shield=True):
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        await application(scope, watched, ended)

    return wrapped
