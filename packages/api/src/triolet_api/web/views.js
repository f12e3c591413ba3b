// Shows the pages that are no tables: login, overview, charts, raw JSON.

import { ApiFailure, login, request, withQuery } from "./api.js";
import { chart } from "./chart.js";
import { choice, h, labelled } from "./dom.js";
import { bytes, whole } from "./format.js";

const RANGES = [[60, "1 minute"], [300, "5 minutes"], [1800, "30 minutes"], [3600, "1 hour"], [21600, "6 hours"], [86400, "24 hours"]];
const FINE_S = 60; // of the last minute there is a sample a second, of the day one in ten seconds
const KEPT_POINTS = 300;
const OVERVIEW_S = 2;

const figures = [
  ["Connections", (varz) => whole(varz.connections)],
  ["Users online", (varz) => whole(varz.user_handler_count)],
  ["Uptime", (varz) => varz.uptime],
  ["Memory", (varz) => bytes(varz.mem)],
  ["Processor since start", (varz) => `${varz.cpu} %`],
  ["Tasks", (varz) => whole(varz.goroutine)],
  ["Messages in", (varz) => `${whole(varz.in_msgs)}`],
  ["Messages out", (varz) => `${whole(varz.out_msgs)}`],
  ["Bytes in", (varz) => bytes(varz.in_bytes)],
  ["Bytes out", (varz) => bytes(varz.out_bytes)],
  ["Waiting for an acknowledgement", (varz) => whole(varz.retry_queue)],
  ["Slow clients closed", (varz) => whole(varz.slow_clients)],
];
const facts = [
  ["Server", (varz) => `${varz.server_name} ${varz.version}, node ${varz.server_id}`],
  ["TCP", (varz) => varz.tcp_addr],
  ["WebSocket", (varz) => varz.ws_addr],
  ["WebSocket over TLS", (varz) => varz.wss_addr],
  ["API from outside", (varz) => varz.api_url],
  ["Manager token", (varz) => (varz.manager_token_on ? "set" : "not set")],
];
const live = [
  { title: "Connections", lines: ["connections"], values: (after) => [after.connections] },
  {
    title: "Messages per second", lines: ["in", "out"],
    values: (after, before, seconds) => [(after.in_msgs - before.in_msgs) / seconds, (after.out_msgs - before.out_msgs) / seconds],
  },
];

/** Return the start page: the server's numbers now, and since the page was opened. */
export function overview(view) {
  const tiles = h("dl", { class: "tiles" });
  const rest = h("dl", { class: "facts" });
  const drawings = h("div", { class: "charts" });
  const seen = [];

  async function read() {
    const varz = await request("GET", "/varz", { signal: view.signal });
    seen.push({ at: Date.now() / 1000, varz });
    if (seen.length > KEPT_POINTS) seen.shift();
    tiles.replaceChildren(...terms(figures, varz));
    rest.replaceChildren(...terms(facts, varz));
    draw();
  }

  function draw() {
    const first = seen[0].at;
    const span = [first, Math.max(seen.at(-1).at, first + 60)];
    redraw(drawings, live.map((spec) => [spec, seen.slice(1).map((after, place) => {
      const before = seen[place];
      const values = spec.values(after.varz, before.varz, after.at - before.at);
      return { at: after.at, values: values.map((each) => Math.max(each, 0)) };
    }), span]));
  }

  view.repeat(read, () => OVERVIEW_S)();
  return h("div", {}, tiles, drawings, rest);
}

function terms(list, varz) {
  return list.map(([label, show]) => h("div", {}, h("dt", {}, label), h("dd", {}, show(varz) || "–")));
}

/** Put charts into an element, in its width; nothing changes while the pointer is on one. */
function redraw(element, charts) {
  if (element.matches(":hover") && element.hasChildNodes()) return;
  const columns = element.clientWidth > 900 ? 2 : 1;
  const width = Math.floor(element.clientWidth / columns) - 36;
  element.replaceChildren(...charts.map(([spec, points, span]) => chart(spec, points, span, width)));
}

/** Return a page of charts of what the server has sampled. */
export function charts(view) {
  const { page, query } = view;
  const range = choice("latest", RANGES, query.get("latest") ?? 60);
  const drawings = h("div", { class: "charts" });

  async function read() {
    const latest = Number(range.value);
    const answer = await request("GET", withQuery(page.endpoint, { latest }), { signal: view.signal });
    const now = answer.at(-1)?.timestamp ?? Date.now() / 1000;
    redraw(drawings, page.charts.map((spec) => [
      { ...spec, lines: spec.lines.map(([, label]) => label) },
      answer.map((point) => ({ at: point.timestamp, values: spec.lines.map(([name]) => valueOf(point[name])) })),
      [now - latest, now],
    ]));
  }

  const start = view.repeat(read, () => (Number(range.value) <= FINE_S ? 2 : 10));
  range.addEventListener("change", start);
  start();
  return h("div", {}, h("form", { class: "filters" }, labelled("Range", range)), drawings);
}

/** Return a sample as a number: some have one for each node. */
function valueOf(value) {
  return Array.isArray(value) ? value.reduce((sum, each) => sum + each.value, 0) : value ?? 0;
}

/** Return a page that is one JSON answer. */
export function raw(view) {
  const text = h("pre", { tabindex: 0 });
  view.repeat(async () => {
    text.textContent = JSON.stringify(await request("GET", view.page.endpoint, { signal: view.signal }), null, 2);
  }, () => 0)();
  return text;
}

/** Return the login page; `done` is called when somebody is logged in. */
export function loginPage(text, done) {
  const problem = h("p", { role: "alert", class: "problem", hidden: !text }, text);

  async function guarded(event, work) {
    event.preventDefault();
    const button = event.target.querySelector("button");
    const values = Object.fromEntries(new FormData(event.target));
    button.disabled = true;
    try {
      login.value = await work(values);
      done();
    } catch (error) {
      if (!(error instanceof ApiFailure)) throw error;
      problem.textContent = error.message;
      problem.hidden = false;
    } finally {
      button.disabled = false;
    }
  }

  const byName = h("form", { class: "card", onsubmit: (event) => guarded(event, byPassword) },
    h("h2", {}, "Name and password"), h("p", { class: "note" }, "A user of auth.users in the server's settings."),
    labelled("Name", h("input", { name: "username", autocomplete: "username", required: true, autofocus: true })),
    labelled("Password", h("input", { name: "password", type: "password", autocomplete: "current-password", required: true })),
    h("button", {}, "Log in"));
  const bySecret = h("form", { class: "card", onsubmit: (event) => guarded(event, byToken) },
    h("h2", {}, "Token"), h("p", { class: "note" }, "managerToken or auth.superToken of the server's settings."),
    labelled("Token", h("input", { name: "token", type: "password", autocomplete: "off", required: true })),
    h("button", {}, "Use this token"));
  return h("main", { class: "login" }, h("h1", {}, "triolet"), problem, byName, bySecret);
}

async function byPassword({ username, password }) {
  const answer = await request("POST", "/manager/login", { body: { username, password }, token: "" });
  return { token: answer.token, name: answer.username, permissions: answer.permissions };
}

async function byToken({ token }) {
  const given = token.trim();
  try {
    await request("GET", "/varz/setting", { token: given });
  } catch (error) {
    if (error.isUnauthorized) throw new ApiFailure("The server does not know this token.");
    throw error;
  }
  return { token: given, name: "token", permissions: "" };
}
