"""What the doctor says about each thing that a start needs; it changes nothing. Exit code 0 good, 1 not."""

import json
import os
import resource
import socket
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs
import pytest
import structlog
import trio

from triolet_core import ConfigError, ConfigErrors, _doctor
from triolet_core._logging import FILE_NAME, configure_logging
from triolet_core.config import AuthConfig, LogConfig, NodeConfig, PluginsConfig, ServerConfig, setting
from triolet_core.plugin import GROUP, PluginContext, PluginSpec


@attrs.frozen(kw_only=True)
class Listeners:
    """Stands for a plugin that listens."""

    on: bool = setting(default=True, doc="run")
    tcp_addr: str = setting("", key="addr", doc="TCP")
    ws_addr: str = setting("", key="wsAddr", doc="WebSocket")
    http_addr: str = setting("", key="httpAddr", doc="API")
    allow_open: bool = setting(default=False, doc="no token")
    workers: int = setting(0, doc="processes")


async def run(context: PluginContext[Any], *, task_status: trio.TaskStatus[None]) -> None:
    task_status.started()


def installed(name: str = "gateway", **kwargs: Any) -> _doctor.Installed:
    return _doctor.Installed(name, "test 1.0", PluginSpec(name=name, run=run, config_class=Listeners, **kwargs))


def examine(tmp_path: Path, part: Listeners | None = None, **kwargs: Any) -> list[str]:
    node = NodeConfig(root_dir=str(tmp_path))
    config = ServerConfig(**{"node": node, "sections": {"gateway": part or Listeners()}, **kwargs})
    return [str(finding) for finding in _doctor.examine(config, [installed()])]


def bad(findings: list[str]) -> list[str]:
    return [finding.removeprefix("BAD  ") for finding in findings if finding.startswith("BAD ")]


@pytest.fixture
def taken() -> Iterator[int]:
    """A port where somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_all_is_well_and_nothing_is_made(tmp_path: Path) -> None:
    root = tmp_path / "a" / "b"
    findings = examine(root, Listeners(tcp_addr="tcp://127.0.0.1:0"), notices=("x (-e) is not a known key",))
    assert bad(findings) == []
    assert "ok   plugin gateway (test 1.0)" in findings
    assert "ok   configuration: x (-e) is not a known key" in findings
    assert "ok   plugins start in this order: gateway" in findings
    assert f"ok   data directory {root}/data can be made" in findings
    assert "ok   store: none yet, it is made at the first start" in findings
    assert "ok   gateway tcp address tcp://127.0.0.1:0 is free" in findings
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_the_directory_should_be(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    assert bad(examine(tmp_path)) == [
        f"data directory {tmp_path}/data: {tmp_path}/data is not a directory",
    ]


def test_a_directory_that_is_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    assert bad(examine(tmp_path)) == [f"data directory {tmp_path}/data: {tmp_path} is not writable"]


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ((256, 1024), "BAD  open files: 256, raised to 1024 at start, room for as many connections, and a few less"),
        ((256, 4096), "ok   open files: 256, raised to 4096 at start, room for as many connections, and a few less"),
        ((256, resource.RLIM_INFINITY), "ok   open files: 256, raised to any number at start"),
    ],
)
def test_the_limit_of_open_files(
    limits: tuple[int, int], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits)
    assert any(finding.startswith(text) for finding in examine(tmp_path))


@pytest.mark.parametrize(
    ("workers", "text"),
    [(0, "(N times as many with gateway.workers = N)"), (6, "in each of 6 workers")],
)
def test_how_many_connections_the_limit_of_open_files_allows(
    workers: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is one for each process, so that workers multiply it."""
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 20_000))
    [finding] = [each for each in examine(tmp_path, Listeners(workers=workers)) if "open files" in each]
    assert finding.startswith("ok ")
    assert text in finding


def test_a_port_that_is_taken(tmp_path: Path, taken: int) -> None:
    address = f"tcp://127.0.0.1:{taken}"
    [finding] = bad(examine(tmp_path, Listeners(tcp_addr=address)))
    assert finding.startswith(f"gateway tcp address {address}: Address already in use; choose another")


def test_two_of_our_own_listeners_on_one_port(tmp_path: Path, taken: int) -> None:
    with socket.socket() as free:  # bound and closed again: a port that is free now
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    part = Listeners(tcp_addr=f"tcp://127.0.0.1:{port}", http_addr=f"127.0.0.1:{port}")
    assert bad(examine(tmp_path, part)) == [
        f"gateway http address 127.0.0.1:{port} is taken by our own gateway tcp listener; choose another"
    ]


def test_a_listener_of_a_plugin_that_does_not_run_is_not_looked_at(tmp_path: Path, taken: int) -> None:
    address = f"127.0.0.1:{taken}"
    assert bad(examine(tmp_path, Listeners(on=False, tcp_addr=address))) == []
    plugins = PluginsConfig(disabled=("gateway",))
    assert bad(examine(tmp_path, Listeners(tcp_addr=address), plugins=plugins)) == []


def test_an_address_that_is_none_and_one_that_is_not_ours(tmp_path: Path) -> None:
    assert bad(examine(tmp_path, Listeners(http_addr="here"))) == [
        "gateway http address here: 'here' is not an address such as 127.0.0.1:5100"
    ]
    [finding] = bad(examine(tmp_path, Listeners(tcp_addr="192.0.2.1:1")))
    assert finding.startswith("gateway tcp address 192.0.2.1:1: Cannot assign requested address")


