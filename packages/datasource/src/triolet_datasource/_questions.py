"""What a data source is asked and what it may answer. Pure: no IO, no clock.

Source: seeds 000_2bdb39509864412f.txt (POST commands) and 001_f58c7573f0b55264.txt (GET user and channel info);
semantics.md, section 6.
"""

import enum
import json
from typing import Any

import attrs

from triolet_core import ChannelInfo, UserInfo
from triolet_core.model import MAX_ID_BYTES


class Kind(enum.Enum):
    """The questions; the value is the POST command or the path of the GET."""

    SUBSCRIBERS = "getSubscribers"
    DENYLIST = "getBlacklist"
    ALLOWLIST = "getWhitelist"
    SYSTEM_UIDS = "getSystemUIDs"
    CHANNEL_FLAGS = "getChannelInfo"
    CHANNEL_INFO = "channel/info"
    USER_INFO = "user/info"

    @property
    def is_get(self) -> bool:
        """Whether it is asked with GET."""
        return self in _GETS


_GETS = frozenset({Kind.CHANNEL_INFO, Kind.USER_INFO})
ABOUT_CHANNELS = tuple(kind for kind in Kind if kind not in (Kind.SYSTEM_UIDS, Kind.USER_INFO))


@attrs.frozen
class Question:
    """One question: a kind, and the channel or the uid it is about."""

    kind: Kind
    id: str = ""
    channel_type: int = 0

    @property
    def body(self) -> bytes:
        """The JSON of a POST."""
        about = {} if self.kind is Kind.SYSTEM_UIDS else self._channel
        return json.dumps({"cmd": self.kind.value, "data": about}).encode()

    @property
    def query(self) -> dict[str, str | int]:
        """The query of a GET."""
        return {"uid": self.id} if self.kind is Kind.USER_INFO else self._channel

    @property
    def _channel(self) -> dict[str, str | int]:
        return {"channel_id": self.id, "channel_type": self.channel_type}


SYSTEM_UIDS = Question(Kind.SYSTEM_UIDS)


@attrs.frozen(kw_only=True)
class GivenInfo:
    """The fields of a channel's info that a data source has named; None is a field it left out."""

    large: bool | None = None
    ban: bool | None = None
    disband: bool | None = None
    send_ban: bool | None = None
    allow_stranger: bool | None = None
    name: str | None = None
    avatar: str | None = None
    remark: str | None = None
    extra: str | None = None

    def over(self, stored: ChannelInfo) -> ChannelInfo:
        """Return the stored info with the named fields replaced."""
        given = {name: value for name, value in attrs.asdict(self).items() if value is not None}
        return attrs.evolve(stored, **given)


Answer = tuple[str, ...] | GivenInfo | UserInfo | None


class BadAnswer(ValueError):
    """An answer is not what was asked for; the text says what is wrong with it and holds nothing of it."""


def decode_answer(question: Question, body: bytes) -> Answer:
    """Return the answer in a body; `null` is an empty list, or no info.

    Raises:
        BadAnswer: It is no JSON, or of the wrong type.
    """
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise BadAnswer("the answer is no JSON") from None
    match question.kind:
        case Kind.CHANNEL_FLAGS:
            return _flags(value)
        case Kind.CHANNEL_INFO:
            return _channel_info(question, value)
        case Kind.USER_INFO:
            return _user_info(question, value)
        case _:
            return _uids(value)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _uids(value: Any) -> tuple[str, ...]:
    """Return the uids; those that nobody can have are left out, so that one of them does not close a channel."""
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(uid, str) for uid in value):
        raise BadAnswer("the answer is no list of texts")
    return tuple(uid for uid in value if _is_possible(uid))


def _is_possible(uid: str) -> bool:
    return uid != "" and "\0" not in uid and _is_unicode(uid) and len(uid.encode()) <= MAX_ID_BYTES


def _is_unicode(text: str) -> bool:
    """Whether a text can be encoded: JSON can name halves of a surrogate pair."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _flags(value: Any) -> GivenInfo | None:
    """What 1.2.6 asks for; a flag that is left out is 0."""
    if value is None:
        return None
    record = _object(value)
    return GivenInfo(
        large=_flag(record, "large") or False,
        ban=_flag(record, "ban") or False,
        disband=_flag(record, "disband") or False,
    )


def _channel_info(question: Question, value: Any) -> GivenInfo | None:
    if value is None:
        return None
    record = _object(value)
    if record.get("channel_id", question.id) != question.id:
        raise BadAnswer("the answer is about another channel_id")
    if record.get("channel_type", question.channel_type) != question.channel_type:
        raise BadAnswer("the answer is about another channel_type")
    return GivenInfo(
        large=_flag(record, "large"),
        ban=_flag(record, "ban"),
        disband=_flag(record, "disband"),
        send_ban=_flag(record, "send_ban"),
        allow_stranger=_flag(record, "allow_stranger"),
        name=_text(record, "name"),
        avatar=_text(record, "avatar"),
        remark=_text(record, "remark"),
        extra=_json(record, "extra"),
    )


def _user_info(question: Question, value: Any) -> UserInfo | None:
    if value is None:
        return None
    record = _object(value)
    if record.get("uid", question.id) != question.id:
        raise BadAnswer("the answer is about another uid")
    return UserInfo(
        uid=question.id,
        name=_text(record, "name") or "",
        avatar=_text(record, "avatar") or "",
        remark=_text(record, "remark") or "",
        extra=_json(record, "extra") or "",
    )


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadAnswer("the answer is no object")
    return value


def _flag(record: dict[str, Any], name: str) -> bool | None:
    value = record.get(name)
    if value is not None and value not in (0, 1):
        raise BadAnswer(f"{name} is neither 0 nor 1")
    return None if value is None else bool(value)


def _text(record: dict[str, Any], name: str) -> str | None:
    value = record.get(name)
    if value is not None and not (isinstance(value, str) and _is_unicode(value)):
        raise BadAnswer(f"{name} is no text")
    return value


def _json(record: dict[str, Any], name: str) -> str | None:
    value = record.get(name)
    if value is None:
        return None
    text = json.dumps(value, ensure_ascii=False)
    return text if _is_unicode(text) else json.dumps(value)
