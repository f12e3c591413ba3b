"""The window of repeats is filled in a thread while the server starts: no repeat slips through before it is."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from triolet_core import ChannelKey, StoreError, store
from triolet_core.config import MessageConfig, StoreConfig
from triolet_core.model import Draft, Message
from triolet_core.store import NothingFollows, Store, open_store

GROUP = ChannelKey("g", 2)


@pytest.fixture(autouse=True)
def _every_store_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_FEW_ROWS", 0)


@asynccontextmanager
async def store_in(path: Path) -> AsyncIterator[Store]:
    async with open_store(
        path, StoreConfig(), MessageConfig(), node=1, after_commit=NothingFollows(), clock_s=lambda: 1_700_000_000.0
    ) as opened:
        yield opened


async def append(opened: Store, number: str) -> tuple[Message, bool]:
    [answer] = await opened.writer.change(lambda sealer: sealer.append(GROUP, "a", [Draft("g", 2, b"x", number)]))
    return answer


async def test_a_repeat_waits_for_the_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is open before the window is filled; a repeat sent then has the first message for an answer."""
    async with store_in(tmp_path) as opened:
        first, _ = await append(opened, "1")
    may_fill, read = threading.Event(), store._last_sends

    def held(*arguments: Any) -> dict[int, int]:
        may_fill.wait()
        return read(*arguments)

    monkeypatch.setattr(store, "_last_sends", held)
    answers: dict[str, tuple[Message, bool]] = {}

    async def send(number: str) -> None:
        answers[number] = await append(opened, number)

    async with store_in(tmp_path) as opened:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, "1")
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(send, "2")
                await trio.testing.wait_all_tasks_blocked()
                assert answers == {}
                may_fill.set()
        finally:
            may_fill.set()
        assert (answers["1"][0].message_id, answers["1"][1]) == (first.message_id, False)
        assert (answers["2"][0].seq, answers["2"][1]) == (2, True)


async def test_without_the_window_nothing_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What keeps it from being filled ends the store, and a send that waited for it fails."""
    may_fail = threading.Event()

    def failing(*_: Any) -> dict[int, int]:
        may_fail.wait()
        raise ValueError("broken")

    monkeypatch.setattr(store, "_last_sends", failing)
    failures: list[Exception] = []
    with pytest.raises(ExceptionGroup) as ended:
        async with store_in(tmp_path) as opened, trio.open_nursery() as nursery:

            async def send() -> None:
                with trio.CancelScope(shield=True):
                    try:
                        await append(opened, "1")
                    except StoreError as exc:
                        failures.append(exc)

            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            may_fail.set()
            await trio.sleep_forever()
    assert ended.group_contains(ValueError, match="broken")
    assert len(failures) == 1
    monkeypatch.setattr(store, "_last_sends", lambda *_: {})
    async with store_in(tmp_path) as opened:
        assert (await append(opened, "1"))[1]
