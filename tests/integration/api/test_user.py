"""Users: tokens, devices, who is online, system accounts. http-api.md, section 4."""

from pathlib import Path

import pytest

import triolet_protocol as wire
from tests.integration.api.conftest import Shared
from tests.integration.api.support import GROUP, OK, api_in
from tests.wkclient import client
from triolet_core import Device, ReasonCode
from triolet_core.testing import MemorySession


async def test_a_token_is_stored_for_one_device_flag(tmp_path: Path) -> None:
    """POST /user/token: an upsert; names match without regard to case and unknown ones are ignored."""
    async with api_in(tmp_path) as api:
        assert await api.post("/user/token", {"UID": "ann", "Token": "t1", "unknown": 1}) == OK
        assert await api.post("/user/token", {"uid": "ann", "token": "t2", "device_flag": 1, "device_level": 1}) == OK
        assert await api.post("/user/token", {"uid": "ann", "token": "t2", "device_flag": 1, "device_level": 1}) == OK
        users = api.server.broker.users
        stored = [users.device("ann", flag) for flag in (0, 1, 2)]
        assert [each and (each.token, each.level) for each in stored] == [("t1", 0), ("t2", 1), None]


@pytest.mark.parametrize(("level", "kicks"), [(1, [(12, "账号在其他设备上登录", True)]), (0, [])])
async def test_a_masters_new_token_displaces_what_is_connected(
    tmp_path: Path, level: int, kicks: list[tuple[int, str, bool]]
) -> None:
    async with api_in(tmp_path) as api:
        same, other = (MemorySession(Device(uid="ann", flag=flag)) for flag in (1, 0))
        for session in (same, other):
            api.server.broker.presence.register(session)
        body = {"uid": "ann", "token": "t", "device_flag": 1, "device_level": level}
        assert await api.post("/user/token", body) == OK
        assert (same.kicks, other.kicks) == (kicks, [])


@pytest.mark.parametrize(("flag", "status"), [("ban", 19), ("disband", 24)])
async def test_a_closed_user_gets_no_token(tmp_path: Path, flag: str, status: int) -> None:
    async with api_in(tmp_path) as api:
        await api.post("/channel/info", {"channel_id": "ann", "channel_type": 1, flag: 1})
        assert await api.post("/user/token", {"uid": "ann", "token": "t"}) == {"status": status}
        assert api.server.broker.users.device("ann", 0) is None


async def test_a_device_quits(tmp_path: Path) -> None:
    """POST /user/device_quit: the token is gone, the client is told reason 12; −1 is app, web and pc; unknown is OK."""
    async with api_in(tmp_path) as api, client(api.server) as ann:
        assert await ann.connect("ann", flag=1) == ReasonCode.SUCCESS
        for flag in (0, 1, 2):
            await api.post("/user/token", {"uid": "ann", "token": "t", "device_flag": flag})
        assert await api.post("/user/device_quit", {"uid": "ann", "device_flag": 0}) == OK
        await ann.ping()
        assert await api.post("/user/device_quit", {"uid": "ann", "device_flag": -1}) == OK
        kicked = (await ann.wait_for(wire.DisconnectReceived)).disconnect
        assert (kicked.reason_code, kicked.reason) == (12, "")
        stored = [api.server.broker.users.device("ann", flag) for flag in (0, 1, 2)]
        assert [each and each.token for each in stored] == ["", "", ""]
        assert await api.post("/user/device_quit", {"uid": "nobody"}) == OK
        refused = await api.post("/user/device_quit", {"uid": "ann", "device_flag": 7})
        assert refused == (400, "device_flag错误！")


async def test_who_is_online(tmp_path: Path) -> None:
    """POST /user/onlinestatus: a row per connection, twice for a uid that is asked twice; array or `{"uids":…}`."""
    async with api_in(tmp_path) as api:
        for flag in (0, 1):
            api.server.broker.presence.register(MemorySession(Device(uid="ann", flag=flag)))
        rows = [{"uid": "ann", "device_flag": flag, "online": 1} for flag in (0, 1)]
        assert await api.post("/user/onlinestatus", ["ann", "bob"]) == rows
        assert await api.post("/user/onlinestatus", {"UIDs": ["ann"]}) == rows
        assert await api.post("/user/onlinestatus", ["ann", "ann"]) == rows + rows
        assert await api.post("/user/onlinestatus", ["bob"]) == []
        for nobody in ([], {"uids": []}, {}, b"null"):
            assert await api.post("/user/onlinestatus", nobody) == OK
        assert await api.post("/user/onlinestatus", b"5") == (400, "数据格式有误！")


