"""Fields of request bodies and queries: declared once, read and described from that declaration.

Names match without regard to case and unknown ones are ignored, as the reference does (http-api.md, section 3.1).
"""

from collections.abc import Mapping
from typing import Any

import attrs

from triolet_api._errors import ApiError, bad_field, missing
from triolet_api._kinds import Anything as Anything
from triolet_api._kinds import BaseKind
from triolet_api._kinds import ChannelType as ChannelType
from triolet_api._kinds import Flag as Flag
from triolet_api._kinds import Given as Given
from triolet_api._kinds import Kind as Kind
from triolet_api._kinds import MaybeFlag as MaybeFlag
from triolet_api._kinds import MaybeNumber as MaybeNumber
from triolet_api._kinds import MaybeTexts as MaybeTexts
from triolet_api._kinds import Needs as Needs
from triolet_api._kinds import Number as Number
from triolet_api._kinds import Numbers as Numbers
from triolet_api._kinds import Payload as Payload
from triolet_api._kinds import Rules as Rules
from triolet_api._kinds import Text as Text
from triolet_api._kinds import Texts as Texts
from triolet_api._kinds import check_length as check_length
from triolet_api._kinds import check_text as check_text
from triolet_api._kinds import list_of_texts as list_of_texts
from triolet_api._kinds import whole_number as whole_number

_FIELD = "triolet_api"


@attrs.frozen(kw_only=True)
class Object(BaseKind):
    """An object of declared fields; an empty one if absent."""

    of: type[Any]

    def read(self, name: str, given: Given, rules: Rules) -> Any:
        value = self._value(name, given)
        if value is not None and not isinstance(value, dict):
            raise bad_field(name, value, "an object")
        return read_object(self.of, value or {}, rules)

    def schema(self) -> dict[str, Any]:
        return self._described(schema_of(self.of))


@attrs.frozen(kw_only=True)
class Objects(BaseKind):
    """A list of objects of declared fields."""

    of: type[Any]

    def read(self, name: str, given: Given, rules: Rules) -> list[Any]:
        value = self._value(name, given)
        if value is None:
            if self.missing is not None:
                raise missing(self.missing)
            return []
        if not isinstance(value, list):
            raise bad_field(name, value, "a list of objects")
        if self.missing is not None and not value:
            raise missing(self.missing)
        check_length(name, value, rules)
        return [read_object(self.of, each, rules) for each in value]

    def schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "array", "items": schema_of(self.of), "maxItems": 10_000}
        return self._described(schema | ({"minItems": 1} if self.missing is not None else {}))


def field(kind: Kind, *, key: str | None = None) -> Any:
    """Declare a field of a request; `key` is its JSON name where that is no Python name."""
    return attrs.field(metadata={_FIELD: (key, kind)})


def fields_of(cls: type[Any]) -> list[tuple[str, str, Kind]]:
    """Return (attribute, JSON name, kind) of the fields of a request class."""
    return [(each.name, each.metadata[_FIELD][0] or each.name, each.metadata[_FIELD][1]) for each in attrs.fields(cls)]


@attrs.frozen
class _Readers:
    """How the fields of a class are read: those that may be absent only if one of their names is given."""

    defaults: dict[str, Any]
    """Attributes that may be absent, as they then are."""
    always: list[tuple[str, str, Kind]]
    by_name: dict[str, tuple[str, str, Kind]]


_READERS: dict[type[Any], _Readers] = {}


def _readers(cls: type[Any]) -> _Readers:
    made = _READERS[cls] = _Readers({}, [], {})
    for attribute, key, kind in fields_of(cls):
        default = _default(key, kind)
        if default is None:
            made.always.append((attribute, key.lower(), kind))
        else:
            (made.defaults[attribute],) = default
            made.by_name.update(dict.fromkeys((key.lower(), *kind.names), (attribute, key.lower(), kind)))
    return made


def _default(key: str, kind: Kind) -> tuple[Any] | None:
    if kind.is_required or isinstance(kind, ChannelType):
        return None
    try:
        value = kind.read(key, {}, Rules())
    except ApiError:
        return None
    return None if isinstance(value, list) else (value,)


def read_object(cls: type[Any], value: Any, rules: Rules) -> Any:
    """Return a JSON object as an instance of a request class.

    Raises:
        ApiError: It is none, or one of its fields is wrong.
    """
    if not isinstance(value, Mapping):
        raise ApiError("数据格式有误！", code="not_an_object")
    given = value if all(map(str.islower, value)) else {str(name).lower(): each for name, each in value.items()}
    readers = _READERS.get(cls) or _readers(cls)
    read = dict(readers.defaults)
    for attribute, key, kind in readers.always:
        read[attribute] = kind.read(key, given, rules)
    for name in given:
        reader = readers.by_name.get(name)
        if reader is not None:
            attribute, key, kind = reader
            read[attribute] = kind.read(key, given, rules)
    return cls(**read)


def schema_of(cls: type[Any]) -> dict[str, Any]:
    """Return the JSON schema of a request class; its `NEEDS` are members of which there has to be one each."""
    properties: dict[str, Any] = {}
    needs: list[tuple[str, ...]] = list(getattr(cls, "NEEDS", ()))
    for _, key, kind in fields_of(cls):
        for name in (key, *kind.names):
            properties[name] = kind.schema()
        if kind.is_required:
            needs.append((key, *kind.names))
    required = [names[0] for names in needs if len(names) == 1]
    choices = [names for names in needs if len(names) > 1]
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    if choices:
        schema["description"] = f"Needs {', and '.join(' or '.join(names) for names in choices)}."
        schema["allOf"] = [{"anyOf": [{"required": [name]} for name in names]} for names in choices]
    return schema
