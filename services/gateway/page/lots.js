// Car parks for everyone: the map and the list that says the same, one lot with its forecast and what came, how right advice was.

import { ask } from "./api.js";
import { bandChart } from "./chart.js";
import { byId, doing, el, empty, everyHours, localMinute, number, plural, put, rfc, say, seconds, svg, when } from "./dom.js";

const KINDS = {
  counted: "Counted",
  stale: "Count is old",
  disputed: "Sensors disagree",
  unknown: "No count",
  closed: "Closed",
};
const SOURCES = { measured: " · measured (open data, replayed)", simulated: " · simulated" };
const WIDE = 1_000;
const MARGIN = 70;
/** Height over width that a map may have. */
const FLAT = [0.55, 0.85];

let lots = [];
let models = [];
let chosen = null;
let now = 0;
let operator = null;
let project = null;
let sources = new Map();
let pin = null;
let onSpot = () => undefined;

/** Whether a lot is open, and else what its newest count is worth. */
function kindOf({ lot, state }) {
  const { weekday, minute } = localMinute(now);
  const open = !lot.open_hours.length || lot.open_hours.some((hours) => hours.weekday === weekday && hours.from_minute <= minute && minute < hours.to_minute);
  if (!open) return "closed";
  return state?.quality in KINDS ? state.quality : "unknown";
}

const hasCount = (view) => ["counted", "stale", "disputed"].includes(view.state?.quality);
const freeOf = (view) => Math.max(0, view.lot.capacity - view.state.occupied);

/** What to do when somebody points at a spot of the map. */
export function onSpotChosen(action) {
  onSpot = action;
}

/** Of a demo: which lots replay open data. */
export function setSources(found) {
  sources = new Map(found.map((one) => [one.lot, one.kind]));
}

/** Who may ask why. */
export function setOperator(who) {
  operator = who;
}

/** All lots, as known now; false where this city has no car parks. */
export async function loadLots(cityTime) {
  now = seconds(cityTime);
  const found = await ask("/api/v1/parking/lots?page_size=500");
  found.lots.sort((a, b) => a.lot.name.localeCompare(b.lot.name));
  const drawnFor = placesOf(lots);
  lots = found.lots;
  if (!lots.length) return false;
  chosen ??= lots.find((view) => kindOf(view) === "counted")?.lot.id ?? lots[0].lot.id;
  if (placesOf(lots) !== drawnFor) drawAll();
  freshen();
  return true;
}

/** What the map and the list are drawn from; counts come and go in them. */
const placesOf = (views) => JSON.stringify(views.map(({ lot }) => [lot.id, lot.name, lot.latitude_e7, lot.longitude_e7]));

/** The lots for a list of places. */
export const places = () => lots.map(({ lot }) => lot);

/** The name of a lot. */
export const nameOf = (id) => lots.find((view) => view.lot.id === id)?.lot.name ?? id;

/** From the live stream: the books. */
export function showParking(live) {
  if (live.parking) {
    const { lots: counts, free, capacity, reservations, sessions, double_bookings: twice } = live.parking;
    const silent = Object.entries(counts).filter(([quality]) => quality !== "counted").map(([quality, count]) => `${count} ${quality}`);
    say("tile-free", number(free));
    say("tile-free-note", `of ${number(capacity)} in ${plural(counts.counted ?? 0, "lot that counts", "lots that count")}${silent.length ? `; ${silent.join(", ")}` : ""}`);
    say("tile-reservations", number(reservations));
    say("tile-reservations-note", plural(sessions, "car came", "cars came"));
    say("tile-twice", number(twice));
  }
  if (!live.payments) return;
  say("tile-payments", number(live.payments.captured));
  const waiting = live.payments.unknown ? `; ${number(live.payments.unknown)} waiting for the provider` : "";
  say("tile-payments-note", `all debits less all credits: ${number(live.payments.sum_minor)}${waiting}`);
}

function drawAll() {
  drawMap();
  drawList();
  put("band-legend",
    el("li", {}, sample("line came", "M1 8H15"), "What was counted"),
    el("li", {}, sample("line expected", "M1 8H15"), "Forecast"),
    el("li", { id: "band-sample" }, sample("band", "M1 3H15V13H1Z"), "80 % band"));
}

