/**
 * Both voices as pieces of PCM16 at 24 kHz, for the tape: what the microphone sent and what really came back.
 *
 * The work is done on the browser's audio thread, by `recorder.js`. Invariant: nothing is connected to the loudspeaker.
 */

import { Signal } from "./signal.js";

/** @typedef {{side: import("./sound.js").Side, pcm: ArrayBuffer}} Piece */

export class Recording {
  /** @type {Signal<Piece>} */
  pieces = new Signal();
  /** @type {Map<import("./sound.js").Side, {node: AudioNode, recorder: AudioWorkletNode}>} */
  #sides = new Map();
  /** @type {Promise<void> | null} */
  #loaded = null;

  /** @param {import("./sound.js").Sound} sound */
  constructor(sound) {
    this.sound = sound;
  }

  /** Follow what there is to record now; called again when the microphone or the call is another. */
  async follow() {
    const context = this.sound.context;
    if (!context?.audioWorklet) return;
    this.#loaded ??= context.audioWorklet.addModule(new URL("./recorder.js", import.meta.url).href);
    await this.#loaded;
    for (const side of /** @type {const} */ (["user", "assistant"])) this.#record(context, side);
  }

  /** @param {AudioContext} context @param {import("./sound.js").Side} side */
  #record(context, side) {
    const node = this.sound.node(side);
    const before = this.#sides.get(side);
    if (before?.node === node) return;
    before?.recorder.disconnect();
    before?.recorder.port.close();
    this.#sides.delete(side);
    if (!node) return;
    const recorder = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
    recorder.port.onmessage = ({ data }) => this.pieces.emit({ side, pcm: data });
    node.connect(recorder);
    this.#sides.set(side, { node, recorder });
  }
}

/** @param {ArrayBuffer} bytes */
export function base64(bytes) {
  let text = "";
  for (const byte of new Uint8Array(bytes)) text += String.fromCharCode(byte);
  return btoa(text);
}
