"""Translation sessions: a stream without turns (reference §2.5, §3.14, §4.2, §4.4 T18)."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from vivavoce.audio.formats import PCM16_24K
from vivavoce.core.abilities import Abilities
from vivavoce.core.interpreting import CONTEXT_UTTERANCES, gap_between, instructions
from vivavoce.core.languages import LANGUAGES
from vivavoce.core.limits import Limits
from vivavoce.core.messages import (
    AudioSynthesized,
    CallStarted,
    Cancel,
    Close,
    DetectSpeech,
    Drain,
    EngineReport,
    Expel,
    Generate,
    GenerationEnded,
    GenerationFailed,
    NoiseReduced,
    Opened,
    PhraseSpoken,
    ReduceNoise,
    Speak,
    SpeechScored,
    SynthesisFailed,
    TextGenerated,
    Transcribe,
    TranscriptDelta,
    TranscriptEnded,
    TranscriptFailed,
)
from vivavoce.core.refused import Refused
from vivavoce.core.translating import UTTERANCES_MAX, Translating
from vivavoce.protocol import events as ev
from vivavoce.protocol import translation as tr
from vivavoce.protocol.codec import TranslationServerCodec
from vivavoce.protocol.items import InputText, OutputText
from vivavoce.testing.playbook import Expected, Playbook, asks, counting_ids, playbook, sends
from vivavoce.testing.sounds import silence, tone

FRAME_MS = 20
VOICE = bytes(480)


def machine(
    limits: Limits | None = None,
    configured: tr.TranslationSession | None = None,
    abilities: Abilities | None = None,
) -> Translating:
    return Translating(
        id="sess_1",
        model="translator",
        ids=counting_ids(),
        expires_at=3_600,
        limits=limits,
        configured=configured,
        abilities=abilities,
    )


@pytest.fixture
def play() -> Iterator[Playbook]:
    """A dialogue behind the greeting."""
    with playbook(machine()) as play:
        play >> Opened() << sends("session.created")
        yield play


def configure(**fields: object) -> tr.TranslationSession:
    out = tr.TranslationOutput(**({"language": fields.pop("language")} if "language" in fields else {}))  # type: ignore[arg-type]
    return tr.TranslationSession(audio=tr.TranslationAudio(input=tr.TranslationInput(**fields), output=out))  # type: ignore[arg-type]


def update(play: Playbook, **fields: object) -> Playbook:
    return play >> tr.TranslationSessionUpdate(session=configure(**fields)) << sends("session.updated")


def told(play: Playbook) -> None:
    """From here on the source transcript is told."""
    update(play, transcription=tr.TranslationTranscription(model="any"))


def append(audio: bytes, event_id: str = "mine") -> tr.SessionInputAudioBufferAppend:
    return tr.SessionInputAudioBufferAppend(audio=audio, event_id=event_id)


def hear(play: Playbook, ms: int, is_speech: bool, epoch: int = 1) -> Playbook:
    """`ms` of audio come and are scored; what follows from it is for the caller to expect."""
    audio = tone(ms) if is_speech else silence(ms)
    play >> append(audio) << DetectSpeech(epoch, audio, PCM16_24K)
    return play >> SpeechScored(epoch, FRAME_MS, (1.0 if is_speech else 0.0,) * (ms // FRAME_MS))


def utter(play: Playbook, ms: int = 400) -> Playbook:
    """Somebody says something and is silent."""
    hear(play, ms, True)
    return hear(play, 500, False)


def says(play: Playbook, id: str, source: str) -> Playbook:
    """The transcript comes whole, and is not told."""
    play >> TranscriptDelta(id, source)
    return play >> TranscriptEnded(id)


def audio(elapsed_ms: int) -> Expected:
    return sends(
        "session.output_audio.delta",
        delta=VOICE,
        format="pcm16",
        sample_rate=24_000,
        channels=1,
        elapsed_ms=elapsed_ms,
    )


def source(delta: str) -> Expected:
    return sends("session.input_transcript.delta", delta=delta)


def target(delta: str) -> Expected:
    return sends("session.output_transcript.delta", delta=delta)


def error(code: str, param: str | None = None, event_id: str | None = "mine") -> Expected:
    fields = {"type": "invalid_request_error", "code": code, "param": param, "event_id": event_id}
    return sends("error", error=fields)


def failure(code: str) -> Expected:
    return sends("error", error={"type": "server_error", "code": code, "event_id": None})


# --- T18 --------------------------------------------------------------------------------------------------------------


def test_t18_a_translation_session(play: Playbook) -> None:
    update(play, language="es", transcription=tr.TranslationTranscription(model="any"))
    hear(play, 300, False)
    hear(play, 600, True)
    hear(play, 500, False) << Transcribe("item_1", silence(300) + tone(600) + silence(500), PCM16_24K)
    (
        play
        >> TranscriptDelta("item_1", " Good ")
        << sends("session.input_transcript.delta", delta="Good ", elapsed_ms=1_400)
    )
    play >> TranscriptDelta("item_1", "morning.") << source("morning.")
    (
        play
        >> TranscriptEnded("item_1")
        << asks(
            Generate,
            response_id="item_1",
            instructions=instructions("es"),
            items=[{"role": "user", "content": [InputText(text="Good morning.")]}],
            tools=[],
        )
    )
    (
        play
        >> TextGenerated("item_1", "Buenos ")
        << sends("session.output_transcript.delta", delta="Buenos ", elapsed_ms=1_400)
    )
    (
        play
        >> TextGenerated("item_1", "días.")
        << target("días.")
        << asks(Speak, phrase=0, text="Buenos días.", format=PCM16_24K)
    )
    play >> GenerationEnded("item_1", "stop")
    play >> AudioSynthesized("item_1", "item_1", VOICE) << audio(1_400)
    play >> append(silence(250)) << asks(DetectSpeech)
    play >> AudioSynthesized("item_1", "item_1", VOICE) << audio(1_600)
    play >> tr.SessionClose()
    play >> PhraseSpoken("item_1", "item_1", 0) << sends("session.closed") << asks(Close, code=1000)
    play >> append(silence(100))


def test_the_session_states_what_it_is() -> None:
    with playbook(machine()) as play:
        play >> Opened()
        play << sends(
            "session.created",
            session={
                "id": "sess_1",
                "type": "translation",
                "model": "translator",
                "expires_at": 3_600,
                "audio": {"input": {"transcription": None, "noise_reduction": None}, "output": {"language": "en"}},
            },
        )


def test_it_may_begin_configured() -> None:
    session = configure(language="fr", transcription=tr.TranslationTranscription(model="any"))
    with playbook(machine(configured=session)) as play:
        play >> Opened()
        play << sends(
            "session.created",
            session={"audio": {"input": {"transcription": {"model": "any"}}, "output": {"language": "fr"}}},
        )
    with pytest.raises(Refused, match="ISO 639-1"):
        machine(configured=configure(language="nowhere"))


def test_the_source_is_told_only_where_it_was_asked_for(play: Playbook) -> None:
    utter(play) << asks(Transcribe)
    play >> TranscriptDelta("item_1", "Good morning.")
    play >> TranscriptEnded("item_1") << asks(Generate)


# --- session.update ---------------------------------------------------------------------------------------------------


def test_an_update_leaves_the_rest_as_it_is(play: Playbook) -> None:
    told(play)
    changed = {"input": {"transcription": {"model": "any"}}, "output": {"language": "de"}}
    play >> tr.TranslationSessionUpdate(session=configure(language="de"))
    play << sends("session.updated", session={"audio": changed})
    play >> tr.TranslationSessionUpdate(session=tr.TranslationSession())
    play << sends("session.updated", session={"audio": changed})
    update(play, transcription=None)
    utter(play) << asks(Transcribe)
    play >> TranscriptDelta("item_1", "not told")


@pytest.mark.parametrize("language", ["xx", "EN", "en-US", "english", ""])
def test_a_language_that_nobody_knows_is_refused(play: Playbook, language: str) -> None:
    event = tr.TranslationSessionUpdate(session=configure(language=language, transcription=None), event_id="mine")
    play >> event << error("invalid_value", "session.audio.output.language")
    update(play)
    utter(play) << asks(Transcribe)
    says(play, "item_1", "hello") << asks(Generate, instructions=instructions("en"))


@pytest.mark.parametrize(
    ("session", "param"),
    [
        ({"model": "other"}, "session.model"),
        ({"type": "translation"}, "session.type"),
        ({"audio": {"output": {"voice": "alloy"}}}, "session.audio.output.voice"),
        ({"audio": {"input": {"turn_detection": None}}}, "session.audio.input.turn_detection"),
        ({"instructions": "Be brief."}, "session.instructions"),
    ],
)
def test_other_fields_are_refused_by_name(play: Playbook, session: object, param: str) -> None:
    frame = json.dumps({"type": "session.update", "event_id": "mine", "session": session})
    play >> TranslationServerCodec().decode(frame) << error("unknown_parameter", param)


def test_conversation_events_mean_nothing_here(play: Playbook) -> None:
    play >> ev.ResponseCreate(event_id="mine") << error("invalid_value", "type")


def test_another_language_counts_from_the_next_utterance(play: Playbook) -> None:
    utter(play) << asks(Transcribe)
    update(play, language="ja")
    says(play, "item_1", "hello") << asks(Generate, instructions=instructions("ja"))
    assert "Japanese" in instructions("ja")


def test_languages_have_names() -> None:
    assert len(LANGUAGES) == 183
    assert all(
        len(code) == 2 and code.isascii() and code.islower() and name.strip() for code, name in LANGUAGES.items()
    )
    assert (LANGUAGES["de"], LANGUAGES["gd"], LANGUAGES["zu"]) == ("German", "Scottish Gaelic", "Zulu")


# --- noise reduction --------------------------------------------------------------------------------------------------

NEAR = tr.TranslationNoiseReduction(type="near_field")


def test_noise_reduction_is_refused_where_there_is_none(play: Playbook) -> None:
    event = tr.TranslationSessionUpdate(session=configure(noise_reduction=NEAR), event_id="mine")
    play >> event << error("invalid_value", "session.audio.input.noise_reduction")


def test_noise_is_reduced_before_anything_else() -> None:
    with playbook(machine(abilities=Abilities(noise_reduction=True))) as play:
        play >> Opened() << sends("session.created")
        far = tr.TranslationNoiseReduction(type="far_field", strength=0.5)
        update(play, noise_reduction=far)
        play >> tr.TranslationSessionUpdate(session=configure(noise_reduction=NEAR))
        play << sends("session.updated", session={"audio": {"input": {"noise_reduction": {"strength": 0.5}}}})
        play >> append(tone(400)) << asks(ReduceNoise, audio=tone(400), field="near_field", strength=0.5)
        play >> NoiseReduced(2, silence(400)) << asks(DetectSpeech, audio=silence(400))
        update(play, noise_reduction=None)
        play >> append(tone(400)) << asks(DetectSpeech, audio=tone(400))


# --- the clock --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 7, 960, 4_801, 100_000])
def test_the_timeline_is_exact_however_the_audio_is_cut(step: int) -> None:
    session = machine()
    session.handle(Opened(), 0)
    sound = tone(600) + silence(590)
    for at in range(0, len(sound), step):
        session.handle(append(sound[at : at + step]), 0)
    session.handle(SpeechScored(1, FRAME_MS, (1.0,) * 30 + (0.0,) * 29), 0)
    session.handle(TranscriptDelta("item_1", "hello"), 0)
    session.handle(TranscriptEnded("item_1"), 0)
    with playbook(session) as play:
        play >> TextGenerated("item_1", "hallo") << sends("session.output_transcript.delta", elapsed_ms=1_000)
        play >> append(silence(10)) << asks(DetectSpeech)
        play >> TextGenerated("item_1", "!") << sends("session.output_transcript.delta", elapsed_ms=1_200)


# --- utterances -------------------------------------------------------------------------------------------------------


def test_utterances_are_heard_translated_and_spoken_in_their_order(play: Playbook) -> None:
    told(play)
    utter(play) << asks(Transcribe, item_id="item_1")
    utter(play)
    utter(play)
    play >> TranscriptDelta("item_1", "one") << source("one")
    play >> TranscriptEnded("item_1") << asks(Transcribe, item_id="item_2") << asks(Generate, response_id="item_1")
    play >> TranscriptDelta("item_2", "two") << source(" two")
    play >> TranscriptEnded("item_2") << asks(Transcribe, item_id="item_3")
    play >> TextGenerated("item_1", "eins") << target("eins")
    play >> GenerationEnded("item_1", "stop")
    play << asks(Generate, response_id="item_2") << asks(Speak, response_id="item_1", text="eins")
    play >> TextGenerated("item_2", "zwei") << target(" zwei")
    play >> GenerationEnded("item_2", "stop")
    play >> AudioSynthesized("item_1", "item_1", VOICE) << audio(2_600)
    play >> PhraseSpoken("item_1", "item_1", 0) << asks(Speak, response_id="item_2", text="zwei")
    play >> PhraseSpoken("item_2", "item_2", 0)
    play >> TranscriptDelta("item_3", "three") << source(" three")
    play >> TranscriptEnded("item_3") << asks(Generate, response_id="item_3")


def test_it_is_spoken_phrase_by_phrase_while_it_is_written(play: Playbook) -> None:
    utter(play) << asks(Transcribe)
    says(play, "item_1", "hello") << asks(Generate)
    play >> TextGenerated("item_1", "Guten Tag. ") << target("Guten Tag. ") << asks(Speak, phrase=0, text="Guten Tag. ")
    play >> TextGenerated("item_1", "Wie geht es? ") << target("Wie geht es? ") << asks(Speak, phrase=1)
    play >> TextGenerated("item_1", "Gut") << target("Gut")
    play >> PhraseSpoken("item_1", "item_1", 0)
    play >> PhraseSpoken("item_1", "item_1", 1)
    play >> TextGenerated("item_1", "?") << target("?")
    play >> GenerationEnded("item_1", "stop") << asks(Speak, phrase=2, text="Gut?")
    play >> tr.SessionClose()
    play >> PhraseSpoken("item_1", "item_1", 2) << sends("session.closed") << asks(Close)


def test_who_speaks_for_long_is_translated_at_the_first_breath(play: Playbook) -> None:
    hear(play, 3_000, True)
    hear(play, 300, False)
    for _ in range(10):
        hear(play, 320, True)
    hear(play, 220, False) << asks(Transcribe, item_id="item_1")
    hear(play, 1_000, True)
    hear(play, 300, False)
    hear(play, 200, False)
    assert_waits_for(play, 2)


def assert_waits_for(play: Playbook, utterances: int) -> None:
    assert isinstance(play.machine, Translating)
    assert len(play.machine._interpreting) == utterances


def test_who_takes_no_breath_is_cut_and_nothing_is_lost(play: Playbook) -> None:
    for _ in range(46):
        hear(play, 320, True)
    hear(play, 320, True) << asks(Transcribe, item_id="item_1", audio=tone(47 * 320)[: 48 * 15_000])
    hear(play, 320, True)
    hear(play, 500, False)
    says(play, "item_1", "a") << asks(Transcribe, item_id="item_2", audio=tone(48 * 320)[48 * 15_000 :] + silence(500))
    play << asks(Generate)


def test_a_noise_is_no_utterance(play: Playbook) -> None:
    told(play)
    utter(play) << asks(Transcribe, item_id="item_1")
    utter(play)
    play >> TranscriptDelta("item_1", "  ")
    play >> TranscriptEnded("item_1") << asks(Transcribe, item_id="item_2")


def test_a_translation_may_be_empty(play: Playbook) -> None:
    utter(play) << asks(Transcribe)
    says(play, "item_1", "hm") << asks(Generate)
    play >> TextGenerated("item_1", " \n")
    play >> GenerationEnded("item_1", "stop")
    assert_waits_for(play, 0)


def test_earlier_utterances_are_context(play: Playbook) -> None:
    for number in range(1, CONTEXT_UTTERANCES + 3):
        id = f"item_{number}"
        utter(play) << asks(Transcribe)
        first = max(1, number - CONTEXT_UTTERANCES)
        earlier = [
            {"role": role, "content": [part(text=f"{word} {n}")]}
            for n in range(first, number)
            for role, word, part in (("user", "source", InputText), ("assistant", "target", OutputText))
        ]
        says(play, id, f"source {number}") << asks(
            Generate, items=[*earlier, {"role": "user", "content": [InputText(text=f"source {number}")]}]
        )
        play >> TextGenerated(id, f"target {number}") << ...
        play >> GenerationEnded(id, "stop") << asks(Speak)
        play >> PhraseSpoken(id, id, 0)
    update(play, language="it")
    utter(play) << asks(Transcribe)
    says(play, f"item_{number + 1}", "new") << asks(Generate, items=[{"role": "user"}])


@pytest.mark.parametrize(
    ("before", "after", "gap"),
    [
        ("", "one", ""),
        ("One.", "Two.", " "),
        ("one ", "two", ""),
        ("一。", "二", ""),
        ("한국", "말", " "),
        ("หนึ่ง", "สอง", ""),
    ],
)
def test_utterances_are_set_apart(before: str, after: str, gap: str) -> None:
    assert gap_between(before, after) == gap


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["transcription", "translation", "speech"])
def test_an_engine_that_fails_is_told_and_the_next_utterance_goes_on(play: Playbook, stage: str) -> None:
    utter(play) << asks(Transcribe, item_id="item_1")
    utter(play)
    if stage == "transcription":
        play >> TranscriptFailed("item_1", "broken", "no ears") << Cancel("item_1") << failure("broken")
        play << asks(Transcribe, item_id="item_2")
    else:
        says(play, "item_1", "one") << asks(Transcribe, item_id="item_2") << asks(Generate)
        if stage == "translation":
            play >> GenerationFailed("item_1", "broken", "no mind")
        else:
            play >> TextGenerated("item_1", "eins") << target("eins")
            play >> GenerationEnded("item_1", "stop") << asks(Speak)
            play >> SynthesisFailed("item_1", "item_1", "broken", "no voice")
        play << Cancel("item_1") << failure("broken")
    says(play, "item_2", "two") << asks(Generate, response_id="item_2")


def test_engines_that_are_silent_for_too_long_have_failed(play: Playbook) -> None:
    utter(play) << asks(Transcribe, item_id="item_1")
    utter(play)
    play.after(59_999)
    play.after(1) << Cancel("item_1") << failure("engine_timeout") << asks(Transcribe, item_id="item_2")
    play.after(30_000)
    says(play, "item_2", "two") << asks(Generate)
    play.after(59_999)
    play.after(1) << Cancel("item_2") << failure("engine_timeout")


def test_a_translation_without_end_is_cut_off() -> None:
    with playbook(machine(Limits(response_chars_max=20))) as play:
        play >> Opened() << ...
        utter(play) << asks(Transcribe)
        says(play, "item_1", "one") << asks(Generate)
        play >> TextGenerated("item_1", "x" * 21) << ... << Cancel("item_1") << failure("utterance_too_long")
        play >> TextGenerated("item_1", "more")


@pytest.mark.parametrize(
    "report",
    [
        TranscriptDelta("item_1", "late"),
        TranscriptEnded("item_1"),
        TextGenerated("item_1", "late"),
        GenerationEnded("item_1", "stop"),
        AudioSynthesized("item_1", "item_1", VOICE),
        PhraseSpoken("item_1", "item_1", 0),
        SynthesisFailed("item_1", "item_1", "late", "late"),
        TranscriptDelta("item_9", "late"),
        CallStarted("item_1", "a_function_that_nobody_gave"),
        SpeechScored(7, FRAME_MS, (1.0,) * 100),
    ],
)
def test_late_reports_change_nothing(play: Playbook, report: EngineReport) -> None:
    utter(play) << asks(Transcribe)
    play >> TranscriptFailed("item_1", "broken", "no ears") << ...
    play >> report


def test_an_engine_of_the_stream_that_fails_is_told(play: Playbook) -> None:
    detail = ev.ErrorDetail(type="server_error", code="engine_error", message="Speech detection has failed.")
    play >> detail << sends("error", error=detail)


# --- limits -----------------------------------------------------------------------------------------------------------


def test_audio_is_refused_while_too_much_waits(play: Playbook) -> None:
    utter(play) << asks(Transcribe)
    for _ in range(UTTERANCES_MAX - 1):
        utter(play)
    play >> append(silence(200)) << error("translation_behind", "audio")
    says(play, "item_1", "") << asks(Transcribe)
    hear(play, 200, False)


def test_audio_that_nobody_scores_is_limited() -> None:
    with playbook(machine(Limits(input_ms_max=1_000))) as play:
        play >> Opened() << ...
        play >> append(silence(900)) << asks(DetectSpeech)
        play >> append(silence(200)) << error("input_audio_buffer_full", "audio")


# --- the end ----------------------------------------------------------------------------------------------------------


def test_closing_translates_what_is_being_said(play: Playbook) -> None:
    hear(play, 600, True)
    play >> tr.SessionClose() << asks(Transcribe, audio=tone(600))
    play >> append(silence(100)) << error("session_closing")
    play >> tr.SessionClose(event_id="mine") << error("session_closing")
    play >> tr.TranslationSessionUpdate(session=configure(), event_id="mine") << error("session_closing")
    says(play, "item_1", "last words") << asks(Generate)
    play >> GenerationEnded("item_1", "stop") << sends("session.closed") << asks(Close, code=1000)


def test_closing_with_nothing_left_closes_at_once(play: Playbook) -> None:
    hear(play, 600, False)
    play >> tr.SessionClose() << sends("session.closed") << asks(Close, code=1000)
    assert play.machine.deadline() is None


def test_a_click_at_the_end_is_no_utterance(play: Playbook) -> None:
    hear(play, 80, True)
    play >> tr.SessionClose() << sends("session.closed") << asks(Close)


def test_closing_waits_for_engines_no_longer_than_they_may_be_silent(play: Playbook) -> None:
    utter(play) << asks(Transcribe)
    play >> tr.SessionClose()
    play.after(60_000) << ... << failure("engine_timeout") << sends("session.closed") << asks(Close, code=1000)


def test_a_server_that_stops_finishes_what_was_said(play: Playbook) -> None:
    utter(play) << asks(Transcribe)
    play >> Drain()
    says(play, "item_1", "one") << asks(Generate)
    play >> GenerationFailed("item_1", "broken", "no mind") << ...
    play << sends("session.closed") << asks(Close, code=1001)


def test_an_operator_closes_a_session_with_what_it_still_had_to_say(play: Playbook) -> None:
    utter(play) << asks(Transcribe)
    told = error("session_closed_by_operator", event_id=None)
    play >> Expel("Closed.") << told << Cancel("item_1") << asks(Close, code=1008, reason="Closed.")


def test_a_session_has_its_time(play: Playbook) -> None:
    play.at(60 * 60 * 1000 - 1)
    utter(play) << asks(Transcribe)
    utter(play)
    play.after(1) << error("session_expired", event_id=None) << Cancel("item_1") << asks(Close, code=1001)
