"""A minute of fuzzing: first what is known, with and without the compiled hot path, then what libFuzzer makes of it.

The seed and the most runs are fixed. A finding is printed with its input; it then becomes a test.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import corpus

ROOT = Path(__file__).parents[2]
SEED = 20240229
RUNS = {
    "frame": 60_000,
    "hot": 25_000,
    "writing": 8_000,
    "crypto": 40_000,
    "proxy": 60_000,
    "connection": 5_000,
    "jsonrpc": 25_000,
    "sockets": 6_000,
}
"""Less than five seconds each, on an idle machine with two cores."""
MOST_S = 5
"""When libFuzzer stops in any case."""
pytestmark = pytest.mark.slow


def run(*words: str, directory: Path, **environ: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", *words],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(directory), **environ},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


@pytest.mark.parametrize("pure", ["", "1"], ids=["both", "pure"])
@pytest.mark.parametrize("target", RUNS)
def test_every_input_that_is_known_holds(tmp_path: Path, target: str, pure: str) -> None:
    corpus.unpack(target, tmp_path / "inputs")
    run("replay", target, str(tmp_path / "inputs"), directory=tmp_path, TRIOLET_PURE=pure)


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this platform")
@pytest.mark.parametrize("target", RUNS)
def test_nothing_is_found(tmp_path: Path, target: str) -> None:
    corpus.unpack(target, tmp_path / "inputs")
    bounds = [f"-seed={SEED}", f"-runs={RUNS[target]}", f"-max_total_time={MOST_S}", "-timeout=10"]
    options = [*bounds, f"-max_len={corpus.MAX_BYTES}", "-rss_limit_mb=1024", f"-artifact_prefix={tmp_path}/"]
    run("fuzz", target, *options, str(tmp_path / "inputs"), directory=tmp_path)
