/**
 * The one way in which the parts of the page hear of each other.
 *
 * A `Signal` has listeners, who are told in the order in which they came. What one of them throws is not kept from
 * anybody: it goes to the browser's console, and the others are told all the same.
 */

/** @template T */
export class Signal {
  /** @type {Set<(value: T) => void>} */
  #listeners = new Set();

  /**
   * @param {(value: T) => void} listener
   * @returns {() => void} ends it
   */
  listen(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** @param {T} value */
  emit(value) {
    for (const listener of [...this.#listeners]) {
      try {
        listener(value);
      } catch (error) {
        reportError(error);
      }
    }
  }
}
