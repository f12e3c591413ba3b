// The demo chat: log in, list the conversations, talk, watch a streamed message grow.

import { Backend, decoded, encoded } from "./backend.js";
import { Chat, PERSON, changesMessages, fromGateway, keyOf } from "./chats.js";
import { Connection, reasonText } from "./connection.js";
import { h, labelled } from "./dom.js";

const PAUSES_S = [1, 2, 5, 10];
const WORD_MS = 150;
const SUCCESS = 1;
const SAVED = "triolet.chat";
const DEFAULT_TOKEN = "default111111";
const app = document.getElementById("app");

let session = null; // {backend, token, connection, chats: Map, open: Chat or null, isLeaving}
let parts = null;

// --- login

function showLogin(text = "") {
  session = null;
  const saved = JSON.parse(sessionStorage.getItem(SAVED) ?? "{}");
  const base = new URLSearchParams(location.search).get("apiurl") || saved.base || location.origin;
  const problem = h("p", { role: "alert", class: "problem", hidden: !text }, text);
  const button = h("button", {}, "Connect");
  const form = h("form", { class: "card", onsubmit: submit },
    h("h1", {}, "triolet chat"),
    h("p", { class: "note" }, "A demo: open it in two windows as two users."),
    problem,
    labelled("API", h("input", { name: "base", type: "url", value: base, required: true })),
    labelled("User", h("input", { name: "uid", value: saved.uid ?? "", required: true, autofocus: true, spellcheck: "false" })),
    labelled("Token", h("input", { name: "token", value: DEFAULT_TOKEN, required: true, spellcheck: "false" })),
    h("label", { class: "tick" }, h("input", { type: "checkbox", name: "setToken", checked: true }), "make this the user's token first (POST /user/token)"),
    labelled("Token of the API, if it asks for one", h("input", { name: "apiToken", type: "password", autocomplete: "off" })),
    button);

  async function submit(event) {
    event.preventDefault();
    const values = Object.fromEntries(new FormData(form));
    button.disabled = true;
    try {
      await enter(values);
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
    } finally {
      button.disabled = false;
    }
  }

  document.title = "triolet chat";
  app.replaceChildren(form);
}

async function enter({ base, uid, token, apiToken, setToken }) {
  const backend = new Backend(base.trim(), uid.trim(), apiToken);
  if (setToken) await backend.setToken(token);
  const made = { backend, token, connection: null, chats: new Map(), open: null, isLeaving: false };
  await connect(made);
  sessionStorage.setItem(SAVED, JSON.stringify({ base, uid }));
  session = made;
  drawFrame();
  await sync();
}

// --- connection

async function connect(made) {
  const url = await made.backend.socketUrl();
  const connection = new Connection(url, {
    recv: (params) => session === made && received(params),
    event: (params) => session === made && eventCame(params),
    disconnect: ({ reasonCode, reason }) => {
      made.isLeaving = true;
      if (session === made) showLogin(`The server closed the connection: ${reason || reasonText(reasonCode)}.`);
    },
    close: () => {
      if (session === made && made.connection === connection && !made.isLeaving) reconnect(made);
    },
  });
  await connection.connect(made.backend.uid, made.token);
  made.connection = connection;
}

async function reconnect(made) {
  for (let attempt = 0; session === made; attempt += 1) {
    const pause = PAUSES_S[Math.min(attempt, PAUSES_S.length - 1)];
    say(`Not connected; trying again in ${pause} s.`);
    await new Promise((resolve) => setTimeout(resolve, pause * 1000));
    if (session !== made) return;
    try {
      await connect(made);
      say("");
      await sync();
      if (made.open) await load(made.open, { isFresh: true });
      return;
    } catch (error) {
      say(error.message);
    }
  }
}

function leave() {
  session.isLeaving = true;
  session.connection.close();
  showLogin();
}

/** Do something that may fail; says what went wrong. */
async function guarded(work) {
  const mine = session;
  try {
    await work();
  } catch (error) {
    if (session && session === mine) say(error.message);
  }
}

// --- chats

