"""Who of a large channel is online is kept from message to message, and never out of date."""

import random
import weakref

from triolet_core._audience import KEPT_SESSIONS, SMALL, Audiences
from triolet_core._presence import MOST_CHANGES, Presence
from triolet_core.compat import CHOICES, Profile
from triolet_core.hooks import Topic
from triolet_core.model import ChannelKey, Device
from triolet_core.testing import MemorySession

GROUP = ChannelKey("big", 2)
MEMBERS = frozenset(f"m{n}" for n in range(SMALL + 100))


def presence() -> Presence:
    return Presence(CHOICES[Profile.WUKONGIM_2], Topic("presence_changed"))


def come(there: Presence, uid: str, flag: int = 0) -> MemorySession:
    session = MemorySession(Device(uid=uid, device_id=uid, flag=flag))
    there.register(session)
    return session


def test_who_comes_and_goes_is_seen() -> None:
    there = presence()
    audiences = Audiences(there)
    assert list(audiences.sessions(GROUP, MEMBERS)) == []
    one = come(there, "m1")
    assert list(audiences.sessions(GROUP, MEMBERS)) == [one]
    come(there, "stranger")
    first = audiences.sessions(GROUP, MEMBERS)
    assert audiences.sessions(GROUP, MEMBERS) is first
    other = come(there, "m1", flag=1)
    assert set(audiences.sessions(GROUP, MEMBERS)) == {one, other}
    there.unregister(one)
    assert list(audiences.sessions(GROUP, MEMBERS)) == [other]


def test_who_displaces_another_takes_his_place() -> None:
    there = presence()
    audiences = Audiences(there)
    come(there, "m1")
    audiences.sessions(GROUP, MEMBERS)
    newer = come(there, "m1")
    assert list(audiences.sessions(GROUP, MEMBERS)) == [newer]


def test_other_members_are_looked_at_anew() -> None:
    there = presence()
    audiences = Audiences(there)
    one = come(there, "m1")
    assert list(audiences.sessions(GROUP, MEMBERS)) == [one]
    assert list(audiences.sessions(GROUP, MEMBERS - {"m1"})) == []
    assert list(audiences.sessions(GROUP, MEMBERS)) == [one]


def test_those_who_have_gone_are_not_kept_for_long() -> None:
    """Also if the channel never has a message again."""
    there = presence()
    audiences = Audiences(there)
    gone = come(there, "m1")
    audiences.sessions(GROUP, MEMBERS)
    there.unregister(gone)
    is_kept = weakref.ref(gone)
    del gone
    for number in range(2 * MOST_CHANGES):
        come(there, f"stranger{number}")
    assert is_kept() is None


def test_a_look_for_what_is_old_is_no_use() -> None:
    there = presence()
    members = frozenset(come(there, f"m{number}").device.uid for number in range(KEPT_SESSIONS // 2 - 1))
    audiences = Audiences(there)
    come(there, "stranger")
    first, second = ChannelKey("first", 2), ChannelKey("second", 2)
    kept, _, _ = [audiences.sessions(channel, members) for channel in (first, second, first)]
    for number in range(MOST_CHANGES):
        come(there, f"stranger{number}")
    audiences.sessions(GROUP, MEMBERS)  # takes the room of that which was not used for longer
    assert audiences.sessions(first, members) is kept


def test_after_many_changes_nothing_is_out_of_date() -> None:
    there = presence()
    audiences = Audiences(there)
    one = come(there, "m1")
    audiences.sessions(GROUP, MEMBERS)
    there.unregister(one)
    for n in range(MOST_CHANGES + 1):
        come(there, f"stranger{n}")
    assert list(audiences.sessions(GROUP, MEMBERS)) == []


def test_any_order_of_changes_gives_who_is_online() -> None:
    there = presence()
    audiences = Audiences(there)
    chosen = random.Random(1)
    online: list[MemorySession] = []
    for step in range(3000):
        if online and chosen.random() < 0.4:
            there.unregister(online.pop(chosen.randrange(len(online))))
        else:
            uid = f"m{chosen.randrange(400)}"
            if not any(session.device.uid == uid for session in online):
                online.append(come(there, uid))
        if not step % 7:
            expected = {session for session in online if session.device.uid in MEMBERS}
            assert set(audiences.sessions(GROUP, MEMBERS)) == expected


def test_snapshots_are_bounded() -> None:
    there = presence()
    audiences = Audiences(there)
    everybody = [f"u{n}" for n in range(KEPT_SESSIONS)]
    for uid in everybody:
        come(there, uid)
    half = KEPT_SESSIONS // 2
    some = [frozenset(everybody[:half]), frozenset(everybody[half:]), frozenset(everybody)]
    kept = [audiences.sessions(ChannelKey(str(n), 2), uids) for n, uids in enumerate(some)]
    assert [len(each) for each in kept] == [half, half, KEPT_SESSIONS]
    assert audiences.sessions(ChannelKey("2", 2), some[2]) is not kept[2]
    assert audiences.sessions(ChannelKey("1", 2), some[1]) is kept[1]
    assert audiences.sessions(ChannelKey("0", 2), some[0]) is not kept[0]
