/**
 * Microphone and loudspeaker: which devices, whether the microphone is heard, and how loud both voices are.
 *
 * The microphone is asked for when it is wanted and given back when it is not, so that the browser's own sign is true.
 * Levels are measured on what really passes: the track that is sent, and the stream that came.
 */

import { Signal } from "./signal.js";

/** @typedef {"user" | "assistant"} Side */

/** Louder than this is speech, as far as meters and clocks are concerned. */
const SOUND_RMS = 0.012;
/** Quietest level that a meter shows. */
const FLOOR_DB = -54;

export class Sound {
  /** Something about devices, muting or the microphone is different. @type {Signal<void>} */
  changes = new Signal();
  /** When the microphone was last above silence, on the page's clock. @type {number | null} */
  lastLoudMs = null;
  /** The assistant became audible after silence. @type {Signal<number>} */
  onsets = new Signal();
  /** @type {AudioContext | null} */
  context = null;
  /** @type {MediaStream | null} */
  microphone = null;

  inputId = "";
  outputId = "";
  #isMuted = true;
  #wasLoud = false;
  /** @type {Partial<Record<Side, {node: MediaStreamAudioSourceNode, analyser: AnalyserNode, samples: Float32Array}>>} */
  #sides = {};
  /** @param {HTMLAudioElement} loudspeaker */
  constructor(loudspeaker) {
    this.loudspeaker = loudspeaker;
    navigator.mediaDevices?.addEventListener?.("devicechange", () => this.changes.emit());
  }

  /** @returns {MediaStreamTrack | null} */
  get track() {
    return this.microphone?.getAudioTracks()[0] ?? null;
  }

  /** Whether the assistant could be heard when the page last listened. */
  get isAudible() {
    return this.#wasLoud;
  }

  get isMuted() {
    return this.#isMuted || this.track === null;
  }

  set isMuted(muted) {
    this.#isMuted = muted;
    if (this.track) this.track.enabled = !muted;
    this.changes.emit();
  }

  /** Must be called where the user has just done something; browsers keep silent pages silent. */
  async wake() {
    this.context ??= new AudioContext({ latencyHint: "interactive" });
    if (this.context.state === "suspended") await this.context.resume();
  }

  /** Take the microphone. Rejects with words that say what to do. @returns {Promise<MediaStreamTrack>} */
  async listen() {
    if (!navigator.mediaDevices) {
      throw new Error("Browsers give the microphone only to pages from https or from this machine. You can write instead.");
    }
    const wanted = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };
    const audio = this.inputId ? { ...wanted, deviceId: { exact: this.inputId } } : wanted;
    try {
      this.release();
      this.microphone = await navigator.mediaDevices.getUserMedia({ audio });
    } catch (error) {
      throw new Error(MICROPHONE_PROBLEMS[/** @type {any} */ (error).name] ?? `The microphone cannot be used: ${error}`);
    }
    const track = /** @type {MediaStreamTrack} */ (this.track);
    track.enabled = !this.#isMuted;
    track.addEventListener("ended", () => {
      if (track === this.track) this.release();
    });
    this.#measure("user", this.microphone);
    this.changes.emit();
    return track;
  }

  /** Give the microphone back. */
  release() {
    for (const track of this.microphone?.getTracks() ?? []) track.stop();
    this.microphone = null;
    this.#sides.user?.node.disconnect();
    delete this.#sides.user;
    this.changes.emit();
  }

  /** The assistant's voice, from now on. @param {MediaStream} stream */
  async play(stream) {
    this.loudspeaker.srcObject = stream;
    this.#measure("assistant", stream);
    await this.loudspeaker.play().catch(() => undefined);
  }

  /** @param {string} id */
  async playOn(id) {
    this.outputId = id;
    // Not every browser lets a page choose.
    await /** @type {any} */ (this.loudspeaker).setSinkId?.(id);
  }

  get canChooseOutput() {
    return "setSinkId" in this.loudspeaker;
  }

  /** @param {MediaDeviceKind} kind @returns {Promise<{id: string, label: string}[]>} */
  async devices(kind) {
    const all = (await navigator.mediaDevices?.enumerateDevices?.()) ?? [];
    return all
      .filter((device) => device.kind === kind && device.deviceId)
      .map((device) => ({ id: device.deviceId, label: device.label || "Unnamed device" }));
  }

  /** The source of one side, for whoever records it. @param {Side} side */
  node(side) {
    return this.#sides[side]?.node ?? null;
  }

  /** How loud a side is at this moment, 0 to 1 on a scale of decibels. @param {Side} side */
  level(side) {
    const measured = this.#sides[side];
    if (!measured || (side === "user" && this.isMuted)) return 0;
    measured.analyser.getFloatTimeDomainData(measured.samples);
    let sum = 0;
    for (const sample of measured.samples) sum += sample * sample;
    const rms = Math.sqrt(sum / measured.samples.length);
    this.#notice(side, rms);
    return Math.max(0, Math.min(1, 1 - (20 * Math.log10(rms + 1e-9)) / FLOOR_DB));
  }

  /** @param {Side} side @param {number} rms */
  #notice(side, rms) {
    const isLoud = rms > SOUND_RMS;
    if (side === "user") {
      if (isLoud) this.lastLoudMs = performance.now();
      return;
    }
    if (isLoud && !this.#wasLoud) this.onsets.emit(performance.now());
    this.#wasLoud = isLoud;
  }

  /** @param {Side} side @param {MediaStream} stream */
  #measure(side, stream) {
    if (!this.context) return;
    this.#sides[side]?.node.disconnect();
    const node = this.context.createMediaStreamSource(stream);
    const analyser = new AnalyserNode(this.context, { fftSize: 1024 });
    node.connect(analyser);
    this.#sides[side] = { node, analyser, samples: new Float32Array(analyser.fftSize) };
  }
}

/** @type {Record<string, string>} */
const MICROPHONE_PROBLEMS = {
  NotAllowedError: "The browser was not allowed to use the microphone. Allow it at the address bar, or write instead.",
  NotFoundError: "There is no microphone. Plug one in, or write instead.",
  NotReadableError: "The microphone is used by something else, or does not answer. Choose another one, or write instead.",
  OverconstrainedError: "The chosen microphone is not there any more. Choose another one.",
};
