from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, cast

import attrs
import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from triolet_core._broker import Broker
from triolet_core._host import enabled, in_start_order, leaf_of, open_host
from triolet_core.config import PluginsConfig, Seconds, ServerConfig, ShutdownConfig
from triolet_core.errors import ConfigError, PluginError
from triolet_core.hooks import Hooks
from triolet_core.plugin import OnFailure, PluginContext, PluginSpec, Run


@attrs.frozen
class Settings:
    on: bool = True


@attrs.define(eq=False)
class FakeBroker:
    """Has what the host uses of a broker, and notes its flushes."""

    diary: list[str]
    hooks: Hooks = attrs.Factory(Hooks)
    plugin_phases: Any = dict

    async def flush(self) -> None:
        self.diary.append("flush")


@pytest.fixture
def diary() -> list[str]:
    """What happened, in order."""
    return []


@pytest.fixture
def broker(diary: list[str]) -> Broker:
    return cast("Broker", FakeBroker(diary))


def spec(name: str, run: Run, **changes: Any) -> PluginSpec:
    return PluginSpec(name=name, run=run, config_class=Settings, **changes)


def steady(name: str, diary: list[str], *, drain_s: float = 0.0) -> Run:
    """A plugin that runs until it is asked to stop, and drains for a while."""

    async def run(context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
        diary.append(f"{name} starts")
        task_status.started()
        try:
            await context.stopping.wait()
            diary.append(f"{name} drains")
            await trio.sleep(drain_s)
        except trio.Cancelled:
            diary.append(f"{name} cancelled")
            raise
        diary.append(f"{name} ends")

    return run


def failing(error: Exception, *, after_s: float | None) -> Run:
    """A plugin that raises some time after it is ready, or (None) before."""

    async def run(context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
        if after_s is not None:
            task_status.started()
            await trio.sleep(after_s)
        raise error

    return run


async def idle(context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    await context.stopping.wait()


def named(*names: str, **relations: dict[str, Any]) -> list[PluginSpec]:
    return [spec(name, idle, **relations.get(name, {})) for name in names]


def names(specs: list[PluginSpec]) -> list[str]:
    return [each.name for each in specs]


# --- order


def test_the_first_party_plugins_start_with_the_gateway_last() -> None:
    """architecture.md, section 5."""
    specs = named(
        "webhook",
        "gateway",
        "datasource",
        "api",
        api={"after": frozenset({"webhook", "datasource"})},
        gateway={"after": frozenset({"api", "webhook", "datasource"})},
    )
    assert names(in_start_order(specs)) == ["datasource", "webhook", "api", "gateway"]


def test_equal_ranks_are_sorted_by_name() -> None:
    specs = named("d", "b", "c", "a", a={"after": frozenset({"d"})})
    assert names(in_start_order(specs)) == ["b", "c", "d", "a"]


def test_after_a_plugin_that_is_not_there_means_nothing() -> None:
    assert names(in_start_order(named("a", a={"after": frozenset({"z"})}))) == ["a"]


def test_a_missing_requirement_is_named() -> None:
    with pytest.raises(ConfigError, match=r"plugin 'a' requires y, z, which is not enabled"):
        in_start_order(named("a", a={"requires": frozenset({"z", "y"})}))


def test_a_circle_is_named() -> None:
    specs = named("a", "b", "c", a={"requires": frozenset({"b"})}, b={"after": frozenset({"a"})})
    with pytest.raises(ConfigError, match=r"in a circle: (a -> b -> a|b -> a -> b)"):
        in_start_order(specs)


def test_two_plugins_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="two plugins have the name 'a'"):
        in_start_order(named("a", "a"))


def test_a_plugin_is_disabled_by_list_or_by_its_own_section() -> None:
    config = ServerConfig(plugins=PluginsConfig(disabled=("a",)), sections={"b": Settings(on=False)})
    assert names(enabled(named("a", "b", "c"), config)) == ["c"]


# --- start and stop


async def test_plugins_start_one_after_the_other_and_stop_in_reverse(broker: Broker, diary: list[str]) -> None:
    """Each is told to stop when the one before is done; what it accepted is flushed before the next (section 6)."""
    specs = [
        spec("webhook", steady("webhook", diary)),
        spec("gateway", steady("gateway", diary), after=frozenset({"webhook"})),
    ]
    async with open_host(broker, ServerConfig(), specs) as host:
        assert host.names == ("webhook", "gateway")
        diary.append("body")
    assert diary == [
        "webhook starts",
        "gateway starts",
        "body",
        "gateway drains",
        "gateway ends",
        "flush",
        "webhook drains",
        "webhook ends",
        "flush",
    ]


async def test_a_plugin_starts_when_the_one_before_is_ready(
    broker: Broker, diary: list[str], autojump_clock: MockClock
) -> None:
    async def slow(context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep(5)
        diary.append("slow is ready")
        task_status.started()
        await context.stopping.wait()

    specs = [spec("a", slow), spec("b", steady("b", diary))]
    async with open_host(broker, ServerConfig(), specs):
        assert diary == ["slow is ready", "b starts"]


async def test_all_share_one_stop_budget(broker: Broker, diary: list[str], autojump_clock: MockClock) -> None:
    """What has not drained within shutdown.timeout is cancelled, and so are those whose turn never came."""
    specs = [
        spec("a", steady("a", diary)),
        spec("b", steady("b", diary, drain_s=100)),
        spec("c", steady("c", diary, drain_s=4)),
    ]
    async with open_host(broker, ServerConfig(shutdown=ShutdownConfig(timeout=Seconds(10))), specs):
        began = trio.current_time()
    assert trio.current_time() - began == pytest.approx(10)
    assert diary[3:6] == ["c drains", "c ends", "flush"]
    assert diary[6] == "b drains"
    assert sorted(diary[7:]) == ["a cancelled", "b cancelled"]


async def test_a_plugin_knows_how_much_grace_is_left(broker: Broker, autojump_clock: MockClock) -> None:
    grace: list[float] = []

    async def run(context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        grace.append(context.grace_left())
        await context.stopping.wait()
        await trio.sleep(3)
        grace.append(context.grace_left())

    async with open_host(broker, ServerConfig(shutdown=ShutdownConfig(timeout=Seconds(10))), [spec("a", run)]):
        pass
    assert grace == [float("inf"), pytest.approx(7)]


async def test_a_plugin_with_nothing_to_do_may_return(broker: Broker, diary: list[str]) -> None:
    async def nothing(context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
        diary.append("returns")

    async with open_host(broker, ServerConfig(), [spec("a", nothing), spec("b", steady("b", diary))]):
        await wait_all_tasks_blocked()
    assert diary[:2] == ["returns", "b starts"]


async def test_a_requested_stop_leaves_the_block_alone(broker: Broker, diary: list[str]) -> None:
    async with open_host(broker, ServerConfig(), [spec("a", steady("a", diary))]) as host:
        host.request_stop()
        host.request_stop()
        await host.stopped.wait()
        diary.append("body goes on")
    assert diary == ["a starts", "a drains", "a ends", "flush", "body goes on"]


async def test_an_error_in_the_block_stops_gracefully_and_comes_out_as_it_is(broker: Broker, diary: list[str]) -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        async with open_host(broker, ServerConfig(), [spec("a", steady("a", diary))]):
            raise ZeroDivisionError from KeyError("cause")
    assert isinstance(raised.value.__cause__, KeyError)
    assert diary == ["a starts", "a drains", "a ends", "flush"]


async def test_cancelling_the_block_cancels_the_plugins_at_once(
    broker: Broker, diary: list[str], autojump_clock: MockClock
) -> None:
    began = trio.current_time()
    with trio.CancelScope() as scope:
        async with open_host(broker, ServerConfig(), [spec("a", steady("a", diary, drain_s=5))]):
            scope.cancel()
            await trio.sleep_forever()
    assert diary == ["a starts", "a cancelled"]
    assert trio.current_time() == began


async def test_cancelling_during_a_graceful_stop_ends_it_at_once(
    broker: Broker, diary: list[str], autojump_clock: MockClock
) -> None:
    """The second signal of the command line."""
    with trio.move_on_after(2):
        async with open_host(broker, ServerConfig(), [spec("a", steady("a", diary, drain_s=5))]):
            began = trio.current_time()
    assert trio.current_time() - began == pytest.approx(2)
    assert diary == ["a starts", "a drains", "a cancelled"]


async def test_cancelling_a_start_leaves_nothing_behind(
    broker: Broker, diary: list[str], autojump_clock: MockClock
) -> None:
    async def never_ready(context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep_forever()

    specs = [spec("a", steady("a", diary)), spec("b", never_ready)]
    with trio.move_on_after(1) as scope:
        async with open_host(broker, ServerConfig(), specs):
            pytest.fail("the block must not run")
    assert scope.cancelled_caught
    assert diary == ["a starts", "a cancelled"]


# --- failures


async def test_a_failing_start_ends_the_server_with_its_cause(broker: Broker, diary: list[str]) -> None:
    error = OSError("port taken")
    error.__cause__ = KeyError("deeper")
    specs = [spec("a", steady("a", diary)), spec("b", failing(error, after_s=None)), spec("c", steady("c", diary))]
    with pytest.raises(PluginError) as raised:
        async with open_host(broker, ServerConfig(), specs):
            pytest.fail("the block must not run")
    assert (raised.value.name, raised.value.phase) == ("b", "starting")
    assert raised.value.__cause__ is error
    assert isinstance(error.__cause__, KeyError)
    assert diary == ["a starts", "flush", "a drains", "a ends", "flush"]


async def test_a_plugin_that_may_be_restarted_still_has_to_start(broker: Broker) -> None:
    specs = [spec("a", failing(OSError(), after_s=None), on_failure=OnFailure.RESTART)]
    with pytest.raises(PluginError, match="failed while starting"):
        async with open_host(broker, ServerConfig(), specs):
            pytest.fail("the block must not run")


async def test_a_hanging_start_is_named_with_its_stack(
    broker: Broker, diary: list[str], autojump_clock: MockClock
) -> None:
    async def hang_in_a_child() -> None:
        await trio.sleep_forever()

    async def run(context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hang_in_a_child)

    config = ServerConfig(plugins=PluginsConfig(start_timeout=Seconds(20)))
    with pytest.raises(PluginError) as raised, capture_logs() as logs:
        async with open_host(broker, config, [spec("a", steady("a", diary)), spec("b", run)]):
            pytest.fail("the block must not run")
    assert trio.current_time() == pytest.approx(20)
    assert (raised.value.name, raised.value.phase) == ("b", "starting")
    assert "20 s (plugins.startTimeout)" in str(raised.value)
    [entry] = [each for each in logs if each["event"] == "plugin hangs in its start"]
    assert entry["plugin"] == "b"
    assert "hang_in_a_child" in entry["stack"]
    assert diary[-2:] == ["a ends", "flush"]


async def test_a_failing_plugin_interrupts_the_block_and_stops_the_others(
    broker: Broker, diary: list[str], autojump_clock: MockClock
) -> None:
    error = ValueError("broken")
    specs = [spec("a", steady("a", diary)), spec("b", failing(error, after_s=3))]
    with pytest.raises(PluginError) as raised:
        async with open_host(broker, ServerConfig(), specs):
            await trio.sleep_forever()
    assert trio.current_time() == pytest.approx(3)
    assert (raised.value.name, raised.value.phase) == ("b", "running")
    assert raised.value.__cause__ is error
    assert diary == ["a starts", "flush", "a drains", "a ends", "flush"]


async def test_the_cause_is_taken_out_of_groups_of_one(broker: Broker, autojump_clock: MockClock) -> None:
    async def run(context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        async with trio.open_nursery() as outer, trio.open_nursery() as inner:
            outer.start_soon(trio.sleep_forever)
            inner.start_soon(fail)

    async def fail() -> None:
        raise ValueError("deep") from KeyError("cause")

    with pytest.raises(PluginError) as raised:
        async with open_host(broker, ServerConfig(), [spec("a", run)]):
            await trio.sleep_forever()
    assert isinstance(raised.value.__cause__, ValueError)
    assert isinstance(raised.value.__cause__.__cause__, KeyError)


async def test_a_failure_during_the_start_of_another_interrupts_that(broker: Broker, autojump_clock: MockClock) -> None:
    async def slow(context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep(10)

    specs = [spec("a", failing(ValueError(), after_s=1)), spec("b", slow)]
    with pytest.raises(PluginError, match="'a' failed while running"):
        async with open_host(broker, ServerConfig(), specs):
            pytest.fail("the block must not run")
    assert trio.current_time() < 20


async def test_a_failure_while_draining_comes_out(broker: Broker) -> None:
    async def run(context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await context.stopping.wait()
        raise ValueError

    with pytest.raises(PluginError, match="'a' failed while running"):
        async with open_host(broker, ServerConfig(), [spec("a", run)]):
            pass


async def test_the_error_of_the_block_wins_over_a_later_failure(broker: Broker) -> None:
    async def run(context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await context.stopping.wait()
        raise ValueError

    with pytest.raises(ZeroDivisionError):
        async with open_host(broker, ServerConfig(), [spec("a", run)]):
            raise ZeroDivisionError


# --- restart


def restarting(name: str, diary: list[float], lives_s: Callable[[int], float]) -> PluginSpec:
    """A plugin that notes when it runs and fails after `lives_s(n)`."""

    async def run(context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
        diary.append(trio.current_time())
        task_status.started()
        with trio.move_on_after(lives_s(len(diary))):
            await context.stopping.wait()
            return
        raise ValueError

    return spec(name, run, on_failure=OnFailure.RESTART)


@contextmanager
def quiet() -> Iterator[None]:
    with capture_logs():
        yield


async def test_a_restarted_plugin_waits_longer_each_time(broker: Broker, autojump_clock: MockClock) -> None:
    """0.1 s doubling to 30 s."""
    times: list[float] = []
    with quiet():
        async with open_host(broker, ServerConfig(), [restarting("a", times, lambda n: 0)]):
            await trio.sleep(150)
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30, 30])


async def test_a_long_run_forgets_the_failures_before(broker: Broker, autojump_clock: MockClock) -> None:
    times: list[float] = []
    with quiet():
        async with open_host(broker, ServerConfig(), [restarting("a", times, lambda n: 3600 if n == 4 else 0)]):
            await trio.sleep(3602)
    assert times[:4] == pytest.approx([0, 0.1, 0.3, 0.7])
    assert times[4] == pytest.approx(3600.8)


async def test_a_plugin_that_waits_for_its_restart_stops_at_once(broker: Broker, autojump_clock: MockClock) -> None:
    times: list[float] = []
    with quiet():
        async with open_host(broker, ServerConfig(), [restarting("a", times, lambda n: 0)]):
            await trio.sleep(60)  # it waits from 51.1 to 76.7
        assert trio.current_time() == pytest.approx(60)


async def test_a_failure_while_stopping_does_not_restart(broker: Broker, autojump_clock: MockClock) -> None:
    runs: list[int] = []

    async def run(context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
        runs.append(1)
        task_status.started()
        await context.stopping.wait()
        raise ValueError

    with quiet():
        async with open_host(broker, ServerConfig(), [spec("a", run, on_failure=OnFailure.RESTART)]):
            pass
    assert runs == [1]


def test_only_groups_of_one_are_opened() -> None:
    one, two = ValueError(), KeyError()
    both = ExceptionGroup("both", [one, two])
    assert leaf_of(ExceptionGroup("a", [ExceptionGroup("b", [one])])) is one
    assert leaf_of(ExceptionGroup("a", [both])) is both
