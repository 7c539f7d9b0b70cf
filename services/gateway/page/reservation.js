// The resident's reservation: hold and confirm, open the lock, leave, price, receipt, check. What is waited for is said, never shown as an error.

import { act, ask, save } from "./api.js";
import { check, forgetCheck } from "./check.js";
import { cityNow } from "./clock.js";
import { byId, doing, el, money, plural, put, rfc, say, seconds, when } from "./dom.js";
import { nameOf } from "./lots.js";
import { loadPayments } from "./payments.js";

const PATH = "/api/v1/parking/reservations";
const MINUTE = 60;
const OPEN = ["held", "confirming", "confirmed", "active"];
const PRICED = ["ended", "cancelled", "no-show"];
/** Real seconds between two tries to have the bundle before the city says that there is one. */
const BUNDLE_EVERY_S = 10;
const LIMIT_LEAST_MINOR = 5_000;
const LIMIT_OVER_QUOTE = 3;
const MANDATE_S = 7 * 86_400;
/** Real seconds after which one is told that a lock may be offline. */
const LOCK_WAIT_S = 6;

const TAGS = { held: "held", confirming: "waiting for the provider", confirmed: "confirmed", active: "parked", ended: "over", cancelled: "cancelled", "no-show": "not used", expired: "expired", declined: "declined" };
const WORDS = {
  held: () => "The bay is kept for a moment; it is not confirmed yet.",
  confirming: () => "The payment provider has not answered for certain. Nothing is wrong and nothing is to be done: it is asked again, and this changes by itself.",
  confirmed: (one) => `Bay ${one.bay} is yours. ${money(one.quote_minor, one.currency)} is set aside and taken only when you leave.${isEarly(one) ? ` The lock opens from ${when(opens(one), "moment")} on.` : ""}`,
  active: (one) => `The lock let you in at ${when(one.entry_time, "moment")}, by its own signed word. Leave by ${when(one.to_time, "moment")}; later costs extra.`,
  ended: (one) => `The lock let you out at ${when(one.exit_time, "moment")}. ${taken(one)}`,
  cancelled: (one) => `You gave the bay back. ${taken(one)}`,
  "no-show": (one) => `Nobody came. ${taken(one)}`,
  expired: () => "It was not confirmed in time, so the bay is free again. Nothing was charged.",
  declined: () => "The payment was declined. Nothing was charged, and the bay is free again. Choose another way to pay and reserve again.",
};

let who = null;
let shown = null;
let others = [];
let waiting = null;
let busy = false;
let drawn = "";
let bundle = null;
let access = null;
let asked = "";
let tried = 0;

const taken = (one) => {
  const amount = money(one.amount_minor, one.currency);
  if (!one.amount_minor) return "Nothing is charged.";
  if (one.payment_state === "captured") return `${amount} was taken.`;
  return `${amount} is owed; waiting for the payment provider, which is asked again until it is certain.`;
};
const isOpen = (one) => OPEN.includes(one.state);
/** The city notes what can be proven in rounds; that the bundle could be had says it as well. */
const isProven = (one) => one.provable || (bundle !== null && shown?.id === one.id);
/** Whether anything about it may still change by itself. */
const isLive = (one) => isOpen(one) || (PRICED.includes(one.state) && !isProven(one));
const opens = (one) => access?.not_before ?? one.from_time;
/** Whether the lock would not open yet. */
const isEarly = (one) => one.state === "confirmed" && cityNow() < seconds(opens(one));
const pathOf = (one) => `${PATH}/${encodeURIComponent(one.id)}`;

/** The caller's reservations; shows the newest that is not over. */
export async function openReservations(login) {
  who = login;
  await list();
  const first = others.find(isOpen) ?? others[0];
  if (first && !shown) await show(first);
}

async function list() {
  others = (await ask(`${PATH}?page_size=20`, who)).reservations;
}

/** A mandate for parking: with room for a longer stay. */
export async function permit(advice, method) {
  const limit = Math.max(LIMIT_LEAST_MINOR, LIMIT_OVER_QUOTE * advice.price_minor);
  const wanted = { payee: "parking", limit_minor: limit, currency: advice.currency, payment_method: method, lifetime_s: MANDATE_S };
  return (await act("/api/v1/payments/mandates", who, wanted)).mandate;
}

