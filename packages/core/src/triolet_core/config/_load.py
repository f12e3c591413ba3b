"""From what was written to `ServerConfig`: the strongest source wins, every error is collected, nothing gets lost.

A value that cannot be used is an error; a key that nobody uses is a notice, with the reason or the nearest known key.
"""

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from triolet_core.config._names import ALIASES, LIMAOIM_ONLY, OF_PLUGINS, WITHOUT_EFFECT
from triolet_core.config._settings import CORE_SECTIONS, ServerConfig
from triolet_core.config._sources import OWN_VARIABLES, PREFIXES, Value, is_container, of_file, of_overrides
from triolet_core.config._values import Field, fields_of, show, without_credentials
from triolet_core.errors import ConfigError, ConfigErrors

CONTAINER = "container mode"
_LIMAOIM = "limaoim"
_IN_A_CONTAINER = {"addr": "tcp://0.0.0.0:5100", "wsAddr": "ws://0.0.0.0:5200"}
_API_IN_A_CONTAINER = "0.0.0.0:5001"

_WITHOUT_EFFECT = {name.lower(): reason for name, reason in WITHOUT_EFFECT.items()}
_OF_PLUGINS = {name.lower(): owner for name, owner in OF_PLUGINS.items()}

Values = dict[str, Value]
"""Values by the key they are for, in lower case."""


@attrs.frozen
class Schema:
    """Every setting: (section, field) by lower-case key; the other names of keys; the classes of sections."""

    fields: Mapping[str, tuple[str, Field]]
    aliases: Mapping[str, str]
    sections: Mapping[str, type]

    def key_of(self, name: str) -> str:
        """Return the key, in lower case, that a name as written stands for."""
        lower = name.lower()
        return lower if lower in self.fields else self.aliases.get(lower, lower)

    @property
    def names(self) -> dict[str, str]:
        """Every name that is understood, as it is spelled, by itself in lower case."""
        known = (*WITHOUT_EFFECT, *ALIASES, *(field.key for _, field in self.fields.values()))
        return {name.lower(): name for name in known}


def schema_of(plugin_classes: Mapping[str, type]) -> Schema:
    """Return the schema of core and the given plugins."""
    sections = {**CORE_SECTIONS, **plugin_classes}
    fields: dict[str, tuple[str, Field]] = {}
    aliases = {name.lower(): key.lower() for name, key in ALIASES.items()}
    for section, config_class in sections.items():
        for field in fields_of(section, config_class):
            fields[field.key.lower()] = section, field
            if field.info.limao:
                aliases.setdefault(field.info.limao.lower(), field.key.lower())
    return Schema(fields, aliases, sections)


def load(
    path: str | Path | None,
    overrides: Sequence[str],
    environ: Mapping[str, str] | None,
    plugin_classes: Mapping[str, type],
) -> ServerConfig:
    """Load the configuration: defaults, container mode, file, environment, overrides; the later wins.

    Raises:
        ConfigErrors: One error for each wrong value.
    """
    environ = os.environ if environ is None else environ
    schema = schema_of(plugin_classes)
    errors: list[ConfigError] = []
    notices: list[str] = []
    told = _resolved([] if path is None else of_file(path, errors), schema, notices)
    variables = _resolved(_of_environment(environ, schema, notices), schema, notices)
    arguments = _resolved(of_overrides(overrides, errors), schema, [])
    if _parsed("compat.profile", told | variables | arguments, schema) == _LIMAOIM:
        bare = [Value(name, environ[name], f"environment {name}") for name in LIMAOIM_ONLY if environ.get(name)]
        variables = _resolved(bare, schema, notices) | variables
    told |= variables | arguments
    values = _of_container(environ, schema, told, notices) | told
    config = _build(schema, values, errors, notices)
    if errors:
        raise ConfigErrors(tuple(errors))
    return attrs.evolve(config, notices=tuple(notices))


def _resolved(source: Iterable[Value], schema: Schema, notices: list[str]) -> Values:
    """Return the values of one source by key. A key's own name beats its other names, else the later wins."""
    found: Values = {}
    for value in source:
        key = schema.key_of(value.name)
        winner, loser = value, found.get(key)
        if loser is not None:
            if loser.name.lower() == key != value.name.lower():
                winner, loser = loser, winner
            notices.append(f"{loser.name} ({loser.origin}) is overridden by {winner.name} ({winner.origin})")
        found[key] = winner
    return found


