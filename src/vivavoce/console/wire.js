/**
 * The call: a peer connection with one sound track each way and a data channel of events, and its life.
 *
 * What is lost is dialled again, with pauses that grow, until it answers or nobody wants it any more; what has to be told
 * to the new session is for others to say, when `states` says `open`. Invariant: whatever a peer connection that is over
 * still reports, is not heard.
 */

import { Refused, Unreachable, call, facts, mint } from "./keys.js";
import { Signal } from "./signal.js";

/** @typedef {"off" | "connecting" | "open" | "reconnecting" | "failed"} WireName */
/** @typedef {{name: WireName, problem: string, code: string, isNew: boolean}} WireState `isNew`: the first of a call */
/** @typedef {{dir: "client" | "server", event: any, text: string, now: number}} Message */

/** From the offer to an open channel. */
const SETUP_MS_MAX = 15_000;
/** For the browser to find the addresses that it can be reached at. */
const GATHERING_MS_MAX = 1000;
/** A connection that lets nothing through may come back by itself; longer than this it is lost. */
const SILENT_MS_MAX = 3000;
const PAUSES_MS = [300, 600, 1200, 2500, 5000];
/** As often it is dialled again, about five minutes. */
const RETRIES_MAX = 60;
/** A call that has lasted so long was wanted, and the next one is dialled as if it were the first. */
const STEADY_MS_MIN = 10_000;
/** The size of a message that every peer takes. */
const MESSAGE_BYTES_MAX = 65_536;

export class Wire {
  /** @type {Signal<WireState>} */
  states = new Signal();
  /** @type {Signal<Message>} */
  messages = new Signal();
  /** The assistant's voice. @type {Signal<MediaStream>} */
  voices = new Signal();
  /** @type {WireState} */
  state = { name: "off", problem: "", code: "", isNew: true };
  callId = "";
  /** @type {string | null} */
  model = null;

  /** @type {RTCPeerConnection | null} */
  #peer = null;
  /** @type {RTCDataChannel | null} */
  #channel = null;
  /** @type {RTCRtpSender | null} */
  #sender = null;
  /** @type {MediaStreamTrack | null} */
  #microphone = null;
  /** @type {import("./keys.js").ShortKey | null} */
  #shortKey = null;
  #wantsKey = false;
  #isWanted = false;
  #attempts = 0;
  #openSinceMs = 0;
  #serial = 0;
  /** @type {(() => void) | null} ends the pause before the next attempt */
  #wake = null;

