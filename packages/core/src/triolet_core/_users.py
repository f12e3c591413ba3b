"""Users: tokens, devices, system accounts, and who may connect."""

import hmac
from collections.abc import Sequence

import cachetools

from triolet_core._channels import Channels, refusal_of
from triolet_core._presence import Presence
from triolet_core.config import AuthConfig
from triolet_core.hooks import Hooks
from triolet_core.model import (
    FORBIDDEN_ID_CHARACTERS,
    MAX_ID_BYTES,
    RESERVED_UIDS,
    SYSTEM_DEVICE_ID,
    ChannelKey,
    ChannelType,
    ConnectRequest,
    DeviceFlag,
    DeviceLevel,
    DeviceToken,
    ReasonCode,
    UserInfo,
    slot_of,
)
from triolet_core.store import Store, _queries
from triolet_core.store._sealer import Sealer
from triolet_core.store._tables import PutDevice

TOKEN_KICK_TEXT = "账号在其他设备上登录"  # noqa: S105  # what the reference tells the client
TOKEN_KICK_GRACE_S = 10.0
QUIT_GRACE_S = 2.0
_FORBIDDEN = frozenset(FORBIDDEN_ID_CHARACTERS + "\0")
_REMEMBERED = 4_096
"""Users whose tokens' changes are counted: many more than there are changes while somebody logs in."""


