"""Where values come from, which wins, and what is said about those that are wrong or of no use. Source: config.md."""

import contextlib
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from triolet_core import ConfigError, ConfigErrors
from triolet_core.config import Bytes, Seconds, ServerConfig, is_loopback, load_config, parse_address, section, setting

NO_CONTAINER = {"TRIOLET_CONTAINER": "0"}


@attrs.frozen(kw_only=True)
class GatewayConfig:
    """Stands for the gateway's."""

    on: bool = setting(default=True, doc="run")
    tcp_addr: str = setting("tcp://127.0.0.1:5100", key="addr", doc="TCP")
    ws_addr: str = setting("ws://127.0.0.1:5200", key="wsAddr", doc="WebSocket")
    conn_idle_time: Seconds = setting(Seconds(180), key="connIdleTime", doc="idle")
    retry_interval: Seconds = setting(Seconds(60), key="messageRetry.interval", doc="retry")
    login_timeout: Seconds = setting(Seconds(5), gt=0, doc="login")
    outbox_bytes: Bytes = setting(Bytes(1 << 20), gt=0, doc="outbox")
    in_flight: int = setting(1024, gt=0, le=65536, doc="in flight")


@attrs.frozen(kw_only=True)
class ApiConfig:
    """Stands for the API's."""

    http_addr: str = setting("127.0.0.1:5001", key="httpAddr", doc="API")
    allow_open: bool = setting(default=False, doc="no token")


@attrs.frozen(kw_only=True)
class WebhookConfig:
    """Stands for the webhook's."""

    http_addr: str = setting("", doc="URL")
    grpc_addr: str = setting("", doc="gRPC")
    msg_notify_event_push_interval: Seconds = setting(Seconds(0.5), gt=0, doc="interval")
    msg_notify_event_count_per_push: int = setting(100, gt=0, doc="count")
    focus_events: tuple[str, ...] = setting((), doc="events")
    key: str = setting("", secret=True, limao="hookKey", doc="secret")


ALL: Mapping[str, type] = {"gateway": GatewayConfig, "api": ApiConfig, "webhook": WebhookConfig}


def load(
    text: str | None = None,
    *overrides: str,
    environ: Mapping[str, str] = types.MappingProxyType({}),
    plugins: Mapping[str, type] = ALL,
    directory: Path | None = None,
    name: str = "a.yaml",
) -> ServerConfig:
    path = None
    if text is not None:
        assert directory is not None
        path = directory / name
        path.write_text(text)
    specs = [types.SimpleNamespace(name=each, config_class=config_class) for each, config_class in plugins.items()]
    return load_config(path, overrides=overrides, environ={**NO_CONTAINER, **environ}, plugins=specs)


def problems(*args: Any, **kwargs: Any) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        load(*args, **kwargs)
    return [str(error) for error in caught.value.errors]


def value(config: ServerConfig, path: str) -> Any:
    head, name = path.split(".")
    part = config.sections[head] if head in config.sections else getattr(config, head)
    return getattr(part, name)


def test_the_defaults_are_those_of_the_classes() -> None:
    config = load()
    assert attrs.evolve(config, sections={}) == ServerConfig()
    assert config.sections == {"gateway": GatewayConfig(), "api": ApiConfig(), "webhook": WebhookConfig()}
    assert config.notices == ()
    assert (config.node.id, config.node.mode, config.node.data_path) == (1001, "release", Path("data/data"))
    assert (config.store.map_size, config.message.dedupe, config.auth.manager_uid) == (1 << 40, 600, "____manager")


def test_data_directory_is_in_the_root_directory_unless_it_is_given() -> None:
    assert load(None, "rootDir=/r").node.data_path == Path("/r/data")
    assert load(None, "rootDir=/r", "dataDir=/d").node.data_path == Path("/d")
    assert load(None, "dataDir=~/d").node.data_path == Path("~/d").expanduser()


