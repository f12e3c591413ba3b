"""The bodies that nearly all requests to the hot endpoints have, read in one step, and answered without a task.

What is read here is read alike by the declared fields (`_fields`) and refused by none of their rules; whatever else a
body holds, be it wrong or only unusual, is left to them and so are the words of a refusal.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from triolet_api._call import Quick, Services, key_for
from triolet_api._service import Answer
from triolet_core import SYSTEM_UID, Draft, ReasonCode, Receipt
from triolet_core.model import (
    FORBIDDEN_ID_CHARACTERS,
    MAX_ID_BYTES,
    NO_PERSIST,
    RED_DOT,
    SYNC_ONCE,
    new_client_msg_no,
)

_LONGEST = MAX_ID_BYTES // 4
"""Texts with no more characters than these have no more bytes than an id may have."""
_BAD_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_FLAGS = (0, 1)
_LOWEST, _HIGHEST = -(2**63), 2**63 - 1
_FORBIDDEN = frozenset(FORBIDDEN_ID_CHARACTERS)


def _is_id(text: str) -> bool:
    return len(text) <= _LONGEST and "\0" not in text


def _is_shown_id(text: str) -> bool:
    if text.isalnum():
        return len(text) <= _LONGEST
    return text.strip() != "" and _is_id(text)


def _is_plain_id(text: str) -> bool:
    if text.isalnum():
        return len(text) <= _LONGEST
    return _is_id(text) and _FORBIDDEN.isdisjoint(text)


class _Header(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    no_persist: bool | int = 0
    red_dot: bool | int = 0
    sync_once: bool | int = 0


class SendForm(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A message to a channel."""

    channel_id: str
    channel_type: int
    payload: bytes
    from_uid: str | UnsetType = UNSET
    client_msg_no: str = ""
    header: _Header | None = None
    setting: int = 0
    expire: int = 0
    topic: str = ""

    def noted(self) -> Mapping[str, str | int]:
        """Return what the audit log says of it."""
        if self.from_uid is UNSET:
            return {"channel_id": self.channel_id, "channel_type": self.channel_type}
        return {"channel_id": self.channel_id, "channel_type": self.channel_type, "from_uid": self.from_uid}

    @property
    def is_plain(self) -> bool:
        """Whether no rule refuses it."""
        number, topic = self.client_msg_no, self.topic
        return (
            _is_plain_id(self.from_uid or "")
            and self.channel_id != ""
            and _is_plain_id(self.channel_id)
            and (not number or _is_id(number))
            and (not topic or _is_id(topic))
            and 0 < self.channel_type < 256
            and self.payload != b""
            and 0 <= self.setting < 256
            and 0 <= self.expire < 2**32
        )


class PageForm(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A page of a channel, in WuKongIM's terms."""

    login_uid: str
    channel_id: str
    channel_type: int
    start_message_seq: int = 0
    end_message_seq: int = 0
    limit: int = 0
    pull_mode: int = 0

    def noted(self) -> Mapping[str, str | int]:
        """Return nothing: reading is not noted."""
        return {}

    @property
    def is_plain(self) -> bool:
        """Whether no rule refuses it."""
        return (
            _is_shown_id(self.login_uid)
            and _is_shown_id(self.channel_id)
            and 0 <= self.start_message_seq <= _HIGHEST
            and 0 <= self.end_message_seq <= _HIGHEST
            and _LOWEST <= self.limit <= _HIGHEST
            and _LOWEST <= self.pull_mode <= _HIGHEST
            and 0 < self.channel_type < 256
        )


_send_form = msgspec.json.Decoder(SendForm).decode
_page_form = msgspec.json.Decoder(PageForm).decode


def read_send(body: bytes) -> SendForm | None:
    """Return the body of a send if it is a plain one."""
    try:
        form = _send_form(body)
    except _BAD_JSON:
        return None
    return form if form.is_plain else None


def read_page(body: bytes) -> PageForm | None:
    """Return the body of a question for history if it is a plain one."""
    try:
        form = _page_form(body)
    except _BAD_JSON:
        return None
    return form if form.is_plain else None


def flags_of(header: _Header | None) -> int | None:
    """Return the flags as bits, None if one is neither 0 nor 1."""
    if header is None:
        return 0
    if header.no_persist not in _FLAGS or header.red_dot not in _FLAGS or header.sync_once not in _FLAGS:
        return None
    return NO_PERSIST * header.no_persist | RED_DOT * header.red_dot | SYNC_ONCE * header.sync_once


def quick_send(answered: Callable[[Services, str, Draft, Receipt], Any]) -> Quick:
    """Return how a message is sent; `answered` turns a receipt that is no success into an answer, or raises."""

    def start(services: Services, form: SendForm, finish: Callable[[Answer | Exception], None]) -> bool:
        flags = flags_of(form.header)
        if flags is None:
            return False
        uid = form.from_uid or SYSTEM_UID
        number = form.client_msg_no or new_client_msg_no()
        draft = Draft(
            form.channel_id, form.channel_type, form.payload, number, flags, form.setting, form.expire, form.topic
        )

        def done(receipts: list[Receipt]) -> None:
            receipt = receipts[0]
            if receipt.reason == ReasonCode.SUCCESS:
                finish(sent_text(receipt, number))
                return
            try:
                finish(msgspec.json.encode(answered(services, uid, draft, receipt)))
            except Exception as exc:  # a refusal, which the service puts into words
                finish(exc)

        return services.broker.messages.submit_for_server(uid, (draft,), done)

    return Quick(read_send, start)


_SENT = b'"message_id":%d,"message_idstr":"%d","message_seq":%d,"client_msg_no":%b'


def sent_text(receipt: Receipt, client_msg_no: str) -> bytes:
    """Return the answer to a message that was taken, as JSON."""
    _, message_id, seq = receipt
    sent = _SENT % (message_id, message_id, seq, msgspec.json.encode(client_msg_no))
    return b'{%b,"status":200,"data":{%b}}' % (sent, sent)


def _start_page(services: Services, form: PageForm, finish: Callable[[Answer | Exception], None]) -> bool:
    key = key_for(form.login_uid, form.channel_id, form.channel_type)
    start, end = form.start_message_seq, form.end_message_seq
    if not services.broker.is_settled(key):
        return False
    found = services.broker.messages.sync_text(
        key, start=start, end=end, limit=max(form.limit, 0), newer=form.pull_mode == 1
    )
    if found is None:
        return False
    head = b'{"start_message_seq":%d,"end_message_seq":%d,"more":%d,"messages":' % (start, end, found.more)
    finish((head, found.text, b"}"))
    return True


QUICK_PAGE = Quick(read_page, _start_page)
