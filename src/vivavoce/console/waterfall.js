/**
 * The latency of each turn as a waterfall: what came when, and what it waited for.
 *
 * The latest turn stands open on top; each one is told in one figure, the time to the first sound of the answer.
 */

import { byId, duration, h } from "./dom.js";
import { STAGES } from "./timing.js";

/** @typedef {import("./timing.js").Turn} Turn */
/** @typedef {[import("./timing.js").Stage, string]} Named a stage and what it is called */

export class Waterfall {
  #list = byId("turns");
  /** @type {Map<number, HTMLLIElement>} */
  #shown = new Map();

  /** @param {import("./timing.js").Timing} timing */
  constructor(timing) {
    this.timing = timing;
    timing.changes.listen((turn) => this.#write(turn));
  }

  clear() {
    this.#list.replaceChildren();
    this.#shown.clear();
    byId("timing-nothing").hidden = false;
  }

  /** @param {Turn} turn */
  #write(turn) {
    byId("timing-nothing").hidden = true;
    const before = this.#shown.get(turn.number);
    const item = before ?? h("li", { "data-test": "turn" });
    if (!before) {
      this.#shown.set(turn.number, item);
      this.#list.querySelector("details")?.removeAttribute("open");
      this.#list.prepend(item);
      while (this.#list.childElementCount > this.timing.turns.length) this.#list.lastElementChild.remove();
      for (const number of this.#shown.keys()) {
        if (this.#shown.size <= this.timing.turns.length) break;
        this.#shown.delete(number); // the oldest first
      }
    }
    const isOpen = before ? (before.querySelector("details")?.open ?? true) : true;
    const reached = STAGES.filter(([stage]) => turn.stages[stage] !== undefined);
    const longest = Math.max(1, ...reached.map(([stage]) => turn.stages[stage] ?? 0));
    const first = turn.stages.heard ?? turn.stages.audio ?? turn.stages.text ?? turn.stages.call;
    const kind = turn.kind === "spoken" ? "spoken" : "written";
    const status = turn.status === "completed" || turn.status === "in_progress" ? kind : `${kind}, ${turn.status}`;
    item.replaceChildren(
      h(
        "details",
        { open: isOpen },
        h(
          "summary",
          {},
          h("span", {}, h("span", { class: "what" }, `Turn ${turn.number}`), " ", h("small", {}, status)),
          h("b", {}, first === undefined ? "–" : duration(first)),
          strip(turn, reached, longest),
        ),
        h("ol", { class: "stages", "aria-label": "Stages" }, ...STAGES.filter(([stage]) => isShown(turn, stage)).map((stage) => stageRow(turn, stage, longest))),
        ...onTheServer(turn),
      ),
    );
  }
}

/** What was reached, and what is still to be expected. @param {Turn} turn @param {import("./timing.js").Stage} stage */
function isShown(turn, stage) {
  if (turn.stages[stage] !== undefined) return true;
  if (stage === "call" || turn.status !== "in_progress") return false;
  return turn.kind === "spoken" || !["stopped", "committed", "transcript"].includes(stage);
}

/** @param {Turn} turn @param {Named[]} reached @param {number} longest */
function strip(turn, reached, longest) {
  let before = 0;
  const parts = reached.toSorted(([one], [other]) => (turn.stages[one] ?? 0) - (turn.stages[other] ?? 0)).map(([stage], index, all) => {
    const at = turn.stages[stage] ?? 0;
    const part = h("i");
    part.style.setProperty("--part", String((at - before) / longest));
    part.style.setProperty("--shade", String(0.3 + (0.7 * (index + 1)) / all.length));
    before = at;
    return part;
  });
  return h("span", { class: "strip", "aria-hidden": "true" }, ...parts);
}

/** @param {Turn} turn @param {Named} stage @param {number} longest */
function stageRow(turn, [stage, name], longest) {
  const at = turn.stages[stage];
  if (at === undefined) return h("li", { class: "unreached" }, h("span", {}, name), h("span", { class: "track" }), h("span", { class: "time" }, "–"));
  const earlier = STAGES.map(([other]) => turn.stages[other]).filter((time) => time !== undefined && time < at);
  return row(name, Math.max(0, ...earlier.map(Number)), at, longest);
}

/** What the server told, where it did. @param {Turn} turn */
function onTheServer(turn) {
  if (turn.server.length === 0) return [];
  const longest = Math.max(1, ...turn.server.map(([, at]) => at));
  const rows = turn.server.map(([name, at], index) => row(name, Math.max(0, turn.server[index - 1]?.[1] ?? 0), at, longest));
  return [h("small", {}, "On the server"), h("ol", { class: "stages", "aria-label": "Stages on the server" }, ...rows)];
}

/** A bar from the step before to this one. @param {string} name @param {number} from @param {number} at @param {number} longest */
function row(name, from, at, longest) {
  const bar = h("i");
  bar.style.setProperty("--from", String((from / longest) * 100));
  bar.style.setProperty("--part", String((Math.max(0, at - from) / longest) * 100));
  return h("li", {}, h("span", {}, name), h("span", { class: "track", "aria-hidden": "true" }, bar), h("span", { class: "time" }, duration(at)));
}
