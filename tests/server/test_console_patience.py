"""How often the console asks a server that does not want it: less and less, and not for ever."""

from __future__ import annotations

from typing import Any

from console_node import run

BROWSER = """
    let clock = 0;
    const performed = [];
    globalThis.performance = { now: () => clock };
    globalThis.window = { addEventListener() {} };
    globalThis.document = { baseURI: "http://127.0.0.1/" };
    // Time passes at once; what waits longer than any pause is a deadline, and never comes.
    const soon = setImmediate;
    globalThis.setTimeout = (run, ms) => {
      if (ms > 8000) return 0;
      performed.push(ms);
      soon(() => ((clock += ms), run()));
      return performed.length;
    };
    globalThis.clearTimeout = () => {};
    globalThis.AbortSignal = { timeout: () => undefined };
"""

CALLS = (
    BROWSER
    + """
    window.RTCPeerConnection = globalThis.RTCPeerConnection = class extends EventTarget {
      iceGatheringState = "complete"; connectionState = "connected"; localDescription = { sdp: "v=0" };
      addTransceiver() { return { sender: { async replaceTrack() {} } }; }
      createDataChannel() { return (this.channel = Object.assign(new EventTarget(), { readyState: "open" })); }
      async setLocalDescription() {}
      async setRemoteDescription() { soon(() => soon(() => this.lose())); }
      lose() { clock += lasts_ms; this.channel.dispatchEvent(new Event("close")); }
      close() {}
    };
    let calls = 0;
    globalThis.fetch = async (url) => {
      calls += String(url).endsWith("/calls");
      if (calls > calls_max) wire.close();
      return {
        ok: true, headers: new Map(), text: async () => "v=0",
        json: async () => ({ value: "ek_1", expires_at: 4e9 }),
      };
    };
"""
)


def calls_that_last(ms: int, *, calls_max: int) -> Any:
    """How many are made of calls that the server ends after so long, and how it comes out."""
    return run(
        f"""
        import {{ Wire }} from "wire.js";
        const lasts_ms = {ms}, calls_max = {calls_max};
        {CALLS}
        const wire = new Wire();
        const over = new Promise((resolve) => wire.states.listen(({{ name }}) => {{
          if (name === "failed" || name === "off") resolve(name);
        }}));
        await wire.open({{ key: "", wantsKey: false, model: "", isNew: true }});
        say({{ end: await over, calls, clock }});
        """
    )


def test_calls_that_end_as_soon_as_they_are_open_are_given_up() -> None:
    told = calls_that_last(0, calls_max=200)
    assert told["end"] == "failed"
    assert 30 <= told["calls"] <= 61
    assert told["clock"] / told["calls"] > 3_000, "a server that does not want to is not asked each moment"


def test_calls_that_last_are_opened_again_each_time_and_soon() -> None:
    told = calls_that_last(60_000, calls_max=200)
    assert (told["end"], told["calls"]) == ("off", 201), "it is the user who has enough"
    assert told["clock"] / told["calls"] < 61_250, "a second between two, and a quarter more at most"


def test_the_list_of_sessions_is_asked_for_by_one_timer_however_often_it_is_looked_at() -> None:
    told = run(
        """
        import { SessionList } from "panels.js";
        globalThis.Node = class {
          append() {} replaceChildren() {} setAttribute() {} addEventListener() {}
        };
        const element = () => new Node();
        globalThis.document = { baseURI: "http://127.0.0.1/", createElement: element, getElementById: element };
        globalThis.AbortSignal = { timeout: () => undefined };
        const pending = new Map();
        let timers = 0;
        globalThis.setTimeout = (run) => (pending.set(++timers, run), timers);
        globalThis.clearTimeout = (id) => pending.delete(id);
        let asked = 0;
        globalThis.fetch = async () => ({ ok: true, json: async () => ((asked += 1), { data: [] }) });
        const settled = () => new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
        const list = new SessionList(() => "");
        for (let n = 0; n < 5; n += 1) {
          list.watch(true);
          list.watch(false);
        }
        list.watch(true);
        await settled();
        const waiting = pending.size;
        for (const [id, run] of [...pending]) { pending.delete(id); run(); }
        await settled();
        say({ waiting, later: pending.size });
        """
    )
    assert told == {"waiting": 1, "later": 1}
