"""The hot endpoints: the quick way and the long way answer alike, whatever the connection does meanwhile."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.integration.api.support import GROUP, Api, api_in, message

SEND = "/message/send"
SYNC = "/channel/messagesync"
HISTORY = {"login_uid": "ann", "channel_id": "g", "channel_type": 2}
BODIES: list[tuple[str, Any]] = [
    (SEND, message("bob")),
    (SEND, message("g", 2, client_msg_no='q"é\\')),
    (SEND, message("g", 2, header={"no_persist": 1, "red_dot": True})),
    (SEND, message("g", 2, header={"sync_once": 1})),
    (SEND, message("banned", 2)),
    (SEND, message("a@b")),
    (SEND, message("g", 0)),
    (SEND, message("g", 2, payload="")),
    (SEND, message("g", 2, payload="x" * 300)),
    (SEND, message("g", 2, from_uid="")),
    (SEND, message("g", 2, stream_no="unknown")),
    (SEND, message("g", 2, unknown={"a": [1]})),
    (SEND, [1]),
    (SEND, "{"),
    (SYNC, {**HISTORY, "limit": 2}),
    (SYNC, {**HISTORY, "limit": 2, "start_message_seq": 1, "pull_mode": 1}),
    (SYNC, {**HISTORY, "channel_id": "nobody's"}),
    (SYNC, {**HISTORY, "channel_id": " "}),
    (SYNC, {**HISTORY, "limit": "2", "reverse": 1}),
]


def request(path: str, body: Any, *lines: str, is_chunked: bool = False) -> bytes:
    """Return a request; one in pieces goes the long way."""
    text = (body if isinstance(body, str) else json.dumps(body)).encode()
    head = [f"POST {path} HTTP/1.1", "Host: x", *lines]
    if is_chunked:
        return "\r\n".join((*head, "Transfer-Encoding: chunked", "", "")).encode() + b"%x\r\n%b\r\n0\r\n\r\n" % (
            len(text),
            text,
        )
    return "\r\n".join((*head, f"Content-Length: {len(text)}", "", "")).encode() + text


async def connected(api: Api) -> trio.SocketStream:
    return await trio.open_tcp_stream(api.http.base_url.host, api.http.base_url.port or 0)


async def answers_of(stream: trio.SocketStream, count: int) -> list[bytes]:
    """Return this many whole answers, heads and all."""
    said, found = b"", []
    while len(found) < count:
        head, end, rest = said.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        if not end or length is None or len(rest) < int(length[1]):
            data = await stream.receive_some(65_536)
            assert data, said
            said += data
            continue
        size = len(head) + len(end) + int(length[1])
        found.append(said[:size])
        said = said[size:]
    assert not said
    return found


def settled(answer: bytes) -> bytes:
    """Return an answer without what is new each time."""
    answer = re.sub(rb"date: [^\r]+", b"date: D", answer)
    answer = re.sub(rb'("message_id(str)?":"?)\d{9,}', rb"\1#", answer)
    answer = re.sub(rb'"message_seq":\d+', b'"message_seq":N', answer)
    answer = re.sub(rb'"client_msg_no":"[0-9a-f]{32}0"', b'"client_msg_no":"made"', answer)
    answer = re.sub(rb'"timestamp":\d+', b'"timestamp":T', answer)
    return re.sub(rb"content-length: \d+", b"content-length: L", answer)


async def prepare(api: Api) -> None:
    await api.post("/channel", {**GROUP, "subscribers": ["ann"]})
    await api.post("/channel", {"channel_id": "banned", "channel_type": 2, "ban": 1})
    for number in range(5):
        await api.send("g", 2, client_msg_no=f"first {number}")


@pytest.mark.parametrize("profile", ["wukongim-2", "wukongim-1", "limaoim"])
async def test_both_ways_answer_alike(tmp_path: Path, profile: str) -> None:
    async with api_in(tmp_path, profile=profile) as api, await connected(api) as stream:
        await prepare(api)
        for path, body in BODIES:
            for repeats in range(2):
                await stream.send_all(request(path, body, is_chunked=bool(repeats)))
            quick, long = await answers_of(stream, 2)
            if path == SEND or b'"messages"' not in quick:
                assert settled(quick) == settled(long), body
            else:
                first, second = [json.loads(each.partition(b"\r\n\r\n")[2]) for each in (quick, long)]
                assert first == second, body


async def test_both_ways_ask_for_the_same_credentials(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"token": "secret", "users": ("reader:pw:[message:r]",), "jwt_secret": "k" * 64}
    async with api_in(tmp_path, **settings) as api, await connected(api) as stream:
        login = (await api.http.post("/manager/login", json={"username": "reader", "password": "pw"})).json()
        for line in ("X: y", "token: secret", "token: wrong", f"Authorization: Bearer {login['token']}", "token: "):
            for path, body in ((SEND, message("bob")), (SYNC, HISTORY)):
                for is_chunked in (False, True):
                    await stream.send_all(request(path, body, line, is_chunked=is_chunked))
                quick, long = await answers_of(stream, 2)
                assert settled(quick) == settled(long), line


async def test_both_ways_count_and_are_noted(tmp_path: Path) -> None:
    """api.ratePerSecond counts both; the audit log names both alike."""
    async with api_in(tmp_path, rate_per_second=2) as api, await connected(api) as stream:
        for is_chunked in (False, True, False, True):
            await stream.send_all(request(SEND, message("bob", client_msg_no="n"), is_chunked=is_chunked))
        answers = await answers_of(stream, 4)
        assert [answer[9:12] for answer in answers] == [b"200", b"200", b"429", b"429"]
    notes = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
    kept = [{name: value for name, value in note.items() if name != "at"} for note in notes]
    noted = {"who": "", "from": "127.0.0.1", "what": "POST /message/send"}
    fields = {"channel_id": "bob", "channel_type": 1, "from_uid": "ann"}
    assert kept[:2] == [{**noted, "status": 200, **fields}] * 2
    assert [note["status"] for note in kept[2:]] == [429, 429]


async def test_many_requests_at_once_are_answered_in_order(tmp_path: Path) -> None:
    """Plain ones, ones in pieces, slow ones and wrong ones in one write, more than are served in one turn."""
    async with api_in(tmp_path) as api, await connected(api) as stream:
        await prepare(api)
        asked = b""
        for number in range(40):
            asked += request(SEND, message("g", 2, client_msg_no=f"n{number}"), is_chunked=number % 3 == 0)
            asked += request(SYNC, {**HISTORY, "limit": 1}, is_chunked=number % 5 == 0)
            asked += b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" if number % 4 == 0 else request(SYNC, "{")
        await stream.send_all(asked)
        answers = await answers_of(stream, 120)
        for number in range(40):
            mine = f'"client_msg_no":"n{number}"'.encode()
            assert mine in answers[3 * number]
            assert mine in answers[3 * number + 1]
            assert (b"200 OK" if number % 4 == 0 else b"400 Bad") in answers[3 * number + 2]


async def test_a_client_that_does_not_read_gets_everything_later(tmp_path: Path) -> None:
    """Pages wait for a client that does not take them; others are served, and nothing is lost."""
    async with api_in(tmp_path) as api, await connected(api) as stream:
        await api.post("/channel", {**GROUP, "subscribers": ["ann"]})
        many = [message("g", 2, payload=base64.b64encode(bytes(3000)).decode()) for _ in range(500)]
        for _ in range(2):
            await api.post("/message/sendbatch", many)
        count = 24
        for number in range(count):
            await stream.send_all(request(SYNC, {**HISTORY, "limit": 1000}, is_chunked=number % 2 == 0))
        await api.send("g", 2)
        answers = await answers_of(stream, count)
        for answer in answers:
            assert len(json.loads(answer.partition(b"\r\n\r\n")[2])["messages"]) == 1000


async def test_a_client_that_says_no_more_gets_its_answers(tmp_path: Path) -> None:
    async with api_in(tmp_path) as api, await connected(api) as stream:
        await stream.send_all(request(SEND, message("bob")) + request(SYNC, HISTORY) + request(SEND, message("bob")))
        await stream.send_eof()
        answers = await answers_of(stream, 3)
        assert [answer[9:12] for answer in answers] == [b"200"] * 3
        assert await stream.receive_some(1) == b""


async def test_requests_may_come_in_any_pieces(tmp_path: Path) -> None:
    async with api_in(tmp_path) as api, await connected(api) as stream:
        asked = request(SEND, message("bob", client_msg_no="n")) + request(SYNC, HISTORY)
        for at in range(1, len(asked), 7):
            await stream.send_all(asked[:at])
            await api.get("/health")  # the server has seen the first piece
            await stream.send_all(asked[at:])
            first, second = await answers_of(stream, 2)
            assert b'"client_msg_no":"n"' in first
            assert b'"messages":[' in second


async def test_the_connection_ends_where_its_client_says(tmp_path: Path) -> None:
    async with api_in(tmp_path) as api, await connected(api) as stream:
        await stream.send_all(request(SEND, message("bob"), "Connection: close") + request(SEND, message("bob")))
        (answer,) = await answers_of(stream, 1)
        assert b"connection: close\r\n" in answer
        assert await stream.receive_some(1) == b""
