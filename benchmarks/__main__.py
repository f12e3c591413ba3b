"""Run the rows against a server of their own: python -m benchmarks [--quick] [--only ROW ...] [--runs N].

Each run starts a fresh server with a fresh data directory, drives it from a second process, and ends both.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks import rows
from benchmarks.generator import CannotDrive

RESULTS = Path(__file__).parent / "results"
UNITS = {"idle_memory": "kb_per_connection", rows.DEAD_WEBHOOK: "ratio"}
"""What a row counts, if not things per second."""
COSTS = ("server_cpu_us_each", "generator_cpu_us_each")


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
    parser.add_argument("--only", nargs="+", choices=rows.NAMES, default=list(rows.NAMES))
    parser.add_argument("--runs", type=int, default=1, help="runs of each row; the median counts")
    parser.add_argument("-e", dest="settings", action="append", default=[], help="a setting of the server")
    args = parser.parse_args()
    rows.raise_file_limit()
    found: dict[str, Any] = {}
    for row in args.only:
        try:
            runs = [rows.run(row, quick=args.quick, settings=args.settings) for _ in range(args.runs)]
        except CannotDrive:
            print(f"{row:20} left out, it takes cargo", flush=True)
            continue
        key = UNITS.get(row, "per_second")
        median = statistics.median(run[key] for run in runs)
        found[row] = {"median": round(median, 3), "unit": key, "runs": runs}
        costs = "".join(
            f"  {name} {runs[0].get(name, '-')}" for name in ("server_cpu_us_each", "generator_cpu_us_each")
        )
        print(f"{row:20} {median:12,.{2 if key == 'ratio' else 1}f} {key:18}{costs}", flush=True)
    RESULTS.mkdir(exist_ok=True)
    report = {"machine": machine(), "settings": args.settings, "quick": args.quick, "rows": found}
    path = RESULTS / "latest.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
