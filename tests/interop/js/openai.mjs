// A conversation through the npm package `openai`, driven from outside:
//
//     node openai.mjs ga|beta BASE_URL MODEL
//     node openai.mjs ga BASE_URL --transcription
//
// Each line of standard input is a client event to send, each line of standard output a server event as the client
// emitted it. Ends when standard input does.

import { createInterface } from "node:readline";

const [dialect, baseURL, model] = process.argv.slice(2);
const { default: OpenAI } = await import(dialect === "beta" ? "openai-4" : "openai");
const { OpenAIRealtimeWS } = await import(dialect === "beta" ? "openai-4/beta/realtime/ws" : "openai/realtime/ws");

const client = new OpenAI({ apiKey: "sk-any", baseURL });
const realtime = new OpenAIRealtimeWS(model === "--transcription" ? { intent: "transcription" } : { model }, client);
realtime.on("event", (event) => console.log(JSON.stringify(event)));
realtime.on("error", (error) => {
  // What the server said has been told as an event; what the client itself says has no such part.
  if (!error.error) throw error;
});
await new Promise((resolve) => realtime.socket.once("open", resolve));
for await (const line of createInterface({ input: process.stdin })) realtime.send(JSON.parse(line));
realtime.close();
