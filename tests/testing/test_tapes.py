"""Tapes, the reading side: what was recorded can be looked at, heard, and replayed as either end; row G3."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from array import array
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from vivavoce.audio.levels import rms_db
from vivavoce.client.connection import Connection
from vivavoce.engines.scripted import ScriptedModelSettings, scripted_pipeline
from vivavoce.errors import ConnectionClosed
from vivavoce.protocol import config as cfg
from vivavoce.protocol import events as ev
from vivavoce.protocol.codec import Dialect
from vivavoce.protocol.items import FunctionCallOutput, InputText, Message
from vivavoce.server.auth import Asked
from vivavoce.server.pipelines import Pipelines
from vivavoce.server.sessions import Sessions
from vivavoce.server.settings import Settings
from vivavoce.testing.playbook import counting_ids
from vivavoce.testing.tapes import (
    BadTape,
    Deviation,
    Replayed,
    ReplayServer,
    Tape,
    redact_tape,
    replay_as_client,
    replay_server,
    replay_to_scripted,
    to_test,
)
from vivavoce.testing.tapes.ids import Ids
from vivavoce.testing.virtual_time import run
from vivavoce.transports.memory import pair
from vivavoce.transports.taping import Header, TapeWriter, Taping
from vivavoce.transports.websocket import dial

LOUD = array("h", [8_000, -8_000] * 1_200).tobytes()
"""100 ms that the scripted engines take for speech."""
QUIET = bytes(4_800)
THINKING = ScriptedModelSettings(first_delay_s=0.2, piece_delay_s=0.05)
LOOK = cfg.FunctionTool(name="look", parameters={"type": "object"})
Program = Callable[[Connection], Awaitable[None]]


async def until(client: Connection, *kinds: str) -> ev.AnyServerEvent:
    while True:
        event = await client.recv()
        if event.type in kinds:
            assert not isinstance(event, ev.Unknown)
            return event


async def writes(client: Connection) -> None:
    """A written turn whose ids the client makes, and a tool."""
    await until(client, "session.created")
    await client.send(ev.SessionUpdate(event_id="mine_1", session=cfg.RealtimeSession(tools=(LOOK,))))
    await until(client, "session.updated")
    await client.create_item(Message(id="own_1", role="user", content=(InputText(text='call look {"far": true}'),)))
    await client.create_response(ev.ResponseParams(output_modalities=("text",)))
    done = await until(client, "response.done")
    assert isinstance(done, ev.ResponseDone)
    call = done.response.output[0]
    await client.create_item(FunctionCallOutput(call_id=call.call_id, output="a hill"))  # type: ignore[union-attr]
    await client.create_response(ev.ResponseParams(output_modalities=("text",)))
    await until(client, "response.done")


async def speaks(client: Connection) -> None:
    """A spoken turn in real time, found by voice activity, and answered aloud."""
    await until(client, "session.created")
    answered = asyncio.create_task(until(client, "response.done"))
    for piece in (*[QUIET] * 2, *[LOUD] * 6, *[QUIET] * 8):
        await client.append_audio(piece)
        await asyncio.sleep(0.1)
    await answered


async def interrupts(client: Connection) -> None:
    """A long answer, cut short after 300 ms of it."""
    await until(client, "session.created")
    await client.create_item(Message(role="user", content=(InputText(text="a long story about the hills"),)))
    await client.create_response()
    delta = await until(client, "response.output_audio.delta", "response.audio.delta")
    assert isinstance(delta, ev.ResponseOutputAudioDelta)
    with suppress(TimeoutError):
        async with asyncio.timeout(0.3):
            await until(client, "response.done")
    await client.cancel_response()
    await client.truncate(delta.item_id, 300)
    await until(client, "conversation.item.truncated")


async def makes_a_mistake(client: Connection) -> None:
    await until(client, "session.created")
    await client.send(ev.ConversationItemDelete(event_id="mine_7", item_id="nowhere"))
    await until(client, "error")


async def recorded(
    path: Path, program: Program, *, dialect: Dialect = "ga", end: str = "client", redact: Any = ()
) -> None:
    """Record a program that talks to a scripted server over memory."""
    pipelines = Pipelines({"scripted": scripted_pipeline(language_model=THINKING)}, default="scripted", models={})
    sessions = Sessions(Settings(pipeline="scripted"), pipelines, wall_s=lambda: 0.0, new_ids=counting_ids)
    here, there = pair()
    with TapeWriter(path, Header(end=end, dialect=dialect, model="scripted"), redact=redact) as writer:  # type: ignore[arg-type]
        here, there = (Taping(here, writer), there) if end == "client" else (here, Taping(there, writer))
        headers = {"openai-beta": "realtime=v1"} if dialect == "beta" else {}
        serving = asyncio.create_task(sessions.serve(Asked("openai", headers, {"model": "scripted"}), there))
        client = Connection(here, dialect)
        await program(client)
        await client.close()
        await asyncio.wait((serving,))
    await pipelines.close()


def tape_of(folder: Path, program: Program, **how: Any) -> Tape:
    path = folder / f"{program.__name__}.tape.jsonl"  # type: ignore[attr-defined]
    run(recorded(path, program, **how))
    return Tape.load(path)


PROGRAMS = (writes, speaks, interrupts, makes_a_mistake)
each_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)


# --- reading ----------------------------------------------------------------------------------------------------------


def test_G3_a_tape_has_every_event_of_both_sides_with_its_time(tmp_path: Path) -> None:
    tape = tape_of(tmp_path, speaks)
    said = list(tape.events())
    assert [type(event).__name__ for _, direction, event in said if direction == "client"] == (
        ["InputAudioBufferAppend"] * 16
    )
    assert b"".join(event.audio for _, direction, event in said if direction == "client") == (
        QUIET * 2 + LOUD * 6 + QUIET * 8
    )
    times = [moment.t_ms for moment in said]
    assert times == sorted(times)
    assert [moment.t_ms for moment in said if moment.dir == "client"] == [pytest.approx(100 * n) for n in range(16)]
    (item, answer) = tape.conversation().items
    assert isinstance(item, Message)
    assert isinstance(answer, Message)
    assert (item.role, answer.role) == ("user", "assistant")


def test_G3_both_ends_record_the_same(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    here = tape_of(tmp_path, writes)
    there = tape_of(tmp_path / "server", writes, end="server")
    for direction in ("client", "server"):
        at_client = [m.event for m in here.messages if m.dir == direction]
        at_server = [m.event for m in there.messages if m.dir == direction]
        assert at_client == at_server[: len(at_client)]
        assert len(at_server) - len(at_client) <= 1, "what the client no longer waited for"


def test_the_latency_of_each_turn_is_told(tmp_path: Path) -> None:
    (turn,) = tape_of(tmp_path, speaks).turns
    assert turn.status == "completed"
    assert turn.first_text_ms is not None
    assert turn.first_audio_ms is not None
    assert turn.done_ms is not None
    assert 200 <= turn.first_text_ms <= turn.first_audio_ms <= turn.done_ms < 10_000
    written = tape_of(tmp_path, writes).turns
    assert [one.first_audio_ms for one in written] == [None, None]
    assert all(one.created_ms == 0 for one in written)


def test_both_tracks_are_placed_in_time(tmp_path: Path) -> None:
    tape = tape_of(tmp_path, speaks)
    tracks = tape.audio()
    assert len(tracks.user) == len(tracks.assistant)
    (first,) = {m.t_ms for m in tape.messages if m.type == "response.output_audio.delta"} & {tape.turns[0].ended_ms + (
        tape.turns[0].first_audio_ms or 0)}  # fmt: skip

    def level(track: bytes, from_ms: float, to_ms: float) -> float:
        return rms_db(track[int(from_ms) * 48 : int(to_ms) * 48])

    # A piece is recorded when it ends: the first 100 ms of the quiet stand at 0, and all later ones behind it.
    assert level(tracks.user, 0, 200) == -120
    assert level(tracks.user, 200, 800) == pytest.approx(-12.2, abs=0.2)
    assert level(tracks.user, 800, 1_600) == -120
    assert level(tracks.assistant, 0, first) == -120
    spoken = sum(len(delta.delta) for _, _, delta in tape.events() if isinstance(delta, ev.ResponseOutputAudioDelta))
    assert spoken > 0
    assert level(tracks.assistant, first, first + spoken / 48) > -40
    assert tracks.duration_ms == pytest.approx(first + spoken / 48, abs=1)


def test_what_was_not_heard_is_not_on_the_track(tmp_path: Path) -> None:
    tape = tape_of(tmp_path, interrupts)
    spoken = sum(len(delta.delta) for _, _, delta in tape.events() if isinstance(delta, ev.ResponseOutputAudioDelta))
    assert spoken > 48 * 300
    begins = next(m.t_ms for m in tape.messages if m.type == "response.output_audio.delta")
    assert tape.audio().duration_ms == pytest.approx(begins + 300, abs=1)


def g711_tape(tmp_path: Path, *notes: dict[str, Any]) -> Tape:
    """Half a second of µ-law from the assistant, one delta."""
    resource = {"session": {"audio": {"output": {"format": {"type": "audio/pcmu"}}}}, "type": "session.updated"}
    delta = {"type": "response.output_audio.delta", "item_id": "i", "delta": base64.b64encode(b"\x90" * 4_000).decode()}
    lines = [
        {"tape": 1},
        {"t_ms": 0, "dir": "server", "event": resource},
        {"t_ms": 1_000, "dir": "server", "event": delta},
    ]
    path = tmp_path / "g711.tape.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in (*lines, *notes)))
    return Tape.load(path)


def test_the_sound_of_telephones_is_converted_and_the_playhead_believed(tmp_path: Path) -> None:
    assert g711_tape(tmp_path).audio().duration_ms == 1_500
    played = {"t_ms": 1_200, "note": "played", "item_id": "i", "ms": 150}
    assert g711_tape(tmp_path, played).audio().duration_ms == 1_150


def test_a_session_with_several_connections_has_them_apart(tmp_path: Path) -> None:
    path = tmp_path / "twice.tape.jsonl"

    async def twice() -> None:
        with TapeWriter(path) as writer:
            for _ in range(2):
                here, there = pair()
                taping = Taping(here, writer)
                await there.send(b'{"type":"session.created"}')
                await taping.receive()
                await taping.close()

    run(twice())
    assert [len(entries) for entries in Tape.load(path).connections] == [3, 3]


def test_a_message_that_did_not_leave_is_not_on_the_tape(tmp_path: Path) -> None:
    path = tmp_path / "unsent.tape.jsonl"

    async def call() -> None:
        here, there = pair()
        with TapeWriter(path) as writer:
            taping = Taping(here, writer)
            await taping.send(b'{"type":"response.create"}')
            await there.close()
            with pytest.raises(ConnectionClosed):
                await taping.send(b'{"type":"response.cancel"}')

    run(call())
    assert [message.type for message in Tape.load(path).messages] == ["response.create"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"t_ms": 1, "dir": "both", "event": {}}', "line 3: expected a message"),
        ('{"t_ms": 1, "dir": "client", "event": {"a": 1}', "line 3: .*truncated"),
        ('{"t_ms": 1, "dir": "client"}', "neither event nor text nor binary"),
        ('{"t_ms": 1, "event": {}}', 'line 3: .*neither "dir" nor "note"'),
        ('{"t_ms": 1, "dir": "client", "event": [1]}', "line 3: .*no object"),
        ('{"t_ms": 1, "dir": "client", "binary": "*"}', "line 3: .*no base64"),
        ('{"dir": "client", "event": {}}', "line 3: .*t_ms"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "bad.tape.jsonl"
    path.write_text(f'{{"tape": 1}}\n{{"t_ms": 0, "note": "connected"}}\n{line}\n{{"t_ms": 2, "note": "x"}}\n')
    with pytest.raises(BadTape, match=said):
        Tape.load(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "line 1: expected the header"), ("{}\n", "no field `tape`"), ('{"tape": 2}\n', "version 1, got 2")],
)
def test_a_file_that_is_no_tape_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.tape.jsonl"
    path.write_text(text)
    with pytest.raises(BadTape, match=said):
        Tape.load(path)
    with pytest.raises(BadTape, match="cannot read"):
        Tape.load(tmp_path / "missing")


def test_a_tape_that_a_crash_cut_short_is_read_and_said_to_be(tmp_path: Path) -> None:
    whole = tape_of(tmp_path, writes)
    assert whole.path is not None
    assert whole.warning is None
    whole.path.write_bytes(whole.path.read_bytes()[:-20])
    cut = Tape.load(whole.path)
    assert len(cut.entries) == len(whole.entries) - 1
    assert "cut short" in (cut.warning or "")


# --- as a server ------------------------------------------------------------------------------------------------------


async def against(tape: Tape, program: Program, *, pace: float = 0.0, dialect: Dialect = "ga") -> float:
    """A program against the tape's server; how many seconds that took."""
    began = asyncio.get_running_loop().time()
    here, there = pair()
    serving = asyncio.create_task(ReplayServer(tape, pace=pace).serve(there))
    client = Connection(here, dialect)
    try:
        with suppress(ConnectionClosed):
            await program(client)
    finally:
        await client.close()
        await asyncio.wait((serving,))
    serving.result()
    return asyncio.get_running_loop().time() - began


