// The public part: clock, tiles, load, logs, provenance. Fed by the live stream.

import { all, ask } from "./api.js";
import { areaChart } from "./chart.js";
import { byId, el, everyHours, failed, number, plural, put, say, seconds, setZone, short, when } from "./dom.js";
import { setSources } from "./lots.js";
import { setMeters, setStates } from "./map.js";

const first = new Map();

/** Name, zone and demo logins. */
export async function loadCity() {
  const city = await ask("/api/v1/city");
  setZone(city.time_zone);
  document.title = `Provable City · ${city.city}`;
  say("backbone", `Runs on: ${city.backbone}`);
  return city;
}

/** Meters and where the data comes from; a city without a simulation has no map. */
export async function loadNeighbourhood() {
  let found;
  try {
    found = await ask("/api/v1/neighbourhood");
  } catch (error) {
    if (error.status !== 404) throw error;
    document.querySelector(".map-card").hidden = true;
    put("attributions", el("li", {}, "Real meters; nothing here is replayed."));
    return false;
  }
  if (!found.meters.length) return false;
  setMeters(found.meters);
  setSources(found.car_parks);
  const weeks = [...new Set(found.attributions.map((item) => item.shifted_weeks))].sort((a, b) => a - b);
  const list = new Intl.ListFormat("en-GB").format(weeks.map(number));
  say("provenance", found.synthetic
    ? "Demo on seeded synthetic data: no open data was to be had here. Positions are simulated."
    : `Demo on open data, shifted by ${list} weeks so that weekday and hour stay, with simulated homes around it. Meters sign what they measure, logs keep it, and a small offline program checks the bill.`);
  const items = found.attributions.map((item) => el("li", {}, el("b", {}, item.name), ` · ${item.licence} · ${item.text} · shifted by ${number(item.shifted_weeks)} weeks`));
  put("attributions", ...(items.length ? items : [el("li", {}, "Seeded synthetic series; nobody's data.")]));
  return true;
}

/** One event of the live stream. */
export function showLive(live) {
  say("clock", when(live.city_time, "clock"));
  byId("clock").setAttribute("datetime", live.city_time);
  showReplay(live);
  if (live.load?.length) showLoadTile(live.load.at(-1));
  if (live.heads) showHeads(live.heads);
  if (live.quarantine) showQuarantineTile(live.quarantine);
}

function showReplay(live) {
  const replay = live.replay;
  byId("backfill").hidden = replay?.phase !== "backfill";
  if (!replay) return say("speed", "city time");
  say("speed", replay.phase === "backfill" ? "catching up" : `replay at ${number(replay.speed)}× speed`);
  if (replay.phase !== "backfill") return undefined;
  const entries = live.heads?.find((head) => head.log === "metering.readings")?.size ?? 0;
  say("backfill-text", `Signed packages of the weeks before are being verified and logged: at ${when(live.city_time, "moment")}, ${plural(entries, "package", "packages")} so far. The first bill follows.`);
  return undefined;
}

function showLoadTile(point) {
  say("tile-load", `${((point.energy_wh * 2) / 1000).toLocaleString("en-GB", { maximumFractionDigits: 1 })} kW`);
  say("tile-load-note", `half hour from ${when(point.time, "hour")}`);
  say("tile-meters", number(point.meters));
}

function showQuarantineTile(quarantine) {
  say("tile-quarantine", number(quarantine.devices));
  const reasons = Object.entries(quarantine.reasons).map(([reason, count]) => `${count} ${reason}`);
  say("tile-quarantine-note", reasons.join(", ") || "every reading is believable");
}

function showHeads(heads) {
  const size = heads.reduce((sum, head) => sum + head.size, 0);
  const anchored = heads.reduce((sum, head) => sum + head.anchored_size, 0);
  say("tile-entries", number(size));
  say("tile-entries-note", anchored === size ? "all anchored on the ledger" : `${number(size - anchored)} waiting for the next anchor`);
  const host = byId("logs");
  for (const head of heads) {
    const node = byId(`log-${head.log}`) ?? newLog(host, head.log);
    showHead(node, head);
  }
}

function newLog(host, name) {
  if (!host.querySelector(".log")) host.replaceChildren();
  const node = el("div", { class: "log", id: `log-${name}` },
    el("div", { class: "split" }, el("h3", {}, name), el("p", { class: "figure" })),
    el("div", { class: "track", "aria-hidden": "true" }, svgBar()), el("p", { class: "small muted" }));
  host.append(node);
  return node;
}

const svgBar = () => el("progress", { max: 1, value: 0, "aria-hidden": "true" });

function showHead(node, head) {
  if (!first.has(head.log)) first.set(head.log, head.size);
  const grown = head.size - first.get(head.log);
  const texts = node.querySelectorAll("p");
  const figure = grown ? `${number(head.size)}  (+${number(grown)})` : number(head.size);
  if (texts[0].textContent !== figure) texts[0].textContent = figure;
  node.querySelector("progress").value = head.size ? head.anchored_size / head.size : 0;
  const key = `${head.anchored_size}/${head.anchor_transaction}`;
  if (node.dataset.anchor === key) return;
  node.dataset.anchor = key;
  texts[1].replaceChildren(...(head.anchor_transaction ? anchor(head) : ["not anchored yet"]));
}

function anchor(head) {
  const link = el("a", { href: `/api/v1/ledger/transactions/${head.anchor_transaction}`, title: "Evidence of the ledger transaction" }, el("code", {}, short(head.anchor_transaction)));
  const at = head.anchored_at ? ` at ${when(head.anchored_at, "moment")}` : "";
  return [`${number(head.anchored_size)} anchored${at} · tx `, link, " · root ", el("code", {}, short(head.anchored_root))];
}

/** The city's load over 48 hours. */
export async function loadLoad() {
  const host = byId("load-chart");
  try {
    const { points } = await ask("/api/v1/load?slots=96");
    if (!points.length) return host.replaceChildren(el("p", { class: "muted empty" }, "No sums yet: they need at least ten meters."));
    areaChart(host, points.map((point) => ({ ...point, value: (point.energy_wh * 2) / 1000 })), LOAD);
  } catch (error) {
    if (!host.querySelector("svg")) host.replaceChildren(failed(error, loadLoad));
  }
  return undefined;
}

const kw = (value) => `${value.toLocaleString("en-GB", { maximumFractionDigits: 1 })} kW`;
const LOAD = {
  height: 190,
  axis: (value) => number(value),
  label: (point) => everyHours(point.time, 6),
  words: (point) => `${when(point.time, "moment")}: ${kw(point.value)}, ${plural(point.meters, "meter", "meters")}`,
  hint: "kW by half hour. Point at the chart, or focus it and use the arrow keys.",
  summary: (points) => `City load from ${when(points[0].time, "moment")} to ${when(points.at(-1).time, "moment")}; highest ${kw(Math.max(...points.map((point) => point.value)))}, last ${kw(points.at(-1).value)}`,
  columns: ["From", "Load", "Meters"],
  row: (point) => [when(point.time, "moment"), kw(point.value), number(point.meters)],
};

/** States of the meters for the map, as an operator sees them. */
export async function loadStates(who) {
  setStates(await all("/api/v1/meters", who, "states"));
}

export const slotOf = (live) => Math.floor(seconds(live.city_time) / 1800);
