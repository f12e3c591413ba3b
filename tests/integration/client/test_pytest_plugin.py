"""The fixtures, in a project that is not ours: the test of docs/client.md, run as its reader would."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).parents[3] / "docs" / "client.md"


def pytest_in(path: Path, text: str) -> subprocess.CompletedProcess[str]:
    (path / "test_bot.py").write_text(text)
    (path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\n")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)]
    return subprocess.run(words, cwd=path, capture_output=True, text=True, timeout=60, check=False)


def test_the_test_of_the_document_passes(tmp_path: Path) -> None:
    [block] = [text for text in re.findall("```python\n(.*?)```", DOCUMENT.read_text(), re.S) if "def test_" in text]
    done = pytest_in(tmp_path, block)
    assert "1 passed" in done.stdout, done.stdout


def test_settings_are_overridden_and_time_needs_its_clock(tmp_path: Path) -> None:
    done = pytest_in(
        tmp_path,
        """
import pytest
from triolet_client import Refused

@pytest.fixture
def triolet_settings():
    return ["tokenAuthOn=true"]

async def test_a_wrong_token_is_refused(triolet_server):
    with pytest.raises(Refused):
        async with triolet_server.open_client("ann", token="wrong"):
            pytest.fail("it was let in")

async def test_real_time_cannot_be_moved(triolet_server):
    with pytest.raises(TypeError, match="triolet_clock"):
        await triolet_server.advance(1)
""",
    )
    assert "2 passed" in done.stdout, done.stdout