/** Hold and confirmation, one right after the other: a hold lives for minutes of city time only. */
export async function reserve(lot, span, mandate) {
  const held = await act(PATH, who, { lot, from_time: rfc(span.from), to_time: rfc(span.to) });
  await show(held);
  byId("reservation-title").focus();
  await show(await act(`${pathOf(held)}/confirm`, who, { mandate }));
  await list();
  showOthers();
}

/** With each event of the live stream: asks how it stands, as long as it may change. */
export async function followReservation() {
  if (!shown || busy || !isLive(shown)) return;
  busy = true;
  try {
    await show(await ask(pathOf(shown), who));
  } catch {
    // the next event asks again; what is shown stays
  } finally {
    busy = false;
  }
}

/** Shows one; draws only what changed. */
async function show(one) {
  if (shown?.id !== one.id) {
    bundle = null;
    access = null;
    waiting = null;
    tried = performance.now();
    forgetCheck("parking-check");
  }
  if (waiting && waiting.state !== one.state) {
    waiting = null;
    access = null;
    loadPayments();
  }
  shown = one;
  if (one.state === "confirmed" && asked !== one.id) {
    asked = one.id;
    access = await act(`${pathOf(one)}/access`, who).catch(() => null);
  }
  if (wantsBundle(one)) {
    tried = performance.now();
    bundle = await ask(`${pathOf(one)}/bundle`, who).catch(() => null);
  }
  const key = JSON.stringify([one, Boolean(bundle), waiting?.since, lateness(), isEarly(one), access]);
  if (key === drawn) return;
  drawn = key;
  draw(one);
}

const wantsBundle = (one) => !bundle && PRICED.includes(one.state) && (one.provable || performance.now() - tried > BUNDLE_EVERY_S * 1000);
const lateness = () => Boolean(waiting) && performance.now() - waiting.since > LOCK_WAIT_S * 1000;

function draw(one) {
  byId("reservation-card").hidden = false;
  put("reservation-tag", el("span", { class: one.state === "declined" || one.state === "confirming" ? "tag warn" : "tag" }, TAGS[one.state] ?? one.state));
  put("reservation",
    el("p", {}, el("b", {}, `${nameOf(one.lot)}, bay ${one.bay}`)),
    el("p", { class: "small muted" }, `${when(one.from_time, "moment")} to ${when(one.to_time, "moment")} · ${money(one.quote_minor, one.currency)} by tariff ${one.tariff}`),
    steps(one));
  say("reservation-words", waiting ? waitingWords(one) : (WORDS[one.state]?.(one) ?? one.state));
  drawActions(one);
  put("reservation-more", ...[accessDocument(), priceLines(), provability(one)].filter(Boolean));
  showOthers();
}

/** The focus stays where something can be done. */
function drawActions(one) {
  const focused = byId("reservation-actions").contains(document.activeElement);
  put("reservation-actions", ...(ACTIONS[one.state]?.(one) ?? []).filter(Boolean), ...proofActions(one));
  if (focused) (byId("reservation-actions").querySelector("button:enabled") ?? byId("reservation-title")).focus();
}

function waitingWords(one) {
  if (lateness()) return "The lock has not said that it opened. It may be offline: try again, or show it the access document.";
  return `The signed instruction is sent. Waiting for the lock's own signed word that it ${one.state === "active" ? "let you out" : "opened"}.`;
}

/** How far it has come: five steps, the present one marked. */
function steps(one) {
  const captured = one.payment_state === "captured" || one.state === "ended" && !one.amount_minor;
  const done = [!["held", "confirming"].includes(one.state), Boolean(one.entry_time), Boolean(one.exit_time), captured, isProven(one)];
  if (["cancelled", "no-show", "expired", "declined"].includes(one.state)) return null;
  const current = done.indexOf(false);
  const names = ["Reserved", "Opened", "Left", "Paid", "Provable"];
  return el("ol", { class: "path small" }, ...names.map((name, index) => el("li", {
    class: done[index] ? "done" : index === current ? "current" : "", "aria-current": index === current ? "step" : null,
  }, name)));
}

