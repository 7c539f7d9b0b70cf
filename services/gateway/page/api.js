// Calls to the gateway: sessions of the demo, problem details as errors, downloads, the live stream.

const sessions = new Map();

/** An error of the API; `message` is the problem's detail, `field` the first field at fault. */
export class Problem extends Error {
  constructor(status, detail, reason, field = "") {
    super(detail);
    this.status = status;
    this.reason = reason;
    this.field = field;
  }
}

async function problemOf(response) {
  const body = await response.json().catch(() => ({}));
  return new Problem(response.status, body.detail || `The city answered ${response.status}.`, body.reason || "", body.errors?.[0]?.field);
}

async function send(path, options) {
  const response = await fetch(path, options).catch(() => {
    throw new Problem(0, "The city cannot be reached. Is it still running?", "no-connection");
  });
  if (!response.ok) throw await problemOf(response);
  return response;
}

/** Keeps a token for as long as it lives, less a little. */
export function keep(who, token, seconds) {
  sessions.set(who, { token, until: Date.now() + (seconds - 20) * 1000 });
}

async function token(who) {
  const kept = sessions.get(who);
  if (kept && kept.until > Date.now()) return kept.token;
  if (!who.includes(":")) throw new Problem(401, "Your session has ended. Sign in again.", "session-ended");
  const response = await send("/demo/session", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ as: who }),
  });
  const session = await response.json();
  keep(who, session.access_token, session.expires_in_s);
  return session.access_token;
}

async function authorized(path, who, options = {}) {
  const headers = { ...options.headers };
  if (who) headers.Authorization = `Bearer ${await token(who)}`;
  return send(path, { ...options, headers });
}

/** JSON from a path; as `who` (a demo login), or as anyone when null. A token that no longer holds is renewed once. */
export async function ask(path, who = null, options = {}) {
  try {
    return await (await authorized(path, who, options)).json();
  } catch (error) {
    if (!who || error.status !== 401) throw error;
    sessions.delete(who);
    return (await authorized(path, who, options)).json();
  }
}

const newKey = () => crypto.randomUUID?.() ?? String(Math.random());

/** Sends JSON. */
export function tell(method, path, who, body, key = newKey()) {
  const headers = { "Content-Type": "application/json", "Idempotency-Key": key };
  return ask(path, who, { method, headers, body: JSON.stringify(body) });
}

const TRIES = 3;
const PAUSE_MS = 500;
const UNSURE = [0, 503, 504];

/** Does something once, however often it must be asked: a retry carries the same key. */
export async function act(path, who, body = {}) {
  const key = newKey();
  for (let round = 1; ; round += 1) {
    try {
      return await tell("POST", path, who, body, key);
    } catch (error) {
      if (round === TRIES || !UNSURE.includes(error.status)) throw error;
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
}

/** Every row of a paged list, at most 20 pages. */
export async function all(path, who, rows) {
  const found = [];
  let page = "";
  for (let count = 0; count < 20; count += 1) {
    const answer = await ask(`${path}?page_size=500&page_token=${encodeURIComponent(page)}`, who);
    found.push(...answer[rows]);
    page = answer.next_page_token;
    if (!page) break;
  }
  return found;
}

/** Fetches a file with the caller's token and hands it to the browser to save. */
export async function save(path, who, filename) {
  const content = await (await authorized(path, who)).blob();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = filename;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Watches the city; the browser connects again by itself, and after a refusal we do. */
export function watch(onCity, onLost) {
  const source = new EventSource("/api/v1/live");
  source.addEventListener("city", (event) => onCity(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    onLost();
    if (source.readyState === EventSource.CLOSED) setTimeout(() => watch(onCity, onLost), 3_000);
  });
}
