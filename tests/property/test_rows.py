"""Rows of messages that compiled code makes are those that Python makes."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hotpaths import compiled
from triolet_core import ChannelKey, Message
from triolet_core.store import _keys as keys
from triolet_core.store import _records as records
from triolet_core.store._journal import decode_rows, join_rows
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
    assert rows == stored_and_logged(slot, number, drawn)


@given(st.lists(st.tuples(st.binary(max_size=70), st.binary(max_size=300)), max_size=6))
def test_rows_are_joined_alike_and_can_be_parted(fast: Any, rows: Sequence[tuple[bytes, bytes]]) -> None:
    body = fast.encode_rows(rows)
    assert body == join_rows(rows)
    assert list(decode_rows(body)) == rows


@given(messages)
def test_what_does_not_fit_is_refused(fast: Any, message: Message) -> None:
    message.sender = "é" * 40_000
    with pytest.raises(OverflowError):
        fast.message_rows([message], b"", b"", b"")
