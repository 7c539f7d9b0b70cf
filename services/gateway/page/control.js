// The control room: quarantine and faults, as an operator.

import { all, ask, tell } from "./api.js";
import { byId, el, empty, failed, number, plural, put, scrolling, when } from "./dom.js";

const FAULTS = {
  forged: "Packages with a signature that does not hold",
  replayed: "Old packages sent again",
  reordered: "Packages that arrive in the wrong order",
  missing: "Packages that never arrive",
  stuck: "A sensor that repeats one value",
  drift: "A sensor that slowly reads too much",
  spike: "A sensor with single impossible values",
  skew: "A device whose clock is wrong",
  flood: "One device that sends far too much",
  "sensor-stuck": "A car park's sensor that repeats one count",
  "sensor-silent": "A car park's sensor that sends nothing",
  "event-unannounced": "Cars for something that stands in no calendar",
  "lock-offline": "A lock that nobody reaches; it decides by itself",
  "provider-down": "The payment provider does not answer",
};

/** Whether these rows are shown already, so that nothing moves under a reader. */
function same(id, entries) {
  const rows = JSON.stringify(entries);
  const unchanged = byId(id).dataset.rows === rows;
  byId(id).dataset.rows = rows;
  return unchanged;
}

/** The devices whose readings are set aside. */
export async function loadQuarantine(who) {
  try {
    const entries = await all("/api/v1/quarantine", who, "entries");
    if (same("quarantine", entries)) return;
    put("quarantine", entries.length ? scrolling("Quarantine", el("ul", { class: "entries" }, ...entries.map(entry))) : empty("Nothing is set aside: every reading so far is believable."));
  } catch (error) {
    delete byId("quarantine").dataset.rows;
    put("quarantine", failed(error, () => loadQuarantine(who)));
  }
}

/** Explanations name slots in unix seconds, which are the same for everyone; here they become local times. */
const localTimes = (text) => text.replace(/\b1\d{9}\b/g, (time) => when(Number(time), "moment"));

function entry(item) {
  const state = el("span", { class: item.open ? "tag warn" : "tag" }, item.open ? "device held" : "readings held");
  return el("li", {},
    el("div", { class: "split" }, el("h3", {}, item.meter_point, " ", el("span", { class: "muted small" }, item.device)), state),
    el("p", {}, el("b", {}, item.reason), item.explanation ? `: ${localTimes(item.explanation)}` : ""),
    el("p", { class: "muted small" }, `since ${item.since ? when(item.since, "moment") : "–"} · ${plural(item.readings, "reading", "readings")} set aside`));
}

/** Packages that were refused, by reason and device. */
export async function loadRefusals(who) {
  try {
    const { entries } = await ask("/api/v1/refusals", who);
    if (same("refusals", entries)) return;
    const rows = entries.map((item) => el("tr", {},
      el("th", { scope: "row" }, el("b", {}, item.reason), el("span", { class: "muted small" }, item.message)),
      el("td", {}, item.device || "device not proven"),
      el("td", {}, number(item.count))));
    const names = ["Reason", "Device", "Packages"].map((name) => el("th", { scope: "col" }, name));
    put("refusals", rows.length
      ? scrolling("Refused packages", el("table", { class: "lines" }, el("thead", {}, el("tr", {}, ...names)), el("tbody", {}, ...rows)))
      : empty("None so far."));
  } catch (error) {
    delete byId("refusals").dataset.rows;
    put("refusals", failed(error, () => loadRefusals(who)));
  }
}

/** The switches, and what each fault acts on now. */
export async function loadFaults(who) {
  try {
    showFaults(who, await ask("/api/v1/replay"));
  } catch (error) {
    put("faults", error.status === 404 ? empty("Faults are there in a demo only.") : failed(error, () => loadFaults(who)));
  }
}

/** From the live stream: what is on, and where. */
export function updateFaults(replay) {
  for (const box of byId("faults").querySelectorAll("input")) {
    if (!box.disabled) box.checked = replay.faults.includes(box.value);
    const devices = replay.faulted_devices.filter((item) => item.startsWith(`${box.value}:`)).map((item) => item.slice(box.value.length + 1));
    const text = devices.length ? `acts on ${devices.join(", ")}` : "";
    const note = box.closest("label").querySelector(".acts");
    if (note.textContent !== text) note.textContent = text;
  }
}

function showFaults(who, replay) {
  const switches = replay.faults_available.map((fault) => {
    const box = el("input", { type: "checkbox", role: "switch", value: fault, onchange: () => change(who, box) });
    const about = el("span", {}, el("b", {}, fault), el("span", { class: "muted small" }, FAULTS[fault] ?? ""), el("span", { class: "acts small" }));
    return el("label", { class: "switch" }, box, about);
  });
  put("faults", ...(switches.length ? switches : [empty("This city has no faults to switch on.")]), el("p", { id: "faults-error", role: "alert" }));
  updateFaults(replay);
}

async function change(who, box) {
  const boxes = [...byId("faults").querySelectorAll("input")];
  const wanted = boxes.filter((item) => item.checked).map((item) => item.value);
  box.disabled = true;
  try {
    await tell("PUT", "/api/v1/faults", who, { faults: wanted });
    byId("faults-error").replaceChildren();
  } catch (error) {
    box.checked = !box.checked;
    byId("faults-error").replaceChildren(failed(error));
  } finally {
    box.disabled = false;
    box.focus();
  }
}
