"""What the quick ways of the API take, the long ways take for the same; all else is left to them."""

import base64
import json
import socket
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.hotpaths import compiled
from triolet_api._errors import ApiError
from triolet_api._fields import Rules, read_object
from triolet_api._parser import Parser, TooLong
from triolet_api._service import load
from triolet_api.routes import _quick
from triolet_api.routes._history import SyncBody
from triolet_api.routes._send import SendBody, check_target

MOST = 100
PATHS = st.sampled_from(
    ["/a", "/message/send", "/a/b_c-d?x=1&y", "/a?", "/%61", "a", "http://h/a", "/a#b", "*", "//a", "/ü"]
)
NAMES = st.sampled_from(["Host", "X-A", "content-type", "token", "Authorization", "x_y", "x y", "", "é", "X:"])
VALUES = st.sampled_from(["a", "a b", " a", "a ", "", "\ta", "é", "a\x01", "x" * 40, "a: b", "\x0ca"])
SPECIAL = st.sampled_from(
    [
        "Connection: close",
        "Connection: keep-alive",
        "connection: Keep-Alive, x",
        "Transfer-Encoding: chunked",
        "Expect: 100-continue",
        "Upgrade: websocket",
        "Content-Length: 3",
        "Content-Length: +3",
        "Content-Length: 0x3",
        "Content-Length: ",
        "Content-Length : 3",
        " folded: a",
    ]
)
HEADERS = st.lists(st.one_of(st.builds(lambda name, value: f"{name}: {value}", NAMES, VALUES), SPECIAL), max_size=5)
ENDS = st.sampled_from(["\r\n", "\r\n", "\r\n", "\n", "\r"])


@pytest.fixture(scope="module")
def fast() -> Any:
    return compiled()


