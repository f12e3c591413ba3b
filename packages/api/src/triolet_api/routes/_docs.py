"""The documentation: the OpenAPI document, and a page that shows it from files of this machine."""

import functools
import importlib.util
import mimetypes
from pathlib import Path
from typing import Any

import attrs
import trio

from triolet_api._answers import JSON, Content
from triolet_api._call import Call, Route
from triolet_api._config import ApiConfig
from triolet_api._errors import ApiError

_NAMES = frozenset({"swagger-ui.css", "index.css", "swagger-ui-bundle.js", "favicon-32x32.png"})
_PAGE = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>triolet: HTTP API</title>
<link rel="icon" href="docs/assets/favicon-32x32.png">
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
<link rel="stylesheet" href="docs/assets/index.css">
</head>
<body>
<div id="page"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script src="docs/assets/start.js"></script>
</body>
</html>
"""
_START = b"""SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#page",
  deepLinking: true,
  defaultModelsExpandDepth: -1,
  displayRequestDuration: true,
  docExpansion: "none",
  validatorUrl: null,
});
"""
"""No validator: Swagger UI would send the address of the document to one of its makers."""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing from elsewhere; Swagger UI has its icons and some styles in its script."""


@attrs.frozen
class DocsHealth:
    """Whether the documentation is served."""

    status: str
    docs: str


async def page(call: Call, query: None) -> Content:
    """Show this documentation."""
    return Content(_PAGE, "text/html; charset=utf-8", headers=(("Content-Security-Policy", _POLICY),))


async def asset(call: Call, query: None) -> Content:
    """Return a file of the documentation page."""
    name = call.path["name"]
    if name == "start.js":
        return Content(_START, "text/javascript; charset=utf-8", headers=(("Cache-Control", "no-cache"),))
    if name not in _NAMES:
        raise ApiError("not found", status=404, code="not_found")
    body = await trio.to_thread.run_sync(_read, name)
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Content(body, kind, headers=(("Cache-Control", "max-age=86400"),))


@functools.cache
def _read(name: str) -> bytes:
    found = importlib.util.find_spec("flask_swagger_ui")  # its files are wanted; to import it would load Flask
    if found is None or found.origin is None:
        raise FileNotFoundError("flask_swagger_ui")
    return (Path(found.origin).parent / "dist" / name).read_bytes()


async def openapi(call: Call, query: None) -> Content:
    """Return the OpenAPI document."""
    return Content(await call.services.parts["document"].text(), JSON)


async def docs_health(call: Call, query: None) -> DocsHealth:
    """Say whether the documentation is served."""
    return DocsHealth("ok", "enabled" if call.services.config.docs_on else "disabled")


def _is_on(config: ApiConfig) -> bool:
    return config.docs_on


def _free(path: str, handler: Any, answer: Any = None, *, always: bool = False, **more: Any) -> Route:
    return Route(
        method="GET",
        path=path,
        handler=handler,
        answer=answer,
        is_free=True,
        mounted=None if always else _is_on,
        **more,
    )


ROUTES = (
    _free("/docs", page, media="text/html"),
    _free("/docs/assets/{name}", asset, media="*/*"),
    _free("/openapi.json", openapi, dict[str, Any]),
    _free("/docs/openapi.json", openapi, dict[str, Any]),
    _free("/docs/health", docs_health, DocsHealth, always=True),
)
