"""What of a draft is looked at before its channel is, and which drafts need only one verdict."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat

from triolet_core.model import DUP, MAX_ID_BYTES, Draft


def drafts_alike(
    drafts: Sequence[Draft], max_payload: int, *, one_by_one: bool = False
) -> Iterable[tuple[Draft, Sequence[Draft]]]:
    """Return drafts of one sender in order, each with those behind it that get the same verdict; or `one_by_one`."""
    return zip(drafts, repeat(())) if one_by_one or len(drafts) == 1 else _runs_of(drafts, max_payload)


def _runs_of(drafts: Sequence[Draft], max_payload: int) -> Iterator[tuple[Draft, Sequence[Draft]]]:
    start = 0
    while start < len(drafts):
        first, end = drafts[start], start + 1
        if _is_like(first, first, max_payload):
            while end < len(drafts) and _is_like(drafts[end], first, max_payload):
                end += 1
        yield first, drafts[start + 1 : end]
        start = end


def _is_like(draft: Draft, first: Draft, max_payload: int) -> bool:
    """Whether a draft is judged as `first` is: only its channel and its flags matter then."""
    return (
        draft.channel_id == first.channel_id
        and draft.channel_type == first.channel_type
        and draft.flags == first.flags
        and not draft.flags & DUP
        and not draft.refusal
        and len(draft.payload) <= max_payload
        and _fits(draft.client_msg_no, MAX_ID_BYTES)
        and (not draft.topic or _fits(draft.topic, MAX_ID_BYTES))
    )


def is_plausible(draft: Draft, max_payload: int) -> bool:
    """Whether the ids and the payload are within their bounds; ids hold no NUL."""
    return (
        draft.channel_id != ""
        and _fits(draft.channel_id, MAX_ID_BYTES * 2 + 1)
        and "\0" not in draft.channel_id
        and _fits(draft.client_msg_no, MAX_ID_BYTES)
        and (not draft.topic or _fits(draft.topic, MAX_ID_BYTES))
        and len(draft.payload) <= max_payload
    )


def _fits(text: str, limit: int) -> bool:
    return (len(text) if text.isascii() else len(text.encode())) <= limit
