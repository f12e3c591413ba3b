// Line charts, drawn as SVG.

import { h, svg } from "./dom.js";
import { bytes, moment, whole } from "./format.js";

const HEIGHT = 190;
const MARGIN = { left: 58, right: 12, top: 10, bottom: 24 };
const MOST_POINTS = 400;
const NARROWEST = 280;

const amount = {
  bytes: (value) => bytes(Math.round(value)),
  percent: (value) => `${whole(Math.round(value * 10) / 10)} %`,
  number: (value) => whole(Math.round(value * 100) / 100),
};

/** Return at most `count` points, each the mean of its neighbours, so that a day fits a screen. */
function thinned(points, count) {
  if (points.length <= count) return points;
  const size = points.length / count;
  return Array.from({ length: count }, (_, index) => {
    const part = points.slice(Math.floor(index * size), Math.floor((index + 1) * size));
    const mean = (pick) => part.reduce((sum, each) => sum + pick(each), 0) / part.length;
    return { at: mean((each) => each.at), values: part[0].values.map((_, line) => mean((each) => each.values[line])) };
  });
}

/** Return the end of a scale, a round number that is not below `value`. */
function roundedUp(value, unit) {
  if (unit === "bytes") return 2 ** Math.ceil(Math.log2(Math.max(value, 4)));
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 5, 10].map((each) => each * power).find((each) => each >= value);
}

/**
 * Draw a chart.
 *
 * @param spec {title, unit: "number" | "bytes" | "percent", lines: [label]}
 * @param samples [{at: seconds, values: [number for each line]}], rising in time
 * @param span [first, last] second shown
 */
export function chart(spec, samples, span, width) {
  const points = thinned(samples, MOST_POINTS);
  const write = amount[spec.unit ?? "number"];
  const wide = Math.max(width, NARROWEST);
  const top = roundedUp(Math.max(0, ...points.flatMap((point) => point.values)), spec.unit);
  const x = (at) => MARGIN.left + ((at - span[0]) / (span[1] - span[0] || 1)) * (wide - MARGIN.left - MARGIN.right);
  const y = (value) => HEIGHT - MARGIN.bottom - (value / top) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const drawing = svg("svg", { viewBox: `0 0 ${wide} ${HEIGHT}`, width: wide, height: HEIGHT, role: "img", "aria-label": spec.title });
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    const at = y(top * share);
    drawing.append(
      svg("line", { class: "grid", x1: MARGIN.left, x2: wide - MARGIN.right, y1: at, y2: at }),
      svg("text", { class: "tick", x: MARGIN.left - 6, y: at + 4, "text-anchor": "end" }, write(top * share)),
    );
  }
  for (const [share, anchor] of [[0, "start"], [0.5, "middle"], [1, "end"]]) {
    const at = span[0] + (span[1] - span[0]) * share;
    drawing.append(svg("text", { class: "tick", x: x(at), y: HEIGHT - 6, "text-anchor": anchor }, moment(Math.round(at)).slice(11)));
  }
  spec.lines.forEach((_, line) => {
    const path = points.map((point) => `${x(point.at).toFixed(1)},${y(point.values[line]).toFixed(1)}`).join(" ");
    drawing.append(svg("polyline", { class: `curve curve-${line}`, points: path }));
  });
  const legend = h("div", { class: "legend" }, ...spec.lines.map((label, line) =>
    h("span", { class: `key key-${line}` }, label, " ", h("b", {}, points.length ? write(points.at(-1).values[line]) : "–"))));
  const when = h("span", { class: "when" }, points.length ? "" : "no samples yet");
  legend.append(when);
  watchPointer(drawing, points, x, (point) => {
    const shown = point ?? points.at(-1);
    legend.querySelectorAll("b").forEach((each, line) => (each.textContent = write(shown.values[line])));
    when.textContent = point ? moment(Math.round(point.at)).slice(11) : "";
  });
  return h("figure", { class: "chart" }, h("figcaption", {}, spec.title), drawing, legend);
}

/** Call `show` with the point under the pointer, and with nothing when it leaves. */
function watchPointer(drawing, points, x, show) {
  if (!points.length) return;
  const mark = svg("line", { class: "mark", y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom, visibility: "hidden" });
  drawing.append(mark);
  drawing.addEventListener("pointermove", (event) => {
    const box = drawing.getBoundingClientRect();
    const here = ((event.clientX - box.left) / box.width) * drawing.viewBox.baseVal.width;
    const nearest = points.reduce((best, each) => (Math.abs(x(each.at) - here) < Math.abs(x(best.at) - here) ? each : best));
    for (const end of ["x1", "x2"]) mark.setAttribute(end, x(nearest.at));
    mark.setAttribute("visibility", "visible");
    show(nearest);
  });
  drawing.addEventListener("pointerleave", () => {
    mark.setAttribute("visibility", "hidden");
    show(null);
  });
}
