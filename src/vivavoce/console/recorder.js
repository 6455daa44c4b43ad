/**
 * On the audio thread: one track down to 24 kHz, handed over in pieces of a tenth of a second as PCM16.
 *
 * Each sample out is the mean of the samples in that it stands for, which is filter enough for listening again.
 */

const RATE_HZ = 24_000;
const PIECE_SAMPLES = RATE_HZ / 10;

class Recorder extends AudioWorkletProcessor {
  #piece = new Int16Array(PIECE_SAMPLES);
  #filled = 0;
  #sum = 0;
  #count = 0;
  #phase = 0;

  /** @param {Float32Array[][]} inputs */
  process([channels]) {
    for (const sample of channels?.[0] ?? []) {
      this.#sum += sample;
      this.#count += 1;
      this.#phase += RATE_HZ;
      if (this.#phase >= sampleRate) {
        this.#phase -= sampleRate;
        this.#put(this.#sum / this.#count);
        this.#sum = this.#count = 0;
      }
    }
    return true;
  }

  /** @param {number} sample */
  #put(sample) {
    this.#piece[this.#filled++] = Math.round(Math.max(-1, Math.min(1, sample)) * 32_767);
    if (this.#filled < PIECE_SAMPLES) return;
    this.port.postMessage(this.#piece.buffer, [this.#piece.buffer]);
    this.#piece = new Int16Array(PIECE_SAMPLES);
    this.#filled = 0;
  }
}

registerProcessor("recorder", Recorder);
