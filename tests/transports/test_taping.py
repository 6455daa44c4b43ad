"""Tapes, the writing side: what passes is in the file, secrets are not, and what goes wrong never hurts the session."""

from __future__ import annotations

import asyncio
import base64
import errno
import io
import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from vivavoce.errors import ConnectionClosed, LocalProtocolError
from vivavoce.testing.virtual_time import run
from vivavoce.transports.memory import pair
from vivavoce.transports.redaction import PIXEL, REDACTED, Redaction, plain_url
from vivavoce.transports.taping import Header, TapeLimits, TapeWriter, Taping, encode_line


def lines(file: io.BytesIO | Path) -> list[dict[str, Any]]:
    text = file.read_text("utf-8") if isinstance(file, Path) else file.getvalue().decode()
    return [json.loads(line) for line in text.splitlines()]


def taped(*frames: str | bytes, direction: str = "client", redact: Any = ()) -> list[dict[str, Any]]:
    """The lines that these frames become."""
    file = io.BytesIO()
    with TapeWriter(file, redact=redact, clock=lambda: 0.0) as writer:
        for frame in frames:
            writer.message(direction, frame)  # type: ignore[arg-type]
    return lines(file)[1:]


# --- what passes ------------------------------------------------------------------------------------------------------


def test_both_directions_are_recorded_with_their_times_and_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "call.tape.jsonl"

    async def call() -> None:
        client, server = pair()
        with TapeWriter(path, Header(end="client", model="m", url="wss://u:p@host/v1/realtime?model=m&api-key=k")) as w:
            taping = Taping(client, w)
            await taping.send(b'{"type":"response.create", "n": 1.50}')
            assert await server.receive() == '{"type":"response.create", "n": 1.50}'
            await asyncio.sleep(0.25)
            await server.send('{"type":"response.done","text":"schön"}'.encode())
            assert await taping.receive() == '{"type":"response.done","text":"schön"}'
            taping.note("played", item_id="item_1", ms=20)
            await server.close(4001, "enough")
            with pytest.raises(ConnectionClosed):
                await taping.receive()

    run(call())
    header, *rest = lines(path)
    assert header.pop("began").startswith("20")
    assert header.pop("vivavoce")
    assert header == {
        "tape": 1,
        "end": "client",
        "dialect": "ga",
        "url": "wss://host/v1/realtime?model=m",
        "model": "m",
        "redacted": [],
    }
    assert rest == [
        {"t_ms": 0.0, "note": "connected"},
        {"t_ms": 0.0, "dir": "client", "event": {"type": "response.create", "n": 1.5}},
        {"t_ms": 250.0, "dir": "server", "event": {"type": "response.done", "text": "schön"}},
        {"t_ms": 250.0, "note": "played", "item_id": "item_1", "ms": 20},
        {"t_ms": 250.0, "note": "closed", "by": "server", "code": 4001, "reason": "enough"},
    ]
    assert '"event":{"type":"response.create", "n": 1.50}' in path.read_text()
    assert path.stat().st_mode & 0o077 == 0


def test_what_is_no_message_is_recorded_as_what_it_is() -> None:
    text, number, broken, binary, several = taped("hello", "17", '{"a":', b"\x00\xff", '{\r\n"a": "b\\n",\n"c": 1}')
    assert text["text"] == "hello"
    assert number["text"] == "17"
    assert broken["text"] == '{"a":'
    assert base64.b64decode(binary["binary"]) == b"\x00\xff"
    assert several["event"] == {"a": "b\n", "c": 1}


def test_what_was_received_before_comes_first() -> None:
    file = io.BytesIO()
    with TapeWriter(file) as writer:
        Taping(pair()[0], writer, '{"type":"session.created"}')
    assert lines(file)[1]["note"] == "connected"
    assert lines(file)[2]["event"] == {"type": "session.created"}
    assert lines(file)[2]["dir"] == "server"


def test_half_a_character_does_not_break_the_tape() -> None:
    (lone,) = taped('{"a":"\ud800"}')
    assert lone["text"] == '{"a":"\\ud800"}'


def test_a_message_that_did_not_leave_is_said_to(tmp_path: Path) -> None:
    file = io.BytesIO()

    async def call() -> None:
        client, server = pair()
        with TapeWriter(file) as writer:
            taping = Taping(client, writer)
            await server.close()
            with pytest.raises(ConnectionClosed):
                await taping.send(b"{}")
            await taping.close()
            await taping.close()

    run(call())
    assert [line.get("note", line.get("event")) for line in lines(file)[1:]] == ["connected", {}, "unsent", "closed"]


# --- what goes wrong --------------------------------------------------------------------------------------------------


class FullDisk(io.BytesIO):
    room = 400

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def test_a_full_disk_ends_the_tape_and_not_the_session(caplog: pytest.LogCaptureFixture) -> None:
    async def call() -> None:
        client, server = pair()
        writer = TapeWriter(FullDisk())
        taping = Taping(client, writer)
        for _ in range(100):
            await taping.send(b'{"type":"input_audio_buffer.commit"}')
        writer.close()
        assert writer.ended is not None
        assert "No space left" in writer.ended
        await taping.send(b"{}")
        for _ in range(101):
            await server.receive()

    with caplog.at_level(logging.WARNING):
        run(call())
    assert len(caplog.records) == 1


