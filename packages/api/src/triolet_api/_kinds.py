"""Kinds of fields in requests: how a value is read, what is refused and with which text, and its JSON schema."""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import attrs

from triolet_api._errors import ApiError, bad_field, missing
from triolet_core.model import FORBIDDEN_ID_CHARACTERS, MAX_ID_BYTES

MAX_NUMBER = 2**63 - 1


@attrs.frozen(kw_only=True)
class Rules:
    """What reading depends on beside the field itself."""

    allowed_characters: str = ""
    """Characters of `@#&` that ids may hold after all."""
    max_list_items: int = 10_000


Needs = tuple[tuple[str, ...], ...]
"""Groups of members; a request has to have one of each."""
Given = Mapping[str, Any]
"""The members of an object, names in lower case."""


class Kind(Protocol):
    """How a field is read and described."""

    def read(self, name: str, given: Given, rules: Rules) -> Any:
        """Return the value; raises ApiError."""
        ...

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of what is accepted."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """Other names of the field."""
        ...

    @property
    def is_required(self) -> bool:
        """Whether a request without it is refused."""
        ...


@attrs.frozen(kw_only=True)
class BaseKind:
    doc: str = ""
    names: Sequence[str] = ()
    missing: str | None = None
    """The refusal if it is absent; None if it may be."""

    @property
    def is_required(self) -> bool:
        return self.missing is not None

    def _value(self, name: str, given: Given) -> Any:
        for each in (name, *self.names):
            value = given.get(each)
            if value is not None:
                return value
        return None

    def _described(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {**schema, "description": self.doc} if self.doc else schema


@attrs.frozen(kw_only=True)
class Text(BaseKind):
    """A text: an id (at most 512 bytes, no NUL) unless it is `is_free`."""

    default: str = ""
    is_free: bool = False
    special: str | None = None
    """The refusal of an id that is to be stored and holds one of `@#&`."""
    too_long: str | None = None

    def read(self, name: str, given: Given, rules: Rules) -> str:
        value = self._value(name, given)
        if value is None:
            value = self.default
        if not isinstance(value, str):
            raise bad_field(name, value, "a text")
        if self.missing is not None and not value.strip():
            raise missing(self.missing)
        check_text(name, value, is_free=self.is_free, too_long=self.too_long)
        if self.special is not None:
            refused = [each for each in FORBIDDEN_ID_CHARACTERS if each not in rules.allowed_characters]
            if any(character in value for character in refused):
                raise ApiError(self.special, code="bad_id")
        return value

    def schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "string"}
        if self.is_required:
            schema |= {"minLength": 1, "pattern": r"\S"}
        if self.special is not None:
            schema["pattern"] = r"^[^@#&]*[^@#&\s][^@#&]*$" if self.is_required else "^[^@#&]*$"
        if not self.is_free:
            schema["maxLength"] = MAX_ID_BYTES
        return self._described(schema)


@attrs.frozen(kw_only=True)
class Number(BaseKind):
    """A whole number; decimal texts are taken as well. A lenient one counts what is no number as the default."""

    default: int = 0
    low: int = 0
    high: int = MAX_NUMBER
    is_lenient: bool = False

    def read(self, name: str, given: Given, rules: Rules) -> int:
        value = self._value(name, given)
        if value is None:
            if self.missing is not None:
                raise missing(self.missing)
            return self.default
        number = whole_number(value)
        if number is None:
            if self.is_lenient:
                return self.default
            raise bad_field(name, value, "a whole number")
        if self.missing is not None and not number:
            raise missing(self.missing)
        if self.is_lenient:
            return max(self.low, min(number, self.high))
        if not self.low <= number <= self.high:
            raise bad_field(name, value, f"a number from {self.low} to {self.high}")
        return number

    def schema(self) -> dict[str, Any]:
        low = max(self.low, 1) if self.missing is not None else self.low
        return self._described({"type": "integer", "minimum": low, "maximum": self.high})


@attrs.frozen(kw_only=True)
class Flag(BaseKind):
    """0, 1, true or false."""

    def read(self, name: str, given: Given, rules: Rules) -> bool:
        value = self._value(name, given)
        if value is None or value == "":
            return False
        if isinstance(value, (bool, int)) and value in (0, 1):
            return bool(value)
        if value in ("0", "1"):
            return bool(value == "1")
        raise bad_field(name, value, "0 or 1")

    def schema(self) -> dict[str, Any]:
        return self._described({"type": ["integer", "boolean"], "enum": [0, 1, True, False]})


@attrs.frozen(kw_only=True)
class MaybeFlag(Flag):
    """A flag that may be absent, then None."""

    def read(self, name: str, given: Given, rules: Rules) -> bool | None:  # type: ignore[override]  # None is the point
        return None if self._value(name, given) is None else Flag.read(self, name, given, rules)


@attrs.frozen(kw_only=True)
class MaybeNumber(Number):
    """A number that may be absent, then None."""

    def read(self, name: str, given: Given, rules: Rules) -> int | None:  # type: ignore[override]  # None is the point
        return None if self._value(name, given) is None else Number.read(self, name, given, rules)


@attrs.frozen(kw_only=True)
class ChannelType(BaseKind):
    """The number of a channel type, 1 to 255."""

    default: int = 0
    is_optional: bool = False

    def read(self, name: str, given: Given, rules: Rules) -> int:
        value = self._value(name, given)
        number = self.default if value is None else whole_number(value)
        if number is None or not 0 <= number < 256:
            raise ApiError("频道类型错误！", code="bad_channel_type")
        if not number and not self.is_optional:
            raise ApiError(self.missing or "频道类型错误！", code="bad_channel_type")
        return number

    @property
    def is_required(self) -> bool:
        return not self.default and not self.is_optional

    def schema(self) -> dict[str, Any]:
        return self._described({"type": "integer", "minimum": 0 if self.is_optional else 1, "maximum": 255})


@attrs.frozen(kw_only=True)
class Texts(BaseKind):
    """A list of ids, in order, without blank and repeated entries; the union of the names it may have."""

    def read(self, name: str, given: Given, rules: Rules) -> list[str]:
        found: dict[str, None] = {}
        for each in (name, *self.names):
            value = given.get(each)
            if value is not None:
                found |= dict.fromkeys(list_of_texts(each, value, rules))
        if self.missing is not None and not found:
            raise missing(self.missing)
        return list(found)

    def schema(self) -> dict[str, Any]:
        items: dict[str, Any] = {"type": "string", "maxLength": MAX_ID_BYTES}
        schema: dict[str, Any] = {"type": "array", "items": items, "maxItems": 10_000}
        if self.is_required:
            items |= {"minLength": 1, "pattern": r"\S"}
            schema["minItems"] = 1
        return self._described(schema)


@attrs.frozen(kw_only=True)
class MaybeTexts(Texts):
    """Such a list, None if it is absent."""

    def read(self, name: str, given: Given, rules: Rules) -> list[str] | None:  # type: ignore[override]  # as above
        return None if self._value(name, given) is None else Texts.read(self, name, given, rules)


@attrs.frozen(kw_only=True)
class Numbers(BaseKind):
    """A list of whole numbers."""

    low: int = 0
    high: int = MAX_NUMBER

    def read(self, name: str, given: Given, rules: Rules) -> list[int]:
        value = self._value(name, given)
        if value is None:
            return []
        if not isinstance(value, list):
            raise bad_field(name, value, "a list of numbers")
        check_length(name, value, rules)
        numbers = []
        for each in value:
            number = whole_number(each)
            if number is None or not self.low <= number <= self.high:
                raise bad_field(name, each, f"a number from {self.low} to {self.high}")
            numbers.append(number)
        return numbers

    def schema(self) -> dict[str, Any]:
        items = {"type": "integer", "minimum": self.low, "maximum": self.high}
        return self._described({"type": "array", "items": items, "maxItems": 10_000})


@attrs.frozen(kw_only=True)
class Payload(BaseKind):
    """Base64, or a list of byte values."""

    def read(self, name: str, given: Given, rules: Rules) -> bytes:
        value = self._value(name, given)
        if value is None:
            return b""
        if isinstance(value, list) and all(isinstance(each, int) and 0 <= each <= 255 for each in value):
            return bytes(value)
        if not isinstance(value, str):
            raise bad_field(name, value, "base64")
        try:
            return base64.b64decode("".join(value.split()), validate=True)
        except (binascii.Error, ValueError):
            raise bad_field(name, value, "base64 with padding") from None

    def schema(self) -> dict[str, Any]:
        pattern = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
        return self._described({"type": "string", "contentEncoding": "base64", "pattern": pattern})


@attrs.frozen(kw_only=True)
class Anything(BaseKind):
    """Any JSON value that can be written again: no half of a surrogate pair, no number beyond a double."""

    def read(self, name: str, given: Given, rules: Rules) -> Any:
        value = self._value(name, given)
        if value is None and self.missing is not None:
            raise missing(self.missing)
        if isinstance(value, (str, float, list, dict)):
            try:
                json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
            except (ValueError, RecursionError):
                raise bad_field(name, value, "UTF-8, finite numbers, not nested too deeply") from None
        return value

    def schema(self) -> dict[str, Any]:
        return self._described({})


def whole_number(value: Any) -> int | None:
    """Return a whole number or a decimal text as a number, None if it is neither."""
    if isinstance(value, str) and value.isascii() and value.lstrip("-").isdigit() and len(value) < 24:
        return int(value) if value.count("-") <= 1 else None
    return None if isinstance(value, bool) or not isinstance(value, int) else value


def list_of_texts(name: str, value: Any, rules: Rules) -> list[str]:
    """Return the entries of a JSON list of ids that are not blank."""
    if not isinstance(value, list):
        raise bad_field(name, value, "a list of texts")
    check_length(name, value, rules)
    for each in value:
        if not isinstance(each, str):
            raise bad_field(name, each, "a list of texts")
        check_text(name, each)
    return [each for each in value if each.strip()]


def check_length(name: str, value: Sequence[Any], rules: Rules) -> None:
    """Refuse a list that is too long."""
    if len(value) > rules.max_list_items:
        raise ApiError(f"{name}: {len(value)} > {rules.max_list_items} (api.maxListItems)", code="list_too_long")


def check_text(name: str, value: str, *, is_free: bool = False, too_long: str | None = None) -> None:
    """Refuse what cannot be stored or sent: half a surrogate pair, and in ids NUL and more than 512 bytes."""
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ApiError(f"数据格式有误！: {name}: UTF-8", code="bad_field") from None
    if is_free:
        return
    if size > MAX_ID_BYTES:
        raise ApiError(f"{too_long or name}: {size} > {MAX_ID_BYTES}", code="id_too_long")
    if "\0" in value:
        raise ApiError(f"数据格式有误！: {name}: NUL", code="bad_field")
