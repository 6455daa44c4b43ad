/**
 * What the call is at, in one word: from the life of the wire, and from what passes on it.
 *
 * A fold without a document. While the answer can be heard it is `speaking`, whatever else goes on; `hearing` is the user.
 */

/** @typedef {"off" | "connecting" | "reconnecting" | "failed" | "ready" | "listening" | "hearing" | "thinking" | "speaking"} MoodName */

/** @type {Record<MoodName, string>} */
export const MOODS = {
  off: "Ready",
  connecting: "Connecting",
  reconnecting: "Reconnecting",
  failed: "Not connected",
  ready: "Connected",
  listening: "Listening",
  hearing: "Hearing you",
  thinking: "Thinking",
  speaking: "Speaking",
};

export class Mood {
  /** @type {string} the response that runs; several never do */
  responseId = "";
  /** @type {string} the response that is played */
  playingId = "";
  #isUserSpeaking = false;
  #isAnswerDue = false;
  #answersTurns = true;

  /** @param {any} event of the server */
  apply(event) {
    switch (event.type) {
      case "session.created":
        this.reset();
        this.#learn(event.session);
        break;
      case "session.updated":
        this.#learn(event.session);
        break;
      case "input_audio_buffer.speech_started":
        this.#isUserSpeaking = true;
        this.#isAnswerDue = false;
        break;
      case "input_audio_buffer.speech_stopped":
        this.#isUserSpeaking = false;
        this.#isAnswerDue = this.#answersTurns;
        break;
      case "input_audio_buffer.cleared":
        this.#isUserSpeaking = this.#isAnswerDue = false;
        break;
      case "response.created":
        this.responseId = event.response.id;
        this.#isAnswerDue = false;
        break;
      case "response.done":
        if (this.responseId === event.response.id) this.responseId = "";
        break;
      case "output_audio_buffer.started":
        this.playingId = event.response_id;
        break;
      case "output_audio_buffer.stopped":
      case "output_audio_buffer.cleared":
        this.playingId = "";
        break;
      default:
    }
  }

  reset() {
    this.responseId = this.playingId = "";
    this.#isUserSpeaking = this.#isAnswerDue = false;
  }

  /** Whether there is an answer that could be stopped. */
  get isAnswering() {
    return Boolean(this.responseId || this.playingId);
  }

  /** @param {import("./wire.js").WireName} wire @param {boolean} isMuted @param {boolean} isHolding @returns {MoodName} */
  name(wire, isMuted, isHolding) {
    if (wire !== "open") return wire;
    if (this.#isUserSpeaking || isHolding) return "hearing";
    if (this.playingId) return "speaking";
    if (this.responseId || this.#isAnswerDue) return "thinking";
    return isMuted ? "ready" : "listening";
  }

  /** @param {any} session */
  #learn(session) {
    const detection = session.audio?.input?.turn_detection;
    this.#answersTurns = Boolean(detection) && detection.create_response !== false;
  }
}
