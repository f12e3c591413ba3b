import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from triolet_core import (
    ChannelKey,
    Device,
    Draft,
    PluginError,
    ReasonCode,
    Server,
    ServerConfig,
    StoreLocked,
    open_server,
)
from triolet_core.config import NodeConfig, PluginsConfig
from triolet_core.hooks import OfflineMessage
from triolet_core.model import person_channel_id
from triolet_core.plugin import OnFailure, PluginContext, PluginSpec
from triolet_core.testing import draft

ANN = Device(uid="ann", device_id="d1")
ANN_BOB = ChannelKey(person_channel_id("ann", "bob"), 1)
ROOT = Path(__file__).parents[2]

Body = Callable[[PluginContext[Any]], Awaitable[None]]


@attrs.frozen
class Settings:
    pass


def at(path: Path, **changes: Any) -> ServerConfig:
    return ServerConfig(node=NodeConfig(data_dir=str(path)), **changes)


def plugin(name: str, body: Body, *, after: str = "") -> PluginSpec:
    """A plugin that is ready at once and does `body`."""

    async def run(context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await body(context)

    return PluginSpec(name=name, run=run, config_class=Settings, after=frozenset(after.split()))


async def until_asked(context: PluginContext[Any]) -> None:
    await context.stopping.wait()


async def stored(path: Path) -> list[bytes]:
    """What ann and bob wrote to each other, read by a server of its own."""
    async with open_server(at(path), plugins=()) as server:
        page = server.broker.messages.sync(ANN_BOB, start=0, end=0, limit=0, newer=False)
        return [message.payload for message in page.messages]


async def say(server: Server, payload: bytes) -> None:
    receipt = await server.broker.messages.send(ANN, draft("bob", payload))
    assert receipt.reason == ReasonCode.SUCCESS


async def test_two_servers_live_in_one_process(tmp_path: Path) -> None:
    """architecture.md, section 5: no global state."""
    one, two = at(tmp_path / "1"), at(tmp_path / "2")
    specs = [plugin("a", until_asked)]
    async with open_server(one, plugins=specs) as first, open_server(two, plugins=specs) as second:
        await say(first, b"1")
        await say(second, b"2")
        assert first.plugins == second.plugins == ("a",)
    assert await stored(tmp_path / "1") == [b"1"]
    assert await stored(tmp_path / "2") == [b"2"]


async def test_a_directory_serves_one_server_at_a_time(tmp_path: Path) -> None:
    async with open_server(at(tmp_path), plugins=()):
        with pytest.raises(StoreLocked):
            async with open_server(at(tmp_path), plugins=()):
                pytest.fail("the block must not run")


async def test_leaving_the_block_commits_what_is_queued(tmp_path: Path) -> None:
    async with open_server(at(tmp_path), plugins=()) as server:
        await server.broker.messages.submit(ANN, [draft("bob", b"%d" % n) for n in range(100)], lambda receipts: None)
    assert await stored(tmp_path) == [b"%d" % n for n in range(50, 100)]


async def test_an_error_of_the_block_comes_out_alone_and_loses_nothing(tmp_path: Path) -> None:
    error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError) as raised:
        async with open_server(at(tmp_path), plugins=[plugin("a", until_asked)]) as server:
            await server.broker.messages.submit(ANN, [draft("bob", b"queued")], lambda receipts: None)
            raise error from KeyError("cause")
    assert raised.value is error
    assert isinstance(error.__cause__, KeyError)
    assert await stored(tmp_path) == [b"queued"]


async def test_an_interrupt_comes_out_alone(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        async with open_server(at(tmp_path), plugins=[plugin("a", until_asked)]):
            raise KeyboardInterrupt


async def test_cancelling_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    """architecture.md, section 6: the second way to end."""
    ended: list[str] = []

    async def body(context: PluginContext[Any]) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("a")

    with trio.CancelScope() as scope:
        async with open_server(at(tmp_path), plugins=[plugin("a", body)]) as server:
            await say(server, b"acknowledged")
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert ended == ["a"]
    assert await stored(tmp_path) == [b"acknowledged"]


async def test_a_failing_plugin_ends_the_server_in_order(tmp_path: Path) -> None:
    """architecture.md, section 5: STOP; the others drain, and the store is closed and whole."""
    error = ValueError("broken")
    fail = trio.Event()

    async def fails(context: PluginContext[Any]) -> None:
        await fail.wait()
        raise error

    async def sends_when_asked(context: PluginContext[Any]) -> None:
        await context.stopping.wait()
        await context.broker.messages.submit(ANN, [draft("bob", b"last words")], lambda receipts: None)

    with pytest.raises(PluginError) as raised:
        async with open_server(at(tmp_path), plugins=[plugin("a", sends_when_asked), plugin("b", fails)]):
            fail.set()
            await trio.sleep_forever()
    assert str(raised.value) == "plugin 'b' failed while running: ValueError('broken')"
    assert raised.value.__cause__ is error
    assert await stored(tmp_path) == [b"last words"]


async def test_a_failing_start_leaves_the_store_free(tmp_path: Path) -> None:
    async def run(context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
        raise OSError("port taken")

    spec = PluginSpec(name="a", run=run, config_class=Settings, on_failure=OnFailure.RESTART)
    with pytest.raises(PluginError, match="'a' failed while starting"):
        async with open_server(at(tmp_path), plugins=[spec]):
            pytest.fail("the block must not run")
    assert await stored(tmp_path) == []


async def test_the_block_goes_on_after_a_requested_stop(tmp_path: Path) -> None:
    async with open_server(at(tmp_path), plugins=[plugin("a", until_asked)]) as server:
        server.request_stop()
        await server.wait_stopped()
        await say(server, b"after the plugins")
    assert await stored(tmp_path) == [b"after the plugins"]


async def test_disabled_plugins_do_not_run(tmp_path: Path) -> None:
    config = at(tmp_path, plugins=PluginsConfig(disabled=("a",)))
    async with open_server(config, plugins=[plugin("a", until_asked), plugin("b", until_asked)]) as server:
        assert server.plugins == ("b",)


async def test_what_drains_first_still_reaches_what_drains_later(tmp_path: Path) -> None:
    """architecture.md, section 6, shutdown order: offline events exist before the webhook is asked to stop."""
    seen: list[bytes] = []

    async def webhook(context: PluginContext[Any]) -> None:
        with context.hooks.offline_messages.subscribe() as offline:
            await context.stopping.wait()
            event: OfflineMessage
            while offline.receive.statistics().current_buffer_used:
                event = offline.receive.receive_nowait()
                seen.append(event.message.payload)

    async def gateway(context: PluginContext[Any]) -> None:
        await context.stopping.wait()
        drafts = [Draft(channel_id="bob", channel_type=1, payload=b"sent at the end")]
        await context.broker.messages.submit(ANN, drafts, lambda receipts: None)

    specs = [plugin("webhook", webhook), plugin("gateway", gateway, after="webhook")]
    async with open_server(at(tmp_path), plugins=specs):
        await trio.testing.wait_all_tasks_blocked()
    assert seen == [b"sent at the end"]


@pytest.mark.slow
def test_the_embedding_example_runs() -> None:
    """examples/embed.py: sends, reads back, and ends by itself."""
    done = subprocess.run([sys.executable, ROOT / "examples" / "embed.py"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "sent: SUCCESS, seq 1\nread back: ann wrote 'hello team'\nunread of bob: 1\n" in done.stdout
