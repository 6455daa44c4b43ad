// Conversations through `@openai/agents-realtime`: a RealtimeAgent, its session, and the WebSocket transport with our URL.
//
//     node agents.mjs ws://127.0.0.1:PORT MODEL SLOW_MODEL
//
// Prints one JSON object: what each conversation left, by title. All but `defaults` choose server VAD or none.

import { OpenAIRealtimeWebSocket, RealtimeAgent, RealtimeSession, tool } from "@openai/agents-realtime";
import { z } from "zod";

const SECONDS_MAX = 20;
const RATE_HZ = 24_000;
const CHUNK_SAMPLES = RATE_HZ / 10;
const [url, model, slowModel] = process.argv.slice(2);

// The turn of heard.py: 400 ms of silence, a second of sound, a second of silence.
const turn = new Int16Array(2.4 * RATE_HZ);
for (let n = 0; n < RATE_HZ; n++) turn[0.4 * RATE_HZ + n] = Math.round(6000 * Math.sin((2 * Math.PI * 440 * n) / RATE_HZ));

const serverVad = { type: "server_vad", silenceDurationMs: 500, prefixPaddingMs: 300, interruptResponse: true };
const byVad = { audio: { input: { turnDetection: serverVad } } };
const byHand = { audio: { input: { turnDetection: null } } };

const getWeather = tool({
  name: "get_weather",
  description: "The weather in a city.",
  parameters: z.object({ city: z.string() }),
  execute: async ({ city }) => `18 degrees in ${city}`,
});

class Talk {
  told = { kinds: [], errors: [], tools: [], audio_bytes: 0, said: [] };
  waiting = [];

  constructor(session) {
    this.session = session;
    session.transport.on("*", (event) => this.heard(event.type));
    session.on("error", ({ error }) => {
      this.told.errors.push(error?.error?.error?.code ?? error?.error?.code ?? String(error));
      this.heard("session.error");
    });
    session.on("audio", (event) => {
      this.told.audio_bytes += event.data.byteLength;
      this.heard("session.audio");
    });
    session.on("audio_interrupted", () => this.heard("session.audio_interrupted"));
    session.on("agent_tool_end", (_context, _agent, _tool, output) => {
      this.told.tools.push(output);
      this.heard("session.tool_end");
    });
    session.on("history_updated", (history) => {
      this.told.said = history
        .filter((item) => item.type === "message")
        .flatMap((item) => item.content.map((part) => [item.role, part.transcript ?? part.text ?? ""]));
      this.heard("session.history_updated");
    });
  }

  heard(kind) {
    this.told.kinds.push(kind);
    this.waiting = this.waiting.filter((isOver) => !isOver());
  }

  // Waits look at all that has been heard so far, so that it does not matter when they begin.
  until(isDone) {
    if (isDone()) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const giveUp = () => reject(new Error(`waited in vain: ${JSON.stringify(this.told)}`));
      const alarm = setTimeout(giveUp, SECONDS_MAX * 1000);
      this.waiting.push(() => {
        if (!isDone()) return false;
        clearTimeout(alarm);
        resolve();
        return true;
      });
    });
  }

  untilKind(kind, times = 1) {
    return this.until(() => this.told.kinds.filter((heard) => heard === kind).length >= times);
  }

  untilSaid(role, text) {
    return this.until(() => this.told.said.some(([by, what]) => by === role && what === text));
  }

  speak({ commit = false } = {}) {
    for (let at = 0; at < turn.length; at += CHUNK_SAMPLES) {
      const isLast = at + CHUNK_SAMPLES >= turn.length;
      this.session.sendAudio(turn.slice(at, at + CHUNK_SAMPLES).buffer, { commit: commit && isLast });
    }
  }
}

async function written(talk) {
  talk.session.sendMessage("Good morning");
  await talk.untilSaid("assistant", "echo: Good morning");
  await talk.untilKind("response.done");
}

// Every setting as the SDK has it, which lets the meaning of the words end the turn.
async function defaults(talk) {
  talk.speak();
  await talk.untilKind("response.done");
  await talk.until(() => talk.told.said.length === 2 && talk.told.said.every(([, text]) => text !== ""));
}

async function spoken(talk) {
  talk.speak();
  await talk.untilSaid("user", "audio of 1800 ms");
  await talk.untilSaid("assistant", "echo: audio of 1800 ms");
  await talk.untilKind("response.done");
}

async function manual(talk) {
  talk.speak({ commit: true });
  talk.session.transport.requestResponse();
  await talk.untilSaid("user", "audio of 2400 ms");
  await talk.untilSaid("assistant", "echo: audio of 2400 ms");
  await talk.untilKind("response.done");
}

async function calling(talk) {
  talk.session.sendMessage('call get_weather {"city": "Paris"}');
  await talk.untilSaid("assistant", "tool said: 18 degrees in Paris");
  await talk.untilKind("response.done", 2);
}

async function cancelled(talk) {
  talk.session.sendMessage("Tell me everything.");
  await talk.untilKind("session.audio");
  talk.session.interrupt();
  await talk.untilKind("response.done");
  await talk.untilKind("conversation.item.truncated");
}

async function bargedIn(talk) {
  talk.session.sendMessage("Tell me everything.");
  await talk.untilKind("session.audio");
  talk.speak();
  await talk.untilKind("conversation.item.truncated");
  await talk.untilKind("session.audio", 2);
}

async function mistaken(talk) {
  talk.session.transport.sendEvent({ type: "input_audio_buffer.commit" });
  await talk.untilKind("session.error");
  await written(talk);
}

const text = { outputModalities: ["text"] };
const conversations = {
  defaults: [defaults, model, {}],
  written: [written, model, { ...byVad, ...text }],
  spoken: [spoken, model, byVad],
  manual: [manual, model, byHand],
  calling: [calling, model, byVad],
  cancelled: [cancelled, slowModel, byHand],
  barged_in: [bargedIn, slowModel, byVad],
  mistaken: [mistaken, model, { ...byVad, ...text }],
};

async function hold([converse, model, config]) {
  const agent = new RealtimeAgent({ name: "interop", instructions: "Be brief.", tools: [getWeather] });
  const transport = new OpenAIRealtimeWebSocket({ url: `${url}/v1/realtime?model=${model}`, useInsecureApiKey: true });
  const session = new RealtimeSession(agent, { transport, model, config });
  const talk = new Talk(session);
  await session.connect({ apiKey: "sk-any" });
  try {
    await converse(talk);
    return talk.told;
  } catch (error) {
    return { failed: String(error) };
  } finally {
    session.close();
  }
}

const told = {};
for (const [title, conversation] of Object.entries(conversations)) told[title] = await hold(conversation);
console.log(JSON.stringify(told));
