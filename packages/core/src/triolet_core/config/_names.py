"""Keys of the reference that are spelled otherwise, or accepted without effect. Source: config.md, section 2."""

from collections.abc import Iterator

ALIASES = {
    "webhook": "webhook.httpAddr",
    "webhook_grpc": "webhook.grpcAddr",
    "datasource": "datasource.addr",
    "nodeID": "cluster.nodeId",
    "id": "cluster.nodeId",
    "nodeAPIAddr": "external.apiUrl",
    "externalIP": "external.ip",
    "nodeTCPAddr": "external.tcpAddr",
    "nodeWSAddr": "external.wsAddr",
    "monitorOn": "manager.on",
    "monitor.on": "manager.on",
    "monitor.addr": "manager.addr",
    "external.monitorAddr": "external.managerAddr",
    "messageNotifyMaxCount": "webhook.msgNotifyEventCountPerPush",
    "messageNotifyScanInterval": "webhook.msgNotifyEventPushInterval",
    "conversationMaxCount": "conversation.userMaxCount",
    "conversationOfUserMaxCount": "conversation.userMaxCount",
    "conversationSaveInterval": "conversation.syncInterval",
    "conversationSaveOnce": "conversation.syncOnce",
    "msgTimeout": "messageRetry.interval",
    "timeoutScanInterval": "messageRetry.scanInterval",
    "wssOn": "wssAddr",
    "wssCertificate": "wssConfig.certFile",
    "wssCertificateKey": "wssConfig.keyFile",
    "slotCount": "cluster.slotCount",
    "slotNum": "cluster.slotCount",
    "cmdSendTimeout": "cluster.reqTimeout",
    "electionTicks": "cluster.electionIntervalTick",
    "proxyTickPer": "cluster.tickInterval",
}
"""LiMaoIM's and older names. `webhook` and `datasource` may also be groups: what is written there decides."""

_LIMAOIM = (
    "mode addr wsAddr httpAddr dataDir nodeID nodeRaftAddr nodeRaftAddrReal nodeRPCAddr nodeRPCAddrReal nodeAPIAddr"
    " nodeTCPAddr nodeWSAddr externalIP monitorOn webhook webhook_grpc datasource wssOn wssCertificate"
    " wssCertificateKey messageNotifyMaxCount messageNotifyScanInterval conversationMaxCount"
    " conversationOfUserMaxCount conversationSaveInterval conversationSaveOnce msgTimeout timeoutScanInterval slotCount"
    " maxMessagePerSecond segmentMaxBytes messagePoolSize deliveryMsgPoolSize proxy proxyTickPer electionTicks"
    " cmdSendTimeout appID appKey"
)
LIMAOIM_ONLY = tuple(_LIMAOIM.split())
"""Variables that LiMaoIM reads, in this very spelling and without a prefix."""

_GO_DURATIONS = (
    "connIdleTime messageRetry.interval messageRetry.scanInterval webhook.msgNotifyEventPushInterval jwt.expire"
    " plugin.timeout tag.expire streamCache.streamTimeout streamCache.chunkInactivityTimeout"
    " streamCache.cleanupInterval cluster.reqTimeout cluster.tickInterval conversation.cacheExpire"
    " conversation.syncInterval conversation.workerScanInterval timingWheelTick"
)
GO_DURATIONS = frozenset(_GO_DURATIONS.split())
"""Durations of the Go servers: a bare number means nanoseconds there and seconds here, so it is refused."""

_GO = "it tunes the Go program"
_ONE_NODE = "this server is one node"
_AT_ONCE = "conversations are written with the message, there is nothing to flush"
_MANAGER = "there is no manager port"
_STREAMS = "streamCache.chunkInactivityTimeout ends a stream"
_NO_CODE = "this server asks for no licence"