  constructor() {
    window.addEventListener("online", () => this.#wake?.());
  }

  /**
   * Open a call. Resolves when it is open; rejects, and has failed, where it cannot be.
   *
   * @param {{key: string, wantsKey: boolean, model: string, isNew: boolean}} how `key` is used once and not kept;
   *   `isNew` is false where the call goes on with what was said in one that was lost
   */
  async open({ key, wantsKey, model, isNew }) {
    this.#serial += 1;
    this.#drop();
    this.#isWanted = true;
    this.#wantsKey = wantsKey;
    this.#attempts = 0;
    this.model = model || null;
    const serial = ++this.#serial;
    this.#tell("connecting");
    try {
      this.#shortKey = await mint(key, model);
      if (serial === this.#serial) await this.#dial(serial);
    } catch (error) {
      if (serial === this.#serial) this.#fail(error);
      throw error;
    }
    if (serial !== this.#serial) throw new Error("The call was ended before it began.");
    this.#tell("open", "", "", isNew);
  }

  /** Hang up. */
  close() {
    this.#isWanted = false;
    this.#serial += 1;
    this.#wake?.();
    this.#drop();
    this.#shortKey = null;
    this.callId = "";
    if (this.state.name !== "off") this.#tell("off");
  }

  get isOpen() {
    return this.state.name === "open" && this.#channel?.readyState === "open";
  }

  /** How large a message may be. */
  get bytesMax() {
    return Math.min(this.#peer?.sctp?.maxMessageSize || MESSAGE_BYTES_MAX, 256 * 1024);
  }

  /** Send an event; false where it could not be. @param {any} event */
  send(event) {
    const text = JSON.stringify(event);
    if (!this.isOpen || new TextEncoder().encode(text).length > this.bytesMax) return false;
    // Told before it is sent: the answer must not stand before it.
    this.messages.emit({ dir: "client", event, text, now: performance.now() });
    this.#channel?.send(text);
    return true;
  }

  /** What the server hears from now on. @param {MediaStreamTrack | null} track */
  async say(track) {
    this.#microphone = track;
    await this.#sender?.replaceTrack(track);
  }

  /** What the server says of itself to who has a key. */
  facts() {
    return facts(this.#shortKey?.value);
  }

  /** Do not wait for the next attempt. */
  retry() {
    this.#wake?.();
  }

  // --- one connection -----------------------------------------------------------------------------------------------

  /** @param {number} serial */
  async #dial(serial) {
    if (!("RTCPeerConnection" in window)) throw new Error("This browser has no WebRTC, by which the console talks.");
    const peer = new RTCPeerConnection();
    this.#peer = peer;
    peer.addEventListener("track", ({ track, streams }) => {
      if (peer === this.#peer) this.voices.emit(streams[0] ?? new MediaStream([track]));
    });
    this.#sender = peer.addTransceiver("audio", { direction: "sendrecv" }).sender;
    await this.#sender.replaceTrack(this.#microphone);
    const channel = peer.createDataChannel("oai-events");
    this.#channel = channel;
    channel.addEventListener("message", ({ data }) => {
      if (peer === this.#peer) this.#receive(data);
    });
    await peer.setLocalDescription();
    await gathered(peer);
    if (serial !== this.#serial) return peer.close();
    const answer = await call(this.#shortKey?.value ?? "", peer.localDescription?.sdp ?? "");
    if (serial !== this.#serial) return peer.close();
    this.callId = answer.id;
    await peer.setRemoteDescription({ type: "answer", sdp: answer.sdp });
    await opened(channel, peer);
    if (serial !== this.#serial) return peer.close();
    this.#openSinceMs = performance.now();
    this.#watch(peer, channel, serial);
  }

  /** @param {RTCPeerConnection} peer @param {RTCDataChannel} channel @param {number} serial */
  #watch(peer, channel, serial) {
    let timer = 0;
    const lost = () => {
      clearTimeout(timer);
      if (peer === this.#peer && serial === this.#serial && this.#isWanted) this.#redial(serial);
    };
    channel.addEventListener("close", lost);
    peer.addEventListener("connectionstatechange", () => {
      clearTimeout(timer);
      if (["failed", "closed"].includes(peer.connectionState)) lost();
      else if (peer.connectionState === "disconnected") timer = setTimeout(lost, SILENT_MS_MAX);
    });
  }

  /** @param {string} text */
  #receive(text) {
    let event;
    try {
      event = JSON.parse(text);
    } catch {
      event = { type: "(no JSON)" };
    }
    this.messages.emit({ dir: "server", event, text, now: performance.now() });
  }

  #drop() {
    const peer = this.#peer;
    this.#peer = this.#channel = this.#sender = null;
    peer?.close();
  }

  // --- another one --------------------------------------------------------------------------------------------------

  /** @param {number} serial */
  async #redial(serial) {
    this.#drop();
    if (performance.now() - this.#openSinceMs > STEADY_MS_MIN) this.#attempts = 0;
    this.#tell("reconnecting");
    while (serial === this.#serial && this.#attempts < RETRIES_MAX) {
      await this.#pause(PAUSES_MS[Math.min(this.#attempts, PAUSES_MS.length - 1)]);
      if (serial !== this.#serial) return;
      this.#attempts += 1;
      try {
        await this.#renewKey();
        await this.#dial(serial);
        if (serial === this.#serial) this.#tell("open", "", "", false);
        return;
      } catch (error) {
        if (serial !== this.#serial) return;
        this.#drop();
        if (error instanceof Refused && error.status === 401) {
          // A server that was started anew knows nothing of keys that it made before.
          if (this.#wantsKey) return this.#fail(error, "key_wanted");
          this.#shortKey = null;
        } else if (error instanceof Refused && error.status < 500 && error.status !== 429) {
          return this.#fail(error);
        }
        this.#tell("reconnecting", error instanceof Error ? error.message : String(error));
      }
    }
    if (serial === this.#serial) this.#fail(new Unreachable("The server has not come back."));
  }

  async #renewKey() {
    const isFresh = this.#shortKey !== null && this.#shortKey.expiresAtMs > Date.now();
    if (!isFresh && !this.#wantsKey) this.#shortKey = await mint("", this.model ?? "");
  }

  /** @param {number} ms */
  async #pause(ms) {
    await new Promise((resolve) => {
      this.#wake = () => resolve(undefined);
      setTimeout(this.#wake, ms * (0.75 + Math.random() / 2));
    });
    this.#wake = null;
  }

  /** @param {unknown} error @param {string} [code] */
  #fail(error, code) {
    this.#isWanted = false;
    this.#serial += 1;
    this.#drop();
    const problem = error instanceof Error ? error.message : String(error);
    this.#tell("failed", problem, code ?? (error instanceof Refused ? error.code || String(error.status) : ""));
  }

  /** @param {WireName} name @param {string} [problem] @param {string} [code] @param {boolean} [isNew] */
  #tell(name, problem = "", code = "", isNew = true) {
    this.state = { name, problem, code, isNew };
    this.states.emit(this.state);
  }
}

/** @param {RTCPeerConnection} peer */
function gathered(peer) {
  return new Promise((resolve) => {
    const look = () => peer.iceGatheringState === "complete" && resolve(undefined);
    peer.addEventListener("icegatheringstatechange", look);
    setTimeout(resolve, GATHERING_MS_MAX);
    look();
  });
}

/** @param {RTCDataChannel} channel @param {RTCPeerConnection} peer */
function opened(channel, peer) {
  const why = "No connection came about: the server answered, but nothing passes between it and this browser.";
  return new Promise((resolve, reject) => {
    const fail = () => reject(new Unreachable(why));
    setTimeout(fail, SETUP_MS_MAX);
    if (channel.readyState === "open") resolve(undefined);
    channel.addEventListener("open", resolve);
    channel.addEventListener("close", fail);
    peer.addEventListener("connectionstatechange", () => peer.connectionState === "failed" && fail());
  });
}
