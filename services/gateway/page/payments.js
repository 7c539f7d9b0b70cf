// The resident's money: payments with their receipts, the statement, and paying a bill.

import { act, ask, save } from "./api.js";
import { check } from "./check.js";
import { byId, choices, doing, el, empty, failed, money, put, rfc, scrolling, when } from "./dom.js";

/** What the sandbox provider's tokens do. */
export const METHODS = [
  ["pm_visa", "Visa (sandbox)"],
  ["pm_declined", "a card that is declined"],
  ["pm_later", "a bank that answers late"],
];
const DAY = 86_400;
const SHOWN = 20;
const TAGS = { unknown: "waiting for the provider", authorised: "set aside", declined: "declined", captured: "paid", voided: "let go" };
const SPANS = [[7, "last 7 days"], [35, "last 35 days"]];

let who = null;
let now = () => 0;
let bill = null;
let drawn = "";
let payments = [];

/** Opens the list; `clock` tells city time. */
export function openPayments(login, clock) {
  who = login;
  now = clock;
  return loadPayments();
}

/** The newest payments; drawn again only when they changed. */
export async function loadPayments() {
  if (!who) return undefined;
  try {
    payments = (await ask(`/api/v1/payments?page_size=${SHOWN}`, who)).payments;
    const key = JSON.stringify(payments);
    if (key !== drawn) draw();
    drawn = key;
    if (bill) showBillPayment(bill);
  } catch (error) {
    if (error.status === 404) byId("payments-card").hidden = true;
    else if (!drawn) put("payments", failed(error, loadPayments));
  }
  return undefined;
}

function draw() {
  const list = payments.length ? scrolling("My payments", el("ul", { class: "entries" }, ...payments.map(entry))) : empty("None yet. What you reserve or pay is listed here.");
  put("payments", list, statement());
}

/** What was paid, in words. */
const subject = (one) => ({ parking: "Parking", metering: "Energy bill" })[one.payee] ?? one.payee;

/** What it comes to now: taken less given back, or set aside. */
const amount = (one) => (one.state === "captured" ? one.captured_minor - one.refunded_minor : one.authorised_minor);

function entry(one) {
  const warn = one.state === "unknown" || one.state === "declined";
  const tag = el("span", { class: warn ? "tag warn" : "tag" }, TAGS[one.state] ?? one.state);
  const back = one.refunded_minor ? `, ${money(one.refunded_minor, one.currency)} given back` : "";
  return el("li", {},
    el("div", { class: "split" }, el("h3", {}, `${subject(one)} `, el("span", { class: "figure" }, amount(one) ? money(amount(one), one.currency) : "")), tag),
    el("p", { class: "muted small" }, `${one.create_time ? when(one.create_time, "moment") : ""} · ${one.reference}${back}${one.reason ? ` · ${one.reason.replaceAll("-", " ")}` : ""}`),
    one.waiting_for ? el("p", { class: "small" }, `Waiting: the provider has not said for certain whether it could ${one.waiting_for}. It is asked again.`) : null,
    one.state === "unknown" ? null : receipt(one));
}

function receipt(one) {
  const path = `/api/v1/payments/${encodeURIComponent(one.id)}`;
  const button = doing("Check receipt", () => check("check", "The proof of my receipt, step by step", who, `${path}/check`, button.querySelector("button")));
  return el("div", { class: "actions tight" }, button, doing("Receipt bundle", () => save(`${path}/receipt-bundle`, who, "receipt.json")));
}

function statement() {
  const span = el("select", { id: "statement-span", "aria-label": "Time of the statement" }, ...choices(SPANS, 7));
  const query = () => `from=${rfc(Math.floor(now()) - span.value * DAY)}&to=${rfc(Math.floor(now()))}`;
  const button = doing("Check my statement", () => check("check", "The proof of my statement, step by step", who, `/api/v1/statement-check?${query()}`, button.querySelector("button")));
  return el("div", { class: "statement" },
    el("h3", {}, "Statement"), el("p", { class: "small muted" }, "Every movement of your account; each balance must follow from the one before."),
    el("div", { class: "actions" }, span, button, doing("Statement bundle", () => save(`/api/v1/statement-bundle?${query()}`, who, "statement.json"))));
}

/** Beside a bill: what became of its payment, or a way to pay it. */
export function showBillPayment(shown) {
  bill = shown;
  const host = byId("bill-pay");
  if (!host || byId("payments-card").hidden) return;
  const found = payments.find((one) => one.payee === "metering" && one.reference.endsWith(bill.id) && one.state !== "declined" && one.state !== "voided");
  const key = `${bill.id} ${found?.state ?? ""} ${bill.paid}`;
  if (host.dataset.key === key) return;
  host.dataset.key = key;
  host.replaceChildren(...(found || bill.paid ? [settled(found)] : payable()));
}

function settled(one) {
  if (!one) return el("p", { class: "notice" }, "This bill is paid.");
  if (one.state === "captured") return el("p", { class: "notice" }, `Paid: ${money(one.captured_minor, one.currency)}, ${when(one.create_time, "moment")}.`);
  return el("p", { class: "notice" }, "Your payment is on its way: the provider has not answered for certain and is asked again.");
}

function payable() {
  const method = el("select", { "aria-label": "Pay with" }, ...choices(METHODS, METHODS[0][0]));
  const note = el("p", { class: "small", role: "status" });
  const pay = doing("Pay this bill", async () => {
    note.textContent = "";
    const one = await act(`/api/v1/bills/${encodeURIComponent(bill.id)}/payment`, who, { payment_method: method.value });
    if (one.state === "declined") note.textContent = "The payment was declined; nothing was taken. Choose another way to pay.";
    await loadPayments();
  });
  return [el("div", { class: "actions" }, method, pay), note];
}
