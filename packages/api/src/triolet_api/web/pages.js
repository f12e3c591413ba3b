// Every page of the administrator, declared. `table.js` shows those with columns, `views.js` the others.
//
// Tables:  path, group, title, note   where it is, and what is to be said about it
//          endpoint, rows(answer)     what is fetched; `total(answer)` if the answer says how many there are
//          limited: [step, most]      rows fetched at first and with each "more", and the most; absent: all come at once
//          filters                    {name, label, options?, encode?}: fields of the query
//          needed                     the filter without which nothing is asked for
//          key(row)                   what makes a row the same after a refresh
//          columns                    {label, show(row), link?(row) => [path, query], sort?, kind?: number, code, text}
//          actions                    {label, needs?, when?(row), and one of: ask(row) + call(row) => [path, body],
//                                     list(row), value(row) => [title, value], fetch(row) => [title, method, path, body]}
//          form                       {label, needs, fields, call(values) => [path, body]}
//          refresh                    seconds between two looks at first; absent: it is off

import { base64Of, bytes, channelType, channelTypes, deviceFlag, moment, nanoMoment, payloadText, payloadValue, whole } from "./format.js";
import { monitor } from "./monitor.js";

const yesNo = (value) => (value ? "yes" : "");
const uidFilter = { name: "uid", label: "User" };
const typeFilter = { name: "channel_type", label: "Type", options: channelTypes };
const channelFilter = { name: "channel_id", label: "Channel" };
const flagOptions = [["", "any"], [1, "yes"], [0, "no"]];
const channelPath = (row, rest) => `/cluster/channels/${encodeURIComponent(row.channel_id)}/${row.channel_type}/${rest}`;
const channelOf = (row) => ({ channel_id: row.channel_id, channel_type: row.channel_type });
const channelName = (row) => `${row.channel_id} (${channelType(row.channel_type)})`;
const messagesOf = (row) => ["/data/message", channelOf(row)];

const traffic = [
  { label: "Connections", kind: "number", show: (row) => whole(row.conn_count) },
  { label: "Messages sent", kind: "number", show: (row) => `${whole(row.send_msg_count)} · ${bytes(row.send_msg_bytes)}` },
  { label: "Messages received", kind: "number", show: (row) => `${whole(row.recv_msg_count)} · ${bytes(row.recv_msg_bytes)}` },
];
const times = [
  { label: "Created", show: (row) => nanoMoment(row.created_at) },
  { label: "Updated", show: (row) => nanoMoment(row.updated_at) },
];

/** Declare the dialog of a list of a channel. */
function listOf(title, name, prefix, row) {
  const query = new URLSearchParams(channelOf(row));
  return {
    title: `${title} of ${channelName(row)}`,
    read: `/channel/${name}?${query}`,
    add: `/channel/${prefix}_add`,
    remove: `/channel/${prefix}_remove`,
    body: (uids) => ({ ...channelOf(row), uids }),
  };
}

const members = (row) => listOf("Members", "subscribers", "subscriber", row);
const denied = (row) => listOf("Denylist", "blacklist", "blacklist", row);
const allowed = (row) => listOf("Allowlist", "whitelist", "whitelist", row);
const asPerson = (row) => ({ channel_id: row.uid, channel_type: 1 });

function quit(row, flag, what) {
  return {
    question: `Forget the token of ${what} and close its connections? It has to log in again.`,
    path: "/user/device_quit",
    body: { uid: row.uid, device_flag: flag },
  };
}

const nodes = {
  path: "/cluster/nodes", group: "Cluster", title: "Nodes",
  endpoint: "/cluster/nodes", rows: (answer) => answer.data, key: (row) => row.id, refresh: 5,
  columns: [
    { label: "Id", kind: "number", show: (row) => row.id },
    { label: "Role", show: (row) => (row.is_leader ? "leader" : "follower") },
    { label: "Term", kind: "number", show: (row) => whole(row.term) },
    { label: "Slots led / all", kind: "number", show: (row) => `${whole(row.slot_leader_count)} / ${whole(row.slot_count)}` },
    { label: "Votes", show: (row) => yesNo(row.allow_vote) },
    { label: "Online", show: (row) => yesNo(row.online) },
    { label: "Times offline", kind: "number", show: (row) => whole(row.offline_count ?? 0) },
    { label: "Uptime", show: (row) => row.uptime },
    { label: "Address", kind: "code", show: (row) => row.cluster_addr },
    { label: "API", kind: "code", show: (row) => row.api_server_addr },
    { label: "Version", show: (row) => row.app_version },
    { label: "Config", kind: "number", show: (row) => whole(row.config_version) },
    { label: "Status", show: (row) => (row.status === 3 ? "joined" : row.status_format) },
  ],
};

