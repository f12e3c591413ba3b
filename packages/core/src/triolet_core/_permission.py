"""May this sender send to this channel? A pure function of facts.

Source: semantics.md, section 1.6, steps 1 and 4 to 9; the steps between (decryption, hooks) are elsewhere.
"""

import attrs

from triolet_core.model import ChannelInfo, ChannelKey, ChannelType, ReasonCode, ends_of

_NEVER_CLOSED = frozenset({ChannelType.CUSTOMER_SERVICE, ChannelType.INFO, ChannelType.VISITORS, ChannelType.AGENT})
"""Types that know no ban and no disband (step 4)."""
_OPEN_TO_ALL = frozenset({ChannelType.CUSTOMER_SERVICE, ChannelType.INFO})


@attrs.define(eq=False, kw_only=True)
class Facts:
    """What the decision depends on. For a person channel the lists are the recipient's."""

    sender: str
    channel: ChannelKey
    channel_id: str
    """The channel as the sender names it: for a person channel the recipient."""
    is_server: bool = False
    sender_is_system: bool = False
    sender_send_ban: bool = False
    """`send_ban` on the sender's own person channel."""
    info: ChannelInfo | None = None
    recipient_is_system: bool = False
    recipient_info: ChannelInfo | None = None
    is_denied: bool = False
    is_member: bool = False
    is_allowed: bool = False
    allowlist_is_empty: bool = True
    channel_exists: bool = True
    whitelist_off_of_person: bool = True
    create_if_no_exist: bool = True
    stores_into_banned_channels: bool = False


def decide(facts: Facts) -> ReasonCode:
    """Return SUCCESS, or why the sender may not send."""
    kind = facts.channel.type
    if facts.sender_send_ban and not facts.is_server:
        return ReasonCode.SEND_BAN
    opens_all = facts.is_server and facts.stores_into_banned_channels
    refused = decide_for_server(kind, facts.channel_id, facts.info, stores_into_banned_channels=opens_all)
    if refused != ReasonCode.SUCCESS:
        return refused
    if kind in _OPEN_TO_ALL or _is_at_home(facts) or facts.is_server or facts.sender_is_system:
        return ReasonCode.SUCCESS
    return _to_person(facts) if kind == ChannelType.PERSON else _to_group(facts)


def decide_for_server(
    kind: int, channel_id: str, info: ChannelInfo | None, *, stores_into_banned_channels: bool
) -> ReasonCode:
    """Return SUCCESS, or why not even the server may send: an id that cannot be; step 4: ban, then disband."""
    if not channel_id or (kind == ChannelType.PERSON and "@" in channel_id):
        return ReasonCode.CHANNEL_ID_ERROR
    if info is None or kind in _NEVER_CLOSED or stores_into_banned_channels:
        return ReasonCode.SUCCESS
    if info.ban:
        return ReasonCode.BAN
    return ReasonCode.DISBAND if info.disband else ReasonCode.SUCCESS


def _is_at_home(facts: Facts) -> bool:
    """Step 6: an end of an agent channel, the visitor of a visitors channel."""
    if facts.channel.type == ChannelType.AGENT:
        return facts.sender in ends_of(facts.channel)
    return facts.channel.type == ChannelType.VISITORS and facts.sender == facts.channel.id


def _to_person(facts: Facts) -> ReasonCode:
    """Step 8."""
    if facts.recipient_is_system:
        return ReasonCode.SUCCESS
    if facts.is_denied:
        return ReasonCode.IN_BLACKLIST
    takes_strangers = facts.recipient_info is not None and facts.recipient_info.allow_stranger
    if not (facts.whitelist_off_of_person or facts.is_allowed or takes_strangers):
        return ReasonCode.NOT_IN_WHITELIST
    return ReasonCode.SUCCESS


def _to_group(facts: Facts) -> ReasonCode:
    """Step 9."""
    if not facts.channel_exists and not facts.create_if_no_exist:
        return ReasonCode.CHANNEL_NOT_EXIST
    if facts.is_denied:
        return ReasonCode.IN_BLACKLIST
    if not facts.is_member:
        return ReasonCode.SUBSCRIBER_NOT_EXIST
    if not (facts.allowlist_is_empty or facts.is_allowed):
        return ReasonCode.NOT_IN_WHITELIST
    return ReasonCode.SUCCESS
