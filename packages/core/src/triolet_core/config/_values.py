"""Settings as attrs fields, text to values and values to text."""

import json
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, NewType

import attrs

from triolet_core.config._names import GO_DURATIONS

Seconds = NewType("Seconds", float)
Bytes = NewType("Bytes", int)

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d)")
_DURATION_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB|TiB|KB|MB|GB|TB)?", re.IGNORECASE)
_SIZE_UNITS = {"": 1, "B": 1}
_SIZE_UNITS |= {f"{p}IB": 1024**n for n, p in enumerate("KMGT", 1)} | {
    f"{p}B": 1000**n for n, p in enumerate("KMGT", 1)
}
_PLAIN = re.compile(r"[\w./~+-](?:[\w./~@+*-]|:(?!$))*")
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")
_NO_DURATION = "not a duration such as 500ms, 10s, 1m30s or 30d"


@attrs.frozen(kw_only=True)
class SettingInfo:
    """What a field declares beside its type and default."""

    doc: str
    key: str | None
    limao: str | None
    is_go_duration: bool
    is_secret: bool
    ge: float | None
    gt: float | None
    le: float | None
    one_of: tuple[str, ...]
    spellings: Mapping[str, str]
    check: Callable[[Any], object] | None


def setting(
    default: Any,
    *,
    doc: str,
    key: str | None = None,
    limao: str | None = None,
    go: bool = False,
    secret: bool = False,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    one_of: tuple[str, ...] = (),
    spellings: Mapping[str, str] = types.MappingProxyType({}),
    check: Callable[[Any], object] | None = None,
) -> Any:
    """Declare a setting.

    Args:
        default: Its value when nobody sets it.
        doc: One line for the reference.
        key: Absolute key where the reference has one; otherwise it is `<section>.<camelCase field>`.
        limao: The name LiMaoIM has for it, if the table of aliases does not know it yet.
        go: A duration of the Go servers, where a bare number would be nanoseconds: refused, a unit is asked for.
            The reference's keys are that without being told.
        secret: Never shown.
        ge, gt, le: Bounds.
        one_of: The values accepted.
        spellings: Other ways to write a value, and what they mean.
        check: Called with the value; raises ValueError with what is wrong.
    """
    info = SettingInfo(
        doc=doc,
        key=key,
        limao=limao,
        is_go_duration=go,
        is_secret=secret,
        ge=ge,
        gt=gt,
        le=le,
        one_of=one_of,
        spellings=spellings,
        check=check,
    )
    return attrs.field(default=default, repr=not secret, metadata={"setting": info})


@attrs.frozen(kw_only=True)
class Field:
    """One setting of one class, with its key worked out."""

    key: str
    name: str
    kind: Any
    default: Any
    info: SettingInfo

    def parse(self, value: Any) -> Any:
        """Return the value as its type.

        Raises:
            ValueError: It is none; the text says what is accepted.
        """
        parsed = _PARSERS[self.kind](value, self.info)
        self._check(parsed)
        return parsed

    def _check(self, value: Any) -> None:
        info = self.info
        if info.one_of and value not in info.one_of:
            raise ValueError(f"not one of {', '.join(info.one_of)}")
        if info.ge is not None and value < info.ge:
            raise ValueError(f"below {_bound(self, info.ge)}")
        if info.gt is not None and value <= info.gt:
            raise ValueError(f"not above {_bound(self, info.gt)}")
        if info.le is not None and value > info.le:
            raise ValueError(f"above {_bound(self, info.le)}")
        if info.check is not None:
            info.check(value)

    @property
    def bounds(self) -> str:
        """The bounds in words, empty if there are none."""
        named = (("≥", self.info.ge), (">", self.info.gt), ("≤", self.info.le))
        return ", ".join(f"{sign} {_bound(self, bound)}" for sign, bound in named if bound is not None)


def fields_of(section: str, config_class: type[Any]) -> list[Field]:
    """Return the settings of a class.

    Raises:
        TypeError: A setting has a type that no text can be turned into.
    """
    hints = typing.get_type_hints(config_class)
    found = []
    for field in attrs.fields(config_class):
        info = field.metadata.get("setting")
        if info is None:
            continue
        kind = hints[field.name]
        if kind not in _PARSERS:
            names = "str, bool, int, float, Seconds, Bytes or tuple[str, ...]"
            raise TypeError(f"{config_class.__qualname__}.{field.name}: a setting is a {names}, not {kind}")
        key = info.key or f"{section}.{camel_case(field.name)}"
        if key in GO_DURATIONS:
            info = attrs.evolve(info, is_go_duration=True)
        found.append(Field(key=key, name=field.name, kind=kind, default=field.default, info=info))
    return found


