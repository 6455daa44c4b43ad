// A conversation through the npm package `openai`, driven from outside:
//
//     node openai.mjs ga|beta openai|azure https://127.0.0.1:PORT MODEL
//     node openai.mjs ga openai|azure https://127.0.0.1:PORT --transcription
//
// Each line of standard input is a client event to send, each line of standard output a server event as the client
// emitted it. Ends when standard input does.

import { createInterface } from "node:readline";

const [dialect, service, url, model] = process.argv.slice(2);
const { default: OpenAI, AzureOpenAI } = await import(dialect === "beta" ? "openai-4" : "openai");
const { OpenAIRealtimeWS } = await import(dialect === "beta" ? "openai-4/beta/realtime/ws" : "openai/realtime/ws");

function connect() {
  const isTranscription = model === "--transcription";
  if (service === "azure") {
    const client = new AzureOpenAI({ apiKey: "any", endpoint: url, apiVersion: "2025-04-01-preview" });
    return OpenAIRealtimeWS.azure(client, isTranscription ? { intent: "transcription" } : { deploymentName: model });
  }
  const client = new OpenAI({ apiKey: "sk-any", baseURL: `${url}/v1` });
  return new OpenAIRealtimeWS(isTranscription ? { intent: "transcription" } : { model }, client);
}

const realtime = await connect();
realtime.on("event", (event) => console.log(JSON.stringify(event)));
realtime.on("error", (error) => {
  // What the server said has been told as an event; what the client itself says has no such part.
  if (!error.error) throw error;
});
await new Promise((resolve) => realtime.socket.once("open", resolve));
for await (const line of createInterface({ input: process.stdin })) realtime.send(JSON.parse(line));
realtime.close();