def test_the_size_of_a_tape_is_limited() -> None:
    file = io.BytesIO()
    with TapeWriter(file, limits=TapeLimits(bytes_max=1_000)) as writer:
        for _ in range(100):
            writer.message("client", '{"type":"input_audio_buffer.commit"}')
    assert writer.ended == "full"
    assert len(file.getvalue()) < 1_100
    assert lines(file)[-1]["note"] == "full"


def test_what_cannot_be_noted_ends_the_tape_and_not_the_session(caplog: pytest.LogCaptureFixture) -> None:
    class Unspeakable:
        def __str__(self) -> str:
            raise RuntimeError("no words")

    with TapeWriter(io.BytesIO()) as writer:
        writer.note("odd", what=Unspeakable())
    assert writer.ended == "RuntimeError('no words')"
    assert caplog.records


class StuckDisk(io.BytesIO):
    def __init__(self) -> None:
        super().__init__()
        self.goes_on = threading.Event()
        self.is_stuck = threading.Event()
        self.lines = 0

    def write(self, data: Any) -> int:
        self.lines += 1
        if self.lines > 1:
            self.is_stuck.set()
            self.goes_on.wait()
        return super().write(data)


def test_a_disk_that_does_not_keep_up_costs_the_tape_and_not_the_memory(caplog: pytest.LogCaptureFixture) -> None:
    disk = StuckDisk()
    writer = TapeWriter(disk, limits=TapeLimits(buffer_bytes_max=10_000))
    writer.message("client", "{}")
    disk.is_stuck.wait()
    began = time.perf_counter()
    for _ in range(1_000):
        writer.message("client", "x" * 100)
    assert time.perf_counter() - began < 0.5, "the caller waited for the disk"
    assert writer.ended == "the disk is too slow"
    disk.goes_on.set()
    writer.close()
    assert len(lines(disk)) == 2


def test_a_file_that_cannot_be_opened_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(LocalProtocolError, match=r"cannot record to .*No such file"):
        TapeWriter(tmp_path / "missing" / "call.tape.jsonl")


def test_recording_takes_microseconds_of_the_event_loop() -> None:
    sound = base64.b64encode(bytes(range(256)) * 38).decode()
    frame = f'{{"type":"response.output_audio.delta","delta":"{sound}"}}'
    with TapeWriter(io.BytesIO()) as writer:
        times = []
        for _ in range(300):
            began = time.perf_counter()
            writer.message("server", frame)
            times.append(time.perf_counter() - began)
    assert sorted(times)[150] < 100e-6


# --- secrets ----------------------------------------------------------------------------------------------------------

SECRET = "Xy12345678secretsecret"


@pytest.mark.parametrize(
    "event",
    [
        {"session": {"tools": [{"type": "mcp", "authorization": SECRET, "headers": {"X-Mine": SECRET}}]}},
        {"response": {"tools": [{"type": "mcp", "headers": {"Cookie": [SECRET]}}]}},
        {"session": {"client_secret": {"value": f"ek_{SECRET}", "expires_at": 1}}},
        {"session": {"tools": [{"server_url": f"https://host/mcp?api_key={SECRET}"}]}},
        {"session": {"tools": [{"server_url": f"https://host/mcp?token={SECRET}&v=1"}]}},
        {"session": {"tools": [{"server_url": f"https://me:{SECRET}@host/mcp"}]}},
        {"item": {"type": "function_call", "arguments": json.dumps({"api_key": SECRET})}},
        {"item": {"content": [{"type": "input_text", "text": f"my key is sk-proj-{SECRET}."}]}},
        {"error": {"message": f"Incorrect API key provided: sk-{SECRET}"}},
        {"item": {"output": f"Authorization: Bearer {SECRET}"}},
        {"unheard_of": [[{"Api-Key": SECRET}]]},
        {"type": "vivavoce.resume", "token": SECRET, "received": 0},
    ],
    ids=lambda event: json.dumps(event)[:40],
)
def test_a_secret_is_never_written(event: dict[str, Any]) -> None:
    frame = json.dumps(event)
    escaped = frame.replace("s", "\\u0073").replace("sk-", "\\u0073k-") if '"s' not in frame else frame
    for written in (frame, json.dumps(event, indent=1), escaped):
        (line,) = taped(written)
        assert SECRET not in json.dumps(line)
        assert REDACTED in json.dumps(line)


def test_a_secret_in_a_note_is_not_written_either(tmp_path: Path) -> None:
    with TapeWriter(tmp_path / "a.tape.jsonl") as writer:
        writer.note("closed", by="server", code=3000, reason=f"Incorrect API key provided: sk-proj-{SECRET}")
    note = lines(tmp_path / "a.tape.jsonl")[-1]
    assert SECRET not in json.dumps(note)
    assert note["reason"].startswith("Incorrect API key provided: sk-")
    assert note["code"] == 3000


