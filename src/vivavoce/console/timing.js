/**
 * Where the time of a turn goes: from the end of the user's speech to the first sound of the answer, stage by stage.
 *
 * A fold over the events, with two things that only the page knows: when the microphone fell silent, and when the answer
 * was first to be heard here. Stages are milliseconds after the beginning of the turn; one that was not reached is absent.
 */

import { Signal } from "./signal.js";

/** @typedef {"stopped" | "committed" | "transcript" | "created" | "text" | "call" | "audio" | "heard" | "done"} Stage */

/** In the order in which a turn usually passes them. @type {[Stage, string][]} */
export const STAGES = [
  ["stopped", "Turn found"],
  ["committed", "Committed"],
  ["transcript", "Transcript"],
  ["text", "First token"],
  ["call", "Function call"],
  ["audio", "First audio"],
  ["heard", "Heard here"],
];

/** What the server tells of itself, as it names it, from the end of the turn as it heard it. @type {[string, string][]} */
export const SERVER_STEPS = [
  ["committed", "Turn found"],
  ["transcript", "Transcript"],
  ["prompted", "Model asked"],
  ["first_token", "First token"],
  ["first_phrase", "First phrase"],
  ["first_audio", "First audio"],
  ["first_sent", "First sent"],
  ["played", "Played"],
];

/** The key in the metadata of a response. */
const TOLD = "vivavoce_waterfall";

/**
 * @typedef {object} Turn
 * @property {number} number
 * @property {"spoken" | "asked"} kind whether speech began it, or the page asked for an answer
 * @property {number} beganMs on the page's clock
 * @property {string} responseId
 * @property {string} status
 * @property {Partial<Record<Stage, number>>} stages
 * @property {[string, number][]} server the steps that the server told, by name, in the order in which they were reached
 */

/** As many turns are kept. */
export const TURNS_MAX = 50;

/** A microphone that fell silent longer ago than this has nothing to do with the turn. */
const SILENCE_MS_MAX = 5000;

export class Timing {
  /** @type {Turn[]} */
  turns = [];
  /** @type {Signal<Turn>} */
  changes = new Signal();
  /** @type {Turn | null} the turn that waits for its response */
  #open = null;
  #count = 0;

  /**
   * @param {"client" | "server"} dir
   * @param {any} event
   * @param {number} now on the page's clock
   * @param {number | null} silentSince when the microphone was last above silence
   */
  apply(dir, event, now, silentSince) {
    if (dir === "client") {
      if (event.type === "input_audio_buffer.commit") this.#begin("spoken", silentSince ?? now, now);
      else if (event.type === "response.create" && this.#open === null) this.#begin("asked", now);
      return;
    }
    switch (event.type) {
      case "input_audio_buffer.speech_started":
        this.#open = null;
        break;
      case "input_audio_buffer.speech_stopped": {
        const isRecent = silentSince !== null && now - silentSince < SILENCE_MS_MAX;
        this.#begin("spoken", isRecent ? silentSince : now, now);
        break;
      }
      case "input_audio_buffer.committed":
        this.#reach(this.#open, "committed", now);
        break;
      case "conversation.item.input_audio_transcription.completed":
        this.#reach(this.#open ?? this.turns.at(-1), "transcript", now);
        break;
      case "response.created":
        this.#created(event.response, now);
        break;
      case "response.output_text.delta":
      case "response.output_audio_transcript.delta":
        this.#reach(this.#of(event.response_id), "text", now);
        break;
      case "response.function_call_arguments.done":
        this.#reach(this.#of(event.response_id), "call", now);
        break;
      case "output_audio_buffer.started":
        this.#reach(this.#of(event.response_id), "audio", now);
        break;
      case "response.done":
        this.#done(event.response, now);
        break;
      default:
    }
  }

  /** The answer can be heard. @param {number} now */
  heard(now) {
    const turn = this.turns.findLast((one) => one.stages.audio !== undefined);
    if (turn && turn === this.turns.findLast((one) => one.responseId)) this.#reach(turn, "heard", now);
  }

  clear() {
    this.turns = [];
    this.#open = null;
  }

  /** @param {Turn["kind"]} kind @param {number} beganMs @param {number} [stoppedMs] */
  #begin(kind, beganMs, stoppedMs) {
    /** @type {Turn} */
    const turn = { number: ++this.#count, kind, beganMs, responseId: "", status: "in_progress", stages: {}, server: [] };
    this.#open = turn;
    this.turns.push(turn);
    if (this.turns.length > TURNS_MAX) this.turns.shift();
    if (stoppedMs !== undefined) this.#reach(turn, "stopped", stoppedMs);
    else this.changes.emit(turn);
  }

  /** @param {any} response @param {number} now */
  #created(response, now) {
    if (this.#open === null) this.#begin("asked", now);
    const turn = this.#open;
    this.#open = null;
    if (turn === null) return;
    turn.responseId = response.id;
    this.#reach(turn, "created", now);
  }

  /** @param {any} response @param {number} now */
  #done(response, now) {
    const turn = this.#of(response.id);
    if (!turn) return;
    turn.status = response.status;
    turn.server = told(response.metadata?.[TOLD]);
    this.#reach(turn, "done", now);
  }

  /** @param {string} responseId */
  #of(responseId) {
    return this.turns.findLast((turn) => turn.responseId === responseId);
  }

  /** @param {Turn | null | undefined} turn @param {Stage} stage @param {number} now */
  #reach(turn, stage, now) {
    if (!turn || turn.stages[stage] !== undefined) return;
    turn.stages[stage] = Math.max(0, now - turn.beganMs);
    this.changes.emit(turn);
  }
}

/** @param {unknown} text @returns {[string, number][]} */
function told(text) {
  /** @type {any} */
  let steps = null;
  try {
    steps = JSON.parse(String(text ?? "null"));
  } catch {
    // Another server's word under our key: it tells nothing.
  }
  /** @type {[string, number][]} */
  const reached = SERVER_STEPS.map(([step, name]) => [name, steps?.[`${step}_ms`]]);
  return reached.filter(([, at]) => typeof at === "number").toSorted(([, one], [, other]) => one - other);
}