def test_an_api_for_others_wants_a_token(tmp_path: Path) -> None:
    part = Listeners(http_addr="0.0.0.0:0")
    assert bad(examine(tmp_path, part)) == ["httpAddr 0.0.0.0:0 is reached by others: set managerToken"]
    assert bad(examine(tmp_path, part, auth=AuthConfig(manager_token="t"))) == []
    assert bad(examine(tmp_path, attrs.evolve(part, allow_open=True))) == []


def test_plugins_that_do_not_fit_together(tmp_path: Path) -> None:
    config = ServerConfig(node=NodeConfig(root_dir=str(tmp_path)))
    plugins = [installed("a", requires=frozenset({"b"}))]
    findings = [str(finding) for finding in _doctor.examine(config, plugins)]
    assert bad(findings) == ["plugins: plugin 'a' requires b, which is not enabled"]


def test_wrong_settings_are_findings_and_the_rest_is_still_looked_at() -> None:
    first, second = ConfigError("mode", "wrong", origin="-e"), ConfigError("addr", "wrong", origin="-e")
    findings = [str(finding) for finding in _doctor.examine(ConfigErrors((first, second)), [installed()])]
    assert bad(findings) == ["configuration: mode (-e): wrong", "configuration: addr (-e): wrong"]
    assert findings[0] == "ok   plugin gateway (test 1.0)"
    assert bad([str(finding) for finding in _doctor.examine(first, [])]) == ["configuration: mode (-e): wrong"]


def test_plugins_that_cannot_be_loaded_are_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        metadata.EntryPoint("odd", "json:dumps", GROUP),
        metadata.EntryPoint("bad", "triolet_core.nothing:plugin", GROUP),
    ]
    monkeypatch.setattr(metadata, "entry_points", lambda group: entries)
    found = _doctor.installed_plugins()
    assert [(each.name, each.spec) for each in found] == [("bad", None), ("odd", None)]
    texts = bad([str(finding) for finding in _doctor.examine(ConfigError("mode", "wrong"), found)])
    assert texts[0].startswith("plugin bad (unknown distribution) cannot be loaded: ModuleNotFoundError")
    assert texts[1] == "plugin odd (unknown distribution) cannot be loaded: json:dumps is no PluginSpec"


# --- logs


@pytest.fixture
def _structlog() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("_structlog")
@pytest.mark.parametrize(
    ("level", "mode", "shown"),
    [
        (0, "release", ["info", "warning", "error"]),
        (0, "debug", ["debug", "info", "warning", "error"]),
        (1, "release", ["debug", "info", "warning", "error"]),
        (2, "debug", ["info", "warning", "error"]),
        (3, "release", ["warning", "error"]),
        (4, "release", ["error"]),
    ],
)
def test_levels(level: int, mode: str, shown: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Source: config.md, `logger.level`: 0 by mode, 1 debug, 2 info, 3 warn, 4 error."""
    configure_logging(LogConfig(level=level), mode=mode, root_dir=tmp_path)
    log = structlog.get_logger()
    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)("event", number=1, path=tmp_path)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["level"] for line in lines] == shown
    assert all(line["number"] == 1 and line["path"] == str(tmp_path) and line["timestamp"] for line in lines)


@pytest.mark.usefixtures("_structlog")
def test_errors_are_logged_with_their_stack_and_the_line_if_wished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(LogConfig(line_num=True), mode="release", root_dir=tmp_path)
    structlog.get_logger().error("failed", exc_info=ValueError("why"))
    line = json.loads(capsys.readouterr().err)
    assert "ValueError: why" in line["exception"]
    assert (line["filename"], line["lineno"] > 0) == ("test_cli_doctor.py", True)


@pytest.mark.usefixtures("_structlog")
def test_logs_may_go_to_a_file_in_the_root_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2):
        configure_logging(LogConfig(dir="logs"), mode="release", root_dir=tmp_path)
        log = structlog.get_logger()
        log.info("event", number=number)
        log.bind()._logger._file.close()
    lines = (tmp_path / "logs" / FILE_NAME).read_text().splitlines()
    assert [json.loads(line)["number"] for line in lines] == [1, 2]
    assert capsys.readouterr().err == ""


def test_a_directory_for_logs_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("")
    with pytest.raises(ConfigError, match=r"logger\.dir: .*logs cannot be written"):
        configure_logging(LogConfig(dir="logs"), mode="release", root_dir=tmp_path)


@pytest.mark.usefixtures("_structlog")
def test_people_get_lines_to_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    configure_logging(LogConfig(), mode="release", root_dir=tmp_path)
    structlog.get_logger().info("connection closed", reason="keep-alive")
    line = capsys.readouterr().err
    assert "connection closed" in line
    assert not line.startswith("{")


def test_a_unix_address_is_a_path_where_a_socket_can_be_bound(tmp_path: Path) -> None:
    assert bad(examine(tmp_path, Listeners(tcp_addr=f"unix://{tmp_path}/gate.sock"))) == []
    (tmp_path / "file").write_text("x")
    [finding] = bad(examine(tmp_path, Listeners(tcp_addr=f"unix://{tmp_path}/file")))
    assert finding.endswith("there is a file of another kind")
    [finding] = bad(examine(tmp_path, Listeners(tcp_addr=f"unix://{tmp_path}/nowhere/gate.sock")))
    assert finding.endswith("cannot be written")
