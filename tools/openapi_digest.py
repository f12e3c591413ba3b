"""Condense an OpenAPI document to what a caller depends on: endpoints, the members of requests and of answers.

A member is named by its path, `messages[].header.red_dot`, with the JSON kinds it may have; a `!` says that it must be
there whenever what holds it is. A member of all alternatives of a schema counts as one of the whole; of members that
replace one another none is marked. Response headers, descriptions, limits and formats are left out, and so is what an
answer without JSON looks like.

Usage: python tools/openapi_digest.py CONTRACT.yaml tests/conformance/openapi/contract.json
"""

import json
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any

import yaml

Digest = dict[str, dict[str, dict[str, str]]]
"""By `METHOD /path`, then `query`, `request` and `answer`, then the path of a member: its kinds."""

METHODS = ("get", "post", "put", "delete", "patch")
KINDS = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
MAX_DEPTH = 8
"""Members deeper than this are left out; no document of ours has any, but for schemas that hold themselves."""


def digest(document: dict[str, Any]) -> Digest:
    """Return the digest of a document."""
    return {
        f"{method.upper()} {re.sub(r'{[^}]*}', '{}', path)}": _endpoint(document, item, item[method])
        for path, item in sorted(document["paths"].items())
        for method in METHODS
        if method in item
    }


def _endpoint(document: dict[str, Any], item: dict[str, Any], operation: dict[str, Any]) -> dict[str, dict[str, str]]:
    parameters = [_followed(document, each) for each in (*item.get("parameters", ()), *operation.get("parameters", ()))]
    request = _followed(document, operation.get("requestBody", {}))
    answer = _followed(document, operation["responses"].get("200", {}))
    found = {
        "query": {
            each["name"]: _mark(
                _kinds(list(_alternatives(document, each["schema"]))), is_required=each.get("required", False)
            )
            for each in parameters
            if each["in"] == "query"
        },
        "request": _body(document, request),
        "answer": _body(document, answer),
    }
    return {name: dict(sorted(members.items())) for name, members in found.items() if members}


def _body(document: dict[str, Any], holder: dict[str, Any]) -> dict[str, str]:
    schema = holder.get("content", {}).get("application/json", {}).get("schema")
    if schema is None:
        return {}
    choices = list(_alternatives(document, schema))
    members = _members(document, choices, "", MAX_DEPTH)
    kinds = _kinds(choices)
    return members if kinds == {"object"} else {".": _mark(kinds, is_required=False), **members}


def _members(document: dict[str, Any], choices: list[dict[str, Any]], path: str, depth: int) -> dict[str, str]:
    """Return the members of what may be any of some schemas, and of what it holds."""
    if not depth:
        return {}
    found: dict[str, str] = {}
    objects = [each for each in choices if "object" in _own_kinds(each)]
    for name in {name: None for each in objects for name in each.get("properties", {})}:
        held = [each["properties"][name] for each in objects if name in each.get("properties", {})]
        is_required = all(name in each.get("required", ()) for each in objects)
        found |= _member(document, held, f"{path}.{name}" if path else name, depth, is_required=is_required)
    for word, suffix in (("items", "[]"), ("additionalProperties", "{}")):
        held = [each[word] for each in choices if isinstance(each.get(word), dict)]
        if held:
            found |= _member(document, held, path + suffix, depth, is_required=False)
    return found


def _member(
    document: dict[str, Any], schemas: list[dict[str, Any]], path: str, depth: int, *, is_required: bool
) -> dict[str, str]:
    choices = [choice for each in schemas for choice in _alternatives(document, each)]
    return {
        path: _mark(_kinds(choices), is_required=is_required),
        **_members(document, choices, path, depth - 1),
    }


def _alternatives(document: dict[str, Any], schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a schema, or those that it is a choice of, references followed."""
    schema = _followed(document, schema)
    choices = () if "properties" in schema else [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    if not choices:
        yield schema
    for each in choices:
        yield from _alternatives(document, each)


def _followed(document: dict[str, Any], holder: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in holder:
        found: Any = document
        for part in holder["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        holder = found
    return holder


def _kinds(choices: list[dict[str, Any]]) -> set[str]:
    return {kind for each in choices for kind in _own_kinds(each)}


def _own_kinds(schema: dict[str, Any]) -> set[str]:
    if "enum" in schema or "const" in schema:
        values = schema["enum"] if "enum" in schema else [schema["const"]]
        return {KINDS.get(type(each), "null") for each in values}
    given = schema.get("type", "any")
    return set(given) if isinstance(given, list) else {given}


def _mark(kinds: set[str], *, is_required: bool) -> str:
    return " ".join(sorted(kinds)) + ("!" if is_required else "")


def main() -> None:
    """Write the digest of a contract."""
    source, target = map(pathlib.Path, sys.argv[1:3])
    text = json.dumps(digest(yaml.safe_load(source.read_text())), indent=1, ensure_ascii=False)
    target.write_text(text + "\n")


if __name__ == "__main__":
    main()
