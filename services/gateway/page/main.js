// Starts the page: the city first, then, in a demo, the resident's and the operator's views; keeps them fresh.

import { watch } from "./api.js";
import { loadCity, loadLoad, loadNeighbourhood, loadStates, showLive, slotOf } from "./city.js";
import { loadFaults, loadQuarantine, loadRefusals, updateFaults } from "./control.js";
import { byId, empty, failed, put, say } from "./dom.js";
import { loadAccesses, loadBill, loadUsage, openHome, setNow } from "./home.js";

const RESIDENT = "resident:ada";
const OPERATOR = "staff:operator";
const FRESH_MS = 4_000;

const view = { city: null, map: false, home: false, control: false, live: null, busy: false, slot: 0, refreshed: 0, rounds: 0 };

async function start() {
  put("home-state", empty("Opening."));
  put("control-state", empty("Opening."));
  watch(onLive, onLost);
  await Promise.allSettled([openCity(), loadLoad()]);
}

async function openCity() {
  view.city = await loadCity();
  view.map = await loadNeighbourhood();
}

function onLive(live) {
  view.live = live;
  byId("connection").hidden = true;
  document.body.classList.remove("stale");
  showLive(live);
  if (live.replay) updateFaults(live.replay);
  refresh();
}

function onLost() {
  byId("connection").hidden = false;
  say("connection", "Connection lost. What you see is the last that was known; trying again.");
  document.body.classList.add("stale");
}

/** What changes with the slots: at most every 4 s, one round at a time. */
async function refresh() {
  if (view.busy || Date.now() - view.refreshed < FRESH_MS) return;
  view.busy = true;
  view.refreshed = Date.now();
  try {
    await round();
  } finally {
    view.busy = false;
  }
}

async function round() {
  if (!view.city || !view.map || !view.city.demo_logins.length) await openCity().catch(() => undefined);
  await Promise.allSettled([openControl(), openResident()]);
  const slot = slotOf(view.live);
  if (slot === view.slot) return;
  view.slot = slot;
  view.rounds += 1;
  await Promise.allSettled([loadLoad(), view.control && freshControl(), view.home && freshHome()]);
}

async function openControl() {
  if (view.control || !has(OPERATOR, "control-state", "staff with the operator's role")) return;
  try {
    await Promise.all([loadQuarantine(OPERATOR), loadRefusals(OPERATOR), loadFaults(OPERATOR), loadStates(OPERATOR)]);
    view.control = true;
    put("control-state");
    say("control-who", "as an operator sees it");
    byId("control-body").hidden = false;
  } catch (error) {
    put("control-state", failed(error, openControl));
  }
}

async function openResident() {
  if (view.home || !has(RESIDENT, "home-state", "residents")) return;
  try {
    view.home = await openHome(RESIDENT, view.live.city_time);
    put("home-state", ...(view.home ? [] : [empty("No contract yet: the city is still being set up.")]));
  } catch (error) {
    put("home-state", failed(error, openResident));
  }
}

/** Whether the demo has this login; says what to expect otherwise. */
function has(login, place, whom) {
  if (!view.city) return false;
  if (view.city.demo_logins.includes(login)) return true;
  put(place, empty(view.city.mode === "demo" ? "The city is still starting; this opens by itself." : `For ${whom}: the API at /openapi.json, after signing in.`));
  return false;
}

const freshControl = () => Promise.all([loadQuarantine(OPERATOR), loadRefusals(OPERATOR), loadStates(OPERATOR)]);

function freshHome() {
  setNow(view.live.city_time);
  const often = [loadUsage(), loadBill()];
  return Promise.all(view.rounds % 5 ? often : [...often, loadAccesses()]);
}

start();
