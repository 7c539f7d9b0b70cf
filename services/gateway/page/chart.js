// Three small SVG charts: an area over time, bars with marks, a forecast with its band. Pointer and arrow keys move a cursor whose value is said in words.

import { el, svg } from "./dom.js";

/** Where the cursor stands in each chart, so that new data does not move it. */
const chosen = new WeakMap();

const EDGE = { top: 14, right: 12, bottom: 26, left: 44 };

/** Round steps for an axis from 0 to `top`: at most five. */
function ticks(top) {
  const rough = top / 4 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  return Array.from({ length: Math.floor(top / step + 1e-9) + 1 }, (_, index) => index * step);
}

function frame(host, points, options) {
  const width = Math.max(280, host.clientWidth || 600);
  const height = options.height ?? 220;
  const top = Math.max(...points.map((point) => point.value), options.least ?? 0) * 1.08 || 1;
  const plot = { width: width - EDGE.left - EDGE.right, height: height - EDGE.top - EDGE.bottom };
  const x = (index) => EDGE.left + ((index + 0.5) / points.length) * plot.width;
  const y = (value) => EDGE.top + plot.height - (value / top) * plot.height;
  return { width, height, top, plot, x, y };
}

function axes(at, points, options) {
  const group = svg("g", { class: "axes" });
  for (const value of ticks(at.top)) {
    group.append(
      svg("line", { x1: EDGE.left, x2: at.width - EDGE.right, y1: at.y(value), y2: at.y(value) }),
      svg("text", { x: EDGE.left - 8, y: at.y(value) + 4, "text-anchor": "end" }, options.axis(value)),
    );
  }
  const room = Math.max(2, Math.floor(at.plot.width / 64));
  const marks = points.map((point, index) => ({ index, text: options.label(point) })).filter((mark) => mark.text);
  const every = Math.ceil(marks.length / room);
  marks.forEach((mark, place) => {
    if (place % every) return;
    group.append(svg("text", { x: at.x(mark.index), y: at.height - 7, "text-anchor": "middle" }, mark.text));
  });
  return group;
}

function cursor(host, picture, at, points, options) {
  const line = svg("line", { class: "cursor", y1: EDGE.top, y2: EDGE.top + at.plot.height, x1: -9, x2: -9 });
  const readout = host.querySelector(".readout");
  picture.append(line);
  let index = points.length - 1;
  const show = (next) => {
    index = Math.min(points.length - 1, Math.max(0, next));
    chosen.set(host, points[index].time);
    line.setAttribute("x1", at.x(index));
    line.setAttribute("x2", at.x(index));
    readout.textContent = options.words(points[index]);
  };
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    show(Math.floor((((event.clientX - box.left) / box.width) * at.width - EDGE.left) / (at.plot.width / points.length)));
  });
  picture.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: points.length - 1 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    readout.setAttribute("aria-live", "polite");
    show(moves[event.key]);
  });
  const kept = points.findIndex((point) => point.time === chosen.get(host));
  if (kept >= 0) show(kept);
}

function table(points, options) {
  const rows = points.map((point) => el("tr", {}, ...options.row(point).map((cell) => el("td", {}, cell))));
  return el("table", {}, el("thead", {}, el("tr", {}, ...options.columns.map((name) => el("th", { scope: "col" }, name)))), el("tbody", {}, ...rows));
}

function draw(host, points, options, shapes) {
  const open = host.querySelector("details")?.open ?? false;
  const hadFocus = host.contains(document.activeElement) && document.activeElement.tagName === "svg";
  const at = frame(host, points, options);
  const picture = svg("svg", {
    viewBox: `0 0 ${at.width} ${at.height}`, class: "chart", role: "img", tabindex: "0", "aria-label": options.summary(points),
  });
  picture.append(axes(at, points, options), ...shapes(at));
  const readout = el("p", { class: "readout small muted" }, options.hint);
  const rows = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Values" });
  const details = el("details", {}, el("summary", { class: "small" }, "Show as a table"), rows);
  const fillRows = () => details.open && rows.replaceChildren(table(points, options));
  details.addEventListener("toggle", fillRows);
  details.open = open;
  fillRows();
  host.replaceChildren(picture, readout, details);
  cursor(host, picture, at, points, options);
  if (hadFocus) picture.focus();
}

/** An area over time. Points: {time, value}. */
export function areaChart(host, points, options) {
  draw(host, points, options, (at) => {
    const path = points.map((point, index) => `${index ? "L" : "M"}${at.x(index).toFixed(1)} ${at.y(point.value).toFixed(1)}`).join("");
    const base = at.y(0);
    return [
      svg("path", { class: "area", d: `${path}L${at.x(points.length - 1)} ${base}L${at.x(0)} ${base}Z` }),
      svg("path", { class: "line", d: path }),
    ];
  });
}

const through = (at, points, value) => points.map((point, index) => (value(point) === null ? "" : `${at.x(index).toFixed(1)} ${at.y(value(point)).toFixed(1)}`));
const joined = (places) => places.reduce((path, place, index) => (place ? `${path}${index && places[index - 1] ? "L" : "M"}${place}` : path), "");

/** A forecast. Points: {time, value, low, high, came}; `came` is null where nothing was counted. `now`: unix seconds. */
export function bandChart(host, points, options) {
  draw(host, points, options, (at) => {
    const upper = through(at, points, (point) => point.high);
    const lower = through(at, points, (point) => point.low).reverse();
    const past = points.filter((point) => point.time + 1_800 <= options.now).length;
    const came = points.map((point, index) => (point.came === null ? null : svg("circle", { class: "came", cx: at.x(index), cy: at.y(point.came), r: 2.5 })));
    const share = past / points.length;
    const here = EDGE.left + share * at.plot.width;
    const word = share > 0.5 ? { x: here - 5, "text-anchor": "end" } : { x: here + 5 };
    return [
      svg("path", { class: "band", d: `M${[...upper, ...lower].join("L")}Z` }),
      svg("path", { class: "line expected", d: joined(through(at, points, (point) => point.value)) }),
      svg("path", { class: "line came", d: joined(through(at, points, (point) => point.came)) }),
      ...came.filter(Boolean),
      svg("line", { class: "now", x1: here, x2: here, y1: EDGE.top, y2: EDGE.top + at.plot.height }),
      svg("text", { class: "now-text", y: EDGE.top + 9, ...word }, "now"),
    ];
  });
}

/** Bars. Points: {time, value, quality}; a quality is a look (class) and, for `missing`, a mark at the foot. */
export function barChart(host, points, options) {
  draw(host, points, options, (at) => [hatching(), ...points.map((point, index) => bar(at, points.length, point, index))]);
}

function bar(at, count, point, index) {
  const width = Math.max(1, (at.plot.width / count) * 0.74);
  const x = at.x(index) - width / 2;
  const foot = at.y(0);
  if (point.quality === "missing") {
    const size = Math.min(4, width / 2 + 1);
    return svg("path", { class: "bar missing", d: `M${at.x(index) - size} ${foot - 9 - size}l${2 * size} ${2 * size}m0 ${-2 * size}l${-2 * size} ${2 * size}` });
  }
  const height = Math.max(1, foot - at.y(point.value));
  return svg("rect", { class: `bar ${point.quality}`, x, y: foot - height, width, height, rx: Math.min(2, width / 4) });
}

function hatching() {
  const lines = svg("path", { d: "M-1 1l2-2M0 6l6-6M5 7l2-2", class: "hatch" });
  return svg("defs", {}, svg("pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse" }, lines));
}
