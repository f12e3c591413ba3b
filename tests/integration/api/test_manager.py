"""Plugins, tags, the export for a migration, documentation. http-api.md, sections 8.6 to 8.10."""

from pathlib import Path
from typing import Any

from tests.integration.api.support import GROUP, HELLO, OK, api_in, stored
from triolet_api._answers import Content

PLUGIN = {
    "node_id": 1001,
    "config_template": {},
    "config": {},
    "created_at": "T",
    "updated_at": "T",
    "status": 1,
    "version": "0.1.0",
    "methods": [],
    "priority": 0,
    "is_ai": 0,
}


async def test_plugins_are_listed(tmp_path: Path) -> None:
    """GET /plugins: what runs here; `type=ai` those that uids are bound to."""
    async with api_in(tmp_path) as api:
        rows = [{**PLUGIN, "no": name, "name": name} for name in ("api", "gateway")]
        assert api.shown(await api.get("/plugins")) == rows
        assert await api.get("/plugins?type=ai") == []
        await api.post("/plugin/bind", {"plugin_no": "gateway", "uid": "bot"})
        assert api.shown(await api.get("/plugins?type=ai")) == [{**rows[1], "is_ai": 1}]
        assert await api.get("/plugins?node_id=7") == (400, "node not found")


async def test_plugins_are_bound_to_users(tmp_path: Path) -> None:
    """POST /plugin/bind, GET /plugin/bind, POST /plugin/unbind."""
    async with api_in(tmp_path) as api:
        for uid, plugin in (("b", "p"), ("a", "p"), ("c", "q")):
            assert await api.post("/plugin/bind", {"plugin_no": plugin, "uid": uid}) == OK
        everything = [("p", "a"), ("p", "b"), ("q", "c")]
        for query, expected in (
            ("", everything),
            ("?plugin_no=p", everything[:2]),
            ("?uid=b", everything[1:2]),
            ("?uid=none", []),
        ):
            found = api.shown(await api.get(f"/plugin/bind{query}"))
            assert found == [
                {"plugin_no": plugin, "uid": uid, "created_at": "T", "updated_at": "T"} for plugin, uid in expected
            ]
        assert await api.post("/plugin/unbind", {"plugin_no": "other", "uid": "a"}) == OK
        assert await api.post("/plugin/unbind", {"plugin_no": "p", "uid": "b"}) == OK
        assert [row["uid"] for row in await api.get("/plugin/bind")] == ["a", "c"]
        for path in ("/plugin/bind", "/plugin/unbind"):
            assert await api.post(path, {"uid": "a"}) == (400, "plugin_no不能为空！")
            assert await api.post(path, {"plugin_no": "p"}) == (400, "uid不能为空！")


async def test_plugins_are_python_packages(tmp_path: Path) -> None:
    """POST /pluginconfig/{plugin} and /plugin/uninstall say what to do instead."""
    async with api_in(tmp_path) as api:
        body = {"config": {"k": 1}, "node_id": 1001}
        refused = await api.post("/pluginconfig/gateway", body)
        assert refused == (400, "a plugin's configuration is in the server's settings")
        assert await api.post("/pluginconfig/gateway", {"config": {}}) == (400, "node_id不能为空")
        refused = await api.post("/plugin/uninstall", {"plugin_no": "gateway", "node_id": 1001})
        assert refused == (400, "a plugin is a Python package: remove it, or name it in plugins.disabled")
        answer = await api.ask("POST", "/plugin/uninstall", {"plugin_no": "none"})
        assert (answer.status_code, answer.json()) == (
            400,
            {"msg": "plugin not found", "status": 404, "code": "no_plugin"},
        )


async def test_a_plugin_answers_http(tmp_path: Path) -> None:
    """ANY /plugins/{plugin}/…: method, path, query and body are handed on; status, kind and headers come back."""

    class Echo:
        async def handle_http(self, method: str, path: str, query: dict[str, str], body: bytes) -> Content:
            text = f"{method} {path} {query} {body.decode()}"
            return Content(text.encode(), "text/plain", 418, (("X-Echo", "1"),))

    async with api_in(tmp_path) as api:
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
            answer = await api.ask(method, "/plugins/none/x")
            shown = {"msg": "plugin not found", "status": 404, "code": "no_plugin"}
            assert (answer.status_code, answer.json()) == (400, shown)
        assert await api.get("/plugins/gateway/x") == (400, "the plugin answers no HTTP")
        api.server.broker.services["gateway"] = Echo()
        for method in ("GET", "POST", "PUT"):
            answer = await api.ask(method, "/plugins/gateway/a/b?c=d", b"body")
            assert (answer.status_code, answer.headers["x-echo"]) == (418, "1")
            assert answer.text == f"{method} a/b {{'c': 'd'}} body"
        assert (await api.get("/plugins"))[1]["methods"] == ["Route"]


async def test_the_path_of_the_search_plugin(tmp_path: Path) -> None:
    """POST /plugins/wk.plugin.search/usersearch: in the channels of a user's conversations, the newest first."""
    async with api_in(tmp_path) as api:
        await api.post("/channel", {**GROUP, "subscribers": ["bob"]})
        for text in ("one apple", "two", "more APPLES"):
            await api.post("/message/send", {**GROUP, "from_uid": "ann", "content": text, "client_msg_no": text})
        await api.send("eve")

        async def found(**query: Any) -> Any:
            answer = await api.post("/plugins/wk.plugin.search/usersearch", {"uid": "bob", **query})
            assert answer.pop("cost") >= 0
            return {**answer, "messages": [each["client_msg_no"] for each in answer["messages"]]}

        both = ["more APPLES", "one apple"]
        assert await found(keyword="apple") == {"total": 2, "limit": 10, "page": 1, "messages": both}
        assert await found(payload={"content": "apple"}) == {"total": 2, "limit": 10, "page": 1, "messages": both}
        assert await found(keyword="apple", limit=1, page=2) == {
            "total": 2,
            "limit": 1,
            "page": 2,
            "messages": both[1:],
        }
        nothing = {"total": 0, "limit": 10, "page": 1, "messages": []}
        assert await found(keyword="apple", channel_id="other") == nothing
        assert await found(keyword="hello") == nothing


