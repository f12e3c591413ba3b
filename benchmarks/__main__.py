"""Run the rows against a server of their own: python -m benchmarks [--quick] [--only ROW ...] [--runs N].

Each run starts a fresh server with a fresh data directory, drives it from a second process, and ends both.
"""

import argparse
import json
import os
import platform
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.load import ROWS, rss_kb

RESULTS = Path(__file__).parent / "results"
QUICK = ["--seconds", "3", "--messages", "10000", "--logins", "500", "--connections", "1000"]
TICK = os.sysconf("SC_CLK_TCK")
DEAD_WEBHOOK = "dead_webhook"
UNITS = {"idle_memory": "kb_per_connection", DEAD_WEBHOOK: "ratio"}
"""What a row counts, if not things per second."""


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def start_server(directory: str, settings: list[str]) -> tuple[subprocess.Popen[str], dict[str, str]]:
    """Start a server on free ports and return it with its addresses."""
    command = [sys.executable, "-m", "triolet_core", "run", "-e", f"rootDir={directory}"]
    for setting in ("addr=127.0.0.1:0", "wsAddr=127.0.0.1:0", "httpAddr=127.0.0.1:0", "logger.level=3", *settings):
        command += ["-e", setting]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    addresses: dict[str, str] = {}
    for line in server.stdout:
        found = re.match(r"(tcp|ws|http) +\w+://(\S+)", line)
        if found:
            addresses[found[1]] = found[2]
        if len(addresses) == 3:
            return server, addresses
    raise RuntimeError("the server did not start")


def run_row(row: str, options: list[str], settings: list[str]) -> dict[str, Any]:
    directory = tempfile.mkdtemp(prefix="triolet-bench-")
    server, addresses = start_server(directory, settings)
    try:
        before = cpu_seconds(server.pid)
        command = [sys.executable, "-m", "benchmarks.load", row, "--tcp", addresses["tcp"], "--http", addresses["http"]]
        done = subprocess.run(
            [*command, "--pid", str(server.pid), *options], capture_output=True, text=True, timeout=300
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        result: dict[str, Any] = json.loads(done.stdout)
        result["server_cpu_us_each"] = round((cpu_seconds(server.pid) - before) / result["count"] * 1e6, 2)
        result["server_rss_mb"] = round(rss_kb(server.pid) / 1024, 1)
        data = sum(file.stat().st_blocks * 512 for file in Path(directory).rglob("*") if file.is_file())
        result["disk_bytes"] = data
        return result
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)
        shutil.rmtree(directory)


def run_dead_webhook(options: list[str], settings: list[str]) -> dict[str, Any]:
    """Run person_to_person without a webhook and with one whose receiver takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"webhook.httpAddr=http://127.0.0.1:{silent.getsockname()[1]}/"
        without = [run_row("person_to_person", options, settings)]
        beside = run_row("person_to_person", options, [*settings, address])
        without.append(run_row("person_to_person", options, settings))
    mean = statistics.mean(run["per_second"] for run in without)
    return {"ratio": round(beside["per_second"] / mean, 3), "without": without, "with": beside}


def machine() -> dict[str, Any]:
    cpu = next((x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")), "")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return {
        "cpu": cpu.partition(":")[2].strip(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in ("trio", "lmdb", "cryptography", "hypercorn")},
        "commit": commit,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--quick", action="store_true", help="a few seconds a row")
    rows_there_are = [*ROWS, DEAD_WEBHOOK]
    parser.add_argument("--only", nargs="+", choices=rows_there_are, default=rows_there_are)
    parser.add_argument("--runs", type=int, default=1, help="runs of each row; the median counts")
    parser.add_argument("-e", dest="settings", action="append", default=[], help="a setting of the server")
    args = parser.parse_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    rows: dict[str, Any] = {}
    for row in args.only:
        options = QUICK if args.quick else []
        runs = [
            run_dead_webhook(options, args.settings) if row == DEAD_WEBHOOK else run_row(row, options, args.settings)
            for _ in range(args.runs)
        ]
        key = UNITS.get(row, "per_second")
        median = statistics.median(run[key] for run in runs)
        rows[row] = {"median": round(median, 3), "unit": key, "runs": runs}
        print(f"{row:18} {median:12,.{2 if key == 'ratio' else 1}f} {key}", flush=True)
    RESULTS.mkdir(exist_ok=True)
    report = {"machine": machine(), "settings": args.settings, "quick": args.quick, "rows": rows}
    path = RESULTS / "latest.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
