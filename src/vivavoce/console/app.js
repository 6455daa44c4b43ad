/**
 * The console: every part of it made once, and every message told to those that it concerns, in this order.
 *
 * The wire knows the call, the folds know what it means, the views show it; here they are joined. Nothing is kept beyond
 * the page's life but the choice of colours.
 */

import { Calls } from "./calls.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { byId, grouped, save, say } from "./dom.js";
import { Inspector } from "./inspector.js";
import { facts } from "./keys.js";
import { MOODS, Mood } from "./mood.js";
import { SessionList, showUsage } from "./panels.js";
import { Recording, base64 } from "./recording.js";
import { Score } from "./score.js";
import { Settings } from "./settings.js";
import { Sound } from "./sound.js";
import { Talk } from "./talk.js";
import { Tape } from "./tape.js";
import { Timing } from "./timing.js";
import { Transcript } from "./transcript.js";
import { UsageCount } from "./usage.js";
import { Views, switchThemes } from "./views.js";
import { Waterfall } from "./waterfall.js";
import { Wire } from "./wire.js";

/** Errors that say no more than that something was over already. */
const HARMLESS = new Set(["response_cancel_not_active", "output_audio_buffer_clear_empty"]);

class Console {
  wire = new Wire();
  sound = new Sound(byId("loudspeaker"));
  conversation = new Conversation();
  calls = new Calls(this.wire);
  mood = new Mood();
  timing = new Timing();
  usage = new UsageCount();
  tape = new Tape();
  recording = new Recording(this.sound);
  inspector = new Inspector();
  waterfall = new Waterfall(this.timing);
  transcript = new Transcript(this.conversation, this.calls);
  settings = new Settings(this.wire);
  score = new Score(this.sound);
  views = new Views();
  list = new SessionList(() => this.wire.callId);
  /** @type {import("./keys.js").Facts} */
  facts = { version: "", needs_key: false, webrtc: true, models: [], model: "", voices: [], prices: {} };
  /** @type {Promise<void> | null} */
  #opening = null;
  #items = 0;
  #playingItem = "";
  /** A key that was typed and not yet used. */
  #key = "";

