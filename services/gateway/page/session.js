// Signing in outside a demo: authorization code with PKCE (RFC 7636) at the city's own login page. The token stays in memory.

import { ask, keep, Problem } from "./api.js";

export const ME = "me";
const KEPT = "city-sign-in";

const text = (bytes) => btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const random = () => text(crypto.getRandomValues(new Uint8Array(32)));

/** Goes to the login page; it comes back to `/` with a code. */
export async function signIn() {
  const kept = { verifier: random(), state: random() };
  sessionStorage.setItem(KEPT, JSON.stringify(kept));
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(kept.verifier));
  const asked = new URLSearchParams({
    response_type: "code", client_id: "dashboard", redirect_uri: "/", scope: "openid", state: kept.state,
    code_challenge: text(new Uint8Array(digest)), code_challenge_method: "S256",
  });
  location.assign(`/oidc/authorize?${asked}`);
}

/** Back from the login page: exchanges the code. Gives the roles of whoever signed in, or none. */
export async function finishSignIn() {
  const back = new URLSearchParams(location.search);
  const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
  sessionStorage.removeItem(KEPT);
  if (!back.has("code")) return [];
  history.replaceState(null, "", "/");
  if (!kept || kept.state !== back.get("state")) return [];
  await exchange(back.get("code"), kept.verifier);
  return (await ask("/api/v1/me", ME)).roles;
}

async function exchange(code, verifier) {
  const form = new URLSearchParams({ grant_type: "authorization_code", client_id: "dashboard", redirect_uri: "/", code, code_verifier: verifier });
  const response = await fetch("/oidc/token", { method: "POST", body: form });
  const answer = await response.json();
  if (!response.ok) throw new Problem(response.status, answer.error_description || answer.detail, answer.error);
  keep(ME, answer.access_token, answer.expires_in);
}