def received(fast: Any, data: bytes, path: str = "/a") -> tuple[list[Any], bytes]:
    """Return the plain requests to a path that are taken from a socket, and what is left."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        found = fast.receive_requests(ours.fileno(), 1000, {path: None}, MOST)
    assert found is not None
    assert found[2] == len(data)
    return found[0], found[1]


def by_httptools(data: bytes) -> list[tuple[str, bytes, dict[str, str], bytes, bool]]:
    """Return the whole requests in `data`."""
    parser = Parser(MOST)
    try:
        parser.feed(data)
    except TooLong:
        return []
    found: list[Any] = []
    for request in parser.whole:
        assert not hasattr(request, "peer")
        raw, query = request.target
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
        found.append((raw.decode(), query, headers, bytes(request.body), request.keep_alive))
    return found


@given(
    PATHS, HEADERS, st.binary(max_size=130), st.sampled_from([0, 0, 0, 1, -1]), ENDS, st.sampled_from(["1.1", "1.0"])
)
@example("/a", ["Host: x"], b"", 0, "\r\n", "1.1")
def test_a_plain_request_is_what_httptools_makes_of_it(
    fast: Any, path: str, headers: list[str], body: bytes, off: int, end: str, version: str
) -> None:
    lines = [f"POST {path} HTTP/{version}", *headers, f"Content-Length: {len(body) + off}"]
    data = end.join([*lines, "", ""]).encode() + body
    requests, rest = received(fast, data, path.partition("?")[0])
    if not requests:
        assert rest == data
        return
    assert len(rest) == max(-off, 0)
    assert by_httptools(data[: len(data) - len(rest)]) == [(*requests[0], True)]


@given(st.binary(min_size=1, max_size=60))
def test_no_bytes_are_too_strange(fast: Any, data: bytes) -> None:
    assert received(fast, data) == ([], data)


@pytest.mark.parametrize("count", [1, 3])
def test_plain_requests_are_taken_one_after_the_other(fast: Any, count: int) -> None:
    one = b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\n{}"
    headers = {"host": "x", "connection": "Keep-Alive", "content-length": "2"}
    assert received(fast, one * count + one[:-1]) == ([("/a", b"b=c", headers, b"{}")] * count, one[:-1])


def test_requests_to_other_paths_are_left(fast: Any) -> None:
    one, other = (b"POST %b HTTP/1.1\r\nContent-Length: 0\r\n\r\n" % path for path in (b"/a", b"/b"))
    assert received(fast, one + other + one) == ([("/a", b"", {"content-length": "0"}, b"")], other + one)


def test_a_quiet_socket_and_one_that_ended_are_told_apart(fast: Any) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        assert fast.receive_requests(ours.fileno(), 100, {}, MOST) is None
        theirs.close()
        assert fast.receive_requests(ours.fileno(), 100, {}, MOST) == ([], b"", 0)


@pytest.mark.parametrize("length", ["101", "9999999999", "4294967299", "18446744073709551619"])
def test_long_bodies_are_left_to_the_parser_that_refuses_them(fast: Any, length: str) -> None:
    head = f"POST /a HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode()
    assert received(fast, head + bytes(200)) == ([], head + bytes(200))


texts = st.one_of(
    st.sampled_from(["a", "", " ", "b@c", "#", "&", "\0", "é" * 128, "x" * 129, "x" * 600, "\ud800", "g"]),
    st.text(max_size=5),
)
numbers = st.sampled_from(
    [0, 1, 2, 5, 7, 255, 256, -1, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**70, 1.0, 1.5, "1", "", True, None]
)
payloads = st.one_of(
    st.binary(max_size=20).map(lambda data: base64.b64encode(data).decode()),
    st.text("ABab+/=-_ \n", max_size=9),
    st.sampled_from([None, [1, 2], 5, "ab==", "a===", "aGVsbG9="]),
)
flags = st.sampled_from([0, 1, 2, -1, True, False, "1", "", None, 1.0])
headers = st.one_of(
    st.none(),
    st.dictionaries(st.sampled_from(["no_persist", "red_dot", "sync_once", "Red_Dot", "x"]), flags),
    st.just(5),
)


def members(**kinds: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """JSON objects with some of these members, and now and then one that is not expected or in capitals."""
    optional = {**kinds, "extra": texts, next(iter(kinds)).upper(): texts}
    return st.fixed_dictionaries({}, optional=optional).map(lambda value: json.dumps(value).encode())


sends = members(
    channel_id=texts,
    channel_type=numbers,
    payload=payloads,
    from_uid=texts,
    client_msg_no=texts,
    header=headers,
    setting=numbers,
    expire=numbers,
    topic=texts,
    subscribers=st.sampled_from([[], ["a"], None]),
    stream_no=texts,
)
pages = members(
    login_uid=texts,
    channel_id=texts,
    channel_type=numbers,
    start_message_seq=numbers,
    end_message_seq=numbers,
    limit=numbers,
    pull_mode=numbers,
    event_summary_mode=texts,
    reverse=flags,
)
plain_send = st.fixed_dictionaries(
    {"channel_id": texts, "channel_type": st.sampled_from([1, 2]), "payload": payloads},
    optional={"from_uid": texts, "client_msg_no": texts, "header": headers, "topic": texts, "expire": numbers},
).map(lambda value: json.dumps(value).encode())
strange = st.one_of(
    st.binary(max_size=20),
    st.sampled_from(
        [
            b'{"channel_id":"a","channel_type":1,"payload":"aGk=","payload":"aGVsbG8="}',
            b'{"channel_id":"a","channel_type":1,"payload":"aGk="} ',
            b'{"channel_id":"a","channel_type":1,"payload":"aGk="}x',
            b'{"channel_id":"\xff","channel_type":1,"payload":"aGk="}',
            b'\xef\xbb\xbf{"channel_id":"a","channel_type":1,"payload":"aGk="}',
            '{"channel_id":"a","channel_type":1,"payload":"aGk="}'.encode("utf-16"),
            b'{"channel_id":"a","channel_type":01,"payload":"aGk="}',
            b"[" * 100_000,
            b"null",
            b"",
        ]
    ),
)


def read_slowly(cls: type[Any], body: bytes) -> Any:
    try:
        return read_object(cls, load(body), Rules())
    except ApiError as exc:
        pytest.fail(f"taken, and it is to be refused: {exc.message}")


@given(st.one_of(sends, plain_send, strange))
def test_a_plain_send_is_read_as_the_declared_fields_are(body: bytes) -> None:
    form = _quick.read_send(body)
    flags = None if form is None else _quick.flags_of(form.header)
    if form is None or flags is None:
        return
    expected: SendBody = read_slowly(SendBody, body)
    check_target(expected.channel_id, expected.channel_type, expected.from_uid)
    assert not (expected.subscribers)
    assert not (expected.stream_no)
    assert not (expected.is_stream)
    assert (form.channel_id, form.channel_type, form.payload) == (
        expected.channel_id,
        expected.channel_type,
        expected.payload,
    )
    assert (form.from_uid or "", form.client_msg_no, flags) == (
        expected.from_uid,
        expected.client_msg_no,
        expected.header.flags,
    )
    assert (form.setting, form.expire, form.topic) == (expected.setting, expected.expire, expected.topic)
    given = json.loads(body)
    assert dict(form.noted()) == {
        name: given[name] for name in ("channel_id", "channel_type", "from_uid") if name in given
    }


@given(st.one_of(pages, strange))
def test_a_plain_question_for_history_is_read_as_the_declared_fields_are(body: bytes) -> None:
    form = _quick.read_page(body)
    if form is None:
        return
    expected: SyncBody = read_slowly(SyncBody, body)
    assert not expected.is_limao
    assert expected.event_summary_mode == "basic"
    for name in (
        "login_uid",
        "channel_id",
        "channel_type",
        "start_message_seq",
        "end_message_seq",
        "limit",
        "pull_mode",
    ):
        assert getattr(form, name) == getattr(expected, name)


def test_most_requests_are_plain() -> None:
    """What backends send in the main; the tests above hold if nothing is taken at all."""
    assert _quick.read_send(b'{"from_uid":"a","channel_id":"b","channel_type":1,"payload":"aGk="}') is not None
    assert _quick.read_send(
        b'{"header":{"no_persist":0,"red_dot":1,"sync_once":0},"client_msg_no":"n","from_uid":"a","channel_id":"g",'
        b'"channel_type":2,"expire":60,"payload":"aGk="}'
    )
    assert _quick.read_page(
        b'{"login_uid":"a","channel_id":"g","channel_type":2,"start_message_seq":0,"end_message_seq":0,"limit":50,'
        b'"pull_mode":1}'
    )
