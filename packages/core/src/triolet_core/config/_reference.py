"""The settings in words: the reference page, a sample file, and what is in force."""

from collections.abc import Mapping

from triolet_core.config._load import schema_of
from triolet_core.config._names import ALIASES, WITHOUT_EFFECT
from triolet_core.config._settings import CORE_SECTIONS, ServerConfig
from triolet_core.config._values import Bytes, Field, Seconds, fields_of, show

_KINDS = {str: "text", bool: "true/false", int: "number", Bytes: "size", Seconds: "duration", tuple[str, ...]: "list"}


def reference(plugin_classes: Mapping[str, type]) -> str:
    """Return every setting as a Markdown page."""
    lines = [
        "# Configuration",
        "",
        "Weakest first: defaults, file (`-c`, YAML or TOML), environment, `-e key=value`. The variable of a key is",
        "`WK_` or `TRIOLET_` and the key in capitals with `_` for `.`: `external.tcpAddr` is `WK_EXTERNAL_TCPADDR`.",
        "Keys do not mind case. With `compat.profile: limaoim` variables without a prefix count as well.",
        "In a container (`TRIOLET_CONTAINER=1`, or the usual marker file) listeners bind to every address by default.",
        "Durations: `500ms`, `10s`, `1m30s`, `30d`. Sizes: `64KiB`, `8MiB`.",
        "",
        "| key | type | default | meaning |",
        "|---|---|---|---|",
    ]
    for _, field in sorted(schema_of(plugin_classes).fields.values(), key=lambda each: each[1].key.lower()):
        lines.append(f"| `{field.key}` | {_kind(field)} | `{show(field, field.default)}` | {field.info.doc} |")
    lines += ["", "## Other names", "", "| name | is read as |", "|---|---|"]
    lines += [f"| `{name}` | `{key}` |" for name, key in sorted(ALIASES.items(), key=lambda each: each[0].lower())]
    lines += [
        "",
        "## Accepted without effect",
        "",
        "A name stands for everything below it.",
        "",
        "| key | why |",
        "|---|---|",
    ]
    lines += [f"| `{name}` | {why} |" for name, why in sorted(WITHOUT_EFFECT.items(), key=lambda each: each[0].lower())]
    return "\n".join(lines) + "\n"


def _kind(field: Field) -> str:
    return " · ".join(field.info.one_of) or _KINDS[field.kind]


def sample(plugin_classes: Mapping[str, type]) -> str:
    """Return a YAML file with every setting at its default, commented out."""
    lines = ["# Every setting at its default. Keys with dots may also be written as nested mappings."]
    for _, field in schema_of(plugin_classes).fields.values():
        lines += [f"# {field.info.doc}", f"#{field.key}: {show(field, field.default)}"]
    return "\n".join(lines) + "\n"


def shown(config: ServerConfig) -> str:
    """Return what is in force, secrets hidden."""
    lines = []
    parts = {name: getattr(config, name) for name in CORE_SECTIONS} | dict(config.sections)
    for name, part in parts.items():
        lines += [f"{field.key}: {show(field, getattr(part, field.name))}" for field in fields_of(name, type(part))]
    return "\n".join(lines) + "\n"
