// Elements from data. What is shown is always put in as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

/** Return an element. Properties that begin with "on" are listeners, `dataset` an object, the rest attributes. */
export function h(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

/** Return an element of a drawing. */
export function svg(tag, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

function filled(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "dataset") Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

/** Return a field with its label. */
export function labelled(text, field) {
  return h("label", { class: "field" }, h("span", {}, text), field);
}

/** Return a choice among [value, label] pairs. */
export function choice(name, options, value) {
  const items = options.map(([each, label]) =>
    h("option", { value: each, selected: String(each) === String(value) }, label));
  return h("select", { name }, ...items);
}
