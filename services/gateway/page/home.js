// The resident's part: contract, usage, bill, check, downloads, who looked.

import { all, ask, save } from "./api.js";
import { barChart } from "./chart.js";
import { check, forgetCheck } from "./check.js";
import { byId, doing, el, empty, everyHours, failed, kwh, money, number, plainDate, plural, put, rfc, say, scrolling, seconds, svg, when } from "./dom.js";
import { openPayments, showBillPayment } from "./payments.js";

const PERIODS = {
  day: { span: 86_400, resolution: "slot", label: (point) => everyHours(point.time, 3), style: "moment" },
  week: { span: 7 * 86_400, resolution: "hour", label: (point) => (isMidnight(point.time) ? when(point.time, "day") : ""), style: "moment" },
  month: { span: 35 * 86_400, resolution: "day", label: (point) => when(point.time, "day"), style: "day" },
};
const QUALITIES = {
  measured: "Measured and signed",
  estimated: "Estimated",
  mixed: "Partly estimated or held",
  quarantined: "Held in quarantine",
  missing: "Missing",
};
const isMidnight = (time) => when(time, "hour") === "00:00";

let who = null;
let meterPoint = null;
let now = 0;
let period = "day";
let back = 0;
let shownBill = "";

/** Opens the resident's view; false while there is no contract yet. */
export async function openHome(login, cityTime) {
  who = login;
  now = seconds(cityTime);
  const [me, { contracts }] = await Promise.all([ask("/api/v1/me", who), ask("/api/v1/me/contracts", who)]);
  if (!contracts.length) return false;
  const contract = contracts.at(-1);
  meterPoint = contract.meter_point;
  say("home-who", `${me.display_name}, ${meterPoint}, tariff ${contract.tariff} since ${plainDate(contract.from_date)}`);
  byId("home-body").hidden = false;
  wire();
  showLegend();
  showDownloads();
  await Promise.all([loadUsage(), loadBill(), loadAccesses(), openPayments(who, () => now)]);
  return true;
}

function wire() {
  for (const button of document.querySelectorAll("[data-period]")) button.onclick = () => setPeriod(button.dataset.period);
  byId("usage-earlier").onclick = () => move(1);
  byId("usage-later").onclick = () => move(-1);
}

function setPeriod(name) {
  period = name;
  back = 0;
  for (const button of document.querySelectorAll("[data-period]")) button.setAttribute("aria-pressed", String(button.dataset.period === name));
  return move(0);
}

function move(steps) {
  back = Math.max(0, back + steps);
  byId("usage-later").disabled = back === 0;
  return loadUsage();
}

/** City time went on. */
export function setNow(cityTime) {
  now = seconds(cityTime);
}

const range = () => {
  const { span } = PERIODS[period];
  const to = Math.floor(now / 1800) * 1800 - back * span;
  return { from: to - span, to };
};

/** Usage of the chosen period. */
export async function loadUsage() {
  const { from, to } = range();
  const host = byId("usage-chart");
  try {
    const path = `/api/v1/meter-points/${encodeURIComponent(meterPoint)}/usage?from=${rfc(from)}&to=${rfc(to)}&resolution=${PERIODS[period].resolution}`;
    const usage = await ask(path, who);
    say("usage-span", `${when(from, "moment")} to ${when(to, "moment")} · ${kwh(usage.total_wh)}`);
    if (!usage.points.length) return host.replaceChildren(empty("Nothing was measured in this time."));
    barChart(host, usage.points.map((point) => ({ ...point, value: point.energy_wh / 1000 })), usageOptions());
  } catch (error) {
    if (!host.querySelector("svg") || error.status !== 0) host.replaceChildren(failed(error, loadUsage));
  }
  return undefined;
}

function usageOptions() {
  const { label, style } = PERIODS[period];
  const quality = (point) => (QUALITIES[point.quality] ?? point.quality).toLowerCase() + (point.reason ? ` (${point.reason})` : "");
  return {
    height: 230,
    label,
    axis: (value) => value.toLocaleString("en-GB", { maximumFractionDigits: 2 }),
    words: (point) => `${when(point.time, style)}: ${kwh(point.energy_wh)}, ${quality(point)}`,
    hint: "kWh. Point at a bar, or focus the chart and use the arrow keys.",
    summary: (points) => `Usage, ${points.length} bars, ${points.filter((point) => point.quality !== "measured").length} of them not wholly measured`,
    columns: ["From", "Energy", "Quality"],
    row: (point) => [when(point.time, style), kwh(point.energy_wh), quality(point)],
  };
}