_BY_REASON = {
    "it is the gateway's, which is not installed": "wssAddr wssConfig.certFile wssConfig.keyFile disableJSONRPC",
    _GO: (
        "ginMode deadlockCheck unitTest violent logger.traceMaxMsgCount tmpChannel.cacheCount"
        " messageRetry.workerCount segmentMaxBytes eventPoolSize messagePoolSize deliveryMsgPoolSize handlePoolSize"
        " timingWheelTick timingWheelSize tag.expire goPool.userProcess goPool.channelProcess"
        " db.shardNum db.slotShardNum db.memTableSize"
        " deliver.deliverrCount deliver.maxRetry deliver.maxDeliverSizePerNode"
        " reactor.channel.subCount reactor.channel.processIntervalTick reactor.channel.processPoolSize"
        " reactor.channel.deadlineTick reactor.channel.tagCheckIntervalTick reactor.channel.tickInterval"
        " reactor.user.subCount reactor.user.processIntervalTick reactor.user.processPoolSize"
        " reactor.user.nodePingTick reactor.user.nodePongTimeoutTick reactor.user.tickInterval"
        " reactor.checkUserLeaderIntervalTick reactor.stream.subCount reactor.stream.tickInterval"
        " reactor.stream.processIntervalTick reactor.stream.idleTimeoutTick"
        " coreReactor.channelMessageQueueSize coreReactor.coreMessageQueueSize coreReactor.messageQueueMaxMemorySize"
    ),
    "profiles of the Go program": "pprofOn",
    "the /stress endpoints are not served": "stress",
    _MANAGER: ("manager.on manager.addr auth.on auth.kind auth.superToken auth.users jwt.secret jwt.expire jwt.issuer"),
    "the demo chat is at /chatdemo/ of httpAddr": "demo.on demo.addr",
    "no outside service is asked": "external.autoGetExternalIP",
    "log what you need with logger.level and collect it": (
        "logger.traceOn logger.loki.url logger.loki.username logger.loki.password"
    ),
    "metrics are scraped from /metrics": "trace.serviceName trace.serviceHostName trace.prometheusApiUrl",
    _AT_ONCE: (
        "conversation.cacheExpire conversation.syncInterval conversation.syncOnce conversation.bytesPerSave"
        " conversation.savePoolSize conversation.workerNum conversation.workerScanInterval"
    ),
    "gateway.unacked and gateway.outboxBytes bound what waits for a device": "userMsgQueueMaxSize",
    "store.queueLimit bounds what waits": "maxMessagePerSecond",
    _STREAMS: ("streamCache.streamTimeout"),
    "agents are not served": "agent.webhook.httpAddr agent.webhook.maxPushCount",
    "plugins of the Go server cannot run here": "plugin.socketPath plugin.timeout plugin.install",
    "data is not imported from other servers": "oldV1Api migrateStartStep",
    _ONE_NODE: (
        "cluster.addr cluster.serverAddr cluster.apiUrl cluster.role cluster.seed cluster.initNodes cluster.slotCount"
        " cluster.slotReplicaCount cluster.channelReplicaCount cluster.reqTimeout cluster.tickInterval"
        " cluster.heartbeatIntervalTick cluster.electionIntervalTick cluster.pongMaxTick"
        " cluster.channelReactorSubCount cluster.slotReactorSubCount cluster.channelDestoryAfterIdleTick"
        " proxy nodeRaftAddr nodeRaftAddrReal nodeRPCAddr nodeRPCAddrReal netInterface"
    ),
    _NO_CODE: "appID appKey",
    "the OpenIM API is not served": (
        "openim.addr openim.managers openim.defaultOfflinePush.title openim.defaultOfflinePush.desc"
        " openim.defaultOfflinePush.ex openim.defaultOfflinePush.iOSPushSound openim.defaultOfflinePush.iOSBadgeCount"
    ),
    "the /ext endpoints are not served": "ext.on",
    "behaviour that loses data is not reproduced": "compat.strict compat.strictV1Replace",
    "nobody is asked before a message is stored": (
        "webhook.preSend.url webhook.preSend.timeout webhook.preSend.failOpen"
    ),
    "the bounds of ids are fixed": "api.maxIdBytes",
    "no X-Forwarded-For is believed": "api.trustedProxies",
}


def _by_key() -> Iterator[tuple[str, str]]:
    for reason, names in _BY_REASON.items():
        for name in names.split():
            yield name, reason


WITHOUT_EFFECT = dict(_by_key())
"""Keys that change nothing, and why. A plugin that declares one of them takes it over."""

OF_PLUGINS = {
    "addr": "triolet-gateway",
    "wsAddr": "triolet-gateway",
    "connIdleTime": "triolet-gateway",
    "disableEncryption": "triolet-gateway",
    "messageRetry": "triolet-gateway",
    "gateway": "triolet-gateway",
    "httpAddr": "triolet-api",
    "api": "triolet-api",
    "webhook": "triolet-webhook",
    "datasource": "triolet-datasource",
}
"""Keys and groups, and who would use them if it were installed."""