FILES: Sequence[tuple[str, str, str, Any]] = [
    ("a.yaml", "addr: tcp://0.0.0.0:1", "gateway.tcp_addr", "tcp://0.0.0.0:1"),
    ("a.yaml", "ADDR: tcp://0.0.0.0:1", "gateway.tcp_addr", "tcp://0.0.0.0:1"),
    ("a.yaml", "external:\n  tcpAddr: h:1", "external.tcp_addr", "h:1"),
    ("a.yaml", "External:\n  TCPADDR: h:1", "external.tcp_addr", "h:1"),
    ("a.yaml", "external.tcpAddr: h:1", "external.tcp_addr", "h:1"),
    ("a.yaml", "tokenAuthOn: yes", "auth.token_auth_on", True),
    ("a.yaml", 'tokenAuthOn: "true"', "auth.token_auth_on", True),
    ("a.yaml", "store: {sync: off}", "store.sync", "off"),
    ("a.yaml", "cluster: {nodeId: 7}", "node.id", 7),
    ("a.yaml", "managerToken: 0123", "auth.manager_token", "0123"),
    ("a.yaml", "mode:\nrootDir: /r", "node.mode", "release"),
    ("a.yaml", "base: &b {timeout: 3s}\nshutdown:\n  <<: *b", "shutdown.timeout", 3.0),
    ("a.yaml", "", "node.id", 1001),
    ("a.yaml", "# nothing\n", "node.id", 1001),
    ("a.json", '{"external": {"ip": "1.2.3.4"}}', "external.ip", "1.2.3.4"),
    ("a.toml", 'addr = "tcp://0.0.0.0:1"', "gateway.tcp_addr", "tcp://0.0.0.0:1"),
    ("a.toml", "[cluster]\nnodeId = 7", "node.id", 7),
    ("a.toml", "tokenAuthOn = true", "auth.token_auth_on", True),
    ("a.TOML", "[store]\nmapSize = '1GiB'", "store.map_size", 1 << 30),
    ("a.toml", 'plugins = {disabled = ["api"]}', "plugins.disabled", ("api",)),
]


@pytest.mark.parametrize(("name", "text", "path", "expected"), FILES)
def test_a_file_is_read(tmp_path: Path, name: str, text: str, path: str, expected: Any) -> None:
    assert value(load(text, directory=tmp_path, name=name), path) == expected


VALUES: Sequence[tuple[str, str, Any]] = [
    ("shutdown.timeout=500ms", "shutdown.timeout", 0.5),
    ("shutdown.timeout=1m30s", "shutdown.timeout", 90.0),
    ("shutdown.timeout=1.5h", "shutdown.timeout", 5400.0),
    ("shutdown.timeout=30d", "shutdown.timeout", 2592000.0),
    ("shutdown.timeout=7", "shutdown.timeout", 7.0),
    ("shutdown.timeout=0.25", "shutdown.timeout", 0.25),
    ("message.dedupe=0", "message.dedupe", 0.0),
    ("connIdleTime=2m", "gateway.conn_idle_time", 120.0),
    ("connIdleTime=0", "gateway.conn_idle_time", 0.0),
    ("connIdleTime=0s", "gateway.conn_idle_time", 0.0),
    ("messageRetry.interval=100us", "gateway.retry_interval", pytest.approx(0.0001)),
    ("message.maxPayloadBytes=65536", "message.max_payload_bytes", 65536),
    ("message.maxPayloadBytes=64KiB", "message.max_payload_bytes", 65536),
    ("message.maxPayloadBytes=8 mib", "message.max_payload_bytes", 8 << 20),
    ("message.maxPayloadBytes=1MB", "message.max_payload_bytes", 1_000_000),
    ("store.mapSize=2TiB", "store.map_size", 2 << 40),
    ("cluster.nodeId=0", "node.id", 0),
    ("cluster.nodeId=1023", "node.id", 1023),
    ("conversation.on=off", "conversation.on", False),
    ("conversation.on=0", "conversation.on", False),
    ("plugins.disabled=webhook api", "plugins.disabled", ("webhook", "api")),
    ("plugins.disabled=webhook, api", "plugins.disabled", ("webhook", "api")),
    ("plugins.disabled=", "plugins.disabled", ()),
    ("managerToken=a=b=c", "auth.manager_token", "a=b=c"),
    ("wsAddr=", "gateway.ws_addr", ""),
    ("compat.profile=wukongim2", "compat.profile", "wukongim-2"),
    ("compat.profile=wukongim1", "compat.profile", "wukongim-1"),
    ("compat.profile=limao", "compat.profile", "limaoim"),
    ("hookKey=k", "webhook.key", "k"),
]