@each_program
def test_G3_a_tape_is_a_server_for_the_client_that_was_recorded(tmp_path: Path, program: Program) -> None:
    tape = tape_of(tmp_path, program)
    run(against(tape, program))
    assert run(against(tape, program, pace=1.0)) == pytest.approx(tape.duration_ms / 1000, rel=0.02, abs=0.01)


def test_G3_a_tape_of_the_beta_dialect_replays(tmp_path: Path) -> None:
    tape = tape_of(tmp_path, interrupts, dialect="beta")
    run(against(tape, interrupts, dialect="beta"))
    assert replay_to_scripted(tape, pipeline=scripted_pipeline(language_model=THINKING)).diff == ""


def test_ids_that_the_client_makes_may_differ(tmp_path: Path) -> None:
    tape = tape_of(tmp_path, writes)

    async def other(client: Connection) -> None:
        await until(client, "session.created")
        await client.send(ev.SessionUpdate(session=cfg.RealtimeSession(tools=(LOOK,))))
        await client.create_item(Message(id="other_9", role="user", content=(InputText(text="something else"),)))
        await client.create_response()
        added = await until(client, "conversation.item.added")
        assert isinstance(added, ev.ConversationItemAdded)
        assert isinstance(added.item, Message)
        assert added.item.id == "other_9"
        await until(client, "response.done")
        await client.create_item(FunctionCallOutput(id="out_1", call_id="call_x", output="a hill"))
        await client.create_response()
        added = await until(client, "conversation.item.added")
        assert isinstance(added, ev.ConversationItemAdded)
        assert isinstance(added.item, FunctionCallOutput)
        assert added.item.id == "out_1", "on the tape the server has named it"
        await until(client, "response.done")
        assert "own_1" not in client.conversation

    run(against(tape, other))