async def test_system_accounts(tmp_path: Path) -> None:
    """POST /user/systemuids_add and _remove, LiMaoIM's paths too; GET is sorted, `[]` for none; blanks are skipped."""
    async with api_in(tmp_path) as api:
        assert await api.get("/user/systemuids") == []
        assert await api.post("/user/systemuids_add", {"uids": ["s2", "s1", "", " "]}) == OK
        assert await api.post("/systemuids_add", {"uids": ["s3", "s1"]}) == OK
        assert await api.get("/user/systemuids") == ["s1", "s2", "s3"]
        assert await api.post("/user/systemuids_remove", {"uids": ["s2", "nobody"]}) == OK
        assert await api.post("/systemuids_remove", {"uids": ["s3"]}) == OK
        assert await api.get("/user/systemuids") == ["s1"]
        for empty in ({}, {"uids": []}, b"null"):
            assert await api.post("/user/systemuids_add", empty) == OK
            assert await api.post("/user/systemuids_remove", empty) == OK
    async with api_in(tmp_path) as api:
        assert await api.get("/user/systemuids") == ["s1"]


async def test_cached_system_accounts_are_not_listed_and_pass_every_list(tmp_path: Path) -> None:
    """POST /user/systemuids_add_to_cache, _remove_from_cache: this node's memory only."""
    async with api_in(tmp_path) as api, client(api.server) as bot:
        await api.post("/channel", {**GROUP, "subscribers": ["ann"]})
        await bot.connect("bot")
        assert (await bot.send("g", channel_type=2)).reason_code == ReasonCode.SUBSCRIBER_NOT_EXIST
        assert await api.post("/user/systemuids_add_to_cache", {"uids": ["bot"]}) == OK
        assert await api.get("/user/systemuids") == []
        assert (await bot.send("g", channel_type=2)).reason_code == ReasonCode.SUCCESS
        assert await api.post("/user/systemuids_remove_from_cache", {"uids": ["bot"]}) == OK
        assert (await bot.send("g", channel_type=2)).reason_code == ReasonCode.SUBSCRIBER_NOT_EXIST


async def test_a_plugin_is_bound_in_the_old_form(tmp_path: Path) -> None:
    """POST /user/update_plugin_no: the same binding as POST /plugin/bind; an empty number unbinds."""
    async with api_in(tmp_path) as api:
        assert await api.post("/user/update_plugin_no", {"uid": "bot", "plugin_no": "wk.ai"}) == OK
        [row] = await api.get("/plugin/bind")
        assert api.shown(row) == {"plugin_no": "wk.ai", "uid": "bot", "created_at": "T", "updated_at": "T"}
        assert await api.post("/user/update_plugin_no", {"uid": "bot", "plugin_no": ""}) == OK
        assert await api.get("/plugin/bind") == []
        assert await api.post("/user/update_plugin_no", {}) == (400, "uid不能为空！")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"null", "uid不能为空！"),
        ({"uid": " ", "token": "t"}, "uid不能为空！"),
        ({"uid": "a"}, "token不能为空！"),
        ({"uid": "a@b", "token": "t"}, "uid不能包含特殊字符！"),
        ({"uid": "____system", "token": "t"}, "系统账号不允许更新token！"),
        ({"uid": "a", "token": "t", "device_flag": 7}, "device_flag错误！"),
        ({"uid": "a", "token": "t", "device_level": 9}, "数据格式有误！: device_level (number): a number from 0 to 1"),
        ({"uid": "a" * 513, "token": "t"}, "uid: 513 > 512"),
    ],
)
def test_no_token_for_what_is_no_user(shared: Shared, body: object, text: str) -> None:
    assert shared.post("/user/token", body) == (400, text)
