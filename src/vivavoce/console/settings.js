/**
 * The session's settings: a form that tells the server each change as it is made, and shows what is in force.
 *
 * What the user has chosen is remembered for this page's life, so that every new session is told it. What the server
 * refuses is shown at its field, and what is in force stays in force. A field that the user is in is never written over.
 */

import { byId, h } from "./dom.js";
import { GROUPS, WEATHER, sessionOf, valueAt } from "./fields.js";

/** @typedef {import("./fields.js").Field} Field */
/** @typedef {{field: Field, box: HTMLElement, input: any, problem: HTMLElement, output: HTMLOutputElement | null}} Shown */

const TRANSCRIBER = "whisper-1";
const DETECTION = "audio.input.turn_detection";

export class Settings {
  /** @type {Map<string, Shown>} */
  #shown = new Map();
  /** What the user has chosen, by path. @type {Map<string, unknown>} */
  #chosen = new Map([["audio.input.transcription.model", TRANSCRIBER]]);
  /** What is in force where the user has chosen nothing. @type {Map<string, unknown>} */
  #stated = new Map();
  /** Which fields an update was for. @type {Map<string, string[]>} */
  #asked = new Map();
  #updates = 0;
  /** Whether the user says himself when a turn ends. */
  isHeld = false;

  /** @param {import("./wire.js").Wire} wire */
  constructor(wire) {
    this.wire = wire;
    this.model = this.#build(byId("panel-session"));
    this.#show("audio.input.transcription.model", TRANSCRIBER);
    this.#showOnly();
  }

  /** @param {import("./keys.js").Facts} facts */
  propose(facts) {
    byId("list-models").replaceChildren(...facts.models.map((value) => h("option", { value })));
    byId("list-voices").replaceChildren(...facts.voices.map((value) => h("option", { value })));
    this.model.placeholder = facts.model || "the server's own";
  }

  /** @param {any} event of the server */
  apply(event) {
    if (event.type === "session.created" || event.type === "session.updated") {
      this.#fill(event.session);
    } else if (event.type === "error") {
      return this.#refused(event.error);
    }
    return false;
  }