def test_the_error_of_an_event_names_the_event_that_is_there(tmp_path: Path) -> None:
    async def other(client: Connection) -> None:
        await until(client, "session.created")
        await client.send(ev.ConversationItemDelete(event_id="other_1", item_id="nowhere"))
        error = await until(client, "error")
        assert isinstance(error, ev.ErrorEvent)
        assert error.error.event_id == "other_1"

    run(against(tape_of(tmp_path, makes_a_mistake), other))


def test_an_id_in_metadata_is_that_of_the_event_that_is_there() -> None:
    ids = Ids()
    ids.learn({"event_id": "e_1", "item": {"id": "1"}}, {"event_id": "e_9", "item": {"id": "2"}})
    frame = '{"response":{"metadata":{"request":"e_1","topic":"e_2"},"previous_item_id":"1"},"text":"1"}'
    assert json.loads(ids.rewritten(frame)) == {
        "response": {"metadata": {"request": "e_9", "topic": "e_2"}, "previous_item_id": "2"},
        "text": "1",
    }
    assert ids.rewritten('{"text": "e_1 and 2"}') == '{"text": "e_1 and 2"}'


def test_sound_may_be_cut_in_other_pieces(tmp_path: Path) -> None:
    tape = tape_of(tmp_path, speaks)

    async def other(client: Connection) -> None:
        whole = QUIET * 2 + LOUD * 6 + QUIET * 8
        for begin in range(0, len(whole), 960):
            await client.append_audio(whole[begin : begin + 960])
        await until(client, "response.done")

    run(against(tape, other))


