"""The settings in words: the reference page, a sample file, and what is in force."""

from collections.abc import Iterable, Iterator, Mapping

from triolet_core.config._load import Schema, schema_of
from triolet_core.config._names import ALIASES, LIMAOIM_ONLY, WITHOUT_EFFECT
from triolet_core.config._settings import CORE_SECTIONS, ServerConfig
from triolet_core.config._values import Bytes, Field, Seconds, fields_of, show

_KINDS = {
    str: "text",
    bool: "true or false",
    int: "number",
    float: "number",
    Bytes: "size",
    Seconds: "duration",
    tuple[str, ...]: "list",
}

_INTRODUCTION = """\
# Configuration

<!-- written by `triolet config --reference`; do not edit -->

Where values come from, weakest first:

1. the defaults below;
2. container mode (`TRIOLET_CONTAINER=1`, or the file `/.dockerenv` exists and `TRIOLET_CONTAINER` is not `0`): clients
   are served on every address, and so is the API once `managerToken` is set; without a token it stays on loopback;
3. the file given with `-c`: TOML if it ends in `.toml`, else YAML or JSON;
4. the environment: `WK_` or, stronger, `TRIOLET_`, and the key in capitals with `_` for `.`, so that
   `external.tcpAddr` is `WK_EXTERNAL_TCPADDR`. An empty variable counts as not there;
5. `-e key=value` on the command line, repeatable.

Keys do not mind case; a key with dots may be written as nested groups. A value that cannot be used is an error that
names its key and origin (exit code 2). A key that is not known, or has no effect, is said at start and otherwise
ignored. `triolet config` prints what is in force, `triolet config --sample` a file to begin with.

A duration is `500ms`, `10s`, `1m30s` or `30d`; a number without a unit is seconds. Where the type says *with a unit*
the Go servers read such a number as nanoseconds, so it is refused here. A size is a number of bytes, `64KiB` or
`8MiB`. A list is a list of the file, or words between spaces or commas.
"""


def reference(plugin_classes: Mapping[str, type]) -> str:
    """Return every setting as a Markdown page."""
    schema = schema_of(plugin_classes)
    parts = [_INTRODUCTION, "## Core", _table(schema, CORE_SECTIONS)]
    for name in sorted(plugin_classes):
        parts += [f"## Plugin `{name}`", _table(schema, (name,))]
    other_names = sorted({**ALIASES, **_limao_names(schema)}.items(), key=_lower)
    parts += [
        "## Other names",
        "`webhook` and `datasource` may also be groups. A key's own name is stronger than its other names.",
        _rows(("name", "is read as"), ((f"`{name}`", f"`{key}`") for name, key in other_names)),
        "With `compat.profile: limaoim` (in the file or the environment) LiMaoIM's variables count as well, without a\n"
        "prefix and in this spelling: " + ", ".join(f"`{name}`" for name in sorted(LIMAOIM_ONLY, key=str.lower)) + ".",
        "## Accepted without effect",
        "Said at start. A plugin that declares one of these keys takes it over.",
        _rows(
            ("key", "why"),
            (
                (f"`{key}`", why)
                for key, why in sorted(WITHOUT_EFFECT.items(), key=_lower)
                if not _is_field(schema, key)
            ),
        ),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _table(schema: Schema, sections: Iterable[str]) -> str:
    fields = [field for name in sections for field in fields_of(name, schema.sections[name])]
    cells = ((f"`{each.key}`", _kind(each), f"`{show(each, each.default)}`", each.info.doc) for each in fields)
    return _rows(("key", "type", "default", "meaning"), cells)


def _rows(header: tuple[str, ...], cells: Iterable[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *cells]
    return "\n".join("| " + " | ".join(each.replace("|", "\\|") for each in line) + " |" for line in lines)


def _kind(field: Field) -> str:
    kind = " · ".join(f"`{each}`" for each in field.info.one_of) or _KINDS[field.kind]
    return " ".join(filter(None, (kind, "with a unit" if field.info.is_go_duration else "", field.bounds)))


def _limao_names(schema: Schema) -> dict[str, str]:
    return {field.info.limao: field.key for _, field in schema.fields.values() if field.info.limao}


def _is_field(schema: Schema, key: str) -> bool:
    return key.lower() in schema.fields


def _lower(item: tuple[str, str]) -> str:
    return item[0].lower()


def sample(plugin_classes: Mapping[str, type]) -> str:
    """Return a YAML file with every setting at its default, commented out."""
    lines = ["# Every setting at its default. A key with dots may also be written as nested groups."]
    for _, field in schema_of(plugin_classes).fields.values():
        bounds = f" ({field.bounds})" if field.bounds else ""
        choices = f" ({', '.join(field.info.one_of)})" if field.info.one_of else ""
        lines += ["", f"# {field.info.doc}{bounds}{choices}", f"#{field.key}: {show(field, field.default)}"]
    return "\n".join(lines) + "\n"


def shown(config: ServerConfig) -> str:
    """Return what is in force as a YAML file, secrets left out."""
    parts = {name: getattr(config, name) for name in CORE_SECTIONS} | dict(config.sections)
    return "".join(f"{line}\n" for name, part in parts.items() for line in _lines(name, part))


def _lines(section: str, part: object) -> Iterator[str]:
    for field in fields_of(section, type(part)):
        value = getattr(part, field.name)
        is_hidden = field.info.is_secret and value
        yield f"# {field.key} is set and not shown" if is_hidden else f"{field.key}: {show(field, value)}"
