// What the page of `test_agents_in_browser.py` is: `@openai/agents-realtime` as its bundle, with the WebRTC transport, and
// a record of what its session told. `begin` opens the session; the test then uses `session` as a page's own code would.

import { RealtimeAgent, RealtimeSession, tool } from "/bundle/openai-realtime-agents.mjs";

const getWeather = tool({
  name: "get_weather",
  description: "The weather in a city.",
  strict: false,
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: true },
  execute: async ({ city }) => `18 degrees in ${city}`,
});

const told = { kinds: [], wire: [], tools: [], errors: [], said: [], callId: "" };

async function begin({ apiKey, url, model }) {
  const agent = new RealtimeAgent({ name: "interop", instructions: "Be brief.", tools: [getWeather] });
  const turnDetection = { type: "server_vad", silenceDurationMs: 500, prefixPaddingMs: 300, interruptResponse: true };
  const session = new RealtimeSession(agent, {
    transport: "webrtc",
    model,
    config: { audio: { input: { turnDetection, transcription: { model: "whisper-1" } } } },
  });
  session.transport.on("*", (event) => {
    told.kinds.push(event.type);
    told.wire.push(JSON.stringify(event));
  });
  session.on("error", ({ error }) => told.errors.push(JSON.stringify(error)));
  session.on("agent_tool_end", (_context, _agent, _tool, output) => told.tools.push(output));
  session.on("history_updated", (history) => {
    told.said = history
      .filter((item) => item.type === "message")
      .flatMap((item) => item.content.map((part) => [item.role, part.transcript ?? part.text ?? "", item.status]));
  });
  window.session = session;
  await session.connect({ apiKey, url });
  told.callId = session.transport.callId;
  const [voice] = session.transport.connectionState.peerConnection.getReceivers();
  document.getElementById("loudspeaker").srcObject = new MediaStream([voice.track]);
}

const wire = (type) => told.wire.map((event) => JSON.parse(event)).filter((event) => event.type === type);

Object.assign(window, { begin, told, wire });
