// The administrator's page: which page is shown, the menu, who is logged in, what went wrong.

import { ApiFailure, login, request, withQuery } from "./api.js";
import { h } from "./dom.js";
import { pages } from "./pages.js";
import { table } from "./table.js";
import { charts, loginPage, overview, raw } from "./views.js";

const BASE = "/web";
const NOT_FOUND = 404;
const NOTICE_MS = 4000;
const kinds = { overview, charts, raw, table };

const app = document.getElementById("app");
let current = new AbortController();
let unserved = new Set();
let parts = null;

/** Decide between login and pages, and draw the frame around them. */
async function start() {
  current.abort();
  try {
    await request("GET", "/varz/setting");
  } catch (error) {
    if (error.isUnauthorized) {
      askForLogin(login.value ? "The login has ended. Log in again." : "");
      return;
    }
    // Whoever may not read this one is logged in all the same; his pages say what he may.
    if (!(error instanceof ApiFailure) || !error.status) {
      askForLogin(error.message);
      return;
    }
  }
  unserved = await findUnserved();
  drawFrame();
  showPage();
}

function askForLogin(text) {
  current.abort();
  login.value = null;
  parts = null;
  document.title = "Log in · triolet";
  app.replaceChildren(loginPage(text, start));
}

/** Return the paths of pages whose endpoint this server does not have. */
async function findUnserved() {
  const optional = pages.filter((page) => page.onlyIfServed);
  const missing = await Promise.all(optional.map(async (page) => {
    try {
      await request("GET", withQuery(page.endpoint, { limit: 1 }));
      return null;
    } catch (error) {
      return error.status === NOT_FOUND ? page.path : null;
    }
  }));
  return new Set(missing.filter(Boolean));
}

function drawFrame() {
  const who = login.value;
  const menu = h("nav", { id: "menu", "aria-label": "Pages" });
  for (const group of [...new Set(pages.map((page) => page.group))]) {
    const served = pages.filter((page) => page.group === group && !unserved.has(page.path));
    if (group) menu.append(h("h2", {}, group));
    menu.append(h("ul", {}, ...served.map((page) => h("li", {}, h("a", { href: BASE + page.path }, page.title)))));
  }
  const toggle = h("button", {
    type: "button", class: "toggle", "aria-controls": "menu", "aria-expanded": "false",
    onclick: () => openMenu(!document.body.classList.contains("menu-open")),
  }, "Menu");
  const account = who
    ? [h("span", {}, who.name), h("button", { type: "button", class: "plain", onclick: () => askForLogin("") }, "Log out")]
    : [h("span", { class: "note" }, "no credentials are configured")];
  const bar = h("header", { class: "bar" }, toggle, h("a", { class: "brand", href: `${BASE}/` }, "triolet"), h("div", { class: "account" }, ...account));
  const problem = h("p", { role: "alert", class: "problem", hidden: true });
  const notice = h("p", { role: "status", class: "notice", hidden: true });
  const main = h("main", {});
  parts = { main, problem, notice, menu, toggle };
  app.replaceChildren(bar, h("div", { class: "frame" }, menu, h("div", { class: "content" }, problem, notice, main)));
}

function openMenu(isOpen) {
  document.body.classList.toggle("menu-open", isOpen);
  parts?.toggle.setAttribute("aria-expanded", String(isOpen));
}

function showPage() {
  current.abort();
  current = new AbortController();
  const { signal } = current;
  const path = location.pathname.slice(BASE.length).replace(/\/+$/, "") || "/";
  const page = pages.find((each) => each.path === path && !unserved.has(each.path));
  openMenu(false);
  warn("");
  tell("");
  for (const link of parts.menu.querySelectorAll("a")) {
    if (page && link.getAttribute("href") === BASE + page.path) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${page?.title ?? "Not found"} · triolet`;
  if (!page) {
    parts.main.replaceChildren(h("h1", {}, "Not found"), h("p", {}, `There is no page ${path}.`));
    return;
  }
  const heading = [h("h1", {}, page.title), page.note && h("p", { class: "note" }, page.note)].filter(Boolean);
  parts.main.replaceChildren(...heading);
  const query = new URLSearchParams(location.search);
  const view = { page, query, signal, go, tell, warn, guarded, repeat: (work, seconds) => repeat(work, seconds, signal) };
  parts.main.append(kinds[page.kind ?? "table"](view));
}

/** Go to a page of this site. */
function go(path, query) {
  history.pushState(null, "", withQuery(BASE + path, query));
  showPage();
}

/** Say what went wrong; nothing if `text` is empty. */
function warn(text) {
  parts.problem.textContent = text;
  parts.problem.hidden = !text;
}

/** Say what was done, for a while. */
function tell(text) {
  const { notice } = parts;
  notice.textContent = text;
  notice.hidden = !text;
  clearTimeout(notice.timer);
  if (text) notice.timer = setTimeout(() => (notice.hidden = true), NOTICE_MS);
}

/** Do something that may be refused; returns whether it was done. */
async function guarded(work) {
  try {
    await work();
    return true;
  } catch (error) {
    if (error.name === "AbortError") return false;
    if (!(error instanceof ApiFailure)) throw error;
    if (error.isUnauthorized) askForLogin("The login has ended. Log in again.");
    else warn(error.message);
    return false;
  }
}

/**
 * Return a function that does `work` now and then every so many seconds, one at a time, until the page is left.
 * While a dialog is open or the tab is hidden nothing is done.
 */
function repeat(work, seconds, signal) {
  let timer;
  let runs = 0;
  async function run(isAsked) {
    clearTimeout(timer);
    const mine = (runs += 1);
    if (isAsked || !(document.hidden || document.querySelector("dialog[open]"))) {
      if ((await guarded(work)) && parts && !signal.aborted && !isAsked) warn("");
    }
    const pause = seconds();
    if (pause && !signal.aborted && mine === runs) timer = setTimeout(() => run(false), pause * 1000);
  }
  signal.addEventListener("abort", () => clearTimeout(timer));
  return () => run(true);
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  const isOurs = link && link.origin === location.origin && link.pathname.startsWith(`${BASE}/`);
  if (!isOurs || !parts || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  history.pushState(null, "", link.href);
  showPage();
  parts.main.parentElement.scrollTo(0, 0);
});
addEventListener("popstate", () => parts && showPage());
start();
