"""Where values come from: containers, files, variables, arguments. Each source is a list of values as written."""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import yaml

from triolet_core.errors import ConfigError

PREFIXES = ("WK_", "TRIOLET_")
"""Of variables; the later is the stronger."""
OWN_VARIABLES = frozenset({"TRIOLET_CONTAINER", "TRIOLET_PURE"})
"""Variables with our prefix that are no settings."""

_CONTAINER_MARK = Path("/.dockerenv")
_DEEPEST = 16
_TABLE = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]")
_ENTRY = re.compile(r"\s*([\w.\"' -]+?)\s*=")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


@attrs.frozen
class Value:
    """A value as it was written, the name it was written under, and where."""

    name: str
    raw: Any
    origin: str


def is_container(environ: Mapping[str, str]) -> bool:
    """Whether this runs in a container, where a loopback address is of no use to anybody outside of it."""
    told = environ.get("TRIOLET_CONTAINER")
    return _CONTAINER_MARK.exists() if told is None else told.strip().lower() not in ("", "0", "false", "no", "off")


def of_overrides(overrides: Sequence[str], errors: list[ConfigError]) -> list[Value]:
    """Return the values of `-e`, split at the first `=`."""
    found = []
    for number, text in enumerate(overrides, 1):
        name, equals, raw = text.partition("=")
        if equals and name.strip():
            found.append(Value(name.strip(), raw, "-e"))
        else:  # the text may be a secret, so it is not shown
            errors.append(ConfigError(f"-e number {number}", "is not of the form key=value"))
    return found


def of_file(path: str | Path, errors: list[ConfigError]) -> list[Value]:
    """Return the values of a TOML (`.toml`) or YAML file; JSON is YAML."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        return list(_of_toml(text, path.name) if path.suffix.lower() == ".toml" else _of_yaml(text, path.name))
    except OSError as exc:
        problem = f"cannot be read: {exc.strerror}"
    except yaml.MarkedYAMLError as exc:
        problem = f"is not valid YAML: {_where(exc.problem_mark)}{_without_quotes(exc.problem or '')}"
    except yaml.YAMLError:
        problem = "is not valid YAML: it holds a character that no text may hold"
    except tomllib.TOMLDecodeError as exc:
        problem = f"is not valid TOML: {exc}"
    except RecursionError:
        problem = "holds groups within groups without end"
    except UnicodeDecodeError as exc:
        problem = f"is not UTF-8 at byte {exc.start}"
    errors.append(ConfigError(str(path), problem, origin="-c"))
    return []


def _without_quotes(problem: str) -> str:
    """Leave out what is quoted from the file, which may be a secret; keep single characters and names of tokens."""
    return _QUOTED.sub(lambda match: match[0] if len(match[0]) == 3 or match[0][1] == "<" else "this", problem)


def _where(mark: yaml.Mark | None) -> str:
    return "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "


def _of_yaml(text: str, file: str) -> Iterator[Value]:
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is not None and not _is_null(node):
            yield from _of_node(loader, node, file, ())
    finally:
        loader.dispose()


def _is_null(node: yaml.Node) -> bool:
    return bool(node.tag == "tag:yaml.org,2002:null")


def _of_node(loader: yaml.SafeLoader, node: yaml.Node, file: str, path: tuple[str, ...]) -> Iterator[Value]:
    if not isinstance(node, yaml.MappingNode):
        raise yaml.MarkedYAMLError(problem="the top of the file is not keys with values", problem_mark=node.start_mark)
    if len(path) > _DEEPEST:
        raise yaml.MarkedYAMLError(problem="groups within groups without end", problem_mark=node.start_mark)
    loader.flatten_mapping(node)
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(problem="a key is not a plain text", problem_mark=key.start_mark)
        here = (*path, key.value)
        if isinstance(value, yaml.MappingNode):
            yield from _of_node(loader, value, file, here)
        elif not _is_null(value):
            yield Value(".".join(here), _plain(value), f"{file}:{key.start_mark.line + 1}")


def _plain(node: yaml.Node) -> str | list[str]:
    """Return a scalar as it is written, whatever YAML takes it for, and a list of them."""
    if isinstance(node, yaml.ScalarNode):
        return str(node.value)
    for each in node.value:
        if not isinstance(each, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(problem="a list may hold plain values only", problem_mark=each.start_mark)
    return [str(each.value) for each in node.value]


def _of_toml(text: str, file: str) -> Iterator[Value]:
    lines = dict(reversed(list(_toml_lines(text))))
    for name, raw in _flat(tomllib.loads(text), ""):
        line = lines.get(name.lower())
        yield Value(name, raw, file if line is None else f"{file}:{line}")


def _flat(mapping: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, raw in mapping.items():
        if isinstance(raw, Mapping):
            yield from _flat(raw, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", raw


def _toml_lines(text: str) -> Iterator[tuple[str, int]]:
    """Yield (key in lower case, line), good enough for messages: inline tables have no lines."""
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if match := _TABLE.match(line):
            table = f"{_dotted(match[1])}."
        elif match := _ENTRY.match(line):
            yield f"{table}{_dotted(match[1])}", number


def _dotted(written: str) -> str:
    return ".".join(part.strip(" \"'") for part in written.split(".")).lower()
