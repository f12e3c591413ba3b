// Shows the pages that are tables: filters, rows that stay themselves over a refresh, actions.

import { may, request, withQuery } from "./api.js";
import { agreed, editList, showValue } from "./dialogs.js";
import { choice, h, labelled } from "./dom.js";
import { whole } from "./format.js";

const INTERVALS = [[0, "off"], [1, "1 s"], [5, "5 s"], [10, "10 s"], [60, "1 min"]];

/**
 * Return the content of a table page.
 *
 * @param view {page, query: URLSearchParams, signal, go(path, query), tell(text), warn(text), guarded(work),
 *   repeat(work, seconds) => start}
 */
export function table(view) {
  const { page } = view;
  const state = { limit: page.limited?.[0], sort: "", rows: new Map() };
  const count = h("p", { class: "note count", role: "status" });
  const body = h("tbody");
  const heads = page.columns.map((column) => headOf(column));
  const actions = page.actions?.length ? [h("th", { scope: "col", class: "actions" }, "Actions")] : [];
  const grid = h("table", {}, h("thead", {}, h("tr", {}, ...heads, ...actions)), body);
  const more = h("button", { type: "button", class: "more", hidden: true, onclick: showMore }, "Show more");
  const interval = choice("refresh", INTERVALS, page.refresh ?? 0);
  const refresh = view.repeat(read, () => Number(interval.value));
  interval.addEventListener("change", refresh);

  function headOf(column) {
    if (!column.sort) return h("th", { scope: "col" }, column.label);
    return h("th", { scope: "col", dataset: { sort: column.sort } },
      h("button", { type: "button", class: "sort", onclick: () => sortBy(column.sort) }, column.label));
  }

  function sortBy(name) {
    state.sort = state.sort === `${name}Desc` ? name : `${name}Desc`;
    for (const head of heads) {
      const isThis = head.dataset.sort === name;
      if (isThis) head.setAttribute("aria-sort", state.sort.endsWith("Desc") ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    refresh();
  }

  function showMore() {
    state.limit = Math.min(state.limit + page.limited[0] * 5, page.limited[1]);
    refresh();
  }

  function path() {
    const values = { limit: state.limit, sort: state.sort };
    for (const filter of page.filters ?? []) {
      const value = view.query.get(filter.name) ?? "";
      values[filter.name] = value && filter.encode ? filter.encode(value) : value;
    }
    return withQuery(page.endpoint, values);
  }

  async function read() {
    if (page.needed && !view.query.get(page.needed)) {
      count.textContent = `Enter ${page.filters.find((each) => each.name === page.needed).label.toLowerCase()} and search.`;
      return;
    }
    const answer = await request("GET", path(), { signal: view.signal });
    const rows = page.rows(answer);
    const total = page.total?.(answer);
    show(rows);
    count.textContent = total === undefined || total === rows.length ? counted(rows.length) : `${whole(rows.length)} of ${counted(total)}`;
    const isCut = total === undefined ? rows.length >= state.limit : rows.length < total;
    more.hidden = !(state.limit && isCut && state.limit < page.limited[1]);
  }

  function show(rows) {
    const known = state.rows;
    state.rows = new Map();
    for (const row of rows) {
      const key = String(page.key(row));
      const entry = known.get(key) ?? newEntry();
      state.rows.set(key, entry);
      fill(entry, row);
    }
    const wanted = [...state.rows.values()].map((entry) => entry.element);
    // Only what moved is touched: a button that is being pressed must stay where it is.
    if (wanted.length !== body.children.length || wanted.some((each, place) => each !== body.children[place])) {
      body.replaceChildren(...wanted);
    }
  }

  function newEntry() {
    const cells = page.columns.map((column) => h("td", { class: column.kind, dataset: { label: column.label } }));
    const entry = { cells, row: null, element: h("tr", {}, ...cells) };
    if (actions.length) {
      entry.buttons = page.actions.map((action) => buttonOf(action, entry));
      entry.element.append(h("td", { class: "actions" }, h("div", {}, ...entry.buttons)));
    }
    return entry;
  }

  function fill(entry, row) {
    entry.row = row;
    page.columns.forEach((column, place) => {
      const cell = entry.cells[place];
      const text = String(column.show(row) ?? "");
      if (cell.textContent === text && cell.hasChildNodes()) return;
      cell.replaceChildren(column.link && text ? linkTo(view, column.link(row), text) : text);
      if (column.kind === "text") cell.title = text.slice(0, 2000);
    });
    page.actions?.forEach((action, place) => (entry.buttons[place].hidden = Boolean(action.when && !action.when(row))));
  }

  function buttonOf(action, entry) {
    const isAllowed = !action.needs || may(action.needs);
    return h("button", {
      type: "button", class: "small", disabled: !isAllowed,
      title: isAllowed ? undefined : `needs the right ${action.needs.join(":")}`,
      onclick: () => view.guarded(() => act(view, action, entry.row, refresh)),
    }, action.label);
  }

  const parts = [
    page.filters || page.refresh ? filters(view, interval) : null,
    page.form ? formOf(view, page.form, refresh) : null,
    count,
    h("div", { class: "scroll" }, grid),
    more,
  ];
  refresh();
  return h("div", {}, ...parts.filter(Boolean));
}

const counted = (number) => (number === 1 ? "1 row" : `${whole(number)} rows`);

function linkTo(view, [path, query], text) {
  return h("a", { href: withQuery(`/web${path}`, query) }, text);
}

function filters(view, interval) {
  const { page, query, go } = view;
  const fields = (page.filters ?? []).map((filter) => {
    const value = query.get(filter.name) ?? "";
    const field = filter.options ? choice(filter.name, filter.options, value) : h("input", { name: filter.name, value, spellcheck: "false" });
    return labelled(filter.label, field);
  });
  const buttons = fields.length ? [h("button", {}, "Search"), h("button", { type: "button", class: "plain", onclick: () => go(page.path, {}) }, "Clear")] : [];
  return h("form", {
    class: "filters", role: "search",
    onsubmit: (event) => {
      event.preventDefault();
      const given = Object.fromEntries([...new FormData(event.target)].filter(([name]) => name !== "refresh"));
      go(page.path, Object.fromEntries(Object.entries(given).map(([name, value]) => [name, value.trim()])));
    },
  }, ...fields, ...buttons, labelled("Refresh", interval));
}

function formOf(view, form, refresh) {
  const fields = form.fields.map(([name, label]) => labelled(label, h("input", { name, required: true })));
  return h("form", {
    class: "filters",
    onsubmit: (event) => {
      event.preventDefault();
      const { target } = event;
      view.guarded(async () => {
        const [path, body] = form.call(Object.fromEntries(new FormData(target)));
        await request("POST", path, { body });
        target.reset();
        view.tell(`${form.label}: done`);
        refresh();
      });
    },
  }, ...fields, h("button", { disabled: !may(form.needs) }, form.label));
}

async function act(view, action, row, refresh) {
  if (action.list) await editList(action.list(row));
  else if (action.value) await showValue(...action.value(row));
  else if (action.fetch) {
    const [title, method, path, body] = action.fetch(row);
    await showValue(title, await request(method, path, { body, signal: view.signal }));
  } else {
    if (!(await agreed(action.ask(row), action.label))) return;
    const [path, body] = action.call(row);
    const answer = await request("POST", path, { body });
    const problem = action.problem?.(answer ?? {});
    if (problem) view.warn(problem);
    else view.tell(`${action.label}: done`);
  }
  refresh();
}
