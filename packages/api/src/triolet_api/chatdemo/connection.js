// One JSON-RPC connection to the gateway, over a WebSocket.

const CALL_MS = 10_000;
const PING_MS = 30_000;
const SUCCESS = 1;
const WEB = 1;
const REASONS = {
  2: "wrong token", 3: "not a member", 4: "on the denylist", 5: "no such channel", 11: "not allowed", 12: "kicked",
  13: "not on the allowlist", 16: "bad channel id", 19: "banned", 22: "too many messages", 23: "bad channel type",
  24: "disbanded", 25: "sending is off",
};

/** Say what a reason code means. */
export const reasonText = (code) => REASONS[code] ?? `reason ${code}`;

/** Return the JSON values of a text: a server may put several behind one another. */
export function valuesOf(text) {
  try {
    return [JSON.parse(text)];
  } catch {
    return [...pieces(text)].map((piece) => JSON.parse(piece));
  }
}

function* pieces(text) {
  let depth = 0;
  let start = 0;
  let isString = false;
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at];
    if (isString) {
      if (character === "\\") at += 1;
      else if (character === '"') isString = false;
    } else if (character === '"') isString = true;
    else if (character === "{" || character === "[") depth += 1;
    else if (character === "}" || character === "]") {
      depth -= 1;
      if (!depth) {
        yield text.slice(start, at + 1);
        start = at + 1;
      }
    }
  }
}

/** A connection. `on` has listeners: recv(params), event(params), disconnect(params), close(). */
export class Connection {
  #socket;
  #on;
  #waiting = new Map();
  #number = 0;
  #ping;

  constructor(url, on) {
    this.#on = on;
    this.#socket = new WebSocket(url);
    this.#socket.binaryType = "arraybuffer";
    this.#socket.addEventListener("message", (event) => this.#take(event.data));
    this.#socket.addEventListener("close", () => this.#end());
  }

  /** Log in; rejects if the server refuses, or cannot be reached. */
  async connect(uid, token) {
    await new Promise((resolve, reject) => {
      this.#socket.addEventListener("open", resolve);
      this.#socket.addEventListener("close", () => reject(new Error("The gateway cannot be reached.")));
    });
    const result = await this.call("connect", {
      uid, token, deviceId: deviceId(), deviceFlag: WEB, clientTimestamp: Date.now(),
    });
    if (result.reasonCode !== SUCCESS) throw new Error(`The gateway refused the login: ${reasonText(result.reasonCode)}.`);
    this.#ping = setInterval(() => this.call("ping", {}).catch(() => this.close()), PING_MS);
  }

  /** Make a request; returns its result. */
  call(method, params) {
    const id = String((this.#number += 1));
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#settle(id, { error: { message: `no answer to ${method}` } }), CALL_MS);
      this.#waiting.set(id, { resolve, reject, timer });
      this.#write({ id, method, params });
    });
  }

  close() {
    this.#socket.close();
  }

  #write(message) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify({ jsonrpc: "2.0", ...message }));
    else if (message.id) this.#settle(message.id, { error: { message: "not connected" } });
  }

  #take(data) {
    const text = typeof data === "string" ? data : new TextDecoder().decode(data);
    for (const message of valuesOf(text).flat()) {
      if (message.id !== undefined) this.#settle(message.id, message);
      else if (message.method === "recv") this.#received(message.params);
      else this.#on[message.method]?.(message.params);
    }
  }

  #received(params) {
    const { header, messageId, messageSeq } = params;
    this.#write({ method: "recvack", params: { header, messageId, messageSeq } });
    this.#on.recv(params);
  }

  #settle(id, { result, error }) {
    const call = this.#waiting.get(id);
    if (!call) return;
    this.#waiting.delete(id);
    clearTimeout(call.timer);
    if (error) call.reject(new Error(error.code ? `${error.message} (${reasonText(error.code)})` : error.message));
    else call.resolve(result ?? {});
  }

  #end() {
    clearInterval(this.#ping);
    for (const id of [...this.#waiting.keys()]) this.#settle(id, { error: { message: "The connection was lost." } });
    this.#on.close();
  }
}

/** Return the name of this tab, the same after a reload. */
function deviceId() {
  const known = sessionStorage.getItem("triolet.device");
  if (known) return known;
  const made = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  sessionStorage.setItem("triolet.device", made);
  return made;
}