  constructor() {
    this.talk = new Talk(this.wire, this.sound, {
      open: () => this.open(true),
      interrupt: () => this.interrupt(),
      hold: (isHeld) => this.settings.hold(isHeld),
      hint: (text) => this.warn(text, true),
    });
    new Composer({ submit: (text, images) => this.write(text, images), bytesMax: () => this.wire.bytesMax });
    this.wire.states.listen((state) => this.#wireChanged(state));
    this.wire.messages.listen((message) => this.#pass(message));
    this.wire.voices.listen(async (stream) => {
      await this.sound.play(stream);
      this.#record();
    });
    this.sound.changes.listen(() => this.#soundChanged());
    this.sound.onsets.listen((now) => this.mood.playingId && this.timing.heard(now));
    this.recording.pieces.listen((piece) => this.#recorded(piece));
    this.views.changes.listen((view) => {
      this.list.watch(view === "server");
      if (view === "events") this.inspector.shown();
    });
    this.score.draws = () => this.wire.state.name === "open";
    switchThemes(() => this.score.repaint());
    this.#buttons();
    showUsage(this.usage);
    this.#learn();
  }

  // --- what the user does -------------------------------------------------------------------------------------------

  /** Open a call, with the microphone or without; one at a time. @param {boolean} withMicrophone */
  open(withMicrophone) {
    this.#opening ??= this.#open(withMicrophone).finally(() => (this.#opening = null));
    return this.#opening;
  }

  /** @param {boolean} withMicrophone */
  async #open(withMicrophone) {
    if (this.wire.state.name === "reconnecting") throw new Error("The connection is just being opened again. Try in a moment.");
    const isNew = this.wire.state.name !== "failed" || !this.conversation.entries.some((entry) => entry.kind !== "note");
    this.warn("");
    await this.sound.wake();
    if (withMicrophone) await this.talk.takeMicrophone().catch((error) => this.warn(error.message, true));
    const key = this.#key || byId("key").value.trim();
    if (this.facts.needs_key && !key) {
      this.#askForKey("This server asks for a key.");
      throw new Error("This server asks for a key: give it above.");
    }
    this.#key = "";
    byId("key").value = "";
    const model = this.settings.model.value.trim() || this.facts.model;
    await this.wire.open({ key, wantsKey: this.facts.needs_key, model, isNew });
    this.#keyProblem("");
    if (this.facts.needs_key) this.#know(await this.wire.facts());
  }

  /** A written turn. Rejects with words for the user. @param {string} text @param {string[]} images */
  async write(text, images) {
    if (!this.wire.isOpen) await this.open(false);
    const content = [
      ...(text ? [{ type: "input_text", text }] : []),
      ...images.map((image_url) => ({ type: "input_image", image_url })),
    ];
    const id = this.#newId("msg");
    const item = { type: "message", id, role: "user", content, status: "completed" };
    this.interrupt();
    if (!this.wire.send({ type: "conversation.item.create", event_id: `event_${id}`, item })) {
      throw new Error("The message is larger than what the call lets through. Make it shorter.");
    }
    this.wire.send({ type: "response.create" });
  }

  /** Stop the answer, also where it is only being heard any more. */
  interrupt() {
    const { responseId, playingId } = this.mood;
    if (responseId) this.wire.send({ type: "response.cancel" });
    if (playingId) this.wire.send({ type: "output_audio_buffer.clear" });
  }

  /** @param {string} text empty takes it away @param {boolean} [isCalm] a hint rather than a failure */
  warn(text, isCalm = false) {
    const banner = byId("banner");
    byId("banner-text").textContent = text;
    banner.hidden = !text;
    banner.classList.toggle("calm", isCalm);
    byId("banner-action").hidden = this.wire.state.name !== "reconnecting" || isCalm;
  }

  #buttons() {
    byId("end").addEventListener("click", () => this.#hangUp());
    byId("stop").addEventListener("click", () => this.interrupt());
    byId("banner-close").addEventListener("click", () => this.warn(""));
    byId("banner-action").addEventListener("click", () => this.wire.retry());
    byId("openers").addEventListener("click", (/** @type {MouseEvent} */ event) => {
      const opener = /** @type {HTMLElement} */ (event.target).closest("button");
      if (!opener) return;
      if (opener.dataset.tool) this.settings.addWeather();
      this.write(opener.dataset.say ?? "", []).catch((error) => this.warn(error.message));
    });
    byId("key-form").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      this.#key = byId("key").value.trim();
      if (this.#key) this.open(true).catch(() => undefined);
    });
    byId("tape-save").addEventListener("click", () => {
      const name = new Date().toISOString().slice(0, 19).replaceAll(":", "-");
      save(this.tape.blob(), `${name}.tape.jsonl`);
    });
    byId("input-device").addEventListener("change", (/** @type {any} */ event) => {
      this.sound.inputId = event.target.value;
      if (this.sound.track) this.talk.takeMicrophone().catch((error) => this.warn(error.message, true));
    });
    byId("output-device").addEventListener("change", (/** @type {any} */ event) => this.sound.playOn(event.target.value));
    const devices = byId("devices");
    devices.addEventListener("toggle", () => devices.open && this.#showDevices());
    devices.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== "Escape" || !devices.open) return;
      event.preventDefault();
      devices.open = false;
      devices.querySelector("summary").focus();
    });
    document.addEventListener("pointerdown", (event) => {
      if (!devices.contains(/** @type {Node} */ (event.target))) devices.open = false;
    });
    window.addEventListener("pagehide", () => this.wire.close());
  }