def _parsed(key: str, values: Values, schema: Schema) -> Any:
    """Return a value that decides about others, None if it is not there or wrong, which is reported later."""
    if key not in values or key not in schema.fields:
        return None
    try:
        return schema.fields[key][1].parse(values[key].raw)
    except ValueError:
        return None


def _of_container(environ: Mapping[str, str], schema: Schema, told: Values, notices: list[str]) -> Values:
    """Listen on every address, on the API's only if it asks for a token (or was told not to)."""
    if not is_container(environ):
        return {}
    found = {name.lower(): Value(name, raw, CONTAINER) for name, raw in _IN_A_CONTAINER.items()}
    if _parsed("managertoken", told, schema) or _parsed("api.allowopen", told, schema):
        found["httpaddr"] = Value("httpAddr", _API_IN_A_CONTAINER, CONTAINER)
    elif "httpaddr" in schema.fields and "httpaddr" not in told:
        notices.append(f"httpAddr ({CONTAINER}) stays on loopback: set managerToken, and it is reached from outside")
    return {key: value for key, value in found.items() if key in schema.fields}


def _build(schema: Schema, values: Values, errors: list[ConfigError], notices: list[str]) -> ServerConfig:
    given: dict[str, dict[str, Any]] = {section: {} for section in schema.sections}
    for key, value in values.items():
        if key not in schema.fields:
            notices.append(_notice(key, value, schema))
            continue
        section, field = schema.fields[key]
        try:
            given[section][field.name] = field.parse(value.raw)
        except ValueError as exc:
            errors.append(_error(field, value, exc))
    if errors:
        return ServerConfig()
    made = {name: _made(name, config_class, given[name], errors) for name, config_class in schema.sections.items()}
    if errors:
        return ServerConfig()
    core = {name: made.pop(name) for name in CORE_SECTIONS}
    return ServerConfig(**core, sections=made)


def _made(section: str, config_class: type, given: Mapping[str, Any], errors: list[ConfigError]) -> Any:
    """Make the settings of a section; what its class refuses is an error like any other."""
    try:
        return config_class(**given)
    except ConfigErrors as exc:
        errors.extend(exc.errors)
    except ConfigError as exc:
        errors.append(exc)
    except ValueError as exc:
        errors.append(ConfigError(section, str(exc.args[0]) if exc.args else "is refused by the plugin"))
    return None


def _error(field: Field, value: Value, problem: ValueError) -> ConfigError:
    written = "" if value.name.lower() == field.key.lower() else f", written as {value.name}"
    shown = "" if field.info.is_secret else f"{without_credentials(str(value.raw))!r} is "
    default = show(field, field.default)
    return ConfigError(field.key, f"{shown}{problem} (default: {default})", origin=f"{value.origin}{written}")


def _notice(key: str, value: Value, schema: Schema) -> str:
    what = f"{value.name} ({value.origin})"
    owner = _missing_owner(key, schema)
    if owner is not None:
        return f"{what} has no effect: {owner} is not installed"
    if key in _WITHOUT_EFFECT:
        return f"{what} is accepted without effect: {_WITHOUT_EFFECT[key]}"
    return f"{what} is not a known key{_hint(key, schema.names)}"


def _missing_owner(key: str, schema: Schema) -> str | None:
    """Return the first-party plugin that would use a key and is not installed."""
    owner = _OF_PLUGINS.get(key) or _OF_PLUGINS.get(key.partition(".")[0])
    return None if owner is None or owner.removeprefix("triolet-") in schema.sections else owner


def _hint(name: str, known: Mapping[str, str], prefix: str = "") -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {prefix}{known[nearest[0]]}?" if nearest else ""


def _of_environment(environ: Mapping[str, str], schema: Schema, notices: list[str]) -> list[Value]:
    """Return the variables with our prefixes. An empty one counts as not there, as with the reference."""
    names = {_variable(name): name for name in schema.names.values()}
    found = []
    for prefix in PREFIXES:
        for variable in sorted(environ):
            if not variable.startswith(prefix) or variable in OWN_VARIABLES or not environ[variable]:
                continue
            rest = variable.removeprefix(prefix).upper()
            if rest in names:
                found.append(Value(names[rest], environ[variable], f"environment {variable}"))
                continue
            owner = _missing_owner(rest.partition("_")[0].lower(), schema)
            known = {each: each for each in names}
            problem = f"is not a known setting{_hint(rest, known, prefix)}"
            notices.append(
                f"the variable {variable} {f'has no effect: {owner} is not installed' if owner else problem}"
            )
    return found


def _variable(key: str) -> str:
    return key.upper().replace(".", "_")
