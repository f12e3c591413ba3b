// Questions, details, and lists of users that can be changed.

import { ApiFailure, may, request } from "./api.js";
import { h } from "./dom.js";

const MOST_LISTED = 1000;

/** Show a dialog until it is closed; returns its element and a promise of what it was closed with. */
function open(title, content, buttons) {
  const dialog = h("dialog", {}, h("h2", {}, title), content, h("div", { class: "buttons" }, ...buttons));
  document.body.append(dialog);
  const closed = new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue);
    });
  });
  dialog.showModal();
  return { dialog, closed };
}

function closer(label, value, style = "") {
  return h("button", { type: "button", class: style, onclick: (event) => event.target.closest("dialog").close(value) }, label);
}

/** Ask before something is done; true if it was agreed to. */
export async function agreed(question, label) {
  const { closed } = open(label, h("p", {}, question), [closer("Cancel", ""), closer(label, "yes", "danger")]);
  return (await closed) === "yes";
}

/** Show a value in full. */
export function showValue(title, value) {
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 2);
  return open(title, h("pre", { tabindex: 0 }, text), [closer("Close", "")]).closed;
}

/**
 * Show a list of users, which can be added to and removed from.
 *
 * @param spec {title, read: path, add: [path, resource], remove: [path, resource], body: uids => object}
 */
export function editList(spec) {
  const problem = h("p", { role: "alert", class: "problem", hidden: true });
  const count = h("p", { class: "note", role: "status" }, "…");
  const list = h("ul", { class: "uids" });
  const field = h("input", { name: "uids", placeholder: "users, separated by commas", required: true, "aria-label": "users to add" });
  const form = h("form", { class: "line", onsubmit: add }, field, h("button", { disabled: !may(["api", "w"]) }, "Add"));
  const { closed } = open(spec.title, h("div", {}, problem, form, count, list), [closer("Close", "")]);

  async function guarded(work) {
    try {
      await work();
      problem.hidden = true;
    } catch (error) {
      if (!(error instanceof ApiFailure)) throw error;
      problem.textContent = error.message;
      problem.hidden = false;
    }
  }

  async function read() {
    const uids = await request("GET", `${spec.read}&format=uids&limit=${MOST_LISTED}`);
    const full = uids.length === MOST_LISTED;
    count.textContent = full ? `the first ${MOST_LISTED}` : uids.length === 1 ? "1 user" : `${uids.length} users`;
    list.replaceChildren(...uids.map((uid) => h("li", {}, h("span", {}, uid), h("button", {
      type: "button", class: "small", disabled: !may(["api", "w"]), "aria-label": `remove ${uid}`,
      onclick: () => guarded(() => change(spec.remove, [uid])),
    }, "remove"))));
  }

  async function change(path, uids) {
    await request("POST", path, { body: spec.body(uids) });
    await read();
  }

  function add(event) {
    event.preventDefault();
    const uids = field.value.split(/[\s,]+/).filter(Boolean);
    guarded(async () => {
      await change(spec.add, uids);
      field.value = "";
    });
  }

  guarded(read);
  return closed;
}
