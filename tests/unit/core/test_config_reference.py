"""The page, the sample file and the list in force hold what the code holds; every key of the reference is known."""

import types
from pathlib import Path
from typing import Any

import attrs
import pytest
import yaml

from triolet_core.config import ServerConfig, load_config, reference, sample, schema_of, setting, shown
from triolet_core.plugin import PluginSpec, discover_plugins

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"
FIRST_PARTY = ("api", "datasource", "gateway", "webhook")
NO_CONTAINER = {"TRIOLET_CONTAINER": "0"}

OF_THE_REFERENCE = """
mode addr wsAddr wssAddr wssConfig.certFile wssConfig.keyFile httpAddr rootDir dataDir ginMode pprofOn deadlockCheck id
unitTest stress violent disableEncryption disableJSONRPC disableCMDMessageSync tokenAuthOn managerToken managerUID
auth.on auth.kind auth.superToken auth.users jwt.secret jwt.expire jwt.issuer whitelistOffOfPerson
customerService.visitorsOn customerService.visitorsSuffix external.ip external.tcpAddr external.wsAddr external.wssAddr
external.monitorAddr external.managerAddr external.apiUrl external.autoGetExternalIP intranet.tcpAddr manager.on
monitor.on manager.addr monitor.addr demo.on demo.addr logger.level logger.dir logger.lineNum logger.traceOn
logger.traceMaxMsgCount logger.loki.url logger.loki.username logger.loki.password trace.serviceName
trace.serviceHostName trace.prometheusApiUrl channel.cacheCount channel.createIfNoExist
channel.subscriberCompressOfCount channel.onlineCmdChannelId tmpChannel.suffix tmpChannel.cacheCount conversation.on
conversation.cacheExpire conversation.syncInterval conversation.syncOnce conversation.userMaxCount
conversation.bytesPerSave conversation.savePoolSize conversation.workerNum conversation.workerScanInterval
messageRetry.interval messageRetry.scanInterval messageRetry.maxCount messageRetry.workerCount connIdleTime
userMsgQueueMaxSize maxMessagePerSecond segmentMaxBytes slotNum slotCount eventPoolSize messagePoolSize
deliveryMsgPoolSize handlePoolSize timingWheelTick timingWheelSize streamCache.maxMemorySize streamCache.maxStreams
streamCache.maxChunksPerStream streamCache.streamTimeout streamCache.chunkInactivityTimeout streamCache.cleanupInterval
webhook.httpAddr webhook.grpcAddr webhook.msgNotifyEventPushInterval webhook.msgNotifyEventCountPerPush
webhook.msgNotifyEventRetryMaxCount webhook.focusEvents datasource.addr datasource.channelInfoOn datasource.userInfoOn
agent.webhook.httpAddr agent.webhook.maxPushCount plugin.socketPath plugin.timeout plugin.install tag.expire oldV1Api
migrateStartStep cluster.nodeId cluster.addr cluster.serverAddr cluster.apiUrl cluster.role cluster.seed
cluster.initNodes cluster.slotCount cluster.slotReplicaCount cluster.channelReplicaCount cluster.reqTimeout
cluster.tickInterval cluster.heartbeatIntervalTick cluster.electionIntervalTick cluster.pongMaxTick
cluster.channelReactorSubCount cluster.slotReactorSubCount cluster.channelDestoryAfterIdleTick proxy
goPool.userProcess goPool.channelProcess db.shardNum db.slotShardNum db.memTableSize deliver.deliverrCount
deliver.maxRetry deliver.maxDeliverSizePerNode reactor.channel.subCount reactor.channel.processIntervalTick
reactor.channel.processPoolSize reactor.channel.deadlineTick reactor.channel.tagCheckIntervalTick
reactor.channel.tickInterval reactor.user.subCount reactor.user.processIntervalTick reactor.user.processPoolSize
reactor.user.nodePingTick reactor.user.nodePongTimeoutTick reactor.user.tickInterval
reactor.checkUserLeaderIntervalTick reactor.stream.subCount reactor.stream.tickInterval
reactor.stream.processIntervalTick reactor.stream.idleTimeoutTick coreReactor.channelMessageQueueSize
coreReactor.coreMessageQueueSize coreReactor.messageQueueMaxMemorySize appID appKey
conversationOfUserMaxCount conversationMaxCount messageNotifyMaxCount messageNotifyScanInterval monitorOn webhook_grpc
wssOn wssCertificate wssCertificateKey externalIP nodeRaftAddr nodeRaftAddrReal nodeRPCAddr nodeRPCAddrReal nodeWSAddr
nodeTCPAddr nodeAPIAddr nodeID webhook datasource conversationSaveInterval conversationSaveOnce electionTicks
proxyTickPer cmdSendTimeout msgTimeout timeoutScanInterval netInterface
compat.profile api.maxBodyBytes api.maxIdBytes api.maxListItems openim.managers openim.defaultOfflinePush.title
openim.defaultOfflinePush.desc openim.defaultOfflinePush.ex openim.defaultOfflinePush.iOSPushSound
openim.defaultOfflinePush.iOSBadgeCount ext.on compat.strict compat.strictV1Replace message.dedupe
message.maxPayloadBytes openim.addr webhook.preSend.url webhook.preSend.timeout webhook.preSend.failOpen
offline.cacheDays api.trustedProxies
""".split()
"""Source: config.md, section 2."""


