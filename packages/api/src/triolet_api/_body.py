"""Reading request bodies: every field with its kind, its bounds and its error text.

Names match without regard to case and unknown ones are ignored, as the reference does (http-api.md, section 3.1).
The error texts are the reference's where it has one: backends have been seen to match on them.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from triolet_core.model import FORBIDDEN_ID_CHARACTERS, MAX_ID_BYTES

BAD_FORMAT = "数据格式有误！"
MAX_LIST_ITEMS = 10_000


class ApiError(Exception):
    """A request that is refused."""

    def __init__(self, message: str, *, status: int = 400, code: str = "bad_request") -> None:
        self.message = message
        self.status = status
        self.code = code
        super().__init__(message)

    def as_json(self) -> dict[str, Any]:
        """Return the body of the answer."""
        return {"msg": self.message, "status": self.status, "code": self.code}


def load(raw: bytes) -> Any:
    """Parse a JSON text; an empty one is an error, `null` an empty object."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise ApiError(BAD_FORMAT, code="bad_json") from None
    return {} if value is None else value


class Body:
    """A JSON object with typed access."""

    def __init__(self, value: Any, *, allows: str = "", most: int = MAX_LIST_ITEMS) -> None:
        if not isinstance(value, Mapping):
            raise ApiError(BAD_FORMAT, code="not_an_object")
        self._fields = {str(name).lower(): each for name, each in value.items()}
        self._allows = allows
        self._most = most

    def has(self, *names: str) -> bool:
        """Whether any of these fields is given and not null."""
        return any(self._fields.get(name) is not None for name in names)

    def raw(self, name: str) -> Any:
        """Return a field as it is, None if absent."""
        return self._fields.get(name)

    def text(self, name: str, *, missing: str | None = None, default: str = "") -> str:
        """Return a text; blank ones count as missing where `missing` gives an error text."""
        value = self._fields.get(name)
        if value is None:
            value = default
        if not isinstance(value, str):
            raise self._wrong(name, "a text")
        if missing is not None and not value.strip():
            raise ApiError(missing, code="missing_field")
        check_text(name, value)
        return value

    def new_id(self, name: str, *, missing: str, special: str) -> str:
        """Return an id that is to be stored: none of the characters that the reference forbids."""
        value = self.text(name, missing=missing)
        if any(character in value for character in FORBIDDEN_ID_CHARACTERS if character not in self._allows):
            raise ApiError(special, code="bad_id")
        return value

    def number(self, name: str, default: int = 0, *, low: int = 0, high: int = 2**63 - 1) -> int:
        """Return a whole number within bounds; decimal texts are taken as well."""
        value = self._fields.get(name)
        if value is None:
            return default
        if isinstance(value, str) and value.lstrip("-").isdigit() and len(value) < 24:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(name, "a whole number")
        if not low <= value <= high:
            raise self._wrong(name, f"a number from {low} to {high}")
        return value

    def flag(self, name: str) -> bool:
        """Return a flag: 0, 1, true or false."""
        value = self._fields.get(name)
        if value is None:
            return False
        if value not in (0, 1):
            raise self._wrong(name, "0 or 1")
        return bool(value)

    def channel_type(self, *, missing: str = "频道类型错误！", default: int = 0) -> int:
        """Return the channel type, 1 to 255."""
        value = self.number("channel_type", default, high=255)
        if not value:
            raise ApiError(missing, code="bad_channel_type")
        return value

    def texts(self, *names: str) -> list[str]:
        """Return the union of lists of texts, in order, without blank and repeated entries."""
        found: dict[str, None] = {}
        for name in names:
            value = self._fields.get(name)
            if value is None:
                continue
            found |= dict.fromkeys(list_of_texts(name, value, self._most))
        return list(found)

    def objects(self, name: str) -> "list[Body]":
        """Return a list of objects."""
        value = self._fields.get(name) or []
        if not isinstance(value, list) or len(value) > self._most:
            raise self._wrong(name, f"a list of up to {self._most} objects")
        return [Body(each) for each in value]

    def object(self, name: str) -> "Body":
        """Return an object, an empty one if absent."""
        return Body(self._fields.get(name) or {})

    def payload(self, name: str = "payload") -> bytes:
        """Return base64 (or a list of byte values) as bytes, empty if absent."""
        value = self._fields.get(name)
        if value is None:
            return b""
        if isinstance(value, list) and all(isinstance(each, int) and 0 <= each <= 255 for each in value):
            return bytes(value)
        if not isinstance(value, str):
            raise self._wrong(name, "base64")
        try:
            return base64.b64decode("".join(value.split()), validate=True)
        except (binascii.Error, ValueError):
            raise self._wrong(name, "base64 with padding") from None

    def _wrong(self, name: str, accepted: str) -> ApiError:
        value = self._fields.get(name)
        return ApiError(f"{BAD_FORMAT}: {name} ({kind_of(value)}): {accepted}", code="bad_field")


def list_of_texts(name: str, value: Any, most: int = MAX_LIST_ITEMS) -> list[str]:
    """Return the entries of a JSON list that are not blank.

    Raises:
        ApiError: It is no list of texts, or too long.
    """
    if not isinstance(value, list):
        raise ApiError(f"{BAD_FORMAT}: {name} ({kind_of(value)}): a list of texts", code="bad_field")
    if len(value) > most:
        raise ApiError(f"{name}: {len(value)} > {most} (api.maxListItems)", code="list_too_long")
    for each in value:
        if not isinstance(each, str):
            raise ApiError(f"{BAD_FORMAT}: {name} ({kind_of(each)}): a list of texts", code="bad_field")
        check_text(name, each)
    return [each for each in value if each.strip()]


def check_text(name: str, value: str) -> None:
    """Refuse what cannot be stored or sent: too long, NUL, half a surrogate pair."""
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ApiError(f"{BAD_FORMAT}: {name}: UTF-8", code="bad_field") from None
    if name in _FREE_TEXTS:
        return
    if size > MAX_ID_BYTES:
        raise ApiError(f"{_TOO_LONG.get(name, name)}: {size} > {MAX_ID_BYTES}", code="id_too_long")
    if "\0" in value:
        raise ApiError(f"{BAD_FORMAT}: {name}: NUL", code="bad_field")


_FREE_TEXTS = frozenset({"content", "name", "avatar", "remark", "extra"})
_TOO_LONG = {"channel_id": "频道ID不合法！"}


def kind_of(value: Any) -> str:
    """Name the JSON kind of a value for an error text; never the value."""
    kinds = {bool: "true/false", int: "number", float: "number", str: "text", list: "list", dict: "object"}
    return kinds.get(type(value), "null")
