/**
 * The conversation on the page: one list item for each entry, rewritten where the entry changes.
 *
 * The list itself is no live region, since every token would be read out; what is complete goes to the announcer instead.
 */

import { byId, duration, h, say } from "./dom.js";

/** @typedef {import("./conversation.js").Entry} Entry */

/** JSON that is no longer stands in one line. */
const LINE_CHARS_MAX = 72;
/** So near to the end of the list, it follows what is said. */
const NEAR_PX = 120;

export class Transcript {
  #list = byId("conversation");
  #scroll = byId("scroll");
  #latest = byId("latest");
  #empty = byId("empty");
  /** @type {Map<string, HTMLLIElement>} */
  #shown = new Map();
  /** @type {Set<string>} */
  #announced = new Set();
  #follows = true;

  /**
   * @param {import("./conversation.js").Conversation} conversation
   * @param {{answer: (entry: Entry, output: string) => boolean, approve: (entry: Entry, approve: boolean) => void,
   *   lastAnswer: (name: string) => string}} calls
   */
  constructor(conversation, calls) {
    this.conversation = conversation;
    this.calls = calls;
    conversation.changes.listen((change) => this.#take(change));
    this.#scroll.addEventListener("scroll", () => {
      const left = this.#scroll.scrollHeight - this.#scroll.scrollTop - this.#scroll.clientHeight;
      this.#follows = left < NEAR_PX;
      this.#latest.hidden = this.#follows;
    });
    this.#latest.addEventListener("click", () => this.#toEnd(true));
    new ResizeObserver(() => this.#toEnd(false)).observe(this.#scroll);
  }

  /** @param {string} text */
  announce(text) {
    say(byId("announcer"), text);
  }

  /** @param {import("./conversation.js").Change} change */
  #take({ entry, what }) {
    if (what === "removed") {
      this.#shown.get(entry.id)?.remove();
      this.#shown.delete(entry.id);
    } else {
      const before = this.#shown.get(entry.id);
      const item = before ?? h("li", { "data-id": entry.id, "data-kind": entry.kind });
      if (!before) this.#shown.set(entry.id, item);
      if (what !== "changed" || !before) {
        const next = this.conversation.entries[this.conversation.entries.indexOf(entry) + 1];
        this.#list.insertBefore(item, (next && this.#shown.get(next.id)) ?? null);
      }
      this.#write(item, entry);
    }
    this.#empty.hidden = this.conversation.entries.length > 0;
    this.#toEnd(false);
  }

  /** @param {boolean} anyway */
  #toEnd(anyway) {
    if (!anyway && !this.#follows) return;
    this.#scroll.scrollTop = this.#scroll.scrollHeight;
  }

  /** @param {HTMLLIElement} item @param {Entry} entry */
  #write(item, entry) {
    item.className = `entry ${entry.kind} ${entry.who} ${entry.status}`;
    if (!item.firstChild) item.append(who(entry), h("div"));
    const body = /** @type {HTMLElement} */ (item.lastChild);
    if (entry.kind === "call") this.#call(body, entry);
    else if (entry.kind === "approval") this.#approval(body, entry);
    else if (entry.kind === "note") body.replaceChildren(h("p", { class: entry.status === "failed" ? "problem" : "aside" }, entry.text));
    else body.replaceChildren(...said(entry));
    this.#tell(entry);
  }

  /** Read out what is complete, once. @param {Entry} entry */
  #tell(entry) {
    const key = `${entry.id}/${entry.status}`;
    if (entry.status === "live" || this.#announced.has(key)) return;
    this.#announced.add(key);
    if (entry.kind === "said" && entry.status === "cut") this.announce(`Cut off after ${duration(entry.heard?.ms ?? 0)}.`);
    else if (entry.kind === "said" && entry.text) this.announce(`${entry.who === "user" ? "You" : "Voice"}: ${entry.text}`);
    else if (entry.kind === "call" && entry.output === null && !entry.server) this.announce(`${entry.name} waits for your answer.`);
    else if (entry.kind === "note") this.announce(entry.text);
  }

  /** @param {HTMLElement} body @param {Entry} entry */
  #call(body, entry) {
    const asks = entry.status === "done" && entry.output === null && !entry.server;
    // What the user is writing must not be written over.
    if (asks && body.querySelector("form")) return;
    const state = STATES.find(([fits]) => fits(entry))?.[1] ?? "";
    const card = h(
      "div",
      { class: asks ? "card asks" : "card", "data-test": "call" },
      h("header", {}, h("code", {}, entry.server ? `${entry.server}.${entry.name}` : entry.name), h("span", {}, state)),
      entry.text && entry.text !== "{}" && h("pre", { "aria-label": "Arguments" }, pretty(entry.text)),
      entry.output !== null && h("pre", { class: "output", "aria-label": "Answer" }, pretty(entry.output)),
      entry.problem && h("p", { class: "problem" }, entry.problem),
      asks && this.#form(entry),
    );
    body.replaceChildren(card);
  }

  /** @param {Entry} entry */
  #form(entry) {
    const id = `answer-${entry.callId}`;
    const field = h("textarea", { id, rows: 3, spellcheck: "false", "data-test": "answer" });
    field.value = this.calls.lastAnswer(entry.name);
    const problem = h("p", { class: "problem", role: "alert", hidden: true });
    const submit = (/** @type {Event} */ event) => {
      event.preventDefault();
      if (this.calls.answer(entry, field.value)) return;
      problem.textContent = "There is no call to answer on. Connect first.";
      problem.hidden = false;
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit(event);
    });
    const button = h("button", { type: "submit", class: "solid" }, "Answer");
    return h("form", { onsubmit: submit }, h("label", { for: id }, "What the function returns"), field, problem, h("p", { class: "row" }, button));
  }

  /** @param {HTMLElement} body @param {Entry} entry */
  #approval(body, entry) {
    const choose = (/** @type {boolean} */ approve) => () => this.calls.approve(entry, approve);
    const state = entry.output ?? "asks for your approval";
    body.replaceChildren(
      h(
        "div",
        { class: entry.output === null ? "card asks" : "card" },
        h("header", {}, h("code", {}, `${entry.server}.${entry.name}`), h("span", {}, state)),
        h("pre", { "aria-label": "Arguments" }, pretty(entry.text)),
        entry.output === null &&
          h(
            "p",
            { class: "row" },
            h("button", { type: "button", class: "quiet", onclick: choose(false) }, "Deny"),
            h("button", { type: "button", class: "solid", onclick: choose(true) }, "Approve"),
          ),
      ),
    );
  }
}

