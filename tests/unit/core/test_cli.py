"""The command line: what it prints, and its exit codes 0 stopped, 1 failed while running, 2 configuration, 3 store."""

import contextlib
import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs
import lmdb
import pytest
import structlog
import trio
import trio.testing

from triolet_core import ChannelInfo, ChannelKey, ConfigError, Device, Draft, StoreFull, _cli, _doctor
from triolet_core.config import ServerConfig, setting
from triolet_core.plugin import GROUP, PluginContext, PluginSpec
from triolet_core.store import FILE_NAME
from triolet_core.store import _keys as keys


@attrs.frozen(kw_only=True)
class GatewayConfig:
    """Stands for the gateway's."""

    on: bool = setting(default=True, doc="run")
    tcp_addr: str = setting("tcp://127.0.0.1:0", key="addr", doc="TCP")
    ws_addr: str = setting("", key="wsAddr", doc="WebSocket")


async def serve(context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
    """Be up, ask for a stop as a person would, stop."""
    context.broker.endpoints["tcp"] = "127.0.0.1:1234"
    context.broker.endpoints["http"] = "127.0.0.1:4321"
    task_status.started()
    await trio.testing.wait_all_tasks_blocked()
    signal.raise_signal(signal.SIGTERM)
    await context.stopping.wait()


def plugin(run: Any = serve, *, name: str = "gateway", requires: frozenset[str] = frozenset()) -> PluginSpec:
    return PluginSpec(name=name, run=run, config_class=GatewayConfig, requires=requires)


@pytest.fixture(autouse=True)
def _own_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No variables of ours, and nothing of the process stays changed."""
    for name in list(os.environ):
        if name.startswith(("WK_", "TRIOLET_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TRIOLET_CONTAINER", "0")
    monkeypatch.chdir(tmp_path)
    interval, files = sys.getswitchinterval(), resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    sys.setswitchinterval(interval)
    resource.setrlimit(resource.RLIMIT_NOFILE, files)
    structlog.reset_defaults()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretend that exactly these plugins are installed."""

    def install(*specs: PluginSpec) -> None:
        monkeypatch.setattr(_cli, "discover_plugins", lambda: specs)
        found = tuple(_doctor.Installed(spec.name, "test 1.0", spec) for spec in specs)
        monkeypatch.setattr(_doctor, "installed_plugins", lambda: found)

    install(plugin())
    return install


@pytest.fixture
def store(installed: Any) -> Path:
    """A store with nothing in it."""
    assert _cli.main(["run"]) == 0
    return Path("data/data")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert _cli.main(["version"]) == 0
    expected = f"triolet {metadata.version('triolet-core')}\n"
    assert capsys.readouterr().out == expected
    with pytest.raises(SystemExit, match="0"):
        _cli.main(["--version"])
    assert capsys.readouterr().out == expected


def test_version_and_plugins_work_when_a_plugin_is_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [metadata.EntryPoint("bad", "triolet_core.nothing:plugin", GROUP)]
    monkeypatch.setattr(metadata, "entry_points", lambda group: entries)
    assert _cli.main(["version"]) == 0
    assert _cli.main(["plugins"]) == 1
    assert "bad\tunknown distribution\tcannot be loaded: ModuleNotFoundError" in capsys.readouterr().out
    assert _cli.main(["run"]) == 1
    assert "plugin 'bad' failed while loading" in capsys.readouterr().err


def test_plugins_are_listed_with_their_distribution_and_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert _cli.main(["plugins"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"webhook\ttriolet-webhook {metadata.version('triolet-webhook')}\tafter -\ton failure restart" in lines


@pytest.mark.parametrize("argv", [["bogus"], ["store"], ["store", "eat"], ["run", "--nonsense"], ["config", "-e"]])
def test_a_wrong_command_line_is_configuration(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        _cli.main(argv)
    assert "usage: triolet" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [[], ["run"], ["-e", "shutdown.timeout=3s"], ["run", "-e", "mode=debug"]])
def test_run_says_where_it_listens_and_what_to_do_next_and_stops_on_a_signal(
    argv: list[str], installed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _cli.main(argv) == 0
    out, err = capsys.readouterr()
    assert f"data in {Path('data/data').resolve()}" in out
    assert "tcp   tcp://127.0.0.1:1234\n" in out
    assert "http  http://127.0.0.1:4321\n" in out
    assert 'curl http://127.0.0.1:4321/user/token -d \'{"uid":"ann"' in out
    events = [json.loads(line)["event"] for line in err.splitlines()]
    assert "stopping" in events
    assert events[-1] == "plugin stopped"


def test_run_with_a_token_shows_how_to_send_one_and_not_the_token(
    installed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _cli.main(["-e", "managerToken=s3cret"]) == 0
    out, err = capsys.readouterr()
    assert 'curl -H "token: $MANAGER_TOKEN" http://127.0.0.1:4321/user/token' in out
    assert "s3cret" not in out + err


def test_run_lets_the_commit_thread_in_sooner_and_raises_the_file_limit(
    monkeypatch: pytest.MonkeyPatch, installed: Any
) -> None:
    seen: dict[str, Any] = {}

    async def look(context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
        seen["interval"] = sys.getswitchinterval()
        await serve(context, task_status=task_status)

    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: seen.setdefault("limits", limits))
    installed(plugin(look))
    assert _cli.main([]) == 0
    assert seen["interval"] == pytest.approx(0.0005)
    assert seen["limits"] == (4096, 4096)


def test_a_file_limit_that_may_not_be_raised_is_logged(
    monkeypatch: pytest.MonkeyPatch, installed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(which: int, limits: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    with monkeypatch.context() as patch:
        patch.setattr(resource, "getrlimit", lambda which: (1024, 4096))
        patch.setattr(resource, "setrlimit", refuse)
        assert _cli.main([]) == 0
    assert '"event": "open files stay limited"' in capsys.readouterr().err


def test_a_second_signal_stops_at_once(installed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    async def linger(context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
        await serve(context, task_status=task_status)
        signal.raise_signal(signal.SIGINT)
        await trio.sleep_forever()

    installed(plugin(linger))
    assert _cli.main(["-e", "shutdown.timeout=1h"]) == 1
    assert '"event": "stopping at once"' in capsys.readouterr().err


def test_a_second_signal_ends_a_start_that_hangs(installed: Any) -> None:
    async def hang(context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
        signal.raise_signal(signal.SIGTERM)
        await trio.testing.wait_all_tasks_blocked()
        signal.raise_signal(signal.SIGTERM)
        await trio.sleep_forever()

    installed(plugin(hang))
    assert _cli.main(["-e", "plugins.startTimeout=1h"]) == 1


FAILURES = [
    (ConfigError("addr", "cannot listen"), 2, "plugin 'gateway' failed while starting"),
    (StoreFull("no space"), 3, "no space"),
    (RuntimeError("oops"), 1, "RuntimeError('oops')"),
]


@pytest.mark.parametrize(("error", "code", "text"), FAILURES)
def test_a_plugin_that_cannot_start_decides_the_exit_code_by_its_cause(
    error: Exception, code: int, text: str, installed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
        raise error

    installed(plugin(fail))
    assert _cli.main([]) == code
    assert text in capsys.readouterr().err


def test_a_plugin_that_fails_while_it_runs_is_exit_code_1(installed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    async def fail(context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.testing.wait_all_tasks_blocked()
        raise RuntimeError("oops")

    installed(plugin(fail))
    assert _cli.main([]) == 1
    assert "triolet: plugin 'gateway' failed while running: RuntimeError('oops')" in capsys.readouterr().err


def test_wrong_settings_are_exit_code_2_and_all_named(installed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["run"], ["run", "--check"], ["config"], ["store", "stat"]):
        assert _cli.main([*command, "-e", "mode=fast", "-e", "store.sync=maybe"]) == 2
        err = capsys.readouterr().err
        assert "mode (-e): 'fast' is not one of" in err
        assert "store.sync (-e): 'maybe' is not one of" in err
    assert _cli.main(["-c", "none.yaml"]) == 2
    assert "none.yaml (-c): cannot be read" in capsys.readouterr().err
    assert not Path("data").exists()


def test_check_reports_and_starts_nothing(installed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert _cli.main(["--check", "-e", "mod=debug"]) == 0
    out, err = capsys.readouterr()
    assert out == "the configuration is good\n"
    assert err == "note: mod (-e) is not a known key; did you mean mode?\n"
    assert not Path("data").exists()
    installed(plugin(requires=frozenset({"api"})))
    assert _cli.main(["--check"]) == 2
    assert "plugin 'gateway' requires api, which is not enabled" in capsys.readouterr().err


def test_notices_are_logged_at_start(installed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert _cli.main(["-e", "ginMode=release"]) == 0
    first = json.loads(capsys.readouterr().err.splitlines()[0])
    assert (first["event"], first["level"]) == ("configuration notice", "warning")
    assert first["notice"].startswith("ginMode (-e) is accepted without effect")


def test_config_shows_what_is_in_force_without_secrets(installed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.yaml").write_text("mode: debug\nginMode: x\n")
    assert _cli.main(["config", "-c", "a.yaml", "-e", "managerToken=s3cret", "-e", "addr=tcp://h:1"]) == 0
    out, err = capsys.readouterr()
    assert "mode: debug\n" in out
    assert "addr: tcp://h:1\n" in out
    assert "# managerToken is set and not shown\n" in out
    assert "s3cret" not in out + err
    assert err.startswith("note: ginMode (a.yaml:2) is accepted without effect")


def test_config_reference_and_sample_need_no_valid_configuration(
    installed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _cli.main(["config", "--reference", "-e", "mode=fast"]) == 0
    assert capsys.readouterr().out.startswith("# Configuration\n")
    assert _cli.main(["config", "--sample"]) == 0
    assert "\n#addr: tcp://127.0.0.1:0\n" in capsys.readouterr().out


# --- store


def test_store_commands_want_a_store(installed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for what in ("check", "stat"):
        assert _cli.main(["store", what]) == 3
        assert "store: there is no store in data/data; it is made when a server starts" in capsys.readouterr().err
    assert not Path("data").exists()


def test_store_check_reads_every_record_and_stat_shows_sizes(
    installed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fill(context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
        group = ChannelKey("g", 2)
        await context.broker.channels.create(group, ChannelInfo(), ["ann", "bob"], replace=True)
        await context.broker.users.set_token("ann", 1, 1, "t")
        await context.broker.messages.send_many(Device(uid="ann", is_server=True), [Draft("g", 2, b"s3cret")])
        await serve(context, task_status=task_status)

    installed(plugin(fill))
    assert _cli.main([]) == 0
    capsys.readouterr()
    assert _cli.main(["store", "check"]) == 0
    out = capsys.readouterr().out
    rows = dict(line.split("\t") for line in out.splitlines() if "\t" in line)
    assert {name: rows[name] for name in ("channels", "members", "messages", "devices", "commit log")} == {
        "channels": "1",
        "members": "2",
        "messages": "1",
        "devices": "1",
        "commit log": "1",
    }
    assert out.endswith("every record can be read\n")
    assert _cli.main(["store", "stat"]) == 0
    figures = dict(line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert int(figures["entries"]) == sum(map(int, rows.values()))
    assert int(figures["bytes at most (store.mapSize)"]) == 1 << 40


def test_store_check_names_the_place_of_records_that_cannot_be_read_and_not_what_they_hold(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with lmdb.open(str(store / FILE_NAME), subdir=False, map_size=1 << 30) as env, env.begin(write=True) as txn:
        txn.put(keys.channel(ChannelKey("g", 2)), b"s3cret")
        txn.put(keys.message(7, 1, 1), b"s3cret")
        txn.put(b"\x00\x07\x77x", b"s3cret")
        txn.put(b"x", b"s3cret")
    capsys.readouterr()
    assert _cli.main(["store", "check"]) == 3
    out, err = capsys.readouterr()
    assert "messages, slot 7, 000000010000000000000001: " in out
    assert "table 119, slot 7, " in out
    assert "a key that is too short: " in out
    assert "store: 4 records cannot be read; restore a backup" in err
    assert "s3cret" not in out + err


@contextlib.contextmanager
def held(directory: Path) -> Iterator[None]:
    """Hold the store as another server does."""
    with (directory / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def damage(store: Path) -> None:
    (store / FILE_NAME).write_bytes(b"not a store" * 1000)


def cut(store: Path) -> None:
    path = store / FILE_NAME
    path.write_bytes(path.read_bytes()[:9000])


def make_foreign(store: Path) -> None:
    (store / FILE_NAME).unlink()
    with lmdb.open(str(store / FILE_NAME), subdir=False, map_size=1 << 20) as env, env.begin(write=True) as txn:
        txn.put(b"a", b"b")


def make_newer(store: Path) -> None:
    with lmdb.open(str(store / FILE_NAME), subdir=False, map_size=1 << 30) as env, env.begin(write=True) as txn:
        txn.put(keys.meta("format"), b"99")


BROKEN = [
    (damage, "is damaged or not a store"),
    (cut, "is cut off"),
    (make_foreign, "is not a triolet store"),
    (make_newer, "has format 99, this version reads up to"),
]


@pytest.mark.parametrize(("breaks", "problem"), BROKEN)
def test_a_store_that_does_not_open_is_exit_code_3_and_the_doctor_says_why(
    breaks: Any, problem: str, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    breaks(store)
    capsys.readouterr()
    for command in (["run"], ["store", "check"], ["store", "stat"]):
        assert _cli.main(command) == 3
        assert problem in capsys.readouterr().err
    assert _cli.main(["doctor"]) == 1
    assert f"{problem}" in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("BAD  store"))


def test_a_store_that_a_server_holds_is_exit_code_3_and_the_doctor_says_so(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with held(store):
        capsys.readouterr()
        assert _cli.main(["run"]) == 3
        assert "store: another process holds the store in data/data" in capsys.readouterr().err
        assert _cli.main(["doctor"]) == 1
    assert "BAD  store: another process holds the store" in capsys.readouterr().out


# --- the module and the logs


@pytest.mark.slow
def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "triolet_core", "version"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, f"triolet {metadata.version('triolet-core')}\n")


def test_an_interrupt_before_the_server_listens_to_signals_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> tuple[PluginSpec, ...]:
        raise KeyboardInterrupt

    monkeypatch.setattr(_cli, "discover_plugins", interrupt)
    assert _cli.main([]) == 1


def test_a_default_configuration_needs_no_plugin(installed: Any) -> None:
    """Embedding: the settings of core stand alone."""
    assert ServerConfig().sections == {}
    installed()
    assert _cli.main(["--check"]) == 0