def test_the_tapes_server_hears_nothing_before_it_was_said(tmp_path: Path) -> None:
    tape = tape_of(tmp_path, speaks)

    async def slow(client: Connection) -> None:
        await client.append_audio(QUIET * 2)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await until(client, "input_audio_buffer.speech_started")
        await client.append_audio(LOUD * 6)
        await until(client, "input_audio_buffer.speech_started")
        await client.append_audio(QUIET * 8)
        await until(client, "response.done")

    run(against(tape, slow))


def test_a_client_that_does_otherwise_is_told_the_line(tmp_path: Path) -> None:
    tape = tape_of(tmp_path, writes)
    seen: list[str] = []

    async def other(client: Connection) -> None:
        await client.send(ev.SessionUpdate(session=cfg.RealtimeSession(tools=(LOOK,))))
        await client.create_response()
        error = await until(client, "error")
        assert isinstance(error, ev.ErrorEvent)
        seen.append(error.error.message)

    line = next(m.line for m in tape.messages if m.type == "conversation.item.create")
    with pytest.raises(Deviation, match=rf"line {line}: expected .*item\.create.*, got response\.create") as deviation:
        run(against(tape, other))
    assert seen == [str(deviation.value)]


async def leaves(client: Connection) -> None:
    await until(client, "session.created")


