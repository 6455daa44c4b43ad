"""The test server: any client, in any language, meets what the test has said, and nothing of it is left behind."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI, AuthenticationError, OpenAI
from plain_client import Event, connected, text_of, types
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from vivavoce.engines import Prompt
from vivavoce.engines.scripted import ScriptedSettings
from vivavoce.errors import SettingsError
from vivavoce.testing.directions import NATURAL, QUEUE_MAX, Directions
from vivavoce.testing.real_server import RealServer
from vivavoce.testing.record import MESSAGES_MAX, Record, SeenConnection
from vivavoce.testing.sounds import silence, tone

SECONDS_MAX = 60


@pytest.fixture
def server(realtime_server: RealServer) -> RealServer:
    return realtime_server


def answered(server: RealServer, *questions: str) -> list[str]:
    with connected(server) as client:
        said = []
        for question in questions:
            client.ask(question)
            said.append(text_of(client.until("response.done")[-1]))
        return said


# --- any client -------------------------------------------------------------------------------------------------------


def test_a_plain_client_hears_what_the_test_says(server: RealServer) -> None:
    server.answers("It is sunny.", "You are welcome.")
    assert answered(server, "Weather?", "Thanks!", "Bye.") == ["It is sunny.", "You are welcome.", "echo: Bye."]


def test_the_public_client_holds_a_conversation(server: RealServer) -> None:
    server.calls("weather", {"city": "Oslo"}, saying="Let me look.")
    server.answers("It rains in Oslo.")

    async def answer(connection: Any) -> Any:
        await connection.response.create()
        while (event := await connection.recv()).type != "response.done":
            pass
        return event.response.output

    async def main() -> tuple[str, str]:
        client = AsyncOpenAI(base_url=server.url, api_key=server.api_key)
        async with client, client.realtime.connect(model="gpt-realtime") as connection:
            await connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
            call = (await answer(connection))[-1]
            output = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
            await connection.conversation.item.create(item=output)
            (message,) = await answer(connection)
            await server.wait_for_async("response.done", count=2)
            return call.arguments, message.content[0].text

    assert asyncio.run(main()) == ('{"city": "Oslo"}', "It rains in Oslo.")
    assert [item["item"]["output"] for item in server.received("conversation.item.create")] == ["rain"]


def test_the_public_client_is_found_by_the_environment(server: RealServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    with OpenAI() as client, client.realtime.connect(model="gpt-realtime") as connection:
        assert connection.recv().type == "session.created"


NODE = """
const socket = new WebSocket(process.env.REALTIME_URL + "?model=gpt-realtime",
  ["realtime", "openai-insecure-api-key." + process.env.REALTIME_API_KEY]);
const say = (event) => socket.send(JSON.stringify(event));
socket.onmessage = (message) => {
  const event = JSON.parse(message.data);
  if (event.type === "session.created") say({type: "response.create", response: {output_modalities: ["text"]}});
  if (event.type === "response.output_text.done") { console.log(event.text); socket.close(); }
};
"""


def node(program: str, *arguments: str) -> list[str]:
    """The command that runs a program by a Node that has WebSocket: 22 has it, 20 where it is asked for it."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("no node on this machine")
    command = [found, "--experimental-websocket", "-e"]
    if subprocess.run([*command, "WebSocket"], capture_output=True, timeout=SECONDS_MAX, check=False).returncode:
        pytest.skip("the node of this machine has no WebSocket")
    return [*command, program, *arguments]


