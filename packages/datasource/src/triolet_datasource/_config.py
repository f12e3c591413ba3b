"""Settings of the data source."""

import attrs

from triolet_core.config import setting


@attrs.frozen(kw_only=True)
class DatasourceConfig:
    """Whom to ask."""

    on: bool = setting(default=True, doc="run the plugin")
    addr: str = setting("", doc="URL that is asked for members, lists and system accounts")
    channel_info_on: bool = setting(default=False, doc="ask it for channel info, too")
    user_info_on: bool = setting(default=False, doc="ask it for user info, too")
