// What is known of the chats: messages by id, unread counts, streamed text. Nothing here draws or connects.

import { decoded } from "./backend.js";

export const PERSON = 1;
export const COMMAND = 99;
const GONE = new Set(["messageRevoke", "messageEdit", "messageDelete"]);

/** Name a chat. */
export const keyOf = (id, type) => `${type} ${id}`;

/** Whether a command says that stored messages have changed. */
export const changesMessages = (content) => content.type === COMMAND && GONE.has(content.cmd);

/** One chat. */
export class Chat {
  constructor(id, type) {
    this.id = id;
    this.type = type;
    this.unread = 0;
    this.changed = 0;
    this.hasOlder = false;
    this.isLoaded = false;
    this.messages = new Map();
  }

  /** The messages in order; what has no place in the channel comes where it arrived. */
  get ordered() {
    return [...this.messages.values()].sort((one, other) => one.order - other.order);
  }

  get lastText() {
    return this.ordered.findLast((message) => !message.isCommand)?.text ?? "";
  }

  get firstSeq() {
    const seqs = [...this.messages.values()].map((message) => message.seq).filter(Boolean);
    return seqs.length ? Math.min(...seqs) : 0;
  }

  /** Take messages as /channel/messagesync has them. */
  takePage(page) {
    for (const each of page.messages) this.add(fromHistory(each));
    this.hasOlder = Boolean(page.more);
    this.isLoaded = true;
  }

  /** Forget the stored messages that were known at a moment: what was not deleted comes with a page. */
  forgetBefore(moment) {
    for (const each of this.messages.values()) {
      if (each.seq && each.cameAt < moment) this.messages.delete(each.id);
    }
  }

  add(message) {
    message.cameAt = performance.now();
    const known = this.messages.get(message.id);
    const last = Math.max(0, ...[...this.messages.values()].map((each) => each.order));
    message.order = message.seq || known?.order || last + 0.001;
    this.messages.set(message.id, message);
    this.changed = Math.max(this.changed, message.time);
    return !known;
  }

  /** Apply an event to the message it is about; returns that message. */
  applyEvent(type, data) {
    const message = [...this.messages.values()].find((each) => each.number === data.client_msg_no);
    if (!message || data.event_key !== "main") {
      if (message && type === "stream.finish") message.isGrowing = false;
      return message;
    }
    const { payload } = data;
    if (payload?.kind === "text" && typeof payload.delta === "string") message.text += payload.delta;
    else if (type === "stream.snapshot") message.text = snapshotText(payload) ?? message.text;
    else message.text = snapshotText(payload?.snapshot) ?? message.text;
    message.isGrowing = data.stream_status === "open";
    message.note = data.stream_status === "error" || data.stream_status === "cancelled" ? data.stream_status : "";
    return message;
  }
}

function snapshotText(snapshot) {
  if (typeof snapshot === "string") return snapshot;
  return typeof snapshot?.text === "string" ? snapshot.text : undefined;
}

function shown(content) {
  if (content.type === COMMAND) return content.cmd === "memberJoined" ? `${content.param?.uid} joined` : `command ${content.cmd ?? ""}`;
  return typeof content.content === "string" ? content.content : JSON.stringify(content);
}

/** Return a message of the history. */
export function fromHistory(each) {
  const content = decoded(each.payload);
  const main = each.event_meta?.events?.find((lane) => lane.event_key === "main");
  return {
    id: each.message_idstr,
    seq: each.message_seq,
    number: each.client_msg_no,
    from: each.from_uid,
    time: each.timestamp,
    isCommand: content.type === COMMAND,
    text: each.is_deleted ? "taken back" : snapshotText(main?.snapshot) ?? shown(content),
    isGrowing: main?.status === "open",
    note: each.is_deleted ? "recalled" : each.revision ? "edited" : "",
  };
}

/** Return a message that has just come. */
export function fromGateway(params) {
  const content = decoded(params.payload);
  return {
    id: params.messageId,
    seq: params.messageSeq,
    number: params.clientMsgNo,
    from: params.fromUid,
    time: params.timestamp,
    isCommand: content.type === COMMAND,
    text: shown(content),
    isGrowing: Boolean(params.setting?.stream),
    note: "",
  };
}
