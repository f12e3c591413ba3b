"""Drafts that follow each other get one verdict only where none could differ."""

import attrs
import pytest

from triolet_core._drafts import drafts_alike, is_plausible
from triolet_core.model import DUP, MAX_ID_BYTES, NO_PERSIST, Draft

LIMIT = 10
PLAIN = Draft("c", 2, b"x", "n")


def runs(*drafts: Draft, one_by_one: bool = False) -> list[int]:
    found = list(drafts_alike(drafts, LIMIT, one_by_one=one_by_one))
    assert [each for first, more in found for each in (first, *more)] == list(drafts)
    return [1 + len(more) for _, more in found]


def test_drafts_of_one_channel_are_one_run() -> None:
    assert runs(*(attrs.evolve(PLAIN, payload=b"x" * n, client_msg_no=str(n)) for n in range(LIMIT + 1))) == [11]
    assert runs() == []
    assert runs(PLAIN, PLAIN, one_by_one=True) == [1, 1]


@pytest.mark.parametrize(
    "change",
    [
        {"channel_id": "d"},
        {"channel_type": 3},
        {"flags": NO_PERSIST},
        {"flags": DUP},
        {"refusal": 9},
        {"payload": b"x" * (LIMIT + 1)},
        {"client_msg_no": "n" * (MAX_ID_BYTES + 1)},
        {"client_msg_no": "\u20ac" * (MAX_ID_BYTES // 3 + 1)},
        {"topic": "t" * (MAX_ID_BYTES + 1)},
    ],
    ids=str,
)
def test_a_draft_that_could_be_judged_otherwise_is_alone(change: dict[str, object]) -> None:
    other = attrs.evolve(PLAIN, **change)
    assert runs(PLAIN, PLAIN, other, PLAIN, PLAIN) == [2, 1, 2]
    assert runs(other, PLAIN, PLAIN) == [1, 2]


@pytest.mark.parametrize(
    ("change", "is_one"),
    [
        ({}, True),
        ({"channel_id": ""}, False),
        ({"channel_id": "a\0b"}, False),
        ({"channel_id": "c" * (2 * MAX_ID_BYTES + 1)}, True),
        ({"channel_id": "c" * (2 * MAX_ID_BYTES + 2)}, False),
        ({"client_msg_no": "\u20ac" * (MAX_ID_BYTES // 3)}, True),
        ({"client_msg_no": "\u20ac" * (MAX_ID_BYTES // 3 + 1)}, False),
        ({"payload": b"x" * (LIMIT + 1)}, False),
    ],
    ids=str,
)
def test_what_is_plausible(change: dict[str, object], is_one: bool) -> None:  # by pytest
    assert is_plausible(attrs.evolve(PLAIN, **change), LIMIT) is is_one