const passing = (one, name) => doing(name, () => unlock(one), { class: "primary", id: "unlock", disabled: isEarly(one) || (Boolean(waiting) && !lateness()) });

const ACTIONS = {
  held: (one) => [cancelling(one)],
  confirmed: (one) => [passing(one, "Unlock"), accessButton(one), extending(one), cancelling(one)],
  active: (one) => [passing(one, "Leave"), accessButton(one), extending(one)],
};

async function unlock(one) {
  await act(`${pathOf(one)}/unlock`, who);
  waiting = { state: one.state, since: performance.now() };
  await show(await ask(pathOf(one), who));
}

const accessButton = (one) => (access ? "" : doing("Access document", async () => {
  access = await act(`${pathOf(one)}/access`, who);
  await show({ ...shown });
}));
const extending = (one) => doing("1 hour longer", async () => {
  const to = Math.max(seconds(one.to_time), 0) + 60 * MINUTE;
  await show(await act(`${pathOf(one)}/extend`, who, { to_time: rfc(to) }));
});
const cancelling = (one) => doing("Cancel", async () => show(await act(`${pathOf(one)}/cancel`, who)));

function accessDocument() {
  if (!access) return null;
  const open = byId("reservation-more").querySelector("details")?.open ?? false;
  return el("details", { open }, el("summary", { class: "small" }, "Access document"),
    el("p", { class: "small muted" }, `Opens this lock once, also where it is offline, from ${when(access.not_before, "moment")} to ${when(access.expires, "moment")}.`),
    el("pre", { tabindex: "0", "aria-label": "Access document", id: "access-document" }, el("code", {}, access.document)));
}

const LINES = {
  stay: (line) => `${plural(line.steps, "step", "steps")} ${line.band}${line.date ? `, ${line.date}` : ""}`,
  cap: (line) => `No more than the day's cap, ${line.date}`,
  permit: () => "Permit",
  overstay: (line) => `Stayed longer, ${plural(line.steps, "step", "steps")}`,
  "no-show": () => "Not used",
  cancelled: () => "Cancelled late",
  refund: () => "Given back",
};

/** The last version's lines, as they stand in the bundle, with the receipts. */
function priceLines() {
  const last = bundle?.reservation?.at(-1)?.document;
  if (!last) return null;
  const row = (name, minor, look) => el("tr", { class: look }, el("th", { scope: "row" }, name), el("td", {}, money(minor, last.currency)));
  const rows = last.lines.map((line) => row(LINES[line.kind]?.(line) ?? line.kind, line.amount_minor));
  const receipts = bundle.receipts.map(({ document: receipt }) => row(`Receipt: ${receipt.state}`, receipt.captured_minor - receipt.refunded_minor, "muted"));
  return el("table", { class: "lines", id: "price-lines" }, el("tbody", {}, ...rows, row("Total", last.price_minor, "total"), ...receipts));
}

function proofActions(one) {
  if (!isProven(one)) return [];
  const button = doing("Check this", () => check("parking-check", "The proof of my parking, step by step", who, `${pathOf(one)}/check`, byId("parking-check-button")), { class: "primary", id: "parking-check-button" });
  return [button, doing("Session bundle", () => save(`${pathOf(one)}/bundle`, who, "bundle.json")), doing("Trust file", () => save("/trust.json", null, "trust.json"))];
}

const provability = (one) => (!isProven(one) && PRICED.includes(one.state) ? el("p", { class: "small muted" }, "Its proof is ready once everything is anchored: a few seconds.") : null);

function showOthers() {
  const rest = others.filter((one) => one.id !== shown?.id).slice(0, 10);
  const open = byId("reservation-others").querySelector("details")?.open ?? false;
  if (!rest.length) return put("reservation-others");
  const rows = rest.map((one) => el("li", {}, el("button", { type: "button", class: "plain", onclick: () => switchTo(one) }, `${when(one.from_time, "moment")}, ${nameOf(one.lot)}`), el("span", { class: "muted small" }, ` ${TAGS[one.state] ?? one.state}`)));
  return put("reservation-others", el("details", { open }, el("summary", { class: "small" }, `Others (${rest.length})`), el("ul", { class: "small" }, ...rows)));
}

async function switchTo(one) {
  await show(await ask(pathOf(one), who));
  byId("reservation-title").focus();
}
