/**
 * What can be set about a session, as a table: where it stands in the session, and how it is shown and read.
 *
 * `path` is that of the API without its leading `session.`; an error's `param` finds its field by it.
 */

/**
 * @typedef {object} Field
 * @property {string} path
 * @property {string} label
 * @property {"words" | "line" | "number" | "range" | "choice" | "switch" | "json"} kind
 * @property {string} [hint]
 * @property {[string, string][]} [options] of a choice: value and what is shown
 * @property {number} [min]
 * @property {number} [max]
 * @property {number} [step]
 * @property {number} [start] where a slider stands until the server has said
 * @property {string} [unit]
 * @property {string} [placeholder]
 * @property {string} [list] what the page may propose
 * @property {string} [only] for this type of turn detection
 * @property {boolean} [half] two of them stand in one line
 * @property {unknown} [blank] what an empty field means
 * @property {(value: any) => unknown} [into] from the field's value to the session's
 * @property {(value: any) => unknown} [from] and back
 */

/** @typedef {{title: string, hint?: string, fields: Field[]}} Group */

const DETECTION = "audio.input.turn_detection";

/** @type {Group[]} */
export const GROUPS = [
  {
    title: "The voice",
    fields: [
      { path: "instructions", label: "Instructions", kind: "words", placeholder: "Who it is, how it speaks, what it must not do" },
      { path: "audio.output.voice", label: "Voice", kind: "line", list: "voices", half: true, placeholder: "the server's own", hint: "Fixed once it has spoken." },
      {
        path: "output_modalities",
        label: "Answers",
        kind: "choice",
        half: true,
        options: [["audio", "spoken"], ["text", "written"]],
        into: (value) => [value],
        from: (value) => value?.[0],
      },
      { path: "audio.output.speed", label: "Speed", kind: "range", min: 0.25, max: 1.5, step: 0.05, start: 1, unit: "×" },
    ],
  },
  {
    title: "Turns",
    hint: "When you have finished, with an open microphone. Holding the button needs none of it.",
    fields: [
      {
        path: `${DETECTION}.type`,
        label: "The end of a turn is found by",
        kind: "choice",
        options: [["server_vad", "silence"], ["semantic_vad", "silence and what was said"]],
      },
      { path: `${DETECTION}.eagerness`, label: "Eagerness", kind: "choice", only: "semantic_vad", options: [["auto", "auto"], ["low", "low: waits"], ["medium", "medium"], ["high", "high: cuts in"]] },
      { path: `${DETECTION}.threshold`, label: "Threshold", kind: "range", only: "server_vad", min: 0, max: 1, step: 0.05, start: 0.5 },
      { path: `${DETECTION}.silence_duration_ms`, label: "Silence, ms", kind: "number", only: "server_vad", half: true, min: 0, step: 50 },
      { path: `${DETECTION}.prefix_padding_ms`, label: "Kept before, ms", kind: "number", only: "server_vad", half: true, min: 0, step: 50 },
      { path: `${DETECTION}.idle_timeout_ms`, label: "Speaks up after silence of, ms", kind: "number", only: "server_vad", min: 5000, max: 30_000, step: 500, placeholder: "never", blank: null },
      { path: `${DETECTION}.create_response`, label: "Answers each turn", kind: "switch" },
      { path: `${DETECTION}.interrupt_response`, label: "Can be interrupted", kind: "switch" },
    ],
  },
  {
    title: "What it hears",
    fields: [
      { path: "audio.input.transcription.model", label: "Transcribed by", kind: "line", half: true, placeholder: "nobody", blank: null },
      { path: "audio.input.transcription.language", label: "Language", kind: "line", half: true, placeholder: "any, e.g. de", blank: null },
      {
        path: "audio.input.noise_reduction.type",
        label: "Noise reduction",
        kind: "choice",
        options: [["", "none"], ["near_field", "near: headset, phone"], ["far_field", "far: room, laptop"]],
      },
    ],
  },
  {
    title: "Functions",
    hint: "What the model may call; you answer in the conversation.",
    fields: [
      {
        path: "tools",
        label: "Tools",
        kind: "json",
        placeholder: '[{"type": "function", "name": …}]',
        blank: [],
        into: (text) => toolsOf(text),
        from: (tools) => (tools?.length ? JSON.stringify(tools, null, 2) : ""),
      },
      { path: "tool_choice", label: "Uses them", kind: "choice", half: true, options: [["auto", "as it sees fit"], ["required", "always"], ["none", "never"]] },
      {
        path: "max_output_tokens",
        label: "Tokens of an answer",
        kind: "number",
        half: true,
        min: 1,
        max: 4096,
        step: 1,
        placeholder: "any number",
        blank: "inf",
        from: (value) => (value === "inf" ? "" : value),
      },
    ],
  },
];

/** A function to begin with. */
export const WEATHER = {
  type: "function",
  name: "get_weather",
  description: "The weather in a city, now.",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};

/** Tools as they were written. Throws with words for the field. @param {string} text */
function toolsOf(text) {
  let tools;
  try {
    tools = JSON.parse(text);
  } catch (error) {
    throw new Error(`This is no JSON: ${/** @type {Error} */ (error).message}`);
  }
  if (!Array.isArray(tools)) throw new Error("Expected a list of tools: [ … ]");
  return tools;
}

/** The value at a path. @param {any} session @param {string} path */
export function valueAt(session, path) {
  return path.split(".").reduce((value, name) => value?.[name], session);
}

/**
 * The part of a session that holds these values. Turn detection, transcription and noise reduction are told whole or as
 * null, since their parts mean nothing alone.
 *
 * @param {Map<string, unknown>} values by path
 * @param {Iterable<string>} paths those to tell
 * @param {boolean} isHeld whether the user says himself when a turn ends
 */
export function sessionOf(values, paths, isHeld) {
  /** @type {any} */
  const session = { type: "realtime" };
  const tell = (/** @type {string} */ path, /** @type {unknown} */ value) => {
    const names = path.split(".");
    const last = /** @type {string} */ (names.pop());
    names.reduce((inner, name) => (inner[name] ??= {}), session)[last] = value;
  };
  for (const path of paths) {
    const whole = WHOLES.find((name) => path.startsWith(name));
    if (whole) tell(whole, wholeOf(whole, values, isHeld));
    else tell(path, values.get(path));
  }
  return session;
}

const WHOLES = [DETECTION, "audio.input.transcription", "audio.input.noise_reduction"];

/** @param {string} whole @param {Map<string, unknown>} values @param {boolean} isHeld */
function wholeOf(whole, values, isHeld) {
  if (whole === DETECTION && isHeld) return null;
  const own = GROUPS.flatMap((group) => group.fields).filter((field) => field.path.startsWith(`${whole}.`));
  const type = values.get(`${DETECTION}.type`) ?? "server_vad";
  /** @type {Record<string, unknown>} */
  const told = whole === DETECTION ? { type } : {};
  for (const { path, only } of own) {
    const value = values.get(path);
    const name = path.slice(whole.length + 1);
    if (value !== undefined && value !== "" && !(only && only !== type)) told[name] = value;
  }
  if (whole === DETECTION) return told;
  return told[whole.endsWith("transcription") ? "model" : "type"] ? told : null;
}
