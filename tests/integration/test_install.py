"""Each combination of distributions is installed from its wheels beside what it declares, and started."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).parent / "uv"
PLUGINS = ("gateway", "api", "webhook", "datasource")
MEMBERS = ("core", "protocol", *PLUGINS, "client")
BRINGS = {"core": (), "protocol": (), "gateway": ("core", "protocol"), "client": ("protocol",)}
"""What of ours each brings; every other brings the core."""
SOURCES = {f"triolet-{member}": ROOT / "packages" / member for member in MEMBERS} | {
    "triolet": ROOT,
    "triolet-wordfilter": ROOT / "examples" / "own_plugin",
    "triolet-speedups": ROOT / "packages" / "speedups",
}
TIMEOUT_S = 30
COMPILER_TIMEOUT_S = 100

START = """
import json, sys
sys.path[:0] = sys.argv[1:3]
import trio
from triolet_core import Device, Draft, load_config, open_server

PORTS = ["addr=tcp://127.0.0.1:0", "wsAddr=ws://127.0.0.1:0", "httpAddr=127.0.0.1:0"]

async def main():
    config = load_config(overrides=[f"rootDir={sys.argv[3]}", *PORTS], environ={})
    async with open_server(config) as server:
        reasons = []
        for text in (b"hello", b"Casino"):
            draft = Draft(channel_id="bob", channel_type=1, payload=text)
            reasons.append((await server.broker.messages.send(Device(uid="ann"), draft)).reason)
        plugins, endpoints = sorted(server.plugins), sorted(server.broker.endpoints)
    packages = sorted({name.partition(".")[0] for name in sys.modules if name.startswith("triolet_")})
    print(json.dumps({"plugins": plugins, "endpoints": endpoints, "packages": packages, "reasons": reasons}))

trio.run(main)
"""


@pytest.fixture(scope="module")
def wheel_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Build a distribution once, without network."""
    built: dict[str, Path] = {}

    def build(name: str) -> Path:
        if name not in built:
            directory = tmp_path_factory.mktemp("wheel")
            uv("build", "--wheel", "--no-build-isolation", "--out-dir", directory, SOURCES[name])
            [built[name]] = directory.glob("*.whl")
        return built[name]

    return build


def uv(command: str, *arguments: str | Path) -> None:
    flags = ["--quiet", "--offline", "--no-cache", "--no-config"]
    target = ["--python", sys.executable]
    words = [UV, *command.split(), *flags, *target, *arguments]
    timeout = COMPILER_TIMEOUT_S if SOURCES["triolet-speedups"] in arguments else TIMEOUT_S
    environ = {**os.environ, "CARGO_NET_OFFLINE": "true"}
    subprocess.run(words, check=True, capture_output=True, text=True, timeout=timeout, env=environ)


def install(target: Path, wheels: Iterable[Path]) -> None:
    uv("pip install", "--no-deps", "--target", target, *wheels)


def declared(distributions: Iterable[metadata.Distribution]) -> set[str]:
    """What distributions require on this platform, without extras."""
    requirements = (Requirement(text) for each in distributions for text in each.requires or ())
    return {
        canonicalize_name(requirement.name)
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    }


def link_requirements(target: Path, directory: Path) -> None:
    """Make what is declared in `target`, and nothing else of this environment, importable from `directory`."""
    directory.mkdir()
    todo = {name for name in declared(metadata.distributions(path=[str(target)])) if not name.startswith("triolet")}
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        seen.add(name)
        distribution = metadata.distribution(name)
        todo |= declared([distribution]) - seen
        for top in {file.parts[0] for file in distribution.files or () if file.parts[0] != ".."}:
            if not (directory / top).exists():
                (directory / top).symlink_to(Path(str(distribution.locate_file(top))))


