"""Which implementation of the hot path is used (issue 7, means, point 1)."""

import sys
from types import ModuleType

import pytest

from triolet_core.speedups import COMPILED, INTERFACE
from triolet_protocol import _hot
from triolet_protocol._choice import choose


def installed(interface: int) -> ModuleType:
    module = ModuleType(COMPILED)
    module.INTERFACE = interface  # type: ignore[attr-defined]  # made up
    return module


def test_the_compiled_functions_are_used_if_they_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = installed(INTERFACE)
    monkeypatch.setitem(sys.modules, COMPILED, compiled)
    assert choose({}) is compiled
    assert choose({"TRIOLET_PURE": "0"}) is compiled


def test_a_variable_forces_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, COMPILED, installed(INTERFACE))
    assert choose({"TRIOLET_PURE": "1"}) is _hot


def test_python_does_without_the_compiled_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, COMPILED, None)
    assert choose({}) is _hot


def test_compiled_functions_of_another_interface_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, COMPILED, installed(INTERFACE + 1))
    assert choose({}) is _hot