async def waits(client: Connection) -> None:
    await until(client, "response.created")


async def goes_on(client: Connection) -> None:
    await makes_a_mistake(client)
    await client.commit_audio()
    await until(client, "never")


@pytest.mark.parametrize(
    ("program", "other", "said"),
    [
        (writes, leaves, r"expected the client to send session\.update .*, got its goodbye \(1000\)"),
        (writes, waits, r"expected the client to send session\.update .*, got nothing for 10 s"),
        (makes_a_mistake, goes_on, r"is over, and the client sent input_audio_buffer\.commit"),
    ],
)
def test_too_little_and_too_much_are_deviations(tmp_path: Path, program: Program, other: Program, said: str) -> None:
    with pytest.raises(Deviation, match=said):
        run(against(tape_of(tmp_path, program), other))


def test_the_tape_ends_the_connection_where_its_server_did(tmp_path: Path) -> None:
    path = tmp_path / "ended.tape.jsonl"
    events = [
        {"t_ms": 0, "dir": "server", "event": {"type": "session.created"}},
        {"t_ms": 5, "note": "closed", "by": "server", "code": 4001, "reason": "enough"},
    ]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in ({"tape": 1}, *events)))

    async def main() -> None:
        here, there = pair()
        await ReplayServer(Tape.load(path)).serve(there)
        assert json.loads(await here.receive()) == {"type": "session.created"}
        with pytest.raises(ConnectionClosed, match="4001 enough"):
            await here.receive()

    run(main())


# --- as a client ------------------------------------------------------------------------------------------------------


@each_program
def test_G3_a_tape_is_a_client_for_a_server(tmp_path: Path, program: Program) -> None:
    tape = tape_of(tmp_path, program)
    replayed = replay_to_scripted(tape, pipeline=scripted_pipeline(language_model=THINKING))
    assert replayed.diff == ""
    assert replayed.types == tuple(m.type for m in tape.messages if m.dir == "server" and not m.type.endswith(".delta"))


def test_ids_that_the_server_makes_may_differ(tmp_path: Path) -> None:
    """The call of the tape is `call_…` of that session; the replay answers the call that it was given."""
    tape = tape_of(tmp_path, writes)
    tape.path.write_text(tape.path.read_text().replace('"call_1"', '"call_of_the_tape"'))  # type: ignore[union-attr]
    assert tape.path is not None
    replayed = replay_to_scripted(Tape.load(tape.path))
    assert replayed.diff == ""
    sent = [json.loads(message.frame) for message in replayed.messages if message.dir == "client"]
    outputs = [event["item"]["call_id"] for event in sent if event.get("item", {}).get("call_id")]
    assert len(outputs) == 1
    assert outputs != ["call_of_the_tape"]


async def talks_into_the_answer(client: Connection) -> None:
    """Adds an item with an id of its own while the answer is being made, and waits for both."""
    await until(client, "session.created")
    await client.create_response()
    await until(client, "response.content_part.added")
    await client.create_item(Message(id="own_1", role="user", content=(InputText(text="one more thing"),)))
    await until(client, "rate_limits.updated")
    await client.create_response()
    await until(client, "rate_limits.updated")


