/**
 * The HTTP side of a call: what the server says of itself, a short-lived key, and the answer to an offer.
 *
 * A key that somebody types is sent once, to be exchanged for a short-lived one, and forgotten; that one is held in memory
 * alone. Paths are relative to the page, so that a server mounted below a path works as well.
 */

/** @typedef {{version: string, needs_key: boolean, webrtc: boolean, models: string[], model: string,
 *   voices: string[], prices: import("./usage.js").Prices}} Facts */
/** @typedef {{value: string, expiresAtMs: number}} ShortKey */

/** How long the short-lived key may serve for reconnections; the longest that the API allows. */
const TTL_S = 7200;
/** A request that is not answered by then has failed. */
const REQUEST_MS_MAX = 20_000;

/** What the server has refused, in its own words. */
export class Refused extends Error {
  /** @param {number} status @param {any} body */
  constructor(status, body) {
    super(body?.error?.message ?? `The server answered with status ${status}.`);
    this.status = status;
    /** @type {string} */
    this.code = body?.error?.code ?? "";
    /** @type {string} */
    this.param = body?.error?.param ?? "";
  }
}

/** Nobody answered. */
export class Unreachable extends Error {}

/** @param {string} [key] @returns {Promise<Facts>} */
export async function facts(key) {
  return (await ask("console/facts.json", { headers: key ? { Authorization: `Bearer ${key}` } : {} })).json();
}

/** @param {string} key empty where the server wants none @param {string} model @returns {Promise<ShortKey>} */
export async function mint(key, model) {
  const body = {
    expires_after: { anchor: "created_at", seconds: TTL_S },
    session: { type: "realtime", ...(model ? { model } : {}) },
  };
  const headers = { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  const answer = await ask("v1/realtime/client_secrets", { method: "POST", headers, body: JSON.stringify(body) });
  const { value, expires_at } = await answer.json();
  return { value, expiresAtMs: expires_at * 1000 };
}

/** Answer to an offer, and the id of the call. @param {string} shortKey @param {string} sdp */
export async function call(shortKey, sdp) {
  const headers = {
    Authorization: `Bearer ${shortKey}`,
    "Content-Type": "application/sdp",
    Accept: "application/sdp",
    "vivavoce-waterfall": "1", // every response says where its time went
  };
  const answer = await ask("v1/realtime/calls", { method: "POST", headers, body: sdp });
  const id = (answer.headers.get("Location") ?? "").split("/").pop() ?? "";
  return { sdp: await answer.text(), id };
}

/** What is running now. @param {string} [key] @returns {Promise<any>} */
export async function sessions(key) {
  return (await ask("v1/realtime/sessions", { headers: key ? { Authorization: `Bearer ${key}` } : {} })).json();
}

/** @param {string} path @param {RequestInit} options @returns {Promise<Response>} */
async function ask(path, options) {
  let answer;
  try {
    const signal = AbortSignal.timeout(REQUEST_MS_MAX);
    answer = await fetch(new URL(path, document.baseURI), { ...options, signal, cache: "no-store" });
  } catch {
    throw new Unreachable("The server does not answer.");
  }
  if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => null));
  return answer;
}
