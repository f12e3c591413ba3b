"""What the client asks the HTTP API, and what it makes of the answers."""

import json
from typing import Any

import httpx
import pytest

from triolet_client import Api, ApiError, ApiUnavailable, Channel, text_of

ROW = {
    "header": {"no_persist": 0, "red_dot": 1, "sync_once": 0},
    "setting": 2,
    "message_id": 7,
    "client_msg_no": "n1",
    "message_seq": 3,
    "from_uid": "bob",
    "channel_id": "ann",
    "channel_type": 1,
    "timestamp": 1700000000,
    "payload": "aGk=",
}


class Server:
    """Answers every request with one thing, and keeps what it was asked."""

    def __init__(self, answer: Any, status: int = 200) -> None:
        self.asked: list[tuple[str, Any]] = []
        self._answer = answer
        self._status = status

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((request.url.path, json.loads(request.content)))
        if isinstance(self._answer, bytes):
            return httpx.Response(self._status, content=self._answer)
        return httpx.Response(self._status, json=self._answer)

    def api(self, uid: str = "ann") -> Api:
        return Api(httpx.AsyncClient(transport=httpx.MockTransport(self.handle), base_url="http://api"), uid)


async def test_a_message_is_shown_in_the_channel_as_its_reader_sees_it() -> None:
    """http-api.md, section 3.4: the API names the party that is not the sender."""
    [mine] = (await Server({"messages": [ROW], "more": 1}).api("ann").newer(Channel("bob"), 1, 0, 10)).messages
    [theirs] = (await Server({"messages": [ROW]}).api("bob").newer(Channel("ann"), 1, 0, 10)).messages
    assert (mine.channel, theirs.channel) == (Channel("bob"), Channel("ann"))
    assert (mine.payload, mine.flags, mine.seq, mine.is_stream, mine.is_caught_up) == (b"hi", 2, 3, True, True)


async def test_a_message_of_the_system_is_in_the_systems_channel() -> None:
    row = {**ROW, "from_uid": ""}
    [found] = (await Server({"messages": [row]}).api().newer(Channel("____system"), 1, 0, 10)).messages
    assert (found.channel, found.from_uid) == (Channel("____system"), "")


async def test_pages_are_asked_for_upwards_and_downwards() -> None:
    server = Server({"messages": [], "more": 0})
    await server.api().newer(Channel.group("g"), 5, 9, 2)
    await server.api().older(Channel.group("g"), 4, 2)
    expected = {"login_uid": "ann", "channel_id": "g", "channel_type": 2, "limit": 2}
    assert [body for _, body in server.asked] == [
        {**expected, "start_message_seq": 5, "end_message_seq": 9, "pull_mode": 1},
        {**expected, "start_message_seq": 4, "end_message_seq": 0, "pull_mode": 0},
    ]


async def test_ids_that_would_break_the_list_are_left_out_of_it() -> None:
    """What the client holds is `id:type:seq` joined by bars; a channel that is left out is merely told again."""
    server = Server([])
    await server.api().conversations({Channel("a|b"): 1, Channel("c:d"): 2, Channel("e"): 3, Channel.group("g"): 4})
    [(path, body)] = server.asked
    assert (path, body["last_msg_seqs"]) == ("/conversation/sync", "e:1:3|g:2:4")


async def test_commands_are_commands_whatever_their_header_says() -> None:
    [found] = await Server([ROW]).api().commands(10)
    assert found.is_command


@pytest.mark.parametrize("answer", [[], {"status": 200}])
async def test_nobody_online_is_an_empty_list(answer: Any) -> None:
    """http-api.md, section 4.3: the reference answers nobody with an object."""
    assert await Server(answer).api().online(["bob"]) == []


@pytest.mark.parametrize("status", [429, 500, 503, 507])
async def test_who_cannot_answer_now_is_asked_again(status: int) -> None:
    with pytest.raises(ApiUnavailable, match=f"status {status}"):
        await Server({}, status).api().mark_read(Channel("bob"))


@pytest.mark.parametrize(
    ("answer", "status", "expected", "text"),
    [
        ({"msg": "no", "status": 400}, 400, 400, "no"),
        (b"", 401, 401, ""),
        (b"<html>", 404, 404, ""),
        ({"status": 19}, 200, 19, ""),
        (b"<html>", 200, 502, "the answer is no JSON"),
    ],
)
async def test_a_refusal_says_what_the_server_says(answer: Any, status: int, expected: int, text: str) -> None:
    with pytest.raises(ApiError) as caught:
        await Server(answer, status).api().mark_read(Channel("bob"))
    assert (caught.value.path, caught.value.status, caught.value.text) == ("/conversations/clearUnread", expected, text)


@pytest.mark.parametrize("answer", [[{}], ["x"], [{**ROW, "payload": "?"}], [None]])
async def test_an_answer_that_was_not_promised_is_an_error(answer: Any) -> None:
    for ask in (lambda api: api.conversations(), lambda api: api.commands(1), lambda api: api.online(["bob"])):
        with pytest.raises(ApiError, match="not what the API promises"):
            await ask(Server(answer).api())
    with pytest.raises(ApiError, match="not what the API promises"):
        await Server(answer).api().newer(Channel("bob"), 1, 0, 1)
    with pytest.raises(ApiError, match="not what the API promises"):
        await Server(answer).api().lanes(Channel("bob"), "n1")


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    api = Api(httpx.AsyncClient(transport=httpx.MockTransport(fail), base_url="http://api"), "ann")
    with pytest.raises(ApiUnavailable, match="ConnectError"):
        await api.conversations()


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b'{"type":1,"content":"hi"}', "hi"),
        (b'{"type":2}', '{"type":2}'),
        (b'{"content":5}', '{"content":5}'),
        (b"plain", "plain"),
        (b"5", "5"),
        (b"\xff", "\ufffd"),
        (b"[" * 100_000, "[" * 100_000),
    ],
)
def test_the_text_of_a_payload(payload: bytes, text: str) -> None:
    assert text_of(payload) == text
