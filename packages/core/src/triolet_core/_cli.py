"""The command line. Exit codes: 0 stopped, 1 failed while running, 2 configuration, 3 store."""

import argparse
import gc
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from importlib import metadata

import structlog
import trio

from triolet_core import _cli_plugin, _cli_store, _doctor
from triolet_core._host import enabled, in_start_order, leaf_of
from triolet_core._logging import configure_logging
from triolet_core._server import Server, load_config, open_server
from triolet_core.config import ServerConfig, reference, sample, shown
from triolet_core.errors import ConfigError, PluginError, StoreError
from triolet_core.plugin import PluginSpec, discover_plugins

STOPPED, FAILED, BAD_CONFIG, BAD_STORE = 0, 1, 2, 3
SWITCH_INTERVAL_S = 0.0005
"""The commit thread waits this long for the interpreter at most, while the loop is busy; Python's default is ten times
as long, which every group commit would pay."""
GC_THRESHOLDS = (10_000, 2, 1000)
"""When the collector of reference cycles looks at objects; Python's own are (700, 10, 10). Every message makes dozens
of objects and hardly any cycle, and a look at everything takes the longer the more connections there are: with these a
message takes 17 µs of CPU instead of 22 (`person_to_person`). The first bounds how long a look takes at the objects
that are new (0.6 µs each: with 50,000 of them the 99th of 100 acks came after 42 ms instead of 27), the second how many
the middle generation has: with 20, 334 ms where 100,000 had logged in."""

