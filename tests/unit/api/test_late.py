"""The application behind the hot endpoints is loaded after the server listens."""

from typing import Any

import pytest
import trio
import trio.testing

from triolet_api._late import LATE_S, LateApplication

SCOPE = {"type": "http", "path": "/health"}


async def _nothing() -> dict[str, Any]:
    return {}


async def _drop(message: dict[str, Any]) -> None:
    pass


async def test_requests_wait_until_it_is_loaded(autojump_clock: trio.testing.MockClock) -> None:
    """The first request has it loaded at once, those that come meanwhile wait, and it is loaded once."""
    served, loaded = [], []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        served.append(scope["path"])

    def load() -> Any:
        loaded.append(True)
        return application

    late = LateApplication(load)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(late, SCOPE, _nothing, _drop)
        nursery.start_soon(late, SCOPE, _nothing, _drop)
        await trio.testing.wait_all_tasks_blocked()
        assert served == []
        await late.run()
    await late(SCOPE, _nothing, _drop)
    assert (served, loaded) == ([SCOPE["path"]] * 3, [True])
    assert trio.current_time() < LATE_S


async def test_it_is_loaded_though_nobody_asks(autojump_clock: trio.testing.MockClock) -> None:
    """A request that comes later finds it there."""
    loaded = []
    began = trio.current_time()
    await LateApplication(lambda: loaded.append(True)).run()  # type: ignore[arg-type, return-value]  # is not called
    assert loaded == [True]
    assert trio.current_time() - began == LATE_S


async def test_what_it_fails_with_comes_out(autojump_clock: trio.testing.MockClock) -> None:
    """An application that cannot be built ends the plugin, as if it had been built at the start."""

    def load() -> Any:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await LateApplication(load).run()
