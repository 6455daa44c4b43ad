"""A turn is transcribed while it is spoken, where the transcriber can do that (reference §4.4 T5, T6, T16)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from vivavoce.audio.formats import PCM16_24K
from vivavoce.core.abilities import Abilities
from vivavoce.core.limits import Limits
from vivavoce.core.messages import (
    Cancel,
    DetectSpeech,
    Generate,
    JudgeTurn,
    Listen,
    NoiseReduced,
    Opened,
    Prepare,
    ReduceNoise,
    SpeechScored,
    StopListening,
    Transcribe,
    TranscriptDelta,
    TranscriptEnded,
    TurnJudged,
    WordsHeard,
)
from vivavoce.core.session import Session
from vivavoce.core.surroundings import Surroundings
from vivavoce.protocol import config as cfg
from vivavoce.protocol.events import (
    InputAudioBufferAppend,
    InputAudioBufferClear,
    InputAudioBufferCommit,
    ResponseCreate,
    SessionUpdate,
)
from vivavoce.testing.playbook import Playbook, asks, counting_ids, playbook, sends
from vivavoce.testing.sounds import silence, tone

FRAME_MS = 20
DELTA = "conversation.item.input_audio_transcription.delta"
COMPLETED = "conversation.item.input_audio_transcription.completed"
STREAMING = cfg.Transcription(model="gpt-realtime-whisper")


def machine(configured: cfg.TranscriptionSession | None = None, **abilities: bool) -> Session:
    able = Abilities(hears_along=True, semantic_vad=True, noise_reduction=True, **abilities)
    return Session(
        id="s",
        model="m",
        ids=counting_ids(),
        expires_at=0,
        surroundings=Surroundings(abilities=able),
        configured=configured,
    )


@pytest.fixture
def play() -> Iterator[Playbook]:
    with playbook(machine()) as play:
        play >> Opened() << ...
        yield play


def listen(play: Playbook, **fields: object) -> Playbook:
    audio = cfg.AudioConfig(input=cfg.AudioInput(**fields))  # type: ignore[arg-type]
    return play >> SessionUpdate(session=cfg.RealtimeSession(audio=audio)) << ... << sends("session.updated")


def hear(play: Playbook, ms: int, speech: bool, epoch: int = 1) -> Playbook:
    audio = tone(ms) if speech else silence(ms)
    play >> InputAudioBufferAppend(audio=audio) << DetectSpeech(epoch, audio, PCM16_24K)
    return play >> SpeechScored(epoch, FRAME_MS, (float(speech),) * (ms // FRAME_MS))


def along(audio: bytes, start_ms: int, **fields: object) -> object:
    start = PCM16_24K.bytes_of(start_ms)
    return asks(Listen, item_id="item_1", start=start, audio=audio, **fields)


def test_t5_a_turn_is_heard_from_its_padding_to_its_end(play: Playbook) -> None:
    hear(play, 100, False)
    hear(play, 200, True) << sends("input_audio_buffer.speech_started") << along(silence(100) + tone(200), 0)
    hear(play, 160, False) << along(silence(160), 300)
    hear(play, 40, False) << sends("input_audio_buffer.speech_stopped") << ...
    whole = silence(100) + tone(200) + silence(200)
    play << asks(Transcribe, item_id="item_1", turn_id="item_1", audio=whole) << StopListening("item_1") << ...


def test_the_hints_are_those_of_the_configuration(play: Playbook) -> None:
    listen(play, transcription=cfg.Transcription(model="m", language="de", prompt="names"))
    hear(play, 200, True) << ... << along(tone(200), 0, language="de", prompt="names")


def test_t6_what_the_client_will_commit_is_heard_under_the_id_of_the_item(play: Playbook) -> None:
    listen(play, turn_detection=None)
    play >> InputAudioBufferAppend(audio=tone(60)) << along(tone(60), 0)
    play >> InputAudioBufferAppend(audio=tone(60)) << along(tone(60), 60)
    play >> InputAudioBufferCommit() << sends("input_audio_buffer.committed", item_id="item_1") << ...
    play << asks(Transcribe, item_id="item_1", turn_id="item_1", audio=tone(120)) << StopListening("item_1")
    play >> InputAudioBufferAppend(audio=tone(60)) << asks(Listen, item_id="item_2", start=0)


def test_what_is_cleared_is_heard_no_more(play: Playbook) -> None:
    listen(play, turn_detection=None)
    play >> InputAudioBufferAppend(audio=tone(60)) << along(tone(60), 0)
    play >> InputAudioBufferClear() << StopListening("item_1") << sends("input_audio_buffer.cleared")
    play >> InputAudioBufferAppend(audio=tone(60)) << asks(Listen, item_id="item_2", start=0)


def test_turns_that_are_found_from_now_on_begin_with_speech(play: Playbook) -> None:
    listen(play, turn_detection=None)
    play >> InputAudioBufferAppend(audio=tone(60)) << along(tone(60), 0)
    on = cfg.AudioConfig(input=cfg.AudioInput(turn_detection=cfg.ServerVad()))
    play >> SessionUpdate(session=cfg.RealtimeSession(audio=on)) << sends("session.updated") << StopListening("item_1")


def test_a_turn_that_stays_open_without_detection_goes_on(play: Playbook) -> None:
    hear(play, 200, True) << sends("input_audio_buffer.speech_started") << along(tone(200), 0)
    off = cfg.AudioConfig(input=cfg.AudioInput(turn_detection=None))
    play >> SessionUpdate(session=cfg.RealtimeSession(audio=off)) << sends("session.updated")
    play >> InputAudioBufferAppend(audio=tone(60)) << along(tone(60), 200)
    play >> InputAudioBufferCommit() << ... << asks(Transcribe, turn_id="item_1", audio=tone(260)) << ...


def test_clean_audio_is_heard_once_it_is_clean(play: Playbook) -> None:
    listen(play, turn_detection=None, noise_reduction=cfg.NoiseReduction(type="near_field"))
    play >> InputAudioBufferAppend(audio=tone(120)) << asks(ReduceNoise)
    play >> NoiseReduced(1, silence(80)) << along(silence(80), 0)
    whole = silence(80) + tone(120)[len(tone(80)) :]
    play >> InputAudioBufferCommit() << ... << asks(Transcribe, audio=whole) << ...


@pytest.mark.parametrize(
    "fields", [{"include": ("item.input_audio_transcription.logprobs",)}, {"model": "gpt-4o-transcribe-diarize"}]
)
def test_details_need_the_whole_turn(fields: dict[str, object]) -> None:
    able = Surroundings(abilities=Abilities(hears_along=True, logprobs=True))
    with playbook(Session(id="s", model="m", ids=counting_ids(), expires_at=0, surroundings=able)) as play:
        play >> Opened() << ...
        into = cfg.AudioInput(turn_detection=None, transcription=cfg.Transcription(model=str(fields.get("model", "m"))))
        settings = cfg.RealtimeSession(audio=cfg.AudioConfig(input=into), include=fields.get("include", ()))  # type: ignore[arg-type]
        play >> SessionUpdate(session=settings) << sends("session.updated")
        play >> InputAudioBufferAppend(audio=tone(60))


def test_t16_where_nobody_wants_to_know_nobody_listens() -> None:
    into = cfg.AudioInput(turn_detection=None)
    with playbook(machine(cfg.TranscriptionSession(audio=cfg.AudioConfig(input=into)))) as play:
        play >> Opened() << ...
        play >> InputAudioBufferAppend(audio=tone(200))


def test_t16_a_model_that_streams_tells_the_words_before_the_commit(play: Playbook) -> None:
    listen(play, turn_detection=None, transcription=STREAMING)
    play >> InputAudioBufferAppend(audio=tone(300)) << along(tone(300), 0)
    play >> WordsHeard("item_1", "Good") << sends(DELTA, item_id="item_1", delta="Good")
    play >> WordsHeard("item_1", " morning") << sends(DELTA, item_id="item_1", delta=" morning")
    play >> InputAudioBufferCommit() << ... << asks(Transcribe) << StopListening("item_1")
    play >> WordsHeard("item_1", " too late")
    play >> TranscriptDelta("item_1", "Good morning, ") << sends(DELTA, delta=", ")
    play >> TranscriptDelta("item_1", "all.") << sends(DELTA, delta="all.")
    play >> TranscriptEnded("item_1") << sends(COMPLETED, transcript="Good morning, all.")


def test_the_client_is_told_no_guess(play: Playbook) -> None:
    listen(play, turn_detection=None, transcription=STREAMING)
    play >> InputAudioBufferAppend(audio=tone(300)) << along(tone(300), 0)
    play >> WordsHeard("item_1", "Good", " boy") << sends(DELTA, delta="Good")
    play >> WordsHeard("item_1", "", " morning")
    play >> WordsHeard("item_1", " morning") << sends(DELTA, delta=" morning")


def test_where_the_text_turns_out_otherwise_the_whole_is_what_counts(play: Playbook) -> None:
    listen(play, turn_detection=None, transcription=STREAMING)
    play >> InputAudioBufferAppend(audio=tone(300)) << along(tone(300), 0)
    play >> WordsHeard("item_1", "Good") << sends(DELTA, delta="Good")
    play >> InputAudioBufferCommit() << ... << asks(Transcribe) << StopListening("item_1")
    play >> TranscriptDelta("item_1", "Could be.")
    play >> TranscriptEnded("item_1") << sends(COMPLETED, transcript="Could be.")


def test_other_models_tell_nothing_before_the_turn_is_an_item(play: Playbook) -> None:
    listen(play, turn_detection=None, transcription=cfg.Transcription(model="whisper-1"))
    play >> InputAudioBufferAppend(audio=tone(300)) << along(tone(300), 0)
    play >> WordsHeard("item_1", "Good")


def test_a_prepared_answer_is_asked_of_what_was_heard_along() -> None:
    with playbook(machine(speculation=True)) as play:
        play >> Opened() << ...
        hear(play, 200, True) << sends("input_audio_buffer.speech_started") << along(tone(200), 0)
        hear(play, 160, False) << along(silence(160), 200)
        play << asks(Transcribe, item_id="spec_1", turn_id="item_1", audio=tone(200) + silence(160))
        play >> TranscriptDelta("spec_1", "What is it?")
        play >> TranscriptEnded("spec_1") << asks(Generate)
        hear(play, 40, False) << sends("input_audio_buffer.speech_stopped") << ... << StopListening("item_1") << ...


def test_a_pause_is_judged_of_what_was_heard_along() -> None:
    with playbook(machine()) as play:
        play >> Opened() << ...
        listen(play, turn_detection=cfg.SemanticVad(eagerness="high"))
        hear(play, 200, True) << sends("input_audio_buffer.speech_started") << along(tone(200), 0)
        hear(play, 200, False) << asks(JudgeTurn, item_id="item_1") << along(silence(200), 200)
        play >> TurnJudged("item_1", 1, 1.0)
        hear(play, 400, False) << ... << asks(Transcribe, turn_id="item_1") << StopListening("item_1") << ...


def test_barge_in_still_cancels_the_response(play: Playbook) -> None:
    hear(play, 200, True) << ... << along(tone(200), 0)
    hear(play, 200, False) << ... << StopListening("item_1") << sends("response.created")
    hear(play, 200, True) << ... << Cancel("resp_1") << ... << asks(Listen, item_id="item_2", start=0)


# --- the language model reads along -----------------------------------------------------------------------------------


def words(text: str) -> dict[str, object]:
    """What the model is asked about a turn in which this was said."""
    return {"items": [{"role": "user", "content": [{"transcript": text}]}]}


def reading(**limits: int) -> Session:
    able = Abilities(hears_along=True, prepares=True, speculation=True)
    return Session(
        id="s",
        model="m",
        ids=counting_ids(),
        expires_at=0,
        limits=Limits(**limits),
        surroundings=Surroundings(abilities=able),
    )


def test_the_model_reads_what_was_said_so_far() -> None:
    with playbook(reading()) as play:
        play >> Opened() << ...
        hear(play, 200, True) << sends("input_audio_buffer.speech_started") << asks(Prepare) << along(tone(200), 0)
        play >> WordsHeard("item_1", "What") << asks(Prepare, wanted=words("What"))
        play >> WordsHeard("item_1", " is") << asks(Prepare, wanted=words("What is"))


def test_the_model_reads_on_where_words_are_only_guessed() -> None:
    with playbook(reading()) as play:
        play >> Opened() << ...
        hear(play, 200, True) << ...
        play >> WordsHeard("item_1", "What", " was it") << asks(Prepare, wanted=words("What was it"))
        play >> WordsHeard("item_1", " is", " the") << asks(Prepare, wanted=words("What is the"))
        play >> WordsHeard("item_1", "", " this") << asks(Prepare, wanted=words("What is this"))


def test_an_answer_is_prepared_at_any_pause_where_trying_costs_nothing_else() -> None:
    with playbook(reading()) as play:
        play >> Opened() << ...
        hear(play, 200, True) << ... << along(tone(200), 0)
        hear(play, 20, False) << along(silence(20), 200)
        hear(play, 20, False) << along(silence(20), 220) << asks(Transcribe, item_id="spec_1")


def test_while_another_answer_goes_on_nothing_is_read() -> None:
    with playbook(reading()) as play:
        play >> Opened() << ...
        listen(play, turn_detection=cfg.ServerVad(interrupt_response=False))
        play >> ResponseCreate() << ...
        hear(play, 200, True) << sends("input_audio_buffer.speech_started") << along(tone(200), 0)
        play >> WordsHeard("item_1", "What")


def test_a_transcription_session_has_nothing_to_read() -> None:
    into = cfg.AudioInput(turn_detection=None, transcription=STREAMING)
    session = cfg.TranscriptionSession(audio=cfg.AudioConfig(input=into))
    with playbook(machine(session, prepares=True)) as play:
        play >> Opened() << ...
        play >> InputAudioBufferAppend(audio=tone(200)) << asks(Listen)
        play >> WordsHeard("item_1", "What") << sends(DELTA)
