"""What each kind of field takes and refuses: http-api.md, section 3.3; http-api-errors.md, section 6."""

from typing import Any

import pytest

from triolet_api import _fields as fields
from triolet_api._errors import ApiError
from triolet_api._fields import Rules

TEXT = fields.Text()
NEEDED = fields.Text(missing="uid不能为空！", special="uid不能包含特殊字符！")
FREE = fields.Text(is_free=True)
NUMBER = fields.Number(high=255)
SIGNED = fields.Number(low=-1)
LENIENT = fields.Number(is_lenient=True, default=20, high=1000)
FLAG = fields.Flag()
KIND = fields.ChannelType()
TEXTS = fields.Texts(names=("subscribers",))
NUMBERS = fields.Numbers(low=1)
PAYLOAD = fields.Payload()
ANYTHING = fields.Anything()


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (TEXT, None, ""),
        (TEXT, "x" * 512, "x" * 512),
        (NEEDED, "ünï😀", "ünï😀"),
        (FREE, "x" * 600 + "\0", "x" * 600 + "\0"),
        (NUMBER, None, 0),
        (NUMBER, 255, 255),
        (NUMBER, "42", 42),
        (SIGNED, -1, -1),
        (SIGNED, "-1", -1),
        (SIGNED, 2**63 - 1, 2**63 - 1),
        (LENIENT, "abc", 20),
        (LENIENT, "", 20),
        (LENIENT, "-5", 0),
        (LENIENT, "99999999999999999999", 1000),
        (LENIENT, 1.5, 20),
        (FLAG, None, False),
        (FLAG, 1, True),
        (FLAG, True, True),
        (FLAG, "1", True),
        (FLAG, "0", False),
        (FLAG, "", False),
        (KIND, 1, 1),
        (KIND, "2", 2),
        (KIND, 255, 255),
        (TEXTS, None, []),
        (TEXTS, [], []),
        (TEXTS, ["b", "", "a", " ", "b"], ["b", "a"]),
        (NUMBERS, None, []),
        (NUMBERS, [3, "1", 3], [3, 1, 3]),
        (PAYLOAD, None, b""),
        (PAYLOAD, "", b""),
        (PAYLOAD, "aGVs\r\nbG8=", b"hello"),
        (PAYLOAD, [104, 105], b"hi"),
        (PAYLOAD, [], b""),
        (ANYTHING, None, None),
        (ANYTHING, {"a": [1, 2.5, None, "ü"]}, {"a": [1, 2.5, None, "ü"]}),
        (ANYTHING, 10**30, 10**30),
    ],
)
def test_what_a_field_takes(kind: Any, value: Any, expected: Any) -> None:
    assert kind.read("field", {"field": value}, Rules()) == expected


def _deep(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (TEXT, (1, 1.5, True, False, [], {}, ["a"], "a\0b", "half \ud800", "x" * 513, "😀" * 129, "x" * 70_000)),
        (NEEDED, (None, "", " \t\n", "a@b", "a#b", "a&b")),
        (FREE, (1, True, [], "half \ud800")),
        (NUMBER, (-1, 256, 1.5, 1e3, True, False, "x", "", "-", "1.5", "٣", [], {}, 2**63, 2**64, "9" * 5000)),
        (SIGNED, (-2, -(2**64), 2**63, 2**64)),
        (FLAG, (2, -1, 1.5, "x", "yes", "true", [], {}, 2**63)),
        (KIND, (None, 0, -1, 256, 1.5, True, "x", "", [], {}, 2**63)),
        (TEXTS, (1, True, "a", {}, {"a": 1}, [1], ["a", {}], [["a"]], [None], ["half \ud800"], ["x" * 513], ["a\0b"])),
        (TEXTS, (["x"] * 10_001,)),
        (NUMBERS, (1, True, "1", {}, ["x"], [1.5], [True], [None], [[1]], [0], [-1], [2**63], [1] * 10_001)),
        (PAYLOAD, (1, 1.5, True, {}, "!", "aGk", "aG=k", "-_-_", [256], [-1], ["a"], [1.5])),
        (ANYTHING, ("half \ud800", {"half \ud800": 1}, ["half \ud800"], float("nan"), [float("inf")], _deep(5000))),
    ],
)
def test_what_a_field_refuses(kind: Any, values: Any) -> None:
    for value in values:
        with pytest.raises(ApiError) as caught:
            kind.read("field", {"field": value}, Rules())
        assert (caught.value.status, bool(caught.value.message)) == (400, True)


def test_a_list_of_several_names_is_their_union() -> None:
    given = {"uids": ["a", "b"], "subscribers": ["b", "c"]}
    assert fields.Texts(names=("subscribers",)).read("uids", given, Rules()) == ["a", "b", "c"]


def test_a_profile_may_allow_two_of_the_special_characters() -> None:
    rules = Rules(allowed_characters="#&")
    assert NEEDED.read("uid", {"uid": "a#b&c"}, rules) == "a#b&c"
    with pytest.raises(ApiError):
        NEEDED.read("uid", {"uid": "a@b"}, rules)
