"""Which sessions are online for a uid, and which of them a new one displaces."""

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import Protocol

import attrs

from triolet_core.compat import Compat
from triolet_core.hooks import PresenceChange, Topic
from triolet_core.model import Device, DeviceLevel, ReasonCode
from triolet_core.session import Session

KICK_TEXT = "login in other device"
LIMAO_KICK_TEXT = "Account login on other devices"
KICK_GRACE_S = 2.0
LIMAO_KICK_GRACE_S = 4.0
MOST_CHANGES = 1024
"""Changes that are remembered for `changed_since`."""


@attrs.frozen
class Kick:
    """How an older session ends."""

    notify: bool
    reason: int = ReasonCode.CONNECT_KICK
    text: str = KICK_TEXT
    grace_s: float = KICK_GRACE_S


def kick_for(old: Device, new: Device, *, whatever_the_level: bool) -> Kick | None:
    """Return how `old` ends when `new` of the same uid logs in, None if it stays.

    Source: semantics.md, section 4.2.
    """
    if old.flag != new.flag:
        return None
    if whatever_the_level:
        return Kick(notify=True, reason=ReasonCode.UNKNOWN, text=LIMAO_KICK_TEXT, grace_s=LIMAO_KICK_GRACE_S)
    if new.level == DeviceLevel.MASTER:
        return Kick(notify=old.device_id != new.device_id)
    return Kick(notify=False) if old.device_id == new.device_id else None


class Observer(Protocol):
    """Whoever has to know at once that a session came or went."""

    def __call__(self, session: Session, *, online: bool, logout: bool) -> None:
        """Take note; the sessions are those after the change."""
        ...


class Presence:
    """The sessions of this node, by uid. A kicked session no longer counts, whatever its socket does."""

    def __init__(
        self, compat: Compat, changed: Topic[PresenceChange], *, only_masters_are_online: bool = False
    ) -> None:
        self._compat = compat
        self._only_masters = only_masters_are_online
        self._changed = changed
        self._by_uid: dict[str, list[Session]] = {}
        self._count = 0
        self._observers: list[Observer] = []
        self._changes: deque[str] = deque(maxlen=MOST_CHANGES)
        self.version = 0
        """Number of sessions that have come or gone."""

    def observe(self, observer: Observer) -> None:
        """Tell `observer` of every change from now on, before anybody else; it must not wait nor raise."""
        self._observers.append(observer)

    @property
    def count(self) -> int:
        """Sessions online."""
        return self._count

    @property
    def user_count(self) -> int:
        """Users with a session."""
        return len(self._by_uid)

    def sessions(self, uid: str) -> Sequence[Session]:
        """Return the sessions of a uid; do not keep it."""
        return self._by_uid.get(uid, ())

    def is_reachable(self, uid: str) -> bool:
        """Whether a device of this uid counts as online for msg.offline: any, or any master (semantics.md, 5.4)."""
        sessions = self.sessions(uid)
        if not self._only_masters:
            return bool(sessions)
        return any(session.device.level == DeviceLevel.MASTER for session in sessions)

    def online_among(self, uids: "frozenset[str] | set[str]") -> Iterable[str]:
        """Return those of `uids` that have a session."""
        return self._by_uid.keys() & uids

    def online_uids(self) -> Iterable[str]:
        """Return the users with a session."""
        return self._by_uid.keys()

    def all_sessions(self) -> Iterable[Session]:
        """Return every session; to be gone through without a checkpoint."""
        return chain.from_iterable(self._by_uid.values())

    def register(self, session: Session) -> None:
        """Add a session; those that it displaces are kicked first."""
        device = session.device
        for old in tuple(self._by_uid.get(device.uid, ())):
            kick = kick_for(old.device, device, whatever_the_level=self._compat.kicks_whatever_the_level)
            if kick is not None:
                self._kick(old, kick)
        self._by_uid.setdefault(device.uid, []).append(session)
        self._note(device.uid)
        self._count += 1
        self._publish(session, online=True)

    def unregister(self, session: Session, *, logout: bool = False) -> None:
        """Remove a session; calling it again has no effect. `logout`: its client said that it leaves."""
        uid = session.device.uid
        sessions = self._by_uid.get(uid)
        if sessions is None or session not in sessions:
            return
        sessions.remove(session)
        self._note(uid)
        if not sessions:
            del self._by_uid[uid]
        self._count -= 1
        self._publish(session, online=False, logout=logout)

    def _note(self, uid: str) -> None:
        self.version += 1
        self._changes.append(uid)

    def changed_since(self, version: int) -> Iterable[str] | None:
        """Return whose sessions have changed since an older `version`; None if that is too long ago to know."""
        count = self.version - version
        return islice(reversed(self._changes), count) if count <= MOST_CHANGES else None

    def quit(self, uid: str, flag: int | None, reason: int, text: str, grace_s: float) -> int:
        """Kick the sessions of a uid, of one device flag or all (None). Returns how many."""
        leaving = [each for each in self.sessions(uid) if flag is None or each.device.flag == flag]
        for session in leaving:
            self._kick(session, Kick(notify=True, reason=reason, text=text, grace_s=grace_s))
        return len(leaving)

    def dismiss(self, session: Session, reason: int, text: str, *, notify: bool, grace_s: float) -> None:
        """Kick one session."""
        self._kick(session, Kick(notify=notify, reason=reason, text=text, grace_s=grace_s))

    def _kick(self, session: Session, kick: Kick) -> None:
        session.kick(kick.reason, kick.text, notify=kick.notify, grace_s=kick.grace_s)
        self.unregister(session)

    def _publish(self, session: Session, *, online: bool, logout: bool = False) -> None:
        for observer in self._observers:
            observer(session, online=online, logout=logout)
        if not self._changed.has_subscribers:
            return
        device = session.device
        sessions = self.sessions(device.uid)
        self._changed.publish(
            PresenceChange(
                device=device,
                connection_id=session.connection_id,
                online=online,
                same_flag=sum(each.device.flag == device.flag for each in sessions),
                total=len(sessions),
                logout=logout,
            )
        )
