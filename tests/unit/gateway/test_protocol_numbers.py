"""The protocol stands on nothing of ours: what it has in common with the core is said twice, and held equal here."""

import triolet_protocol as wire
from triolet_core import model, speedups
from triolet_protocol import _compiled, _numbers


def test_the_reasons_are_those_of_the_core() -> None:
    assert {each.name: each.value for each in wire.ReasonCode} == {each.name: each.value for each in model.ReasonCode}


def test_the_bits_are_those_of_the_core() -> None:
    names = [name for name in vars(_numbers) if name.isupper()]
    assert len(names) == 10
    assert {name: getattr(_numbers, name) for name in names} == {name: getattr(model, name) for name in names}


def test_compiled_functions_are_found_by_the_same_rules() -> None:
    for name in ("INTERFACE", "COMPILED", "PURE_VARIABLE"):
        assert getattr(_compiled, name) == getattr(speedups, name)
    for environ in ({}, {"TRIOLET_PURE": "1"}):
        assert _compiled.find(environ) is speedups.find(environ)