@pytest.mark.parametrize(("override", "path", "expected"), VALUES)
def test_a_text_becomes_its_type(override: str, path: str, expected: Any) -> None:
    config = load(None, override)
    assert value(config, path) == expected
    assert config.notices == ()


WRONG: Sequence[tuple[str, str]] = [
    ("shutdown.timeout=5 parsecs", "'5 parsecs' is not a duration such as 500ms, 10s, 1m30s or 30d (default: 10s)"),
    ("shutdown.timeout=-1s", "'-1s' is not a duration such as"),
    ("shutdown.timeout=-1", "'-1' is not a duration such as"),
    ("shutdown.timeout=inf", "'inf' is not a duration such as"),
    ("shutdown.timeout=nan", "'nan' is not a duration such as"),
    ("shutdown.timeout=" + 400 * "9" + "d", "is not a duration such as"),
    ("shutdown.timeout=1s2", "'1s2' is not a duration such as"),
    ("shutdown.timeout=", "'' is not a duration such as"),
    ("shutdown.timeout=0", "'0' is not above 0"),
    ("gateway.loginTimeout=0ms", "'0ms' is not above 0"),
    ("connIdleTime=180", "'180' is a number without a unit, nanoseconds to the Go servers: write 500ms, 10s or 5m"),
    ("messageRetry.interval=60", "without a unit"),
    ("webhook.msgNotifyEventPushInterval=0.5", "without a unit"),
    ("message.maxPayloadBytes=8 parsecs", "'8 parsecs' is not a size such as 65536, 64KiB or 8MiB (default: 1MiB)"),
    ("message.maxPayloadBytes=-1", "'-1' is not a size"),
    ("store.mapSize=65TiB", "'65TiB' is above 64TiB (default: 1TiB)"),
    ("message.maxPayloadBytes=0", "'0' is not above 0"),
    ("cluster.nodeId=1024", "'1024' is above 1023 (default: 1001)"),
    ("cluster.nodeId=-1", "'-1' is below 0"),
    ("cluster.nodeId=1.5", "'1.5' is not a whole number"),
    ("cluster.nodeId=", "'' is not a whole number"),
    ("gateway.inFlight=65537", "'65537' is above 65536"),
    ("tokenAuthOn=maybe", "'maybe' is not true or false"),
    ("mode=fast", "'fast' is not one of debug, release, test, bench (default: release)"),
    ("store.sync=FULL", "'FULL' is not one of full, nometa, off"),
    ("compat.profile=wukongim3", "'wukongim3' is not one of wukongim-2, wukongim-1, limaoim"),
]


@pytest.mark.parametrize(("override", "problem"), WRONG)
def test_a_wrong_value_is_an_error_that_says_what_is_accepted(override: str, problem: str) -> None:
    [text] = problems(None, override)
    assert text.startswith(f"{override.partition('=')[0]} (-e): ")
    assert problem in text


def test_sources_in_the_order_of_their_strength(tmp_path: Path) -> None:
    """Defaults, container mode, file, WK_, TRIOLET_, -e."""
    container = {"TRIOLET_CONTAINER": "1"}
    wk, ours = {"WK_ADDR": "tcp://h:3"}, {"TRIOLET_ADDR": "tcp://h:4"}
    file = "addr: tcp://h:2"
    assert value(load(), "gateway.tcp_addr") == "tcp://127.0.0.1:5100"
    assert value(load(environ=container), "gateway.tcp_addr") == "tcp://0.0.0.0:5100"
    assert value(load(file, environ=container, directory=tmp_path), "gateway.tcp_addr") == "tcp://h:2"
    assert value(load(file, environ=wk, directory=tmp_path), "gateway.tcp_addr") == "tcp://h:3"
    assert value(load(file, environ={**ours, **wk}, directory=tmp_path), "gateway.tcp_addr") == "tcp://h:4"
    assert value(load(file, "addr=tcp://h:5", environ=ours, directory=tmp_path), "gateway.tcp_addr") == "tcp://h:5"
    assert value(load(None, "addr=tcp://h:5", "addr=tcp://h:6"), "gateway.tcp_addr") == "tcp://h:6"


