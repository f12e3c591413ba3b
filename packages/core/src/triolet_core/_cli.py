"""The command line. Exit codes: 0 stopped, 1 failed while running, 2 configuration, 3 store."""

import argparse
import resource
import signal
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import structlog
import trio

from triolet_core import _doctor
from triolet_core._logging import configure_logging
from triolet_core._server import Server, load_config, open_server
from triolet_core.config import ServerConfig, reference, sample, shown
from triolet_core.errors import ConfigError, PluginError, StoreError
from triolet_core.plugin import PluginSpec, discover_plugins

STOPPED, FAILED, BAD_CONFIG, BAD_STORE = 0, 1, 2, 3
SWITCH_INTERVAL_S = 0.0005
"""The commit thread waits this long for the interpreter at most; Python's default is ten times as long."""

_NEXT = """\
What next: create a token,
  curl {http}/user/token -d '{{"uid":"ann","token":"t1","device_flag":1,"device_level":1}}'
connect with any WuKongIM client (or: python examples/listen.py ann t1 {tcp}), and send,
  curl {http}/message/send -d '{{"from_uid":"bob","channel_id":"ann","channel_type":1,"payload":"aGVsbG8="}}'
Ctrl-C stops gracefully, a second one at once."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    arguments = _parser().parse_args(_with_command(sys.argv[1:] if argv is None else argv))
    try:
        specs = discover_plugins()
        if arguments.command == "version":
            print(metadata.version("triolet-core"))
            return STOPPED
        if arguments.command == "plugins":
            return _plugins(specs)
        if arguments.command == "config" and (arguments.reference or arguments.sample):
            classes = {spec.name: spec.config_class for spec in specs}
            print((reference if arguments.reference else sample)(classes), end="")
            return STOPPED
        config = load_config(arguments.config, overrides=arguments.set, plugins=specs)
        return int(_COMMANDS[arguments.command](arguments, config, specs))
    except ConfigError as exc:
        print(f"triolet: configuration:\n{exc}", file=sys.stderr)
        return BAD_CONFIG
    except StoreError as exc:
        print(f"triolet: store: {exc}", file=sys.stderr)
        return BAD_STORE
    except PluginError as exc:
        print(f"triolet: {exc}", file=sys.stderr)
        return BAD_CONFIG if isinstance(exc.__cause__, ConfigError) else FAILED


def _with_command(argv: Sequence[str]) -> list[str]:
    """`run` may be left out."""
    is_named = bool(argv) and (argv[0] in (*_COMMANDS, "plugins", "version", "-h", "--help"))
    return list(argv) if is_named else ["run", *argv]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="triolet", description="The triolet IM server.")
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-c", "--config", metavar="FILE", help="YAML or TOML file")
    common.add_argument("-e", "--set", metavar="KEY=VALUE", action="append", default=[], help="one setting")
    run = commands.add_parser("run", parents=[common], help="run the server (the default)")
    run.add_argument("--check", action="store_true", help="only check the configuration")
    config = commands.add_parser("config", parents=[common], help="show the settings in force")
    config.add_argument("--reference", action="store_true", help="every setting, as Markdown")
    config.add_argument("--sample", action="store_true", help="every setting, as a YAML file")
    commands.add_parser("plugins", help="list the installed plugins")
    store = commands.add_parser("store", parents=[common], help="look at the store")
    store.add_argument("what", choices=("check", "stat"))
    commands.add_parser("doctor", parents=[common], help="why does it not start?")
    commands.add_parser("version", help="print the version")
    return parser


def _plugins(specs: tuple[PluginSpec, ...]) -> int:
    for spec in specs:
        after = ", ".join(sorted(spec.after | spec.requires)) or "-"
        print(f"{spec.name}\tafter {after}\ton failure {spec.on_failure.value}")
    return STOPPED


def _config(arguments: argparse.Namespace, config: ServerConfig, specs: tuple[PluginSpec, ...]) -> int:
    print(shown(config), end="")
    return STOPPED


def _store(arguments: argparse.Namespace, config: ServerConfig, specs: tuple[PluginSpec, ...]) -> int:
    figures = trio.run(_doctor.try_store, config)
    if arguments.what == "check":
        print(f"{config.node.data_path}: opens, {figures['entries']} entries")
    else:
        for name, value in figures.items():
            print(f"{name}\t{value}")
    return STOPPED


def _examine(arguments: argparse.Namespace, config: ServerConfig, specs: tuple[PluginSpec, ...]) -> int:
    findings = list(_doctor.examine(config, specs))
    for finding in findings:
        print(finding)
    return STOPPED if all(finding.is_good for finding in findings) else FAILED


def _run(arguments: argparse.Namespace, config: ServerConfig, specs: tuple[PluginSpec, ...]) -> int:
    for notice in config.notices:
        print(f"note: {notice}", file=sys.stderr)
    if arguments.check:
        print("the configuration is good")
        return STOPPED
    configure_logging(config.log, mode=config.node.mode, root_dir=Path(config.node.root_dir))
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    _raise_file_limit()
    return trio.run(_serve, config, specs)


async def _serve(config: ServerConfig, specs: tuple[PluginSpec, ...]) -> int:
    with trio.CancelScope() as now:
        async with trio.open_nursery() as nursery:
            stop = trio.Event()
            await nursery.start(_obey_signals, stop, now)
            try:
                async with open_server(config, plugins=specs) as server:
                    _greet(server, config)
                    async with trio.open_nursery() as waiters:
                        waiters.start_soon(_stop_on, stop, server)
                        await server.wait_stopped()
                        waiters.cancel_scope.cancel()
            finally:
                nursery.cancel_scope.cancel()
    return FAILED if now.cancelled_caught else STOPPED


async def _stop_on(stop: trio.Event, server: Server) -> None:
    await stop.wait()
    server.request_stop()


async def _obey_signals(stop: trio.Event, now: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
    """The first signal asks for a graceful stop, the second ends everything at once."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            if stop.is_set():
                now.cancel()
            else:
                structlog.get_logger().info("stopping", hint="a second signal stops at once")
                stop.set()


def _greet(server: Server, config: ServerConfig) -> None:
    endpoints = server.broker.endpoints
    schemes = {"tcp": "tcp", "ws": "ws", "http": "http"}
    print(f"triolet {metadata.version('triolet-core')}, data in {config.node.data_path.resolve()}")
    for kind, address in endpoints.items():
        print(f"{kind:5} {schemes.get(kind, kind)}://{address}")
    if {"http", "tcp"} <= endpoints.keys():
        print(_NEXT.format(http=f"http://{endpoints['http']}", tcp=endpoints["tcp"]))
    sys.stdout.flush()


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


_COMMANDS = {"run": _run, "config": _config, "store": _store, "doctor": _examine}
