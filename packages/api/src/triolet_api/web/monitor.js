// The pages of charts, declared: each line is [member of a sample, label].

const packets = (...names) => names.map((name) => [`${name}_packet_count_rate`, name]);

const application = {
  path: "/monitor/app", group: "Monitor", title: "Application", kind: "charts", endpoint: "/metrics/app",
  charts: [
    { title: "Online", lines: [["conn_count", "connections"], ["online_user_count", "users"], ["online_device_count", "devices"]] },
    { title: "Message packets per second", lines: packets("send", "sendack", "recv", "recvack") },
    { title: "Other packets per second", lines: packets("conn", "ping", "pong") },
  ],
};

const store = {
  path: "/monitor/cluster", group: "Monitor", title: "Store", kind: "charts", endpoint: "/metrics/cluster",
  note: "One node: what it stores is what it proposes, and nothing goes to other nodes.",
  charts: [
    { title: "Messages stored per second", lines: [["channel_propose_count_rate", "stored"]] },
    { title: "Messages refused per second", lines: [["channel_propose_failed_count_rate", "refused"]] },
    { title: "Messages sent by clients per second", lines: [["sendpacket_incoming_count_rate", "sent"]] },
  ],
};

const system = {
  path: "/monitor/system", group: "Monitor", title: "System", kind: "charts", endpoint: "/metrics/system",
  charts: [
    { title: "Client traffic per second", unit: "bytes", lines: [["extranet_incoming_bytes_rate", "in"], ["extranet_outgoing_bytes_rate", "out"]] },
    { title: "Processor", unit: "percent", lines: [["cpu_percent", "of one core"]] },
    { title: "Memory, the most so far", unit: "bytes", lines: [["memstats_alloc_bytes", "resident"]] },
    { title: "Tasks", lines: [["goroutines", "tasks"]] },
  ],
};

/** The pages of charts, in the order of the menu. */
export const monitor = [application, store, system];
