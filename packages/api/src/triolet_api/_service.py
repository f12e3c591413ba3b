"""From a request to its answer: who calls, may he, what does he say, what is the answer, what is noted.

Independent of the web framework: Quart and the direct path of the hot endpoints call the same function.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import msgspec

from triolet_api._answers import JSON, Content, encode
from triolet_api._audit import AuditLog
from triolet_api._auth import Authority, Unauthorized
from triolet_api._call import WRITE, Call, Caller, Route, Services
from triolet_api._errors import BAD_FORMAT, ApiError
from triolet_api._fields import read_object
from triolet_api._limits import RateLimit
from triolet_core import BackendError, NotFound, Overloaded, StoreClosed, StoreError, StoreFull

CORS = (
    ("Access-Control-Allow-Origin", "*"),
    (
        "Access-Control-Allow-Headers",
        (
            "Content-Type, Authorization, Content-Length, Accept-Encoding, X-CSRF-Token, token, accept, origin,"
            " Cache-Control, X-Requested-With, appid, noncestr, sign, timestamp, Idempotency-Key"
        ),
    ),
    ("Access-Control-Allow-Methods", "POST, OPTIONS, GET, PUT,DELETE,PATCH"),
)
NOT_FOUND = Content(b"404 page not found", "text/plain; charset=utf-8", 404)
_STATUS: dict[type[Exception], int] = {
    StoreFull: 507,
    StoreClosed: 503,
    Overloaded: 503,
    BackendError: 502,
    StoreError: 500,
}


Answer = bytes | tuple[bytes, ...] | Content
"""Bytes are JSON with status 200, in one piece or in several."""


@attrs.define(eq=False)
class HttpRequest:
    """What a web server knows of a request."""

    method: str
    path: str
    headers: Mapping[str, str]
    """By lower-case name."""
    query: Mapping[str, str]
    body: bytes
    peer: str
    """Address of whoever connected."""
    arguments: Mapping[str, str] = attrs.Factory(dict)
    """Variable parts of the path."""


class Service:
    """Answers requests."""

    def __init__(self, services: Services, authority: Authority, audit: AuditLog, log: Any) -> None:
        self.services = services
        self.authority = authority
        self.audit = audit
        self._log = log
        self._rate = RateLimit(services.config.rate_per_second)
        self._proxies = frozenset(services.config.trusted_proxies)
        self.requests = 0
        self.refused = 0
        self.failed = 0

    async def answer(self, route: Route, request: HttpRequest) -> Content:
        """Return the answer to a request; never raises but for cancellation."""
        self.requests += 1
        caller = Caller(address=self.address_of(request))
        given: Any = None
        try:
            if self.services.broker.addresses.is_blocked(caller.address):
                return Content(b"", JSON, 403)
            caller = self._admitted(route, request, caller.address)
            self._rate.take(caller.name or caller.address)
            given = load(request.body) if route.method == "POST" and (route.body or route.takes) else None
            content = await self._handled(route, request, caller, given)
        except Exception as exc:
            content = self._failure(route, request, exc)
        if route.action == WRITE:
            self.audit.note(caller.name, caller.address, request.method, request.path, given, content.status)
        return content

    def start(self, route: Route, request: HttpRequest, reply: Callable[[Answer], None]) -> bool:
        """Answer a request without waiting: at once, or as soon as what it began is done.

        Returns:
            Whether `reply` was or will be called; if not, nothing was done and `answer` has to. That is with everything
            but the plain requests of callers who may.
        """
        quick = route.quick
        form = quick.read(request.body) if quick is not None else None
        if quick is None or form is None:
            return False
        address = self.address_of(request) if self._proxies else request.peer
        if self.services.broker.addresses.is_blocked(address):
            return False
        try:
            caller = self._admitted(route, request, address)
        except (Unauthorized, ApiError):
            return False  # refused in the words of the long way
        who = caller.name or address
        if self._rate.is_on and not self._rate.has(who):
            return False

        def finish(answer: Answer | Exception) -> None:
            if isinstance(answer, Exception):
                answer = self._failure(route, request, answer)
            if route.action == WRITE and self.audit.is_on:
                status = answer.status if isinstance(answer, Content) else 200
                self.audit.add(caller.name, address, f"POST {request.path}", status, form.noted())
            reply(answer)

        if not quick.start(self.services, form, finish):
            return False
        self.requests += 1
        if self._rate.is_on:
            self._rate.take(who)
        return True

    def _admitted(self, route: Route, request: HttpRequest, address: str) -> Caller:
        """Return who calls; raises if he may not."""
        caller = self.authority.identify(route, request.headers, request.query, address)
        self.authority.check(route, caller)
        return caller

    async def _handled(self, route: Route, request: HttpRequest, caller: Caller, given: Any) -> Content:
        call = Call(
            services=self.services,
            caller=caller,
            path=request.arguments,
            query=request.query,
            host=_host_of(request.headers.get("host", "")),
            json=given,
            headers=request.headers,
            method=request.method,
            raw=request.body,
        )
        form: Any = None
        if route.body is not None:
            form = read_object(route.body, given, self.services.rules)
        elif route.query is not None:
            form = read_object(route.query, request.query, self.services.rules)
        answer = await route.handler(call, form)
        return answer if isinstance(answer, Content) else Content(encode(answer), JSON)

    def _failure(self, route: Route, request: HttpRequest, error: Exception) -> Content:
        self.refused += 1
        match error:
            case ApiError():
                return Content(encode(error.as_json()), JSON, error.status)
            case Unauthorized():
                return Content(encode({"error": error.text}) if route.is_admin else b"", JSON, 401)
            case NotFound():
                return _told(str(error), 404, "not_found")
            case StoreError() | Overloaded() | BackendError():
                status = next(code for kind, code in _STATUS.items() if isinstance(error, kind))
                return _told(str(error), status, "unavailable")
            case _:
                self.failed += 1
                self._log.error("request failed", path=route.path, exc_info=error)
                return _told("internal error", 500, "internal")

    def statistics(self) -> Mapping[str, int | float]:
        """Return the counters."""
        return {
            "requests_total": self.requests,
            "refused_total": self.refused,
            "failed_total": self.failed,
            "audit_dropped": self.audit.dropped,
        }

    def address_of(self, request: HttpRequest) -> str:
        """Return the address of the caller: the peer's, or the last one of X-Forwarded-For that no trusted proxy is."""
        address = request.peer
        if not self._proxies or "x-forwarded-for" not in request.headers:
            return address
        forwarded = [each.strip() for each in request.headers.get("x-forwarded-for", "").split(",") if each.strip()]
        while address in self._proxies and forwarded:
            address = forwarded.pop()
        return address


def load(raw: bytes) -> Any:
    """Parse a JSON text; an empty one is an error, `null` an empty object."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise ApiError(BAD_FORMAT, code="bad_json") from None
    return {} if value is None else value


def refusal(text: str, status: int, code: str) -> Content:
    """Return the answer to a request that no endpoint sees."""
    return _told(text, status, code)


def _told(text: str, status: int, code: str) -> Content:
    return Content(msgspec.json.encode({"msg": text, "status": status, "code": code}), JSON, status)


def _host_of(host: str) -> str:
    """Return a Host header without its port."""
    return host if host.endswith("]") or ":" not in host else host.rpartition(":")[0]
