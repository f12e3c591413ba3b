"""What is wrong is refused with a message, changes nothing and hurts nobody: http-api-errors.md, section 6.

One server has all of it. Each POST endpoint has a body that it takes (`VALID`); every field of it is then made wrong in
each way that its kind can be, and the good body must still be taken afterwards.
"""

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.api.conftest import MAX_BODY_BYTES, Shared
from tests.integration.api.support import HELLO
from triolet_api import _fields as fields
from triolet_api._fields import fields_of
from triolet_api.routes import ROUTES
from triolet_api.routes._send import BatchBody

_GROUP = {"channel_id": "negative", "channel_type": 2}
_UIDS = {**_GROUP, "uids": ["a", "b"]}
_MEMBERS = {**_GROUP, "subscribers": ["a", "b"]}
_ONE = {**_GROUP, "login_uid": "a", "message_id": 12345}
_STREAM = {**_GROUP, "from_uid": "a", "payload": HELLO}
_STREAM_END = {**_GROUP, "stream_no": "n1"}
_MOVE = {"migrate_from": 1001, "migrate_to": 1002}
_EVENTS = {**_GROUP, "client_msg_no": "n1"}
_EVENT = {**_EVENTS, "event_id": "e1", "event_type": "custom", "payload": {"k": 1}, "from_uid": "a"}
_MANY = {"to": ["a", "b"], "payload": HELLO, "from_uid": "x"}
_TARGETS = {"uid": "a", "targets": ["b"]}
_LOGIN = {"username": "nobody", "password": "x"}
_LETTERS = {"ids": [1, 2]}
_TEMPORARY = {"channel_id": "t", "uids": ["a"]}