const slots = {
  path: "/cluster/slots", group: "Cluster", title: "Slots",
  note: "One node leads every slot, so there is nothing to move and nobody else to elect.",
  endpoint: "/cluster/allslot", rows: (answer) => answer.data, total: (answer) => answer.total, key: (row) => row.id,
  columns: [
    { label: "Id", kind: "number", show: (row) => row.id },
    { label: "Leader", kind: "number", show: (row) => row.leader_id },
    { label: "Term", kind: "number", show: (row) => row.term },
    { label: "Replicas", show: (row) => row.replicas.join(", ") },
    { label: "Channels", kind: "number", show: (row) => whole(row.channel_count) },
    { label: "Log index", kind: "number", show: (row) => whole(row.log_index) },
    { label: "Status", show: (row) => (row.status === 0 ? "normal" : row.status_format) },
  ],
  actions: [
    { label: "Channels", when: (row) => row.channel_count, fetch: (row) => [`Channels of slot ${row.id}`, "GET", `/cluster/slots/${row.id}/channels`] },
    { label: "Replicas", fetch: (row) => [`Replicas of slot ${row.id}`, "GET", `/cluster/slots/${row.id}/replicas`] },
  ],
};

const clusterChannels = {
  path: "/cluster/channels", group: "Cluster", title: "Cluster channels",
  endpoint: "/cluster/nodes/0/channels", rows: (answer) => answer.data, total: (answer) => answer.total,
  limited: [100, 10000], filters: [channelFilter, typeFilter], key: (row) => `${row.channel_type} ${row.channel_id}`,
  columns: [
    { label: "Channel", kind: "code", show: (row) => row.channel_id, link: messagesOf },
    { label: "Type", show: (row) => channelType(row.channel_type) },
    { label: "Slot", kind: "number", show: (row) => row.slot_id },
    { label: "Slot leader", kind: "number", show: (row) => row.slot_leader_id },
    { label: "Leader", kind: "number", show: (row) => row.leader_id },
    { label: "Term", kind: "number", show: (row) => row.term },
    { label: "Replicas", show: (row) => row.replicas.join(", ") },
    { label: "Last seq", kind: "number", show: (row) => whole(row.last_message_seq) },
    { label: "Last message (UTC)", show: (row) => row.last_append_time },
    { label: "Active", show: (row) => yesNo(row.active) },
  ],
  actions: [
    { label: "Config", fetch: (row) => [`Config of ${channelName(row)}`, "GET", channelPath(row, "config")] },
    { label: "Replicas", fetch: (row) => [`Replicas of ${channelName(row)}`, "GET", channelPath(row, "replicas")] },
    {
      label: "Unload", needs: ["clusterchannelStop", "w"],
      ask: (row) => `Put ${channelName(row)} out of memory? Its next message reads it again; nothing is lost.`,
      call: (row) => [channelPath(row, "stop"), {}],
    },
  ],
};

const clusterConfig = { path: "/cluster/config", group: "Cluster", title: "Cluster config", kind: "raw", endpoint: "/cluster/info" };

const pair = (row, name) => `${whole(row[`in_${name}`])} / ${whole(row[`out_${name}`])}`;
const bytePair = (row, name) => `${bytes(row[`in_${name}`])} / ${bytes(row[`out_${name}`])}`;

