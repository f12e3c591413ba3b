"""The document that the server describes itself with: valid, and what the contract promises to backends.

`contract.json` is made from our description of the reference's API by `tools/openapi_digest.py`.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from tools.openapi_digest import Digest, digest

from triolet_api._guide import OTHER, group_of
from triolet_api._openapi import document
from triolet_api.routes import ROUTES

HERE = Path(__file__).parent
CONTRACT: Digest = json.loads((HERE / "contract.json").read_text())


def differences(contract: Digest, ours: Digest) -> Iterator[str]:
    """Yield a line for each difference that a backend could notice."""
    for name in sorted(contract.keys() | ours.keys()):
        if name not in ours:
            yield f"{name}: missing"
        elif name not in contract:
            yield f"{name}: added"
        else:
            for part in ("query", "request", "answer"):
                for line in members(part, contract[name].get(part, {}), ours[name].get(part, {})):
                    yield f"{name} {part}: {line}"


def members(part: str, theirs: dict[str, str], ours: dict[str, str]) -> Iterator[str]:
    """Yield the differences of the members of one part, without what is inside of those that one side lacks."""
    for name in sorted(theirs.keys() | ours.keys()):
        if holder(name) and not (holder(name) in theirs and holder(name) in ours):
            continue
        if name not in ours:
            yield f"{name} missing"
        elif name not in theirs:
            if not name.endswith(("[]", "{}")):  # the contract leaves open what a list holds
                yield f"{name} added" + (", required" if part != "answer" and ours[name].endswith("!") else "")
        else:
            yield from (f"{name} {each}" for each in changes(part, theirs[name], ours[name]))


def holder(name: str) -> str:
    """Return the path of the member that holds another, empty for the outermost."""
    return name[:-2] if name.endswith(("[]", "{}")) else name.rpartition(".")[0]


def changes(part: str, theirs: str, ours: str) -> Iterator[str]:
    """Yield how one member differs: requests may be taken more generously, answers may promise more.

    The kinds of queries say nothing: they are all texts.
    """
    if part == "answer":
        theirs, ours = ours, theirs
    given, accepted = set(theirs.rstrip("!").split()), set(ours.rstrip("!").split())
    if part != "query" and "any" not in accepted and not given <= accepted:
        yield " ".join(sorted(given - accepted)) + (" may come" if part == "answer" else " not taken")
    if ours.endswith("!") and not theirs.endswith("!"):
        yield "may be left out" if part == "answer" else "required"


def known_differences() -> list[str]:
    """Return the lines of the list; each paragraph begins with its reason, `*` stands for anything."""
    lines = (HERE / "known_differences.txt").read_text().splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def fits(line: str, pattern: str) -> bool:
    """Whether a difference is the one that a line of the list means."""
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), line) is not None


def test_the_document_is_valid() -> None:
    """OpenAPI 3.1, with the schemas of the bodies."""
    assert [error.message for error in OpenAPIV31SpecValidator(document(ROUTES)).iter_errors()] == []


def test_every_endpoint_is_in_a_group() -> None:
    assert [route.path for route in ROUTES if group_of(route.path) == OTHER and not route.is_page] == []


def test_every_example_fits_its_schema() -> None:
    """What the page offers to send, by the validator of JSON schemas."""
    for path, item in document(ROUTES)["paths"].items():
        for operation in item.values():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if content is not None:
                problems = list(OAS31Validator(content["schema"]).iter_errors(content["example"]))
                assert problems == [], path


def test_every_difference_from_the_contract_is_a_known_one() -> None:
    """A new one fails here, and so does a line that is true no longer."""
    found, known = list(differences(CONTRACT, digest(document(ROUTES)))), known_differences()
    assert [line for line in found if not any(fits(line, pattern) for pattern in known)] == []
    assert [pattern for pattern in known if not any(fits(line, pattern) for line in found)] == []


def test_every_known_difference_has_a_reason() -> None:
    for paragraph in (HERE / "known_differences.txt").read_text().strip().split("\n\n"):
        assert paragraph.startswith("# ")


def test_every_kind_of_difference_is_seen() -> None:
    """Requests may be taken more generously and answers may promise more; everything else is a line."""
    theirs = {
        "GET /gone": {"answer": {"a": "integer!"}},
        "GET /same": {"query": {"uid": "string"}, "answer": {"a": "integer", "list": "array!", "list[]": "string"}},
        "POST /both": {
            "request": {"a": "integer!", "b": "string", "c": "string", "d": "string", "d.e": "string"},
            "answer": {"status": "integer!", "data": "object", "data.x": "integer"},
        },
    }
    ours = {
        "GET /new": {"answer": {"a": "integer!"}},
        "GET /same": {"query": {"uid": "integer"}, "answer": {"a": "integer!", "list": "array!", "list[]": "string"}},
        "POST /both": {
            "request": {"a": "integer string", "b": "integer", "c": "string!", "f": "string!"},
            "answer": {"status": "integer string", "data": "object", "data.y": "integer"},
        },
    }
    assert list(differences(theirs, ours)) == [
        "GET /gone: missing",
        "GET /new: added",
        "POST /both request: b string not taken",
        "POST /both request: c required",
        "POST /both request: d missing",
        "POST /both request: f added, required",
        "POST /both answer: data.x missing",
        "POST /both answer: data.y added",
        "POST /both answer: status string may come",
        "POST /both answer: status may be left out",
    ]


def test_a_document_is_digested_with_its_alternatives_and_lists() -> None:
    """A member counts as required if every alternative that may hold it asks for it."""
    row = {"type": "object", "properties": {"id": {"type": "integer"}, "next": {"$ref": "#/row"}}, "required": ["id"]}
    body = {"anyOf": [{"type": "array", "items": {"$ref": "#/row"}}, {"type": "object", "properties": {"all": {}}}]}
    made = digest(
        {
            "row": row,
            "paths": {
                "/rows/{number}": {
                    "post": {
                        "parameters": [{"name": "page", "in": "query", "schema": {"enum": [1, True]}}],
                        "requestBody": {"content": {"application/json": {"schema": body}}},
                        "responses": {"200": {"content": {"text/plain": {}}}},
                    }
                }
            },
        }
    )
    rows = made["POST /rows/{}"]
    assert rows.keys() == {"query", "request"}
    assert rows["query"] == {"page": "boolean integer"}
    shown = {name: kinds for name, kinds in rows["request"].items() if "next.next" not in name}
    assert shown == {
        ".": "array object",
        "[]": "object",
        "[].id": "integer!",
        "[].next": "object",
        "[].next.id": "integer!",
        "all": "any",
    }
