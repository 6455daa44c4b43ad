/**
 * Writing instead of speaking: a message field that grows, and pictures by choice, drop or paste.
 *
 * A message of the call has a largest size, so pictures are made small enough here, in the browser, before they go.
 */

import { byId, h, icon } from "./dom.js";

const PICTURES_MAX = 4;
/** Longest side of a picture that is sent; smaller ones follow where it does not fit into a message. */
const SIDES_PX = [1280, 960, 720, 512, 360];
const QUALITIES = [0.85, 0.7, 0.5];
/** What a message needs besides its pictures and its text. */
const ROOM_BYTES = 1024;

export class Composer {
  #form = byId("composer");
  #text = byId("text");
  #send = byId("send");
  #list = byId("pictures");
  #problem = byId("text-problem");
  /** @type {Blob[]} */
  #pictures = [];
  #isSending = false;

  /**
   * @param {{submit: (text: string, images: string[]) => Promise<void>, bytesMax: () => number}} to
   *   `submit` rejects with words for the user
   */
  constructor(to) {
    this.to = to;
    this.#form.addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#text.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#submit();
    });
    this.#text.addEventListener("input", () => this.#changed());
    const file = byId("file");
    byId("attach").addEventListener("click", () => file.click());
    file.addEventListener("change", () => {
      this.#add(file.files);
      file.value = "";
    });
    this.#text.addEventListener("paste", (/** @type {ClipboardEvent} */ event) => this.#add(event.clipboardData?.files));
    this.#takeDrops();
    this.#changed();
    let width = 0;
    new ResizeObserver(([{ contentRect }]) => {
      if (contentRect.width !== width) this.#fit();
      width = contentRect.width;
    }).observe(this.#text);
  }

  #takeDrops() {
    const stage = byId("talk-view");
    const isDropping = (/** @type {boolean} */ is) => this.#form.classList.toggle("dropping", is);
    stage.addEventListener("dragover", (/** @type {DragEvent} */ event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      isDropping(true);
    });
    stage.addEventListener("dragleave", (/** @type {DragEvent} */ event) => {
      if (!stage.contains(/** @type {Node} */ (event.relatedTarget))) isDropping(false);
    });
    stage.addEventListener("drop", (/** @type {DragEvent} */ event) => {
      if (!event.dataTransfer?.files.length) return;
      event.preventDefault();
      isDropping(false);
      this.#add(event.dataTransfer.files);
    });
  }

  /** @param {Iterable<File> | null | undefined} files */
  #add(files) {
    const pictures = [...(files ?? [])].filter((file) => file.type.startsWith("image/"));
    if (!pictures.length) return;
    this.#pictures = [...this.#pictures, ...pictures].slice(0, PICTURES_MAX);
    this.#show();
    this.#text.focus();
  }

  #show() {
    for (const image of this.#list.querySelectorAll("img")) URL.revokeObjectURL(image.src);
    const items = this.#pictures.map((picture, index) => {
      const remove = () => {
        this.#pictures.splice(index, 1);
        this.#show();
        this.#text.focus();
      };
      const button = h("button", { type: "button", class: "plain", "aria-label": `Remove picture ${index + 1}`, onclick: remove }, icon("close"));
      return h("li", {}, h("img", { src: URL.createObjectURL(picture), alt: `Picture ${index + 1}` }), button);
    });
    this.#list.replaceChildren(...items);
    this.#list.hidden = items.length === 0;
    this.#changed();
  }

  /** As high as what is written, at the width that there is. */
  #fit() {
    this.#text.style.height = "auto";
    this.#text.style.height = `${this.#text.scrollHeight}px`;
  }

  #changed() {
    this.#fit();
    this.#send.disabled = this.#isSending || (!this.#text.value.trim() && this.#pictures.length === 0);
    this.#complain("");
  }

  /** @param {string} problem */
  #complain(problem) {
    this.#problem.textContent = problem;
    this.#problem.hidden = !problem;
  }

  async #submit() {
    const text = this.#text.value.trim();
    if (this.#isSending || (!text && this.#pictures.length === 0)) return;
    this.#isSending = true;
    this.#send.disabled = true;
    const pictures = [...this.#pictures];
    let problem = "";
    try {
      const room = this.to.bytesMax() - ROOM_BYTES - 2 * new TextEncoder().encode(text).length;
      const images = [];
      for (const picture of pictures) images.push(await fitted(picture, room / pictures.length));
      await this.to.submit(text, images);
      // To begin a call takes a moment, in which one may go on writing.
      if (this.#text.value.trim() === text) this.#text.value = "";
      this.#pictures = this.#pictures.filter((picture) => !pictures.includes(picture));
    } catch (error) {
      problem = error instanceof Error ? error.message : String(error);
    }
    this.#isSending = false;
    this.#show();
    this.#complain(problem);
  }
}

/** A picture as a data URL of at most so many bytes. @param {Blob} picture @param {number} bytesMax @returns {Promise<string>} */
async function fitted(picture, bytesMax) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(picture);
  } catch {
    throw new Error("This file is no picture that the browser can read.");
  }
  for (const side of SIDES_PX) {
    for (const quality of QUALITIES) {
      const url = drawn(bitmap, side, quality);
      if (url.length <= bytesMax) return url;
    }
  }
  throw new Error("The picture does not fit into a message. Send it alone, or a smaller one.");
}

/** @param {ImageBitmap} bitmap @param {number} side @param {number} quality */
function drawn(bitmap, side, quality) {
  const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const canvas = h("canvas", { width: Math.max(1, Math.round(bitmap.width * scale)), height: Math.max(1, Math.round(bitmap.height * scale)) });
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/jpeg", quality);
}
