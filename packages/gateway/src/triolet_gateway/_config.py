"""Settings of the gateway."""

import attrs

from triolet_core.config import Bytes, Seconds, setting


@attrs.frozen(kw_only=True)
class GatewayConfig:
    """Listeners, and the bounds of a connection."""

    on: bool = setting(default=True, doc="run the plugin")
    tcp_addr: str = setting("tcp://127.0.0.1:5100", key="addr", doc="TCP, also unix://path; empty: off")
    ws_addr: str = setting("ws://127.0.0.1:5200", key="wsAddr", doc="WebSocket, also unix://path; empty: off")
    tls_addr: str = setting("", key="tlsAddr", doc="TCP with TLS; empty: off")
    wss_addr: str = setting("", key="wssAddr", doc="WebSocket with TLS; empty: off")
    cert_file: str = setting("", key="wssConfig.certFile", doc="certificate chain (PEM) of both; read again on SIGHUP")
    key_file: str = setting("", key="wssConfig.keyFile", doc="its private key (PEM)")
    workers: int = setting(
        0, ge=0, le=64, doc="processes that do sockets and encryption, for more cores; 0: the server's own does"
    )
    worker_bytes: Bytes = setting(
        Bytes(64 << 20), gt=0, doc="bytes that may wait on their way to one worker; beyond, its clients are closed"
    )
    proxy_from: tuple[str, ...] = setting(
        (), doc="addresses, networks or `unix`: balancers whose PROXY header, or X-Forwarded-For, names the client"
    )
    conn_idle_time: Seconds = setting(
        Seconds(180), key="connIdleTime", gt=0, go=True, doc="a connection that is silent for this long is closed"
    )
    login_timeout: Seconds = setting(Seconds(5), gt=0, doc="longest time until CONNECT is accepted")
    max_frame_size: Bytes = setting(Bytes(1 << 20), gt=1024, doc="longest frame that is read")
    max_login_bytes: Bytes = setting(Bytes(1 << 16), gt=1024, doc="most bytes before CONNECT is complete")
    outbox_bytes: Bytes = setting(
        Bytes(1 << 20), gt=0, doc="bytes that may wait for a client that does not read; beyond, it is closed"
    )
    subscriptions: int = setting(1000, gt=0, doc="most channels that one connection may subscribe to")
    streams: int = setting(64, gt=0, doc="most streams that one connection may be writing")
    stream_grace: Seconds = setting(
        Seconds(5), ge=0, doc="a stream whose writer lost its connection, and is not back by then, is closed"
    )
    in_flight: int = setting(1024, gt=0, doc="messages of one connection that may wait for their SENDACK")
    in_flight_bytes: Bytes = setting(Bytes(4 << 20), gt=0, doc="their bytes; beyond, nothing more is read")
    in_flight_bytes_total: Bytes = setting(Bytes(64 << 20), gt=0, doc="those of all connections together")
    unacked: int = setting(256, gt=0, doc="deliveries remembered per connection until RECVACK; the oldest is forgotten")
    unacked_bytes: Bytes = setting(Bytes(1 << 20), gt=0, doc="their bytes; beyond, the oldest are forgotten as well")
    rate_per_connection: float = setting(0.0, ge=0, doc="messages a second of one connection; 0: no limit")
    rate_per_uid: float = setting(0.0, ge=0, doc="messages a second of one user; 0: no limit")
    rate_per_channel: float = setting(0.0, ge=0, doc="messages a second into one channel; 0: no limit")
    rate_burst: Seconds = setting(Seconds(1), gt=0, doc="so many seconds' worth of these may come at once")
    rate_profile: str = setting("", one_of=("", "rongcloud"), doc="`rongcloud`: 5 messages a second of one connection")
    max_message_per_second: int = setting(
        0, key="maxMessagePerSecond", ge=0, doc="messages a second of all clients; beyond, reading pauses; 0: no limit"
    )
    max_connections: int = setting(0, ge=0, doc="most connections; 0: as many as there are file descriptors")
    max_connections_per_address: int = setting(0, ge=0, doc="most connections from one address; 0: no limit")
    retry_interval: Seconds = setting(
        Seconds(60), key="messageRetry.interval", gt=0, go=True, doc="a delivery without RECVACK is repeated after"
    )
    retry_scan_interval: Seconds = setting(
        Seconds(5), key="messageRetry.scanInterval", gt=0, go=True, doc="time between two looks for such deliveries"
    )
    retry_max_count: int = setting(5, key="messageRetry.maxCount", ge=0, doc="how often a delivery is repeated")
    retry_sets_dup: bool = setting(
        default=False,
        key="messageRetry.dup",
        doc="set the DUP flag of repeats; the rest is the same",
    )
    disable_jsonrpc: bool = setting(default=False, key="disableJSONRPC", doc="refuse JSON-RPC clients")
    disable_encryption: bool = setting(default=False, key="disableEncryption", doc="no encryption, no message keys")
