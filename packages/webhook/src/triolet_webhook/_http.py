"""The HTTP form: one POST per parcel, to an address that was checked, with every wait and size bounded."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Self
from urllib.parse import quote, urlsplit, urlunsplit

import attrs
import httpx
import trio

from triolet_core import ConfigError
from triolet_webhook._config import WebhookConfig
from triolet_webhook._guard import AddressGuard, is_refused
from triolet_webhook._receiver import DeliveryFailed, Parcel, headers_of

CONNECTIONS = 20
"""Kept for pushes; as many more as calls may be under way at once by the settings."""
UNNEEDED_BODY_S = 1.0
"""Longest wait for a body that nobody needs."""
DEFAULT_PORTS = {"http": 80, "https": 443}


def parse_url(key: str, text: str) -> httpx.URL:
    """Return a receiver's URL.

    Raises:
        ConfigError: It is none that can be posted to.
    """
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as exc:
        raise ConfigError(key, f"not a URL such as http://127.0.0.1:8080/webhook: {exc}") from exc
    if url.scheme not in DEFAULT_PORTS or not url.host:
        raise ConfigError(key, "not a URL such as http://127.0.0.1:8080/webhook")
    return url


def with_event(text: str, event: str) -> str:
    """Return a URL with `event=NAME` behind whatever query it has."""
    parts = urlsplit(text)
    query = f"{parts.query}&" if parts.query else ""
    return urlunsplit(parts._replace(query=f"{query}event={quote(event, safe='')}", fragment=""))


def check_literal(key: str, host: str, *, allow_link_local: bool) -> None:
    """Refuse at start what needs no resolving to be refused.

    Raises:
        ConfigError: The host is a link-local or metadata address.
    """
    try:
        refused = is_refused(host.strip("[]"))
    except ValueError:
        return  # a name: checked whenever it is resolved
    if refused and not allow_link_local:
        raise ConfigError(key, f"{host} is a link-local or metadata address; webhook.allowLinkLocal would allow it")


@attrs.define(eq=False)
class HttpReceiver:
    """Posts to one URL over a pool of kept connections."""

    url: str = attrs.field(repr=False)
    _client: httpx.AsyncClient
    _guard: AddressGuard
    _timeout_s: float
    _max_answer: int
    _secret: str = attrs.field(repr=False)
    _clock_s: Callable[[], float]
    form: str = "http"

    @classmethod
    @asynccontextmanager
    async def open(
        cls, key: str, url: str, config: WebhookConfig, *, clock_s: Callable[[], float] = time.time
    ) -> AsyncIterator[Self]:
        """Yield a receiver; its connections are closed at the end.

        Raises:
            ConfigError: The URL cannot be used.
        """
        parsed = parse_url(key, url)
        check_literal(key, parsed.host, allow_link_local=config.allow_link_local)
        port = parsed.port or DEFAULT_PORTS[parsed.scheme]
        guard = AddressGuard(parsed.host, port, config.allow_link_local)
        timeouts = httpx.Timeout(config.timeout, connect=config.connect_timeout)
        most = CONNECTIONS + max(config.offline_concurrency, config.pre_send_concurrency)
        limits = httpx.Limits(max_connections=most, max_keepalive_connections=most)
        async with httpx.AsyncClient(
            timeout=timeouts, limits=limits, follow_redirects=False, trust_env=False
        ) as client:
            yield cls(url, client, guard, config.timeout, config.max_answer_bytes, config.secret, clock_s)

    @property
    def address(self) -> str:
        """Scheme and host of the URL; the rest may be secret."""
        url = httpx.URL(self.url)
        return f"{url.scheme}://{url.netloc.decode()}"

    async def deliver(self, parcel: Parcel) -> None:
        """Post a parcel; any 2xx takes it."""
        await self.ask(parcel, needs_answer=False)

    async def ask(self, parcel: Parcel, *, needs_answer: bool = True) -> bytes:
        """Post a parcel and return the body of the answer, at most `webhook.maxAnswerBytes` of it.

        Raises:
            DeliveryFailed: No answer, one that is not 2xx, or, if it is needed, one that is too long.
        """
        try:
            with trio.fail_after(self._timeout_s):
                return await self._post(parcel, needs_answer=needs_answer)
        except trio.TooSlowError as exc:
            raise DeliveryFailed(f"no answer within {self._timeout_s:g} s") from exc
        except (httpx.HTTPError, httpx.StreamError) as exc:
            self._guard.forget()
            raise DeliveryFailed(f"{type(exc).__name__}: {exc}".removesuffix(": ")) from exc

    async def _post(self, parcel: Parcel, *, needs_answer: bool) -> bytes:
        addresses = await self._guard.addresses()
        for address in addresses[:-1]:
            try:
                return await self._post_to(address, parcel, needs_answer=needs_answer)
            except httpx.ConnectError:
                continue  # the next address of the same name
        return await self._post_to(addresses[-1], parcel, needs_answer=needs_answer)

    async def _post_to(self, address: str, parcel: Parcel, *, needs_answer: bool) -> bytes:
        url = httpx.URL(with_event(self.url, parcel.event))
        headers = {
            "Host": url.netloc.decode(),
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "triolet-webhook",
            **headers_of(parcel, self._secret, self._clock_s),
        }
        request = self._client.stream(
            "POST",
            url.copy_with(host=address),
            headers=headers,
            content=parcel.body,
            extensions={"sni_hostname": self._guard.host},
        )
        async with request as response:
            if response.is_redirect:
                raise DeliveryFailed(f"status {response.status_code}: redirects are not followed")
            if not response.is_success:
                raise DeliveryFailed(f"status {response.status_code}")
            if needs_answer:
                return await self._read(response)
            await self._skip(response)
            return b""

    async def _skip(self, response: httpx.Response) -> None:
        """Read a body that nobody needs so that the connection can be kept; the status has taken the parcel.

        If the body is too long, too slow or broken off, the connection is closed, and that is all.
        """
        with trio.move_on_after(UNNEEDED_BODY_S), suppress(DeliveryFailed, httpx.HTTPError):
            await self._read(response)

    async def _read(self, response: httpx.Response) -> bytes:
        """Read the body, and cut it off if it is too long.

        It is cut off by cancelling the read, so that the generators below end by themselves; dropped half-way they
        would be left to the garbage collector.

        Raises:
            DeliveryFailed: It is longer than `webhook.maxAnswerBytes`.
        """
        answer = bytearray()
        with trio.CancelScope() as reading:
            async for chunk in response.aiter_raw():
                answer += chunk
                if len(answer) > self._max_answer:
                    reading.cancel()
        if len(answer) > self._max_answer:
            raise DeliveryFailed(f"the answer is longer than {self._max_answer} bytes (webhook.maxAnswerBytes)")
        return bytes(answer)