class Users:
    """Reads and changes of users."""

    def __init__(
        self,
        store: Store,
        channels: Channels,
        presence: Presence,
        hooks: Hooks,
        config: AuthConfig,
        *,
        kicks_whatever_the_level: bool,
    ) -> None:
        self._store = store
        self._channels = channels
        self._presence = presence
        self._hooks = hooks
        self._config = config
        self._kicks_whatever_the_level = kicks_whatever_the_level
        self._revisions: cachetools.LRUCache[str, int] = cachetools.LRUCache(_REMEMBERED)

    def revision(self, uid: str) -> int:
        """Return a number that is another one after a token of this user was set or cleared."""
        return self._revisions.get(uid, 0)

    def _revise(self, uid: str) -> None:
        self._revisions[uid] = self._revisions.get(uid, 0) + 1

    async def authenticate(self, request: ConnectRequest) -> tuple[ReasonCode, DeviceLevel]:
        """Decide as `authenticate_nowait` does, after whatever has to be waited for. Not a checkpoint otherwise."""
        return self.authenticate_nowait(request)

    def authenticate_nowait(self, request: ConnectRequest) -> tuple[ReasonCode, DeviceLevel]:
        """Decide whether a device may connect, and its level (semantics.md, section 4.1).

        An id that nobody may have, a reserved one and a wrong token are AUTH_FAIL, a banned user BAN.

        Raises:
            WouldBlock: Somebody has to be asked who may take his time; core itself knows everything.
        """
        if not is_valid_uid(request.uid) or request.device_id == SYSTEM_DEVICE_ID:
            return ReasonCode.AUTH_FAIL, DeviceLevel.SLAVE
        level = self._level(request)
        if level is None:
            return ReasonCode.AUTH_FAIL, DeviceLevel.SLAVE
        info = self._channels.known.person_info(request.uid)
        if info is not None and info.ban:
            return ReasonCode.BAN, DeviceLevel.SLAVE
        return ReasonCode.SUCCESS, level

    def _level(self, request: ConnectRequest) -> DeviceLevel | None:
        config = self._config
        if request.uid == config.manager_uid:
            # A manager without a configured token could be anybody.
            is_right = bool(config.manager_token) and _same(request.token, config.manager_token)
            return DeviceLevel.SLAVE if is_right else None
        if request.uid in RESERVED_UIDS:
            return None
        if not config.token_auth_on:
            return DeviceLevel.SLAVE
        if config.visitors_on and request.uid.endswith(config.visitors_suffix):
            return DeviceLevel.SLAVE
        stored = self._store.read_facts(lambda txn: _queries.device(txn, request.uid, request.flag))
        if stored is None or not stored.token or not _same(request.token, stored.token):
            return None
        return DeviceLevel.MASTER if stored.level == DeviceLevel.MASTER else DeviceLevel.SLAVE

    async def set_token(self, uid: str, flag: int, level: int, token: str) -> ReasonCode:
        """Set the token of one device flag; with level MASTER its open connections are kicked.

        Returns BAN or DISBAND, with nothing changed, if the user's person channel is.
        """
        whatever = self._kicks_whatever_the_level
        reasons: list[ReasonCode] = []

        def function(sealer: Sealer) -> ReasonCode:
            reasons.append(_set_token(sealer, uid, flag, level, token))
            return reasons[-1]

        def after() -> None:
            self._revise(uid)
            if reasons[-1] == ReasonCode.SUCCESS and (level == DeviceLevel.MASTER or whatever):
                reason = ReasonCode.UNKNOWN if whatever else ReasonCode.CONNECT_KICK
                self._presence.quit(uid, flag, reason, TOKEN_KICK_TEXT, TOKEN_KICK_GRACE_S)

        return await self._store.writer.change(function, after=after)

    async def quit_device(self, uid: str, flag: int) -> None:
        """Clear the token of a device flag (-1: app, web and pc) and kick its connections."""
        flags = (DeviceFlag.APP, DeviceFlag.WEB, DeviceFlag.PC) if flag == -1 else (flag,)

        def function(sealer: Sealer) -> None:
            for each in flags:
                _put_device(sealer, uid, each, "", DeviceLevel.MASTER)

        def after() -> None:
            self._revise(uid)
            for each in flags:
                self._presence.quit(uid, each, ReasonCode.CONNECT_KICK, "", QUIT_GRACE_S)

        await self._store.writer.change(function, after=after)

    async def info(self, uid: str) -> UserInfo | None:
        """Return what a data source knows of a user, None if there is none or it cannot say.

        Raises:
            BackendError: It failed and has no failure answer.
        """
        return await self._hooks.user_info.ask(uid)

    def device(self, uid: str, flag: int) -> DeviceToken | None:
        """Return what is stored for a device flag."""
        return self._store.read_facts(lambda txn: _queries.device(txn, uid, flag))

    async def add_system_uids(self, uids: Sequence[str]) -> None:
        """Make uids system accounts."""
        await self._channels.change_system_uids(uids, ())

    async def remove_system_uids(self, uids: Sequence[str]) -> None:
        """Make system accounts ordinary users."""
        await self._channels.change_system_uids((), uids)

    def system_uids(self) -> list[str]:
        """Return the system accounts, sorted."""
        return self._channels.system_uids()

    def is_system(self, uid: str) -> bool:
        """Whether a uid is a system account."""
        return self._channels.is_system(uid)


def _set_token(sealer: Sealer, uid: str, flag: int, level: int, token: str) -> ReasonCode:
    record = _queries.channel_record(sealer.txn, ChannelKey(uid, ChannelType.PERSON))
    reason = refusal_of(record.info if record is not None else None)
    if reason == ReasonCode.SUCCESS:
        _put_device(sealer, uid, flag, token, level)
    return reason


def _put_device(sealer: Sealer, uid: str, flag: int, token: str, level: int) -> None:
    known = _queries.device(sealer.txn, uid, int(flag))
    created = known.created if known is not None else sealer.now
    device = DeviceToken(token=token, level=int(level), created=created, updated=sealer.now)
    sealer.emit(PutDevice(slot_of(uid), uid, int(flag), device))


def is_valid_uid(uid: str) -> bool:
    """Whether a client may have this uid: not blank, none of `@ # &` or NUL, at most 512 bytes, not `____system`."""
    return bool(uid.strip()) and _FORBIDDEN.isdisjoint(uid) and len(uid.encode()) <= MAX_ID_BYTES


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())
