"""Schemathesis asks a server everything that its document says, and things that it does not say.

For every endpoint: the examples, and random requests that fit the schema and that break it, from a fixed seed. No
answer may be a 5xx, nor differ from the document in status, media type or schema. The bound keeps this short; for a
deeper search run it by hand against a server: `schemathesis run URL/openapi.json --phases coverage,fuzzing -n 200`.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving import serving

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
EXAMPLES = 5
"""Random requests for an endpoint and mode."""
SEED = 20240229
TIMEOUT_S = 240
"""It takes some 15 seconds on an idle machine with two cores."""


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S + 30)
def test_no_answer_is_a_server_error_or_outside_the_document(tmp_path: Path) -> None:
    with serving(tmp_path, "ext.on=true", "demo.on=true") as urls:
        words = f"run {urls['http']}/openapi.json --checks {','.join(CHECKS)} --phases examples,fuzzing"
        bounds = f"--max-examples {EXAMPLES} --seed {SEED} --generation-database none --generation-allow-x00 false"
        done = subprocess.run(
            [SCHEMATHESIS, *words.split(), *bounds.split(), "--no-color", "--no-shrink", "--warnings", "off"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "request failed" not in (tmp_path / "server.log").read_text()
