from typing import Any

import attrs
import pytest

from triolet_core._permission import Facts, decide
from triolet_core.model import ChannelInfo, ChannelKey, ChannelType, ReasonCode

BAN = ChannelInfo(ban=True)
DISBAND = ChannelInfo(disband=True)
BAN_AND_DISBAND = ChannelInfo(ban=True, disband=True)
STRANGERS_WELCOME = ChannelInfo(allow_stranger=True)

OPEN = (ChannelType.CUSTOMER_SERVICE, ChannelType.INFO)
BEYOND_BAN = (*OPEN, ChannelType.VISITORS, ChannelType.AGENT)
LISTED = (2, 4, 5, 7, 8, 9, 10, 12, 0, 13, 99, 255)
"""Types that ask members and lists of somebody who is neither visitor nor agent; the unknown ones are like groups."""


def facts(kind: int, /, **changes: Any) -> Facts:
    """A stranger `ann` writes to a channel that exists, with empty lists and default settings."""
    stored = {ChannelType.PERSON: "bob@ann", ChannelType.AGENT: "bob@bot", ChannelType.COMMUNITY_TOPIC: "c@t"}
    base = Facts(
        sender="ann",
        channel=ChannelKey(stored.get(ChannelType(kind), "c") if kind in set(ChannelType) else "c", kind),
        channel_id="bob" if kind == ChannelType.PERSON else "c",
        is_server=False,
        sender_is_system=False,
        sender_send_ban=False,
        info=ChannelInfo(),
        recipient_is_system=False,
        recipient_info=None,
        is_denied=False,
        is_allowed=False,
        allowlist_is_empty=True,
        is_member=False,
        whitelist_off_of_person=True,
        stores_into_banned_channels=False,
        channel_exists=True,
        create_if_no_exist=True,
    )
    return attrs.evolve(base, **changes)


# --- step 1


@pytest.mark.parametrize("kind", range(14))
def test_a_muted_sender_is_refused_everywhere_and_first(kind: int) -> None:
    """Conformance 32: send_ban is 25 before anything else, system accounts and missing channels included."""
    muted = facts(kind, sender_send_ban=True, sender_is_system=True, info=BAN, channel_exists=False, is_denied=True)
    assert decide(muted) == ReasonCode.SEND_BAN


def test_the_server_may_send_for_a_muted_user() -> None:
    """http-api.md, section 6.1: the call passes send_ban."""
    assert decide(facts(1, sender_send_ban=True, is_server=True)) == ReasonCode.SUCCESS


def test_send_ban_of_a_group_does_nothing() -> None:
    """semantics.md, section 1.4."""
    assert decide(facts(2, info=ChannelInfo(send_ban=True), is_member=True)) == ReasonCode.SUCCESS


# --- ids


@pytest.mark.parametrize("channel_id", ["", "bob@ann", "@", "a@b@c"])
def test_a_person_is_named_by_a_uid(channel_id: str) -> None:
    """wire-protocol.md, section 5.5: empty ids and ids with `@` are 16."""
    assert decide(facts(1, channel_id=channel_id)) == ReasonCode.CHANNEL_ID_ERROR


@pytest.mark.parametrize("kind", range(14))
def test_an_empty_id_is_refused_for_every_type(kind: int) -> None:
    assert decide(facts(kind, channel_id="", is_member=True)) == ReasonCode.CHANNEL_ID_ERROR


def test_a_group_id_with_an_at_sign_is_a_group_nobody_joined() -> None:
    """semantics.md, section 1.6, measured answers."""
    assert decide(facts(2, channel_id="x@y", channel_exists=False, info=None)) == ReasonCode.SUBSCRIBER_NOT_EXIST


# --- step 4


@pytest.mark.parametrize(
    ("info", "expected"),
    [(BAN, ReasonCode.BAN), (DISBAND, ReasonCode.DISBAND), (BAN_AND_DISBAND, ReasonCode.BAN)],
)
@pytest.mark.parametrize("kind", [1, 2, 4, 5, 7, 8, 9, 12, 0, 13])
@pytest.mark.parametrize("who", [{}, {"sender_is_system": True}, {"is_server": True}])
def test_a_closed_channel_refuses_all(kind: int, info: ChannelInfo, expected: ReasonCode, who: dict[str, bool]) -> None:
    """Conformance 29: ban before disband, for members, system accounts and the server alike."""
    assert decide(facts(kind, info=info, is_member=True, **who)) == expected


@pytest.mark.parametrize("kind", BEYOND_BAN)
def test_types_that_cannot_be_closed(kind: int) -> None:
    assert decide(facts(kind, info=BAN_AND_DISBAND, is_member=True)) == ReasonCode.SUCCESS


@pytest.mark.parametrize("info", [BAN, DISBAND, BAN_AND_DISBAND])
def test_with_the_choice_of_wukongim_1_only_the_server_passes_ban_and_disband(info: ChannelInfo) -> None:
    """semantics.md, section 1.6, table of the older servers."""
    assert decide(facts(2, info=info, is_server=True, stores_into_banned_channels=True)) == ReasonCode.SUCCESS
    assert decide(facts(2, info=info, is_member=True, stores_into_banned_channels=True)) != ReasonCode.SUCCESS


# --- step 5