VARIABLES: Sequence[tuple[str, str, str, Any]] = [
    ("WK_EXTERNAL_TCPADDR", "h:1", "external.tcp_addr", "h:1"),
    ("TRIOLET_EXTERNAL_TCPADDR", "h:1", "external.tcp_addr", "h:1"),
    ("WK_CLUSTER_NODEID", "7", "node.id", 7),
    ("WK_ID", "7", "node.id", 7),
    ("WK_TOKENAUTHON", "true", "auth.token_auth_on", True),
    ("WK_WEBHOOK_HTTPADDR", "http://h", "webhook.http_addr", "http://h"),
    ("WK_WEBHOOK_FOCUSEVENTS", "msg.notify msg.offline", "webhook.focus_events", ("msg.notify", "msg.offline")),
    ("WK_CUSTOMERSERVICE_VISITORSON", "1", "auth.visitors_on", True),
    ("TRIOLET_STORE_MAPSIZE", "1GiB", "store.map_size", 1 << 30),
    ("WK_CLUSTER_NODEID", "", "node.id", 1001),  # an empty variable is none, as with the reference
    ("WK_WSADDR", "", "gateway.ws_addr", "ws://127.0.0.1:5200"),
]


@pytest.mark.parametrize(("variable", "raw", "path", "expected"), VARIABLES)
def test_a_variable_is_the_key_in_capitals(variable: str, raw: str, path: str, expected: Any) -> None:
    config = load(environ={variable: raw})
    assert value(config, path) == expected
    assert config.notices == ()


def test_an_error_names_the_variable() -> None:
    assert problems(environ={"WK_CLUSTER_NODEID": "x"}) == [
        "cluster.nodeId (environment WK_CLUSTER_NODEID): 'x' is not a whole number (default: 1001)"
    ]


def test_an_error_names_the_line_of_a_file(tmp_path: Path) -> None:
    text = "mode: debug\n\nwebhook:\n  httpAddr: http://h\n  msgNotifyEventPushInterval: 5 parsecs\n"
    assert problems(text, directory=tmp_path, name="triolet.yaml") == [
        (
            "webhook.msgNotifyEventPushInterval (triolet.yaml:5): "
            "'5 parsecs' is not a duration such as 500ms, 10s, 1m30s or 30d (default: 500ms)"
        )
    ]
    toml = "mode = 'debug'\n[ webhook ]\nhttpAddr = 'http://h'\nmsgNotifyEventPushInterval = 500\n"
    [text] = problems(toml, directory=tmp_path, name="triolet.toml")
    assert text.startswith("webhook.msgNotifyEventPushInterval (triolet.toml:4): '500' is a number without a unit")


def test_every_error_is_reported_at_once(tmp_path: Path) -> None:
    found = problems("mode: fast\ncluster: {nodeId: x}", "tokenAuthOn=perhaps", "nonsense", directory=tmp_path)
    assert [text.partition(":")[0] for text in found] == [
        "-e number 2",
        "mode (a.yaml",
        "cluster.nodeId (a.yaml",
        "tokenAuthOn (-e)",
    ]


SECRETS: Sequence[tuple[str, str]] = [
    ("managerToken: [s3cret]", "a.yaml"),
    ("managerToken: 's3cret", "a.yaml"),
    ('managerToken: "s3cret', "a.yaml"),
    ("managerToken: *s3cret", "a.yaml"),
    ("managerToken: s3cret: s3cret", "a.yaml"),
    ("managerToken: !s3cret &a {}\nx: &a", "a.yaml"),
    ("managerToken = s3cret", "a.toml"),
    ("managerToken = ['s3cret']", "a.toml"),
]


@pytest.mark.parametrize(("text", "name"), SECRETS)
def test_secrets_are_not_in_errors(tmp_path: Path, text: str, name: str) -> None:
    try:
        said = load(text, directory=tmp_path, name=name).notices
    except ConfigErrors as exc:
        said = (str(exc),)
    assert "s3cret" not in "".join(said)