def test_ids_are_right_also_where_the_server_is_faster_than_it_was(tmp_path: Path) -> None:
    tape = tape_of(tmp_path, talks_into_the_answer)
    replayed = replay_to_scripted(tape)
    assert "error" not in replayed.types
    created = [message.event for message in replayed.messages if message.type == "conversation.item.create"]
    assert [event["item"]["id"] for event in created] == ["own_1"]
    assert replayed.types != tuple(message.type for message in replayed.taped)
    assert replayed.diff == "", "only the order of independent things differs"


def test_a_server_that_answers_otherwise_is_told_apart(tmp_path: Path) -> None:
    failing = scripted_pipeline(language_model=ScriptedModelSettings(fail_at_piece=1))
    tape = tape_of(tmp_path, writes)
    replayed = replay_to_scripted(tape, pipeline=failing)
    assert "-response.output_item.added" in replayed.diff.splitlines()


def test_a_tape_replays_against_itself_over_a_real_wire(tmp_path: Path) -> None:
    tape = tape_of(tmp_path, writes)

    async def main() -> Replayed:
        async with asyncio.timeout(20), replay_server(tape) as server:
            return await replay_as_client(tape, server.url)

    with asyncio.Runner() as runner:
        assert runner.run(main()).diff == ""


def test_a_real_client_is_served_over_a_real_wire_and_its_deviation_raised(tmp_path: Path) -> None:
    tape = tape_of(tmp_path, writes)

    async def main(program: Program) -> None:
        async with asyncio.timeout(20), replay_server(tape) as server:
            wire = await dial(f"ws://127.0.0.1:{server.port}/v1/realtime")
            async with Connection(wire) as client:
                await program(client)

    async def wrong(client: Connection) -> None:
        await client.create_response()
        await until(client, "error")

    with asyncio.Runner() as runner:
        runner.run(main(writes))
        with pytest.raises(Deviation, match=r"got response\.create"):
            runner.run(main(wrong))


# --- what is made of one ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", [{"audio"}, {"text"}, {"audio", "text"}])
@each_program
def test_a_redacted_tape_still_replays(tmp_path: Path, program: Program, what: set[str]) -> None:
    tape_of(tmp_path, program, redact=what)
    tape = Tape.load(tmp_path / f"{program.__name__}.tape.jsonl")  # type: ignore[attr-defined]
    assert set(tape.header.redacted) == what
    run(against(tape, program))


def test_a_tape_can_be_redacted_afterwards(tmp_path: Path) -> None:
    tape = tape_of(tmp_path, interrupts)
    target = tmp_path / "less.tape.jsonl"
    redact_tape(tape, target, {"audio", "text"})
    less = Tape.load(target)
    assert less.header.redacted == ("audio", "text")
    assert [entry.t_ms for entry in less.entries] == [entry.t_ms for entry in tape.entries]
    assert less.audio().duration_ms == tape.audio().duration_ms
    assert rms_db(less.audio().assistant) == -120
    assert "hills" in tape.path.read_text()  # type: ignore[union-attr]
    assert "hills" not in target.read_text()


@pytest.mark.parametrize("plays", ["client", "server"])
def test_G3_a_tape_becomes_a_test_that_passes(tmp_path: Path, plays: Any) -> None:
    (tmp_path / "tapes").mkdir()
    tape = tape_of(tmp_path / "tapes", writes)
    test = tmp_path / "test_it.py"
    test.write_text(to_test(tape, plays=plays, folder=tmp_path))
    assert pytest_says(test) == 0
    assert tape.path is not None
    text = tape.path.read_text()
    damaged = text.replace('"response.done"', '"response.undone"', 1) if plays == "client" else (
        text.replace('"dir":"client"', '"dir":"server"', 1))  # fmt: skip
    tape.path.write_text(damaged)
    assert plays == "server" or pytest_says(test) == 1, "a test that cannot fail"


def pytest_says(test: Path) -> int:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", str(test)]
    return subprocess.run(command, cwd=test.parent, capture_output=True, check=False).returncode