const connections = {
  path: "/data/connection", group: "Data", title: "Connections",
  endpoint: "/connz", rows: (answer) => answer.connections, total: (answer) => answer.total, limited: [100, 1000],
  filters: [uidFilter], key: (row) => row.id, refresh: 1,
  columns: [
    { label: "Id", kind: "number", sort: "id", show: (row) => row.id },
    { label: "User", kind: "code", show: (row) => row.uid, link: (row) => ["/data/user", { uid: row.uid }] },
    { label: "Device", show: (row) => row.device.replace("主", "master").replace("从", "slave") },
    { label: "Device id", kind: "code", show: (row) => row.device_id },
    { label: "Address", kind: "code", show: (row) => (row.ip ? `${row.ip}:${row.port}` : "") },
    { label: "Messages in / out", kind: "number", sort: "inMsg", show: (row) => pair(row, "msgs") },
    { label: "Message bytes in / out", kind: "number", sort: "inMsgBytes", show: (row) => bytePair(row, "msg_bytes") },
    { label: "Packets in / out", kind: "number", sort: "inPacket", show: (row) => pair(row, "packets") },
    { label: "Packet bytes in / out", kind: "number", sort: "inPacketBytes", show: (row) => bytePair(row, "packet_bytes") },
    { label: "Waiting", kind: "number", sort: "pendingBytes", show: (row) => bytes(row.pending_bytes) },
    { label: "Uptime", kind: "number", sort: "uptime", show: (row) => row.uptime },
    { label: "Idle", kind: "number", sort: "idle", show: (row) => row.idle },
    { label: "Protocol", kind: "number", sort: "protoVersion", show: (row) => row.version },
    { label: "Node", kind: "number", show: (row) => row.node_id },
  ],
  actions: [
    {
      label: "Remove", needs: ["connection", "w"],
      ask: (row) => `Close connection ${row.id} of ${row.uid} without a word? The client connects again.`,
      call: (row) => ["/conn/remove", { uid: row.uid, conn_id: row.id, node_id: row.node_id }],
    },
    {
      label: "Kick", needs: ["connection", "w"],
      ask: (row) => `Tell connection ${row.id} of ${row.uid} that it is kicked, and close it?`,
      call: (row) => ["/conn/kick", { uid: row.uid, conn_id: row.id, node_id: row.node_id }],
    },
  ],
};

const users = {
  path: "/data/user", group: "Data", title: "Users", note: "Who has a token or a connection. Counts are those of the open connections.",
  endpoint: "/cluster/users", rows: (answer) => answer.data, total: (answer) => answer.total, limited: [100, 10000],
  filters: [uidFilter], key: (row) => row.uid,
  columns: [
    { label: "User", kind: "code", show: (row) => row.uid },
    { label: "Devices", kind: "number", show: (row) => whole(row.device_count), link: (row) => ["/data/device", { uid: row.uid }] },
    { label: "Online devices", kind: "number", show: (row) => whole(row.online_device_count), link: (row) => ["/data/connection", { uid: row.uid }] },
    ...traffic,
    { label: "Slot", kind: "number", show: (row) => row.slot },
    ...times,
  ],
  actions: [
    { label: "Allowlist", list: (row) => allowed(asPerson(row)) },
    { label: "Denylist", list: (row) => denied(asPerson(row)) },
    {
      label: "Log out", needs: ["api", "w"],
      ask: (row) => quit(row, -1, `every device of ${row.uid}`).question,
      call: (row) => ["/user/device_quit", quit(row, -1, "").body],
    },
  ],
};

const devices = {
  path: "/data/device", group: "Data", title: "Devices", note: "Tokens are shown by their last characters only.",
  endpoint: "/cluster/devices", rows: (answer) => answer.data, total: (answer) => answer.total, limited: [100, 10000],
  filters: [uidFilter, { name: "device_flag", label: "Device", options: [["", "any"], [0, "app"], [1, "web"], [2, "pc"], [99, "system"]] }],
  key: (row) => `${row.device_flag} ${row.uid}`,
  columns: [
    { label: "User", kind: "code", show: (row) => row.uid, link: (row) => ["/data/user", { uid: row.uid }] },
    { label: "Token", kind: "code", show: (row) => row.token },
    { label: "Device", show: (row) => deviceFlag(row.device_flag) },
    { label: "Level", show: (row) => (row.device_level === 1 ? "master" : "slave") },
    ...traffic,
    ...times,
  ],
  actions: [
    {
      label: "Log out", needs: ["api", "w"],
      ask: (row) => quit(row, row.device_flag, `the ${deviceFlag(row.device_flag)} device of ${row.uid}`).question,
      call: (row) => ["/user/device_quit", quit(row, row.device_flag, "").body],
    },
  ],
};

/** Return what is special about a message. */
function marksOf(row) {
  const expires = row.expire && `expires after ${whole(row.expire)} s`;
  return [row.is_stream && "stream", row.topic && `topic ${row.topic}`, expires].filter(Boolean).join(", ");
}