def test_secrets_are_not_in_errors_about_arguments_and_not_in_reprs() -> None:
    assert problems(None, "managerToken:s3cret") == ["-e number 1: is not of the form key=value"]
    assert problems(None, "=s3cret") == ["-e number 1: is not of the form key=value"]
    assert "s3cret" not in repr(load(None, "managerToken=s3cret", "webhook.key=s3cret"))
    [text] = problems(None, "webhook.msgNotifyEventPushInterval=http://user:s3cret@host")
    assert "'http://***@host'" in text


BAD_FILES: Sequence[tuple[str, str, str]] = [
    ("a.yaml", "a: [1", "is not valid YAML: line 1, column 6: expected ',' or ']', but got '<stream end>'"),
    ("a.yaml", "a: \x01", "is not valid YAML: it holds a character that no text may hold"),
    ("a.yaml", "- a\n- b", "the top of the file is not keys with values"),
    ("a.yaml", "just text", "the top of the file is not keys with values"),
    ("a.yaml", "webhook:\n  focusEvents: [{a: b}]", "line 2, column 17: a list may hold plain values only"),
    ("a.yaml", "? [a]\n: b", "a key is not a plain text"),
    ("a.yaml", "a: &a\n  b: *a", "groups within groups without end"),
    ("a.yaml", "a: " + 2000 * "[", "holds groups within groups without end"),
    ("a.toml", "a = " + 2000 * "[", "holds groups within groups without end"),
    ("a.yaml", "a: 1\n---\nb: 2", "is not valid YAML: line 2"),
    ("a.toml", "a = ", "is not valid TOML: "),
    ("a.toml", "a: 1", "is not valid TOML: "),
]


@pytest.mark.parametrize(("name", "text", "problem"), BAD_FILES)
def test_a_file_that_cannot_be_read_is_one_error(tmp_path: Path, name: str, text: str, problem: str) -> None:
    [error] = problems(text, directory=tmp_path, name=name)
    assert error.startswith(f"{tmp_path / name} (-c): ")
    assert problem in error


@given(
    text=st.text(alphabet=st.sampled_from("a:-[]{}&*!<='\"\\ \n\t#.,0é?|>%@\0"), max_size=40)
    | st.text(st.characters(codec="utf-8"), max_size=40),
    name=st.sampled_from(["a.yaml", "a.toml"]),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file_is_read_or_refused(tmp_path: Path, text: str, name: str) -> None:
    """Whatever a file holds, loading answers with settings or with `ConfigErrors`."""
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with contextlib.suppress(ConfigErrors):
        load_config(path, environ=NO_CONTAINER, plugins=[])


@given(raw=st.text(max_size=20) | st.from_regex(r"[0-9.]{0,6}(ns|ms|s|m|h|d|KiB|GB|e)?[0-9]*", fullmatch=True))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_value_or_refused(raw: str) -> None:
    """Whatever a value says, loading answers with settings within their bounds or with `ConfigErrors`."""
    for key, path in (("shutdown.timeout", "shutdown.timeout"), ("store.mapSize", "store.map_size")):
        with contextlib.suppress(ConfigErrors):
            assert 0 < value(load(None, f"{key}={raw}"), path) < float("inf")


def test_a_missing_file_and_one_that_is_not_text_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match="cannot be read: No such file"):
        load_config(tmp_path / "none.yaml", environ=NO_CONTAINER, plugins=[])
    (tmp_path / "b.yaml").write_bytes(b"a: \xff")
    with pytest.raises(ConfigErrors, match="is not UTF-8 at byte 3"):
        load_config(tmp_path / "b.yaml", environ=NO_CONTAINER, plugins=[])
    with pytest.raises(ConfigErrors, match="cannot be read: Is a directory"):
        load_config(tmp_path, environ=NO_CONTAINER, plugins=[])


def test_a_list_with_groups_in_it_is_an_error(tmp_path: Path) -> None:
    [text] = problems("[[webhook.focusEvents]]\na = 1", directory=tmp_path, name="a.toml")
    assert "is not a list of plain values" in text


