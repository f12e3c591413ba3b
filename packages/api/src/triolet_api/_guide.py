"""What the OpenAPI document tells its reader beside shapes: groups of endpoints, and examples to send as they are."""

from collections.abc import Iterator, Mapping
from typing import Any

import attrs


@attrs.frozen
class Group:
    """Endpoints that are shown together."""

    name: str
    doc: str
    prefixes: tuple[str, ...]
    """Beginnings of their paths; of several the longest decides."""


GROUPS = (
    Group(
        "Users", "Tokens, devices, who is online, system accounts.", ("/user", "/systemuids_add", "/systemuids_remove")
    ),
    Group("Channels", "Groups and other channels, their members, who may send.", ("/channel", "/tmpchannel")),  # noqa: S108  # a URL
    Group(
        "Messages",
        "Sending, history, search, commands; recalling, editing and deleting.",
        ("/message", "/messages", "/channel/messagesync", "/channel/max_message_seq", "/channel/last_message"),
    ),
    Group(
        "Streams",
        "Messages that grow while they are read, and their events.",
        ("/stream", "/streammessage", "/event", "/message/event", "/message/eventsync"),
    ),
    Group("Conversations", "What a user has, and has not read.", ("/conversation", "/conversations")),
    Group("Connections", "Where clients connect to, and who is.", ("/route", "/conn", "/connz", "/system/ip")),
    Group("Monitoring", "Health and numbers.", ("/health", "/healthz", "/readyz", "/varz", "/metrics")),
    Group("Cluster", "Nodes, slots, and what an administrator searches.", ("/cluster",)),
    Group(
        "Administration",
        "Logging in, receiver sets, plugins, exports.",
        ("/manager", "/tag", "/tags", "/plugin", "/plugins", "/pluginconfig", "/migrate"),
    ),
    Group(
        "Your systems", "Dead letters of the webhook, and the data source.", ("/webhook", "/datasource", "/user/info")
    ),
    Group("Extensions", "The server's own shape of an API for backends.", ("/ext",)),
    Group("WuKongIM 1.2.6", "Its monitor.", ("/api", "/chart")),
    Group("Documentation", "This document.", ("/docs", "/openapi.json")),
)
OTHER = "Other"

EXAMPLES: Mapping[str, Any] = {
    "uid": "ann",
    "uids": ["ann", "bob"],
    "subscribers": ["ann", "bob"],
    "targets": ["bob"],
    "to": ["bob"],
    "login_uid": "ann",
    "from_uid": "ann",
    "token": "a-token",
    "channel_id": "team",
    "channel_type": 2,
    "payload": "eyJ0eXBlIjoxLCJjb250ZW50IjoiaGVsbG8ifQ==",
    "content": "hello",
    "name": "The team",
    "client_msg_no": "number-1",
    "message_id": 1,
    "message_ids": [1],
    "message_seq": 1,
    "last_message_seq": 1,
    "message_seqs": [1],
    "msg_count": 10,
    "limit": 10,
    "stream_no": "number-1",
    "event_id": "event-1",
    "event_type": "stream.delta",
    "type": "___TextMessageContent",
    "ips": ["203.0.113.7"],
    "conn_id": 1,
    "slot": 0,
    "node_id": 1,
    "plugin_no": "assistant",
    "username": "admin",
    "password": "a password",
}
"""By the name of the member; for each kind of value that it has only there."""
_WELCOME = frozenset(
    "channel_type channels client_msg_no event from_uid limit login_uid msg_count name slot subscribers uids".split()
)
"""What an example has although it may be left out."""
_KINDS = {str: "string", int: "integer", list: "array"}


def group_of(path: str) -> str:
    """Return the name of the group of an endpoint."""
    found = [(len(prefix), group.name) for group in GROUPS for prefix in group.prefixes if _is_below(path, prefix)]
    return max(found, default=(0, OTHER))[1]


def _is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(f"{prefix}/")


def with_examples(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a request with examples of the members that are known by name."""
    properties = {name: _member(name, each) for name, each in schema.get("properties", {}).items()}
    choices = [with_examples(each) for each in schema.get("anyOf", ())]
    items = {"items": with_examples(schema["items"])} if "items" in schema else {}
    return schema | items | ({"properties": properties} if properties else {}) | ({"anyOf": choices} if choices else {})


def _member(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    known = known_example(name, schema)
    return with_examples(schema) if known is None else {**schema, "examples": [known]}


def known_example(name: str, schema: dict[str, Any]) -> Any:
    """Return the example of a member by its name, None if there is none of its kind."""
    example = EXAMPLES.get(name)
    return example if _KINDS.get(type(example)) == schema.get("type", "string") else None


def example_of(schema: dict[str, Any]) -> Any:
    """Return a request that fits a schema: what it must have, and what a reader expects in it."""
    if "properties" in schema:
        return {name: _value(name, schema["properties"][name]) for name in _shown(schema)}
    if "anyOf" in schema:
        return example_of(schema["anyOf"][0])
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "array":
            return ["ann", "bob"] if schema["items"].get("type") == "string" else [example_of(schema["items"])]
        case "integer":
            return max(schema.get("minimum", 0), 1)
        case _:
            return "text"


def _value(name: str, schema: dict[str, Any]) -> Any:
    known = known_example(name, schema)
    return example_of(schema) if known is None else known


def _shown(schema: dict[str, Any]) -> Iterator[str]:
    """Yield the members of an example: of those that replace one another the first."""
    choices = [[each["required"][0] for each in choice["anyOf"]] for choice in schema.get("allOf", ())]
    needed = {*schema.get("required", ()), *(names[0] for names in choices)}
    replaced = {name for names in choices for name in names[1:]}
    aliases = replaced | ({"uids"} if "subscribers" in schema["properties"] else set())
    return (name for name in schema["properties"] if name in needed or (name in _WELCOME and name not in aliases))
