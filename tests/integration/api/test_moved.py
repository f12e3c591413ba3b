"""The HTTP API over loopback, against the real broker; texts and shapes of http-api.md."""

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
from tests.wkclient import client
from triolet_api import ApiConfig
from triolet_core import ConfigError, Device, PluginError, Server, ServerConfig, open_server
from triolet_core.testing import MemorySession
from triolet_gateway import GatewayConfig

HELLO = base64.b64encode(b'{"type":1,"content":"hello"}').decode()


@asynccontextmanager
async def api_in(
    path: Path, *, profile: str = "wukongim-2", token: str = "", address: str = "127.0.0.1:0", **section: Any
) -> AsyncIterator[tuple[Server, httpx.AsyncClient]]:
    config = ServerConfig()
    config = attrs.evolve(
        config,
        node=attrs.evolve(config.node, data_dir=str(path)),
        compat=attrs.evolve(config.compat, profile=profile),
        auth=attrs.evolve(config.auth, manager_token=token),
        sections={
            "api": ApiConfig(http_addr=address, **section),
            "gateway": GatewayConfig(tcp_addr="127.0.0.1:0", ws_addr=""),
        },
    )
    with trio.fail_after(30):
        async with (
            open_server(config, plugins=[triolet_api.plugin, triolet_gateway.plugin]) as server,
            httpx.AsyncClient(base_url=f"http://{server.broker.endpoints['http']}") as http,
        ):
            yield server, http


async def post(http: httpx.AsyncClient, path: str, body: Any) -> Any:
    answer = await http.post(path, content=body if isinstance(body, (bytes, str)) else json.dumps(body))
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    shown = answer.json()
    return shown if answer.status_code == 200 else (answer.status_code, shown["msg"])


def send(channel_id: str, kind: int = 1, **more: Any) -> dict[str, Any]:
    return {"from_uid": "ann", "channel_id": channel_id, "channel_type": kind, "payload": HELLO, **more}


OK = {"status": 200}


