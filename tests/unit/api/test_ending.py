"""The end of an answer waits for the end of its request."""

from typing import Any

import pytest
import trio
import trio.testing

from triolet_api._ending import FINISH_S, LINGER_S, ending_last

START = {"type": "http.response.start", "status": 404, "headers": []}
END = {"type": "http.response.body", "body": b"", "more_body": False}


async def refuse(scope: Any, receive: Any, send: Any) -> None:
    """Answer at once, and read what comes beside that, as Quart does."""

    async def read() -> None:
        while (await receive()).get("more_body"):
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await send(START)
        await send({"type": "http.response.body", "body": b"no"})
        nursery.cancel_scope.cancel()


async def test_the_answer_is_sent_at_once_and_ends_with_the_request(autojump_clock: trio.testing.MockClock) -> None:
    sent: list[tuple[float, Any]] = []
    parts = iter([True, True, False])

    async def receive() -> Any:
        await trio.sleep(1)
        return {"type": "http.request", "body": b"x", "more_body": next(parts)}

    async def send(message: Any) -> None:
        sent.append((trio.current_time(), message))

    start = trio.current_time()
    await ending_last(refuse)({"type": "http"}, receive, send)
    body = {"type": "http.response.body", "body": b"no", "more_body": True}
    assert sent == [(start, START), (start, body), (pytest.approx(start + 3), END)]


async def test_a_request_that_does_not_end_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    start = trio.current_time()
    await ending_last(refuse)({"type": "http"}, trio.sleep_forever, send)  # type: ignore[arg-type]  # nothing ever comes
    assert trio.current_time() - start == pytest.approx(LINGER_S)
    assert sent[-1] == END


@pytest.mark.parametrize(("takes_s", "is_taken"), [(FINISH_S / 2, True), (FINISH_S * 2, False)])
async def test_an_application_that_ends_itself_still_ends_its_answer(
    autojump_clock: trio.testing.MockClock, takes_s: float, is_taken: bool
) -> None:
    """For a bounded time: the web server says that the connection is closed while it closes it."""
    done: list[str] = []

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    with trio.CancelScope() as scope:

        async def send(message: Any) -> None:
            if message == END:
                scope.cancel()
                await trio.sleep(takes_s)
                done.append("closed")

        await ending_last(refuse)({"type": "http"}, receive, send)
    assert done == (["closed"] if is_taken else [])
