"""A server with the API and the gateway on loopback, and a client that shows its answers with times and ids settled."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import trio

import triolet_api
import triolet_gateway
from triolet_api import ApiConfig
from triolet_core import Server, ServerConfig, open_server
from triolet_gateway import GatewayConfig

TEXT = b'{"type":1,"content":"hello"}'
HELLO = base64.b64encode(TEXT).decode()
OK = {"status": 200}
GROUP = {"channel_id": "g", "channel_type": 2}
JSON = "application/json; charset=utf-8"
_IDS = frozenset({"message_id", "message_idstr"})
_SECONDS = frozenset({"timestamp", "at"})
_NANOSECONDS = frozenset({"created_at", "updated_at", "last_msg_time"})
_TEXTS = frozenset(
    {
        "created_at_format",
        "updated_at_format",
        "last_msg_time_format",
        "timestamp_format",
        "last_append_time",
        "now",
        "last_activity",
        "uptime",
        "idle",
    }
)


def config_of(
    path: Path,
    *,
    profile: str = "wukongim-2",
    token: str = "",
    address: str = "127.0.0.1:0",
    root: Path | None = None,
    mode: str = "release",
    core: ServerConfig | None = None,
    **section: Any,
) -> ServerConfig:
    """Return the settings of a server whose store is in `path`; `section` is the API's, `core` what else differs."""
    config = core or ServerConfig()
    node = attrs.evolve(config.node, data_dir=str(path), root_dir=str(root or path), mode=mode)
    return attrs.evolve(
        config,
        node=node,
        compat=attrs.evolve(config.compat, profile=profile),
        auth=attrs.evolve(config.auth, manager_token=token),
        sections={
            "api": ApiConfig(http_addr=address, **section),
            "gateway": GatewayConfig(tcp_addr="127.0.0.1:0", ws_addr=""),
        },
    )


@attrs.define(eq=False)
class Api:
    """A server and a client of its API."""

    server: Server
    http: httpx.AsyncClient
    ids: dict[str, str] = attrs.Factory(dict)
    """Message ids that were shown, and what they were shown as."""

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """Send a request; a body that is neither bytes nor text goes as JSON."""
        content = body if isinstance(body, (bytes, str)) or body is None else json.dumps(body)
        return await self.http.request(method, path, content=content, headers=headers)

    async def post(self, path: str, body: Any = None, **headers: str) -> Any:
        """Return what the answer says: its JSON with status 200, else (status, `msg`)."""
        return told(await self.ask("POST", path, {} if body is None else body, **headers))

    async def get(self, path: str, **headers: str) -> Any:
        """Return what the answer says, as `post`."""
        return told(await self.ask("GET", path, **headers))

    async def send(self, channel_id: str, kind: int = 1, **more: Any) -> Any:
        """Send a message of ann's and return the answer."""
        return await self.post("/message/send", message(channel_id, kind, **more))

    async def seqs(self, channel_id: str, kind: int = 2, **more: Any) -> list[int]:
        """Return the numbers of the messages of a channel."""
        body = {"login_uid": "ann", "channel_id": channel_id, "channel_type": kind, **more}
        return [each["message_seq"] for each in (await self.post("/channel/messagesync", body))["messages"]]

    async def online(self, uid: str) -> list[tuple[int, str]]:
        """Return the connections of a user as (id, address)."""
        rows = (await self.get(f"/connz?uid={uid}"))["connections"]
        return [(row["id"], row["ip"]) for row in rows]

    def shown(self, value: Any) -> Any:
        """Return an answer with its message ids as #1, #2, … in the order they were first shown, and `T` for times."""
        if isinstance(value, list):
            return [self.shown(each) for each in value]
        if isinstance(value, dict):
            return {name: self._member(name, each) for name, each in value.items()}
        return value

    def _member(self, name: str, value: Any) -> Any:
        if name in _IDS and value not in (0, "0"):
            return self.ids.setdefault(str(value), f"#{len(self.ids) + 1}")
        if (name in _SECONDS and isinstance(value, int) and 1.7e9 < value < 1e10) or (
            name in _NANOSECONDS and isinstance(value, int) and 1.7e18 < value < 1e19
        ):
            return "T"
        if (name in _TEXTS or name in _NANOSECONDS) and isinstance(value, str) and value:
            return "T"
        return self.shown(value)


def told(answer: httpx.Response) -> Any:
    """Return the JSON of an answer with status 200, else (status, `msg`)."""
    assert answer.headers["content-type"] == JSON, answer.text
    shown = answer.json()
    return shown if answer.status_code == 200 else (answer.status_code, shown["msg"])


def message(channel_id: str, kind: int = 1, **more: Any) -> dict[str, Any]:
    """Return the body of a message of ann's."""
    return {"from_uid": "ann", "channel_id": channel_id, "channel_type": kind, "payload": HELLO, **more}


def sent(seq: int, number: str, name: str = "#1") -> dict[str, Any]:
    """Return the answer to a message that was stored."""
    data = {"message_id": name, "message_idstr": name, "message_seq": seq, "client_msg_no": number}
    return {"status": 200, **data, "data": data}


def stored(seq: int, number: str, name: str = "#1", **more: Any) -> dict[str, Any]:
    """Return a message of ann's as it is read back from group `g`."""
    return {
        "header": {"no_persist": 0, "red_dot": 0, "sync_once": 0},
        "setting": 0,
        "message_id": name,
        "message_idstr": name,
        "client_msg_no": number,
        "message_seq": seq,
        "from_uid": "ann",
        "channel_id": "g",
        "channel_type": 2,
        "expire": 0,
        "timestamp": "T",
        "payload": HELLO,
        **more,
    }


def page(*messages: Any, start: int = 0, end: int = 0, more: int = 0) -> dict[str, Any]:
    """Return a page of messages."""
    return {"start_message_seq": start, "end_message_seq": end, "more": more, "messages": list(messages)}


@asynccontextmanager
async def api_in(path: Path, **settings: Any) -> AsyncIterator[Api]:
    """Run a server; see `config_of` for the settings."""
    config = config_of(path, **settings)
    with trio.fail_after(30):
        async with (
            open_server(config, plugins=[triolet_api.plugin, triolet_gateway.plugin]) as server,
            httpx.AsyncClient(base_url=f"http://{server.broker.endpoints['http']}") as http,
        ):
            yield Api(server, http)