async def test_health_route_varz_and_metrics(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (server, http):
        for path in ("/health", "/healthz", "/readyz"):
            assert (await http.get(path)).json() == {"status": "ok"}
        tcp = server.broker.endpoints["tcp"]
        assert (await http.get("/route?uid=ann")).json() == {"tcp_addr": tcp, "ws_addr": "", "wss_addr": ""}
        assert (await http.get("/route?intranet=1")).json()["tcp_addr"] == ""
        assert (await post(http, "/route/batch", ["a", "b"]))[0]["uids"] == ["a", "b"]
        assert (await http.get("/varz")).json()["connections"] == 0
        metrics = (await http.get("/metrics")).text
        assert 'app_conn_count_total{otel_scope_name="metrics",otel_scope_version=""} 0.0' in metrics
        assert "triolet_broker_commits_total" in metrics
        assert (await http.get("/nope")).text == "404 page not found"


async def test_a_message_is_sent_stored_delivered_and_read_back(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (server, http), client(server) as bob:
        await bob.connect("bob")
        answer = await post(http, "/message/send", send("bob", header={"red_dot": 1}, client_msg_no="n1"))
        data = answer.pop("data")
        assert answer == {"status": 200, **data}
        assert (data["message_seq"], data["client_msg_no"]) == (1, "n1")
        assert data["message_idstr"] == str(data["message_id"])
        recv = await bob.receive()
        assert (recv.payload, recv.from_uid, recv.channel_id) == (base64.b64decode(HELLO), "ann", "ann")
        page = await post(http, "/channel/messagesync", {"login_uid": "bob", "channel_id": "ann", "channel_type": 1})
        [message] = page.pop("messages")
        assert page == {"start_message_seq": 0, "end_message_seq": 0, "more": 0}
        assert message == {
            "header": {"no_persist": 0, "red_dot": 1, "sync_once": 0},
            "setting": 0,
            "message_id": data["message_id"],
            "message_idstr": data["message_idstr"],
            "client_msg_no": "n1",
            "message_seq": 1,
            "from_uid": "ann",
            "channel_id": "bob",
            "channel_type": 1,
            "expire": 0,
            "timestamp": message["timestamp"],
            "payload": HELLO,
        }
        again = await post(http, "/message/send", send("bob", client_msg_no="n1", header={"red_dot": 1}))
        assert again["message_id"] == data["message_id"]


async def test_a_send_without_sender_is_the_systems(tmp_path: Path) -> None:
    """Conformance 45."""
    async with api_in(tmp_path) as (server, http), client(server) as bob:
        await bob.connect("bob")
        await post(http, "/message/send", {"channel_id": "bob", "channel_type": 1, "payload": HELLO})
        recv = await bob.receive()
        assert (recv.from_uid, recv.channel_id) == ("", "____system")


async def test_listed_subscribers_get_a_command_and_nobody_else(tmp_path: Path) -> None:
    """Conformance 48."""
    async with api_in(tmp_path) as (server, http):
        sessions = {uid: MemorySession(Device(uid=uid)) for uid in "abc"}
        for session in sessions.values():
            server.broker.presence.register(session)
        for flags in ({"sync_once": 1}, {"sync_once": 1, "no_persist": 1}, {}):
            body = {"from_uid": "x", "subscribers": ["a", "b"], "payload": HELLO, "header": flags}
            assert (await post(http, "/message/send", body))["status"] == 200
        await server.broker.flush()
        assert [len(sessions[uid].received) for uid in "abc"] == [3, 3, 0]
        assert sessions["a"].received[0].channel.id.endswith("____cmd")
        assert server.broker.conversations.list("a") == []


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("/user/token", b"", "数据格式有误！"),
        ("/user/token", b"{", "数据格式有误！"),
        ("/user/token", b"[]", "数据格式有误！"),
        ("/user/token", b'{"uid":"a","token":"t"} x', "数据格式有误！"),
        ("/user/token", b"null", "uid不能为空！"),
        ("/user/token", {"uid": " ", "token": "t"}, "uid不能为空！"),
        ("/user/token", {"uid": "a"}, "token不能为空！"),
        ("/user/token", {"uid": "a@b", "token": "t"}, "uid不能包含特殊字符！"),
        ("/user/token", {"uid": "____system", "token": "t"}, "系统账号不允许更新token！"),
        ("/user/token", {"uid": "a", "token": "t", "device_flag": 7}, "device_flag错误！"),
        (
            "/user/token",
            {"uid": "a", "token": "t", "device_level": 9},
            "数据格式有误！: device_level (number): a number",
        ),
        ("/user/token", {"uid": 1, "token": "t"}, "数据格式有误！: uid (number): a text"),
        ("/user/token", '{"uid":"\\ud800","token":"t"}', "数据格式有误！: uid: UTF-8"),
        ("/user/token", {"uid": "a" * 513, "token": "t"}, "uid: 513 > 512"),
        ("/user/device_quit", {}, "uid不能为空！"),
        ("/message/send", send("bob", payload=""), "payload不能为空！"),
        ("/message/send", send("bob", payload="!"), "数据格式有误！: payload (text): base64"),
        ("/message/send", send("b@b"), "频道ID不合法！"),
        ("/message/send", send("bob", 0), "频道类型错误！"),
        ("/message/send", send("bob", subscribers=["a"]), "无法处理发送消息请求！"),
        ("/message/send", {"payload": HELLO}, "无法处理发送消息请求！"),
        ("/message/send", send("bob", header={"red_dot": 2}), "数据格式有误！: red_dot (number): 0 or 1"),
        ("/message/send", send("x" * 70000), "频道ID不合法！"),
        ("/message/send", send("bob", expire=-1), "数据格式有误！: expire"),
        ("/message/send", send("bob", expire=2**63), "数据格式有误！: expire"),
        ("/message/sendbatch", {"from_uid": "a", "payload": HELLO}, "subscribers不能为空！"),
        ("/message/sendbatch", {"subscribers": ["a"], "payload": HELLO}, "from_uid不能为空！"),
        ("/channel", {"channel_type": 2}, "频道ID不能为空！"),
        ("/channel", {"channel_id": "g"}, "频道类型错误！"),
        ("/channel", {"channel_id": "g#", "channel_type": 2}, "频道ID不能包含特殊字符！"),
        ("/channel", {"channel_id": "u", "channel_type": 1, "subscribers": ["a"]}, "不支持个人频道添加订阅者！"),
        ("/channel/info", {}, "频道ID不能为空！"),
        ("/channel/subscriber_add", {"channel_id": "g", "subscribers": [" "]}, "订阅者不能为空！"),
        ("/channel/subscriber_add", {"channel_id": "g", "subscribers": [1]}, "数据格式有误！: subscribers (number)"),
        (
            "/channel/subscriber_add",
            {"channel_id": "u", "channel_type": 1, "uids": ["a"]},
            "个人频道不支持添加订阅者！",
        ),
        ("/channel/subscriber_add", {"channel_id": "g", "uids": ["a"] * 10001}, "uids: 10001 > 10000"),
        ("/channel/blacklist_add", {"channel_id": "g", "channel_type": 2, "uids": [""]}, "uids不能为空！"),
        ("/channel/blacklist_set", {"channel_id": "g", "channel_type": 0, "uids": ["a"]}, "频道类型不能为0！"),
        ("/channel/whitelist_add", {"channel_type": 2, "uids": ["a"]}, "channel_id不能为空！"),
        ("/channel/messagesync", {"channel_id": "g", "channel_type": 2}, "login_uid不能为空！"),
        ("/conversation/sync", {}, "uid不能为空！"),
        ("/conversations/clearUnread", {"uid": "a"}, "channel_id or channel_type cannot be empty"),
        ("/route/batch", {"a": 1}, "数据格式有误！"),
    ],
)
async def test_what_is_wrong_is_said_and_changes_nothing(tmp_path: Path, path: str, body: Any, text: str) -> None:
    """Conformance 46, 47; http-api-errors.md, section 6."""
    async with api_in(tmp_path) as (server, http):
        before = server.broker.statistics().commits_total
        status, message = await post(http, path, body)
        assert status == 400
        assert message.startswith(text)
        assert server.broker.statistics().commits_total == before
        assert (await http.get("/health")).json() == {"status": "ok"}