const sample = (look, path) => svg("svg", { viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true" }, svg("path", { class: look, d: path }));

/** Signs around the origin: a square that fills up, a ring of dashes, a diamond, a ring, a crossed square. */
function sign(kind, size, share = 0) {
  const box = { x: -size, y: -size, width: 2 * size, height: 2 * size, rx: size / 5 };
  const parts = {
    counted: () => [svg("rect", { ...box, class: "rim" }), svg("rect", { class: "taken", x: -size, y: size - 2 * size * share, width: 2 * size, height: 2 * size * share, rx: size / 5 })],
    stale: () => [svg("rect", { ...box, class: "rim dashes" })],
    disputed: () => [svg("path", { class: "rim", d: `M0 ${-size * 1.3}L${size * 1.3} 0L0 ${size * 1.3}L${-size * 1.3} 0Z` })],
    unknown: () => [svg("circle", { class: "rim", r: size })],
    closed: () => [svg("rect", { ...box, class: "rim" }), svg("path", { class: "rim", d: `M${-size * 0.6} ${-size * 0.6}L${size * 0.6} ${size * 0.6}M${size * 0.6} ${-size * 0.6}L${-size * 0.6} ${size * 0.6}` })],
  };
  return parts[kind]();
}

/** Equirectangular around the middle: good to a few metres over a town. */
function projection() {
  const [latitudes, longitudes] = ["latitude_e7", "longitude_e7"].map((axis) => lots.map(({ lot }) => lot[axis]));
  const [south, north, west, east] = [Math.min(...latitudes), Math.max(...latitudes), Math.min(...longitudes), Math.max(...longitudes)];
  const squeeze = Math.cos((((south + north) / 2e7) * Math.PI) / 180);
  const scale = (WIDE - 2 * MARGIN) / Math.max((east - west) * squeeze, (north - south) / FLAT[1], 1);
  const high = Math.max(FLAT[0] * WIDE, (north - south) * scale + 2 * MARGIN);
  const middle = { x: ((east + west) / 2) * squeeze * scale, y: ((south + north) / 2) * scale };
  return {
    high,
    to: ({ latitude_e7: latitude, longitude_e7: longitude }) => ({ x: WIDE / 2 + longitude * squeeze * scale - middle.x, y: high / 2 - (latitude * scale - middle.y) }),
    from: (x, y) => ({ longitude_e7: Math.round((x - WIDE / 2 + middle.x) / (squeeze * scale)), latitude_e7: Math.round((middle.y - (y - high / 2)) / scale) }),
  };
}

function drawMap() {
  project = projection();
  const picture = svg("svg", { viewBox: `0 0 ${WIDE} ${project.high}`, role: "img", "aria-label": "Map of the car parks; the list beside it says the same" });
  for (const { lot } of lots) {
    const { x, y } = project.to(lot);
    picture.append(svg("g", { class: "lot", "data-lot": lot.id, transform: `translate(${x} ${y})`, onclick: (event) => { event.stopPropagation(); choose(lot.id); } }));
  }
  picture.append(svg("path", { class: "pin", d: "M0 0L-13 -28A17 17 0 1 1 13 -28Z", hidden: true }));
  picture.addEventListener("click", (event) => {
    const box = picture.getBoundingClientRect();
    onSpot(project.from(((event.clientX - box.left) / box.width) * WIDE, ((event.clientY - box.top) / box.height) * project.high));
  });
  put("lot-map", picture);
  if (pin) showPin(pin);
}

/** Shows where one wants to be on foot. */
export function showPin(place) {
  pin = place;
  const { x, y } = project.to(place);
  const drawn = byId("lot-map").querySelector(".pin");
  drawn.removeAttribute("hidden");
  drawn.setAttribute("transform", `translate(${x} ${y})`);
}

function drawList() {
  const options = lots.map(({ lot }) => el("div", { role: "option", id: `lot-${lot.id}`, "aria-selected": "false", onclick: () => choose(lot.id) },
    svg("svg", { viewBox: "-12 -12 24 24", width: 14, height: 14, "aria-hidden": "true", class: "lot" }), el("span", {}, lot.name), el("span", { class: "muted figure" })));
  byId("lot-list").replaceChildren(...options);
  byId("lot-list").onkeydown = (event) => {
    const index = lots.findIndex((view) => view.lot.id === chosen);
    const moves = { ArrowDown: index + 1, ArrowUp: index - 1, Home: 0, End: lots.length - 1, PageDown: index + 8, PageUp: index - 8 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    choose(lots[Math.min(lots.length - 1, Math.max(0, moves[event.key]))].lot.id);
  };
}

/** New numbers in what is drawn. */
function freshen() {
  for (const view of lots) freshLot(view);
  put("lot-legend", ...Object.entries(KINDS).map(([kind, words]) => {
    const count = lots.filter((view) => kindOf(view) === kind).length;
    return el("li", {}, svg("svg", { viewBox: "-12 -12 24 24", width: 18, height: 18, "aria-hidden": "true", class: `lot ${kind}` }, ...sign(kind, 8, 0.6)), `${words} (${count})`);
  }));
  mark();
  showLot();
}

function freshLot(view) {
  const kind = kindOf(view);
  const share = hasCount(view) ? Math.min(1, view.state.occupied / view.lot.capacity) : 0;
  const group = byId("lot-map").querySelector(`[data-lot="${CSS.escape(view.lot.id)}"]`);
  group.setAttribute("class", `lot ${kind}${view.lot.id === chosen ? " chosen" : ""}`);
  const size = 15 + 13 * Math.sqrt(Math.min(1, view.lot.capacity / 1_500));
  group.replaceChildren(svg("circle", { class: "halo", r: 46 }), ...sign(kind, size, share), svg("title", {}, `${view.lot.name}: ${words(view)}`));
  const [icon, , note] = byId(`lot-${view.lot.id}`).children;
  icon.setAttribute("class", `lot ${kind}`);
  icon.replaceChildren(...sign(kind, 8, share));
  const text = kind === "closed" ? "closed" : hasCount(view) ? `${number(freeOf(view))} free` : "unknown";
  if (note.textContent !== text) note.textContent = text;
}

/** Shows one lot. */
export function choose(id) {
  chosen = id;
  put("lot-why");
  mark();
  showLot();
}

function mark() {
  for (const group of byId("lot-map").querySelectorAll(".lot")) group.classList.toggle("chosen", group.dataset.lot === chosen);
  const host = byId("lot-list");
  for (const option of host.children) option.setAttribute("aria-selected", String(option.id === `lot-${chosen}`));
  host.setAttribute("aria-activedescendant", `lot-${chosen}`);
  const option = byId(`lot-${chosen}`);
  if (option.offsetTop < host.scrollTop) host.scrollTop = option.offsetTop;
  if (option.offsetTop + option.offsetHeight > host.scrollTop + host.clientHeight) host.scrollTop = option.offsetTop + option.offsetHeight - host.clientHeight;
}

function words(view) {
  const kind = kindOf(view);
  const count = hasCount(view) ? `${number(freeOf(view))} of ${number(view.lot.capacity)} free, counted ${when(view.state.time, "moment")}` : `${number(view.lot.capacity)} places, nobody counts them now`;
  const how = { counted: ` (${view.state?.confidence_pct} % sure)`, stale: "; the sensors are silent since", disputed: "; the sensors disagree", closed: "; closed now" };
  return count + (how[kind] ?? "");
}

function showLot() {
  const view = lots.find((item) => item.lot.id === chosen);
  byId("lot-card").hidden = !view;
  if (!view) return;
  byId("lot-card").dataset.lot = chosen;
  say("lot-title", view.lot.name);
  say("lot-detail", `${words(view)} · ${number(view.reservable_free)} of ${plural(view.lot.bays.length, "bay", "bays")} can be reserved now${SOURCES[sources.get(view.lot.id)] ?? ""}`);
  showForecast(view);
  showModel(view);
}

function showForecast(view) {
  byId("band-legend").hidden = !view.expected.length;
  if (!view.expected.length) return byId("lot-chart").replaceChildren(empty("No forecast for this lot now: none is known yet, or its series is too short, stuck or silent."));
  const points = view.expected.map((one) => ({ time: seconds(one.time), value: one.occupied, low: one.low, high: one.high, came: one.came < 0 ? null : one.came }));
  byId("band-sample").hidden = points.every((point) => point.low === point.high);
  return bandChart(byId("lot-chart"), points, chartOf(view.lot));
}

const cars = (count) => plural(count, "car", "cars");
const said = (point) => (point.low === point.high ? "" : `, 80 % band ${number(point.low)} to ${number(point.high)}`);
const cameOf = (point) => (point.came === null ? "" : `; ${number(point.came)} came`);

const chartOf = (lot) => ({
  height: 210,
  now,
  least: lot.capacity / 1.08,
  axis: number,
  label: (point) => everyHours(point.time, 3),
  words: (point) => `${when(point.time, "moment")}: ${cars(point.value)} expected${said(point)}${cameOf(point)}`,
  hint: `Cars in the lot, of ${number(lot.capacity)}. Point at the chart, or focus it and use the arrow keys.`,
  summary: (points) => `Forecast for ${lot.name} from ${when(points[0].time, "moment")} to ${when(points.at(-1).time, "moment")}; ${cars(points.at(-1).value)} expected at the end`,
  columns: ["From", "Expected", "80 % band", "Came"],
  row: (point) => [when(point.time, "moment"), number(point.value), `${number(point.low)} to ${number(point.high)}`, point.came === null ? "" : number(point.came)],
});

const percent = (micro) => (micro / 10_000).toLocaleString("en-GB", { maximumFractionDigits: 1 });

function showModel(view) {
  const model = models.find((item) => item.id === view.model);
  const parts = view.model ? [`Forecast by model ${view.model}`] : ["Forecast from the lot's own profile"];
  if (model) parts.push(`learnt from ${plural(model.series, "series", "series")}`, `in its backtest ${percent(model.coverage_micro["80"] ?? 0)} % came inside the 80 % band, scaled error ${((model.mase_micro.choice ?? 0) / 1e6).toFixed(2)}`);
  say("lot-model", view.expected.length ? `${parts.join(" · ")}.` : "");
  if (!operator || !view.expected.length) return put("lot-why");
  if (byId("lot-why").childElementCount) return undefined;
  return put("lot-why", doing("Why this forecast?", () => explain(view)));
}

/** Which inputs moved the next half hour, as an operator may ask. */
async function explain(view) {
  const next = view.expected.find((one) => seconds(one.time) > now) ?? view.expected.at(-1);
  const series = encodeURIComponent(`parking/${view.lot.id}`);
  const found = await ask(`/api/v1/forecasting/explanation?series=${series}&time=${encodeURIComponent(rfc(seconds(next.time)))}`, operator);
  put("lot-why", el("p", { class: "notice small" }, `${when(next.time, "moment")}: ${found.words}`));
}

/** The models and how right advice was. */
export async function loadCalibration() {
  const [found, known] = await Promise.all([ask("/api/v1/parking/calibration"), ask("/api/v1/forecasting/models").catch(() => ({ models }))]);
  models = known.models;
  if (!found.advices) return put("calibration", empty("No advice has come to its arrival yet."));
  say("calibration-note", `${plural(found.advices, "advice", "advices")}; mean square of said less came ${(found.brier_micro / 1e6).toFixed(3)} (Brier; 0 is perfect)`);
  const rows = found.bins.map((bin) => el("tr", {}, el("th", { scope: "row" }, `${percent(bin.said_milli * 1_000)} %`), el("td", {}, `${percent(bin.came_milli * 1_000)} %`), el("td", { class: "strip" }, strip(bin)), el("td", {}, number(bin.advices))));
  const heads = ["Said", "Came true", "", "Advices"].map((name) => (name ? el("th", { scope: "col" }, name) : el("td", {})));
  return put("calibration", el("table", { class: "lines" }, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows)));
}

/** A bar of what came, with a mark at what was said. */
const strip = (bin) => svg("svg", { viewBox: "0 0 100 12", height: 12, preserveAspectRatio: "none", "aria-hidden": "true" },
  svg("rect", { class: "bar mixed", x: 0.5, y: 2.5, width: Math.max(1, bin.came_milli / 10 - 1), height: 7 }),
  svg("line", { class: "said", x1: bin.said_milli / 10, x2: bin.said_milli / 10, y1: 0, y2: 12 }));
