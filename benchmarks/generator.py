"""The load generator as a process: the compiled one in `loadgen/`, or `load.py` where there is no cargo."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.servers import RunningServer

CRATE = Path(__file__).parent / "loadgen"
BINARY = CRATE / "target" / "release" / "triolet-loadgen"
LONGEST_ROW_S = 900


class CannotDrive(Exception):
    """This row takes the compiled load generator, and there is no cargo to build it."""


@cache
def compiled() -> Path | None:
    """Build the load generator and return it; None without cargo, which it says once."""
    cargo = shutil.which("cargo")
    if cargo is None:
        print("there is no cargo: the load generator runs in Python, and is the limit of what it measures", flush=True)
        return None
    subprocess.run([cargo, "build", "--quiet", "--release", "--locked"], cwd=CRATE, check=True)
    return BINARY


def drive(binary: Path, server: RunningServer, row: str, options: Mapping[str, float]) -> dict[str, Any]:
    """Run a row of the compiled generator against a server and return what it found."""
    return _run(command(binary, server, row, options))


def command(binary: Path, server: RunningServer, row: str, options: Mapping[str, float]) -> list[str]:
    """Return the command that runs a row of the compiled generator."""
    addresses = [text for kind, address in server.addresses.items() for text in (f"--{kind}", address)]
    return [str(binary), row, *addresses, "--pid", str(server.pid), *_options(options)]


def drive_in_python(server: RunningServer, row: str, options: Mapping[str, float]) -> dict[str, Any]:
    """Run a row of the generator in Python; the server's processor time is that of its whole life."""
    addresses = ["--tcp", server.addresses["tcp"], "--http", server.addresses["http"]]
    command = [sys.executable, "-m", "benchmarks.load", row, *addresses, "--pid", str(server.pid)]
    before = server.cpu_seconds()
    found = _run([*command, *_options(options)])
    found["server_cpu_us_each"] = round((server.cpu_seconds() - before) / found["count"] * 1e6, 2)
    found["server_rss_mb"] = round(server.rss_kb() / 1024, 1)
    return found


def _run(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_ROW_S)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _options(options: Mapping[str, float]) -> list[str]:
    return [text for name, value in options.items() for text in (f"--{name}", str(value))]
