/**
 * Both voices as a score of two parts: the user's above the line, in ink; the assistant's below, in the accent.
 *
 * What is drawn is what was measured, one bar for each twentieth of a second; an interruption is seen as it was. Where
 * the user wants less motion, bars stand still and only the last moment's height is shown.
 */

import { byId } from "./dom.js";

const BAR_MS = 50;
const BAR_PX = 3;
const STEP_PX = 5;
/** How often the meters for readers of screens are told. */
const METER_MS = 250;

export class Score {
  #canvas = byId("score");
  #meters = { user: byId("level-user"), assistant: byId("level-assistant") };
  /** @type {{user: number, assistant: number}[]} the latest last */
  #bars = [];
  #now = { user: 0, assistant: 0 };
  #barBeganMs = 0;
  #metersSetMs = 0;
  #wasQuiet = false;
  #still = matchMedia("(prefers-reduced-motion: reduce)");

  /** @param {import("./sound.js").Sound} sound */
  constructor(sound) {
    this.sound = sound;
    this.draws = () => true;
    new ResizeObserver(() => this.#fit()).observe(this.#canvas);
    requestAnimationFrame((now) => this.#tick(now));
  }

  /** Colours may have changed. */
  repaint() {
    this.#paint();
  }

  #fit() {
    const { clientWidth, clientHeight } = this.#canvas;
    this.#canvas.width = Math.round(clientWidth * devicePixelRatio);
    this.#canvas.height = Math.round(clientHeight * devicePixelRatio);
    this.#paint();
  }

  /** @param {number} now */
  #tick(now) {
    requestAnimationFrame((next) => this.#tick(next));
    for (const side of /** @type {const} */ (["user", "assistant"])) {
      this.#now[side] = Math.max(this.#now[side], this.sound.level(side));
    }
    if (now - this.#barBeganMs < BAR_MS) return;
    this.#barBeganMs = now;
    const isQuiet = this.#now.user + this.#now.assistant === 0;
    const shown = Math.ceil(this.#canvas.clientWidth / STEP_PX);
    const wasStill = this.#wasQuiet && isQuiet && !this.draws();
    this.#wasQuiet = isQuiet;
    document.body.style.setProperty("--loud", this.#now.user.toFixed(2));
    if (now - this.#metersSetMs > METER_MS) this.#setMeters(now);
    if (!wasStill) {
      this.#bars.push({ ...this.#now });
      this.#bars.splice(0, this.#bars.length - shown);
      this.#paint();
    }
    this.#now = { user: 0, assistant: 0 };
  }

  /** @param {number} now */
  #setMeters(now) {
    this.#metersSetMs = now;
    for (const side of /** @type {const} */ (["user", "assistant"])) {
      const percent = Math.round(this.#now[side] * 100);
      this.#meters[side].setAttribute("aria-valuenow", String(percent));
      this.#meters[side].style.setProperty("--level", String(percent));
    }
  }

  #paint() {
    const context = this.#canvas.getContext("2d");
    const { width, height } = this.#canvas;
    if (!context || width === 0) return;
    const ratio = devicePixelRatio;
    const style = getComputedStyle(this.#canvas);
    const [ink, accent, line] = ["--ink", "--accent", "--line-2"].map((name) => style.getPropertyValue(name));
    const middle = height / 2;
    context.clearRect(0, 0, width, height);
    context.fillStyle = line;
    context.fillRect(0, Math.round(middle - ratio / 2), width, Math.max(1, ratio));
    const reach = middle - 4 * ratio;
    const bars = this.#still.matches ? Array(12).fill(this.#bars.at(-1) ?? { user: 0, assistant: 0 }) : this.#bars;
    bars.forEach((bar, index) => {
      const x = width - (bars.length - index) * STEP_PX * ratio;
      for (const [level, colour, side] of /** @type {const} */ ([[bar.user, ink, -1], [bar.assistant, accent, 1]])) {
        const tall = Math.round(level ** 1.3 * reach);
        if (tall < ratio) continue;
        context.fillStyle = colour;
        context.beginPath();
        const top = side < 0 ? middle - tall - 2 * ratio : middle + 2 * ratio;
        context.roundRect(x, top, BAR_PX * ratio, tall, 1.5 * ratio);
        context.fill();
      }
    });
  }
}
