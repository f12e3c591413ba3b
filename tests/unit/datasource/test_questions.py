import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triolet_core import ChannelInfo, UserInfo
from triolet_datasource._questions import BadAnswer, GivenInfo, Kind, Question, decode_answer

GROUP = ("team", 2)
KINDS = st.sampled_from(Kind)


def answer(kind: Kind, value: Any) -> Any:
    return decode_answer(Question(kind, *GROUP), json.dumps(value).encode())


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (Kind.SUBSCRIBERS, {"channel_id": "team", "channel_type": 2}),
        (Kind.DENYLIST, {"channel_id": "team", "channel_type": 2}),
        (Kind.ALLOWLIST, {"channel_id": "team", "channel_type": 2}),
        (Kind.CHANNEL_FLAGS, {"channel_id": "team", "channel_type": 2}),
        (Kind.SYSTEM_UIDS, {}),
    ],
)
def test_the_body_of_a_post(kind: Kind, data: dict[str, Any]) -> None:
    """Seed 000; semantics.md, section 6.1."""
    assert json.loads(Question(kind, *GROUP).body) == {"cmd": kind.value, "data": data}


def test_the_query_of_a_get() -> None:
    """Seed 001."""
    assert Question(Kind.CHANNEL_INFO, *GROUP).query == {"channel_id": "team", "channel_type": 2}
    assert Question(Kind.USER_INFO, "ann").query == {"uid": "ann"}


def test_a_list_and_null() -> None:
    assert answer(Kind.SUBSCRIBERS, ["a", "b"]) == ("a", "b")
    assert answer(Kind.SUBSCRIBERS, None) == ()


def test_uids_that_nobody_can_have_are_left_out() -> None:
    """Longer than core takes, empty, with NUL, half a surrogate pair."""
    assert answer(Kind.SUBSCRIBERS, ["a", "", "x" * 513, "x" * 512, "a\0b", "\ud800", "ü"]) == ("a", "x" * 512, "ü")


@pytest.mark.parametrize("body", [b'{"extra": NaN}', b'{"name": "\\ud800"}', b'{"uid": "bob"}', b"1", b"[]"])
def test_what_is_no_user_info(body: bytes) -> None:
    with pytest.raises(BadAnswer):
        decode_answer(Question(Kind.USER_INFO, "ann"), body)


def test_what_is_named_takes_the_place_of_what_is_stored() -> None:
    stored = ChannelInfo(ban=True, name="old", extra='"kept"')
    named = answer(Kind.CHANNEL_INFO, {"name": "new", "disband": 1, "large": False, "avatar": None})
    assert named.over(stored) == ChannelInfo(ban=True, disband=True, name="new", extra='"kept"')


def test_the_flags_of_1_2_6_are_all_named() -> None:
    assert answer(Kind.CHANNEL_FLAGS, {"large": 1}) == GivenInfo(large=True, ban=False, disband=False)


def test_extra_is_kept_as_json() -> None:
    info = decode_answer(Question(Kind.USER_INFO, "ann"), '{"name": "Ann", "extra": {"städte": [1]}}'.encode())
    assert info == UserInfo(uid="ann", name="Ann", extra='{"städte": [1]}')


@given(kind=KINDS, body=st.binary())
def test_any_bytes_are_an_answer_or_a_bad_one(kind: Kind, body: bytes) -> None:
    with suppress(BadAnswer):
        decode_answer(Question(kind, *GROUP), body)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(("ban", "name", "extra", "uid", "x")), inner),
)


@given(kind=KINDS, value=JSON)
def test_any_json_is_an_answer_or_a_bad_one(kind: Kind, value: Any) -> None:
    try:
        decoded = answer(kind, value)
    except BadAnswer:
        return
    if isinstance(decoded, tuple):
        assert all(isinstance(uid, str) for uid in decoded)