async def test_groups_members_and_lists(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, http):
        group = {"channel_id": "g", "channel_type": 2}
        assert (
            await post(http, "/channel", {**group, "subscribers": ["a", "b"], "name": "Team", "extra": {"k": 1}}) == OK
        )
        assert await post(http, "/channel/subscriber_add", {**group, "uids": ["c", "c", ""]}) == OK
        assert await post(http, "/channel/subscriber_remove", {**group, "subscribers": ["b", "nobody"]}) == OK
        query = "channel_id=g&channel_type=2"
        assert (await http.get(f"/channel/subscribers?{query}&format=uids")).json() == ["a", "c"]
        assert await post(http, "/channel/subscriber_set", {**group, "uids": ["d"]}) == OK
        assert await post(http, "/channel", {**group, "subscribers": ["e"]}) == OK
        assert (await http.get(f"/channel/subscribers?{query}&format=uids")).json() == ["d", "e"]
        for kind in ("blacklist", "whitelist"):
            assert await post(http, f"/channel/{kind}_add", {**group, "uids": ["x", "y"]}) == OK
            assert await post(http, f"/channel/{kind}_remove", {**group, "uids": ["x"]}) == OK
            [row] = (await http.get(f"/channel/{kind}?{query}")).json()
            assert (row["uid"], set(row)) == ("y", {"id", "uid", "created_at", "updated_at"})
            assert await post(http, f"/channel/{kind}_set", {**group, "uids": []}) == OK
            assert (await http.get(f"/channel/{kind}?{query}")).json() == []
            assert await post(http, f"/channel/{kind}_remove_all", group) == OK
        info = (await http.get(f"/channel/info?{query}")).json()
        assert (info["name"], info["extra"], info["subscriber_count"], info["ban"]) == ("Team", {"k": 1}, 2, 0)
        assert await post(http, "/channel/subscriber_remove_all", group) == OK
        assert (await http.get(f"/channel/subscribers?{query}")).json() == []


@pytest.mark.parametrize(("flag", "status"), [("ban", 19), ("disband", 24)])
async def test_a_closed_channel_answers_with_its_reason(tmp_path: Path, flag: str, status: int) -> None:
    async with api_in(tmp_path) as (_, http):
        await post(http, "/channel", {"channel_id": "g", "channel_type": 2, flag: 1})
        assert await post(http, "/message/send", send("g", 2)) == {"status": status}
        body = {"login_uid": "a", "channel_id": "g", "channel_type": 2}
        assert (await post(http, "/channel/messagesync", body))["messages"] == []


async def test_in_profile_wukongim_1_a_closed_channel_stores(tmp_path: Path) -> None:
    async with api_in(tmp_path, profile="wukongim-1") as (_, http):
        await post(http, "/channel", {"channel_id": "g", "channel_type": 2, "ban": 1})
        assert (await post(http, "/message/send", send("g", 2)))["message_seq"] == 1


async def test_member_lists_are_replaced_in_profile_wukongim_1_only_if_one_is_given(tmp_path: Path) -> None:
    async with api_in(tmp_path, profile="wukongim-1") as (_server, http):
        group = {"channel_id": "g", "channel_type": 2}
        await post(http, "/channel", {**group, "subscribers": ["a"]})
        await post(http, "/channel", {**group, "subscribers": ["b"]})
        await post(http, "/channel", {**group, "large": 1})
        answer = await http.get("/channel/subscribers?channel_id=g&channel_type=2")
        assert answer.json() == ["b"]


async def test_many_at_once(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, http):
        body = {"from_uid": "ann", "subscribers": ["a", "b"], "payload": HELLO}
        assert await post(http, "/message/sendbatch", body) == {"fail_uids": [], "reason": []}
        answers = await post(http, "/message/sendbatch", [send("a"), send("a", payload="")])
        assert [each["status"] for each in answers] == [200, 400]
        assert answers[0]["message_seq"] == 2
        query = "channel_id=a&channel_type=1&login_uid=ann"
        assert (await http.get(f"/channel/max_message_seq?{query}")).json() == {"message_seq": 2}
        assert (await http.get(f"/channel/last_message?{query}")).json()["message_seq"] == 2


