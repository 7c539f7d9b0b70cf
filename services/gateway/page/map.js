// The schematic map of the meters and the list that says the same: shapes tell measured, simulated and quarantined apart.

import { byId, el, kwh, put, svg, when } from "./dom.js";

const KINDS = {
  quarantined: "In quarantine",
  measured: "Measured (open data, replayed)",
  simulated: "Simulated",
};
const MARGIN = 45;
const ORDER = Object.keys(KINDS);

let meters = [];
let states = new Map();
let chosen = null;

const kindOf = (meter) => (states.get(meter.device)?.quarantined_reason ? "quarantined" : meter.kind === "measured" ? "measured" : "simulated");

/** Shape of a kind around the origin; size grows with the last reading. */
function shape(kind, size) {
  if (kind === "quarantined") return svg("path", { d: `M0 ${-size * 1.35}L${size * 1.25} ${size * 0.9}H${-size * 1.25}Z` });
  if (kind === "measured") return svg("rect", { x: -size * 0.9, y: -size * 0.9, width: size * 1.8, height: size * 1.8, rx: 2 });
  return svg("circle", { r: size });
}

/** Once the neighbourhood is known. */
export function setMeters(found) {
  meters = [...found];
  drawAll();
}

/** When the meters' states came. */
export function setStates(found) {
  const before = JSON.stringify(meters.map(kindOf));
  states = new Map(found.map((state) => [state.device, state]));
  if (before === JSON.stringify(meters.map(kindOf))) sizes();
  else drawAll();
  byId("meter-detail").setAttribute("aria-live", "off");
  if (chosen) describe(chosen);
}

function drawAll() {
  meters.sort((a, b) => ORDER.indexOf(kindOf(a)) - ORDER.indexOf(kindOf(b)) || a.device.localeCompare(b.device));
  drawLegend();
  drawMap();
  drawList();
  if (chosen) mark(chosen);
}

function drawLegend() {
  const items = ORDER.map((kind) => {
    const count = meters.filter((meter) => kindOf(meter) === kind).length;
    const sample = svg("svg", { viewBox: "-12 -12 24 24", width: 18, height: 18, "aria-hidden": "true", class: `meter ${kind}` }, shape(kind, 7));
    return el("li", {}, sample, `${KINDS[kind]} (${count})`);
  });
  put("map-legend", ...items);
}

const sizeOf = (meter) => 11 + 11 * Math.sqrt(Math.min(1, (states.get(meter.device)?.last_wh ?? 150) / 1_200));

function drawMap() {
  const bounds = ["x", "y"].map((axis) => meters.map((meter) => meter[axis]));
  const [left, top] = bounds.map((values) => Math.min(...values) - MARGIN);
  const [width, height] = bounds.map((values) => Math.max(...values) - Math.min(...values) + 2 * MARGIN);
  const picture = svg("svg", { viewBox: `${left} ${top} ${width} ${height}`, role: "img", "aria-label": "Map of the meters; the list beside it says the same" });
  for (const meter of meters) {
    const group = svg("g", { class: `meter ${kindOf(meter)}`, "data-device": meter.device, transform: `translate(${meter.x} ${meter.y})`, onclick: () => choose(meter) });
    group.append(svg("circle", { class: "halo", r: 32 }), shape(kindOf(meter), sizeOf(meter)), svg("title", {}, words(meter)));
    picture.append(group);
  }
  put("map", picture);
}

function sizes() {
  for (const meter of meters) {
    const group = byId("map").querySelector(`[data-device="${CSS.escape(meter.device)}"]`);
    group?.children[1].replaceWith(shape(kindOf(meter), sizeOf(meter)));
  }
}

function drawList() {
  const host = byId("meter-list");
  const options = meters.map((meter) => {
    const kind = kindOf(meter);
    const sample = svg("svg", { viewBox: "-12 -12 24 24", width: 14, height: 14, "aria-hidden": "true", class: `meter ${kind}` }, shape(kind, 8));
    const reason = states.get(meter.device)?.quarantined_reason;
    const note = el("span", { class: "muted" }, reason || (kind === "measured" ? "measured" : "simulated"));
    return el("div", { role: "option", id: `option-${meter.device}`, "aria-selected": "false", onclick: () => choose(meter) }, sample, el("span", {}, meter.meter_point), note);
  });
  host.replaceChildren(...options);
  host.onkeydown = (event) => {
    const index = meters.findIndex((meter) => meter.device === chosen);
    const moves = { ArrowDown: index + 1, ArrowUp: index - 1, Home: 0, End: meters.length - 1, PageDown: index + 8, PageUp: index - 8 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    choose(meters[Math.min(meters.length - 1, Math.max(0, moves[event.key]))]);
  };
}

function choose(meter) {
  chosen = meter.device;
  mark(chosen);
  byId("meter-detail").setAttribute("aria-live", "polite");
  describe(chosen);
}

function mark(device) {
  for (const group of byId("map").querySelectorAll(".meter")) group.classList.toggle("chosen", group.dataset.device === device);
  const host = byId("meter-list");
  for (const option of host.children) option.setAttribute("aria-selected", String(option.id === `option-${device}`));
  host.setAttribute("aria-activedescendant", `option-${device}`);
  const option = byId(`option-${device}`);
  if (!option) return;
  if (option.offsetTop < host.scrollTop) host.scrollTop = option.offsetTop;
  if (option.offsetTop + option.offsetHeight > host.scrollTop + host.clientHeight) host.scrollTop = option.offsetTop + option.offsetHeight - host.clientHeight;
}

function words(meter) {
  const state = states.get(meter.device);
  const parts = [`${meter.meter_point}: ${meter.label} (${meter.kind})`];
  if (state?.last_slot) parts.push(`last ${kwh(state.last_wh)} at ${when(state.last_slot, "moment")}`);
  if (state?.gaps) parts.push(`${state.gaps} gap${state.gaps === 1 ? "" : "s"} in its chain`);
  if (state?.quarantined_reason) parts.push(`in quarantine: ${state.quarantined_reason}`);
  return parts.join(" · ");
}

function describe(device) {
  const meter = meters.find((item) => item.device === device);
  const text = meter ? words(meter) : "";
  if (byId("meter-detail").textContent !== text) byId("meter-detail").textContent = text;
}
