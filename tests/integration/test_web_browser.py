"""The two web pages in a browser, against a whole server. Need Chromium; skipped without."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

import triolet_api
import triolet_gateway
import triolet_webhook
from tests.browser import Tab, browser_tab, needs_chromium
from tests.jsonclient import json_client
from tests.wkclient import client
from triolet_api import ApiConfig
from triolet_core import Server, ServerConfig, open_server
from triolet_gateway import GatewayConfig
from triolet_webhook import WebhookConfig

pytestmark = [pytest.mark.slow, needs_chromium]

TIMEOUT_S = 60
USERS = ("root:sesame:*", "guest:guest:[cluster:r,monitor:r,connection:r]")


@asynccontextmanager
async def opened(path: Path, **section: Any) -> AsyncIterator[tuple[Server, httpx.AsyncClient, Tab, str]]:
    """A server, a client of its API, a browser, and the address of the server's pages."""
    config = ServerConfig()
    token, webhook = section.pop("token", ""), section.pop("webhook", None)
    plugins = [triolet_api.plugin, triolet_gateway.plugin, *([triolet_webhook.plugin] if webhook else [])]
    config = attrs.evolve(
        config,
        node=attrs.evolve(config.node, data_dir=str(path / "data"), root_dir=str(path)),
        auth=attrs.evolve(config.auth, manager_token=token),
        sections={
            "api": ApiConfig(http_addr="127.0.0.1:0", demo_on="true", **section),
            "gateway": GatewayConfig(tcp_addr="127.0.0.1:0", ws_addr="127.0.0.1:0"),
            **({"webhook": webhook} if webhook else {}),
        },
    )
    with trio.fail_after(TIMEOUT_S):
        async with open_server(config, plugins=plugins) as server:
            base = f"http://{server.broker.endpoints['http']}"
            headers = {"token": token} if token else {}
            async with httpx.AsyncClient(base_url=base, headers=headers) as http, browser_tab(path / "profile") as tab:
                yield server, http, tab, base
                assert tab.complaints == []


def encoded(text: str) -> str:
    return base64.b64encode(json.dumps({"type": 1, "content": text}).encode()).decode()