ALIASES: Sequence[tuple[str, str, Any]] = [
    ("webhook: http://h", "webhook.http_addr", "http://h"),
    ("webhook: {httpAddr: http://h}", "webhook.http_addr", "http://h"),
    ("webhook_grpc: h:1", "webhook.grpc_addr", "h:1"),
    ("nodeID: 7", "node.id", 7),
    ("id: 7", "node.id", 7),
    ("externalIP: 1.2.3.4", "external.ip", "1.2.3.4"),
    ("nodeTCPAddr: h:1", "external.tcp_addr", "h:1"),
    ("nodeWSAddr: ws://h:1", "external.ws_addr", "ws://h:1"),
    ("nodeAPIAddr: http://h:1", "external.api_url", "http://h:1"),
    ("external: {monitorAddr: h:1}", "external.manager_addr", "h:1"),
    ("messageNotifyMaxCount: 20", "webhook.msg_notify_event_count_per_push", 20),
    ("messageNotifyScanInterval: 500ms", "webhook.msg_notify_event_push_interval", 0.5),
    ("conversationMaxCount: 9", "conversation.user_max_count", 9),
    ("conversationOfUserMaxCount: 9", "conversation.user_max_count", 9),
    ("msgTimeout: 30s", "gateway.retry_interval", 30.0),
    ("MSGTIMEOUT: 30s", "gateway.retry_interval", 30.0),
]


@pytest.mark.parametrize(("text", "path", "expected"), ALIASES)
def test_other_names_are_understood(tmp_path: Path, text: str, path: str, expected: Any) -> None:
    """Source: config.md, alias table; `webhook` and `datasource` are told apart by the node type."""
    config = load(text, directory=tmp_path)
    assert value(config, path) == expected
    assert config.notices == ()


def test_an_error_names_the_spelling_that_was_used(tmp_path: Path) -> None:
    [text] = problems("msgTimeout: 30", directory=tmp_path)
    assert text.startswith("messageRetry.interval (a.yaml:1, written as msgTimeout): '30' is a number without a unit")


@pytest.mark.parametrize("text", ["id: 1\ncluster: {nodeId: 2}", "cluster: {nodeId: 2}\nid: 1"])
def test_a_keys_own_name_beats_its_other_names(tmp_path: Path, text: str) -> None:
    config = load(text, directory=tmp_path)
    assert config.node.id == 2
    [notice] = config.notices
    assert notice.startswith("id (a.yaml:")
    assert "is overridden by cluster.nodeId (a.yaml:" in notice


def test_a_stronger_source_wins_whatever_the_name(tmp_path: Path) -> None:
    config = load("cluster: {nodeId: 2}", environ={"WK_ID": "1"}, directory=tmp_path)
    assert config.node.id == 1
    assert config.notices == ()


def test_a_key_given_twice_counts_the_last_time_and_is_noticed(tmp_path: Path) -> None:
    config = load("mode: debug\nMODE: test", directory=tmp_path)
    assert config.node.mode == "test"
    assert config.notices == ("mode (a.yaml:1) is overridden by MODE (a.yaml:2)",)


BARE = {"wsAddr": "0.0.0.0:2122", "nodeID": "7", "webhook": "http://h", "msgTimeout": "30s", "mode": "debug"}


def test_bare_variables_count_only_with_the_profile_of_limaoim(tmp_path: Path) -> None:
    config = load(environ=BARE)
    assert (config.node.id, config.node.mode, value(config, "gateway.ws_addr")) == (
        1001,
        "release",
        "ws://127.0.0.1:5200",
    )
    for text, environ in (("compat: {profile: limaoim}", {}), (None, {"TRIOLET_COMPAT_PROFILE": "limao"})):
        config = load(text, environ={**BARE, **environ}, directory=tmp_path)
        assert (config.node.id, config.node.mode) == (7, "debug")
        assert value(config, "gateway.ws_addr") == "0.0.0.0:2122"
        assert value(config, "webhook.http_addr") == "http://h"
        assert value(config, "gateway.retry_interval") == 30.0
        assert config.notices == ()