_NEXT = """\
What next: create a token,
  curl {header}{http}/user/token -d '{{"uid":"ann","token":"t1","device_flag":1,"device_level":1}}'
connect with any WuKongIM client (or: python examples/listen.py ann t1 {tcp}), and send,
  curl {header}{http}/message/send -d '{{"from_uid":"bob","channel_id":"ann","channel_type":1,"payload":"aGVsbG8="}}'
More in README.md. Ctrl-C stops gracefully, a second one at once."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    words = _with_command(sys.argv[1:] if argv is None else argv)
    try:
        is_ours = words[0] in _COMMANDS or words[0].startswith("-")
        program = None if is_ours else _cli_plugin.find_program(words[0])
        if program is not None:
            return program(words[1:])
        spec = None if is_ours else _cli_plugin.find(words[0])
        arguments = _parser(spec).parse_args(words)
        return _COMMANDS.get(arguments.command, partial(_plugin_command, spec))(arguments)
    except ConfigError as exc:
        _complain(f"configuration:\n{exc}")
        return BAD_CONFIG
    except StoreError as exc:
        _complain(f"store: {exc}")
        return BAD_STORE
    except PluginError as exc:
        _complain(str(exc))
        if isinstance(exc.__cause__, StoreError):
            return BAD_STORE
        return BAD_CONFIG if isinstance(exc.__cause__, ConfigError) else FAILED
    except KeyboardInterrupt:
        return FAILED


def _complain(text: str) -> None:
    print(f"triolet: {text}", file=sys.stderr)


def _with_command(argv: Sequence[str]) -> list[str]:
    """`run` may be left out."""
    is_run = not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help", "--version"))
    return ["run", *argv] if is_run else list(argv)


def _parser(spec: PluginSpec | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="triolet",
        description="The triolet IM server.",
        epilog="Exit codes: 0 stopped, 1 failed while running, 2 configuration, 3 store. Plugins and other packages may"
        " have commands too: triolet PLUGIN --help, triolet chat --help.",
    )
    parser.add_argument("--version", action="version", version=_version_text())
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-c", "--config", metavar="FILE", help="YAML or TOML file")
    common.add_argument("-e", "--set", metavar="KEY=VALUE", action="append", default=[], help="one setting, repeatable")
    run = commands.add_parser("run", parents=[common], help="run the server (the default)")
    run.add_argument("--check", action="store_true", help="only check the configuration")
    config = commands.add_parser("config", parents=[common], help="show the settings in force")
    what = config.add_mutually_exclusive_group()
    what.add_argument("--reference", action="store_true", help="every setting, as Markdown")
    what.add_argument("--sample", action="store_true", help="every setting, as a YAML file")
    commands.add_parser("plugins", help="list the installed plugins")
    store = commands.add_parser("store", parents=[common], help="look at the store of a stopped server")
    store.add_argument("what", choices=("check", "stat"), help="read every record, or show sizes")
    commands.add_parser("doctor", parents=[common], help="why does it not start?")
    commands.add_parser("version", help="print the version")
    if spec is not None and spec.command is not None:
        spec.command.add_arguments(commands.add_parser(spec.name, parents=[common], help=spec.command.help))
    return parser


def _version_text() -> str:
    return f"triolet {metadata.version('triolet-core')}"


def _version(arguments: argparse.Namespace) -> int:
    print(_version_text())
    return STOPPED


def _plugins(arguments: argparse.Namespace) -> int:
    """List what is installed, also what cannot be loaded."""
    found = _doctor.installed_plugins()
    for plugin in found:
        print(f"{plugin.name}\t{plugin.distribution}\t{_described(plugin)}")
    return FAILED if any(plugin.problem for plugin in found) else STOPPED


def _described(plugin: _doctor.Installed) -> str:
    if plugin.spec is None:
        return plugin.problem
    before = ", ".join(sorted(plugin.spec.after | plugin.spec.requires)) or "-"
    return f"after {before}\ton failure {plugin.spec.on_failure.value}"


def _config(arguments: argparse.Namespace) -> int:
    specs = discover_plugins()
    if arguments.reference or arguments.sample:
        write = reference if arguments.reference else sample
        print(write({spec.name: spec.config_class for spec in specs}), end="")
        return STOPPED
    config = _load(arguments, specs)
    _print_notices(config)
    print(shown(config), end="")
    return STOPPED


def _load(arguments: argparse.Namespace, specs: Sequence[PluginSpec]) -> ServerConfig:
    return load_config(arguments.config, overrides=arguments.set, plugins=specs)


def _print_notices(config: ServerConfig) -> None:
    for notice in config.notices:
        print(f"note: {notice}", file=sys.stderr)


def _store(arguments: argparse.Namespace) -> int:
    config = _load(arguments, discover_plugins())
    if arguments.what == "stat":
        _print_rows(trio.run(partial(_cli_store.look, config, _cli_store.figures)))
        return STOPPED
    report = trio.run(partial(_cli_store.look, config, _cli_store.check))
    _print_rows(report.rows)
    for problem in report.problems:
        print(f"BAD  {problem}")
    if report.problem_count:
        _complain(f"store: {report.problem_count} records cannot be read; restore a backup")
        return BAD_STORE
    print("every record can be read")
    return STOPPED


def _print_rows(rows: Mapping[str, int]) -> None:
    for name, value in rows.items():
        print(f"{name}\t{value}")


def _examine(arguments: argparse.Namespace) -> int:
    plugins = _doctor.installed_plugins()
    config: ServerConfig | ConfigError
    try:
        config = _load(arguments, [plugin.spec for plugin in plugins if plugin.spec is not None])
    except ConfigError as exc:
        config = exc
    is_good = True
    for finding in _doctor.examine(config, plugins):
        print(finding)
        is_good = is_good and finding.is_good
    return STOPPED if is_good else FAILED


def _run(arguments: argparse.Namespace) -> int:
    specs = discover_plugins()
    config = _load(arguments, specs)
    if arguments.check:
        in_start_order(enabled(specs, config))
        _print_notices(config)
        print("the configuration is good")
        return STOPPED
    configure_logging(config.log, mode=config.node.mode, root_dir=config.node.root_path)
    log = structlog.get_logger("triolet")
    for notice in config.notices:
        log.warning("configuration notice", notice=notice)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(*GC_THRESHOLDS)
    _raise_file_limit()
    return _run_trio(partial(_serve, config, specs))


def _run_trio(main: Callable[[], Awaitable[int]]) -> int:
    """Run Trio; an exception that is alone in its group comes out as itself."""
    try:
        return trio.run(main)
    except BaseExceptionGroup as group:
        leaf = leaf_of(group)
        if leaf is group:
            raise
    raise leaf  # outside of the group, so that it keeps its own cause


def _plugin_command(spec: PluginSpec | None, arguments: argparse.Namespace) -> int:
    assert spec is not None  # noqa: S101  # the parser knows no other commands
    config = _load(arguments, discover_plugins())
    return _run_trio(partial(_cli_plugin.run, spec, config, arguments))


async def _serve(config: ServerConfig, specs: Sequence[PluginSpec]) -> int:
    """Serve until a signal or a failure. The first signal stops gracefully, the second cancels everything."""
    with trio.CancelScope() as now:
        async with trio.open_nursery() as nursery:
            stop = trio.Event()
            await nursery.start(_obey_signals, stop, now)
            async with open_server(config, plugins=specs) as server:
                _greet(server, config)
                async with trio.open_nursery() as waiters:
                    waiters.start_soon(_stop_on, stop, server)
                    await server.wait_stopped()
                    waiters.cancel_scope.cancel()
            nursery.cancel_scope.cancel()
    return FAILED if now.cancelled_caught else STOPPED


async def _stop_on(stop: trio.Event, server: Server) -> None:
    await stop.wait()
    server.request_stop()


async def _obey_signals(stop: trio.Event, now: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:
            log = structlog.get_logger("triolet")
            if stop.is_set():
                log.warning("stopping at once", signal=signal.Signals(number).name)
                now.cancel()
            else:
                log.info("stopping", signal=signal.Signals(number).name, hint="a second signal stops at once")
                stop.set()


def _greet(server: Server, config: ServerConfig) -> None:
    endpoints = server.broker.endpoints
    print(f"{_version_text()}, data in {config.node.data_path.resolve()}")
    for kind, address in endpoints.items():
        print(f"{kind:5} {kind}://{address}")
    if {"http", "tcp"} <= endpoints.keys():
        header = '-H "token: $MANAGER_TOKEN" ' if config.auth.manager_token else ""
        print(_NEXT.format(header=header, http=f"http://{endpoints['http']}", tcp=endpoints["tcp"]))
    sys.stdout.flush()


def _raise_file_limit() -> None:
    """Allow as many files, and so connections, as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as exc:
        structlog.get_logger("triolet").warning("open files stay limited", limit=soft, problem=str(exc))


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "run": _run,
    "config": _config,
    "plugins": _plugins,
    "store": _store,
    "doctor": _examine,
    "version": _version,
}
