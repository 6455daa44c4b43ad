/**
 * The one button: it opens the call, and then mutes an open microphone or is held while one speaks.
 *
 * Space and Enter do the same for whoever has the focus on it, and Space wherever nothing else would take it. What is
 * held is cut into a turn by us: cleared at its beginning, committed at its end, after the sound on its way has arrived.
 */

import { byId, say } from "./dom.js";

/** Sound that is still on its way when the button is let go. */
const TAIL_MS = 250;
/** Held for less, nothing was said. */
const HELD_MS_MIN = 200;

const TAKES_SPACE = "button, input, textarea, select, summary, a, [contenteditable], [role='tab']";

export class Talk {
  #button = byId("talk");
  #label = byId("talk-label");
  #icon = byId("talk-icon");
  #heldSinceMs = 0;
  isHeldMode = false;

  /**
   * @param {import("./wire.js").Wire} wire
   * @param {import("./sound.js").Sound} sound
   * @param {{open: () => Promise<void>, interrupt: () => void, hold: (isHeld: boolean) => void, hint: (text: string) => void}} app
   */
  constructor(wire, sound, app) {
    this.wire = wire;
    this.sound = sound;
    this.app = app;
    this.#button.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => this.#pointerDown(event));
    for (const type of ["pointerup", "pointercancel"]) this.#button.addEventListener(type, () => this.#letGo());
    this.#button.addEventListener("click", () => this.#pressed());
    this.#button.addEventListener("contextmenu", (/** @type {Event} */ event) => this.isHeldMode && event.preventDefault());
    document.addEventListener("keydown", (event) => this.#keyDown(event));
    document.addEventListener("keyup", (event) => this.#keyUp(event));
    window.addEventListener("blur", () => this.#letGo());
    for (const id of ["mode-open", "mode-hold"]) byId(id).addEventListener("change", () => this.#modeChanged());
    this.show();
  }

  /** Whether the user holds it, and speaks. */
  get isHolding() {
    return this.#heldSinceMs > 0;
  }

  /** Make the button say what it does now. */
  show() {
    const [role, label, image] = this.#role();
    this.#button.dataset.role = role;
    say(this.#label, label);
    this.#icon.setAttribute("href", `#i-${image}`);
    this.#button.disabled = role === "wait";
    if (role === "hold") this.#button.setAttribute("aria-pressed", String(this.#heldSinceMs > 0));
    else this.#button.removeAttribute("aria-pressed");
  }

  /** @returns {[string, string, string]} what it is, what it says, its icon */
  #role() {
    const name = this.wire.state.name;
    if (name === "connecting") return ["wait", "Connecting …", "mic"];
    if (name === "reconnecting") return ["wait", "Reconnecting …", "mic"];
    if (name !== "open") return ["open", "Start talking", "mic"];
    if (!this.sound.track) return ["take", "Use microphone", "mic"];
    if (this.isHeldMode) return ["hold", this.#heldSinceMs ? "Let go to send" : "Hold to talk", "mic"];
    return this.sound.isMuted ? ["unmute", "Unmute", "muted"] : ["mute", "Mute", "mic"];
  }

  #pressed() {
    switch (this.#button.dataset.role) {
      case "open":
        this.app.open().catch(() => undefined);
        break;
      case "take":
        this.takeMicrophone().catch((error) => this.app.hint(error.message));
        break;
      case "mute":
      case "unmute":
        this.sound.isMuted = !this.sound.isMuted;
        this.show();
        break;
      default:
    }
  }

  /** The microphone for the call. Rejects with words for the user. */
  async takeMicrophone() {
    await this.sound.wake();
    this.sound.isMuted = this.isHeldMode;
    await this.wire.say(await this.sound.listen());
    this.show();
  }

  #modeChanged() {
    this.isHeldMode = byId("mode-hold").checked;
    this.#heldSinceMs = 0;
    if (this.sound.track) this.sound.isMuted = this.isHeldMode;
    this.app.hold(this.isHeldMode);
    this.show();
  }

  // --- holding ------------------------------------------------------------------------------------------------------

  /** @param {PointerEvent} event */
  #pointerDown(event) {
    if (event.button !== 0 || this.#button.dataset.role !== "hold") return;
    this.#button.setPointerCapture(event.pointerId);
    this.#hold();
  }

  /** @param {KeyboardEvent} event */
  #keyDown(event) {
    if (event.key === "Escape" && !event.defaultPrevented) return this.app.interrupt();
    if (event.repeat || !this.#isOurs(event)) return;
    if (this.#button.dataset.role === "hold") {
      event.preventDefault();
      this.#hold();
    } else if (event.target !== this.#button) {
      event.preventDefault();
      this.#pressed();
    }
  }

  /** @param {KeyboardEvent} event */
  #keyUp(event) {
    if (this.#heldSinceMs && [" ", "Enter"].includes(event.key)) {
      event.preventDefault();
      this.#letGo();
    }
  }

  /** @param {KeyboardEvent} event */
  #isOurs(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return false;
    const target = /** @type {Element} */ (event.target);
    if (target === this.#button) return event.key === " " || event.key === "Enter";
    return event.key === " " && !target.closest?.(TAKES_SPACE);
  }

  #hold() {
    if (this.#heldSinceMs || !this.wire.isOpen) return;
    this.#heldSinceMs = performance.now();
    this.app.interrupt();
    this.wire.send({ type: "input_audio_buffer.clear" });
    this.sound.isMuted = false;
    this.show();
  }

  #letGo() {
    if (!this.#heldSinceMs) return;
    const heldMs = performance.now() - this.#heldSinceMs;
    this.#heldSinceMs = 0;
    this.sound.changes.emit();
    if (heldMs < HELD_MS_MIN) {
      this.sound.isMuted = true;
      this.app.hint("Hold the button, or the space bar, for as long as you speak.");
      return;
    }
    setTimeout(() => {
      if (this.#heldSinceMs) return; // pressed again: it is one turn
      this.sound.isMuted = true;
      this.wire.send({ type: "input_audio_buffer.commit" });
      this.wire.send({ type: "response.create" });
    }, TAIL_MS);
  }
}
