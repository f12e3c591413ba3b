"""Sending. http-api.md, sections 6.1 and 6.2."""

import base64
import re
from pathlib import Path
from typing import Any

import pytest

from tests.integration.api.conftest import Shared
from tests.integration.api.support import GROUP, HELLO, TEXT, api_in, message, page, sent, stored
from tests.wkclient import client
from triolet_core import Device
from triolet_core.config import ServerConfig, StoreConfig
from triolet_core.testing import MemorySession


async def test_a_message_is_stored_delivered_and_read_back(tmp_path: Path) -> None:
    """POST /message/send: the four numbers on both levels; POST /channel/messagesync shows what was sent."""
    async with api_in(tmp_path) as api, client(api.server) as bob:
        await bob.connect("bob")
        header = {"red_dot": 1, "no_persist": 0, "sync_once": False}
        answer = await api.send("bob", header=header, client_msg_no="n1", expire=60, topic="t", setting=128)
        assert api.shown(answer) == sent(1, "n1")
        assert answer["message_idstr"] == str(answer["message_id"])
        recv = await bob.receive()
        assert (recv.payload, recv.from_uid, recv.channel_id, recv.channel_type) == (TEXT, "ann", "ann", 1)
        assert (recv.message_id, recv.message_seq, recv.client_msg_no) == (answer["message_id"], 1, "n1")
        body = {"login_uid": "bob", "channel_id": "ann", "channel_type": 1}
        flags = {"no_persist": 0, "red_dot": 1, "sync_once": 0}
        shown = stored(1, "n1", header=flags, channel_id="bob", channel_type=1, expire=60, topic="t", setting=128)
        assert api.shown(await api.post("/channel/messagesync", body)) == page(shown)


async def test_a_number_is_made_where_there_is_none(tmp_path: Path) -> None:
    async with api_in(tmp_path) as api:
        assert re.fullmatch("[0-9a-f]{32}0", (await api.send("bob"))["client_msg_no"])


async def test_the_same_number_again_answers_the_first_message(tmp_path: Path) -> None:
    """`message.dedupe`: by sender and number."""
    async with api_in(tmp_path) as api:
        first = await api.send("bob", client_msg_no="n1")
        assert await api.send("bob", client_msg_no="n1") == first
        other = await api.post("/message/send", {**message("bob", client_msg_no="n1"), "from_uid": "eve"})
        assert other["message_id"] != first["message_id"]
        assert await api.seqs("bob", 1) == [1]


async def test_without_a_sender_it_is_the_systems(tmp_path: Path) -> None:
    """Conformance 45. Read back, `from_uid` is empty."""
    async with api_in(tmp_path) as api, client(api.server) as bob:
        await bob.connect("bob")
        await api.post("/message/send", {"channel_id": "bob", "channel_type": 1, "payload": HELLO})
        recv = await bob.receive()
        assert (recv.from_uid, recv.channel_id) == ("", "____system")
        body = {"login_uid": "bob", "channel_id": "____system", "channel_type": 1}
        [shown] = (await api.post("/channel/messagesync", body))["messages"]
        assert (shown["from_uid"], shown["channel_id"]) == ("", "bob")


async def test_no_list_holds_the_api_back(tmp_path: Path) -> None:
    async with api_in(tmp_path) as api:
        await api.post("/channel", {**GROUP, "subscribers": ["bob"], "send_ban": 1})
        await api.post("/channel/blacklist_add", {**GROUP, "uids": ["ann"]})
        await api.post("/channel/whitelist_add", {**GROUP, "uids": ["bob"]})
        assert (await api.send("g", 2))["message_seq"] == 1


async def test_a_message_that_is_not_kept_has_no_number(tmp_path: Path) -> None:
    """`no_persist`: online only, seq 0, no conversation."""
    async with api_in(tmp_path) as api, client(api.server) as bob:
        await bob.connect("bob")
        answer = await api.send("bob", header={"no_persist": 1}, client_msg_no="n1")
        assert api.shown(answer) == sent(0, "n1")
        assert (await bob.receive()).message_seq == 0
        assert await api.post("/conversation/sync", {"uid": "bob"}) == []
        assert await api.seqs("bob", 1) == []


async def test_the_senders_other_devices_get_it_too(tmp_path: Path) -> None:
    async with api_in(tmp_path) as api, client(api.server) as ann:
        await ann.connect("ann")
        await api.send("bob")
        recv = await ann.receive()
        assert (recv.from_uid, recv.channel_id) == ("ann", "bob")


async def test_listed_subscribers_get_it_and_nobody_else(tmp_path: Path) -> None:
    """Conformance 48: a command, one that is not kept, and a temporary group; no conversation for any of them."""
    async with api_in(tmp_path) as api:
        sessions = {uid: MemorySession(Device(uid=uid)) for uid in "abc"}
        for session in sessions.values():
            api.server.broker.presence.register(session)
        for flags, seq in (({"sync_once": 1}, 1), ({"sync_once": 1, "no_persist": 1}, 0), ({}, 1)):
            body = {"from_uid": "x", "subscribers": ["a", "b"], "payload": HELLO, "header": flags}
            answer = await api.post("/message/send", {**body, "client_msg_no": str(flags)})
            assert api.shown(answer) == sent(seq, str(flags), api.shown(answer)["message_id"])
        await api.server.broker.flush()
        assert [len(sessions[uid].received) for uid in "abc"] == [3, 3, 0]
        assert sessions["a"].received[0].channel.id.endswith("____cmd")
        assert sessions["a"].received[2].channel.id.endswith("@tmp")
        assert await api.post("/conversation/sync", {"uid": "a"}) == []