function chatOf(id, type) {
  const key = keyOf(id, type);
  if (!session.chats.has(key)) session.chats.set(key, new Chat(id, type));
  return session.chats.get(key);
}

async function sync() {
  const mine = session;
  const rows = await mine.backend.conversations();
  if (session !== mine) return;
  for (const row of rows) {
    const chat = chatOf(row.channel_id, row.channel_type);
    chat.unread = chat === session.open ? 0 : row.unread;
    chat.changed = row.timestamp;
    if (!chat.isLoaded) chat.takePage({ messages: row.recents, more: 1 });
    chat.isLoaded = chat === session.open;
  }
  drawList();
}

async function openChat(chat) {
  session.open = chat;
  document.body.classList.add("chat-open");
  drawList();
  drawChat();
  parts.field?.focus();
  await guarded(() => load(chat, { isFresh: true }));
}

/** Fetch a page of a chat: the newest, or what is older than what is known. */
async function load(chat, { isFresh }) {
  const mine = session;
  const asked = performance.now();
  const page = await mine.backend.messages(chat, isFresh ? 0 : chat.firstSeq);
  if (session !== mine) return;
  if (isFresh) chat.forgetBefore(asked);
  chat.takePage(page);
  if (chat === session.open) drawChat({ keepPlace: !isFresh });
  await read(chat);
}

async function read(chat) {
  if (document.hidden || chat !== session.open) return;
  chat.unread = 0;
  drawList();
  await session.backend.markRead(chat);
}

function received(params) {
  const content = decoded(params.payload);
  if (params.header?.syncOnce) {
    if (changesMessages(content) && session.open) guarded(() => load(session.open, { isFresh: true }));
    return;
  }
  const chat = chatOf(params.channelId, params.channelType);
  const isNew = chat.add(fromGateway(params));
  if (chat === session.open) {
    drawChat();
    guarded(() => read(chat));
  } else if (isNew && params.header?.redDot && params.fromUid !== session.backend.uid) {
    chat.unread += 1;
  }
  drawList();
}

function eventCame(params) {
  const data = JSON.parse(params.data);
  const chat = session.chats.get(keyOf(data.channel_id, data.channel_type));
  const message = chat?.applyEvent(params.type, data);
  if (message && chat === session.open) drawChat();
  drawList();
}

async function send(chat, text) {
  const { connection, backend } = session;
  const clientMsgNo = crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;
  const payload = encoded({ type: 1, content: text });
  const result = await connection.call("send", {
    clientMsgNo, channelId: chat.id, channelType: chat.type, header: { redDot: true }, payload,
  });
  if (result.reasonCode !== SUCCESS) throw new Error(`The message was refused: ${reasonText(result.reasonCode)}.`);
  chat.add(fromGateway({
    messageId: result.messageId, messageSeq: result.messageSeq, clientMsgNo, payload,
    fromUid: backend.uid, timestamp: Math.floor(Date.now() / 1000),
  }));
  drawChat();
  drawList();
}

async function sendStream(chat, text) {
  const stream = await session.backend.beginStream(chat);
  const words = text.match(/\S+\s*/g) ?? [];
  for (const [number, word] of words.entries()) {
    await new Promise((resolve) => setTimeout(resolve, WORD_MS));
    await stream.add(word, number);
  }
  await stream.end();
}

// --- drawing

function drawFrame() {
  const status = h("p", { role: "alert", class: "problem", hidden: true });
  const list = h("ul", { class: "chats", "aria-label": "Chats" });
  const pane = h("section", { class: "pane", "aria-label": "Chat" });
  const side = h("aside", {},
    h("header", {}, h("b", { class: "me" }, session.backend.uid), h("button", { type: "button", class: "plain", onclick: leave }, "Leave")),
    opener("person", "User to talk to", "Talk", (id) => openChat(chatOf(id, PERSON))),
    opener("group", "Group to join", "Join", (id) => guarded(async () => {
      await session.backend.join(id);
      await openChat(chatOf(id, 2));
    })),
    list);
  parts = { status, list, pane };
  app.replaceChildren(h("div", { class: "frame" }, side, h("div", { class: "content" }, status, pane)));
  document.body.classList.remove("chat-open");
  drawChat();
}