const messages = {
  path: "/data/message", group: "Data", title: "Messages",
  note: "The newest first. A channel is named as it is stored: a person channel as both uids with @ between them.",
  endpoint: "/cluster/messages", rows: (answer) => answer.data, limited: [50, 10000],
  filters: [
    { name: "from_uid", label: "Sender" }, channelFilter, typeFilter,
    { name: "payload", label: "Text", encode: base64Of }, { name: "message_id", label: "Message id" },
    { name: "client_msg_no", label: "Client number" },
  ],
  key: (row) => row.message_id,
  columns: [
    { label: "Seq", kind: "number", show: (row) => row.message_seq },
    { label: "Time", show: (row) => moment(row.timestamp) },
    { label: "Channel", kind: "code", show: (row) => row.channel_id, link: messagesOf },
    { label: "Sender", kind: "code", show: (row) => row.from_uid },
    { label: "Payload", kind: "text", show: (row) => payloadText(row.payload) },
    { label: "Type", show: (row) => channelType(row.channel_type) },
    { label: "Id", kind: "code", show: (row) => row.message_id },
    { label: "Marks", show: marksOf },
  ],
  actions: [
    { label: "Details", value: (row) => [`Message ${row.message_id}`, { ...row, payload: payloadValue(row.payload) }] },
    {
      label: "Events", when: (row) => row.is_stream,
      fetch: (row) => [`Events of message ${row.message_id}`, "POST", "/cluster/message/eventsync",
        { ...channelOf(row), client_msg_no: row.client_msg_no, include_private: 1 }],
    },
    {
      label: "Recall", needs: ["message", "w"], when: (row) => row.payload,
      ask: (row) => `Take message ${row.message_seq} of ${channelName(row)} back? Its payload is deleted, devices are told; its place stays.`,
      call: (row) => ["/message/recall", { ...channelOf(row), message_id: row.message_id }],
    },
    {
      label: "Delete", needs: ["message", "w"],
      ask: (row) => `Delete message ${row.message_seq} of ${channelName(row)} for good, and tell devices?`,
      call: (row) => ["/message/delete", { ...channelOf(row), message_ids: [row.message_id] }],
    },
  ],
};

const channels = {
  path: "/data/channel", group: "Data", title: "Channels",
  endpoint: "/cluster/channels", rows: (answer) => answer.data, total: (answer) => answer.total, limited: [100, 10000],
  filters: [
    channelFilter, typeFilter, { name: "ban", label: "Banned", options: flagOptions },
    { name: "disband", label: "Disbanded", options: flagOptions },
    { name: "subscriber_count_gte", label: "Members from" }, { name: "subscriber_count_lte", label: "Members to" },
    { name: "denylist_count_gte", label: "Denied from" }, { name: "allowlist_count_gte", label: "Allowed from" },
  ],
  key: (row) => `${row.channel_type} ${row.channel_id}`,
  columns: [
    { label: "Channel", kind: "code", show: (row) => row.channel_id, link: messagesOf },
    { label: "Type", show: (row) => channelType(row.channel_type) },
    { label: "Slot", kind: "number", show: (row) => row.slot },
    { label: "Banned", show: (row) => yesNo(row.ban) },
    { label: "Disbanded", show: (row) => yesNo(row.disband) },
    { label: "Members", kind: "number", show: (row) => whole(row.subscriber_count) },
    { label: "Allowed", kind: "number", show: (row) => whole(row.allowlist_count) },
    { label: "Denied", kind: "number", show: (row) => whole(row.denylist_count) },
    { label: "Last seq", kind: "number", show: (row) => whole(row.last_msg_seq) },
    { label: "Last message", show: (row) => nanoMoment(row.last_msg_time) },
    ...times,
  ],
  actions: [
    { label: "Members", list: members },
    { label: "Allowlist", list: allowed },
    { label: "Denylist", list: denied },
  ],
};

const conversations = {
  path: "/data/conversation", group: "Data", title: "Conversations",
  endpoint: "/cluster/conversations", rows: (answer) => answer.data, total: (answer) => answer.total, limited: [100, 10000],
  filters: [uidFilter], needed: "uid", key: (row) => `${row.channel_type} ${row.channel_id}`,
  columns: [
    { label: "User", kind: "code", show: (row) => row.uid },
    { label: "Channel", kind: "code", show: (row) => row.channel_id, link: messagesOf },
    { label: "Type", show: (row) => channelType(row.channel_type) },
    { label: "Unread", kind: "number", show: (row) => whole(row.unread_count) },
    { label: "Last seq", kind: "number", show: (row) => whole(row.last_msg_seq) },
    { label: "Read to seq", kind: "number", show: (row) => whole(row.readed_to_msg_seq) },
    { label: "Created", show: (row) => moment(row.created_at) },
    { label: "Updated", show: (row) => moment(row.updated_at) },
  ],
};

