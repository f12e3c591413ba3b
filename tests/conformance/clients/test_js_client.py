"""The published JavaScript client (npm, 1.0.4) against a whole server. Needs node and npm; skipped without."""

import base64
import json
import shutil
import subprocess
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
from triolet_core import Server, ServerConfig, open_server
from triolet_gateway import GatewayConfig

HERE = Path(__file__).parent
CONNECTED, KICKED = 1, 4

pytestmark = [pytest.mark.node, pytest.mark.slow]


@pytest.fixture(scope="module")
def node() -> str:
    """Path of node, with the client installed beside this file."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not here")
    if not (HERE / "node_modules" / "wukongimjssdk").exists():
        done = subprocess.run(
            [npm, "ci", "--no-audit", "--no-fund"], cwd=HERE, capture_output=True, text=True, timeout=300
        )
        if done.returncode:
            pytest.skip(f"npm could not install the client: {done.stderr[-300:]}")
    return node


class JsClient:
    """The driver script as a process: JSON lines both ways."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._buffer = b""
        self._waiting: list[dict[str, Any]] = []

    async def do(self, command: str, **arguments: Any) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(json.dumps({"do": command, **arguments}).encode() + b"\n")

    async def wait_for(self, event: str, **values: Any) -> dict[str, Any]:
        """Take the next event with these values; others are kept."""
        while True:
            for each in self._waiting:
                if each["event"] == event and all(each.get(name) == value for name, value in values.items()):
                    self._waiting.remove(each)
                    return each
            await self._read()

    async def _read(self) -> None:
        assert self.process.stdout is not None
        data = await self.process.stdout.receive_some()
        assert data, f"the client ended; waiting were {self._waiting}"
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        self._waiting += [json.loads(line) for line in lines]

    async def connect(self, server: Server, uid: str, token: str) -> None:
        await self.wait_for("ready")
        await self.do("connect", addr=f"ws://{server.broker.endpoints['ws']}", uid=uid, token=token)
        await self.wait_for("status", status=CONNECTED)


@asynccontextmanager
async def js_client(node: str) -> AsyncIterator[JsClient]:
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            lambda task_status: trio.run_process(
                [node, "client.js"],
                cwd=HERE,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                check=False,
                task_status=task_status,
            )
        )
        try:
            yield JsClient(process)
        finally:
            await process.stdin.aclose()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def server_in(path: Path) -> AsyncIterator[tuple[Server, httpx.AsyncClient]]:
    config = ServerConfig()
    config = attrs.evolve(
        config,
        node=attrs.evolve(config.node, data_dir=str(path)),
        auth=attrs.evolve(config.auth, token_auth_on=True),
        sections={
            "api": ApiConfig(http_addr="127.0.0.1:0"),
            "gateway": GatewayConfig(tcp_addr="127.0.0.1:0", ws_addr="127.0.0.1:0"),
        },
    )
    with trio.fail_after(60):
        async with (
            open_server(config, plugins=[triolet_api.plugin, triolet_gateway.plugin]) as server,
            httpx.AsyncClient(base_url=f"http://{server.broker.endpoints['http']}") as http,
        ):
            for uid, flag, level in (("ann", 1, 1), ("bob", 0, 1), ("carl", 1, 1)):
                body = {"uid": uid, "token": f"token of {uid}", "device_flag": flag, "device_level": level}
                assert (await http.post("/user/token", json=body)).json() == {"status": 200}
            yield server, http


async def test_javascript_tcp_and_http_share_one_conversation(tmp_path: Path, node: str) -> None:
    """The JavaScript client over WebSocket, ours over TCP, a backend over HTTP: stored, encrypted, in one line."""
    async with server_in(tmp_path) as (server, http), js_client(node) as ann, client(server) as bob:
        await ann.connect(server, "ann", "token of ann")
        assert await bob.connect("bob", "token of bob") == 1
        await ann.do("send", channel="bob", type=1, text="hello from JavaScript")
        ack = await ann.wait_for("ack")
        assert (ack["seq"], ack["reason"]) == (1, 1)
        recv = await bob.receive()
        assert json.loads(recv.payload)["content"] == "hello from JavaScript"
        assert (recv.from_uid, recv.message_seq) == ("ann", 1)
        await bob.send("ann", json.dumps({"type": 1, "content": "hello from TCP"}).encode())
        message = await ann.wait_for("message", text="hello from TCP")
        assert (message["from"], message["channel"], message["seq"]) == ("bob", "bob", 2)
        payload = base64.b64encode(json.dumps({"type": 1, "content": "hello from HTTP"}).encode()).decode()
        body = {"from_uid": "bob", "channel_id": "ann", "channel_type": 1, "payload": payload}
        sent = (await http.post("/message/send", json=body)).json()
        message = await ann.wait_for("message", text="hello from HTTP")
        assert (message["seq"], message["id"]) == (3, sent["message_idstr"])
        body = {"login_uid": "ann", "channel_id": "bob", "channel_type": 1, "limit": 10}
        page = (await http.post("/channel/messagesync", json=body)).json()
        texts = [json.loads(base64.b64decode(each["payload"]))["content"] for each in page["messages"]]
        assert texts == ["hello from JavaScript", "hello from TCP", "hello from HTTP"]


async def test_two_javascript_clients_chat_in_a_group(tmp_path: Path, node: str) -> None:
    async with server_in(tmp_path) as (server, http), js_client(node) as ann, js_client(node) as carl:
        group = {"channel_id": "team", "channel_type": 2, "subscribers": ["ann", "carl"]}
        await http.post("/channel", json=group)
        await ann.connect(server, "ann", "token of ann")
        await carl.connect(server, "carl", "token of carl")
        for n in range(5):
            await ann.do("send", channel="team", type=2, text=f"number {n}")
        for n in range(5):
            message = await carl.wait_for("message", text=f"number {n}")
            assert (message["channel"], message["type"], message["seq"]) == ("team", 2, n + 1)


async def test_a_second_login_kicks_the_javascript_client(tmp_path: Path, node: str) -> None:
    async with server_in(tmp_path) as (server, _), js_client(node) as old, client(server, "ws") as new:
        await old.connect(server, "ann", "token of ann")
        assert await new.connect("ann", "token of ann", flag=1, device_id="another") == 1
        kicked = await old.wait_for("status", status=KICKED)
        assert kicked["reason"] == 12
        await new.ping()


async def test_a_wrong_token_ends_the_javascript_clients_attempts(tmp_path: Path, node: str) -> None:
    async with server_in(tmp_path) as (server, _), js_client(node) as ann:
        await ann.wait_for("ready")
        await ann.do("connect", addr=f"ws://{server.broker.endpoints['ws']}", uid="ann", token="wrong")
        failed = await ann.wait_for("status", status=3)
        assert failed["reason"] == 2
