"""A data source: python examples/datasource/source.py [HOST:PORT]. Copy it and put your own tables in.

The IM server asks it who belongs to a group, who may not write, who is a system account, and what things are called.
"""

import socket
import sys
from collections.abc import Callable
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import request
from quart_trio import QuartTrio

# Yours would be in a database.
USERS = {
    "ann": {"uid": "ann", "name": "Ann", "avatar": "https://example.com/ann.png", "remark": "team lead"},
    "bob": {"uid": "bob", "name": "Bob", "avatar": "https://example.com/bob.png"},
}
GROUPS = {
    "team": {"name": "The team", "members": ["ann", "bob", "carl"], "speakers": []},
    "news": {"name": "News", "members": ["ann", "bob", "carl"], "speakers": ["ann"]},
}
BLOCKED = {"bob": ["carl"]}
SYSTEM_ACCOUNTS = ["helpdesk"]

PERSON, GROUP = 1, 2


def members(channel_id: str, channel_type: int) -> list[str]:
    """Return who may write to a group and gets its messages. An empty list: nobody."""
    return GROUPS[channel_id]["members"] if channel_type == GROUP and channel_id in GROUPS else []


def blocked(channel_id: str, channel_type: int) -> list[str]:
    """Return who may not write: to a person, whose uid the id is then, or to a group."""
    return BLOCKED.get(channel_id, []) if channel_type == PERSON else []


def speakers(channel_id: str, channel_type: int) -> list[str]:
    """Return who alone may write. An empty list: every member."""
    return GROUPS[channel_id]["speakers"] if channel_type == GROUP and channel_id in GROUPS else []


COMMANDS: dict[str, Callable[..., list[str]]] = {
    "getSubscribers": members,
    "getBlacklist": blocked,
    "getWhitelist": speakers,
    "getSystemUIDs": lambda: SYSTEM_ACCOUNTS,
}

app = QuartTrio(__name__)


@app.post("/datasource")
async def command() -> Any:
    """Answer {"cmd": ..., "data": {...}} with a bare list."""
    body = await request.get_json(force=True)
    answer = COMMANDS.get(body["cmd"])
    return ([], 404) if answer is None else answer(**(body.get("data") or {}))


@app.get("/datasource/channel/info")
async def channel_info() -> Any:
    """What a channel is called, and perhaps its flags: large, ban, disband (asked with datasource.channelInfoOn)."""
    channel_id, channel_type = request.args["channel_id"], int(request.args["channel_type"])
    group = GROUPS.get(channel_id) if channel_type == GROUP else None
    if group is None:
        return {}, 404
    return {"channel_id": channel_id, "channel_type": channel_type, "name": group["name"]}


@app.get("/datasource/user/info")
async def user_info() -> Any:
    """What a user is called (asked with datasource.userInfoOn)."""
    user = USERS.get(request.args["uid"])
    return ({}, 404) if user is None else user


async def main(address: str) -> None:
    """Serve until interrupted; port 0 takes a free one."""
    host, _, port = address.rpartition(":")
    listener = socket.create_server((host, int(port)), backlog=100)
    print(f"http://{host}:{listener.getsockname()[1]}/datasource", flush=True)
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    await serve(app, config)


if __name__ == "__main__":
    try:
        trio.run(main, *sys.argv[1:2] or ["127.0.0.1:8090"])
    except KeyboardInterrupt:
        sys.exit(0)
