"""`api.server: hypercorn`: what Hypercorn does differently from the server's own HTTP."""

from pathlib import Path

import trio
import trio.testing

from tests.integration.api.support import api_in


async def test_a_connection_serves_on_after_an_answer_that_came_before_its_request(tmp_path: Path) -> None:
    """The path is unknown, which the server says before the body has come."""
    async with api_in(tmp_path, server="hypercorn") as api:
        host, port = str(api.http.base_url.host), api.http.base_url.port or 0
        async with await trio.open_tcp_stream(host, port) as stream:
            await stream.send_all(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n")
            assert (await read_until(stream, b"404 page not found")).startswith(b"HTTP/1.1 404 ")
            await trio.testing.wait_all_tasks_blocked()
            await stream.send_all(b"{}")
            await stream.send_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await read_until(stream, b'{"status":"ok"}')).startswith(b"HTTP/1.1 200 ")


async def read_until(stream: trio.SocketStream, end: bytes) -> bytes:
    read = b""
    while end not in read:
        part = await stream.receive_some()
        assert part, read
        read += part
    return read
