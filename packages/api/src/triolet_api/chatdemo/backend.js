// The calls of the HTTP API that the chat needs.

const PAGE = 30;
const LONGEST_MS = 30_000;

/** The API of a server, for one user. */
export class Backend {
  constructor(base, uid, apiToken) {
    this.base = base.replace(/\/+$/, "");
    this.uid = uid;
    this.apiToken = apiToken;
  }

  async #request(method, path, body) {
    const headers = this.apiToken ? { token: this.apiToken } : {};
    let response;
    try {
      response = await fetch(this.base + path, {
        method, headers, body: body && JSON.stringify(body), credentials: "omit", cache: "no-store",
        signal: AbortSignal.timeout(LONGEST_MS),
      });
    } catch {
      throw new Error(`The API at ${this.base} cannot be reached.`);
    }
    if (response.status === 401) throw new Error("The API asks for a token: enter its managerToken.");
    let answer;
    try {
      answer = await response.json();
    } catch {
      throw new Error(`${path}: ${response.status}, and the answer is not JSON.`);
    }
    const status = answer?.status ?? response.status;
    if (!response.ok || (status !== 200 && status !== 0)) throw new Error(`${path}: ${status} ${answer?.msg ?? "refused"}`);
    return answer;
  }

  setToken(token) {
    return this.#request("POST", "/user/token", { uid: this.uid, token, device_flag: 1, device_level: 0 });
  }

  async socketUrl() {
    const route = await this.#request("GET", `/route?uid=${encodeURIComponent(this.uid)}`);
    const url = location.protocol === "https:" ? route.wss_addr || route.ws_addr : route.ws_addr || route.wss_addr;
    if (!url) throw new Error("The server names no WebSocket address (wsAddr).");
    return /^wss?:/.test(url) ? url : `ws://${url}`;
  }

  conversations() {
    return this.#request("POST", "/conversation/sync", { uid: this.uid, version: 0, msg_count: 1 });
  }

  /** Return a page of a channel: the newest messages, or those before a seq. */
  messages(chat, before = 0) {
    return this.#request("POST", "/channel/messagesync", {
      login_uid: this.uid, channel_id: chat.id, channel_type: chat.type, limit: PAGE,
      start_message_seq: before ? before - 1 : 0, end_message_seq: 0, pull_mode: 0, event_summary_mode: "full",
    });
  }

  markRead(chat) {
    return this.#request("POST", "/conversations/setUnread", { uid: this.uid, channel_id: chat.id, channel_type: chat.type, unread: 0 });
  }

  /** Join a group, and tell its members with a command that is not kept. */
  async join(id) {
    await this.#request("POST", "/channel/subscriber_add", { channel_id: id, channel_type: 2, subscribers: [this.uid] });
    const payload = { type: 99, cmd: "memberJoined", param: { uid: this.uid } };
    await this.#request("POST", "/message/send", {
      from_uid: this.uid, channel_id: id, channel_type: 2, header: { no_persist: 1 }, payload: encoded(payload),
    });
  }

  async beginStream(chat) {
    const target = { channel_id: chat.id, channel_type: chat.type, from_uid: this.uid };
    const { stream_no: number } = await this.#request("POST", "/stream", { ...target, content: "", header: { red_dot: 1 } });
    return {
      add: (text, chunk) => this.#request("POST", "/stream/chunk", { ...target, stream_no: number, content: text, chunk_id: chunk }),
      end: () => this.#request("POST", "/stream/chunk", { ...target, stream_no: number, end: 1 }),
    };
  }
}

/** Return a value as base64 of its JSON. */
export function encoded(value) {
  const bytes = new TextEncoder().encode(JSON.stringify(value));
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}

/** Return what a payload holds: an object if it is JSON, else {content: its text}. */
export function decoded(base64) {
  const text = new TextDecoder().decode(Uint8Array.from(atob(base64 ?? ""), (character) => character.charCodeAt(0)));
  try {
    const value = JSON.parse(text);
    if (value !== null && typeof value === "object") return value;
  } catch {
    // Plain text is a payload as well.
  }
  return { content: text };
}
