"""The OpenAPI 3.1 document, made from the declarations of the endpoints: what is read and what is answered."""

import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

import attrs
import msgspec
import trio
from msgspec import UNSET

from triolet_api._answers import Failure, encode
from triolet_api._call import Route
from triolet_api._fields import fields_of, schema_of
from triolet_api._guide import GROUPS, example_of, group_of, known_example, with_examples

_REFERENCE = "#/components/schemas/{name}"
_MANAGER: dict[str, list[str]] = {"managerToken": []}
_JWT: dict[str, list[str]] = {"bearer": []}


class LateDocument:
    """The document of some endpoints as JSON, made when it is first asked for."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = routes
        self._making = trio.CapacityLimiter(1)
        self._text = b""

    async def text(self) -> bytes:
        """Return it; the first time it is made in a thread."""
        if not self._text:
            self._text = await trio.to_thread.run_sync(self._make, limiter=self._making)
        return self._text

    def _make(self) -> bytes:
        return self._text or encode(document(self._routes))


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """Return the document of some endpoints."""
    shown = [route for route in routes if route.method != "ANY" and not route.is_page]
    leaves = [leaf for route in shown for leaf in _leaves(route.answer)]
    schemas, components = msgspec.json.schema_components([*leaves, Failure], ref_template=_REFERENCE)
    classes = {each.__name__: each for each in _classes([*leaves, Failure])}
    known = dict(zip(map(repr, leaves), schemas, strict=False))
    paths: dict[str, Any] = {}
    for route in shown:
        operation = _operation(route, None if route.answer is None else _schema(route.answer, known))
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "triolet",
            "version": metadata.version("triolet-api"),
            "description": "The HTTP API of a triolet server, which backends written for WuKongIM and LiMaoIM use"
            " unchanged. Names of members match without regard to case, unknown ones are ignored; numbers may also be"
            " decimal texts, flags true or false. Ids that JavaScript would round come as texts too: read"
            " `message_idstr`.",
        },
        "tags": [{"name": group.name, "description": group.doc} for group in GROUPS],
        "security": [{}, _MANAGER, _JWT],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": {name: _closed(schema, classes[name]) for name, schema in sorted(components.items())},
            "responses": {
                "Refused": _failure("It is refused, `msg` says why."),
                "Failed": _failure("The server cannot, `msg` says why."),
            },
            "securitySchemes": {
                "managerToken": {"type": "apiKey", "in": "header", "name": "token"},
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            },
        },
    }


def _leaves(answer: Any) -> Iterator[Any]:
    """Yield the types that an answer may be, those within a list of alternatives too."""
    if answer is None:
        return
    if isinstance(answer, types.UnionType):
        for each in typing.get_args(answer):
            yield from _leaves(each)
    elif typing.get_origin(answer) is list and isinstance(typing.get_args(answer)[0], types.UnionType):
        yield from _leaves(typing.get_args(answer)[0])
    else:
        yield answer


def _schema(answer: Any, known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if isinstance(answer, types.UnionType):
        return {"anyOf": [_schema(each, known) for each in typing.get_args(answer)]}
    if repr(answer) in known:
        return known[repr(answer)]
    return {"type": "array", "items": _schema(typing.get_args(answer)[0], known)}


def _classes(found: Iterable[Any]) -> Iterator[type[Any]]:
    """Yield the attrs classes among some types and within them."""
    for each in found:
        if isinstance(each, type) and attrs.has(each):
            yield each
            yield from _classes(typing.get_type_hints(each).values())
        else:
            yield from _classes(typing.get_args(each))


def _closed(schema: dict[str, Any], cls: type[Any]) -> dict[str, Any]:
    """Drop what the generator says of defaults: an answer holds every member that is not left out on purpose."""
    properties: Mapping[str, dict[str, Any]] = schema["properties"]
    return {
        **schema,
        "properties": {
            name: {key: value for key, value in each.items() if key != "default"} for name, each in properties.items()
        },
        "required": [each.name for each in attrs.fields(cls) if each.default is not UNSET],
    }


def _operation(route: Route, answer: dict[str, Any] | None) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}{re.sub(r'[^A-Za-z0-9]+', '_', route.path)}",
        "summary": route.doc,
        "tags": [group_of(route.path)],
        "parameters": [*_path_parameters(route), *_query_parameters(route)],
        "responses": _responses(route, answer),
    }
    if route.is_free:
        operation["security"] = [{}]
    if route.body is not None or route.takes is not None:
        schema = route.takes if route.takes is not None else schema_of(route.body)  # type: ignore[arg-type]  # not None
        content = {"schema": with_examples(schema), "example": example_of(schema)}
        operation["requestBody"] = {"required": True, "content": {"application/json": content}}
    return operation


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        _parameter(name, "path", _path_schema(name), is_required=True) for name in re.findall(r"{(\w+)}", route.path)
    ]


def _parameter(name: str, place: str, schema: dict[str, Any], *, is_required: bool) -> dict[str, Any]:
    example = known_example(name, schema) if is_required else None
    more = {} if example is None else {"example": example}
    return {"name": name, "in": place, "required": is_required, "schema": schema, **more}


def _path_schema(name: str) -> dict[str, Any]:
    if name == "id":
        return {"type": "integer", "minimum": 0}
    if name == "channel_type":
        return {"type": "integer", "minimum": 0, "maximum": 255}
    return {"type": "string", "minLength": 1}


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        _parameter(name, "query", kind.schema(), is_required=kind.is_required)
        for _, name, kind in (fields_of(route.query) if route.query is not None else ())
    ]


def _responses(route: Route, answer: dict[str, Any] | None) -> dict[str, Any]:
    done = {"application/json": {"schema": answer}} if answer is not None else {route.media: {}}
    return {
        "200": {"description": "Done.", "content": done},
        "401": {"description": "Credentials are missing or wrong."},
        "4XX": {"$ref": "#/components/responses/Refused"},
        "5XX": {"$ref": "#/components/responses/Failed"},
    }


def _failure(text: str) -> dict[str, Any]:
    schema = {"$ref": _REFERENCE.format(name="Failure")}
    return {"description": text, "content": {"application/json": {"schema": schema}}}
