// Starts the page: the city first, then, in a demo, the resident's and the operator's views; keeps them fresh.

import { watch } from "./api.js";
import { setClock } from "./clock.js";
import { loadCity, loadLoad, loadNeighbourhood, loadStates, showLive, slotOf } from "./city.js";
import { loadFaults, loadQuarantine, loadRefusals, updateFaults } from "./control.js";
import { byId, empty, failed, put, say, seconds } from "./dom.js";
import { loadAccesses, loadBill, loadUsage, openHome, setNow } from "./home.js";
import { loadCalibration, loadLots, setOperator, showParking } from "./lots.js";
import { openFind, openPark, showSpeed } from "./park.js";
import { loadPayments } from "./payments.js";
import { followReservation } from "./reservation.js";
import { finishSignIn, ME, signIn } from "./session.js";

const DEMO = { resident: "resident:ada", operator: "staff:operator" };
const WAITING = { resident: "Sign in to see your usage, your bills and their proofs.", operator: "For operators, after signing in." };
const FRESH_MS = 4_000;

const view = { city: null, map: false, who: {}, home: false, control: false, parking: false, park: false, live: null, busy: false, slot: 0, refreshed: 0, rounds: 0 };

async function start() {
  put("home-state", empty("Opening."));
  put("control-state", empty("Opening."));
  byId("sign-in").onclick = signIn;
  await finishSignIn().then(signedIn).catch((error) => { WAITING.resident = error.message; });
  watch(onLive, onLost);
  await Promise.allSettled([openCity(), loadLoad()]);
}

function signedIn(roles) {
  if (roles.includes("resident")) view.who.resident = ME;
  if (roles.includes("operator")) view.who.operator = ME;
}

async function openCity() {
  view.city = await loadCity();
  for (const [role, login] of Object.entries(DEMO)) if (view.city.demo_logins.includes(login)) view.who[role] ??= login;
  byId("sign-in").hidden = view.city.mode === "demo" || Object.values(view.who).includes(ME);
  view.map = await loadNeighbourhood();
}

function onLive(live) {
  view.live = live;
  byId("connection").hidden = true;
  document.body.classList.remove("stale");
  setClock(seconds(live.city_time), live.replay?.speed || 1);
  showLive(live);
  showParking(live);
  showSpeed();
  followReservation();
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
  const waiting = view.city?.mode === "demo" && !(view.map && view.city.demo_logins.length);
  if (!view.city || waiting) await openCity().catch(() => undefined);
  await Promise.allSettled([openControl(), openResident(), openParking()]);
  const slot = slotOf(view.live);
  if (slot === view.slot) return;
  view.slot = slot;
  view.rounds += 1;
  await Promise.allSettled([loadLoad(), view.control && freshControl(), view.home && freshHome(), view.parking && loadLots(view.live.city_time), view.parking && loadCalibration()]);
}

/** Car parks for everyone; for a resident, who may reserve, a little more. A city without any has no such section. */
async function openParking() {
  if (!view.city) return;
  try {
    if (!view.parking && !(view.parking = await loadLots(view.live.city_time))) return put("parking-state", empty("No car parks yet: the city is still being set up."));
    if (view.who.operator) setOperator(view.who.operator);
    if (byId("parking-body").hidden) showCarParks();
    if (view.who.resident && !view.park) {
      await openPark(view.who.resident);
      view.park = true;
    }
  } catch (error) {
    if (error.reason === "service-absent") byId("parking").hidden = byId("nav-parking").hidden = true;
    else put("parking-state", failed(error, openParking));
  }
}

function showCarParks() {
  put("parking-state");
  byId("parking-body").hidden = false;
  if (view.city.mode === "demo") say("lots-note", "Choose a lot to see it, or a spot to walk to. Positions are simulated: the source has none.");
  openFind();
  return loadCalibration().catch(() => undefined);
}

async function openControl() {
  if (view.control || !known("operator", "control-state")) return;
  try {
    await Promise.all([loadQuarantine(view.who.operator), loadRefusals(view.who.operator), loadFaults(view.who.operator), loadStates(view.who.operator)]);
    view.control = true;
    put("control-state");
    say("control-who", "as an operator sees it");
    byId("control-body").hidden = false;
  } catch (error) {
    put("control-state", failed(error, openControl));
  }
}

async function openResident() {
  if (view.home || !known("resident", "home-state")) return;
  try {
    view.home = await openHome(view.who.resident, view.live.city_time);
    put("home-state", ...(view.home ? [] : [empty("No contract yet: the city is still being set up.")]));
  } catch (error) {
    put("home-state", failed(error, openResident));
  }
}

/** Whether somebody with this role is here; says what to expect otherwise. */
function known(role, place) {
  if (!view.city || view.who[role]) return Boolean(view.city);
  put(place, empty(view.city.mode === "demo" ? "The city is still starting; this opens by itself." : WAITING[role]));
  return false;
}

const freshControl = () => Promise.all([loadQuarantine(view.who.operator), loadRefusals(view.who.operator), loadStates(view.who.operator)]);

function freshHome() {
  setNow(view.live.city_time);
  const often = [loadUsage(), loadBill(), loadPayments()];
  return Promise.all(view.rounds % 5 ? often : [...often, loadAccesses()]);
}

start();
