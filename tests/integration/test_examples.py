"""examples/backend, run as a reader of its tutorial would."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import trio

from tests.serving import serving
from tests.wkclient import tcp_client
from triolet_core import ReasonCode

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "backend"
TOKEN = "s3cret"
TIMEOUT_S = 30


def backend(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the example."""
    words = [sys.executable, EXAMPLE / "backend.py", *arguments]
    return subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def tutorial_output() -> str:
    """Return what the tutorial says that the program prints."""
    return (EXAMPLE / "README.md").read_text().partition("```text\n")[2].partition("```")[0]


async def test_the_backend_does_what_its_tutorial_says(tmp_path: Path) -> None:
    """And what it did holds for the users' apps: the muted member may connect and read, and not send."""
    with serving(tmp_path, f"managerToken={TOKEN}") as urls, trio.fail_after(TIMEOUT_S):
        done = backend(urls["http"], TOKEN)
        assert (done.returncode, done.stdout, done.stderr) == (0, tutorial_output(), "")
        async with tcp_client(urls["tcp"].removeprefix("tcp://")) as cid:
            assert await cid.connect("cid", "token-of-cid") == ReasonCode.SUCCESS
            assert (await cid.send("team", channel_type=2)).reason_code == ReasonCode.IN_BLACKLIST
        async with tcp_client(urls["tcp"].removeprefix("tcp://")) as ann:
            assert await ann.connect("ann", "token-of-ann") == ReasonCode.SUCCESS
            assert (await ann.send("team", channel_type=2)).message_seq == 3


def test_running_it_again_sends_nothing_twice(tmp_path: Path) -> None:
    with serving(tmp_path) as urls:
        backend(urls["http"])
        done = backend(urls["http"])
        query = {"channel_id": "team", "channel_type": 2}
        assert httpx.get(f"{urls['http']}/channel/max_message_seq", params=query).json() == {"message_seq": 2}
    assert (done.returncode, done.stderr) == (0, "")


def test_the_backend_says_why_it_cannot(tmp_path: Path) -> None:
    with serving(tmp_path, f"managerToken={TOKEN}") as urls:
        done = backend(urls["http"], "wrong")
    assert (done.returncode, done.stderr) == (1, "refused: the manager token is missing or wrong\n")
    done = backend(urls["http"])
    assert done.returncode == 1
    assert done.stderr.startswith("no answer: ")
    assert done.stderr.endswith("; is the server running?\n")


def test_the_tutorial_is_the_examples_readme() -> None:
    assert (EXAMPLE / "README.md").read_text() == (ROOT / "docs" / "tutorial-backend.md").read_text()
