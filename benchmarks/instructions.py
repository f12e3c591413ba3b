"""Instructions of the functions that run per message: python -m benchmarks.instructions [--only CASE ...].

Where the machine is too noisy for times, valgrind's callgrind counts instructions. Each case of `benchmarks.micro` runs
in two processes, with COUNT and with twice as many calls; the difference is what the calls cost, without the start.
Takes valgrind on the path, and some minutes a case.
"""

import argparse
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.micro import CASES

COUNT = 200
TIMEOUT_S = 600
MODULES = {"pure": "triolet_protocol._hot", "compiled": "triolet_speedups"}
STANDARD = ("read 32 SENDs", "write 32 RECVs for 1", "write 1 RECV for 1000", "write 32 SENDACKs")


def run_case(name: str, module: str, count: int) -> None:
    """Do what is counted; this is the process under valgrind."""
    _, call = CASES[name](importlib.import_module(MODULES[module]))
    for _ in range(count):
        call()


def instructions(name: str, module: str, count: int) -> int:
    """Return the instructions of a whole process that makes `count` calls."""
    with tempfile.TemporaryDirectory(prefix="triolet-callgrind-") as directory:
        out = Path(directory) / "out"
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", sys.executable, "-m", __spec__.name]
        done = subprocess.run(
            [*command, "--child", name, module, str(count)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env=os.environ | {"PYTHONHASHSEED": "0"},
        )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if found is None:
        raise RuntimeError(done.stderr[-1000:])
    return int(found[1])


def cost(name: str, module: str) -> float:
    """Return the instructions per message of a case."""
    handled, _ = CASES[name](importlib.import_module(MODULES[module]))
    count = max(2, COUNT // max(1, handled // 32))
    return (instructions(name, module, 2 * count) - instructions(name, module, count)) / count / handled


def main() -> None:
    """Count and print, or be the process that is counted."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(STANDARD))
    parser.add_argument("--child", nargs=3, metavar=("CASE", "MODULE", "CALLS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        run_case(args.child[0], args.child[1], int(args.child[2]))
        return
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not installed")
    modules = [each for each in MODULES if importlib.util.find_spec(MODULES[each])]
    print(f"{'instructions per message':32}", *(f"{each:>10}" for each in modules))
    for name in args.only:
        print(f"{name:32}", *(f"{cost(name, module):10,.0f}" for module in modules), flush=True)


if __name__ == "__main__":
    main()
