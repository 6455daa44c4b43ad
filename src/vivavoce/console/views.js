/** Which view is looked at, and in which colours: tabs as the ARIA pattern has them, and the switch of the theme. */

import { Signal } from "./signal.js";
import { byId } from "./dom.js";

const NARROW = matchMedia("(max-width: 60rem)");
const THEMES = /** @type {const} */ (["system", "light", "dark"]);
const STORED = "vivavoce.theme";

export class Views {
  /** @type {Signal<string>} */
  changes = new Signal();
  /** @type {HTMLButtonElement[]} */
  #tabs = [...byId("tabs").querySelectorAll("[role=tab]")];
  /** The view that stands beside the conversation where there is room for both. */
  #beside = "session";

  constructor() {
    for (const tab of this.#tabs) tab.addEventListener("click", () => this.show(tab.dataset.view ?? ""));
    byId("tabs").addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.#move(event));
    NARROW.addEventListener("change", () => this.#arrange());
    this.#arrange();
  }

  /** A window that is made narrow shows the conversation; one that is made wide, beside it what was looked at last. */
  #arrange() {
    this.show(NARROW.matches ? "talk" : this.#beside);
  }

  /** @param {string} view */
  show(view) {
    document.body.dataset.view = view;
    if (view !== "talk") this.#beside = view;
    for (const tab of this.#tabs) {
      const isShown = tab.dataset.view === view;
      tab.setAttribute("aria-selected", String(isShown));
      tab.tabIndex = isShown ? 0 : -1;
      if (tab.dataset.view !== "talk") byId(tab.getAttribute("aria-controls") ?? "").hidden = !isShown;
    }
    this.changes.emit(view);
  }

  /** @param {KeyboardEvent} event */
  #move(event) {
    const shown = this.#tabs.filter((tab) => tab.offsetParent !== null);
    const index = shown.findIndex((tab) => tab.getAttribute("aria-selected") === "true");
    /** @type {Record<string, number>} */
    const to = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: shown.length - 1 };
    if (!(event.key in to)) return;
    event.preventDefault();
    const tab = shown[(to[event.key] + shown.length) % shown.length];
    this.show(tab.dataset.view ?? "");
    tab.focus();
  }
}

/** The switch of the colours; the choice is the one thing that the page stores. @param {() => void} changed */
export function switchThemes(changed) {
  const button = byId("theme");
  let theme = stored();
  const apply = () => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.setAttribute("aria-label", `Colours: ${theme === "system" ? "as the system" : theme}`);
    button.title = button.getAttribute("aria-label");
    changed();
  };
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    try {
      localStorage.setItem(STORED, theme);
    } catch {
      // A browser that stores nothing keeps it until the page is closed.
    }
    apply();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
  apply();
}

/** @returns {typeof THEMES[number]} */
function stored() {
  try {
    return THEMES.find((theme) => theme === localStorage.getItem(STORED)) ?? "system";
  } catch {
    return "system";
  }
}
