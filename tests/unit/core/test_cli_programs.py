"""Programs of other packages behind `triolet`: entry points of the group `triolet.commands`."""

import sys
from collections.abc import Sequence
from importlib import metadata

import pytest

from triolet_core import _cli
from triolet_core._cli_plugin import PROGRAMS


def program(words: Sequence[str]) -> int:
    """Write its words; its exit code is their number."""
    sys.stdout.write(" ".join(["program", *words]) + "\n")
    return len(words)


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = metadata.EntryPoints(
        [
            metadata.EntryPoint("shout", f"{__name__}:program", PROGRAMS),
            metadata.EntryPoint("broken", "triolet_core.nothing:main", PROGRAMS),
            metadata.EntryPoint("version", f"{__name__}:program", PROGRAMS),
        ]
    )
    monkeypatch.setattr(metadata, "entry_points", lambda **wanted: found.select(**wanted))


@pytest.mark.usefixtures("_installed")
def test_a_program_gets_its_words_and_gives_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert _cli.main(["shout", "--loud", "x"]) == 2
    assert capsys.readouterr().out == "program --loud x\n"


@pytest.mark.usefixtures("_installed")
def test_a_program_that_cannot_be_loaded_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert _cli.main(["broken"]) == 1
    assert "broken" in capsys.readouterr().err


@pytest.mark.usefixtures("_installed")
def test_a_program_cannot_take_a_name_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert _cli.main(["version"]) == 0
    assert capsys.readouterr().out.startswith("triolet ")


def test_the_chat_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        _cli.main(["chat", "--help"])
    assert caught.value.code == 0
    assert "usage: triolet chat" in capsys.readouterr().out
