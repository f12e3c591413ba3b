"""From files, variables and arguments to `ServerConfig`, with the origin of every value."""

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import yaml

from triolet_core.config._names import ALIASES, OF_PLUGINS, WITHOUT_EFFECT
from triolet_core.config._settings import CORE_SECTIONS, ServerConfig
from triolet_core.config._values import Field, fields_of, show
from triolet_core.errors import ConfigError, ConfigErrors

PREFIXES = ("WK_", "TRIOLET_")
CONTAINER = "TRIOLET_CONTAINER"
_OWN_VARIABLES = frozenset({CONTAINER, "TRIOLET_PURE"})
_IN_A_CONTAINER = {"addr": "tcp://0.0.0.0:5100", "wsAddr": "ws://0.0.0.0:5200", "httpAddr": "0.0.0.0:5001"}


@attrs.frozen
class Value:
    """A value as it was written, and where."""

    raw: Any
    origin: str


Values = dict[str, Value]


@attrs.frozen
class Schema:
    """Every known setting: (section, field) by lower-case key."""

    fields: Mapping[str, tuple[str, Field]]
    sections: Mapping[str, type]

    def canonical(self, key: str) -> str:
        """Return a key in lower case, under its present name."""
        lower = key.lower()
        alias = _ALIASES.get(lower)
        return alias.lower() if alias is not None and lower not in self.fields else lower


_ALIASES = {name.lower(): key for name, key in ALIASES.items()}
_WITHOUT_EFFECT = {name.lower(): reason for name, reason in WITHOUT_EFFECT.items()}
_OF_PLUGINS = {name.lower(): owner for name, owner in OF_PLUGINS.items()}


def schema_of(plugin_classes: Mapping[str, type]) -> Schema:
    """Return the schema of core and the given plugins."""
    sections = {**CORE_SECTIONS, **plugin_classes}
    fields = {
        field.key.lower(): (section, field)
        for section, config_class in sections.items()
        for field in fields_of(section, config_class)
    }
    return Schema(fields, sections)


def load(
    path: str | Path | None,
    overrides: Sequence[str],
    environ: Mapping[str, str] | None,
    plugin_classes: Mapping[str, type],
) -> ServerConfig:
    """Load the configuration: defaults, file, environment, overrides; the later wins.

    Raises:
        ConfigErrors: One error for each wrong value.
    """
    environ = os.environ if environ is None else environ
    schema = schema_of(plugin_classes)
    errors: list[ConfigError] = []
    notices: list[str] = []
    values: Values = {}
    for source in (
        _of_container(environ),
        _of_file(path, errors) if path is not None else {},
        _of_environment(environ, schema, notices),
        _of_overrides(overrides, errors),
    ):
        values |= {schema.canonical(key): value for key, value in source.items()}
    profile = values.get("compat.profile")
    if profile is not None and str(profile.raw).startswith("limao"):
        bare = {schema.canonical(key): value for key, value in _of_bare_names(environ, schema).items()}
        values = {**values, **{key: value for key, value in bare.items() if values.get(key, value).origin[:2] != "-e"}}
    config = _build(schema, values, errors, notices)
    if errors:
        raise ConfigErrors(tuple(errors))
    return attrs.evolve(config, notices=tuple(notices))


def _build(schema: Schema, values: Values, errors: list[ConfigError], notices: list[str]) -> ServerConfig:
    given: dict[str, dict[str, Any]] = {section: {} for section in schema.sections}
    for key, value in values.items():
        known = schema.fields.get(key)
        if known is None:
            notice = _notice(key, value, schema)
            if notice:
                notices.append(notice)
            continue
        section, field = known
        try:
            given[section][field.name] = field.parse(value.raw)
        except ValueError as exc:
            shown = "" if field.info.is_secret else f"{str(value.raw)!r} is "
            errors.append(
                ConfigError(field.key, f"{shown}{exc} (default: {show(field, field.default)})", origin=value.origin)
            )
    if errors:
        return ServerConfig()
    made = {section: schema.sections[section](**kwargs) for section, kwargs in given.items()}
    core = {section: made[section] for section in CORE_SECTIONS}
    return ServerConfig(**core, sections={name: part for name, part in made.items() if name not in CORE_SECTIONS})


