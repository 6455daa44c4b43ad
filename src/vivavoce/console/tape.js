/**
 * The session as a tape: a file of JSON lines that `vivavoce tape` reads, made in the browser and saved from there.
 *
 * The first line is the header; then one line a message, `{t_ms, dir, event}`, or a note, `{t_ms, note, …}`. Over WebRTC
 * sound is no message, so both sound tracks are written as the messages that they would be on a WebSocket. Invariant: a
 * line holds no secret, whatever was sent; at its limit the tape ends with the note `full`.
 */

const VERSION = 1;
/** Size of a tape, about half an hour with sound. */
export const CHARS_MAX = 256 * 1024 * 1024;
const REDACTED = "[redacted]";
const SECRET_FIELDS = new Set([
  "authorization", "api_key", "api-key", "apikey", "x-api-key", "access_token", "client_secret", "password", "headers",
]);
const SECRETS = /(?<![A-Za-z0-9])(sk-|ek_)[\w-]{8,}|(\bbearer\s+)[\w.~+/=-]{8,}|(:\/\/)[^/\s@"]+(?=@)/gi;

export class Tape {
  /** @type {string[]} */
  #lines = [];
  #chars = 0;
  #beganMs = 0;
  #isFull = false;

  /** How many lines there are, and about how many bytes. */
  get size() {
    return { lines: this.#lines.length, bytes: this.#chars };
  }

  /** @param {{url: string, model: string | null, version: string}} of @param {number} now on the page's clock */
  begin({ url, model, version }, now) {
    this.#lines = [];
    this.#chars = 0;
    this.#isFull = false;
    this.#beganMs = now;
    const header = { tape: VERSION, end: "client", dialect: "ga", url, model, began: new Date().toISOString() };
    this.#put({ ...header, vivavoce: version, redacted: [] });
  }

  /** @param {"client" | "server"} dir @param {unknown} event @param {number} now */
  message(dir, event, now) {
    this.#at(now, { dir, event: withoutSecrets(event) });
  }

  /** @param {string} note @param {object} fields @param {number} now */
  note(note, fields, now) {
    this.#at(now, { note, .../** @type {object} */ (withoutSecrets(fields)) });
  }

  /** The file. */
  blob() {
    return new Blob(this.#lines, { type: "application/x-ndjson" });
  }

  /** @param {number} now @param {object} fields */
  #at(now, fields) {
    if (this.#isFull || this.#lines.length === 0) return;
    const t_ms = Math.round((now - this.#beganMs) * 1000) / 1000;
    this.#isFull = this.#chars > CHARS_MAX;
    this.#put(this.#isFull ? { t_ms, note: "full" } : { t_ms, ...fields });
  }

  /** @param {object} line */
  #put(line) {
    const text = JSON.stringify(line) + "\n";
    this.#lines.push(text);
    this.#chars += text.length;
  }
}

/** @param {unknown} value @returns {unknown} */
export function withoutSecrets(value) {
  if (typeof value === "string") {
    // Sound and pictures are long, and hold none.
    if (value.length > 4096 && !/\s/.test(value)) return value;
    return value.replace(SECRETS, (_, kind, bearer, scheme) => (kind ?? bearer ?? scheme) + REDACTED);
  }
  if (Array.isArray(value)) return value.map(withoutSecrets);
  if (typeof value !== "object" || value === null) return value;
  const pairs = Object.entries(value).map(([name, inner]) => {
    const isSecret = SECRET_FIELDS.has(name.toLowerCase()) && !isSchema(inner);
    return [name, isSecret ? emptied(inner) : withoutSecrets(inner)];
  });
  return Object.fromEntries(pairs);
}

/** Whether it only describes a parameter, which may be called as secrets are. @param {any} value */
function isSchema(value) {
  return typeof value === "object" && value !== null && ("properties" in value || typeof value.type === "string");
}

/** @param {unknown} value @returns {unknown} */
function emptied(value) {
  if (Array.isArray(value)) return value.map(emptied);
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, emptied(inner)]));
  }
  return typeof value === "string" && value ? REDACTED : value;
}