def test_a_tape_in_place_of_another_file_is_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.tape.jsonl"
    file.write_text("everybody's")
    file.chmod(0o644)
    with TapeWriter(file):
        pass
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_secret_in_what_is_no_message_is_not_written_either() -> None:
    (line,) = taped(f'{{"authorization": "{SECRET}", broken')
    assert SECRET not in json.dumps(line)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.create", "response": {"instructions": "Discuss task-oriented dialogue, at a risk."}},
        {"tools": [{"parameters": {"properties": {"password": {"type": "string"}, "headers": {"type": "object"}}}}]},
        {"session": {"client_secret": {"value": "", "expires_at": 12}}},
        {"logprobs": [{"token": " the", "bytes": [32], "logprob": -0.5}]},
    ],
)
def test_what_is_no_secret_stays(event: dict[str, Any]) -> None:
    assert taped(json.dumps(event))[0]["event"] == event


def test_a_url_keeps_what_says_which_session_is_meant() -> None:
    assert plain_url("wss://me:pw@host:1/openai/realtime?deployment=d&api-key=k&sig=s") == (
        "wss://host:1/openai/realtime?deployment=d"
    )


# --- sound and words --------------------------------------------------------------------------------------------------


def encoded(audio: bytes) -> str:
    return base64.b64encode(audio).decode()


def test_sound_becomes_silence_of_the_same_length_in_its_format() -> None:
    speech = encoded(b"\x12\x34" * 101)
    redaction = Redaction({"audio"})

    def through(direction: Any, event: dict[str, Any]) -> dict[str, Any]:
        kept: dict[str, Any] = json.loads(redaction.frame(direction, json.dumps(event)))
        return kept

    assert through("client", {"type": "input_audio_buffer.append", "audio": speech})["audio"] == encoded(bytes(202))
    settings = {"audio": {"input": {"format": {"type": "audio/pcmu"}}, "output": {"format": {"type": "audio/pcma"}}}}
    assert through("server", {"type": "session.updated", "session": settings})["session"] == settings
    assert through("client", {"type": "input_audio_buffer.append", "audio": speech})["audio"] == encoded(b"\xff" * 202)
    assert through("server", {"type": "response.audio.delta", "delta": speech})["delta"] == encoded(b"\xd5" * 202)
    item = {"role": "user", "content": [{"type": "input_audio", "audio": speech, "transcript": "Hello"}]}
    assert through("server", {"item": item})["item"]["content"][0] == {
        "type": "input_audio",
        "audio": encoded(b"\xff" * 202),
        "transcript": "Hello",
    }


def test_words_become_placeholders_of_the_same_length_and_the_rest_stays() -> None:
    event = {
        "type": "conversation.item.done",
        "item": {
            "id": "item_12",
            "content": [
                {"type": "output_audio", "transcript": "Grüß Gott, 42!"},
                {"type": "input_image", "image_url": "data:image/png;base64,AAAA"},
            ],
        },
        "response": {"instructions": "Be kind.", "output_modalities": ["audio"]},
        "call": {"name": "look", "arguments": '{"city": "Rome", "far": true, "n": 12}'},
        "logprobs": [{"token": " Hi", "bytes": [32, 72, 105], "logprob": -0.5}],
    }
    (line,) = taped(json.dumps(event), redact={"text"})
    kept = line["event"]
    assert kept["item"]["id"] == "item_12"
    assert kept["item"]["content"][0]["transcript"] == "xxxx xxxx, 11!"
    assert kept["item"]["content"][1]["image_url"] == PIXEL
    assert kept["response"] == {"instructions": "xx xxxx.", "output_modalities": ["audio"]}
    assert kept["call"] == {"name": "look", "arguments": '{"city": "xxxx", "far": true, "n": 11}'}
    assert kept["logprobs"] == [{"token": " xx", "bytes": [32, 120, 120], "logprob": -0.5}]


def test_sound_stays_where_only_words_are_left_out_and_words_where_only_sound_is() -> None:
    delta = {"type": "response.output_audio.delta", "delta": encoded(b"abcd")}
    words = {"type": "response.output_text.delta", "delta": "Hello"}
    assert taped(json.dumps(delta), direction="server", redact={"text"})[0]["event"] == delta
    assert taped(json.dumps(words), direction="server", redact={"audio"})[0]["event"] == words
    assert taped(json.dumps(words), direction="server", redact={"text"})[0]["event"]["delta"] == "xxxxx"


def test_what_nobody_understands_is_redacted_all_the_same() -> None:
    text, binary = taped("Hello", b"\x01\x02", redact={"text"})
    assert (text["text"], base64.b64decode(binary["binary"])) == ("xxxxx", bytes(2))


def test_a_wish_that_does_not_exist_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="expected a set of 'audio' and 'text'"):
        TapeWriter(io.BytesIO(), redact={"sound"})  # type: ignore[arg-type]


def test_a_message_nested_without_end_is_kept_out() -> None:
    deep = '{"a":' * 3_000 + f'{{"authorization":"{SECRET}"}}' + "}" * 3_000
    assert SECRET.encode() not in encode_line(Redaction(), 0.0, "client", deep)
