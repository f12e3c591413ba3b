"""HTTP itself: paths, methods, browsers, limits in time and size. http-api.md, section 3.1; both HTTP servers."""

from pathlib import Path

import httpx
import pytest
import trio

from tests.integration.api.support import HELLO, OK, Api, api_in

BOTH = pytest.mark.parametrize("server", ["own", "hypercorn"])


async def exchange(api: Api, *parts: bytes) -> bytes:
    """Write to a connection of our own and return all that comes until it is closed."""
    host, port = api.http.base_url.host, api.http.base_url.port or 0
    async with await trio.open_tcp_stream(host, port) as stream:
        said = b""
        for part in parts:
            await stream.send_all(part)
        try:
            async for data in stream:
                said += data
        except trio.BrokenResourceError:
            pass
        return said


def head(path: str, *lines: str, method: str = "POST") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: x", *lines, "", "")).encode()


@BOTH
async def test_what_does_not_exist(tmp_path: Path, server: str) -> None:
    """Unknown paths and wrong methods are 404 as text; a slash too much leads to the path without it."""
    async with api_in(tmp_path, server=server) as api:
        for method, path in (
            ("GET", "/nope"),
            ("POST", "/nope"),
            ("GET", "/message/send"),
            ("POST", "/health"),
            ("PUT", "/channel"),
            ("DELETE", "/conversation/sync"),
            ("GET", "/cluster/channels/g/2/nope"),
        ):
            answer = await api.ask(method, path)
            assert (answer.status_code, answer.text) == (404, "404 page not found"), path
            assert answer.headers["content-type"].startswith("text/plain")
            assert answer.headers["access-control-allow-origin"] == "*"
        for method, path, status in (("GET", "/health/?a=1", 301), ("POST", "/message/send/?a=1", 307)):
            answer = await api.ask(method, path)
            assert (answer.status_code, answer.headers["location"]) == (status, path.replace("/?", "?"))


@BOTH
async def test_browsers_may_ask_first(tmp_path: Path, server: str) -> None:
    """Every OPTIONS is 204, also without the managerToken; `*` is never combined with credentials."""
    async with api_in(tmp_path, server=server, token="secret") as api:
        for path in ("/channel", "/message/send", "/cluster/nodes", "/health"):
            answer = await api.ask("OPTIONS", path)
            assert (answer.status_code, answer.content) == (204, b"")
            assert answer.headers["access-control-allow-methods"] == "POST, OPTIONS, GET, PUT,DELETE,PATCH"
            allowed = answer.headers["access-control-allow-headers"].split(", ")
            assert {"Content-Type", "Authorization", "token", "X-CSRF-Token", "timestamp"} <= set(allowed)
            assert "access-control-allow-credentials" not in answer.headers
        for path in ("/user/systemuids", "/message/send"):
            refused = await api.ask("POST" if path == "/message/send" else "GET", path)
            assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "*")


@BOTH
async def test_the_kind_of_the_body_is_not_looked_at(tmp_path: Path, server: str) -> None:
    async with api_in(tmp_path, server=server) as api:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "nonsense"):
            answer = await api.ask("POST", "/user/systemuids_add", {"uids": ["a"]}, **{"Content-Type": kind})
            assert answer.json() == OK


@BOTH
async def test_a_body_over_the_limit_is_413(tmp_path: Path, server: str) -> None:
    """Whether its length is announced or not; on the hot endpoints and on the others."""
    async with api_in(tmp_path, server=server, max_body_bytes=1000) as api:
        for path in ("/message/send", "/channel"):
            answer = await api.ask("POST", path, b" " * 1001)
            assert (answer.status_code, answer.json()["status"]) == (413, 413)
            assert answer.json()["msg"]
            fits = await api.ask("POST", path, b"{" + b" " * 998 + b"}")
            assert (fits.status_code, fits.json()["status"]) == (400, 400)


async def test_a_body_in_pieces_over_the_limit_is_413(tmp_path: Path) -> None:
    """Of the own server only: Hypercorn closes as soon as it has answered, which may reset the rest of the body."""

    async def pieces() -> object:
        for _ in range(11):
            yield b" " * 100

    async with api_in(tmp_path, max_body_bytes=1000) as api:
        for path in ("/message/send", "/channel"):
            answer = await api.http.post(path, content=pieces())
            assert answer.status_code == 413


