// Elements, numbers and times as the page shows them. Used by every other module.

const SVG = "http://www.w3.org/2000/svg";

/** An element: attributes by name (on* are listeners), then children (nodes or text). */
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for SVG. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export const byId = (id) => document.getElementById(id);

/** Sets text only when it changed, so that screen readers and selections are left alone. */
export function say(id, text) {
  const node = byId(id);
  if (node.textContent !== text) node.textContent = text;
}

/** Replaces the children of an element. */
export function put(id, ...children) {
  byId(id).replaceChildren(...children.filter((child) => child !== null && child !== ""));
}

export const number = (value) => new Intl.NumberFormat("en-GB").format(value);

/** Wh as kWh with two digits. */
export const kwh = (wh) => `${(wh / 1000).toLocaleString("en-GB", { minimumFractionDigits: 2, maximumFractionDigits: 2 })} kWh`;

/** Minor units of a currency as people write it. */
export const money = (minor, currency) =>
  new Intl.NumberFormat("en-GB", { style: "currency", currency }).format(minor / 100);

let zone = "UTC";
let formats = {};

/** The city's time zone; every time on the page is local to it. */
export function setZone(name) {
  zone = name;
  formats = {};
}

const STYLES = {
  clock: { weekday: "short", day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" },
  moment: { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" },
  day: { weekday: "short", day: "numeric", month: "short" },
  date: { day: "numeric", month: "short", year: "numeric" },
  hour: { hour: "2-digit", minute: "2-digit" },
};

/** A time (unix seconds, Date or RFC 3339 text) in one of the styles above. */
export function when(time, style) {
  formats[style] ??= new Intl.DateTimeFormat("en-GB", { ...STYLES[style], timeZone: zone, hourCycle: "h23" });
  return formats[style].format(typeof time === "number" ? time * 1000 : new Date(time));
}

const DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/** Weekday (Monday is 0) and minute of the local day. */
export function localMinute(time) {
  formats.minute ??= new Intl.DateTimeFormat("en-GB", { weekday: "short", hour: "2-digit", minute: "2-digit", timeZone: zone, hourCycle: "h23" });
  const part = Object.fromEntries(formats.minute.formatToParts(time * 1000).map(({ type, value }) => [type, value]));
  return { weekday: DAYS.indexOf(part.weekday), minute: Number(part.hour) * 60 + Number(part.minute) };
}

/** A local date (2016-10-04) without a zone. */
export function plainDate(text) {
  return new Intl.DateTimeFormat("en-GB", { ...STYLES.date, timeZone: "UTC" }).format(new Date(`${text}T00:00:00Z`));
}

/** Local time of a chart mark at every `hours` full hours, else nothing. */
export function everyHours(time, hours) {
  const text = when(time, "hour");
  return text.endsWith(":00") && Number(text.slice(0, 2)) % hours === 0 ? text : "";
}

/** A list that may grow long: it scrolls by itself and by keyboard. */
export const scrolling = (name, list) => el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": name }, list);

/** Unix seconds as RFC 3339. */
export const rfc = (time) => new Date(time * 1000).toISOString().replace(".000", "");
export const seconds = (text) => Math.floor(Date.parse(text) / 1000);
export const plural = (count, one, many) => `${number(count)} ${count === 1 ? one : many}`;
export const short = (hash) => `${hash.slice(0, 8)}…`;

/** What went wrong, in words, with a way on. */
export function failed(error, retry) {
  const button = retry && el("button", { type: "button", onclick: retry }, "Try again");
  return el("div", { class: "notice bad" }, el("p", {}, error.message || "That did not work."), button);
}

export const empty = (text) => el("p", { class: "muted empty" }, text);

/** A button that does something once at a time and says in words what went wrong. */
export function doing(name, action, attributes = {}) {
  const note = el("span", { class: "small wrong", role: "alert" });
  const button = el("button", { type: "button", ...attributes, onclick: async () => {
    note.textContent = "";
    button.disabled = true;
    try {
      await action();
    } catch (error) {
      note.textContent = error.message;
    } finally {
      button.disabled = false;
    }
  } }, name);
  return el("span", { class: "save" }, button, note);
}

/** A choice of [value, words]. */
export const choices = (rows, chosen) => rows.map(([value, words]) => el("option", { value, selected: value === chosen }, words));
