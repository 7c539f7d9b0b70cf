// Finding a place: where, when, how long; then the advice with its reasons, and a button to reserve.

import { ask } from "./api.js";
import { cityNow, citySpeed } from "./clock.js";
import { byId, choices, doing, el, empty, failed, money, number, plural, put, rfc, say, when } from "./dom.js";
import { choose, onSpotChosen, places, showPin } from "./lots.js";
import { METHODS } from "./payments.js";
import { openReservations, permit, reserve } from "./reservation.js";

const QUARTER = 900;
const SPOT = "spot";
const ARRIVALS = [[0, "at once"], [3_600, "in 1 hour"], [7_200, "in 2 hours"], [21_600, "in 6 hours"], [43_200, "in 12 hours"], [64_800, "in 18 hours"]];
const STAYS = [[30, "30 minutes"], [60, "1 hour"], [120, "2 hours"], [240, "4 hours"], [480, "8 hours"], [720, "12 hours"]];
const WALKS = [[5, "5 minutes"], [10, "10 minutes"], [15, "15 minutes"], [30, "30 minutes"]];
/** City seconds a second above which nobody could press a button in time: the demo slows down then. */
const FAST = 60;
/** Seconds from pressing a button until the city acts on it: the first that is enough. City time may fly meanwhile. */
const LEADS_S = [1, 2, 4, 8];
const TOO_LATE = ["arrival_time", "from_time"];
const SHOWN = 3;
const ASKED = 10;

let who = null;
let spot = null;

/** Once the lots are known. */
export function openFind() {
  const rows = places().map((lot) => [lot.id, `near ${lot.name}`]);
  const kept = byId("find-place").value || rows[0][0];
  byId("find-place").replaceChildren(...choices([[SPOT, "the spot I choose on the map"], ...rows], kept));
  byId("find-place").onchange = placeChanged;
  byId("find").onsubmit = (event) => {
    event.preventDefault();
    find();
  };
  byId("lot-near").onclick = near;
  onSpotChosen(choseSpot);
  setDefaults();
  placeChanged();
}

function setDefaults() {
  byId("find-arrival").replaceChildren(...choices(ARRIVALS, 0));
  byId("find-stay").replaceChildren(...choices(STAYS, 120));
  byId("find-walk").replaceChildren(...choices(WALKS, 15));
}

/** With each event of the live stream. */
export function showSpeed() {
  say("find-speed", citySpeed() > FAST ? `City time runs ${number(citySpeed())} times as fast; it slows down while you park.` : "");
}

/** Whoever may reserve. */
export async function openPark(login) {
  who = login;
  byId("find-pay-field").hidden = false;
  byId("find-pay").replaceChildren(...choices(METHODS, METHODS[0][0]));
  await openReservations(who);
}

function near() {
  byId("find-place").value = byId("lot-card").dataset.lot;
  placeChanged();
  byId("find-place").focus();
}

function choseSpot(place) {
  spot = place;
  byId("find-place").value = SPOT;
  placeChanged();
}

const destination = () => {
  const value = byId("find-place").value;
  return value === SPOT ? spot : places().find((lot) => lot.id === value);
};

function placeChanged() {
  const place = destination();
  if (place) showPin(place);
}

/** Arrival and departure, whole quarters: at once means the quarter we are in, or the next we can still reach. */
function span(leadS, refused) {
  const lead = leadS * citySpeed();
  const wanted = Number(byId("find-arrival").value);
  const soonest = lead < QUARTER / 3 ? Math.floor(cityNow() / QUARTER) : Math.ceil((cityNow() + lead) / QUARTER);
  const from = Math.max(soonest * QUARTER + wanted, refused + QUARTER);
  return { from, to: from + Math.max(QUARTER, Number(byId("find-stay").value) * 60) };
}

/** Does something with the soonest span the city does not find too late; none that it refused is asked for again. */
async function soonest(action) {
  let refused = 0;
  for (const [place, lead] of LEADS_S.entries()) {
    const wanted = span(lead, refused);
    try {
      return await action(wanted);
    } catch (error) {
      if (error.status !== 400 || !TOO_LATE.includes(error.field) || place === LEADS_S.length - 1) throw error;
      refused = wanted.from;
    }
  }
  return undefined;
}

async function find() {
  const place = destination();
  if (!place) return put("advice", el("p", { class: "notice" }, "Choose a spot on the map first, or a car park from the list."));
  byId("find-button").disabled = true;
  try {
    await soonest(async ({ from, to }) => {
      const asked = new URLSearchParams({
        latitude_e7: place.latitude_e7, longitude_e7: place.longitude_e7, arrival: rfc(from), stay_minutes: (to - from) / 60,
        walk_minutes_max: byId("find-walk").value, count: ASKED,
      });
      showAdvice(chosenOf((await ask(`/api/v1/parking/advice?${asked}`)).advice), from, to);
    });
  } catch (error) {
    put("advice", failed(error, find));
  } finally {
    byId("find-button").disabled = false;
  }
  return undefined;
}

/** The best, and where none of them can be reserved, the best that can. */
function chosenOf(advice) {
  const best = advice.slice(0, SHOWN);
  const reservable = best.some((one) => one.reservable) ? null : advice.find((one) => one.reservable);
  return reservable ? [...best, reservable] : best;
}

function showAdvice(advice, from, to) {
  if (!advice.length) return put("advice", empty("No car park within that walk has a fair chance of a free bay then. Walk further, or come at another time."));
  const words = `Arriving ${when(from, "moment")}, leaving ${when(to, "moment")}`;
  return put("advice", el("p", { class: "small muted" }, words), el("ol", { class: "entries" }, ...advice.map(entry)));
}

function entry(one, index) {
  const name = el("button", { type: "button", class: "plain", onclick: () => choose(one.lot) }, one.name);
  const sure = el("span", { class: one.probability_milli < 700 ? "tag warn" : "tag good" }, `${Math.floor(one.probability_milli / 10)} % sure`);
  return el("li", { class: "advice" },
    el("div", { class: "split" }, el("h3", {}, name), sure),
    el("p", {}, `${money(one.price_minor, one.currency)} · ${plural(one.walk_minutes, "minute", "minutes")} on foot`),
    el("ul", { class: "reasons small muted" }, ...one.reasons.map((reason) => el("li", {}, reason))),
    action(one, index));
}

function action(one, index) {
  if (!one.reservable) return el("p", { class: "small muted" }, "No bay to reserve here: first come, first served.");
  if (!who) return el("p", { class: "small muted" }, "Sign in to reserve a bay.");
  return el("div", { class: "actions" }, doing("Reserve", () => take(one), { class: index ? "" : "primary" }));
}

/** The span is taken anew: with a fast clock the one of the advice is over. */
async function take(one) {
  choose(one.lot);
  const mandate = await permit(one, byId("find-pay").value);
  return soonest((wanted) => reserve(one.lot, wanted, mandate));
}