/** What a call is at, the first that fits. @type {[(entry: Entry) => boolean, string][]} */
const STATES = [
  [(entry) => entry.status === "failed", "failed"],
  [(entry) => entry.output !== null, "answered"],
  [(entry) => entry.status === "live" && Boolean(entry.server), "is being called"],
  [(entry) => entry.status === "live", "is being written"],
  [() => true, "waits for you"],
];

/** @param {Entry} entry */
function who(entry) {
  const names = { said: entry.who === "user" ? "You" : entry.who === "system" ? "System" : "Voice", call: "Function", approval: "Tool", note: "" };
  const time = new Date(entry.at);
  const shown = time.toLocaleTimeString("en-GB");
  return h("div", { class: "who" }, h("b", {}, names[entry.kind]), h("time", { datetime: time.toISOString() }, shown));
}

/** @param {Entry} entry @returns {Node[]} */
function said(entry) {
  const heard = entry.heard ? entry.text.slice(0, entry.heard.chars) : entry.text;
  const unheard = entry.text.slice(heard.length);
  const rest = unheard.trimStart();
  const words = h("p", { class: "words", dir: "auto" }, heard, unheard.slice(0, -rest.length || undefined), rest && h("del", { "aria-label": `not heard: ${rest}` }, rest));
  const parts = [];
  if (entry.text || (entry.status === "live" && entry.who === "assistant")) parts.push(words);
  if (!entry.text && entry.who === "user" && entry.images.length === 0) {
    parts.push(h("p", { class: "aside" }, entry.status === "live" ? "speaking …" : "without words"));
  }
  if (entry.heard) parts.push(h("p", { class: "aside" }, entry.heard.ms ? `cut off after ${duration(entry.heard.ms)}` : "not heard"));
  if (entry.problem) parts.push(h("p", { class: "problem" }, entry.problem));
  if (entry.images.length) {
    const shown = entry.images.map((src, index) => h("img", { src, alt: `Picture ${index + 1}` }));
    parts.push(h("div", { class: "pictures-said" }, ...shown));
  }
  return parts;
}

/** JSON, so that it can be read; anything else as it is. @param {string} text */
function pretty(text) {
  try {
    const value = JSON.parse(text);
    const line = JSON.stringify(value, null, 1).replace(/\n\s*/g, " ");
    return line.length <= LINE_CHARS_MAX ? line : JSON.stringify(value, null, 2);
  } catch {
    return text;
  }
}
