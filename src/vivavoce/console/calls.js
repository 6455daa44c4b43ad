/**
 * Functions that the model calls and somebody at this page answers.
 *
 * Outputs bring one new answer: it is asked for when every call is answered and no response runs; not while the user
 * speaks, since the end of that turn brings one, nor where a response has begun that has seen the outputs.
 */

/** @typedef {import("./conversation.js").Entry} Entry */

export class Calls {
  /** @type {Set<string>} calls without an answer, by call id */
  #open = new Set();
  /** @type {Map<string, string>} what was answered last, by function */
  #last = new Map();
  /** @type {Set<string>} approved calls that the server still makes, by the item that asked */
  #made = new Set();
  #isDue = false;
  #isResponding = false;
  #isUserSpeaking = false;

  /** @param {{send(event: object): boolean}} wire */
  constructor(wire) {
    this.wire = wire;
    /** @param {Entry} entry @param {string} output */
    this.answer = (entry, output) => this.#answer(entry, output);
    /** @param {Entry} entry @param {boolean} approve */
    this.approve = (entry, approve) => this.#approve(entry, approve);
    /** @param {string} name */
    this.lastAnswer = (name) => this.#last.get(name) ?? "";
  }

  /** @param {"client" | "server"} dir @param {any} event */
  apply(dir, event) {
    if (dir === "client") {
      if (event.type === "response.create") this.#isDue = false;
      return;
    }
    switch (event.type) {
      case "session.created":
        this.#open.clear();
        this.#made.clear();
        this.#isDue = this.#isResponding = this.#isUserSpeaking = false;
        break;
      case "response.created":
        this.#isResponding = true;
        if (this.#open.size === 0) this.#isDue = false;
        break;
      case "response.output_item.done":
        if (event.item.type === "function_call" && event.item.status === "completed") this.#open.add(event.item.call_id);
        break;
      case "conversation.item.done":
        if (this.#made.delete(event.item.approval_request_id)) {
          this.#isDue = true;
          this.#ask();
        }
        break;
      case "response.done":
        this.#isResponding = false;
        this.#ask();
        break;
      case "input_audio_buffer.speech_started":
        this.#isUserSpeaking = true;
        break;
      case "input_audio_buffer.committed":
      case "input_audio_buffer.cleared":
        this.#isUserSpeaking = false;
        break;
      default:
    }
  }

  /** Says whether it could be sent. @param {Entry} entry @param {string} output */
  #answer(entry, output) {
    const item = { type: "function_call_output", call_id: entry.callId, output };
    if (!this.wire.send({ type: "conversation.item.create", item })) return false;
    this.#last.set(entry.name, output);
    this.#open.delete(entry.callId);
    this.#isDue = true;
    this.#ask();
    return true;
  }

  /** The server makes an approved call, and says when it is done. @param {Entry} entry @param {boolean} approve */
  #approve(entry, approve) {
    const item = { type: "mcp_approval_response", approval_request_id: entry.id, approve };
    if (!this.wire.send({ type: "conversation.item.create", item })) return;
    if (approve) this.#made.add(entry.id);
    else {
      this.#isDue = true;
      this.#ask();
    }
  }

  #ask() {
    if (!this.#isDue || this.#open.size > 0 || this.#isResponding || this.#isUserSpeaking) return;
    this.wire.send({ type: "response.create" });
  }
}
