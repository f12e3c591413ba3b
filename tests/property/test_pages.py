"""Pages of history that are built from records say what those that are built from messages say."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hotpaths import compiled
from triolet_api._answers import encode, message_objects
from triolet_core import Broker, ChannelKey, Device, Message
from triolet_core.model import RED_DOT, SETTING_TOPIC, person_channel_id
from triolet_core.store import _keys as keys
from triolet_core.store import _records as records
from triolet_core.testing import draft, open_test_broker

u8, u32 = st.integers(0, 255), st.integers(0, 2**32 - 1)
text = st.text(max_size=20).filter(lambda value: not any("\ud800" <= c <= "\udfff" for c in value))
uids = st.sampled_from(["ann", "bob", "____system", "a@b", 'q"\\/\b\f\n\r\t\x00\x1f\x7f\u2028é😀'])
channels = st.one_of(
    st.builds(lambda a, b: ChannelKey(person_channel_id(a, b), 1), uids, uids),
    st.builds(lambda a, b: ChannelKey(f"{a}@{b}", 11), uids, uids),
    st.builds(
        ChannelKey, st.sampled_from(["g", "g____cmd", "plain", "____cmd", "x@y"]), st.sampled_from([1, 2, 6, 11])
    ),
)
messages = st.builds(
    Message,
    st.integers(0, 2**63 - 1),
    st.just(0),
    st.just(ChannelKey("", 0)),
    st.one_of(uids, text),
    text,
    u32,
    st.integers(0, 15),
    u8,
    st.just(0),
    text,
    st.binary(max_size=60),
)


@pytest.fixture(scope="module")
def fast() -> Any:
    return compiled()


def shown(broker: Any, found: Sequence[Message]) -> Any:
    """What the API makes of messages; without marks it needs no broker."""
    return json.loads(encode(message_objects(broker, found)))


def rows_of(found: list[Message]) -> list[tuple[bytes, bytes]]:
    return [(keys.message(5, 77, each.seq), records.encode_message(each)) for each in found]


@given(channels, st.lists(messages, max_size=6), st.integers(1, 6), st.booleans())
def test_records_are_shown_as_messages_are(
    fast: Any, key: ChannelKey, drawn: list[Message], limit: int, upwards: bool
) -> None:
    found = [attrs.evolve(message, seq=seq, channel=key) for seq, message in enumerate(drawn, 2**40)]
    rows = rows_of(found if upwards else found[::-1])
    text, more = fast.page_text(
        rows, keys.numbered(5, keys.MESSAGE, 77), key.id, key.type, between=(0, 2**63), limit=limit
    )
    expected = found[:limit] if upwards else found[-limit:]
    assert json.loads(text) == shown(None, expected)
    assert more == (len(found) > limit)


@given(channels, st.lists(messages, min_size=1, max_size=6), st.integers(1, 6), st.booleans(), st.integers(-2, 6))
def test_records_without_keys_make_the_same_page(
    fast: Any, key: ChannelKey, drawn: list[Message], limit: int, upwards: bool, bound: int
) -> None:
    first = 2**40
    found = [attrs.evolve(message, seq=seq, channel=key) for seq, message in enumerate(drawn, first)]
    between = (first, first + bound) if upwards else (first + bound, 2**63)
    rows = rows_of(found if upwards else found[::-1])
    prefix = keys.numbered(5, keys.MESSAGE, 77)
    page = fast.page_text(rows, prefix, key.id, key.type, between=between, limit=limit)
    start = found[0 if upwards else -1].seq
    records_only = [value for _, value in rows]
    assert page == fast.run_text(records_only, start, key.id, key.type, upwards=upwards, between=between, limit=limit)


@given(st.integers(0, 2**32 - 1))
def test_the_number_of_a_channel_is_found_alone(number: int) -> None:
    record = records.ChannelRecord(number=number, info=None, created=1, updated=2)
    assert records.number_of_channel(records.encode_channel(record)) == number


@given(messages, st.sampled_from([{"expire": 1}, {"marks": 0x10}, {"marks": 0x80}]))
def test_what_python_has_to_look_at_is_left_to_it(fast: Any, message: Message, change: dict[str, int]) -> None:
    rows = rows_of([message, attrs.evolve(message, seq=1, **change)])
    prefix = keys.numbered(5, keys.MESSAGE, 77)
    assert fast.page_text(rows, prefix, "g", 2, between=(0, 9), limit=5) is None
    found = fast.page_text(rows, prefix, "g", 2, between=(0, 0), limit=5)
    assert json.loads(found[0]) == shown(None, [attrs.evolve(message, channel=ChannelKey("g", 2))])


@given(st.binary(max_size=40))
def test_what_is_no_record_is_left_to_python(fast: Any, value: bytes) -> None:
    prefix = keys.numbered(5, keys.MESSAGE, 77)
    found = fast.page_text([(keys.message(5, 77, 1), value)], prefix, "g", 2, between=(0, 9), limit=5)
    assert found is None or found[0].startswith(b"[{")


async def test_windows_of_a_channel_are_the_same_either_way(tmp_path: Path, fast: Any) -> None:
    """http-api.md, section 6.6; a neighbour in the store is on no page."""
    async with open_test_broker(tmp_path) as broker:
        ann = Device(uid="ann")
        for name in ("bob", "carl"):
            for number in range(12):
                one = attrs.evolve(draft(name, b"%d" % number), flags=RED_DOT, setting=SETTING_TOPIC, topic="t")
                assert (await broker.messages.send(ann, one)).reason == 1
        for key in (ChannelKey(person_channel_id("ann", "bob"), 1), ChannelKey("nobody", 2)):
            for start in (0, 1, 5, 12, 13, 2**63 - 1):
                for end in (0, 1, 6, 12, 30):
                    for limit in (0, 1, 5, 12, 13):
                        for newer in (False, True):
                            compare(broker, key, start=start, end=end, limit=limit, newer=newer)


def compare(broker: Broker, key: ChannelKey, **window: Any) -> None:
    page, text = broker.messages.sync(key, **window), broker.messages.sync_text(key, **window)
    assert text is not None
    assert (json.loads(text.text), text.more) == (shown(broker, page.messages), page.more)