def test_a_program_of_another_language_finds_it(server: RealServer) -> None:
    server.answers("Hello from Python.")
    done = subprocess.run(
        node(NODE),
        env={**os.environ, **server.environment},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.stdout == "Hello from Python.\n", done.stderr
    assert types([dict(event) for event in server.received()]) == ["response.create"]


def test_who_has_no_key_is_refused(server: RealServer) -> None:
    with connect(f"{server.websocket_url}?model=x") as socket:
        assert json.loads(socket.recv())["error"]["message"].startswith("Missing bearer authentication")
    with OpenAI(base_url=server.url, api_key="sk-wrong", max_retries=0) as client, pytest.raises(AuthenticationError):
        client.realtime.client_secrets.create()  # plain HTTP passes by the wires


def test_a_server_may_be_open_to_everybody() -> None:
    with RealServer(api_key=None) as server, connect(f"{server.websocket_url}?model=x") as socket:
        assert json.loads(socket.recv())["type"] == "session.created"
        assert server.api_key == ""


# --- speech -----------------------------------------------------------------------------------------------------------


def speak(client: Any, audio: bytes) -> None:
    client.send("input_audio_buffer.append", audio=base64.b64encode(audio).decode())


@pytest.mark.parametrize("detection", ["server_vad", "semantic_vad"])
def test_speech_is_heard_as_the_test_says(server: RealServer, detection: str) -> None:
    server.hears("What is the weather?", "Thank you.")
    heard: list[str] = []
    with connected(server) as client:
        turn_detection = {"type": detection, "create_response": False}
        into = {"turn_detection": turn_detection, "transcription": {"model": "any"}}
        client.send("session.update", session={"type": "realtime", "audio": {"input": into}})
        for _ in range(3):
            speak(client, tone(400) + silence(1_000))
            heard.append(client.until("conversation.item.input_audio_transcription.completed")[-1]["transcript"])
    assert heard[:2] == ["What is the weather?", "Thank you."]
    assert heard[2].startswith("audio of ")
    assert server.script.unused == (0, 0)


# --- what engines do --------------------------------------------------------------------------------------------------


def test_an_answer_may_depend_on_what_was_said(server: RealServer) -> None:
    def count(prompt: Prompt) -> str:
        return f"{len(prompt.items)} items"

    server.answers(count)
    assert answered(server, "hello") == ["1 items"]


def test_an_engine_fails_when_it_is_told_to(server: RealServer) -> None:
    server.behave(language_model=ScriptedSettings(fail_at_piece=1))
    with connected(server) as client:
        client.ask("hello")
        assert client.until("response.done")[-1]["response"]["status"] == "failed"
        server.behave(pace=0)
        client.ask("hello")
        assert client.until("response.done")[-1]["response"]["status"] == "completed"


def test_pace_multiplies_the_delays_of_all_engines() -> None:
    directions = Directions()
    assert directions.behaviour.language_model.first_delay_s == 0
    directions.behave(pace=2, synthesizer=ScriptedSettings(piece_delay_s=9))
    assert directions.behaviour.language_model.first_delay_s == 2 * NATURAL.language_model.first_delay_s
    assert directions.behaviour.synthesizer.piece_delay_s == 9
    directions.behave(transcriber=ScriptedSettings(first_delay_s=1))
    assert directions.behaviour.turn_detector == NATURAL.paced(2).turn_detector
    with pytest.raises(ValueError, match="pace: expected 0"):
        directions.behave(pace=-1)


def test_what_is_no_answer_is_refused() -> None:
    directions = Directions()
    with pytest.raises(TypeError, match="an answer is a text"):
        directions.answers(7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"more than {QUEUE_MAX}"):
        directions.hears(*["word"] * (QUEUE_MAX + 1))


def test_a_call_goes_out_as_it_stands(server: RealServer) -> None:
    server.calls("weather", "{broken")
    server.calls("now")
    with connected(server) as client:
        calls = []
        for _ in range(2):
            client.send("response.create")
            (item,) = client.until("response.done")[-1]["response"]["output"]
            calls.append((item["name"], item["arguments"]))
    assert calls == [("weather", "{broken"), ("now", "{}")]


# --- what was seen ----------------------------------------------------------------------------------------------------


def test_the_test_sees_what_the_server_sees(server: RealServer) -> None:
    with connected(server) as client:
        client.ask("hello")
        client.until("response.done")
    server.wait_until_closed()
    (connection,) = server.connections
    assert (connection.path, connection.query, connection.closed) == ("/v1/realtime", "model=gpt-realtime", 1000)
    assert connection.headers["authorization"] == f"Bearer {server.api_key}"
    assert types([dict(event) for event in server.received("response.*")]) == ["response.create"]
    times = [seen.t_ms for seen in server.messages]
    assert times == sorted(times)
    assert server.sent()[0]["type"] == "session.created"


def test_what_does_not_come_is_told_with_what_came(server: RealServer) -> None:
    with connected(server) as client:
        client.receive()
        with pytest.raises(AssertionError, match=r"for 2 of 'response\.done', and 0 came(.|\n)*<< session\.created"):
            server.wait_for("response.done", count=2, timeout_s=0)
        with pytest.raises(AssertionError, match="for 1 connections to end"):
            server.wait_until_closed(timeout_s=0)
    asyncio.run(server.wait_until_closed_async())


def test_the_record_lets_go_of_the_oldest() -> None:
    record = Record(clock=lambda: 0.0)
    connection = SeenConnection(0, "/", "", {})
    for _ in range(MESSAGES_MAX + 5):
        record.add(connection, "client", "{}", {"type": "input_audio_buffer.clear"})
    assert len(record.messages) == MESSAGES_MAX
    assert record.told().endswith(">> input_audio_buffer.clear (and 49999 more)")
    for number in range(30):
        record.add(connection, "server", f"no json {number}", {})
    assert record.told().startswith("  … 1 before\n")
    assert record.told().endswith("<< no json 29")


# --- life -------------------------------------------------------------------------------------------------------------


def test_servers_stand_beside_each_other() -> None:
    with RealServer() as one, RealServer() as other:
        one.answers("one")
        other.answers("other")
        assert (answered(one, "?"), answered(other, "?")) == (["one"], ["other"])
        assert len(one.connections) == len(other.connections) == 1


def test_nothing_is_left_of_a_server() -> None:
    before = set(threading.enumerate())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        server = RealServer().start()
        with connected(server) as client:
            client.ask("hello")
            server.close()
            with pytest.raises(ConnectionClosed):
                client.until("nothing")
        server.close()
    assert {thread for thread in threading.enumerate() if thread.name == "vivavoce test server"} <= before
    with pytest.raises(OSError, match="refused"), connected(server):
        pass


def test_a_server_is_started_once_and_then_has_an_address() -> None:
    server = RealServer()
    with pytest.raises(RuntimeError, match="has not been started"):
        _ = server.url
    server.close()
    with server, pytest.raises(RuntimeError, match="make a new one"):
        server.start()


def test_what_hinders_a_server_is_told() -> None:
    with pytest.raises(SettingsError, match="sessions_max"):
        RealServer(settings={"sessions_max": 0})
    with RealServer() as server:
        port = int(server.url.split(":")[2].removesuffix("/v1"))
        with pytest.raises(SettingsError, match="is it served already"):
            RealServer(settings={"port": port}).start()


def test_settings_are_those_of_a_server() -> None:
    settings = {"refusals": "http", "connection_limits": {"inbox_inputs_max": 8}}
    with RealServer(settings=settings) as server, pytest.raises(InvalidStatus), connect(server.websocket_url):
        pass


# --- by commands ------------------------------------------------------------------------------------------------------


class Process:
    """The server as a process, as a test suite in another language has it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.began = self._read()

    def _read(self) -> Event:
        assert self._process.stdout is not None
        line: Event = json.loads(self._process.stdout.readline())
        return line

    def do(self, command: str | Event) -> Event:
        assert self._process.stdin is not None
        print(command if isinstance(command, str) else json.dumps(command), file=self._process.stdin, flush=True)
        return self._read()


def test_a_test_suite_in_another_language_has_the_server_as_a_process() -> None:
    command = [sys.executable, "-W", "error", "-m", "vivavoce.testing.real_server", "--pace", "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        try:
            process = Process(running)
            assert process.do({"do": "answers", "texts": ["Hello."]}) == {"ok": True, "result": None}
            assert process.do({"do": "cut", "after": "response.done"}) == {"ok": True, "result": 0}
            headers = {"Authorization": f"Bearer {process.began['environment']['OPENAI_API_KEY']}"}
            with connect(f"{process.began['websocket_url']}?model=x", additional_headers=headers) as socket:
                socket.send(json.dumps({"type": "response.create"}))
                with pytest.raises(ConnectionClosed):
                    [socket.recv() for _ in range(1_000)]
            assert process.do({"do": "fired", "fault": 0})["result"] == 1
            assert process.do({"do": "received"})["result"] == [{"type": "response.create"}]
            assert process.do({"do": "connections"})["result"][0]["closed"] == 1006
            assert "no command 'dance'" in process.do({"do": "dance"})["error"]
            assert "a command is a JSON object" in process.do("[]")["error"]
            assert running.stdin is not None
            running.stdin.close()
            assert running.wait(SECONDS_MAX) == 0
        finally:
            running.kill()


NODE_SUITE = """
const { spawn } = require("node:child_process");
const server = spawn(process.argv[1], ["-m", "vivavoce.testing.real_server"], {stdio: ["pipe", "pipe", "inherit"]});
const lines = require("node:readline").createInterface({input: server.stdout})[Symbol.asyncIterator]();
const told = async () => JSON.parse((await lines.next()).value);
const order = (command) => { server.stdin.write(JSON.stringify(command) + "\\n"); return told(); };
(async () => {
  const { websocket_url, api_key } = await told();
  await order({do: "answers", texts: ["one two three"]});
  await order({do: "cut", after: "response.output_text.delta", count: 2});
  const protocols = ["realtime", "openai-insecure-api-key." + api_key];
  const socket = new WebSocket(websocket_url + "?model=gpt-realtime", protocols);
  socket.onopen = () => socket.send('{"type": "response.create", "response": {"output_modalities": ["text"]}}');
  const code = await new Promise((resolve) => { socket.onclose = (close) => resolve(close.code); });
  const { result } = await order({do: "sent", type: "response.output_text.delta"});
  console.log(code, result.map((event) => event.delta).join(""));
  server.stdin.end();
})();
"""


def test_a_test_suite_in_javascript_drives_the_process() -> None:
    command = node(NODE_SUITE, sys.executable)
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    assert done.stdout == "1006 one two\n", done.stderr


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ({"do": "answers", "texts": "Hello."}, "expected a list of strings"),
        ({"do": "behave", "language_model": {"fail_at_piece": 0}}, "fail_at_piece"),
        ({"do": "behave", "vad": {}}, "unexpected keyword"),
        ({"do": "lift", "fault": 3}, "there is no fault 3"),
        ({"do": "cut", "after": "respons"}, "there is no event"),
        ({"do": "wait_for", "type": "error", "timeout_s": 0}, "waited 0 s"),
    ],
)
def test_a_command_that_cannot_be_done_is_told(server: RealServer, command: Event, said: str) -> None:
    from vivavoce.testing.commands import Commands

    answer = Commands(server).answer(json.dumps(command))
    assert answer["ok"] is False
    assert said in answer["error"]


def test_commands_do_what_the_methods_do(server: RealServer) -> None:
    from vivavoce.testing.commands import Commands

    commands = Commands(server)
    for command in (
        {"do": "calls", "tool": "weather", "arguments": {"city": "Oslo"}, "saying": "Well."},
        {"do": "hears", "texts": ["Hello."]},
        {"do": "behave", "pace": 0, "turn_detector": {"complete_ms_min": 10}},
        {"do": "stall", "before": "response.created"},
        {"do": "lift", "fault": 0},
        {"do": "lift_all"},
    ):
        assert commands.answer(json.dumps(command))["ok"] is True
    assert server.script.unused == (1, 1)
    assert server.script.behaviour.turn_detector.complete_ms_min == 10
    assert server.declared == ()


def test_the_process_says_what_is_wrong_with_its_settings(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vivavoce.testing.real_server", "--settings", '{"sessions_max": 0}']
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "sessions_max" in done.stderr
