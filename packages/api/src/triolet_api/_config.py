"""Settings of the API."""

import attrs

from triolet_api._users import parse_user
from triolet_core.config import Bytes, Seconds, setting


@attrs.frozen(kw_only=True)
class ApiConfig:
    """The HTTP listener and its bounds, and who may call."""

    on: bool = setting(default=True, doc="run the plugin")
    http_addr: str = setting("127.0.0.1:5001", key="httpAddr", doc="listener of the HTTP API")
    server: str = setting("own", one_of=("own", "hypercorn"), doc="who parses HTTP; own is the faster")
    max_body_bytes: Bytes = setting(Bytes(8 << 20), gt=0, doc="longest request body, then 413")
    max_list_items: int = setting(10_000, gt=0, doc="most entries in one list of a request")
    request_timeout: Seconds = setting(Seconds(30), gt=0, doc="longest time for a request to arrive")
    max_connections: int = setting(10_000, gt=0, doc="most open HTTP connections")
    allow_open: bool = setting(
        default=False, doc="serve the API without a managerToken outside loopback, for networks that are closed"
    )
    rate_per_second: int = setting(0, ge=0, doc="requests that one caller may make per second, then 429; 0: no limit")
    trusted_proxies: tuple[str, ...] = setting((), doc="peers whose X-Forwarded-For is believed")
    audit_log: str = setting(
        "audit.log",
        doc="file, relative to rootDir, that every request which changes something is noted in; empty: none",
    )
    docs_on: bool = setting(default=True, doc="serve /docs and /openapi.json")
    web_on: bool = setting(default=True, doc="serve the administrator's page at /web/, which calls this API")
    demo_on: str = setting(
        "auto",
        key="demo.on",
        one_of=("auto", "true", "false"),
        spellings={"True": "true", "False": "false", "1": "true", "0": "false", "on": "true", "off": "false"},
        doc="serve a small chat at /chatdemo/, to try the server with; auto: if mode is debug",
    )
    ext_on: bool = setting(default=False, key="ext.on", doc="serve the endpoints below /ext/v1")
    auth_on: bool = setting(default=True, key="auth.on", doc="false: no right is asked for, on loopback only")
    auth_kind: str = setting("jwt", key="auth.kind", one_of=("jwt", "none", ""), doc="jwt, or none like auth.on: false")
    super_token: str = setting("", key="auth.superToken", secret=True, doc="a token with every right")
    users: tuple[str, ...] = setting(
        (),
        key="auth.users",
        secret=True,
        check=lambda texts: [parse_user(text) for text in texts],
        doc="name:password:* or name:password:[resource:actions,…] with r, w or * as actions; the password may be a"
        " scrypt hash",
    )
    jwt_secret: str = setting(
        "", key="jwt.secret", secret=True, doc="key of the login tokens; empty: made at first start, in rootDir"
    )
    jwt_expire: Seconds = setting(Seconds(30 * 86_400), gt=0, key="jwt.expire", doc="life of a login token")
    jwt_issuer: str = setting("triolet", key="jwt.issuer", doc="`iss` of the login tokens")


def with_mode(config: ApiConfig, mode: str) -> ApiConfig:
    """Return the settings with what `mode` decides filled in."""
    if config.demo_on != "auto":
        return config
    return attrs.evolve(config, demo_on="true" if mode == "debug" else "false")
