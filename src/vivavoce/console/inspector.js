/**
 * Every message of the call, both ways: filtered, paused, copied, and raw where a row is opened.
 *
 * Messages are kept up to a limit, the oldest go first; fewer are rows of the page at once. Pausing stops the list, not
 * the recording: what came meanwhile appears afterwards.
 */

import { byId, copy, grouped, h } from "./dom.js";

/** @typedef {import("./wire.js").Message & {number: number}} Kept */

export const MESSAGES_MAX = 5000;
/** Likewise in characters: a message may hold a picture. */
export const CHARS_MAX = 32 * 1024 * 1024;
const ROWS_MAX = 400;
/** Longer messages are shown in part; copying gives them whole. */
const SHOWN_CHARS_MAX = 100_000;
const DELTA = /\.delta$/;

export class Inspector {
  /** @type {Kept[]} */
  #kept = [];
  #chars = 0;
  #count = 0;
  #beganMs = 0;
  #isPaused = false;
  #isDirty = false;
  #list = byId("events");
  #filter = byId("events-filter");
  #dir = byId("events-dir");
  #deltas = byId("events-deltas");
  #pause = byId("events-pause");

  constructor() {
    for (const input of [this.#filter, this.#dir, this.#deltas]) input.addEventListener("input", () => this.#rewrite());
    this.#pause.addEventListener("click", () => this.#toggle());
    byId("events-clear").addEventListener("click", () => this.clear());
    byId("events-copy").addEventListener("click", (/** @type {MouseEvent} */ event) => {
      const lines = this.#kept.filter((kept) => this.#fits(kept)).map((kept) => kept.text);
      copy(lines.join("\n"), /** @type {HTMLElement} */ (event.currentTarget));
    });
  }

  /** @param {import("./wire.js").Message} message */
  add(message) {
    if (this.#count === 0) this.#beganMs = message.now;
    const kept = { ...message, number: ++this.#count };
    this.#kept.push(kept);
    this.#chars += kept.text.length + 1;
    while (this.#kept.length > MESSAGES_MAX || this.#chars > CHARS_MAX) this.#forgetOne();
    this.#later(kept);
  }

  /** The list is looked at: at its end, where the news are. */
  shown() {
    const panel = byId("panel-events");
    panel.scrollTop = panel.scrollHeight;
  }

  clear() {
    this.#kept = [];
    this.#chars = 0;
    this.#count = 0;
    this.#rewrite();
  }

  #forgetOne() {
    this.#chars -= (this.#kept.shift()?.text.length ?? 0) + 1;
  }

  /** Rows are added once for each frame, however many messages came. @param {Kept} kept */
  #later(kept) {
    if (this.#isPaused) return this.#told();
    if (this.#fits(kept)) {
      const isAtEnd = this.#isAtEnd();
      this.#list.append(this.#row(kept));
      while (this.#list.childElementCount > ROWS_MAX) this.#list.firstElementChild.remove();
      if (isAtEnd && !this.#isDirty) {
        this.#isDirty = true;
        requestAnimationFrame(() => {
          this.#isDirty = false;
          this.shown();
        });
      }
    }
    this.#told();
  }

  #isAtEnd() {
    const panel = byId("panel-events");
    return panel.scrollHeight - panel.scrollTop - panel.clientHeight < 40;
  }

  #toggle() {
    this.#isPaused = !this.#isPaused;
    this.#pause.setAttribute("aria-pressed", String(this.#isPaused));
    this.#pause.textContent = this.#isPaused ? "Go on" : "Pause";
    if (!this.#isPaused) this.#rewrite();
  }

  #rewrite() {
    const fitting = this.#kept.filter((kept) => this.#fits(kept)).slice(-ROWS_MAX);
    this.#list.replaceChildren(...fitting.map((kept) => this.#row(kept)));
    this.#told();
  }

  #told() {
    byId("events-count").textContent = this.#isPaused ? `${grouped(this.#count)}, paused` : grouped(this.#count);
    byId("events-nothing").hidden = this.#count > 0;
  }

  /** @param {Kept} kept */
  #fits({ dir, event, text }) {
    if (this.#dir.value && this.#dir.value !== dir) return false;
    if (!this.#deltas.checked && DELTA.test(event.type)) return false;
    const wanted = this.#filter.value.trim().toLowerCase();
    return !wanted || text.toLowerCase().includes(wanted);
  }

  /** @param {Kept} kept */
  #row(kept) {
    const { dir, event, now } = kept;
    const isSent = dir === "client";
    const summary = h(
      "summary",
      { class: `${isSent ? "sent" : "received"}${event.type === "error" ? " bad" : ""}` },
      h("time", {}, ((now - this.#beganMs) / 1000).toFixed(2)),
      h("span", { class: "arrow", role: "img", "aria-label": isSent ? "sent" : "received" }, isSent ? "↑" : "↓"),
      h("span", {}, h("b", {}, event.type ?? "(no type)"), " ", h("em", {}, gist(event))),
    );
    const details = h("details", {}, summary);
    details.addEventListener("toggle", () => details.open && details.childElementCount === 1 && details.append(raw(kept)));
    return h("li", { "data-type": event.type, "data-dir": dir }, details);
  }
}

/** @param {Kept} kept */
function raw({ event, text }) {
  const pretty = JSON.stringify(event, null, 2);
  const shown = pretty.length > SHOWN_CHARS_MAX ? `${pretty.slice(0, SHOWN_CHARS_MAX)}\n…` : pretty;
  const button = h("button", { type: "button", class: "text", "aria-label": "Copy this message" }, "Copy");
  button.addEventListener("click", () => copy(text, button));
  return h("div", { class: "raw" }, button, h("pre", { tabindex: 0 }, shown));
}

/** The one thing about an event that one wants to know. @param {any} event */
function gist(event) {
  const found =
    event.delta ??
    event.transcript ??
    event.error?.message ??
    (event.response && [event.response.status, event.response.status_details?.reason].filter(Boolean).join(", ")) ??
    (event.audio_end_ms !== undefined ? `${event.audio_end_ms} ms` : undefined) ??
    (event.item && [event.item.type, event.item.role, event.item.name].filter(Boolean).join(", "));
  return typeof found === "string" ? (found.length > 80 ? `${found.slice(0, 80)}…` : found) : "";
}
