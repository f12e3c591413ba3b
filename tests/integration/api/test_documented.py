"""Every endpoint has its line in the documentation."""

import re
from pathlib import Path

from triolet_api.routes import ROUTES

DOCUMENT = Path(__file__).parents[3] / "docs" / "http-api.md"


def test_every_endpoint_is_in_the_documentation() -> None:
    named = set(re.findall(r"`(/[^`\s]*)`", DOCUMENT.read_text()))
    missing = {route.path for route in ROUTES} - named
    assert missing == set()


def test_the_documentation_names_nothing_that_is_gone() -> None:
    """A line that is not about what another server has names endpoints of ours only."""
    text = DOCUMENT.read_text()
    known = {route.path for route in ROUTES} | {"/docs"}
    lines = [
        line for line in text.partition("## OpenIM")[0].splitlines() if line.startswith("|") and "| not |" not in line
    ]
    named = {path for line in lines for path in re.findall(r"`(/[^`\s]*)`", line)}
    assert named - known == set()
