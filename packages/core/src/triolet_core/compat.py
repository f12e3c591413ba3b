"""The compatibility profile: one record of the choices where one server cannot satisfy all three products."""

import enum

import attrs


class Profile(enum.Enum):
    """Whose behaviour decides where the products contradict each other (http-api.md, section 9)."""

    WUKONGIM_2 = "wukongim-2"
    WUKONGIM_1 = "wukongim-1"
    LIMAOIM = "limaoim"


@attrs.frozen(kw_only=True)
class Compat:
    """Choices read by name where they are made; nothing asks for the profile itself."""

    replaces_members_by_default: bool
    """POST /channel with a member list and without `reset` replaces the list instead of adding to it."""
    counts_all_as_unread: bool
    """Every message by others is unread, not only those with the red dot."""
    online_status_as_objects: bool
    """/user/onlinestatus answers objects per connection, not online uids."""
    empty_online_status_is_object: bool
    """/user/onlinestatus of nobody answers `{"status":200}` instead of `[]`."""
    whitelist_as_objects: bool
    """GET /channel/whitelist answers objects instead of strings."""
    kicks_whatever_the_level: bool
    """A login displaces every older connection of the same flag, with reason 0."""
    stores_into_banned_channels: bool
    """API sends pass ban and disband."""
    version_in_milliseconds: bool
    """Conversation versions are milliseconds when the request does not tell."""
    sync_messages_newest_first: bool
    """/conversation/syncMessages without `order_by_last` answers newest first."""
    allows_hash_and_ampersand: bool
    """Ids may hold `#` and `&`."""
    topic_admits_parent_members: bool
    """Members of a community may write into a topic that has members of its own."""
    missing_seq_is_error: bool
    """POST /messages with a sequence that does not exist is an error."""
    limao_online_status: bool
    """`user.onlinestatus` events have three fields instead of six."""


_WUKONGIM_2 = Compat(
    replaces_members_by_default=False,
    counts_all_as_unread=True,
    online_status_as_objects=True,
    empty_online_status_is_object=True,
    whitelist_as_objects=True,
    kicks_whatever_the_level=False,
    stores_into_banned_channels=False,
    version_in_milliseconds=False,
    sync_messages_newest_first=False,
    allows_hash_and_ampersand=False,
    topic_admits_parent_members=False,
    missing_seq_is_error=False,
    limao_online_status=False,
)
_WUKONGIM_1 = attrs.evolve(
    _WUKONGIM_2,
    replaces_members_by_default=True,
    counts_all_as_unread=False,
    empty_online_status_is_object=False,
    whitelist_as_objects=False,
    stores_into_banned_channels=True,
    version_in_milliseconds=True,
    sync_messages_newest_first=True,
    allows_hash_and_ampersand=True,
    topic_admits_parent_members=True,
    missing_seq_is_error=True,
)
_LIMAOIM = attrs.evolve(
    _WUKONGIM_1,
    online_status_as_objects=False,
    kicks_whatever_the_level=True,
    missing_seq_is_error=False,
    limao_online_status=True,
)

CHOICES = {Profile.WUKONGIM_2: _WUKONGIM_2, Profile.WUKONGIM_1: _WUKONGIM_1, Profile.LIMAOIM: _LIMAOIM}