VALID: dict[str, Any] = {
    "/user/token": {"uid": "a", "token": "t", "device_flag": 1, "device_level": 1},
    "/user/device_quit": {"uid": "a", "device_flag": 1},
    "/user/onlinestatus": ["a"],
    "/user/systemuids_add": {"uids": ["s"]},
    "/user/systemuids_remove": {"uids": ["s"]},
    "/systemuids_add": {"uids": ["s"]},
    "/systemuids_remove": {"uids": ["s"]},
    "/user/systemuids_add_to_cache": {"uids": ["s"]},
    "/user/systemuids_remove_from_cache": {"uids": ["s"]},
    "/user/update_plugin_no": {"uid": "a", "plugin_no": "p"},
    "/route/batch": ["a"],
    "/conn/remove": {"uid": "a", "conn_id": 12345, "node_id": 1001},
    "/conn/kick": {"uid": "a", "conn_id": 12345, "node_id": 1001},
    "/system/ip/blacklist_add": {"ips": ["192.0.2.1"]},
    "/system/ip/blacklist_remove": {"ips": ["192.0.2.1"]},
    "/channel": {**_MEMBERS, "large": 1, "reset": 1, "name": "n", "avatar": "a", "remark": "r", "extra": {"k": 1}},
    "/channel/info": {**_GROUP, "large": 1, "send_ban": 0, "name": "n", "extra": [1]},
    "/channel/delete": {"channel_id": "gone", "channel_type": 2},
    "/channel/subscriber_add": {**_MEMBERS, "reset": 0},
    "/channel/subscriber_set": _MEMBERS,
    "/channel/subscriber_remove": _MEMBERS,
    "/channel/subscriber_remove_all": _GROUP,
    "/tmpchannel/subscriber_set": _TEMPORARY,
    "/channel/retention": {**_GROUP, "keep_seconds": 60, "keep_count": 5},
    "/channel/blacklist_add": _UIDS,
    "/channel/blacklist_set": _UIDS,
    "/channel/blacklist_remove": _UIDS,
    "/channel/blacklist_remove_all": _GROUP,
    "/channel/whitelist_add": _UIDS,
    "/channel/whitelist_set": _UIDS,
    "/channel/whitelist_remove": _UIDS,
    "/channel/whitelist_remove_all": _GROUP,
    "/message/send": {**_STREAM, "header": {"red_dot": 1}, "expire": 9, "setting": 1, "topic": "t"},
    "/message/sendbatch": {"from_uid": "a", "subscribers": ["b"], "payload": HELLO, "header": {"red_dot": 1}},
    "/channel/messagesync": {**_GROUP, "login_uid": "a", "start_message_seq": 1, "end_message_seq": 2, "limit": 3},
    "/messages": {**_GROUP, "login_uid": "a", "message_seqs": [1], "message_ids": [2], "client_msg_nos": ["n"]},
    "/message": _ONE,
    "/message/sync": {"uid": "a", "message_seq": 0, "limit": 5},
    "/message/syncack": {"uid": "a", "last_message_seq": 1},
    "/message/event": _EVENT,
    "/message/eventsync": {**_EVENTS, "from_msg_event_seq": 0, "limit": 5},
    "/cluster/message/eventsync": {**_EVENTS, "from_msg_event_seq": 0, "limit": 5},
    "/stream": {**_STREAM, "client_msg_no": "n1"},
    "/stream/chunk": {**_STREAM_END, "from_uid": "a", "content": "piece", "chunk_id": 1, "end": 0},
    "/streammessage/start": {**_STREAM, "client_msg_no": "n1"},
    "/stream/start": {**_STREAM, "client_msg_no": "n1"},
    "/stream/open": {**_STREAM, "client_msg_no": "n1"},
    "/streammessage/end": _STREAM_END,
    "/stream/end": _STREAM_END,
    "/stream/close": _STREAM_END,
    "/event": {**_EVENTS, "from_uid": "a", "event": {"id": "1", "type": "custom", "timestamp": 5, "data": "x"}},
    "/message/recall": _ONE,
    "/message/edit": {**_ONE, "payload": HELLO},
    "/message/delete": {**_GROUP, "login_uid": "a", "message_seqs": [1], "message_ids": [12345]},
    "/conversation/sync": {"uid": "a", "version": 0, "last_msg_seqs": "b:1:2", "msg_count": 1, "larges": [_GROUP]},
    "/conversation/syncMessages": {"uid": "a", "channels": [{**_GROUP, "last_msg_seq": 1}], "msg_count": 5},
    "/conversation/syncByChannels": {"uid": "a", "channels": [_GROUP], "msg_count": 5},
    "/conversation/channels": {"uid": "a"},
    "/conversations/clearUnread": {**_GROUP, "uid": "a", "message_seq": 1},
    "/conversations/setUnread": {**_GROUP, "uid": "a", "unread": 1},
    "/conversations/delete": {**_GROUP, "uid": "a"},
    "/manager/login": _LOGIN,
    "/tag/remove": {**_GROUP, "tag_key": "k"},
    "/migrate/topics": {"slot": 1},
    "/migrate/allusers": None,
    "/migrate/allchannels": None,
    "/migrate/channel": _GROUP,
    "/pluginconfig/{plugin}": {"config": {"k": 1}, "node_id": 1001},
    "/plugin/bind": {"plugin_no": "p", "uid": "a"},
    "/plugin/unbind": {"plugin_no": "p", "uid": "a"},
    "/plugin/uninstall": {"plugin_no": "p", "node_id": 1001},
    "/plugins/wk.plugin.search/usersearch": {"uid": "a", "keyword": "hello", "limit": 5, "page": 1},
    "/cluster/slots/{id}/migrate": _MOVE,
    "/cluster/slots/{id}/election": None,
    "/cluster/channels/{channel_id}/{channel_type}/start": None,
    "/cluster/channels/{channel_id}/{channel_type}/stop": None,
    "/cluster/channels/{channel_id}/{channel_type}/migrate": _MOVE,
    "/cluster/channel/status": {"channels": [_GROUP]},
    "/webhook/dead/resend": _LETTERS,
    "/webhook/dead/drop": _LETTERS,
    "/datasource/invalidate": _GROUP,
    "/ext/v1/users/ban": {"uid": "banned"},
    "/ext/v1/users/unban": {"uid": "banned"},
    "/ext/v1/users/blacklist/add": _TARGETS,
    "/ext/v1/users/blacklist/remove": _TARGETS,
    "/ext/v1/users/whitelist/add": _TARGETS,
    "/ext/v1/users/whitelist/remove": _TARGETS,
    "/ext/v1/users/status": {"uids": ["a", "b"]},
    "/ext/v1/users/subscriptions": {**_TARGETS, "ttl_s": 60},
    "/ext/v1/users/subscriptions/remove": _TARGETS,
    "/ext/v1/messages/private": _MANY,
    "/ext/v1/messages/group": _MANY,
    "/ext/v1/messages/recall": {**_GROUP, "uid": "a", "message_id": 12345},
    "/ext/v1/messages/modify": {**_GROUP, "uid": "a", "message_id": 12345, "payload": HELLO},
    "/ext/v1/messages/delete": {**_GROUP, "uid": "a", "message_ids": [12345], "message_seqs": [1]},
    "/ext/v1/channels/retention": {**_GROUP, "keep_seconds": 60, "keep_count": 5, "reset": 0},
}
REFUSED = {
    "/manager/login",
    "/message/recall",
    "/message/edit",
    "/pluginconfig/{plugin}",
    "/plugin/uninstall",
    "/cluster/slots/{id}/migrate",
    "/cluster/channels/{channel_id}/{channel_type}/migrate",
    "/webhook/dead/resend",
    "/webhook/dead/drop",
    "/datasource/invalidate",
    "/ext/v1/messages/recall",
    "/ext/v1/messages/modify",
}
"""Endpoints whose good body is refused here: the message, the user, the plugin or a second node does not exist."""
ENDED = {"/stream/chunk", "/streammessage/end", "/stream/end", "/stream/close"}
"""Endpoints of a stream that another endpoint's good body may have ended."""

