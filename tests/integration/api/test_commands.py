"""Command messages: each handed out until it is acknowledged, once after. http-api.md, section 6.3."""

from pathlib import Path

import attrs

from tests.integration.api.conftest import Shared
from tests.integration.api.support import GROUP, OK, Api, api_in, stored

SYNC_ONCE = {"sync_once": 1}
FLAGS = {"no_persist": 0, "red_dot": 0, "sync_once": 1}


async def numbers(api: Api, uid: str, **more: int) -> list[str]:
    """Return the client's numbers of the commands that wait."""
    return [each["client_msg_no"] for each in await api.post("/message/sync", {"uid": uid, **more})]


async def test_a_command_waits_until_it_is_acknowledged(tmp_path: Path) -> None:
    """POST /message/sync and /message/syncack: `message_seq` is the place in the user's queue; channels are real."""
    async with api_in(tmp_path) as api:
        await api.post("/channel", {**GROUP, "subscribers": ["ann", "bob"]})
        await api.send("bob", header=SYNC_ONCE, client_msg_no="c1")
        await api.send("g", 2, header=SYNC_ONCE, client_msg_no="c2")
        await api.send("g", 2, client_msg_no="no command")
        shown = [
            stored(1, "c1", "#1", header=FLAGS, channel_id="bob", channel_type=1),
            stored(2, "c2", "#2", header=FLAGS),
        ]
        for _ in range(2):
            assert api.shown(await api.post("/message/sync", {"uid": "bob", "message_seq": 0, "limit": 10})) == shown
        assert await numbers(api, "bob", limit=1) == ["c1"]
        assert await api.post("/message/syncack", {"uid": "bob", "last_message_seq": 1}) == OK
        assert await numbers(api, "bob") == ["c2"]
        assert await api.post("/message/syncack", {"uid": "bob", "last_message_seq": 2**62}) == OK
        assert await numbers(api, "bob") == []
        assert await numbers(api, "ann") == ["c1", "c2"]
        assert await api.post("/message/syncack", {"uid": "nobody", "last_message_seq": 5}) == OK
        assert await numbers(api, "nobody") == []


async def test_what_was_never_handed_out_cannot_be_acknowledged(tmp_path: Path) -> None:
    async with api_in(tmp_path) as api:
        await api.send("bob", header=SYNC_ONCE, client_msg_no="c1")
        assert await numbers(api, "bob") == ["c1"]
        await api.send("bob", header=SYNC_ONCE, client_msg_no="c2")
        await api.post("/message/syncack", {"uid": "bob", "last_message_seq": 99})
        assert await numbers(api, "bob") == ["c2"]


async def test_an_acknowledgement_survives_a_restart(tmp_path: Path) -> None:
    async with api_in(tmp_path) as api:
        for number in ("c1", "c2"):
            await api.send("bob", header=SYNC_ONCE, client_msg_no=number)
        await numbers(api, "bob")
        await api.post("/message/syncack", {"uid": "bob", "last_message_seq": 1})
    async with api_in(tmp_path) as api:
        assert await numbers(api, "bob") == ["c2"]


async def test_the_default_page_is_200(tmp_path: Path) -> None:
    async with api_in(tmp_path) as api:
        body = {"from_uid": "ann", "channel_id": "bob", "channel_type": 1, "payload": "aGk=", "header": SYNC_ONCE}
        await api.post("/message/sendbatch", [body] * 205)
        assert len(await numbers(api, "bob")) == 200
        assert len(await numbers(api, "bob", limit=1000)) == 205


def test_what_is_wrong(shared: Shared) -> None:
    assert shared.post("/message/sync", {}) == (400, "用户uid不能为空！")
    assert shared.post("/message/sync", {"uid": "a", "limit": -1}) == (400, "limit不能为负数！")
    assert shared.post("/message/syncack", {"last_message_seq": 1}) == (400, "用户UID不能为空！")
    assert shared.post("/message/syncack", {"uid": "a"}) == (400, "最后一次messageSeq不能为0！")


async def test_nothing_is_handed_out_where_it_is_off(tmp_path: Path) -> None:
    """`disableCMDMessageSync`."""
    async with api_in(tmp_path) as api:
        await api.send("bob", header=SYNC_ONCE)
        broker = api.server.broker
        off = attrs.evolve(broker.config, message=attrs.evolve(broker.config.message, disable_command_sync=True))
        broker.config = off
        assert await numbers(api, "bob") == []
        assert await api.post("/message/syncack", {"uid": "bob", "last_message_seq": 1}) == OK