PAYLOADS: list[tuple[dict[str, Any], bytes]] = [
    ({"payload": "aGVs\nbG8="}, b"hello"),
    ({"payload": [104, 105]}, b"hi"),
    ({"content": "hello", "type": 1}, TEXT),
    ({"content": "hello"}, TEXT),
    ({"content": {"text": "ü", "k": [1]}, "type": 7}, '{"type":7,"text":"ü","k":[1]}'.encode()),
    ({"payload": HELLO, "content": "other"}, TEXT),
]


async def test_what_a_payload_may_be(tmp_path: Path) -> None:
    """Base64, byte values, or the `content` and `type` of the seed document."""
    async with api_in(tmp_path) as api:
        for given, _ in PAYLOADS:
            await api.post("/message/send", {**GROUP, "from_uid": "ann", **given})
        shown = (await api.post("/channel/messagesync", {**GROUP, "login_uid": "ann"}))["messages"]
        assert [base64.b64decode(each["payload"]) for each in shown] == [payload for _, payload in PAYLOADS]


async def test_one_message_to_many_users(tmp_path: Path) -> None:
    """POST /message/sendbatch with an object: a person message each; parallel arrays of what failed."""
    async with api_in(tmp_path) as api:
        await api.post("/channel/info", {"channel_id": "gone", "channel_type": 1, "disband": 1})
        body = {"from_uid": "ann", "subscribers": ["a", "", "b", "a"], "payload": HELLO, "header": {"red_dot": 1}}
        assert await api.post("/message/sendbatch", body) == {"fail_uids": [], "reason": []}
        assert [await api.seqs(uid, 1) for uid in ("a", "b")] == [[1], [1]]
        body = {"from_uid": "ann", "subscribers": ["a", "b@b"], "payload": HELLO}
        assert await api.post("/message/sendbatch", body) == {"fail_uids": ["b@b"], "reason": ["channel_id_error"]}


async def test_many_messages_at_once(tmp_path: Path) -> None:
    """POST /message/sendbatch with a list of bodies of /message/send: an answer each, at most 1,000."""
    async with api_in(tmp_path) as api:
        await api.post("/channel", {**GROUP, "ban": 1})
        bodies = [message("a", client_msg_no="n1"), message("a", payload=""), message("g", 2), "x"]
        answers = await api.post("/message/sendbatch", bodies)
        assert api.shown(answers) == [
            sent(1, "n1"),
            {"status": 400, "msg": "payload不能为空！", "code": "missing_field"},
            {"status": 19},
            {"status": 400, "msg": "数据格式有误！", "code": "not_an_object"},
        ]
        assert await api.post("/message/sendbatch", []) == []
        before = api.server.broker.statistics().commits_total
        bodies = [message(f"u{number % 7}") for number in range(100)]
        answers = await api.post("/message/sendbatch", [*bodies, {**bodies[0], "from_uid": "eve"}])
        assert [each["message_seq"] for each in answers[:15]] == [1] * 7 + [2] * 7 + [3]
        assert api.server.broker.statistics().commits_total == before + 2
        assert await api.post("/message/sendbatch", [{}] * 1001) == (400, "数据格式有误！: 1001 > 1000")


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("/message/send", message("bob", payload=""), "payload不能为空！"),
        ("/message/send", message("bob", payload="!"), "数据格式有误！: payload (text): base64 with padding"),
        ("/message/send", message("b@b"), "频道ID不合法！"),
        ("/message/send", message("x" * 70_000), "频道ID不合法！: 70000 > 512"),
        ("/message/send", message("bob", 0), "频道类型错误！"),
        ("/message/send", message("bob", subscribers=["a"]), "无法处理发送消息请求！"),
        ("/message/send", {"payload": HELLO}, "无法处理发送消息请求！"),
        ("/message/send", {**message("bob"), "from_uid": "a@b"}, "from_uid不能包含特殊字符！"),
        ("/message/send", message("bob", header={"red_dot": 2}), "数据格式有误！: red_dot (number): 0 or 1"),
        (
            "/message/send",
            message("bob", expire=2**63),
            "数据格式有误！: expire (number): a number from 0 to 4294967295",
        ),
        ("/message/send", message("bob", client_msg_no="x" * 513), "client_msg_no: 513 > 512"),
        ("/message/sendbatch", {"from_uid": "a", "payload": HELLO}, "subscribers不能为空！"),
        ("/message/sendbatch", {"subscribers": ["a"], "payload": HELLO}, "from_uid不能为空！"),
        ("/message/sendbatch", {"from_uid": "a", "subscribers": ["b"]}, "payload不能为空！"),
    ],
)
def test_what_cannot_be_sent(shared: Shared, path: str, body: Any, text: str) -> None:
    assert shared.post(path, body) == (400, text)


async def test_a_full_store_is_named_to_the_sender(tmp_path: Path) -> None:
    """507 like every other write, for one message and for each item of a list, and reading goes on."""
    body = message("g", 2, payload=base64.b64encode(b"x" * 9000).decode())
    async with api_in(tmp_path, core=ServerConfig(store=StoreConfig(map_size=1 << 20))) as api:
        for _ in range(200):
            answer = await api.ask("POST", "/message/send", body)
            if answer.status_code != 200:
                break
        shown = {"msg": "无法处理发送消息请求！: the store is full", "status": 507, "code": "store_full"}
        assert (answer.status_code, answer.json()) == (507, shown)
        assert await api.post("/message/sendbatch", [body]) == [shown]
        assert await api.seqs("g")
