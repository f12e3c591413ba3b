"""The files of the two web pages over HTTP: where they are, what their headers forbid, what is in them."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

import triolet_api
from triolet_api import ApiConfig
from triolet_core import ServerConfig, load_config, open_server

FOLDER = Path(triolet_api.__file__).parent
FILES = sorted(path for folder in ("web", "chatdemo") for path in (FOLDER / folder).iterdir())
SCRIPTS = [path for path in FILES if path.suffix == ".js"]
SHARED = ("dom.js", "icon.svg")


@asynccontextmanager
async def served(
    path: Path, *, mode: str = "release", token: str = "", **section: Any
) -> AsyncIterator[httpx.AsyncClient]:
    config = ServerConfig()
    config = attrs.evolve(
        config,
        node=attrs.evolve(config.node, data_dir=str(path), root_dir=str(path), mode=mode),
        auth=attrs.evolve(config.auth, manager_token=token),
        sections={"api": ApiConfig(http_addr="127.0.0.1:0", **section)},
    )
    with trio.fail_after(30):
        async with (
            open_server(config, plugins=[triolet_api.plugin]) as server,
            httpx.AsyncClient(base_url=f"http://{server.broker.endpoints['http']}") as http,
        ):
            yield http


async def test_the_way_to_the_pages(tmp_path: Path) -> None:
    """http-api.md, section 2.1: the root leads there, a missing slash is put right."""
    async with served(tmp_path, demo_on="true") as http:
        for path, status, location in (("/", 302, "/web/"), ("/web", 301, "/web/"), ("/chatdemo", 301, "/chatdemo/")):
            answer = await http.get(path)
            assert (answer.status_code, answer.headers["location"]) == (status, location)


@pytest.mark.parametrize("folder", ["web", "chatdemo"])
async def test_an_unknown_path_is_the_index_page(tmp_path: Path, folder: str) -> None:
    """http-api.md, section 2.1: pages have addresses that are no files."""
    index = (FOLDER / folder / "index.html").read_bytes()
    async with served(tmp_path, demo_on="true") as http:
        for path in ("", "data/message", "a/b/c.js", "index.html", "%2e%2e%2f_auth.py", "x%00y"):
            answer = await http.get(f"/{folder}/{path}")
            assert (answer.status_code, answer.content) == (200, index), path
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert (await http.get(f"/{folder}x")).status_code == 404


@pytest.mark.parametrize(
    ("folder", "connect"), [("web", "'self'"), ("chatdemo", "'self' http: https: ws: wss:")], ids=["web", "chatdemo"]
)
async def test_every_file_is_served_with_headers_that_forbid_the_rest(
    tmp_path: Path, folder: str, connect: str
) -> None:
    kinds = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    names = {path.name: path for path in FILES if path.parent.name == folder} | {
        name: FOLDER / "web" / name for name in SHARED
    }
    async with served(tmp_path, demo_on="true") as http:
        for name, path in names.items():
            answer = await http.get(f"/{folder}/{name}")
            assert answer.content == path.read_bytes()
            assert answer.headers["content-type"].partition(";")[0] == kinds[path.suffix]
            policy = dict(each.strip().split(" ", 1) for each in answer.headers["content-security-policy"].split(";"))
            assert policy == {
                "default-src": "'none'",
                "script-src": "'self'",
                "style-src": "'self'",
                "img-src": "'self'",
                "connect-src": connect,
                "base-uri": "'none'",
                "form-action": "'none'",
                "frame-ancestors": "'none'",
                "require-trusted-types-for": "'script'",
                "trusted-types": "'none'",
            }
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"


async def test_a_file_that_the_browser_has_is_not_sent_again(tmp_path: Path) -> None:
    async with served(tmp_path) as http:
        first = await http.get("/web/app.js")
        assert first.headers["cache-control"] == "no-cache"
        again = await http.get("/web/app.js", headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        other = await http.get("/web/style.css", headers={"If-None-Match": first.headers["etag"]})
        assert other.status_code == 200


async def test_the_pages_need_no_token_and_what_they_show_does(tmp_path: Path) -> None:
    async with served(tmp_path, token="secret", demo_on="true") as http:
        for path in ("/web/", "/web/app.js", "/chatdemo/"):
            assert (await http.get(path)).status_code == 200
        assert (await http.get("/varz/setting")).status_code == 401


@pytest.mark.parametrize(
    ("mode", "section", "web", "chat"),
    [
        ("release", {}, 200, 404),
        ("debug", {}, 200, 200),
        ("debug", {"demo_on": "false"}, 200, 404),
        ("release", {"demo_on": "true"}, 200, 200),
        ("release", {"web_on": False}, 404, 404),
        ("release", {"web_on": False, "demo_on": "true"}, 404, 200),
    ],
)
async def test_settings_say_what_is_served(tmp_path: Path, mode: str, section: Any, web: int, chat: int) -> None:
    """The chat lets anybody be anybody, so it is for trying out: off in release mode unless it is asked for."""
    async with served(tmp_path, mode=mode, **section) as http:
        assert [(await http.get(path)).status_code for path in ("/web/", "/chatdemo/")] == [web, chat]
        assert [(await http.get(path)).status_code for path in ("/", "/web")] == (
            [302, 301] if web == 200 else [404] * 2
        )
        assert (await http.get("/chatdemo")).status_code == (301 if chat == 200 else 404)
        if chat == 200:
            for name in SHARED:
                assert (await http.get(f"/chatdemo/{name}")).content == (FOLDER / "web" / name).read_bytes()


@pytest.mark.parametrize(("given", "known"), [("true", "true"), ("False", "false"), ("1", "true"), ("auto", "auto")])
def test_the_chat_is_switched_as_in_the_reference(given: str, known: str) -> None:
    """config.md: `demo.on` is a boolean; ours has a third value."""
    config = load_config(overrides=[f"demo.on={given}"], environ={})
    api = config.sections["api"]
    assert isinstance(api, ApiConfig)
    assert api.demo_on == known


async def test_pages_are_not_in_the_document(tmp_path: Path) -> None:
    """The OpenAPI document is for programs."""
    async with served(tmp_path, demo_on="true") as http:
        paths = (await http.get("/openapi.json")).json()["paths"]
        assert not [path for path in paths if path == "/" or path.startswith(("/web/", "/chatdemo"))]
        assert "/manager/login" in paths


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_scripts_put_no_markup_together(path: Path) -> None:
    """What is shown may come from anybody; the headers forbid these as well."""
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser|srcdoc|javascript:"
    )
    assert re.findall(forbidden, path.read_text()) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_pages_load_their_own_files_only(path: Path) -> None:
    text = path.read_text().replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"(?:https?:)?//[\w-]+\.[\w.-]+", re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE)) == []
    named = re.findall(r'from "\./([\w.]+)"', text) + re.findall(r'(?:src|href)="/\w+/([\w.]+)"', text)
    assert all((path.parent / name).is_file() or name in SHARED for name in named)