def start(tmp_path: Path, wheels: Iterable[Path]) -> dict[str, Any]:
    """Install wheels into a bare directory, start a server from it in an isolated interpreter, return its report."""
    target, third_party = tmp_path / "target", tmp_path / "third party"
    install(target, wheels)
    link_requirements(target, third_party)
    words: list[str | Path] = [sys.executable, "-I", "-S", "-c", START, target, third_party, tmp_path / "root"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


@pytest.mark.parametrize(
    ("plugins", "endpoints"),
    [
        ((), []),
        (("gateway",), ["tcp", "ws"]),
        (("api",), ["http"]),
        (("webhook",), []),
        (("datasource",), []),
        (PLUGINS, ["http", "tcp", "ws"]),
    ],
    ids=["core alone", "gateway", "api", "webhook", "datasource", "all"],
)
def test_a_combination_starts_with_what_it_declares(
    tmp_path: Path, wheel_of: Callable[[str], Path], plugins: tuple[str, ...], endpoints: list[str]
) -> None:
    """Install only what is needed (architecture.md, section 1)."""
    names = {"core", *plugins, *(own for name in plugins for own in BRINGS.get(name, ()))}
    report = start(tmp_path, [wheel_of(f"triolet-{name}") for name in names])
    assert report["plugins"] == sorted(plugins)
    assert report["endpoints"] == endpoints
    assert report["packages"] == sorted(f"triolet_{name}" for name in names)


@pytest.mark.skipif(shutil.which("cargo") is None, reason="there is no cargo")
def test_the_compiled_hot_path_is_used_where_its_wheel_is_installed(
    tmp_path: Path, wheel_of: Callable[[str], Path]
) -> None:
    """Without it the same combination starts in pure Python: the test above."""
    report = start(tmp_path, [wheel_of(f"triolet-{name}") for name in ("core", "gateway", "protocol", "speedups")])
    assert report["packages"] == ["triolet_core", "triolet_gateway", "triolet_protocol", "triolet_speedups"]
    assert report["endpoints"] == ["tcp", "ws"]


def requirements_of(tmp_path: Path, wheel: Path) -> set[str]:
    install(tmp_path, [wheel])
    return declared(metadata.distributions(path=[str(tmp_path)]))


@pytest.mark.parametrize("name", MEMBERS)
def test_each_brings_what_it_stands_on_and_no_more(tmp_path: Path, wheel_of: Callable[[str], Path], name: str) -> None:
    own = {each for each in requirements_of(tmp_path, wheel_of(f"triolet-{name}")) if each.startswith("triolet")}
    assert own == {f"triolet-{each}" for each in BRINGS.get(name, ("core",))}


CONNECT = """
import sys
sys.path[:0] = sys.argv[1:3]
import anyio
from triolet_client import ConnectionFailed, Login, open_client

async def main():
    try:
        async with open_client(Login(uid="ann"), "ws://127.0.0.1:1"):
            print("connected")
    except ConnectionFailed:
        print("nobody there")

anyio.run(main, backend="asyncio")
print(sorted({name.partition(".")[0] for name in sys.modules if name.startswith("triolet_") or name == "trio"}))
"""


def test_the_client_runs_with_what_it_declares(tmp_path: Path, wheel_of: Callable[[str], Path]) -> None:
    """Without the server, and on asyncio without Trio."""
    target, third_party = tmp_path / "target", tmp_path / "third party"
    install(target, [wheel_of("triolet-client"), wheel_of("triolet-protocol")])
    link_requirements(target, third_party)
    words: list[str | Path] = [sys.executable, "-I", "-S", "-c", CONNECT, target, third_party]
    done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["nobody there", "['triolet_client', 'triolet_protocol']"]


def test_the_api_brings_its_web_pages(wheel_of: Callable[[str], Path]) -> None:
    """The pages are files beside the code; an installed server has every one of them."""
    source = SOURCES["triolet-api"] / "src"
    pages = {path.relative_to(source).as_posix() for path in source.glob("triolet_api/*/*.*") if path.suffix != ".py"}
    pages = {name for name in pages if not name.endswith(".pyc")}
    assert {"triolet_api/web/index.html", "triolet_api/chatdemo/index.html"} <= pages
    with zipfile.ZipFile(wheel_of("triolet-api")) as wheel:
        assert pages <= set(wheel.namelist())


def test_the_distribution_triolet_brings_all(tmp_path: Path, wheel_of: Callable[[str], Path]) -> None:
    own = {each for each in requirements_of(tmp_path, wheel_of("triolet")) if each.startswith("triolet")}
    assert own == {f"triolet-{name}" for name in MEMBERS}


def test_the_example_plugin_is_found_and_asked(tmp_path: Path, wheel_of: Callable[[str], Path]) -> None:
    """examples/own_plugin: an entry point is all it takes; a message with the word is refused with 11."""
    report = start(tmp_path, [wheel_of("triolet-core"), wheel_of("triolet-wordfilter")])
    assert report["plugins"] == ["wordfilter"]
    assert report["reasons"] == [1, 11]
