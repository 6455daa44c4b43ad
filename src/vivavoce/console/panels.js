/**
 * What the session has used, and what runs on the server: two panels that only show.
 *
 * The list of sessions is the operator's. It is asked for while its panel is looked at; where that takes a key, the key is
 * held for as long as this page lives, in memory, and goes nowhere but to the server that it is for.
 */

import { byId, duration, grouped, h } from "./dom.js";
import { Refused, sessions } from "./keys.js";

const POLL_MS = 2000;

/** @type {[string, keyof import("./usage.js").Spent, keyof import("./usage.js").Spent][]} */
const ROWS = [
  ["Text", "textIn", "textOut"],
  ["Speech", "audioIn", "audioOut"],
  ["Pictures", "imageIn", "imageIn"],
  ["From a cache", "cached", "cached"],
];

/** @param {import("./usage.js").UsageCount} usage */
export function showUsage(usage) {
  const { total } = usage;
  const isPriced = usage.responses > 0 && usage.unpriced.length === 0;
  const tokens = total.textIn + total.audioIn + total.imageIn + total.cached + total.textOut + total.audioOut;
  const why =
    usage.responses === 0
      ? "Tokens and costs appear with the first answer."
      : isPriced
        ? `by the prices of this server, for ${usage.responses} ${usage.responses === 1 ? "answer" : "answers"}`
        : `tokens in ${usage.responses} ${usage.responses === 1 ? "answer" : "answers"}. No price is set for ${usage.unpriced.join(", ")}.`;
  const figure = isPriced ? `$${total.cost < 0.1 ? total.cost.toFixed(4) : total.cost.toFixed(2)}` : grouped(tokens);
  const rows = ROWS.map(([name, into, out]) =>
    h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, grouped(total[into])), h("td", {}, into === out ? "" : grouped(total[out]))),
  );
  const read = total.textIn + total.audioIn + total.imageIn + total.cached;
  byId("usage").replaceChildren(
    h("p", { class: "figure" }, h("b", { id: "usage-figure" }, figure), h("span", {}, why)),
    h(
      "table",
      {},
      h("caption", { class: "hidden" }, "Tokens"),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Tokens"), h("th", { scope: "col" }, "in"), h("th", { scope: "col" }, "out"))),
      h("tbody", {}, ...rows),
      h("tfoot", {}, h("tr", {}, h("th", { scope: "row" }, "All"), h("td", {}, grouped(read)), h("td", {}, grouped(total.textOut + total.audioOut)))),
    ),
    ...(total.transcribedS > 0 ? [h("p", { class: "hint" }, `${duration(total.transcribedS * 1000)} of speech transcribed.`)] : []),
  );
}

/** What runs on the server, for its operator. */
export class SessionList {
  #panel = byId("panel-server");
  #key = "";
  #timer = 0;
  #isWatched = false;
  /** @type {import("./keys.js").Facts | null} */
  facts = null;

  /** @param {() => string} ownCallId */
  constructor(ownCallId) {
    this.ownCallId = ownCallId;
  }

  /** Whether the panel is looked at. @param {boolean} isWatched */
  watch(isWatched) {
    this.#isWatched = isWatched;
    clearTimeout(this.#timer);
    if (isWatched) this.#look();
  }

  async #look() {
    try {
      const { data } = await sessions(this.#key);
      this.#show(data);
    } catch (error) {
      if (error instanceof Refused && [401, 403].includes(error.status)) return this.#ask(error);
      const missing = error instanceof Refused && error.status === 404;
      const why = missing ? "This server keeps no list of its sessions." : error instanceof Error ? error.message : String(error);
      this.#panel.replaceChildren(this.#head(), h("p", { class: "nothing" }, why));
      if (missing) return;
    }
    clearTimeout(this.#timer); // whoever looks often may have asked twice
    if (this.#isWatched) this.#timer = setTimeout(() => this.#look(), POLL_MS);
  }

  #head() {
    const { version, models } = this.facts ?? { version: "", models: [] };
    return h("p", { class: "hint" }, `vivavoce ${version}${models.length ? `, serving ${models.join(", ")}` : ""}`);
  }

  /** @param {any[]} running */
  #show(running) {
    const figure = h("p", { class: "figure" }, h("b", {}, String(running.length)), h("span", {}, running.length === 1 ? "session runs" : "sessions run"));
    const items = running.map((one) => {
      const isOwn = one.call_id && one.call_id === this.ownCallId();
      const what = [one.model, one.transport, one.kind === "realtime" ? "" : one.kind, one.state].filter(Boolean).join(" · ");
      const used = [`${grouped(one.input_tokens)} in, ${grouped(one.output_tokens)} out`, one.cost === null ? "" : `$${one.cost.toFixed(4)}`];
      const waiting = one.waiting.inputs + one.waiting.messages;
      return h(
        "li",
        { class: isOwn ? "own" : "" },
        h("code", {}, one.id),
        h("span", {}, duration(one.age_s * 1000)),
        h("small", {}, isOwn ? `this page · ${what}` : what),
        h("small", {}, waiting ? `${grouped(waiting)} waiting` : ""),
        h("small", {}, used.filter(Boolean).join(" · ")),
      );
    });
    this.#panel.replaceChildren(this.#head(), h("br"), figure, h("ul", { class: "calls", "aria-label": "Sessions" }, ...items));
  }

  /** @param {Refused} refused */
  #ask(refused) {
    const input = h("input", { id: "admin-key", type: "password", autocomplete: "off", spellcheck: "false" });
    const submit = (/** @type {Event} */ event) => {
      event.preventDefault();
      this.#key = input.value.trim();
      this.#look();
    };
    const wasWrong = this.#key !== "";
    this.#key = "";
    this.#panel.replaceChildren(
      this.#head(),
      h("h2", {}, "Sessions"),
      h(
        "form",
        { class: "field", onsubmit: submit },
        h("label", { for: "admin-key" }, "Only the operator sees what runs here. A key of the operator:"),
        h("div", { class: "row" }, input, h("button", { type: "submit", class: "solid" }, "Look")),
        h("p", { class: "hint" }, "Held by this page alone until you close or reload it."),
        wasWrong && h("p", { class: "problem", role: "alert" }, refused.message),
      ),
    );
  }
}
