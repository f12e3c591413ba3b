import pytest

from triolet_core._presence import Kick, Presence, kick_for
from triolet_core.compat import CHOICES, Profile
from triolet_core.hooks import PresenceChange, Topic
from triolet_core.model import Device, Event
from triolet_core.testing import MemorySession


def device(*, flag: int = 0, level: int = 0, device_id: str = "d1", uid: str = "u") -> Device:
    return Device(uid=uid, flag=flag, level=level, device_id=device_id)


@pytest.mark.parametrize(
    ("new", "kick"),
    [
        (device(level=1, device_id="d2"), Kick(notify=True)),
        (device(level=1), Kick(notify=False)),
        (device(level=0), Kick(notify=False)),
        (device(level=0, device_id="d2"), None),
        (device(level=1, flag=1, device_id="d2"), None),
    ],
)
def test_who_is_displaced(new: Device, kick: Kick | None) -> None:
    """Source: semantics.md, 4.2."""
    assert kick_for(device(), new, whatever_the_level=False) == kick


def test_limaoim_displaces_every_session_of_the_flag_with_reason_0() -> None:
    kick = kick_for(device(), device(device_id="d2"), whatever_the_level=True)
    assert kick is not None
    assert (kick.notify, kick.reason, kick.grace_s) == (True, 0, 4.0)


def presence() -> tuple[Presence, Topic[PresenceChange]]:
    topic: Topic[PresenceChange] = Topic("presence_changed")
    return Presence(CHOICES[Profile.WUKONGIM_2], topic), topic


def test_a_new_master_kicks_the_older_one_and_is_the_only_one_left() -> None:
    """Conformance 8."""
    book, _ = presence()
    old, new = MemorySession(device(level=1)), MemorySession(device(level=1, device_id="d2"))
    book.register(old)
    book.register(new)
    assert old.kicks == [(12, "login in other device", True)]
    assert list(book.sessions("u")) == [new]
    assert book.count == 1


def test_who_counts_as_reachable() -> None:
    """Source: semantics.md, 5.4: without token authentication any device, with it a master."""
    lax, _ = presence()
    strict = Presence(CHOICES[Profile.WUKONGIM_2], Topic("presence_changed"), only_masters_are_online=True)
    for book in (lax, strict):
        book.register(MemorySession(device(level=0, uid="slave")))
        book.register(MemorySession(device(level=1, uid="master")))
    assert [lax.is_reachable(uid) for uid in ("slave", "master", "nobody")] == [True, True, False]
    assert [strict.is_reachable(uid) for uid in ("slave", "master", "nobody")] == [False, True, False]


async def test_changes_are_told_once_with_the_counts_after_them() -> None:
    """Conformance 14: two web and one app connection, one web goes: 1 of the flag is left, 2 in all."""
    book, topic = presence()
    sessions = [
        MemorySession(device(flag=1, device_id="a")),
        MemorySession(device(flag=1, device_id="b")),
        MemorySession(device(flag=0, device_id="c")),
    ]
    with topic.subscribe() as subscription:
        for session in sessions:
            book.register(session)
        book.unregister(sessions[0])
        book.unregister(sessions[0])
        events = [subscription.receive.receive_nowait() for _ in range(4)]
        assert subscription.receive.statistics().current_buffer_used == 0
    assert [(e.online, e.same_flag, e.total) for e in events] == [
        (True, 1, 1),
        (True, 2, 2),
        (True, 1, 3),
        (False, 1, 2),
    ]


def test_a_memory_session_counts_what_it_is_given() -> None:
    session = MemorySession(device())
    assert session.push_event(Event(id="e", type="t", timestamp=0, data=b"123"))
    seen = session.statistics()
    assert (seen.connection_id, seen.device) == (session.connection_id, device())
    assert (seen.out_messages, seen.out_packets, seen.out_packet_bytes) == (0, 1, 3)
    session.is_full = True
    assert not session.push_event(Event(id="e", type="t", timestamp=0, data=b""))
