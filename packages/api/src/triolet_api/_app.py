"""The Quart-Trio application: routing and nothing else; every endpoint is answered by `Service`."""

import quart
import werkzeug.exceptions
from quart_trio import QuartTrio

from triolet_api._answers import Content
from triolet_api._call import Route
from triolet_api._service import CORS, NOT_FOUND, HttpRequest, Service, refusal
from triolet_api.routes import ROUTES


def build(service: Service) -> QuartTrio:
    """Return the application."""
    config = service.services.config
    app = QuartTrio("triolet_api", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = config.max_body_bytes
    app.config["BODY_TIMEOUT"] = config.request_timeout
    for route in ROUTES:
        if route.is_mounted(config):
            _add(app, route, service)

    async def before() -> quart.Response | None:
        return quart.Response("", 204) if quart.request.method == "OPTIONS" else None

    async def after(response: quart.Response) -> quart.Response:
        response.headers.update(CORS)
        return response

    app.before_request(before)
    app.after_request(after)

    async def on_error(error: werkzeug.exceptions.HTTPException) -> quart.Response:
        return _redirect(app, quart.request) or _on_error(error)

    app.register_error_handler(werkzeug.exceptions.HTTPException, on_error)
    return app


def _add(app: QuartTrio, route: Route, service: Service) -> None:
    async def view(**arguments: str) -> quart.Response:
        raw: object = await quart.request.get_data()
        content = await service.answer(
            route,
            HttpRequest(
                method=quart.request.method,
                path=quart.request.path,
                headers={name.lower(): value for name, value in quart.request.headers.items()},
                query=quart.request.args,
                body=raw if isinstance(raw, bytes) else b"",
                peer=quart.request.remote_addr or "",
                arguments=arguments,
            ),
        )
        return _response(content)

    rule = route.path.replace("{", "<").replace("}", ">").replace("<rest>", "<path:rest>")
    methods = ["GET", "POST", "PUT", "DELETE", "PATCH"] if route.method == "ANY" else [route.method]
    app.add_url_rule(rule, f"{route.method} {route.path}", view, methods=methods, provide_automatic_options=False)


def _response(content: Content) -> quart.Response:
    response = quart.Response(content.body, content.status, content_type=content.content_type)
    for name, value in content.headers:
        response.headers[name] = value
    return response


def _redirect(app: QuartTrio, request: quart.Request) -> quart.Response | None:
    """Return the way to the path without its last slash, if there is one (http-api.md, section 3.1)."""
    path = request.path.rstrip("/")
    if path == request.path or not path or not app.url_map.bind("").test(path, request.method):
        return None
    query = request.query_string.decode("latin-1")
    location = f"{path}?{query}" if query else path
    return quart.Response("", 301 if request.method == "GET" else 307, headers={"Location": location})


def _on_error(error: werkzeug.exceptions.HTTPException) -> quart.Response:
    if isinstance(error, (werkzeug.exceptions.NotFound, werkzeug.exceptions.MethodNotAllowed)):
        return _response(NOT_FOUND)
    status = error.code or 500
    return _response(refusal(error.name, status, error.name.lower().replace(" ", "_")))
