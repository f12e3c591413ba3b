"""The two web pages: the administrator's at /web/ and the demo chat at /chatdemo/. Source: http-api.md, section 2.

Both are files of this package, without a build step and without code of others. They call this API like any client;
the headers let them load nothing else.
"""

import functools
import hashlib
from pathlib import Path
from typing import Any

import attrs
import trio

from triolet_api._answers import Content
from triolet_api._call import Call, Route
from triolet_api._config import ApiConfig

INDEX = "index.html"
_FOLDER = Path(__file__).parents[1]
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src {connect}; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = (
    ("Cache-Control", "no-cache"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
)


@attrs.frozen(kw_only=True)
class Site:
    """A folder of files; what is no file of it is its index page, which has more than one address."""

    folder: str
    connect: str
    """Where its scripts may connect to."""
    shared: tuple[str, ...] = ()
    """Files that it has of the administrator's page."""

    async def answer(self, call: Call, name: str) -> Content:
        """Return a file, or that the caller has it already."""
        files = await trio.to_thread.run_sync(_files, self)
        file = files.get(name, files[INDEX])
        headers = (*_HEADERS, ("Content-Security-Policy", _POLICY.format(connect=self.connect)), ("ETag", file.tag))
        if call.headers.get("if-none-match") == file.tag:
            return Content(b"", file.content_type, 304, headers)
        return Content(file.body, file.content_type, headers=headers)


@attrs.frozen(kw_only=True)
class File:
    """A file of a page."""

    body: bytes
    content_type: str
    tag: str


@functools.cache
def _files(site: Site) -> dict[str, File]:
    """Read the files of a page, once."""
    own = [path for path in sorted((_FOLDER / site.folder).iterdir()) if path.suffix in _KINDS]
    return {path.name: _file(path) for path in (*own, *(_FOLDER / "web" / name for name in site.shared))}


def _file(path: Path) -> File:
    body = path.read_bytes()
    tag = hashlib.blake2b(body, digest_size=12).hexdigest()
    return File(body=body, content_type=_KINDS[path.suffix], tag=f'"{tag}"')


WEB = Site(folder="web", connect="'self'")
CHAT = Site(
    folder="chatdemo",
    connect="'self' http: https: ws: wss:",  # the API and the gateway may be elsewhere
    shared=("dom.js", "icon.svg"),
)


async def web(call: Call, query: None) -> Content:
    """Show the administrator's page."""
    return await WEB.answer(call, call.path.get("rest", INDEX))


async def chat(call: Call, query: None) -> Content:
    """Show the demo chat."""
    return await CHAT.answer(call, call.path.get("rest", INDEX))


def _redirect(location: str, status: int) -> Content:
    return Content(b"", "text/plain; charset=utf-8", status, (("Location", location), ("Cache-Control", "no-cache")))


async def root(call: Call, query: None) -> Content:
    """Lead to the administrator's page."""
    return _redirect("/web/", 302)


async def web_root(call: Call, query: None) -> Content:
    """Lead to the administrator's page."""
    return _redirect("/web/", 301)


async def chat_root(call: Call, query: None) -> Content:
    """Lead to the demo chat."""
    return _redirect("/chatdemo/", 301)


def _has_web(config: ApiConfig) -> bool:
    return config.web_on


def _has_chat(config: ApiConfig) -> bool:
    return config.demo_on == "true"


def _page(path: str, handler: Any, mounted: Any) -> Route:
    return Route(method="GET", path=path, handler=handler, is_free=True, is_page=True, mounted=mounted)


ROUTES = (
    _page("/", root, _has_web),
    _page("/web", web_root, _has_web),
    _page("/web/", web, _has_web),
    _page("/web/{rest}", web, _has_web),
    _page("/chatdemo", chat_root, _has_chat),
    _page("/chatdemo/", chat, _has_chat),
    _page("/chatdemo/{rest}", chat, _has_chat),
)
