"""examples/sensor-fleet and examples/rtc-signalling, run as their readers would."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[3] / "examples"


def run(*words: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / words[0]), *words[1:]], capture_output=True, text=True, timeout=40, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_a_fleet_reports_obeys_and_misses_what_expired() -> None:
    """Ten of a hundred are switched off: the short command passes them by, the long one does not."""
    first, *rest = run("sensor-fleet/fleet.py", "--devices", "100")
    assert first.startswith("100 of 100 online and reporting")
    assert rest == [
        "calibrate: 100 done",
        "10 switched off, 90 online",
        "blink: 90 done, expired for 10",
        "update: 100 done",
    ]


def test_a_call_comes_about_and_leaves_nothing_behind() -> None:
    lines = run("rtc-signalling/signalling.py")
    assert lines.count("bob: candidate from ann") == lines.count("ann: candidate from bob") == 3
    assert lines.index("bob: offer from ann") < lines.index("ann: answer from bob")
    assert lines[-3:] == [
        "connected: 'v=0 answer of bob' and 'v=0 offer of ann'",
        "eve is refused: SUBSCRIBER_NOT_EXIST",
        "left behind: 0",
    ]
