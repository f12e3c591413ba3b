// Values in words.

const TYPES = {
  1: "person", 2: "group", 3: "customer service", 4: "community", 5: "community topic", 6: "info", 7: "data",
  8: "temporary", 9: "live", 10: "visitors", 11: "agent", 12: "agent group",
};
const FLAGS = { 0: "app", 1: "web", 2: "pc", 99: "system" };
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** Name a channel type. */
export const channelType = (number) => (TYPES[number] ? `${number} ${TYPES[number]}` : String(number));

/** Every channel type as [number, name], "any" first. */
export const channelTypes = [["", "any"], ...Object.keys(TYPES).map((number) => [number, channelType(number)])];

/** Name a device flag. */
export const deviceFlag = (number) => FLAGS[number] ?? String(number);

/** Write a whole number, or "" for what is none. */
export const whole = (value) => (typeof value === "number" ? value.toLocaleString("en") : value ?? "");

/** Write a size. */
export function bytes(value) {
  let left = Number(value) || 0;
  let unit = 0;
  while (left >= 1024 && unit < UNITS.length - 1) {
    left /= 1024;
    unit += 1;
  }
  return `${unit ? left.toFixed(1) : left} ${UNITS[unit]}`;
}

/** Write a moment, given in seconds, in the browser's time zone. */
export function moment(seconds) {
  if (!seconds) return "";
  const at = new Date(seconds * 1000);
  const two = (number) => String(number).padStart(2, "0");
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** Write a moment, given in nanoseconds. */
export const nanoMoment = (nanoseconds) => moment(Math.floor(nanoseconds / 1e9));

/** Return the bytes of a base64 text. */
export const bytesOf = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));

/** Return a text as base64 of its UTF-8 form. */
export function base64Of(text) {
  const encoded = new TextEncoder().encode(text);
  return btoa(Array.from(encoded, (byte) => String.fromCharCode(byte)).join(""));
}

/** Return what a payload says: its text, else its JSON, else that it is binary. */
export function payloadText(base64) {
  const value = payloadValue(base64);
  if (typeof value === "string") return value;
  return typeof value.content === "string" ? value.content : JSON.stringify(value);
}

/** Return a payload as JSON object if it is one, as text if it is UTF-8, else as a note. */
export function payloadValue(base64) {
  const raw = bytesOf(base64 ?? "");
  if (!raw.length) return "(empty)";
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(raw);
  } catch {
    return `(${raw.length} bytes, not text)`;
  }
  try {
    const value = JSON.parse(text);
    return value !== null && typeof value === "object" ? value : text;
  } catch {
    return text;
  }
}
