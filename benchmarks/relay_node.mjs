// The reference of `relay.py`: the least that a relay with `ws` can be. Prints its address in a line.
import { WebSocket, WebSocketServer } from "ws";

const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: false });
server.on("listening", () => console.log(`ws://127.0.0.1:${server.address().port}`));
server.on("connection", (client, request) => {
  const service = new WebSocket(process.argv[2] + request.url, { perMessageDeflate: false });
  const early = [];
  client.on("message", (data, binary) => {
    if (service.readyState === WebSocket.OPEN) service.send(data, { binary });
    else early.push([data, binary]);
  });
  service.on("open", () => early.forEach(([data, binary]) => service.send(data, { binary })));
  service.on("message", (data, binary) => client.send(data, { binary }));
  client.on("close", () => service.close());
  service.on("close", () => client.close());
});
