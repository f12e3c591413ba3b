"""Watching presence over real sockets, in both protocols. docs/presence.md."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

import triolet_gateway
import triolet_protocol as wire
from tests.integration.test_gateway import DEFAULTS
from tests.jsonclient import JsonClient, json_client
from tests.wkclient import Client, client
from triolet_core import ReasonCode, Server, ServerConfig, open_server
from triolet_core.config import PresenceConfig, Seconds
from triolet_gateway import GatewayConfig

KINDS = pytest.mark.parametrize("kind", ["tcp", "ws"])


@asynccontextmanager
async def server_in(path: Path, **presence: Any) -> AsyncIterator[Server]:
    config = ServerConfig()
    config = attrs.evolve(
        config,
        node=attrs.evolve(config.node, data_dir=str(path)),
        presence=PresenceConfig(**{"watch": "anybody", "interval": Seconds(0.001), **presence}),
        sections={"gateway": GatewayConfig(tcp_addr="127.0.0.1:0", ws_addr="127.0.0.1:0", **DEFAULTS)},
    )
    with trio.fail_after(30):
        async with open_server(config, plugins=[triolet_gateway.plugin]) as server:
            yield server


async def sub(user: Client, channel_id: str, *, action: int = 0, param: Any = None) -> wire.SubAck:
    text = param if isinstance(param, str) else "" if param is None else json.dumps(param)
    await user.send_raw(user.connection.send(wire.Sub(0, "s1", channel_id, 7, action, text)))
    suback = (await user.wait_for(wire.SubAckReceived)).suback
    assert isinstance(suback, wire.SubAck)
    return suback


async def told(user: Client, kind: str = "presence") -> Any:
    """Return the next event's data."""
    event = (await user.wait_for(wire.EventReceived)).event
    assert event.type == kind
    return json.loads(event.data)


async def states(user: Client) -> dict[str, int]:
    """Return the next event as online by uid."""
    return {each["uid"]: each["online"] for each in (await told(user))["users"]}


@KINDS
async def test_a_client_watches_another_come_and_go(tmp_path: Path, kind: str) -> None:
    async with server_in(tmp_path) as server, client(server, kind) as ann:
        await ann.connect("ann")
        assert await sub(ann, "presence:bob?x=1") == wire.SubAck("s1", "presence:bob", 7, 0, ReasonCode.SUCCESS)
        assert await states(ann) == {"bob": 0}
        async with client(server, kind) as bob:
            await bob.connect("bob", flag=1)
            [user] = (await told(ann))["users"]
            [device] = user["devices"]
            assert device.pop("since") > 1_700_000_000
            off = {"level": 0, "last_seen": 0, "logout": 0}
            assert user == {"uid": "bob", "online": 1, "devices": [{"flag": 1, "online": 1, "connections": 1, **off}]}
            await bob.send_raw(bob.connection.send(wire.Disconnect(1, "")))
            [user] = (await told(ann))["users"]
            assert user["devices"][0].pop("last_seen") > 1_700_000_000
            gone = {"flag": 1, "level": 0, "online": 0, "connections": 0, "since": 0, "logout": 1}
            assert user == {"uid": "bob", "online": 0, "devices": [gone]}


async def test_a_json_client_watches_a_list(tmp_path: Path) -> None:
    """`subscribe` and `unsubscribe` are SUB; `param` is an object."""
    async with server_in(tmp_path) as server, json_client(server) as ann, client(server) as bob:
        await ann.connect("ann")
        wish = {"subNo": "s", "channelId": "presence:", "channelType": 7}
        answer = await ann.call("subscribe", **wish, param={"uids": ["bob", "eve"], "expire": 60})
        assert answer["result"] == {**wish, "action": 0, "reasonCode": 1}
        assert await json_states(ann) == {"bob": 0, "eve": 0}
        await bob.connect("bob")
        assert await json_states(ann) == {"bob": 1}
        assert (await ann.call("unsubscribe", **wish, param={"uids": ["bob"]}))["result"]["action"] == 1
        await ann.call("subscribe", **wish)
        assert await json_states(ann) == {"eve": 0}


async def json_states(user: JsonClient) -> dict[str, int]:
    params = (await user.wait_for(method="event"))["params"]
    assert params["type"] == "presence"
    return {each["uid"]: each["online"] for each in json.loads(params["data"])["users"]}


