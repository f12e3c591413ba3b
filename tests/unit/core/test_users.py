"""Tokens of devices (http-api.md, section 4.1; semantics.md, section 4.1)."""

from pathlib import Path

import pytest
import trio
import trio.testing

from triolet_core import ChannelInfo, ChannelKey, ConnectRequest, Device, DeviceLevel, ReasonCode, ServerConfig
from triolet_core.config import AuthConfig
from triolet_core.testing import MemorySession, open_test_broker


async def test_a_token_is_for_one_flag_and_outlives_a_restart(tmp_path: Path) -> None:
    """Conformance 1 to 3."""
    config = ServerConfig(auth=AuthConfig(token_auth_on=True))
    async with open_test_broker(tmp_path, config) as broker:
        assert await broker.users.set_token("u", 0, DeviceLevel.MASTER, "T") == ReasonCode.SUCCESS
    async with open_test_broker(tmp_path, config) as broker:

        async def connect(flag: int, token: str) -> tuple[int, int]:
            return await broker.users.authenticate(ConnectRequest(uid="u", token=token, device_id="d", flag=flag))

        assert await connect(0, "T") == (ReasonCode.SUCCESS, DeviceLevel.MASTER)
        assert (await connect(0, "t"))[0] == (await connect(1, "T"))[0] == ReasonCode.AUTH_FAIL
        await broker.users.quit_device("u", -1)
        assert (await connect(0, "T"))[0] == (await connect(0, ""))[0] == ReasonCode.AUTH_FAIL


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (ChannelInfo(ban=True), ReasonCode.BAN),
        (ChannelInfo(disband=True), ReasonCode.DISBAND),
        (ChannelInfo(ban=True, disband=True), ReasonCode.BAN),
        (ChannelInfo(send_ban=True), ReasonCode.SUCCESS),
    ],
)
async def test_a_banned_user_gets_no_token_and_keeps_what_he_had(
    tmp_path: Path, info: ChannelInfo, expected: ReasonCode
) -> None:
    """Conformance 5."""
    async with open_test_broker(tmp_path) as broker:
        online = MemorySession(Device(uid="u"))
        broker.presence.register(online)
        await broker.users.set_token("u", 0, DeviceLevel.SLAVE, "old")
        await broker.channels.put_info(ChannelKey("u", 1), info)
        assert await broker.users.set_token("u", 0, DeviceLevel.MASTER, "new") == expected
        device = broker.users.device("u", 0)
        assert device is not None
        assert device.token == ("new" if expected == ReasonCode.SUCCESS else "old")
        assert len(online.kicks) == (expected == ReasonCode.SUCCESS)


async def test_a_cancelled_caller_changes_the_token_and_kicks_whoever_had_the_old_one(tmp_path: Path) -> None:
    async with open_test_broker(tmp_path) as broker:
        online, web = MemorySession(Device(uid="u")), MemorySession(Device(uid="u", flag=1))
        for session in (online, web):
            broker.presence.register(session)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(broker.users.set_token, "u", 0, DeviceLevel.MASTER, "new")
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await broker.flush()
        device = broker.users.device("u", 0)
        assert device is not None
        assert device.token == "new"
        assert (len(online.kicks), len(web.kicks)) == (1, 0)
