/**
 * What the session has used, as the server's own figures say, and what that costs where prices are known.
 *
 * A fold over `response.done` and the transcriptions, each counted once however often the server says it. Prices are
 * those of the server's settings, in US dollars per million tokens.
 */

/**
 * @typedef {object} Spent
 * @property {number} textIn without what came from a cache
 * @property {number} audioIn
 * @property {number} imageIn
 * @property {number} cached
 * @property {number} textOut
 * @property {number} audioOut
 * @property {number} transcribedS seconds of audio that was transcribed
 * @property {number} cost
 */

/** @typedef {Record<string, Record<string, number>>} Prices */

const MILLION = 1_000_000;

export class UsageCount {
  /** @type {Prices} */
  prices = {};
  total = nothing();
  responses = 0;
  #model = "";
  #transcriber = "";
  /** @type {Set<string>} */
  #counted = new Set();
  /** @type {Set<string>} */
  #unpriced = new Set();

  /** Whether it has changed. @param {any} event @returns {boolean} */
  apply(event) {
    switch (event.type) {
      case "session.created":
      case "session.updated":
        this.#model = event.session.model ?? this.#model;
        this.#transcriber = event.session.audio?.input?.transcription?.model ?? "";
        return true;
      case "response.done":
        return this.#once(event.response.id, () => {
          this.responses += 1;
          this.#add(tokensOf(event.response.usage), this.#model);
        });
      case "conversation.item.input_audio_transcription.completed":
        return this.#once(`${event.item_id}/${event.content_index}`, () => this.#transcribed(event.usage));
      default:
        return false;
    }
  }

  /** Models that were used and have no price here. */
  get unpriced() {
    return [...this.#unpriced];
  }

  clear() {
    this.total = nothing();
    this.responses = 0;
    this.#counted.clear();
    this.#unpriced.clear();
  }

  /** @param {string} key @param {() => void} count */
  #once(key, count) {
    if (this.#counted.has(key)) return false;
    this.#counted.add(key);
    count();
    return true;
  }

  /** @param {any} usage */
  #transcribed(usage) {
    const spent = usage?.type === "duration" ? { ...nothing(), transcribedS: usage.seconds } : tokensOf(usage);
    this.#add(spent, this.#transcriber);
  }

  /** @param {Spent} spent @param {string} model */
  #add(spent, model) {
    const price = this.prices[model];
    if (price) spent.cost = costOf(spent, price);
    else if (Object.values(spent).some((value) => value > 0)) this.#unpriced.add(model || "transcription");
    for (const name of /** @type {(keyof Spent)[]} */ (Object.keys(spent))) this.total[name] += spent[name];
  }
}

/** @returns {Spent} */
function nothing() {
  return { textIn: 0, audioIn: 0, imageIn: 0, cached: 0, textOut: 0, audioOut: 0, transcribedS: 0, cost: 0 };
}

/** @param {any} usage @returns {Spent} */
function tokensOf(usage) {
  if (!usage) return nothing();
  const into = usage.input_token_details ?? {};
  const out = usage.output_token_details ?? {};
  const cached = into.cached_tokens ?? 0;
  const audioCached = into.cached_tokens_details?.audio_tokens ?? 0;
  const audioIn = (into.audio_tokens ?? 0) - audioCached;
  const imageIn = into.image_tokens ?? 0;
  const textIn = into.text_tokens ?? (usage.input_tokens ?? 0) - (into.audio_tokens ?? 0) - imageIn;
  return {
    ...nothing(),
    textIn: Math.max(0, textIn - (cached - audioCached)),
    audioIn,
    imageIn,
    cached,
    textOut: out.text_tokens ?? (usage.output_tokens ?? 0) - (out.audio_tokens ?? 0),
    audioOut: out.audio_tokens ?? 0,
  };
}

/** @param {Spent} spent @param {Record<string, number>} price */
function costOf(spent, price) {
  const dear =
    spent.textIn * price.text_in +
    spent.audioIn * price.audio_in +
    spent.imageIn * price.image_in +
    spent.cached * price.text_cached +
    spent.textOut * price.text_out +
    spent.audioOut * price.audio_out;
  return dear / MILLION + (spent.transcribedS / 60) * price.transcription_minute;
}