@pytest.mark.parametrize("kind", OPEN)
def test_anybody_writes_to_customer_service_and_info(kind: int) -> None:
    """Conformance 33: no list is read."""
    assert decide(facts(kind, is_denied=True, allowlist_is_empty=False)) == ReasonCode.SUCCESS
    missing = facts(kind, info=None, channel_exists=False, create_if_no_exist=False)
    assert decide(missing) == ReasonCode.SUCCESS


# --- step 6


@pytest.mark.parametrize(
    ("sender", "is_member", "expected"),
    [
        ("c", False, ReasonCode.SUCCESS),
        ("agent", True, ReasonCode.SUCCESS),
        ("ann", False, ReasonCode.SUBSCRIBER_NOT_EXIST),
    ],
)
def test_a_visitors_channel_is_for_the_visitor_and_members(sender: str, is_member: bool, expected: ReasonCode) -> None:
    """Conformance 34."""
    assert decide(facts(10, sender=sender, is_member=is_member)) == expected


@pytest.mark.parametrize("stored", ["ann@bot", "bot@ann"])
def test_both_ends_write_to_an_agent_channel(stored: str) -> None:
    assert decide(facts(11, channel=ChannelKey(stored, 11), is_denied=True)) == ReasonCode.SUCCESS


def test_others_do_not_write_to_an_agent_channel() -> None:
    assert decide(facts(11)) == ReasonCode.SUBSCRIBER_NOT_EXIST


# --- step 7


@pytest.mark.parametrize("who", [{"sender_is_system": True}, {"is_server": True}])
@pytest.mark.parametrize("kind", range(14))
def test_no_list_holds_back_system_accounts_and_the_server(kind: int, who: dict[str, bool]) -> None:
    """Conformance 30, 31."""
    barred = facts(kind, is_denied=True, allowlist_is_empty=False, whitelist_off_of_person=False, **who)
    assert decide(barred) == ReasonCode.SUCCESS


# --- step 8


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ReasonCode.SUCCESS),
        ({"info": None, "channel_exists": False, "create_if_no_exist": False}, ReasonCode.SUCCESS),
        ({"is_denied": True}, ReasonCode.IN_BLACKLIST),
        ({"is_denied": True, "is_allowed": True, "allowlist_is_empty": False}, ReasonCode.IN_BLACKLIST),
        ({"is_denied": True, "recipient_info": STRANGERS_WELCOME}, ReasonCode.IN_BLACKLIST),
        ({"is_denied": True, "recipient_is_system": True}, ReasonCode.SUCCESS),
        ({"allowlist_is_empty": False}, ReasonCode.SUCCESS),
        ({"whitelist_off_of_person": False}, ReasonCode.NOT_IN_WHITELIST),
        ({"whitelist_off_of_person": False, "allowlist_is_empty": False}, ReasonCode.NOT_IN_WHITELIST),
        ({"whitelist_off_of_person": False, "allowlist_is_empty": False, "is_allowed": True}, ReasonCode.SUCCESS),
        ({"whitelist_off_of_person": False, "recipient_info": STRANGERS_WELCOME}, ReasonCode.SUCCESS),
        ({"whitelist_off_of_person": False, "recipient_is_system": True}, ReasonCode.SUCCESS),
        ({"whitelist_off_of_person": False, "is_denied": True}, ReasonCode.IN_BLACKLIST),
        ({"recipient_info": BAN_AND_DISBAND}, ReasonCode.SUCCESS),
    ],
)
def test_a_person_is_guarded_by_his_own_lists(changes: dict[str, Any], expected: ReasonCode) -> None:
    """Conformance 21 to 24, and allow_stranger of semantics.md, section 1.4."""
    assert decide(facts(1, **changes)) == expected


def test_one_may_write_to_oneself() -> None:
    own = facts(1, channel=ChannelKey("ann@ann", 1), channel_id="ann")
    assert decide(own) == ReasonCode.SUCCESS


# --- step 9


@pytest.mark.parametrize("kind", LISTED)
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ReasonCode.SUBSCRIBER_NOT_EXIST),
        ({"is_denied": True}, ReasonCode.IN_BLACKLIST),
        ({"is_member": True}, ReasonCode.SUCCESS),
        ({"is_member": True, "info": None}, ReasonCode.SUCCESS),
        ({"is_member": True, "is_denied": True}, ReasonCode.IN_BLACKLIST),
        ({"is_member": True, "is_denied": True, "is_allowed": True}, ReasonCode.IN_BLACKLIST),
        ({"is_member": True, "allowlist_is_empty": False}, ReasonCode.NOT_IN_WHITELIST),
        ({"is_member": True, "allowlist_is_empty": False, "is_allowed": True}, ReasonCode.SUCCESS),
        ({"allowlist_is_empty": False, "is_allowed": True}, ReasonCode.SUBSCRIBER_NOT_EXIST),
        ({"info": None, "channel_exists": False}, ReasonCode.SUBSCRIBER_NOT_EXIST),
        ({"info": None, "channel_exists": False, "create_if_no_exist": False}, ReasonCode.CHANNEL_NOT_EXIST),
        ({"create_if_no_exist": False}, ReasonCode.SUBSCRIBER_NOT_EXIST),
        ({"recipient_info": STRANGERS_WELCOME}, ReasonCode.SUBSCRIBER_NOT_EXIST),
    ],
)
def test_members_and_lists(kind: int, changes: dict[str, Any], expected: ReasonCode) -> None:
    """Conformance 25 to 28."""
    assert decide(facts(kind, **changes)) == expected