async def test_naming_nobody_repeats_or_ends_all(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server, client(server) as ann:
        await ann.connect("ann")
        await sub(ann, "presence:", param={"uids": ["bob", "eve"]})
        assert await states(ann) == {"bob": 0, "eve": 0}
        assert (await sub(ann, "presence:")).reason_code == ReasonCode.SUCCESS
        assert await states(ann) == {"bob": 0, "eve": 0}
        assert (await sub(ann, "presence:", action=1)).reason_code == ReasonCode.SUCCESS
        assert server.broker.presence_subscriptions.total == 0


async def test_a_refusal_names_its_users_before_the_answer(tmp_path: Path) -> None:
    async with server_in(tmp_path, watch="nobody") as server, client(server) as ann:
        await ann.connect("ann")
        answer = await sub(ann, "presence:bob", param={"uids": ["ann", "eve"]})
        assert answer.reason_code == ReasonCode.NOT_ALLOW_SEND
        assert await told(ann, "presence.refused") == {"sub_no": "s1", "reason": 11, "uids": ["bob", "eve"]}
        assert (await sub(ann, "presence:ann")).reason_code == ReasonCode.SUCCESS
        assert await states(ann) == {"ann": 1}


@pytest.mark.parametrize(
    ("channel_id", "param", "reason"),
    [
        ("presence:", '{"uids":[]}', ReasonCode.CHANNEL_ID_ERROR),
        ("presence:", "[", ReasonCode.CHANNEL_ID_ERROR),
        ("presence:", "[" * 30_000, ReasonCode.CHANNEL_ID_ERROR),
        ("presence:", '["bob"]', ReasonCode.CHANNEL_ID_ERROR),
        ("presence:", '{"uids":"bob"}', ReasonCode.CHANNEL_ID_ERROR),
        ("presence:", '{"uids":[7]}', ReasonCode.CHANNEL_ID_ERROR),
        ("presence:", '{"uids":["\\ud800"]}', ReasonCode.CHANNEL_ID_ERROR),
        ("presence:?uids=bob", "", ReasonCode.CHANNEL_ID_ERROR),
        ("presence:bob?expire=x", "", ReasonCode.CHANNEL_ID_ERROR),
        ("presence:bob?expire=60", "", ReasonCode.SUCCESS),
        ("presence:bob", '{"expire":-1}', ReasonCode.CHANNEL_ID_ERROR),
        ("presence:bob", '{"expire":true}', ReasonCode.CHANNEL_ID_ERROR),
        ("presence:bob", '{"expire":"9"}', ReasonCode.SUCCESS),
        ("presence:", json.dumps({"uids": [str(number) for number in range(201)]}), ReasonCode.RATE_LIMIT),
    ],
)
async def test_what_cannot_be_understood_is_refused_and_the_connection_goes_on(
    tmp_path: Path, channel_id: str, param: str, reason: ReasonCode
) -> None:
    async with server_in(tmp_path) as server, client(server) as ann:
        await ann.connect("ann")
        assert (await sub(ann, channel_id, param=param)).reason_code == reason
        await ann.ping()


async def test_a_client_without_events_cannot_watch(tmp_path: Path) -> None:
    """EVENT is of version 5 (wire-protocol.md, rule 5)."""
    async with server_in(tmp_path) as server, client(server) as ann:
        await ann.connect("ann", version=4)
        assert (await sub(ann, "presence:bob")).reason_code == ReasonCode.NOT_SUPPORT_CHANNEL_TYPE
        assert server.broker.presence_subscriptions.total == 0


async def test_the_end_of_a_connection_ends_its_subscriptions(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server, client(server) as ann:
        await ann.connect("ann")
        await sub(ann, "presence:", param={"uids": ["bob", "eve"]})
        assert server.broker.presence_subscriptions.total == 2
        with server.broker.hooks.presence_changed.subscribe() as changes:
            await ann.stream.aclose()
            await changes.receive.receive()
        assert server.broker.presence_subscriptions.total == 0
        async with client(server) as again, client(server) as bob:
            await again.connect("ann")
            await bob.connect("bob")
            await again.ping()
            assert not [event for event in again.waiting if isinstance(event, wire.EventReceived)]


async def test_a_device_is_told_at_login_what_a_backend_subscribed_it_to(tmp_path: Path) -> None:
    """After the CONNACK, in either protocol."""
    async with server_in(tmp_path, watch="nobody") as server, client(server) as ann, json_client(server) as eve:
        for uid in ("ann", "eve"):
            server.broker.presence_subscriptions.subscribe_user(uid, ["bob"])
        await ann.connect("ann")
        assert await states(ann) == {"bob": 0}
        await eve.connect("eve")
        assert await json_states(eve) == {"bob": 0}
