"""What the console keeps of a call of many hours: no more than its limits say."""

from __future__ import annotations

from console_node import FOLDER, run

PAGE = """
    const elements = new Map();
    globalThis.Node = class {
      children = []; value = ""; checked = true; style = { setProperty() {} }; listeners = {};
      get childElementCount() { return this.children.length; }
      get firstElementChild() { return this.children[0]; }
      get lastElementChild() { return this.children.at(-1); }
      append(...nodes) { for (const node of nodes) this.children.push(Object.assign(Object(node), { parent: this })); }
      prepend(node) { node.parent = this; this.children.unshift(node); }
      replaceChildren(...nodes) { this.children = []; this.append(...nodes.filter((node) => node instanceof Node)); }
      remove() { this.parent.children.splice(this.parent.children.indexOf(this), 1); }
      querySelector() { return null; }
      setAttribute() {} removeAttribute() {}
      addEventListener(type, run) { this.listeners[type] = run; }
    };
    const element = (id) => elements.get(id) ?? elements.set(id, new Node()).get(id);
    globalThis.document = { createElement: () => new Node(), getElementById: element };
    globalThis.requestAnimationFrame = () => 0;
    globalThis.setTimeout = () => 0;
    globalThis.reportError = (error) => { throw error; };
"""


def test_the_waterfall_forgets_turns_that_it_shows_no_more() -> None:
    largest = run(
        PAGE
        + f"""
        const made = [];
        globalThis.Map = class extends Map {{ constructor(...from) {{ super(...from); made.push(this); }} }};
        const {{ Timing, TURNS_MAX }} = await import("{(FOLDER / "timing.js").as_uri()}");
        const {{ Waterfall }} = await import("{(FOLDER / "waterfall.js").as_uri()}");
        const timing = new Timing();
        new Waterfall(timing);
        for (let n = 0; n < 4 * TURNS_MAX; n += 1) {{
          timing.apply("client", {{ type: "response.create" }}, n, null);
          timing.apply("server", {{ type: "response.created", response: {{ id: `r${{n}}` }} }}, n, null);
        }}
        say({{ kept: Math.max(...made.map((map) => map.size)), shown: element("turns").childElementCount }});
        """
    )
    assert largest == {"kept": 50, "shown": 50}


def test_the_inspector_keeps_only_so_much_of_long_messages() -> None:
    copied = run(
        """
        import { CHARS_MAX, Inspector, MESSAGES_MAX } from "inspector.js";
        """
        + PAGE
        + """
        let copied = "";
        const clipboard = { writeText: async (text) => (copied = text) };
        Object.defineProperty(globalThis, "navigator", { value: { clipboard } });
        const inspector = new Inspector();
        element("events-filter").value = element("events-dir").value = "";
        const picture = "x".repeat(200_000);
        const many = Math.ceil(CHARS_MAX / picture.length) + 20;
        for (let n = 0; n < many; n += 1) {
          inspector.add({ dir: "client", event: { type: "t" }, text: `${n} ${picture}`, now: n });
        }
        element("events-copy").listeners.click({ currentTarget: new Node() });
        await undefined;
        say({ fits: copied.length <= CHARS_MAX, last: copied.includes(`\\n${many - 1} x`), few: many < MESSAGES_MAX });
        """
    )
    assert copied == {"fits": True, "last": True, "few": True}
