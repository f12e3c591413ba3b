"""Rows of messages that compiled code makes are those that Python makes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hotpaths import compiled
from triolet_core import ChannelKey, Message
from triolet_core.store import _keys as keys
from triolet_core.store import _records as records
from triolet_core.store import _rows
from triolet_core.store._rows import stored_and_logged

u8, u32, u63 = st.integers(0, 255), st.integers(0, 2**32 - 1), st.integers(0, 2**63 - 1)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
messages = st.builds(
    Message,
    u63,
    u63,
    st.just(ChannelKey("g", 2)),
    text,
    text,
    u32,
    st.integers(0, 15),
    u8,
    u32,
    text,
    st.binary(max_size=60),
    st.sampled_from([0, 0x40, 0x80, 0xC0]),
)


@pytest.fixture(scope="module")
def fast() -> Any:
    return compiled()


@given(st.integers(0, 255), u32, st.lists(messages, max_size=5))
def test_rows_of_messages_are_the_same(fast: Any, slot: int, number: int, drawn: list[Message]) -> None:
    prefix = keys.numbered(slot, keys.MESSAGE, number)
    rows = fast.message_rows(drawn, prefix, keys.LOG_PREFIX, records.encode_log_place(slot, number))
    assert rows == _rows.encode(stored_and_logged(slot, number, drawn))


@given(st.integers(0, 255), u32, st.lists(messages, max_size=5))
def test_expiries_follow_the_rows_of_messages(fast: Any, slot: int, number: int, drawn: list[Message]) -> None:
    rows = stored_and_logged(slot, number, drawn)
    for each in drawn:
        if each.expire:
            due = keys.expiry(slot, each.timestamp + each.expire, each.message_id)
            rows.append((due, records.encode_place(number, each.seq)))
    for compiled_or_not in (None, fast):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_rows, "_compiled", compiled_or_not)
            assert list(_rows.decode(_rows.of_messages(slot, number, drawn))) == rows


few_keys = st.sampled_from([b"", b"a", b"aa", b"b"])
drawn_rows = st.lists(st.tuples(st.one_of(few_keys, st.binary(max_size=70)), st.binary(max_size=300)), max_size=12)


@given(drawn_rows)
def test_encoded_rows_can_be_parted(rows: list[tuple[bytes, bytes]]) -> None:
    assert list(_rows.decode(_rows.encode(rows))) == rows


def test_long_rows_can_be_parted() -> None:
    rows = [(b"key", b""), (b"k" * 511, b"v" * 70_000), (b"", b"\x00\xff")]
    assert list(_rows.decode(_rows.encode(rows))) == rows


@given(st.lists(drawn_rows, max_size=5), st.integers(1, 7))
@pytest.mark.parametrize("is_compiled", [False, True])
def test_rows_come_in_the_order_of_their_keys(
    fast: Any, is_compiled: bool, parts: list[list[tuple[bytes, bytes]]], at_once: int
) -> None:
    """Those of one key in the order in which they were put, so that the last one stays."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_rows, "_compiled", fast if is_compiled else None)
        slices = list(_rows.in_order_of_keys([_rows.encode(part) for part in parts], at_once))
    every = sorted([row for part in parts for row in part], key=lambda row: row[0])
    assert slices == [every[start : start + at_once] for start in range(0, len(every), at_once)]


@given(drawn_rows.filter(bool), st.integers(1, 5))
def test_rows_that_are_cut_off_are_refused(fast: Any, rows: list[tuple[bytes, bytes]], missing: int) -> None:
    whole = _rows.encode(rows)
    with pytest.raises(ValueError, match="cut off"):
        fast.SortedRows([whole, _rows.encode([(b"", b"")])[:-missing]], 10)


@given(messages)
def test_what_does_not_fit_is_refused(fast: Any, message: Message) -> None:
    message.sender = "é" * 40_000
    with pytest.raises(OverflowError):
        fast.message_rows([message], b"", b"", b"")