function opener(name, hint, label, work) {
  return h("form", {
    class: "line",
    onsubmit: (event) => {
      event.preventDefault();
      const id = event.target.elements[name].value.trim();
      event.target.reset();
      if (id) work(id);
    },
  }, h("input", { name, placeholder: hint, "aria-label": hint, required: true, spellcheck: "false" }), h("button", {}, label));
}

function say(text) {
  parts.status.textContent = text;
  parts.status.hidden = !text;
}

const nameOf = (chat) => (chat.type === PERSON ? chat.id : `${chat.id} (group)`);

function drawList() {
  const chats = [...session.chats.values()].sort((one, other) => other.changed - one.changed);
  parts.list.replaceChildren(...chats.map((chat) => h("li", {}, h("button", {
    type: "button", class: "chat", "aria-current": chat === session.open ? "true" : undefined, onclick: () => openChat(chat),
  }, h("b", {}, nameOf(chat)), chat.unread ? h("span", { class: "unread" }, chat.unread) : null, h("span", { class: "last" }, chat.lastText)))));
  const unread = chats.reduce((sum, chat) => sum + chat.unread, 0);
  document.title = `${unread ? `(${unread}) ` : ""}${session.backend.uid} · triolet chat`;
}

/** Draw the open chat. The line that is being typed stays as it is. */
function drawChat({ keepPlace = false } = {}) {
  const chat = session.open;
  if (!chat) {
    parts.pane.replaceChildren(h("p", { class: "note empty" }, "Choose a chat, talk to a user, or join a group."));
    return;
  }
  if (parts.shown !== chat) drawPane(chat);
  const { log } = parts;
  const fromEnd = log.scrollHeight - log.scrollTop;
  const isAtEnd = fromEnd - log.clientHeight < 40;
  log.replaceChildren(...chat.ordered.map(drawMessage));
  parts.older.hidden = !chat.hasOlder || !chat.isLoaded;
  log.prepend(parts.older);
  log.scrollTop = keepPlace || !isAtEnd ? log.scrollHeight - fromEnd : log.scrollHeight;
}

function drawPane(chat) {
  parts.shown = chat;
  parts.older = h("button", { type: "button", class: "plain older", onclick: () => guarded(() => load(chat, { isFresh: false })) }, "Older messages");
  parts.log = h("div", { class: "log", role: "log", tabindex: 0 });
  parts.field = h("input", { name: "text", autocomplete: "off", placeholder: "Message", "aria-label": "Message" });
  const submit = (work) => (event) => {
    event.preventDefault();
    const text = parts.field.value;
    if (!text.trim()) return;
    parts.field.value = "";
    say("");
    guarded(() => work(chat, text));
  };
  parts.pane.replaceChildren(
    h("header", {}, h("button", { type: "button", class: "plain back", onclick: goBack }, "Back"), h("h1", {}, nameOf(chat))),
    parts.log,
    h("form", { class: "line write", onsubmit: submit(send) }, parts.field, h("button", {}, "Send"),
      h("button", { type: "button", class: "plain", title: "send it word by word", onclick: submit(sendStream) }, "Stream")));
}

function goBack() {
  session.open = null;
  parts.shown = null;
  document.body.classList.remove("chat-open");
  drawList();
  drawChat();
}

function drawMessage(message) {
  if (message.isCommand) return h("p", { class: "event" }, message.text);
  const isMine = message.from === session.backend.uid;
  const time = new Date(message.time * 1000).toLocaleTimeString("en-GB");
  const note = message.isGrowing ? "…" : message.note;
  return h("div", { class: `message ${isMine ? "mine" : ""} ${message.isGrowing ? "growing" : ""} ${message.note}` },
    h("p", { class: "text" }, message.text),
    h("p", { class: "meta" }, [isMine ? "" : message.from || "system", time, note].filter(Boolean).join(" · ")));
}

document.addEventListener("visibilitychange", () => session?.open && guarded(() => read(session.open)));
showLogin();
