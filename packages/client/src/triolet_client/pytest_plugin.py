"""Fixtures for the tests of programs that use the client; install `triolet-client[pytest]`.

    async def test_a_bot_answers(triolet_server, triolet_clock):
        async with triolet_server.open_client("ann") as ann:
            ...
            await triolet_server.advance(60)

`triolet_clock` stands still until the test lets time pass; without it time is real. A clock that jumps by itself
(`autojump_clock`) would jump while the server writes to disk, which a thread does.
"""

from collections.abc import AsyncIterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import trio.testing

    from triolet_client.testing import ServerForTests

if find_spec("pytest_trio") is not None:  # every pytest of the environment loads this, also without the extra
    from pytest_trio import trio_fixture

    @pytest.fixture
    def triolet_clock() -> "trio.testing.MockClock":
        """A clock that stands still until `triolet_server.advance` is called."""
        import trio.testing

        return trio.testing.MockClock()

    @pytest.fixture
    def triolet_settings() -> Sequence[str]:
        """Settings of the server, `key=value` each; override it."""
        return ()

    @trio_fixture  # type: ignore[untyped-decorator]  # pytest-trio has no types
    async def triolet_server(tmp_path: Path, triolet_settings: Sequence[str]) -> "AsyncIterator[ServerForTests]":
        """A server with its data below tmp_path; see `triolet_client.testing.ServerForTests`."""
        from triolet_client.testing import open_test_server

        async with open_test_server(tmp_path / "triolet", triolet_settings) as server:
            yield server  # noqa: ASYNC119  # pytest-trio closes fixtures