POSTS = {route.path: route for route in ROUTES if route.method == "POST"}
LONG = "x" * 70_000
MANY = [f"user{number}" for number in range(100_000)]


def _wrong_texts(kind: fields.Text) -> Iterator[Any]:
    yield from (1, {}, "half \ud800")
    if kind.missing is not None:
        yield "  "
    if not kind.is_free:
        yield from (LONG, "a\0b")
    if kind.special is not None:
        yield "a@b"


def wrong_values(kind: Any) -> Iterator[Any]:
    """Yield values that a field of this kind does not take; tests/unit/api/test_fields.py has more of them."""
    match kind:
        case fields.Text():
            yield from _wrong_texts(kind)
        case fields.Number():
            yield from (1.5, "x", {}, 2**64, kind.low - 1, kind.high + 1)
        case fields.ChannelType():
            yield from (1e3, "x", [], -1, 256, 2**63)
            if not kind.is_optional:
                yield 0
        case fields.Flag():
            yield from (2, -1, "x", {})
        case fields.Texts():
            yield from ("a", {}, [1], [None], ["half \ud800"], [LONG], ["a\0b"], MANY)
            if kind.missing is not None:
                yield from ([], ["", " "])
        case fields.Numbers():
            yield from (1, ["x"], [1.5], [None], [kind.low - 1], [kind.high + 1], list(range(1, 10_002)))
        case fields.Payload():
            yield from (1, {}, "!", "aGk", "-_-_", [256])
        case fields.Anything():
            yield from ("half \ud800", {"half \ud800": 1}, [float("nan")])
        case fields.Object():
            yield from (1, "x", [], *_wrong_members(kind.of, {}))
        case fields.Objects():
            yield from (1, {}, [1], [None], [{"channel_id": LONG}])
        case _:
            raise AssertionError(kind)


