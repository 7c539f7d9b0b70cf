// "Check this": the verifier's steps about a bill, a reservation, a receipt or a statement, and how to run it oneself.

import { tell } from "./api.js";
import { byId, el, failed, put, say } from "./dom.js";

const NAMES = {
  "bundle-format": "The bundle is well formed",
  trust: "The trust file is well formed",
  "checkpoint-signature": "The log's checkpoint is signed by the log's key",
  "anchor-endorsement": "The anchor is endorsed on the ledger",
  "anchor-block": "The anchor's block is signed and holds it",
  "anchor-matches": "The anchored root is the checkpoint's root",
  commitments: "Each entry opens its commitment",
  inclusion: "Each commitment is in the log",
  consistency: "The log only grew since an earlier checkpoint",
  "device-keys": "The device's keys are registered on the ledger",
  signatures: "The device signed each package",
  chain: "No package is missing from the device's chain",
  senml: "Each reading is well formed, in Wh",
  tariff: "The tariff is the published one",
  slots: "Each half hour is counted once",
  lines: "Each line follows from readings and tariff",
  total: "The total is the sum, to the penny",
  "run-inclusion": "The bill belongs to the billing run on the ledger",
  statement: "Each balance follows from the one before",
  reservation: "Each change of the reservation was allowed",
  access: "Each access document is parking's, for this bay and lock",
  passages: "Entry and exit are what the lock signed",
  price: "The price follows from times and the published tariff",
  receipts: "What was taken is what was owed",
};

/** Hides a panel; something else is shown. */
export function forgetCheck(panel) {
  byId(panel).hidden = true;
}

/** Runs a check and shows each step in a panel: the card whose parts are named after it. */
export async function check(panel, title, who, path, button) {
  button.disabled = true;
  byId(panel).hidden = false;
  say(`${panel}-title`, title);
  byId(`${panel}-steps`).replaceChildren();
  byId(`${panel}-note`).replaceChildren();
  byId(`${panel}-result`).className = "muted";
  say(`${panel}-result`, "The verifier is reading the proof.");
  try {
    showAnswer(panel, await tell("POST", path, who, {}));
  } catch (error) {
    say(`${panel}-result`, "");
    put(`${panel}-note`, failed(error, () => check(panel, title, who, path, button)));
  } finally {
    button.disabled = false;
    byId(`${panel}-title`).focus();
  }
}

function showAnswer(panel, answer) {
  const good = answer.steps.filter((step) => step.ok).length;
  byId(`${panel}-result`).className = answer.ok ? "verdict good" : "verdict bad";
  say(`${panel}-result`, answer.ok ? `All ${good} steps hold.` : `${answer.steps.length - good} of ${answer.steps.length} steps fail.`);
  put(`${panel}-steps`, ...answer.steps.map(stepRow));
  put(`${panel}-note`,
    el("p", { class: "small muted" }, answer.caveat),
    el("pre", { tabindex: "0", "aria-label": "Command" }, el("code", {}, answer.command)));
}

function stepRow(step) {
  const mark = el("span", { class: step.ok ? "mark good" : "mark bad" }, step.ok ? "ok" : "FAIL");
  return el("li", {}, mark, el("div", {}, el("p", {}, NAMES[step.step] ?? step.step), el("p", { class: "muted small" }, step.detail)));
}
