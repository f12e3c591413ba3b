"""The Quart-Trio application: routing, authorisation, and exceptions to JSON, in one place each."""

import hmac
import json
from typing import Any

import quart
import werkzeug.exceptions
from quart_trio import QuartTrio

from triolet_api._api import Request, Route, Text
from triolet_api._body import ApiError, load
from triolet_api._config import ApiConfig
from triolet_api.routes import ROUTES
from triolet_core import Broker, Overloaded, StoreClosed, StoreError, StoreFull

FREE_PATHS = frozenset({"/health", "/healthz", "/readyz"})
"""Paths that need no token: container checks."""
_BEARER = "Bearer "
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "Content-Type, Authorization, Content-Length, Accept-Encoding, X-CSRF-Token, token,"
    " accept, origin, Cache-Control, X-Requested-With, appid, noncestr, sign, timestamp",
    "Access-Control-Allow-Methods": "POST, OPTIONS, GET, PUT,DELETE,PATCH",
}
_JSON = "application/json; charset=utf-8"
_STATUS = {StoreFull: 507, StoreClosed: 503, Overloaded: 503, StoreError: 500}


def build(broker: Broker, config: ApiConfig, log: Any) -> QuartTrio:
    """Return the application that serves a broker."""
    app = QuartTrio("triolet_api")
    app.config["MAX_CONTENT_LENGTH"] = config.max_body_bytes
    app.config["BODY_TIMEOUT"] = config.request_timeout
    app.url_map.strict_slashes = False
    for route in ROUTES:
        _add(app, route, broker, config)

    async def before() -> quart.Response | None:
        if quart.request.method == "OPTIONS":
            return quart.Response("", 204)
        if not is_authorised(broker.config.auth.manager_token, quart.request):
            return quart.Response("", 401)
        return None

    async def after(response: quart.Response) -> quart.Response:
        response.headers.update(_CORS)
        return response

    async def on_error(error: Exception) -> quart.Response:
        return _error(error, log)

    app.before_request(before)
    app.after_request(after)
    app.register_error_handler(Exception, on_error)
    return app


def _add(app: QuartTrio, route: Route, broker: Broker, config: ApiConfig) -> None:
    async def view() -> quart.Response:
        raw: Any = await quart.request.get_data() if route.method == "POST" else b"null"
        request = Request(broker, config, load(raw), quart.request.args, _host_of(quart.request.host))
        return _response(await route.handler(request))

    app.add_url_rule(
        route.path, f"{route.method} {route.path}", view, methods=[route.method], provide_automatic_options=False
    )


def _host_of(host: str) -> str:
    """Return a Host header without its port."""
    return host if host.endswith("]") or ":" not in host else host.rpartition(":")[0]


def is_authorised(manager_token: str, request: quart.Request) -> bool:
    """Whether a request may pass: no token is set, the path is free, or it carries the token."""
    if not manager_token or request.path in FREE_PATHS:
        return True
    bearer = request.headers.get("Authorization", "").removeprefix(_BEARER)
    return any(
        hmac.compare_digest(given.encode(), manager_token.encode())
        for given in (request.headers.get("token", ""), bearer)
    )


def _response(answer: Any, status: int = 200) -> quart.Response:
    if isinstance(answer, Text):
        return quart.Response(answer.body, status, content_type=answer.content_type)
    return quart.Response(json.dumps(answer, ensure_ascii=False, separators=(",", ":")), status, content_type=_JSON)


def _error(error: Exception, log: Any) -> quart.Response:
    match error:
        case ApiError():
            return _response(error.as_json(), error.status)
        case werkzeug.exceptions.NotFound() | werkzeug.exceptions.MethodNotAllowed():
            return quart.Response("404 page not found", 404, content_type="text/plain")
        case werkzeug.exceptions.HTTPException():
            status = error.code or 500
            return _response({"msg": error.name, "status": status}, status)
        case StoreError() | Overloaded():
            status = next(code for kind, code in _STATUS.items() if isinstance(error, kind))
            return _response({"msg": str(error), "status": status}, status)
        case _:
            log.error("request failed", path=quart.request.path, exc_info=error)
            return _response({"msg": "internal error", "status": 500}, 500)