def _wrong_members(cls: type[Any], valid: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for _, name, kind in fields_of(cls):
        for value in wrong_values(kind):
            yield {**valid, name: value}
        if kind.is_required and name in valid:
            yield {key: value for key, value in valid.items() if key != name}


def bodies(path: str) -> Iterator[bytes]:
    """Yield what an endpoint is to refuse."""
    route, valid = POSTS[path], VALID[path]
    yield from (b"", b"{", b"nul", b"{}x", b"[" * 100_000, b'{"a":"\xff\xfe"}', b'{"a":1}{', b"5", b'"x"', b"true")
    if path == "/message/sendbatch":
        cls: type[Any] | None = BatchBody
    elif isinstance(valid, list):
        cls = None
        yield from (_json(value) for value in wrong_values(fields.Texts()) if not isinstance(value, dict))
        yield from (_json({"uids": value}) for value in wrong_values(fields.Texts()))
    else:
        cls = route.body
        yield b"[]"
    if cls is not None:
        for value in _wrong_members(cls, valid):
            yield _json(value)
            if len(value) == 1 and value.keys() <= valid.keys():
                yield _json({name.upper(): each for name, each in value.items()})


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def path_of(path: str) -> str:
    """Return a path with its variable parts filled in."""
    filled = path.replace("{channel_type}", "2").replace("{id}", "3")
    return re.sub(r"{(\w+)}", "negative", filled)


def test_every_post_endpoint_is_in_the_table() -> None:
    assert POSTS.keys() == VALID.keys()


@pytest.mark.parametrize("path", [path for path in POSTS if VALID[path] is not None])
def test_what_is_wrong_is_refused(shared: Shared, path: str) -> None:
    """Wrong types, missing fields, numbers out of range, 100,000 uids, texts that are none: 4xx, `msg`, no change."""
    before, taken = shared.commits(), []
    for body in bodies(path):
        answer = shared.ask("POST", path_of(path), body)
        said = answer.json() if answer.headers["content-type"].startswith("application/json") else {}
        if not (400 <= answer.status_code < 500 and said.get("msg") and said.get("status") and said.get("code")):
            taken.append((body[:200], answer.status_code, answer.text[:100]))
    assert taken == []
    assert shared.commits() == before
    assert shared.http.get("/health").json() == {"status": "ok"}


@pytest.mark.parametrize("path", POSTS)
def test_a_good_body_is_taken_and_a_long_one_is_not(shared: Shared, path: str) -> None:
    """Unknown fields, any Content-Type and capital letters are harmless; a body over the limit is 413."""
    good = VALID[path]
    answer = shared.ask("POST", path_of(path), good)
    assert answer.status_code == 200 or path in REFUSED | ENDED, answer.text
    if isinstance(good, dict):
        odd = json.dumps({**{name.upper(): each for name, each in good.items()}, "unknown": {"x": [1]}})
        answer = shared.http.post(path_of(path), content=odd, headers={"Content-Type": "text/plain"})
        assert answer.status_code == 200 or path in REFUSED | ENDED, answer.text
    before = shared.commits()
    head = f"POST {path_of(path)} HTTP/1.1\r\nHost: x\r\nContent-Length: {MAX_BODY_BYTES + 1}\r\n\r\n"
    with socket.create_connection((shared.http.base_url.host, shared.http.base_url.port or 0), 10) as peer:
        peer.sendall(head.encode() + b"{")
        said = peer.recv(65536)
    assert said.startswith(b"HTTP/1.1 413 ")
    assert shared.commits() == before
    assert shared.http.get("/health").json() == {"status": "ok"}


GETS = [route for route in ROUTES if route.method == "GET" and not route.is_page]
ODD = (
    "-1",
    "1.5",
    "abc",
    str(2**63),
    str(2**64),
    "9" * 5000,
    "%00",
    "%FF",
    "%ED%A0%80",
    "x" * 600,
    "a@b",
    "[]",
    "",
    " ",
)


@pytest.mark.parametrize("path", [route.path for route in GETS])
def test_an_odd_query_hurts_nobody(shared: Shared, path: str) -> None:
    """Numbers that are none count as absent, texts that cannot be are refused; nothing is a 500."""
    before, route = shared.commits(), next(each for each in GETS if each.path == path)
    names = [name for _, name, _ in fields_of(route.query)] if route.query is not None else ["anything"]
    for name in names:
        for value in ODD:
            answer = shared.ask("GET", f"{path_of(path)}?{name}={value}&{name}=2")
            assert answer.status_code in (200, 400, 404), (name, value[:20], answer.text)
    everything = "&".join(f"{name}={value}" for name in names for value in ("-1", "abc"))
    assert shared.ask("GET", f"{path_of(path)}?{everything}").status_code in (200, 400, 404)
    assert shared.commits() == before


@pytest.mark.parametrize("path", [route.path for route in ROUTES if "{" in route.path and route.method != "ANY"])
def test_an_odd_path_hurts_nobody(shared: Shared, path: str) -> None:
    route = next(each for each in ROUTES if each.path == path)
    for value in ("-1", "1.5", str(2**63), "9" * 5000, "%00", "%FF", "%2F", "%2e%2e%2fx", "x" * 600, "a@b", "%20"):
        answer = shared.ask(route.method, re.sub(r"{\w+}", value, path), {} if route.method == "POST" else None)
        assert answer.status_code in (200, 301, 307, 308, 400, 404), (value[:20], answer.text)


_WITH_PAYLOAD = [
    path for path, body in VALID.items() if isinstance(body, dict) and "payload" in body and path != "/message/event"
]


@pytest.mark.parametrize("path", _WITH_PAYLOAD)
def test_a_payload_over_the_limit_is_refused(shared: Shared, path: str) -> None:
    """message.maxPayloadBytes, 1 MiB."""
    before = shared.commits()
    answer = shared.ask("POST", path_of(path), {**VALID[path], "payload": "YWFh" * 350_000})
    assert answer.json()["msg"] == "payload: 1050000 > 1048576 (message.maxPayloadBytes)"
    assert (answer.status_code, shared.commits()) == (400, before)
