// "Check this": the verifier's steps about a bill, and how to run it oneself.

import { tell } from "./api.js";
import { byId, el, failed, put, say } from "./dom.js";

const NAMES = {
  "bundle-format": "The bundle is well formed",
  trust: "The trust file is well formed",
  "checkpoint-signature": "The log's checkpoint is signed by the log's key",
  "anchor-endorsement": "The anchor is endorsed on the ledger",
  "anchor-block": "The anchor's block is signed and holds it",
  "anchor-matches": "The anchored root is the checkpoint's root",
  commitments: "Each package opens its commitment",
  inclusion: "Each commitment is in the log",
  consistency: "The log only grew since an earlier checkpoint",
  "device-keys": "The meter's keys are registered on the ledger",
  signatures: "The meter signed each package",
  chain: "No package is missing from the meter's chain",
  senml: "Each reading is well formed, in Wh",
  tariff: "The tariff is the published one",
  slots: "Each half hour is counted once",
  lines: "Each line follows from readings and tariff",
  total: "The total is the sum, to the penny",
  "run-inclusion": "The bill belongs to the billing run on the ledger",
};

/** Clears the panel; another bill is shown. */
export function forgetCheck() {
  byId("check").hidden = true;
}

/** Runs the check and shows each step. */
export async function checkBill(who, bill) {
  const button = byId("check-button");
  button.disabled = true;
  byId("check").hidden = false;
  byId("check-steps").replaceChildren();
  byId("check-note").replaceChildren();
  byId("check-result").className = "muted";
  say("check-result", "The verifier is reading the proof.");
  try {
    const answer = await tell("POST", `/api/v1/bills/${encodeURIComponent(bill.id)}/check`, who, {});
    showAnswer(answer);
  } catch (error) {
    say("check-result", "");
    put("check-note", failed(error, () => checkBill(who, bill)));
  } finally {
    button.disabled = false;
    byId("check-title").focus();
  }
}

function showAnswer(answer) {
  const good = answer.steps.filter((step) => step.ok).length;
  byId("check-result").className = answer.ok ? "verdict good" : "verdict bad";
  say("check-result", answer.ok ? `All ${good} steps hold.` : `${answer.steps.length - good} of ${answer.steps.length} steps fail.`);
  put("check-steps", ...answer.steps.map(stepRow));
  put("check-note",
    el("p", { class: "small muted" }, answer.caveat),
    el("pre", { tabindex: "0", "aria-label": "Command" }, el("code", {}, answer.command)));
}

function stepRow(step) {
  const mark = el("span", { class: step.ok ? "mark good" : "mark bad" }, step.ok ? "ok" : "FAIL");
  return el("li", {}, mark, el("div", {}, el("p", {}, NAMES[step.step] ?? step.step), el("p", { class: "muted small" }, step.detail)));
}