async def test_tags_are_the_receivers_in_memory(tmp_path: Path) -> None:
    """GET /tag, GET /tags, POST /tag/remove."""
    async with api_in(tmp_path) as api:
        await api.post("/channel", {**GROUP, "subscribers": ["ann", "bob"]})
        assert await api.get("/tag?channel_id=g&channel_type=2") == (400, "tag not found")
        await api.send("g", 2)
        tag = await api.get("/tag?channel_id=g&channel_type=2")
        assert {**tag, "key": "", "created_at": ""} == {
            "key": "",
            "channel_id": "g",
            "channel_type": 2,
            "nodes": [{"leader_id": 1001, "uid_count": 2, "uids": ["ann", "bob"], "slot_ids": [64, 115]}],
            "created_at": "",
            "expire_at": "",
            "last_get_at": "",
            "node_version": 1,
            "get_count": 0,
        }
        assert await api.get(f"/tag?tag_key={tag['key']}") == tag
        assert tag in await api.get("/tags")
        assert await api.get("/tags?channel_id=g&channel_type=2&node_id=1001") == [tag]
        assert await api.get("/tags?node_id=7") == (400, "node not found")
        assert await api.get("/tag") == (400, "tag not found")
        assert await api.post("/tag/remove", {"tag_key": tag["key"]}) == OK
        assert await api.get("/tags?channel_id=g") == []
        assert await api.post("/tag/remove", GROUP) == OK
        assert await api.post("/tag/remove", {}) == (400, "tag_key, or channel_id and channel_type")
        assert (await api.send("g", 2))["message_seq"] == 2


async def test_the_export_for_a_migration(tmp_path: Path) -> None:
    """GET /migrate/result; POST /migrate/topics, /migrate/allusers, /migrate/allchannels, /migrate/channel."""
    async with api_in(tmp_path) as api:
        assert await api.get("/migrate/result") == {"status": "completed", "step": "", "last_err": "", "try_count": 0}
        await api.post("/user/token", {"uid": "ann", "token": "t", "device_flag": 1, "device_level": 1})
        await api.post("/channel", {**GROUP, "subscribers": ["ann", "bob"], "large": 1})
        await api.post("/channel/blacklist_add", {**GROUP, "uids": ["eve"]})
        await api.post("/channel/whitelist_add", {**GROUP, "uids": ["ann"]})
        await api.post("/channel", {"channel_id": "silent", "channel_type": 2})
        await api.send("g", 2, client_msg_no="n1")
        user = {"uid": "ann", "token": "t", "device_flag": 1, "device_level": 1}
        assert await api.post("/migrate/allusers") == [user]
        channel, silent = {**GROUP, "last_message_seq": 1}, {"channel_id": "silent", "channel_type": 2}
        found = await api.post("/migrate/allchannels")
        assert sorted(found, key=str) == [channel, {**silent, "last_message_seq": 0}]
        [slot] = [row["slot"] for row in (await api.get("/cluster/channels?channel_id=g"))["data"]]
        assert await api.post("/migrate/topics", {"slot": slot}) == [channel]
        assert await api.post("/migrate/topics", {"slot": (slot + 1) % 256}) == []
        assert await api.post("/migrate/channel", GROUP) == {
            **GROUP,
            "large": 1,
            "ban": 0,
            "disband": 0,
            "send_ban": 0,
            "allow_stranger": 0,
            "subscribers": ["ann", "bob"],
            "denylist": ["eve"],
            "allowlist": ["ann"],
            "last_message_seq": 1,
        }
        assert await api.post("/migrate/channel", {**GROUP, "channel_id": "none"}) == (400, "频道并不存在！")
        body = {**GROUP, "login_uid": "____system", "start_message_seq": 1, "pull_mode": 1, "limit": 10}
        page = await api.post("/channel/messagesync", body)
        assert api.shown(page["messages"]) == [stored(1, "n1", payload=HELLO)]


async def test_the_documentation(tmp_path: Path) -> None:
    """GET /docs, its files, /openapi.json, /docs/openapi.json, /docs/health: free, from this machine only."""
    async with api_in(tmp_path, token="secret") as api:
        page = await api.ask("GET", "/docs")
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert "http" not in page.text.replace("<!doctype html>", "").replace("HTTP", "")
        for name, kind in (("swagger-ui.css", "text/css"), ("swagger-ui-bundle.js", "text/javascript")):
            assert f"docs/assets/{name}" in page.text
            file = await api.ask("GET", f"/docs/assets/{name}")
            assert (file.status_code, file.headers["content-type"].partition(";")[0]) == (200, kind)
        assert await api.get("/docs/assets/nope.js") == (404, "not found")
        document = await api.get("/openapi.json")
        assert document["openapi"] == "3.1.0"
        assert "/message/send" in document["paths"]
        assert await api.get("/docs/openapi.json") == document
        assert await api.get("/docs/health") == {"status": "ok", "docs": "enabled"}
    async with api_in(tmp_path, docs_on=False) as api:
        for path in ("/docs", "/openapi.json", "/docs/openapi.json"):
            assert (await api.ask("GET", path)).status_code == 404
        assert await api.get("/docs/health") == {"status": "ok", "docs": "disabled"}