def camel_case(name: str) -> str:
    """Return `snake_case` as `snakeCase`."""
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def show(field: Field, value: Any) -> str:
    """Return a value as it is written in a YAML file; secrets are hidden."""
    if field.info.is_secret:
        return '"***"' if value else '""'
    if field.kind is bool:
        return "true" if value else "false"
    if field.kind is Seconds:
        return duration_text(value)
    if field.kind is Bytes:
        return size_text(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(_quoted(each) for each in value) + "]"
    return _quoted(value) if isinstance(value, str) else str(value)


def without_credentials(text: str) -> str:
    """Return a text with the user and password of URLs in it hidden."""
    return _CREDENTIALS.sub("***@", text)


def duration_text(seconds: float) -> str:
    """Return a duration in the largest unit that makes it a whole number, as Go and we read it."""
    for unit in ("d", "h", "m", "s", "ms"):
        amount = seconds / _DURATION_UNITS[unit]
        if seconds and amount == int(amount):
            return f"{int(amount)}{unit}"
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def size_text(size: int) -> str:
    """Return a size in the largest binary unit that makes it a whole number."""
    for unit, power in (("TiB", 4), ("GiB", 3), ("MiB", 2), ("KiB", 1)):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{unit}"
    return str(size)


def _bound(field: Field, bound: float) -> str:
    if not bound or field.kind not in (Seconds, Bytes):
        return str(int(bound)) if bound == int(bound) else str(bound)
    return duration_text(bound) if field.kind is Seconds else size_text(int(bound))


def _quoted(text: str) -> str:
    text = without_credentials(text)
    return text if _PLAIN.fullmatch(text) and text not in ("~", "null", "-") else json.dumps(text, ensure_ascii=False)


def _text(value: Any, info: SettingInfo) -> str:
    if isinstance(value, (list, dict)) or value is None:
        raise ValueError("not a text")
    text = str(value)
    return info.spellings.get(text, text)


def _boolean(value: Any, info: SettingInfo) -> bool:
    text = str(value).strip().lower()
    if text in ("true", "1", "yes", "on", "t"):
        return True
    if text in ("false", "0", "no", "off", "f"):
        return False
    raise ValueError("not true or false")


def _integer(value: Any, info: SettingInfo) -> int:
    try:
        return int(str(value).strip())
    except ValueError:
        raise ValueError("not a whole number") from None


def _float(value: Any, info: SettingInfo) -> float:
    try:
        number = float(str(value).strip())
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("not a number")
    return number


def _bytes(value: Any, info: SettingInfo) -> int:
    match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise ValueError("not a size such as 65536, 64KiB or 8MiB")
    return int(match[1]) * _SIZE_UNITS[(match[2] or "").upper()]


def parse_seconds(text: str) -> float:
    """Return the seconds of a number or a duration such as 500ms, 10s or 30d; raises ValueError."""
    return _duration(text.strip())


def _seconds(value: Any, info: SettingInfo) -> float:
    text = str(value).strip()
    seconds = _duration(text)
    if info.is_go_duration and seconds and text[-1].isdigit():
        raise ValueError("a number without a unit, nanoseconds to the Go servers: write 500ms, 10s or 5m")
    return seconds


def _duration(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        parts = _DURATION.findall(text)
        if not parts or "".join(amount + unit for amount, unit in parts) != text:
            raise ValueError(_NO_DURATION) from None
        seconds = sum(float(amount) * _DURATION_UNITS[unit] for amount, unit in parts)
    if not 0 <= seconds < math.inf:
        raise ValueError(_NO_DURATION)
    return seconds


def _texts(value: Any, info: SettingInfo) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        return tuple(str(value).replace(",", " ").split())
    if any(isinstance(each, (list, dict)) for each in value):
        raise ValueError("not a list of plain values")
    return tuple(str(each) for each in value)


_PARSERS: dict[Any, Callable[[Any, SettingInfo], Any]] = {
    str: _text,
    bool: _boolean,
    int: _integer,
    float: _float,
    Bytes: _bytes,
    Seconds: _seconds,
    tuple[str, ...]: _texts,
}
