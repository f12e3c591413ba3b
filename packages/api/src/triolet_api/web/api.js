// Calls to the API, and who makes them.

const KEY = "triolet.session";
const UNAUTHORIZED = 401;
const LONGEST_MS = 30_000;

/** A request that was refused or did not arrive; `message` may be shown. */
export class ApiFailure extends Error {
  constructor(text, status = 0, code = "") {
    super(text);
    this.status = status;
    this.code = code;
  }

  get isUnauthorized() {
    return this.status === UNAUTHORIZED;
  }
}

/** Who is logged in, kept until the tab is closed: {token, name, permissions}; null if nobody is. */
export const login = {
  get value() {
    try {
      return JSON.parse(sessionStorage.getItem(KEY));
    } catch {
      return null;
    }
  },
  set value(session) {
    if (session) sessionStorage.setItem(KEY, JSON.stringify(session));
    else sessionStorage.removeItem(KEY);
  },
};

/** Whether the rights that the login named hold one; a token without named rights has all. */
export function may([resource, action]) {
  const named = login.value?.permissions;
  if (!named) return true;
  const rights = new Map(named.split(",").map((each) => each.split(":")));
  return [resource, "*"].some((each) => /[*]/.test(rights.get(each) ?? "") || (rights.get(each) ?? "").includes(action));
}

/** Return a path with a query; empty values are left out. */
export function withQuery(path, values) {
  const given = Object.entries(values).filter(([, value]) => value !== "" && value !== undefined && value !== null);
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

/** Make a request and return its JSON answer; throws ApiFailure, or AbortError if `signal` said so. */
export async function request(method, path, { body, signal, token = login.value?.token } = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const sent = body === undefined ? undefined : JSON.stringify(body);
  const ends = AbortSignal.any([AbortSignal.timeout(LONGEST_MS), ...(signal ? [signal] : [])]);
  let response;
  let text;
  try {
    response = await fetch(path, { method, headers, body: sent, signal: ends, cache: "no-store", credentials: "omit" });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const isLate = error.name === "TimeoutError";
    throw new ApiFailure(isLate ? `The server has not answered for ${LONGEST_MS / 1000} s.` : "The server cannot be reached.");
  }
  if (!response.ok) throw failureOf(method, path, response.status, text);
  try {
    return JSON.parse(text || "null");
  } catch {
    throw new ApiFailure(`${method} ${path}: the answer is not JSON`, response.status);
  }
}

function failureOf(method, path, status, text) {
  const where = `${method} ${path.split("?")[0]}`;
  let told = {};
  try {
    told = JSON.parse(text) ?? {};
  } catch {
    told = { msg: text.slice(0, 200) };
  }
  const reason = told.msg || told.error || told.message || "refused without a reason";
  const code = told.code ? ` (${told.code})` : "";
  return new ApiFailure(`${where}: ${status} ${reason}${code}`, status, told.code);
}