  /** Tell a new session everything that was chosen. */
  tellAll() {
    for (const shown of this.#shown.values()) if (shown.field.kind !== "json") this.#complain(shown, "");
    this.#tell([...this.#chosen.keys(), `${DETECTION}.type`]);
  }

  /** Whether the user holds a button while he speaks. @param {boolean} isHeld */
  hold(isHeld) {
    this.isHeld = isHeld;
    this.#tell([`${DETECTION}.type`]);
  }

  /** Have a function to call, if there is none. */
  addWeather() {
    const tools = /** @type {any[]} */ (this.#chosen.get("tools") ?? []);
    if (tools.some((tool) => tool.name === WEATHER.name)) return;
    this.#choose("tools", [...tools, WEATHER]);
    this.#show("tools", this.#chosen.get("tools"));
  }

  /** The model may be chosen only before a call. @param {boolean} isLocked */
  lockModel(isLocked) {
    this.model.disabled = isLocked;
  }

  // --- the form -----------------------------------------------------------------------------------------------------

  /** @param {HTMLElement} panel @returns {HTMLInputElement} the field of the model */
  #build(panel) {
    const model = h("input", { id: "model", list: "list-models", spellcheck: "false", autocomplete: "off" });
    const own = h("div", { class: "field" }, h("label", { for: "model" }, "Model"), model, h("p", { class: "hint" }, "For the next call."));
    const groups = GROUPS.map(({ title, hint, fields }) =>
      h("section", { class: "group" }, h("h2", {}, title), hint && h("p", { class: "hint" }, hint), ...this.#rows(fields)),
    );
    panel.append(
      h("section", { class: "group", "aria-label": "Model" }, own),
      ...groups,
      h("datalist", { id: "list-models" }),
      h("datalist", { id: "list-voices" }),
    );
    return model;
  }

  /** @param {Field[]} fields @returns {HTMLElement[]} */
  #rows(fields) {
    const rows = [];
    for (let index = 0; index < fields.length; index += 1) {
      const next = fields[index + 1];
      if (fields[index].half && next?.half) {
        rows.push(h("div", { class: "pair" }, this.#box(fields[index]), this.#box(next)));
        index += 1;
      } else rows.push(this.#box(fields[index]));
    }
    return rows;
  }

  /** @param {Field} field */
  #box(field) {
    const id = `set-${field.path.replaceAll(".", "-")}`;
    const problem = h("p", { class: "problem", id: `${id}-problem`, role: "alert", hidden: true });
    const output = field.kind === "range" ? h("output", { for: id }) : null;
    const input = inputOf(field, id);
    const label =
      field.kind === "switch" ? h("label", { class: "check" }, input, field.label) : h("label", { for: id }, field.label, output);
    const box = h("div", { class: `field of-${field.kind}`, "data-param": `session.${field.path}` }, label);
    if (field.kind !== "switch") box.append(input);
    if (field.hint) box.append(h("p", { class: "hint" }, field.hint));
    if (field.path === "tools") box.append(this.#toolButtons());
    box.append(problem);
    const shown = { field, box, input, problem, output };
    this.#shown.set(field.path, shown);
    input.addEventListener("change", () => this.#changed(shown));
    input.addEventListener("input", () => output && (output.value = input.value + (field.unit ?? "")));
    return box;
  }

  #toolButtons() {
    const add = () => this.addWeather();
    return h("p", { class: "row" }, h("button", { type: "button", class: "text", onclick: add }, "Add an example"));
  }

  /** @param {Shown} shown */
  #changed(shown) {
    const { field, input } = shown;
    let value = field.kind === "switch" ? input.checked : input.value;
    try {
      if (value === "" && field.kind !== "choice") value = "blank" in field ? field.blank : field.kind === "words" ? "" : undefined;
      else if (field.into) value = field.into(value);
      else if (field.kind === "number" || field.kind === "range") value = Number(value);
    } catch (error) {
      this.#complain(shown, /** @type {Error} */ (error).message);
      return;
    }
    this.#complain(shown, "");
    this.#choose(field.path, value);
    this.#showOnly();
  }

  /** @param {string} path @param {unknown} value */
  #choose(path, value) {
    if (value === undefined) this.#chosen.delete(path);
    else {
      this.#chosen.set(path, value);
      this.#tell([path]);
    }
  }

  /** @param {string[]} paths */
  #tell(paths) {
    const event_id = `settings_${++this.#updates}`;
    const values = new Map([...this.#stated, ...this.#chosen]);
    const session = sessionOf(values, paths, this.isHeld);
    if (this.wire.send({ type: "session.update", event_id, session })) this.#asked.set(event_id, paths);
  }

  // --- what the server says -----------------------------------------------------------------------------------------

  /** @param {any} session */
  #fill(session) {
    for (const { field, input, problem } of this.#shown.values()) {
      const value = valueAt(session, field.path);
      if (value === undefined && field.path.startsWith(DETECTION) && this.isHeld) continue;
      if (value === undefined) this.#stated.delete(field.path);
      else this.#stated.set(field.path, value);
      if (document.activeElement !== input && problem.hidden) this.#show(field.path, value);
    }
    this.#showOnly();
  }

  /** At the field that is to blame; says whether there is one. @param {any} error */
  #refused(error) {
    const asked = this.#asked.get(error.event_id);
    if (!asked) return false;
    const param = String(error.param ?? "").replace(/^session\./, "").replace(/\[\d+\].*|\.\d+(\..*)?$/, "");
    const named = error.code === "cannot_update_voice" ? "audio.output.voice" : param;
    const path = [...this.#shown.keys()].find((one) => one === named) ?? [...this.#shown.keys()].find((one) => named && one.startsWith(`${named}.`)) ?? asked[0];
    const shown = this.#shown.get(path);
    if (!shown) return false;
    this.#chosen.delete(path);
    this.#complain(shown, error.message);
    return true;
  }

  /** @param {Shown} shown @param {string} message */
  #complain({ input, problem }, message) {
    problem.textContent = message;
    problem.hidden = !message;
    if (message) {
      input.setAttribute("aria-invalid", "true");
      input.setAttribute("aria-describedby", problem.id);
    } else input.removeAttribute("aria-invalid");
  }

  /** @param {string} path @param {unknown} value */
  #show(path, value) {
    const shown = this.#shown.get(path);
    if (!shown) return;
    const { field, input, output } = shown;
    const plain = field.from ? field.from(value) : typeof value === "object" ? (/** @type {any} */ (value)?.id ?? "") : value;
    if (field.kind === "switch") input.checked = plain ?? true;
    else if (field.kind !== "choice" || [...input.options].some((option) => option.value === (plain ?? ""))) input.value = plain ?? "";
    if (output) output.value = plain === undefined ? "" : `${plain}${field.unit ?? ""}`;
  }

  /** Only what belongs to the chosen kind of turn detection. */
  #showOnly() {
    const type = this.#shown.get(`${DETECTION}.type`)?.input.value;
    for (const { field, box } of this.#shown.values()) {
      if (field.only) box.hidden = field.only !== type;
    }
  }
}

/** @param {Field} field @param {string} id @returns {any} */
function inputOf(field, id) {
  const { kind, min, max, step, placeholder } = field;
  if (kind === "choice") {
    return h("select", { id }, ...(field.options ?? []).map(([value, shown]) => h("option", { value }, shown)));
  }
  if (kind === "words" || kind === "json") {
    return h("textarea", { id, rows: 5, placeholder, spellcheck: kind === "words" ? "true" : "false" });
  }
  if (kind === "switch") return h("input", { id, type: "checkbox", checked: true });
  const list = field.list && `list-${field.list}`;
  const type = kind === "line" ? "text" : kind;
  const value = kind === "range" ? field.start : undefined;
  return h("input", { id, type, min, max, step, value, placeholder, list, spellcheck: "false", autocomplete: "off" });
}