function showLegend() {
  put("usage-legend", ...Object.entries(QUALITIES).map(([quality, words]) => {
    const sample = quality === "missing"
      ? svg("path", { class: "bar missing", d: "M4 4l8 8m0-8l-8 8" })
      : svg("rect", { class: `bar ${quality}`, x: 2, y: 2, width: 12, height: 12, rx: 2 });
    return el("li", {}, svg("svg", { viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true" }, sample), words);
  }));
}

/** The newest bill; kept when nothing changed. */
export async function loadBill() {
  try {
    const { bills } = await ask("/api/v1/bills?page_size=5", who);
    if (!bills.length) return put("bill", empty("No bill yet: the first period closes soon."));
    const bill = bills[0];
    const key = JSON.stringify(bill);
    if (key === shownBill) return undefined;
    const text = await ask(`/api/v1/bills/${encodeURIComponent(bill.id)}/document`, who);
    shownBill = key;
    forgetCheck("check");
    showBill(bill, text);
  } catch (error) {
    if (!shownBill) put("bill", failed(error, loadBill));
  }
  return undefined;
}

const lineName = (line) => {
  if (line.kind === "standing") return `Standing charge, ${plural(line.days, "day", "days")}`;
  if (line.kind === "vat") return `VAT ${(line.basis_points / 100).toLocaleString("en-GB")} %`;
  return `${line.band[0].toUpperCase()}${line.band.slice(1)}${line.step ? `, step ${line.step + 1}` : ""}`;
};
const lineNote = (line) => {
  if (line.kind === "energy") return `${kwh(line.energy_wh)} × ${(line.price_micro_per_wh / 1000).toLocaleString("en-GB")} p`;
  if (line.kind === "standing") return `${(line.price_micro_per_day / 1_000_000).toLocaleString("en-GB")} p a day`;
  return "";
};

function showBill(bill, text) {
  const rows = text.lines.map((line) => el("tr", {},
    el("th", { scope: "row" }, lineName(line), el("span", { class: "muted small" }, lineNote(line))), el("td", {}, money(line.amount_minor, text.currency))));
  const total = el("tr", { class: "total" }, el("th", { scope: "row" }, "Total"), el("td", {}, money(text.total_minor, text.currency)));
  const button = el("button", { type: "button", class: "primary", id: "check-button", disabled: !bill.provable, onclick: () => checkBill(bill) }, "Check this");
  put("bill",
    el("p", { class: "amount figure" }, money(text.total_minor, text.currency)),
    el("p", { class: "muted" }, `${plainDate(text.period.from)} up to ${plainDate(text.period.to)} · due ${plainDate(text.due)} · can be disputed until ${plainDate(text.dispute_until)}`),
    el("table", { class: "lines" }, el("tbody", {}, ...rows, total)),
    el("p", { class: "small muted" }, `${number(text.measured)} of ${number(text.slots)} half hours measured and signed, ${number(text.estimated.length)} estimated (${text.tariff.id}, version ${text.tariff.version}).`),
    corrected(bill),
    el("div", { class: "actions" }, button, doing("Proof bundle", () => save(`/api/v1/bills/${encodeURIComponent(bill.id)}/bundle`, who, "bundle.json")), doing("Trust file", () => save("/trust.json", null, "trust.json"))),
    el("div", { id: "bill-pay" }),
    bill.provable ? null : el("p", { class: "small" }, "Its proof is ready once its readings and its run are anchored: a few seconds."));
  showBillPayment(bill);
}

const checkBill = (bill) => check("check", "The proof of my bill, step by step", who, `/api/v1/bills/${encodeURIComponent(bill.id)}/check`, byId("check-button"));

const corrected = (bill) => (bill.corrects ? el("p", { class: "notice" }, `This bill corrects ${bill.corrects}.`) : "");

function showDownloads() {
  const day = () => rfc(Math.floor(now / 86_400) * 86_400);
  const monthBefore = () => rfc(Math.floor(now / 86_400) * 86_400 - 35 * 86_400);
  const point = encodeURIComponent(meterPoint);
  const span = () => `from=${monthBefore()}&to=${day()}`;
  put("downloads",
    el("p", { class: "small muted" }, "Your last 35 days, in forms other programs read."),
    el("div", { class: "actions" },
      doing("Green Button (XML)", () => save(`/api/v1/meter-points/${point}/green-button?${span()}`, who, "green-button.xml")),
      doing("All that is held about me", () => save("/api/v1/me/export", who, "my-data.json"))));
}

/** Who looked at the resident's data, newest first. */
export async function loadAccesses() {
  try {
    const rows = await all("/api/v1/me/accesses", who, "accesses");
    const items = rows.map((row) => el("li", {},
      el("p", {}, el("b", {}, row.by), ` saw ${row.what}`), el("p", { class: "muted small" }, `${row.at ? when(row.at, "moment") : ""} · ${row.purpose}`)));
    put("accesses", items.length ? scrolling("Who looked", el("ul", { class: "entries" }, ...items)) : empty("Nobody but you. Whoever looks is listed here, with the reason."));
  } catch (error) {
    put("accesses", failed(error, loadAccesses));
  }
}