def _notice(key: str, value: Value, schema: Schema) -> str | None:
    parts = key.split(".")
    prefixes = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    for prefix in prefixes:
        if prefix in _WITHOUT_EFFECT:
            return f"{key} ({value.origin}) is accepted without effect: {_WITHOUT_EFFECT[prefix]}"
        owner = _OF_PLUGINS.get(prefix)
        if owner is not None and owner.removeprefix("triolet-") not in schema.sections:
            return f"{key} ({value.origin}) has no effect: {owner} is not installed"
    nearest = difflib.get_close_matches(key, schema.fields, n=1)
    hint = f"; did you mean {schema.fields[nearest[0]][1].key}?" if nearest else ""
    return f"{key} ({value.origin}) is not a known key{hint}"


def is_container(environ: Mapping[str, str]) -> bool:
    """Whether this runs in a container, where loopback is of no use to anybody."""
    return environ.get(CONTAINER, "") not in ("", "0") or (CONTAINER not in environ and Path("/.dockerenv").exists())


def _of_container(environ: Mapping[str, str]) -> Values:
    if not is_container(environ):
        return {}
    return {key: Value(address, "container mode") for key, address in _IN_A_CONTAINER.items()}


def _of_overrides(overrides: Sequence[str], errors: list[ConfigError]) -> Values:
    found = {}
    for text in overrides:
        key, equals, raw = text.partition("=")
        if not equals or not key:
            errors.append(ConfigError(key or "-e", "not of the form key=value", origin="-e"))
        else:
            found[key] = Value(raw, "-e")
    return found


def _of_environment(environ: Mapping[str, str], schema: Schema, notices: list[str]) -> Values:
    names = {key.upper().replace(".", "_"): field.key for key, (_, field) in schema.fields.items()}
    names |= {
        name.upper().replace(".", "_"): name
        for name in (*ALIASES, *WITHOUT_EFFECT)
        if name.lower() not in schema.fields
    }
    found = {}
    for prefix in PREFIXES:
        for variable, raw in environ.items():
            if not variable.startswith(prefix) or variable in _OWN_VARIABLES:
                continue
            rest = variable.removeprefix(prefix).upper()
            key = names.get(rest) or next((names[n] for n in _shorter(rest) if n in names), None)
            if key is None:
                nearest = difflib.get_close_matches(rest, names, n=1)
                hint = f"; did you mean {prefix}{nearest[0]}?" if nearest else ""
                notices.append(f"the variable {variable} is not a known setting{hint}")
            else:
                found[key] = Value(raw, f"environment {variable}")
    return found


def _shorter(name: str) -> Iterable[str]:
    """Yield a variable's name cut at each underscore, the longest first: for whole groups without effect."""
    parts = name.split("_")
    return ("_".join(parts[:n]) for n in range(len(parts) - 1, 0, -1))


def _of_bare_names(environ: Mapping[str, str], schema: Schema) -> Values:
    """LiMaoIM reads variables without a prefix, in the exact spelling of the key."""
    names = {field.key for _, field in schema.fields.values() if "." not in field.key} | set(ALIASES)
    return {name: Value(environ[name], f"environment {name}") for name in names if name in environ}


def _of_file(path: str | Path, errors: list[ConfigError]) -> Values:
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".toml":
            return _flat(tomllib.loads(text), path.name)
        return _of_node(yaml.compose(text, Loader=yaml.SafeLoader), path.name)
    except OSError as exc:
        errors.append(ConfigError(str(path), f"cannot be read: {exc.strerror}", origin="-c"))
    except (yaml.YAMLError, tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        errors.append(ConfigError(str(path), f"is not valid: {' '.join(str(exc).split())}", origin="-c"))
    return {}


def _flat(mapping: Mapping[str, Any], origin: str, prefix: str = "") -> Values:
    found: Values = {}
    for key, raw in mapping.items():
        if isinstance(raw, Mapping):
            found |= _flat(raw, origin, f"{prefix}{key}.")
        elif raw is not None:
            found[f"{prefix}{key}"] = Value(raw, origin)
    return found


def _of_node(node: Any, name: str, prefix: str = "") -> Values:
    found: Values = {}
    if node is None:
        return found
    if not isinstance(node, yaml.MappingNode):
        raise yaml.YAMLError("the top of the file is not a mapping of keys to values")
    for key, value in node.value:
        full = f"{prefix}{key.value}"
        origin = f"{name}:{key.start_mark.line + 1}"
        if isinstance(value, yaml.MappingNode):
            found |= _of_node(value, name, f"{full}.")
        elif isinstance(value, yaml.SequenceNode):
            found[full] = Value([_scalar(each) for each in value.value], origin)
        elif value.tag != "tag:yaml.org,2002:null":
            found[full] = Value(value.value, origin)
    return found


def _scalar(node: Any) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise yaml.YAMLError(f"line {node.start_mark.line + 1}: a list may hold plain values only")
    return str(node.value)