def test_bare_variables_are_stronger_than_files_and_weaker_than_prefixed_ones_and_arguments(tmp_path: Path) -> None:
    text = "compat: {profile: limaoim}\nnodeID: 1"
    assert load(text, environ={"nodeID": "2"}, directory=tmp_path).node.id == 2
    assert load(text, environ={"nodeID": "2", "WK_CLUSTER_NODEID": "3"}, directory=tmp_path).node.id == 3
    assert load(text, "id=4", environ={"nodeID": "2"}, directory=tmp_path).node.id == 4


def test_bare_variables_want_the_exact_case_and_are_only_those_of_limaoim() -> None:
    environ = {"TRIOLET_COMPAT_PROFILE": "limaoim", "NODEID": "7", "id": "8", "managerToken": "t", "mode": ""}
    config = load(environ=environ)
    assert (config.node.id, config.node.mode, config.auth.manager_token) == (1001, "release", "")


def test_bare_variables_without_effect_are_noticed() -> None:
    config = load(environ={"TRIOLET_COMPAT_PROFILE": "limaoim", "appKey": "k", "proxy": "h:1"})
    assert [notice.partition(" (")[0] for notice in config.notices] == ["proxy", "appKey"]


NO_TLS = "it is the gateway's, which is not installed"
NOTICES: Sequence[tuple[str, str]] = [
    ("adr: x", "adr (a.yaml:1) is not a known key; did you mean addr?"),
    ("external: {tcpAdr: x}", "external.tcpAdr (a.yaml:1) is not a known key; did you mean external.tcpAddr?"),
    ("zzz: x", "zzz (a.yaml:1) is not a known key"),
    ("addr: {a: b}", "addr.a (a.yaml:1) is not a known key; did you mean addr?"),
    ("ginMode: debug", "ginMode (a.yaml:1) is accepted without effect: it tunes the Go program"),
    ("slotCount: 3", "slotCount (a.yaml:1) is accepted without effect: this server is one node"),
    ("cluster: {seed: x}", "cluster.seed (a.yaml:1) is accepted without effect: this server is one node"),
    ("cluster: {nodeIdd: 1}", "cluster.nodeIdd (a.yaml:1) is not a known key; did you mean cluster.nodeId?"),
    ("wssAddr: wss://h:1", f"wssAddr (a.yaml:1) is accepted without effect: {NO_TLS}"),
]


@pytest.mark.parametrize(("text", "notice"), NOTICES)
def test_a_key_that_nobody_uses_is_a_notice(tmp_path: Path, text: str, notice: str) -> None:
    assert load(text, directory=tmp_path).notices == (notice,)


def test_an_unknown_variable_is_a_notice() -> None:
    assert load(environ={"WK_CLUSTER_NODID": "1", "TRIOLET_PURE": "1", "WK": "1"}).notices == (
        "the variable WK_CLUSTER_NODID is not a known setting; did you mean WK_CLUSTER_NODEID?",
    )


@pytest.mark.parametrize(
    ("text", "name", "owner"),
    [
        ("addr: tcp://h:1", "addr", "gateway"),
        ("messageRetry: {interval: 1s}", "messageRetry.interval", "gateway"),
        ("msgTimeout: 1s", "msgTimeout", "gateway"),
        ("gateway: {unacked: 1}", "gateway.unacked", "gateway"),
        ("httpAddr: h:1", "httpAddr", "api"),
        ("webhook: http://h", "webhook", "webhook"),
        ("datasource: {addr: http://h}", "datasource.addr", "datasource"),
    ],
)
def test_a_key_of_a_plugin_that_is_not_installed_says_so(tmp_path: Path, text: str, name: str, owner: str) -> None:
    config = load(text, plugins={}, directory=tmp_path)
    assert config.notices == (f"{name} (a.yaml:1) has no effect: triolet-{owner} is not installed",)


def test_a_variable_of_a_plugin_that_is_not_installed_says_so() -> None:
    config = load(environ={"WK_ADDR": "x", "WK_WEBHOOK_FOCUSEVENTS": "x"}, plugins={})
    assert config.notices == (
        "the variable WK_ADDR has no effect: triolet-gateway is not installed",
        "the variable WK_WEBHOOK_FOCUSEVENTS has no effect: triolet-webhook is not installed",
    )