const tags = {
  path: "/data/tag", group: "Data", title: "Tags",
  note: "The receivers of a channel that are in memory. One that is removed is read again with the next message.",
  endpoint: "/tags", rows: (answer) => answer, filters: [channelFilter, typeFilter, { name: "tag_key", label: "Key" }], key: (row) => row.key,
  columns: [
    { label: "Key", kind: "code", show: (row) => row.key },
    { label: "Channel", kind: "code", show: (row) => row.channel_id },
    { label: "Type", show: (row) => channelType(row.channel_type) },
    { label: "Nodes", show: (row) => row.nodes.map((node) => node.leader_id).join(", ") },
    { label: "Users", kind: "number", show: (row) => whole(row.nodes.reduce((sum, node) => sum + node.uid_count, 0)) },
  ],
  actions: [
    { label: "Users", value: (row) => [`Receivers of ${channelName(row)}`, row.nodes.flatMap((node) => node.uids).join("\n")] },
    {
      label: "Remove", needs: ["tag", "w"],
      ask: (row) => `Put the receivers of ${channelName(row)} out of memory?`,
      call: (row) => ["/tag/remove", { tag_key: row.key }],
    },
  ],
};

const states = ["starting", "running", "failed", "offline", "disabled"];

const plugins = {
  path: "/data/plugin", group: "Extensions", title: "Plugins",
  note: "A plugin is a Python package; its settings are the server's, read at start.",
  endpoint: "/plugins", rows: (answer) => answer, key: (row) => row.no, refresh: 10,
  columns: [
    { label: "Name", kind: "code", show: (row) => row.name },
    { label: "Version", show: (row) => row.version },
    { label: "Node", kind: "number", show: (row) => row.node_id },
    { label: "Status", show: (row) => states[row.status] ?? row.status },
    { label: "Answers HTTP", show: (row) => yesNo(row.methods.includes("Route")) },
    { label: "Speaks for users", show: (row) => yesNo(row.is_ai), link: (row) => ["/data/ai", { plugin_no: row.no }] },
  ],
};

const bindings = {
  path: "/data/ai", group: "Extensions", title: "AI bindings", note: "The plugin that speaks for a user.",
  endpoint: "/plugin/bind", rows: (answer) => answer, filters: [{ name: "plugin_no", label: "Plugin" }, uidFilter],
  key: (row) => `${row.plugin_no} ${row.uid}`,
  columns: [
    { label: "Plugin", kind: "code", show: (row) => row.plugin_no },
    { label: "User", kind: "code", show: (row) => row.uid },
    ...times,
  ],
  form: {
    label: "Bind", needs: ["pluginUserAdd", "w"], fields: [["plugin_no", "Plugin"], ["uid", "User"]],
    call: (values) => ["/plugin/bind", values],
  },
  actions: [
    {
      label: "Unbind", needs: ["pluginUserDelete", "w"],
      ask: (row) => `No longer let ${row.plugin_no} speak for ${row.uid}?`,
      call: (row) => ["/plugin/unbind", { plugin_no: row.plugin_no, uid: row.uid }],
    },
  ],
};

const deadLetters = {
  path: "/data/webhook", group: "Extensions", title: "Webhook dead letters",
  note: "What the receiver of webhooks did not take. The oldest first.",
  endpoint: "/webhook/dead", onlyIfServed: true, refresh: 10, rows: (answer) => answer.data, limited: [100, 1000], key: (row) => row.id,
  columns: [
    { label: "Id", kind: "number", show: (row) => row.id },
    { label: "Event", kind: "code", show: (row) => row.event },
    { label: "Event id", kind: "code", show: (row) => row.event_id },
    { label: "Reason", kind: "text", show: (row) => row.reason },
    { label: "Attempts", kind: "number", show: (row) => whole(row.attempts) },
    { label: "Given up", show: (row) => moment(row.died) },
    { label: "About", kind: "code", show: (row) => (row.users ? row.users.join(", ") : `${row.first_message_id ?? ""} – ${row.last_message_id ?? ""}`) },
  ],
  actions: [
    {
      label: "Push again", needs: ["webhook", "w"], ask: (row) => `Push letter ${row.id} again?`,
      call: (row) => ["/webhook/dead/resend", { ids: [row.id] }],
      problem: (answer) => answer.data.reason && `It was refused again: ${answer.data.reason}`,
    },
    {
      label: "Drop", needs: ["webhook", "w"], ask: (row) => `Forget letter ${row.id}? Its receiver will not hear of it.`,
      call: (row) => ["/webhook/dead/drop", { ids: [row.id] }],
    },
  ],
};

/** Every page, in the order of the menu. */
export const pages = [
  { path: "/", group: "", title: "Overview", kind: "overview" }, nodes, slots, clusterChannels, clusterConfig, connections, users, devices, messages, channels, conversations,
  tags, plugins, bindings, deadLetters, ...monitor,
];
