"""What a log may not hold: the local variables of a failed request, for they are tokens and payloads."""

import io

import pytest
import structlog

from triolet_core import _logging


@pytest.mark.parametrize("is_for_people", [True, False])
def test_a_traceback_shows_no_variables(is_for_people: bool) -> None:
    out = io.StringIO()
    processors = _logging._processors(has_lines=False, is_for_people=is_for_people)
    log = structlog.wrap_logger(structlog.WriteLogger(out), processors=processors)

    def fail(token: str) -> None:
        raise ValueError("it broke")

    try:
        fail("se" + "cret")
    except ValueError:
        log.exception("request failed", path="/user/token")
    said = out.getvalue()
    assert "it broke" in said
    assert "in fail" in said
    assert "secret" not in said