async def test_history_in_limaoims_terms(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_server, http):
        for _ in range(10):
            await post(http, "/message/send", send("g", 2))
        base = {"login_uid": "a", "channel_id": "g", "channel_type": 2, "limit": 3}
        for body, seqs in (
            ({"min_message_seq": 3, "max_message_seq": 0, "reverse": 1}, [4, 5, 6]),
            ({"min_message_seq": 0, "max_message_seq": 5, "reverse": 0}, [2, 3, 4]),
            ({"min_message_seq": 0, "max_message_seq": 0, "reverse": 0}, [1, 2, 3]),
        ):
            page = await post(http, "/channel/messagesync", {**base, **body})
            assert [each["message_seq"] for each in page["messages"]] == seqs


async def test_conversations(tmp_path: Path) -> None:
    """Conformance 59, 60, 66."""
    async with api_in(tmp_path) as (_, http):
        for _ in range(5):
            await post(http, "/message/send", send("bob"))
        [row] = await post(http, "/conversation/sync", {"uid": "bob", "msg_count": 1})
        assert (row["channel_id"], row["unread"], row["last_msg_seq"], len(row["recents"])) == ("ann", 5, 5, 1)
        body = {"uid": "bob", "msg_count": 9, "last_msg_seqs": "ann:1:3"}
        [row] = await post(http, "/conversation/sync", body)
        assert [each["message_seq"] for each in row["recents"]] == [5, 4]
        target = {"uid": "bob", "channel_id": "ann", "channel_type": 1}
        assert await post(http, "/conversations/clearUnread", target) == OK
        [row] = await post(http, "/conversation/sync", {"uid": "bob", "msg_count": 1})
        assert (row["unread"], row["readed_to_msg_seq"]) == (0, 5)
        assert await post(http, "/conversations/setUnread", {**target, "unread": 2}) == OK
        assert (await post(http, "/conversation/sync", {"uid": "bob", "msg_count": 1}))[0]["unread"] == 2
        assert await post(http, "/conversations/delete", target) == OK
        assert await post(http, "/conversation/sync", {"uid": "bob", "msg_count": 1}) == []


async def test_users(tmp_path: Path) -> None:
    """Conformance 5, 17."""
    async with api_in(tmp_path) as (server, http):
        assert await post(http, "/user/token", {"UID": "ann", "Token": "t", "unknown": 1}) == OK
        assert server.broker.users.device("ann", 0) is not None
        assert await post(http, "/user/device_quit", {"uid": "ann", "device_flag": -1}) == OK
        assert await post(http, "/user/onlinestatus", []) == OK
        for flag in (0, 1):
            server.broker.presence.register(MemorySession(Device(uid="ann", flag=flag)))
        rows = [{"uid": "ann", "device_flag": flag, "online": 1} for flag in (0, 1)]
        assert await post(http, "/user/onlinestatus", ["ann", "bob"]) == rows
        assert await post(http, "/user/onlinestatus", {"uids": ["ann"]}) == rows
        assert await post(http, "/user/systemuids_add", {"uids": ["s2", "s1", ""]}) == OK
        assert (await http.get("/user/systemuids")).json() == ["s1", "s2"]
        assert await post(http, "/systemuids_remove", {"uids": ["s2"]}) == OK
        assert (await http.get("/user/systemuids")).json() == ["s1"]
        await post(http, "/channel/info", {"channel_id": "ann", "channel_type": 1, "ban": 1})
        assert await post(http, "/user/token", {"uid": "ann", "token": "t"}) == {"status": 19}


async def test_the_token_is_asked_for_and_browsers_may_ask_first(tmp_path: Path) -> None:
    async with api_in(tmp_path, token="secret") as (_, http):
        assert (await http.get("/health")).status_code == 200
        assert (await http.options("/channel")).status_code == 204
        for headers, status in (
            ({}, 401),
            ({"token": "wrong"}, 401),
            ({"token": "secret"}, 200),
            ({"Authorization": "Bearer secret"}, 200),
        ):
            answer = await http.get("/varz", headers=headers)
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == "*"


async def test_an_open_api_is_not_shown_to_others(tmp_path: Path) -> None:
    with pytest.raises(PluginError) as caught:
        async with api_in(tmp_path, address="0.0.0.0:0"):
            pass
    assert isinstance(caught.value.__cause__, ConfigError)
    assert "Set managerToken" in str(caught.value.__cause__)


async def test_a_body_over_the_limit_is_413(tmp_path: Path) -> None:
    async with api_in(tmp_path, max_body_bytes=1000) as (_, http):
        status, _ = await post(http, "/message/send", b" " * 1001)
        assert status == 413