async def send(http: httpx.AsyncClient, channel: str, text: str, *, kind: int = 2, from_uid: str = "ann") -> Any:
    body = {
        "from_uid": from_uid,
        "channel_id": channel,
        "channel_type": kind,
        "payload": encoded(text),
        "header": {"red_dot": 1},
    }
    answer = await http.post("/message/send", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def make_group(http: httpx.AsyncClient, *uids: str) -> None:
    answer = await http.post("/channel", json={"channel_id": "team", "channel_type": 2, "subscribers": uids})
    assert answer.status_code == 200, answer.text


async def log_in(tab: Tab, name: str, password: str) -> None:
    await tab.fill("input[name=username]", name)
    await tab.fill("input[name=password]", password)
    await tab.press("Log in")


# --- the administrator's page


async def test_an_administrator_logs_in_and_finds_a_message(tmp_path: Path) -> None:
    """http-api.md, section 2.2: login, messages; what a sender wrote is text and never markup."""
    async with opened(tmp_path, users=USERS) as (_, http, tab, base):
        await make_group(http, "ann", "bob")
        await send(http, "team", "<img src=x onerror=alert(1)> 你好")
        await tab.go(f"{base}/web/data/message")
        await log_in(tab, "root", "wrong")
        await tab.wait_text("用户名或密码错误", "[role=alert]")
        await log_in(tab, "root", "sesame")
        await tab.wait_text("<img src=x onerror=alert(1)> 你好", "tbody tr")
        assert await tab.evaluate("document.querySelectorAll('main img').length") == 0
        assert await tab.evaluate("document.title") == "Messages · triolet"
        await tab.press("Log out")
        await tab.wait_text("managerToken")
        assert await tab.evaluate("sessionStorage.length") == 0


async def test_a_search_has_an_address(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, http, tab, base):
        await make_group(http, "ann", "bob")
        await send(http, "team", "hello")
        await send(http, "bob", "between us", kind=1)
        await tab.go(f"{base}/web/data/message")
        await tab.wait_text("2 rows")
        await tab.fill("input[name=payload]", "between")
        await tab.press("Search")
        await tab.wait_text("1 row")
        assert await tab.evaluate("document.querySelector('tbody .text').innerText") == "between us"
        assert await tab.evaluate("new URLSearchParams(location.search).get('payload')") == "between"
        await tab.go(f"{base}/web/data/message?channel_id=team&channel_type=2")
        await tab.wait_text("hello", "tbody tr")
        assert await tab.evaluate("document.querySelector('[name=channel_id]').value") == "team"
        assert await tab.evaluate("document.querySelectorAll('tbody tr').length") == 1


async def test_a_message_is_recalled_and_deleted(tmp_path: Path) -> None:
    """Ids have more digits than a JavaScript number."""
    async with opened(tmp_path) as (_, http, tab, base):
        await make_group(http, "ann", "bob")
        await send(http, "team", "first")
        await send(http, "team", "second")
        await tab.go(f"{base}/web/data/message?channel_id=team&channel_type=2")
        await tab.wait_text("second", "tbody tr")
        await tab.press("Recall", "tbody tr")
        await tab.wait_text("Its payload is deleted", "dialog")
        await tab.press("Recall", "dialog")
        await tab.wait_text("(empty)", "tbody tr")
        page = {"login_uid": "bob", "channel_id": "team", "channel_type": 2, "limit": 10}
        shown = (await http.post("/channel/messagesync", json=page)).json()["messages"]
        assert [each.get("is_deleted", 0) for each in shown] == [0, 1]
        await tab.press("Delete", "tbody tr:nth-child(2)")
        await tab.press("Delete", "dialog")
        await tab.wait_text("1 row", ".count")
        shown = (await http.post("/channel/messagesync", json=page)).json()["messages"]
        assert [each["message_seq"] for each in shown] == [2]


async def test_buttons_without_a_right_cannot_be_pressed(tmp_path: Path) -> None:
    """config.md, section 3.3: rights are letters for each resource; what has no right at all says so."""
    async with opened(tmp_path, users=USERS) as (_, http, tab, base):
        await make_group(http, "ann")
        await send(http, "team", "hello")
        await tab.go(f"{base}/web/")
        await log_in(tab, "guest", "guest")
        await tab.wait_text("Users online")
        await tab.go(f"{base}/web/data/message")
        await tab.wait_text("hello", "tbody tr")
        buttons = await tab.evaluate(
            "[...document.querySelectorAll('td button')].map((e) => [e.textContent, e.disabled, e.title])"
        )
        assert ["Recall", True, "needs the right message:w"] in buttons
        assert ["Details", False, ""] in buttons
        await tab.go(f"{base}/web/data/tag")
        await tab.wait_text("没有权限", "[role=alert]")


async def test_a_token_is_enough(tmp_path: Path) -> None:
    async with opened(tmp_path, token="open sesame") as (_, _, tab, base):
        await tab.go(f"{base}/web/cluster/nodes")
        await tab.fill("input[name=token]", "wrong")
        await tab.press("Use this token")
        await tab.wait_text("The server does not know this token.", "[role=alert]")
        await tab.fill("input[name=token]", "open sesame")
        await tab.press("Use this token")
        await tab.wait_text("leader", "tbody tr")


async def test_a_login_that_has_ended_asks_again(tmp_path: Path) -> None:
    async with opened(tmp_path, users=USERS) as (_, _, tab, base):
        await tab.go(f"{base}/web/data/user")
        await log_in(tab, "root", "sesame")
        await tab.wait_text("0 rows")
        await tab.evaluate("sessionStorage.setItem('triolet.session', JSON.stringify({token: 'old', name: 'root'}))")
        await tab.press("Search")
        await tab.wait_text("The login has ended.", "[role=alert]")


async def test_connections_come_go_and_are_kicked(tmp_path: Path) -> None:
    """http-api.md, section 2.2: the list refreshes itself every second."""
    async with opened(tmp_path) as (server, _, tab, base), client(server) as ann:
        await tab.go(f"{base}/web/data/connection")
        await tab.wait_text("0 rows")
        await ann.connect("ann")
        await tab.wait_text("ann", "tbody tr")
        await tab.press("Kick")
        await tab.wait_text("connection 1 of ann", "dialog")
        await tab.press("Kick", "dialog")
        await ann.wait_closed()
        await tab.wait_text("0 rows")


async def test_the_lists_of_a_channel_are_changed(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, http, tab, base):
        await make_group(http, "ann")
        await tab.go(f"{base}/web/data/channel")
        await tab.press("Members", "tbody")
        await tab.wait_text("1 user", "dialog")
        await tab.fill("dialog input", "bob, cyd")
        await tab.press("Add", "dialog")
        await tab.wait_text("3 users", "dialog")
        await tab.press("remove", "dialog li:first-child")
        await tab.wait_text("2 users", "dialog")
        await tab.press("Close", "dialog")
        members = await http.get("/channel/subscribers?channel_id=team&channel_type=2&format=uids")
        assert members.json() == ["bob", "cyd"]


PAGES = {
    "/": "Users online",
    "/cluster/nodes": "leader",
    "/cluster/slots": "256 rows",
    "/cluster/channels?channel_id=team": "2 group",
    "/cluster/config": '"slotCount": 256',
    "/data/connection": "0 rows",
    "/data/user": "ann",
    "/data/device": "****",
    "/data/message": "hello",
    "/data/channel": "2 group",
    "/data/conversation": "Enter user and search.",
    "/data/conversation?uid=bob": "team",
    "/data/tag": "team",
    "/data/plugin": "running",
    "/data/ai": "robot",
    "/monitor/app": "recvack",
    "/monitor/cluster": "stored",
    "/monitor/system": "of one core",
    "/no/such/page": "There is no page /no/such/page.",
}


async def test_each_page_shows_what_there_is(tmp_path: Path) -> None:
    """http-api.md, section 2.2; on a wide screen and a narrow one nothing sticks out."""
    async with opened(tmp_path) as (_, http, tab, base):
        await make_group(http, "ann", "bob")
        await http.post("/user/token", json={"uid": "ann", "token": "t", "device_flag": 1})
        await http.post("/plugin/bind", json={"plugin_no": "robot", "uid": "bot"})
        await send(http, "team", "hello")
        for path, text in PAGES.items():
            await tab.resize(1280, 800)
            await tab.go(f"{base}/web{path}")
            await tab.wait_text(text, "main")
            assert await tab.evaluate("document.querySelector('.problem').hidden"), path
            assert await tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
            await tab.resize(400, 800)
            assert await tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
            assert tab.complaints == [], path


async def test_pages_of_what_is_not_served_are_left_out(tmp_path: Path) -> None:
    """Webhook dead letters have a page only where the API has them."""
    async with opened(tmp_path) as (_, http, tab, base):
        assert (await http.get("/webhook/dead")).status_code == 404
        await tab.go(f"{base}/web/data/webhook")
        await tab.wait_text("There is no page /data/webhook.", "main")
        assert "Webhook dead letters" not in await tab.evaluate("document.querySelector('nav').textContent")


async def test_dead_letters_are_pushed_again_and_dropped(tmp_path: Path) -> None:
    """docs/webhook.md: what nobody took is listed with the reason."""
    webhook = WebhookConfig(
        http_addr="http://127.0.0.1:9/", msg_notify_event_retry_max_count=1, focus_events=("msg.notify",)
    )
    async with opened(tmp_path, webhook=webhook) as (_, http, tab, base):
        await send(http, "ann", "nobody listens", kind=1, from_uid="bob")
        while not (await http.get("/webhook/dead")).json()["data"]:
            pass
        await tab.go(f"{base}/web/data/webhook")
        await tab.wait_text("msg.notify", "tbody")
        await tab.press("Push again", "tbody")
        await tab.press("Push again", "dialog")
        await tab.wait_text("It was refused again", "[role=alert]")
        await tab.press("Drop", "tbody")
        await tab.press("Drop", "dialog")
        await tab.wait_text("0 rows")
        assert (await http.get("/webhook/dead")).json()["data"] == []


# --- the demo chat


async def enter_chat(tab: Tab, base: str, uid: str, **fields: str) -> None:
    await tab.go(f"{base}/chatdemo/")
    await tab.fill("input[name=uid]", uid)
    for name, value in fields.items():
        await tab.fill(f"input[name={name}]", value)
    await tab.press("Connect")
    await tab.wait_text(uid, ".me")


async def unread(http: httpx.AsyncClient, uid: str) -> dict[str, int]:
    rows = (await http.post("/conversation/sync", json={"uid": uid, "msg_count": 1})).json()
    return {row["channel_id"]: row["unread"] for row in rows}


async def test_two_people_talk(tmp_path: Path) -> None:
    """http-api.md, section 2.3: conversations with unread counts, history, sending, receiving."""
    async with opened(tmp_path) as (server, http, tab, base), json_client(server) as bob:
        await bob.connect("bob")
        await send(http, "ann", "are you <b>there</b>?", kind=1, from_uid="bob")
        assert (await bob.receive())["fromUid"] == "bob"
        await enter_chat(tab, base, "ann")
        await tab.wait_text("1", ".unread")
        await tab.click(".chat")
        await tab.wait_text("are you <b>there</b>?", ".log .text")
        await tab.wait_for("!document.querySelector('.unread')")
        await tab.fill("input[name=text]", "here I am")
        await tab.press("Send")
        assert (await bob.receive())["payload"] == b'{"type":1,"content":"here I am"}'
        await tab.wait_text("here I am", ".mine .text")
        await bob.send("ann", b"plain text")
        await tab.wait_text("plain text", ".log .text")
        while await unread(http, "ann") != {"bob": 0}:  # the page says so after it has shown the message
            pass


async def test_a_streamed_message_is_shown_while_it_grows(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, http, tab, base):
        await make_group(http, "ann", "bot")
        await enter_chat(tab, base, "ann")
        await tab.fill("input[name=group]", "team")
        await tab.press("Join")
        await tab.wait_text("team (group)", "h1")
        stream = {"channel_id": "team", "channel_type": 2, "from_uid": "bot"}
        number = (await http.post("/stream", json={**stream, "content": ""})).json()["stream_no"]
        await tab.wait_for("document.querySelector('.growing')")
        for chunk, (piece, text) in enumerate(
            (("Once ", "Once"), ("upon ", "Once upon"), ("a time", "Once upon a time"))
        ):
            body = {**stream, "stream_no": number, "content": piece, "chunk_id": chunk}
            assert (await http.post("/stream/chunk", json=body)).status_code == 200
            await tab.wait_for(f"document.querySelector('.growing .text')?.innerText.trim() === {json.dumps(text)}")
        await http.post("/stream/chunk", json={**stream, "stream_no": number, "end": 1})
        await tab.wait_for("!document.querySelector('.growing')")
        await tab.wait_text("Once upon a time", ".log .text")
        await tab.go(f"{base}/chatdemo/")
        await enter_chat(tab, base, "ann")
        await tab.click(".chat")
        await tab.wait_text("Once upon a time", ".log .text")


async def test_a_recalled_message_goes_from_the_screen(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, http, tab, base):
        await make_group(http, "ann", "bob")
        sent = await send(http, "team", "a slip", from_uid="bob")
        await enter_chat(tab, base, "ann")
        await tab.click(".chat")
        await tab.wait_text("a slip", ".log .text")
        body = {"channel_id": "team", "channel_type": 2, "message_id": sent["message_idstr"], "from_uid": "bob"}
        assert (await http.post("/message/recall", json=body)).status_code == 200
        await tab.wait_text("taken back", ".recalled .text")


async def test_the_chat_says_why_it_cannot_connect(tmp_path: Path) -> None:
    """Setting tokens is the backend's right: with a managerToken the page needs it."""
    async with opened(tmp_path, token="open sesame") as (_, _, tab, base):
        await tab.go(f"{base}/chatdemo/")
        await tab.fill("input[name=uid]", "ann")
        await tab.press("Connect")
        await tab.wait_text("The API asks for a token", "[role=alert]")
        await tab.fill("input[name=apiToken]", "open sesame")
        await tab.press("Connect")
        await tab.wait_text("ann", ".me")


async def test_the_chat_connects_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as (server, http, tab, base):
        await enter_chat(tab, base, "ann")
        [session] = server.broker.presence.sessions("ann")
        body = {"uid": "ann", "conn_id": session.connection_id}
        assert (await http.post("/conn/remove", json=body)).status_code == 200
        await tab.wait_text("Not connected", "[role=alert]")
        await tab.wait_for("document.querySelector('.problem').hidden")
        assert len(server.broker.presence.sessions("ann")) == 1
        await send(http, "ann", "still here?", kind=1, from_uid="bob")
        await tab.wait_text("still here?", ".chat")
