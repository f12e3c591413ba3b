"""The HTTP side: one request, one answer or the reason why there is none."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import trio

from triolet_core import ConfigError
from triolet_datasource._config import DatasourceConfig
from triolet_datasource._questions import Answer, BadAnswer, Question, decode_answer

_NOT_FOUND = 404
_DECODED_ON_LOOP = 64 * 1024
"""Longest answer that is decoded on the loop (about 1 ms); longer ones are decoded in a thread."""
_KEPT_ALIVE_S = 30.0


class AskFailed(Exception):
    """There is no answer; the text says why, without anything the data source sent."""


class Client:
    """Asks the data source. Made by `open_client`."""

    def __init__(self, http: httpx.AsyncClient, url: httpx.URL, config: DatasourceConfig) -> None:
        self._http = http
        self._url = url
        self._timeout_s = config.timeout
        self._most_bytes = config.max_response_bytes
        self._requests = trio.CapacityLimiter(config.max_concurrent)
        self._decoding = trio.CapacityLimiter(2)

    async def ask(self, question: Question) -> Answer:
        """Ask once, within `datasource.timeout`, which includes the wait for a free place.

        Raises:
            AskFailed: No usable answer came.
        """
        with trio.move_on_after(self._timeout_s):
            return await self._ask(question)
        raise AskFailed(f"no answer within {self._timeout_s:g} s (datasource.timeout)")

    async def _ask(self, question: Question) -> Answer:
        async with self._requests:
            try:
                async with self._request(question) as response:
                    if question.kind.is_get and response.status_code == _NOT_FOUND:
                        return None
                    _check(response)
                    body = await self._read(response)
            except (httpx.HTTPError, httpx.InvalidURL) as exc:
                raise AskFailed(f"the request failed: {type(exc).__name__}") from exc
            try:
                return await self._decode(question, body)
            except BadAnswer as exc:
                raise AskFailed(str(exc)) from exc

    @asynccontextmanager
    async def _request(self, question: Question) -> AsyncIterator[httpx.Response]:
        if question.kind.is_get:
            path = f"{self._url.path.rstrip('/')}/{question.kind.value}"
            url = self._url.copy_with(path=path).copy_merge_params(question.query)
            async with self._http.stream("GET", url) as response:
                yield response
        else:
            async with self._http.stream("POST", self._url, content=question.body) as response:
                yield response

    async def _read(self, response: httpx.Response) -> bytes:
        body = bytearray()
        with trio.CancelScope() as reading:
            async for part in response.aiter_raw():
                body += part
                if len(body) > self._most_bytes:
                    reading.cancel()  # unwinds the client's nested generators, which leaving the loop would not
        if len(body) > self._most_bytes:
            raise AskFailed(f"the answer exceeds {self._most_bytes} bytes (datasource.maxResponseBytes)")
        return bytes(body)

    async def _decode(self, question: Question, body: bytes) -> Answer:
        if len(body) <= _DECODED_ON_LOOP:
            return decode_answer(question, body)
        return await trio.to_thread.run_sync(decode_answer, question, body, limiter=self._decoding)


def _check(response: httpx.Response) -> None:
    if response.is_redirect:
        raise AskFailed(f"HTTP {response.status_code}: redirects are not followed")
    if response.status_code != 200:  # what the reference takes for success
        raise AskFailed(f"HTTP {response.status_code}")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise AskFailed("the answer is compressed, which was not asked for")


@asynccontextmanager
async def open_client(config: DatasourceConfig) -> AsyncIterator[Client]:
    """Open a pool of connections to `datasource.addr`; environment variables for proxies are not heeded.

    Raises:
        ConfigError: The address is no http or https URL.
    """
    url = _parse(config.addr)
    async with await trio.to_thread.run_sync(_make_http, url, config, limiter=trio.CapacityLimiter(1)) as http:
        yield Client(http, url.copy_with(userinfo=b""), config)  # so that no log has the password


def _make_http(url: httpx.URL, config: DatasourceConfig) -> httpx.AsyncClient:
    """Make the client of a URL: takes up to a tenth of a second."""
    is_encrypted = url.scheme == "https"
    return httpx.AsyncClient(
        verify=ssl.create_default_context() if is_encrypted else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        auth=(url.username, url.password) if url.userinfo else None,
        trust_env=False,
        follow_redirects=False,
        timeout=None,  # noqa: S113  # the scope around each question limits it
        limits=httpx.Limits(max_connections=config.max_concurrent, keepalive_expiry=_KEPT_ALIVE_S),
        headers={"content-type": "application/json", "accept": "application/json", "accept-encoding": "identity"},
    )


def _parse(address: str) -> httpx.URL:
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError("datasource.addr", "not a URL such as http://127.0.0.1:8090/datasource")
    return url