  #hangUp() {
    this.wire.close();
    this.sound.release();
    this.warn("");
    byId("talk").focus();
  }

  // --- what the server says of itself -------------------------------------------------------------------------------

  async #learn() {
    try {
      this.#know(await facts());
    } catch (error) {
      this.warn(error instanceof Error ? error.message : String(error));
      return;
    }
    byId("key-form").hidden = !this.facts.needs_key;
    if (!this.facts.webrtc) this.warn("This server takes no calls: pip install 'vivavoce[webrtc]' there, or let webrtc.peers_max be above 0.");
  }

  /** @param {import("./keys.js").Facts} known */
  #know(known) {
    this.facts = known;
    this.list.facts = known;
    this.settings.propose(known);
    this.usage.prices = known.prices;
  }

  // --- the call -----------------------------------------------------------------------------------------------------

  /** @param {import("./wire.js").WireState} state */
  #wireChanged(state) {
    const now = performance.now();
    if (state.name === "open" && state.isNew) this.#begin(now);
    else if (state.name === "open") this.#goOn(now);
    else if (state.name === "reconnecting") this.#broken(state, now);
    else if (state.name === "failed") this.#failed(state, now);
    else if (state.name === "off") this.tape.note("closed", { by: "client", code: 1000, reason: "" }, now);
    if (state.name !== "open") this.mood.reset();
    if (["off", "failed"].includes(state.name)) this.conversation.breakOff();
    this.settings.lockModel(state.name === "open" || state.name === "reconnecting");
    this.#show();
  }

  /** @param {number} now */
  #begin(now) {
    this.conversation.clear();
    this.timing.clear();
    this.waterfall.clear();
    this.usage.clear();
    showUsage(this.usage);
    const url = new URL("v1/realtime/calls", document.baseURI).href;
    this.tape.begin({ url, model: this.wire.model, version: this.facts.version }, now);
    this.tape.note("connected", {}, now);
    this.settings.tellAll();
    this.warn("");
  }

  /** The session is another one: tell it what was said. @param {number} now */
  #goOn(now) {
    this.tape.note("connected", {}, now);
    this.settings.tellAll();
    for (const item of this.conversation.history()) {
      this.wire.send({ type: "conversation.item.create", event_id: this.#newId("restore"), item });
    }
    this.conversation.note("Connected again. The conversation goes on where it was.", false, Date.now());
    this.warn("");
  }

  /** @param {import("./wire.js").WireState} state @param {number} now */
  #broken(state, now) {
    if (!state.problem) {
      this.conversation.breakOff();
      this.conversation.note("The connection was lost.", false, Date.now());
      this.tape.note("closed", { by: "server", code: 1006, reason: "lost" }, now);
    }
    this.warn(state.problem ? `The connection was lost. ${state.problem}` : "The connection was lost. It is being opened again.");
  }

  /** @param {import("./wire.js").WireState} state @param {number} now */
  #failed(state, now) {
    this.tape.note("closed", { by: "server", code: 1006, reason: state.problem }, now);
    const isAboutKey = state.code === "key_wanted" || state.code === "invalid_api_key" || state.code === "401";
    const isForgotten = state.code === "key_wanted";
    const problem = isForgotten ? "The server does not know this page's short-lived key any more. With a key the call goes on." : state.problem;
    if (isAboutKey && this.facts.needs_key) this.#askForKey(problem);
    else this.warn(state.problem);
  }

  /** Where nothing was said yet, or else below what was. @param {string} problem */
  #askForKey(problem) {
    const form = byId("key-form");
    if (this.conversation.entries.length) byId("scroll").append(form);
    form.hidden = false;
    this.warn("");
    this.#keyProblem(problem);
    byId("key").focus();
  }

  /** @param {string} problem */
  #keyProblem(problem) {
    if (!problem && this.conversation.entries.length) byId("key-form").hidden = true;
    byId("key-problem").textContent = problem;
    byId("key-problem").hidden = !problem;
  }

  /** @param {import("./wire.js").Message} message */
  #pass(message) {
    const { dir, event, now } = message;
    const at = Date.now();
    this.inspector.add(message);
    this.tape.message(dir, event, now);
    this.conversation.apply(dir, event, at);
    this.timing.apply(dir, event, now, this.sound.isMuted ? null : this.sound.lastLoudMs);
    this.calls.apply(dir, event);
    if (dir === "server") {
      this.mood.apply(event);
      // Sound and events take two ways, and the sound may be here first.
      if (event.type === "output_audio_buffer.started" && this.sound.isAudible) this.timing.heard(now);
      if (this.usage.apply(event)) showUsage(this.usage);
      const isSettings = this.settings.apply(event);
      if (event.type === "error" && !isSettings) this.#erred(event.error, at);
      if (event.type === "response.output_item.added") this.#playingItem = event.item.id;
      if (event.type === "session.created" || event.type === "session.updated") say(byId("model-shown"), event.session.model ?? "");
    }
    byId("tape-size").textContent = `${grouped(this.tape.size.lines)} lines, ${grouped(Math.ceil(this.tape.size.bytes / 1024))} KB`;
    this.#show();
  }

  /** @param {any} error @param {number} at */
  #erred(error, at) {
    if (HARMLESS.has(error.code)) return;
    if (error.code === "input_audio_buffer_commit_empty") {
      this.warn("Nothing was heard. Hold the button for as long as you speak.", true);
      return;
    }
    const itemId = String(error.event_id ?? "").replace(/^event_/, "");
    if (this.conversation.entry(itemId)) this.conversation.refuse(itemId, error.message);
    else this.conversation.note(error.message, true, at);
  }

  // --- sound --------------------------------------------------------------------------------------------------------

  #record() {
    this.recording.follow().catch((error) => reportError(error));
  }

  /** A piece of either voice, as the message that it would be elsewhere. @param {import("./recording.js").Piece} piece */
  #recorded({ side, pcm }) {
    if (!byId("tape-sound").checked || !this.wire.isOpen) return;
    const now = performance.now();
    if (side === "user") {
      if (!this.sound.isMuted) this.tape.message("client", { type: "input_audio_buffer.append", audio: base64(pcm) }, now);
    } else if (this.mood.playingId) {
      const which = { response_id: this.mood.playingId, item_id: this.#playingItem, output_index: 0, content_index: 0 };
      this.tape.message("server", { type: "response.output_audio.delta", ...which, delta: base64(pcm) }, now);
    }
  }

  #soundChanged() {
    this.#record();
    this.talk?.show();
    this.#show();
    if (byId("devices").open) this.#showDevices();
  }

  async #showDevices() {
    for (const [id, kind, chosen] of /** @type {const} */ ([
      ["input-device", "audioinput", this.sound.inputId],
      ["output-device", "audiooutput", this.sound.outputId],
    ])) {
      const found = await this.sound.devices(kind);
      const options = found.map(({ id: value, label }) => new Option(label, value, false, value === chosen));
      if (!found.some((one) => one.id === "default")) options.unshift(new Option("As the system", "", false, !chosen));
      byId(id).replaceChildren(...options);
      byId(id).disabled = kind === "audiooutput" && !this.sound.canChooseOutput;
    }
  }

  // --- what is shown ------------------------------------------------------------------------------------------------

  #show() {
    const { name } = this.wire.state;
    const mood = this.mood.name(name, this.sound.isMuted, this.talk?.isHolding ?? false);
    document.body.dataset.state = mood;
    say(byId("state-name"), MOODS[mood]);
    byId("stop").hidden = name !== "open";
    byId("stop").classList.toggle("idle", !this.mood.isAnswering);
    byId("end").hidden = name === "off" || name === "failed";
    byId("tape-save").disabled = this.tape.size.lines === 0;
    this.talk?.show();
  }

  /** @param {string} kind */
  #newId(kind) {
    return `${kind}_${Date.now().toString(36)}${(++this.#items).toString(36)}`;
  }
}

new Console();