def test_in_a_container_the_api_is_reached_from_outside_only_with_a_token(tmp_path: Path) -> None:
    container = {"TRIOLET_CONTAINER": "1"}
    config = load(environ=container)
    assert value(config, "gateway.ws_addr") == "ws://0.0.0.0:5200"
    assert value(config, "api.http_addr") == "127.0.0.1:5001"
    [notice] = config.notices
    assert notice.startswith("httpAddr (container mode) stays on loopback: set managerToken")
    for override in ("managerToken=t", "api.allowOpen=true"):
        config = load(None, override, environ=container)
        assert (value(config, "api.http_addr"), config.notices) == ("0.0.0.0:5001", ())
    config = load(None, "httpAddr=127.0.0.1:1", environ=container)
    assert (value(config, "api.http_addr"), config.notices) == ("127.0.0.1:1", ())
    assert load(environ=container, plugins={}).notices == ()


def test_the_marker_file_means_container_unless_the_variable_says_no(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins = [types.SimpleNamespace(name="gateway", config_class=GatewayConfig)]
    monkeypatch.setattr("triolet_core.config._sources._CONTAINER_MARK", tmp_path)
    assert value(load_config(environ={}, plugins=plugins), "gateway.tcp_addr") == "tcp://0.0.0.0:5100"
    for no in ("0", "", "false"):
        environ = {"TRIOLET_CONTAINER": no}
        assert value(load_config(environ=environ, plugins=plugins), "gateway.tcp_addr") == "tcp://127.0.0.1:5100"
    monkeypatch.setattr("triolet_core.config._sources._CONTAINER_MARK", tmp_path / "none")
    assert value(load_config(environ={}, plugins=plugins), "gateway.tcp_addr") == "tcp://127.0.0.1:5100"


@attrs.frozen(kw_only=True)
class StrictConfig:
    """Refuses by itself."""

    low: int = setting(1, doc="low")
    high: int = setting(2, doc="high")

    def __attrs_post_init__(self) -> None:
        if self.low > self.high:
            raise ConfigError("strict.low", "above strict.high")
        if self.low == self.high:
            raise ValueError("low and high are the same")


def test_what_the_class_of_a_section_refuses_is_an_error() -> None:
    plugins = {"strict": StrictConfig}
    assert problems(None, "strict.low=3", plugins=plugins) == ["strict.low: above strict.high"]
    assert problems(None, "strict.low=2", plugins=plugins) == ["strict: low and high are the same"]
    assert load(None, "strict.high=9", plugins=plugins).sections == {"strict": StrictConfig(high=9)}


def test_a_setting_of_a_type_that_cannot_be_read_is_a_bug_of_the_plugin() -> None:
    @attrs.frozen
    class Odd:
        part: complex = setting(1j, doc="odd")

    with pytest.raises(TypeError, match=r"Odd\.part: a setting is a str, bool, int"):
        load(plugins={"odd": Odd})


def test_the_settings_of_a_plugin_that_was_not_loaded_are_its_defaults() -> None:
    assert section(ServerConfig(), "gateway", GatewayConfig) == GatewayConfig()
    assert section(load(None, "gateway.inFlight=2"), "gateway", GatewayConfig).in_flight == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:5100", ("127.0.0.1", 5100)),
        ("tcp://127.0.0.1:5100", ("127.0.0.1", 5100)),
        ("ws://localhost:0", ("localhost", 0)),
        (":5100", ("0.0.0.0", 5100)),
        ("tcp://[::1]:5100", ("::1", 5100)),
        ("[::]:65535", ("::", 65535)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert parse_address("addr", text) == expected


@pytest.mark.parametrize("text", ["", "127.0.0.1", "h:", "h:x", "h:65536", "h:-1", "h:²", "ws://h:1/path"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError, match="is not an address such as"):
        parse_address("addr", text)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("127.example.org", False),
        ("", False),
    ],
)
def test_loopback(host: str, *, expected: bool) -> None:
    assert is_loopback(host) is expected