async def test_a_long_body_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    async with api_in(tmp_path, max_body_bytes=1000) as api:
        said = await exchange(api, head("/channel", "Content-Length: 1001", "Expect: 100-continue"))
        assert said.startswith(b"HTTP/1.1 413 ")
        assert said.endswith(b'{"msg":"Request Entity Too Large","status":413,"code":"request_entity_too_large"}')


async def test_what_is_no_http_is_400(tmp_path: Path) -> None:
    async with api_in(tmp_path) as api:
        for junk in (b"hello\r\n\r\n", head("/channel", "Content-Length: -1"), head("/channel", "Content-Length: 1x")):
            said = await exchange(api, junk)
            assert said.startswith(b"HTTP/1.1 400 ")
            assert said.endswith(b'{"msg":"Bad Request","status":400,"code":"bad_request"}')
        said = await exchange(api, head("/channel", f"X: {'x' * 200_000}"))
        assert said.startswith(b"HTTP/1.1 413 ")
        assert (await api.get("/health")) == {"status": "ok"}


async def test_a_slow_request_is_408(tmp_path: Path) -> None:
    """A body that does not come, and a head that comes in drops; nothing is done, and others are served meanwhile."""
    async with api_in(tmp_path, request_timeout=0.2) as api:
        before = api.server.broker.statistics().commits_total
        answers: list[bytes] = []

        async def be_slow(*parts: bytes) -> None:
            answers.append(await exchange(api, *parts))

        async with trio.open_nursery() as nursery:
            body = b'{"uid":"ann","token":"t"}'
            nursery.start_soon(be_slow, head("/user/token", f"Content-Length: {len(body)}"), body[:-1])
            nursery.start_soon(be_slow, b"POST /user/token HTTP/1.1\r\nHost: x\r\nX: ")
            assert await api.get("/health") == {"status": "ok"}
        for said in answers:
            assert said.startswith(b"HTTP/1.1 408 ")
            assert said.endswith(b'{"msg":"Request Timeout","status":408,"code":"request_timeout"}')
        assert api.server.broker.statistics().commits_total == before


async def test_requests_of_one_connection_are_answered_in_order(tmp_path: Path) -> None:
    async with api_in(tmp_path) as api:
        first = b'{"uids":["a"]}'
        said = await exchange(
            api,
            head("/user/systemuids_add", f"Content-Length: {len(first)}")
            + first
            + head("/user/systemuids", "Connection: close", method="GET"),
        )
        assert said.count(b"HTTP/1.1 200 OK\r\n") == 2
        assert said.endswith(b'["a"]')


async def test_more_connections_than_allowed_are_closed(tmp_path: Path) -> None:
    async with api_in(tmp_path, max_connections=2) as api:
        host, port = api.http.base_url.host, api.http.base_url.port or 0
        await api.get("/health")
        async with await trio.open_tcp_stream(host, port) as second, await trio.open_tcp_stream(host, port) as third:
            await second.send_all(head("/health", method="GET"))
            assert (await second.receive_some(100)).startswith(b"HTTP/1.1 200 ")
            assert await third.receive_some(1) == b""
        assert await api.get("/health") == {"status": "ok"}


async def test_a_client_that_leaves_before_its_answer_has_its_message_stored(tmp_path: Path) -> None:
    """A request that has arrived whole is carried out, whether or not somebody waits for the answer."""
    async with api_in(tmp_path) as api:
        body = b'{"channel_id":"g","channel_type":2,"from_uid":"ann","payload":"%s"}' % HELLO.encode()
        host, port = api.http.base_url.host, api.http.base_url.port or 0
        async with await trio.open_tcp_stream(host, port) as stream:
            await stream.send_all(head("/message/send", f"Content-Length: {len(body)}") + body)
        async with httpx.AsyncClient(base_url=api.http.base_url) as other:
            while not (await other.get("/channel/max_message_seq?channel_id=g&channel_type=2")).json()["message_seq"]:
                await trio.lowlevel.checkpoint()
        assert await api.seqs("g") == [1]