@pytest.fixture(scope="module")
def first_party() -> tuple[PluginSpec, ...]:
    return tuple(spec for spec in discover_plugins() if spec.name in FIRST_PARTY)


def classes(specs: tuple[PluginSpec, ...]) -> dict[str, type[Any]]:
    return {spec.name: spec.config_class for spec in specs}


def test_every_key_of_the_reference_is_honoured_or_accepted_with_a_reason(
    first_party: tuple[PluginSpec, ...],
) -> None:
    schema = schema_of(classes(first_party))
    unused = [key for key in OF_THE_REFERENCE if schema.key_of(key) not in schema.fields]
    config = load_config(overrides=[f"{key}=x" for key in unused], environ=NO_CONTAINER, plugins=first_party)
    assert [notice for notice in config.notices if "is accepted without effect: " not in notice] == []
    assert len(config.notices) == len({schema.key_of(key) for key in unused})


def test_every_key_of_the_reference_is_known_without_any_plugin() -> None:
    schema = schema_of({})
    unused = [key for key in OF_THE_REFERENCE if schema.key_of(key) not in schema.fields]
    config = load_config(overrides=[f"{key}=x" for key in unused], environ=NO_CONTAINER, plugins=[])
    assert [notice for notice in config.notices if "is not a known key" in notice] == []


def test_the_page_is_what_the_code_says(first_party: tuple[PluginSpec, ...]) -> None:
    """If it is not: triolet config --reference > docs/configuration.md."""
    assert [spec.name for spec in first_party] == list(FIRST_PARTY)
    assert PAGE.read_text(encoding="utf-8") == reference(classes(first_party))


def test_the_page_names_every_setting_with_its_default_and_bounds() -> None:
    page = reference({})
    assert "| `cluster.nodeId` | number ≥ 0, ≤ 1023 | `1001` | node part of message ids |" in page
    assert "| `shutdown.timeout` | duration > 0 | `10s` | longest graceful stop |" in page
    assert "| `store.mapSize` | size > 0, ≤ 64TiB | `1TiB` |" in page
    assert "| `mode` | `debug` · `release` · `test` · `bench` | `release` |" in page
    assert "| `msgTimeout` | `messageRetry.interval` |" in page
    assert "| `ginMode` | it tunes the Go program |" in page
    for _, field in schema_of({}).fields.values():
        assert f"| `{field.key}` |" in page


def uncommented(text: str) -> str:
    return "\n".join(line.removeprefix("#") for line in text.splitlines() if not line.startswith("# "))


def test_the_sample_is_the_defaults(tmp_path: Path, first_party: tuple[PluginSpec, ...]) -> None:
    text = sample(classes(first_party))
    assert yaml.safe_load(text) is None
    path = tmp_path / "sample.yaml"
    path.write_text(uncommented(text))
    plain = load_config(environ=NO_CONTAINER, plugins=first_party)
    assert load_config(path, environ=NO_CONTAINER, plugins=first_party) == plain


def test_what_is_shown_can_be_read_again(tmp_path: Path, first_party: tuple[PluginSpec, ...]) -> None:
    overrides = [
        "shutdown.timeout=1234567s",
        "message.dedupe=0.0015",
        "store.mapSize=1234567",
        "external.ip=: # odd 'text' \"here\" ",
        "logger.dir=null",
        "plugins.disabled=a,@b",
        "tokenAuthOn=true",
        "channel.onlineCmdChannelId=命令",
    ]
    config = load_config(overrides=overrides, environ=NO_CONTAINER, plugins=first_party)
    path = tmp_path / "shown.yaml"
    path.write_text(shown(config), encoding="utf-8")
    assert load_config(path, environ=NO_CONTAINER, plugins=first_party) == config


def test_what_is_shown_hides_secrets() -> None:
    overrides = ["managerToken=s3cret", "external.apiUrl=http://user:s3cret@h:1/x"]
    config = load_config(overrides=overrides, environ=NO_CONTAINER, plugins=[])
    assert "s3cret" not in shown(config)
    assert "# managerToken is set and not shown\n" in shown(config)
    assert "external.apiUrl: http://***@h:1/x\n" in shown(config)
    assert 'managerToken: ""\n' in shown(ServerConfig())


def test_a_plugin_that_declares_a_key_takes_it_from_the_table_of_those_without_effect() -> None:
    @attrs.frozen
    class Stress:
        on: bool = setting(default=False, key="stress", limao="loadOn", doc="serve /stress")

    page = reference({"stress": Stress})
    assert page.count("\n| `stress` |") == 1
    assert "| `loadOn` | `stress` |" in page
    spec = types.SimpleNamespace(name="stress", config_class=Stress)
    config = load_config(overrides=["loadOn=true"], environ=NO_CONTAINER, plugins=[spec])
    assert (config.sections["stress"], config.notices) == (Stress(on=True), ())
