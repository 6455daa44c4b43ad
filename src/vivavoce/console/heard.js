/**
 * How much of a spoken text was heard, when it was cut off after so many milliseconds.
 *
 * The server takes the transcript of a truncated item away and says only where the sound ended. The page has shown the
 * words already, so it keeps them and draws the line: by the share of the speech, where it is known how long that was,
 * and else by how fast this voice has spoken so far. Words are never cut in two.
 */

/** Milliseconds of speech that one token of output audio stands for. */
export const AUDIO_TOKEN_MS = 50;

/** How fast people speak, until this voice has shown how fast it does. */
export const MS_PER_CHAR = 64;

/**
 * The number of characters of `text` that were heard.
 *
 * @param {string} text what was shown
 * @param {number} heardMs where the sound was cut
 * @param {number} totalMs how long the speech of the text is
 */
export function heardChars(text, heardMs, totalMs) {
  if (heardMs <= 0 || !text) return 0;
  if (heardMs >= totalMs) return text.length;
  const share = (text.length * heardMs) / totalMs;
  let end = 0;
  // Words as every language has them, with or without spaces; what stands between them belongs to the one before.
  for (const { index, segment, isWordLike } of new Intl.Segmenter(undefined, { granularity: "word" }).segment(text)) {
    if (index + segment.length > share) break;
    if (isWordLike || segment.trim()) end = index + segment.length;
  }
  return end;
}

/** How fast a voice speaks, learned from answers that were played to their end. */
export class Pace {
  #chars = 0;
  #ms = 0;

  /** @param {number} chars @param {number} ms */
  learn(chars, ms) {
    if (chars > 0 && ms > 0) {
      this.#chars += chars;
      this.#ms += ms;
    }
  }

  /** How long so many characters take. @param {number} chars */
  ms(chars) {
    return chars * (this.#chars ? this.#ms / this.#chars : MS_PER_CHAR);
  }
}
