"""However the same audio is cut into appends: the same turns, the same transcript, the same events (reference §5.3)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from split_bench import Bench, Stretch, pieces, pipeline, stream

from vivavoce.audio.convert import Converter
from vivavoce.audio.formats import ALAW_8K, PCM16_24K, ULAW_8K, Format
from vivavoce.core.input_audio import InputAudio
from vivavoce.core.session import Session
from vivavoce.core.surroundings import Surroundings
from vivavoce.engines import Pipeline
from vivavoce.engines.scripted import (
    ScriptedLanguageModel,
    ScriptedModelSettings,
    ScriptedTranscriber,
    ScriptedTurnDetector,
)
from vivavoce.protocol import config as cfg
from vivavoce.protocol import events as ev
from vivavoce.protocol.codec import ClientCodec, ServerCodec
from vivavoce.server.runtime import Runtime
from vivavoce.server.surroundings import abilities
from vivavoce.testing.playbook import counting_ids
from vivavoce.testing.virtual_time import run
from vivavoce.transports.memory import pair

FORMATS: dict[str, tuple[Format, cfg.AudioFormat]] = {
    "pcm16": (PCM16_24K, cfg.PcmFormat()),
    "ulaw": (ULAW_8K, cfg.PcmuFormat()),
    "alaw": (ALAW_8K, cfg.PcmaFormat()),
}
DETECTIONS: dict[str, cfg.TurnDetection | None] = {
    "manual": None,
    "server_vad": cfg.ServerVad(silence_duration_ms=200, idle_timeout_ms=5_000),
    "server_vad alone": cfg.ServerVad(silence_duration_ms=300, prefix_padding_ms=0, create_response=False),
    "semantic_vad": cfg.SemanticVad(eagerness="high"),
}
REDUCTIONS = {"as it comes": None, "cleaned": cfg.NoiseReduction(type="near_field")}
THEN: dict[str, Any] = {
    "go on": None,
    "commit": ev.InputAudioBufferCommit(),
    "clear": ev.InputAudioBufferClear(),
    "settle": None,
    "wait": None,
}

IDLE_MS = 8_000

stretches = st.lists(
    st.builds(Stretch, st.sampled_from(["tone", "silence", "hiss"]), st.integers(1, 900)), min_size=1, max_size=4
)
utterances = st.lists(st.tuples(stretches, st.booleans(), st.sampled_from(sorted(THEN))), min_size=1, max_size=3)
cuts = st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.00001, 0.5, 1.0])), max_size=12)

SPOKEN = ([Stretch("tone", 700), Stretch("silence", 777), Stretch("tone", 333), Stretch("hiss", 451)], True, "commit")


def configured(name: str, detection: str, reduction: str) -> cfg.RealtimeSession:
    listen = cfg.AudioInput(
        format=FORMATS[name][1],
        turn_detection=DETECTIONS[detection],
        transcription=cfg.Transcription(model="any"),
        noise_reduction=REDUCTIONS[reduction],
    )
    return cfg.RealtimeSession(audio=cfg.AudioConfig(input=listen), output_modalities=("text",))


def heard(
    update: cfg.RealtimeSession,
    format: Format,
    said: list[Any],
    where: list[float],
    engines: Pipeline | None = None,
) -> list[object]:
    """All that a session says to this, cut there."""
    bench = Bench(update, engines)
    for stretches, odd, then in said:
        for piece in pieces(stream(stretches, format, odd=odd), where):
            bench.say(ev.InputAudioBufferAppend(audio=piece))
        if THEN[then] is not None:
            bench.say(THEN[then])
        if then in ("settle", "wait"):
            bench.settle()
        if then == "wait":
            bench.wait(IDLE_MS)
    bench.settle()
    return bench.seen


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("detection", DETECTIONS)
@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(said=utterances, where=cuts)
@example(said=[SPOKEN, SPOKEN], where=[n / 199 for n in range(200)])
@example(said=[SPOKEN], where=[n / 100_000 for n in range(7)])
@example(said=[(SPOKEN[0], False, "wait"), SPOKEN], where=[n / 57 for n in range(58)])
def test_a_split_changes_nothing(
    name: str, detection: str, reduction: str, said: list[Any], where: list[float]
) -> None:
    update, format = configured(name, detection, reduction), FORMATS[name][0]
    assert heard(update, format, said, where) == heard(update, format, said, [])


def test_a_split_changes_nothing_about_a_silence_that_times_out() -> None:
    update, spoken = configured("pcm16", "server_vad", "as it comes"), [Stretch("tone", 300), Stretch("silence", 1_500)]
    said = [(spoken, False, "go on"), ([Stretch("silence", 700)], False, "wait")]
    whole = heard(update, PCM16_24K, said, [])
    assert any(isinstance(event, ev.InputAudioBufferTimeoutTriggered) for event in whole)
    for where in ([0.5], [n / 99 for n in range(100)]):
        assert heard(update, PCM16_24K, said, where) == whole


def test_the_audio_of_these_tests_makes_turns_and_is_cleaned() -> None:
    """Otherwise nothing would be shown by them."""
    for name, (format, _) in FORMATS.items():
        for detection in ("server_vad", "semantic_vad"):
            clean, raw = (heard(configured(name, detection, way), format, [SPOKEN], []) for way in REDUCTIONS)
            kinds = {event.type for event in raw if isinstance(event, ev.ServerEvent)}
            assert kinds >= {"input_audio_buffer.speech_stopped", "response.done"}, (name, detection)
            assert transcripts(clean) != transcripts(raw)


def transcripts(seen: list[object]) -> list[str]:
    kind = ev.ConversationItemInputAudioTranscriptionCompleted
    return [event.transcript for event in seen if isinstance(event, kind)]


@pytest.mark.parametrize(("detection", "reduction"), [("server_vad", "cleaned"), ("manual", "cleaned")])
def test_a_conversion_that_depends_on_the_cut_is_noticed(
    monkeypatch: pytest.MonkeyPatch, detection: str, reduction: str
) -> None:
    push = Converter.push
    monkeypatch.setattr(Converter, "push", lambda one, audio: push(one, audio) + one.flush())
    update, where = configured("ulaw", detection, reduction), [n / 199 for n in range(200)]
    assert heard(update, ULAW_8K, [SPOKEN], where) != heard(update, ULAW_8K, [SPOKEN], [])


def test_a_lost_half_of_a_sample_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    append = InputAudio.append
    monkeypatch.setattr(InputAudio, "append", lambda one, audio: append(one, audio[: len(audio) // 2 * 2]))
    update, where = configured("pcm16", "server_vad", "as it comes"), [n / 199 for n in range(200)]
    assert heard(update, PCM16_24K, [SPOKEN], where) != heard(update, PCM16_24K, [SPOKEN], [])


# --- over the real runtime --------------------------------------------------------------------------------------------


def frames(update: cfg.RealtimeSession, appends: list[bytes]) -> list[Any]:
    """What a client gets to read, whose session begins with these appends."""

    async def talk() -> list[Any]:
        slow = ScriptedModelSettings(first_delay_s=0.5)
        engines = replace(
            pipeline(),
            transcriber=ScriptedTranscriber(slow),
            language_model=ScriptedLanguageModel(slow),
            turn_detector=ScriptedTurnDetector(),
        )
        near, far = pair(messages_max=10_000)
        given = Surroundings(abilities=abilities(engines))
        session = Session(id="sess_1", model="any", ids=counting_ids(), expires_at=0, surroundings=given)
        running = asyncio.create_task(Runtime(session, engines, ServerCodec(), far).run())
        codec = ClientCodec()
        await near.send(codec.encode(ev.SessionUpdate(session=update)))
        for audio in appends:
            await near.send(codec.encode(ev.InputAudioBufferAppend(audio=audio)))
        await asyncio.sleep(3.0)
        await near.send(codec.encode(ev.InputAudioBufferClear()))
        read: list[Any] = []
        while not read or read[-1]["type"] != "input_audio_buffer.cleared":
            read.append(msgspec.json.decode(await near.receive()))
        await near.close(1000)
        await running
        return read

    return run(talk())


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("detection", ["server_vad", "semantic_vad"])
@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(where=cuts)
@example(where=[n / 99 for n in range(100)])
def test_a_split_changes_nothing_on_the_wire(detection: str, reduction: str, where: list[float]) -> None:
    said = [Stretch("tone", 700), Stretch("silence", 1_500), Stretch("tone", 333), Stretch("silence", 1_500)]
    audio, update = stream(said, PCM16_24K, odd=True), configured("pcm16", detection, reduction)
    whole = frames(update, [audio])
    assert [frame["type"] for frame in whole].count("input_audio_buffer.speech_stopped") == 2
    assert frames(update, pieces(audio, where)) == whole


# --- with the embedded engines ----------------------------------------------------------------------------------------


@pytest.mark.models
@pytest.mark.parametrize("name", FORMATS)
def test_a_split_changes_nothing_for_the_embedded_engines(name: str) -> None:
    from vivavoce.engines import dtln, silero

    engines = replace(pipeline(), vad=silero.create({}), noise_reducer=dtln.create({}))

    async def warm_up() -> None:
        await engines.vad.warm_up()
        assert engines.noise_reducer is not None
        await engines.noise_reducer.warm_up()

    with asyncio.Runner() as real:  # loading takes real time; nothing in it waits for the clock
        real.run(warm_up())
    update, format = configured(name, "server_vad", "cleaned"), FORMATS[name][0]
    whole = heard(update, format, [SPOKEN, SPOKEN], [], engines)
    assert len(transcripts(whole)) >= 2
    for where in ([n / 149 for n in range(150)], [0.00001, 0.3, 0.3, 0.77]):
        assert heard(update, format, [SPOKEN, SPOKEN], where, engines) == whole
