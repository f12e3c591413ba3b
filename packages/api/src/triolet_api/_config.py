"""Settings of the API."""

import attrs

from triolet_core.config import Bytes, Seconds, setting


@attrs.frozen(kw_only=True)
class ApiConfig:
    """The HTTP listener and its bounds."""

    on: bool = setting(default=True, doc="run the plugin")
    http_addr: str = setting("127.0.0.1:5001", key="httpAddr", doc="listener of the HTTP API")
    max_body_bytes: Bytes = setting(Bytes(8 << 20), gt=0, doc="longest request body, then 413")
    max_list_items: int = setting(10_000, gt=0, doc="most entries in one list of a request")
    request_timeout: Seconds = setting(Seconds(30), gt=0, doc="longest time for a request to arrive")
    allow_open: bool = setting(
        default=False, doc="serve the API without a managerToken outside loopback, for networks that are closed"
    )
