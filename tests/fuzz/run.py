"""Run targets, in a process of its own.

`python -m tests.fuzz.run replay TARGET FILE…` runs the inputs in files and folders, by Python alone.
`python -m tests.fuzz.run fuzz TARGET …` fuzzes with libFuzzer, whose options and folders follow.
What is found is printed, with the input.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

PACKAGES = ["triolet_protocol", "triolet_gateway", "triolet_api"]
"""Whose coverage guides."""


def fuzz(target: str, options: Sequence[str]) -> None:
    """Fuzz. libFuzzer ends the process."""
    import atheris  # replaying does without

    with atheris.instrument_imports(include=PACKAGES):
        from tests.fuzz.targets import TARGETS
    again = f"{sys.executable} -m tests.fuzz.run fuzz {target}"  # merging runs this, by a shell
    atheris.Setup([again, *options], TARGETS[target])
    atheris.Fuzz()


def replay(target: str, paths: Sequence[Path]) -> int:
    """Run a target on every input; returns the exit status: 1 if one has found something."""
    from tests.fuzz.targets import TARGETS

    for path in paths:
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            data = file.read_bytes()
            try:
                TARGETS[target](data)
            except BaseException:
                sys.stdout.write(f"found by {target}: {data.hex()}\n{traceback.format_exc()}")
                return 1
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "fuzz":
        fuzz(sys.argv[2], sys.argv[3:])
    else:
        status = replay(sys.argv[2], [Path(word) for word in sys.argv[3:]])
        sys.stdout.flush()
        os._exit(status)  # the server of `sockets` has a thread that does not end
