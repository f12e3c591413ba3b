"""What others may see of a user: each kind of device, online or not, and since when."""

from collections.abc import Callable, Sequence

import attrs

from triolet_core._presence import Presence
from triolet_core._recent import Recent
from triolet_core.session import Session


@attrs.frozen(kw_only=True)
class DeviceStatus:
    """The devices of one flag of a user."""

    flag: int
    online: bool
    level: int = 0
    """The highest of those that are online."""
    connections: int = 0
    since: int = 0
    """Seconds since 1970 when the earliest of those connections began; 0 if none is online."""
    last_seen: int = 0
    """Seconds since 1970 when the last one went; 0 if one is online."""
    logout: bool = False
    """Whether that one said that it leaves, and was not only lost."""


@attrs.frozen(kw_only=True)
class UserStatus:
    """A user. Devices that were never seen since the server started are not among his."""

    uid: str
    devices: tuple[DeviceStatus, ...]
    """By rising flag."""

    @property
    def online(self) -> bool:
        """Whether any device is online."""
        return any(device.online for device in self.devices)


_Gone = tuple[int, int, bool]
"""Flag of a device, when it went, whether it had said so."""


class Statuses:
    """Reads statuses off the sessions, and remembers of the latest users that went when their devices were seen."""

    def __init__(self, presence: Presence, clock_s: Callable[[], float], *, last_seen_count: int) -> None:
        self._presence = presence
        self._clock_s = clock_s
        self._gone: Recent[str, tuple[_Gone, ...]] = Recent(last_seen_count)

    def note(self, session: Session, *, online: bool, logout: bool) -> None:
        """Take note that a session came or went; the sessions are those after the change."""
        uid, flag = session.device.uid, session.device.flag
        if not online and any(each.device.flag == flag for each in self._presence.sessions(uid)):
            return
        others = tuple([gone for gone in self._gone.get(uid, ()) if gone[0] != flag])
        if not online:
            self._gone.keep(uid, (*others, (int(flag), int(self._clock_s()), logout)))
        elif others:
            self._gone[uid] = others
        else:
            self._gone.pop(uid, None)

    def of(self, uid: str) -> UserStatus:
        """Return the status of a user; nobody knows an unknown one, who is just offline."""
        by_flag: dict[int, list[Session]] = {}
        for session in self._presence.sessions(uid):
            by_flag.setdefault(int(session.device.flag), []).append(session)
        devices = [_online(flag, sessions) for flag, sessions in by_flag.items()]
        devices += [
            DeviceStatus(flag=flag, online=False, last_seen=at, logout=logout)
            for flag, at, logout in self._gone.get(uid, ())
        ]
        return UserStatus(uid=uid, devices=tuple(sorted(devices, key=lambda each: each.flag)))


def _online(flag: int, sessions: Sequence[Session]) -> DeviceStatus:
    return DeviceStatus(
        flag=flag,
        online=True,
        level=max(int(each.device.level) for each in sessions),
        connections=len(sessions),
        since=int(min(each.statistics().started_at for each in sessions)),
    )


def status_json(status: UserStatus) -> dict[str, object]:
    """Return a status as clients and backends get it (docs/presence.md)."""
    return {
        "uid": status.uid,
        "online": int(status.online),
        "devices": [
            {
                "flag": each.flag,
                "level": each.level,
                "online": int(each.online),
                "connections": each.connections,
                "since": each.since,
                "last_seen": each.last_seen,
                "logout": int(each.logout),
            }
            for each in status.devices
        ],
    }
