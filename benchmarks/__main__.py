"""Run the rows against a server of their own: python -m benchmarks [--quick] [--only ROW ...] [--runs N].

Each run starts a fresh server with a fresh data directory, drives it from a second process, and ends both.
"""

import argparse
import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks import report, rows
from benchmarks.generator import CannotDrive


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
    figures: list[report.Figure] = []
    for row in args.only:
        try:
            runs = [rows.run(row, quick=args.quick, settings=args.settings) for _ in range(args.runs)]
        except CannotDrive:
            print(f"{row:20} left out, it takes cargo", flush=True)
            continue
        figures.append(report.figure(row, runs))
        print(f"{row:20} {figures[-1].median:14,.2f} {figures[-1].measure.unit}", flush=True)
    report.show(figures)
    facts = {"machine": machine(), "settings": args.settings, "quick": args.quick}
    for path in report.write(figures, facts):
        print(f"written to {path}")


if __name__ == "__main__":
    main()
