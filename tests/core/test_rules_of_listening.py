"""From appended audio to turns (reference §3.4–§3.6, §4.4 T5–T7, §5)."""

from __future__ import annotations

import pytest

from vivavoce.audio.formats import PCM16_24K, ULAW_8K
from vivavoce.core.answering import AGAIN_MAX
from vivavoce.core.limits import Limits
from vivavoce.core.messages import (
    AudioSynthesized,
    CallArguments,
    CallStarted,
    Cancel,
    DetectSpeech,
    Drain,
    Generate,
    GenerationEnded,
    Opened,
    PhraseSpoken,
    SpeechScored,
    TextGenerated,
    Transcribe,
    TranscriptDelta,
    TranscriptEnded,
    TranscriptFailed,
)
from vivavoce.core.session import Session
from vivavoce.protocol import config as cfg
from vivavoce.protocol.events import (
    ConversationItemTruncate,
    InputAudioBufferAppend,
    InputAudioBufferClear,
    InputAudioBufferCommit,
    ResponseCancel,
    ResponseCreate,
    ResponseParams,
    SessionUpdate,
)
from vivavoce.testing.matching import Id
from vivavoce.testing.playbook import Expected, Playbook, asks, counting_ids, playbook, sends
from vivavoce.testing.sounds import silence, tone

FRAME_MS = 20


def listen(play: Playbook, **fields: object) -> None:
    audio = cfg.AudioConfig(input=cfg.AudioInput(**fields))  # type: ignore[arg-type]
    play >> SessionUpdate(session=cfg.RealtimeSession(audio=audio)) << sends("session.updated")


def hear(play: Playbook, ms: int, speech: bool, epoch: int = 1) -> Playbook:
    """`ms` of audio come and are scored; what follows from it is for the caller to expect."""
    audio = tone(ms) if speech else silence(ms)
    play >> InputAudioBufferAppend(audio=audio) << DetectSpeech(epoch, audio, PCM16_24K)
    return play >> SpeechScored(epoch, FRAME_MS, (1.0 if speech else 0.0,) * (ms // FRAME_MS))


def started(item: Id, ms: int) -> Expected:
    return sends("input_audio_buffer.speech_started", item_id=item, audio_start_ms=ms)


def stopped(item: Id, ms: int) -> Expected:
    return sends("input_audio_buffer.speech_stopped", item_id=item, audio_end_ms=ms)


def error(code: str, param: str | None = None) -> Expected:
    return sends("error", error={"code": code, "param": param, "event_id": "mine"})


def committed(play: Playbook, item: Id, previous: str | None = None) -> Playbook:
    """The turn's item is announced."""
    begins = {"id": item, "role": "user", "content": [{"type": "input_audio", "transcript": None}]}
    return (
        play
        << sends("input_audio_buffer.committed", item_id=item, previous_item_id=previous)
        << sends("conversation.item.added", item=begins, previous_item_id=previous)
        << sends("conversation.item.done", item=begins, previous_item_id=previous)
    )


# --- T5 and §5 --------------------------------------------------------------------------------------------------------


def test_t5_a_turn_by_voice_activity(play: Playbook) -> None:
    item, response = Id("item"), Id("response")
    listen(play, transcription=cfg.Transcription(model="m", language="de", prompt="names"))
    hear(play, 500, False)
    hear(play, 200, True) << started(item, 200)
    hear(play, 100, False)
    hear(play, 600, False) << stopped(item, 900)
    committed(play, item)
    play << Transcribe(item, silence(300) + tone(200) + silence(200), PCM16_24K, "de", "names")
    play << sends("response.created", response={"id": response})
    for piece in ("one", " two"):
        (
            play
            >> TranscriptDelta(item, piece)
            << sends("conversation.item.input_audio_transcription.delta", item_id=item, content_index=0, delta=piece)
        )
    (
        play
        >> TranscriptEnded(item)
        << sends(
            "conversation.item.input_audio_transcription.completed",
            item_id=item,
            transcript="one two",
            usage={"type": "duration", "seconds": 0.7},
        )
    )
    play << asks(Generate, response_id=response, items=[{"content": [{"transcript": "one two"}]}])


def test_t5_without_transcription_the_client_is_told_none(play: Playbook) -> None:
    hear(play, 200, True) << ...
    hear(play, 600, False) << ... << asks(Transcribe) << sends("response.created")
    play >> TranscriptDelta("item_1", "one")
    play >> TranscriptEnded("item_1") << asks(Generate, items=[{"content": [{"transcript": "one"}]}])


def test_t5_a_transcription_that_fails(play: Playbook) -> None:
    listen(play, transcription=cfg.Transcription(model="m"), turn_detection=None)
    play >> InputAudioBufferAppend(audio=tone(200)) >> InputAudioBufferCommit() << ...
    (
        play
        >> TranscriptFailed("item_1", "noise", "Nothing heard.")
        << sends(
            "conversation.item.input_audio_transcription.failed",
            item_id="item_1",
            error={"type": "transcription_error", "code": "noise", "message": "Nothing heard."},
        )
    )


def test_a_turn_in_which_nothing_was_said_gets_an_empty_answer(play: Playbook) -> None:
    hear(play, 200, True) << ...
    hear(play, 600, False) << ... << sends("response.created")
    play >> TranscriptDelta("item_1", " ")
    play >> TranscriptEnded("item_1") << sends("response.done", response={"status": "completed", "output": []})


def test_a_click_is_no_turn(play: Playbook) -> None:
    hear(play, 60, True)
    hear(play, 500, False)
    hear(play, 60, True)
    hear(play, 20, True) << started(Id("item"), 260)


def test_the_next_turn_begins_where_the_last_one_ended_at_the_earliest(play: Playbook) -> None:
    first, second = Id("first"), Id("second")
    listen(play, turn_detection=cfg.ServerVad(silence_duration_ms=200, create_response=False))
    hear(play, 100, True) << started(first, 0)
    hear(play, 200, False) << stopped(first, 300) << ...
    hear(play, 100, True) << started(second, 300)
    hear(play, 200, False) << stopped(second, 600) << ...
    play << ...


def test_the_clock_goes_on_through_commit_and_clear(play: Playbook) -> None:
    listen(play, turn_detection=cfg.ServerVad(prefix_padding_ms=0, silence_duration_ms=200))
    hear(play, 500, False)
    play >> InputAudioBufferClear() << sends("input_audio_buffer.cleared")
    hear(play, 500, False, epoch=2)
    play >> SpeechScored(1, FRAME_MS, (1.0,) * 20)
    hear(play, 100, True, epoch=2) << started(Id("item"), 1_000)


def test_create_response_and_interrupt_response_may_be_off(play: Playbook) -> None:
    item = Id("item")
    listen(play, turn_detection=cfg.ServerVad(create_response=False, interrupt_response=False))
    play >> ResponseCreate() << ...
    hear(play, 100, True) << started(item, 0)
    hear(play, 500, False) << stopped(item, 600)
    committed(play, item) << asks(Transcribe)


def test_turning_detection_off_in_a_turn_leaves_its_audio_for_a_commit(play: Playbook) -> None:
    item = Id("item")
    hear(play, 200, True) << started(item, 0)
    listen(play, turn_detection=None)
    play >> SpeechScored(1, FRAME_MS, (0.0,) * 50)
    play >> InputAudioBufferAppend(audio=silence(100))
    play >> InputAudioBufferCommit()
    committed(play, item) << asks(Transcribe, audio=tone(200) + silence(100))


def test_new_parameters_apply_from_the_next_audio(play: Playbook) -> None:
    item = Id("item")
    hear(play, 200, True) << started(item, 0)
    listen(play, turn_detection=cfg.ServerVad(silence_duration_ms=1_000, create_response=False))
    hear(play, 500, False)
    hear(play, 500, False) << stopped(item, 1_200) << ...


def test_a_turn_has_a_longest_duration() -> None:
    first = Id("first")
    machine = Session(id="s", model="m", ids=counting_ids(), expires_at=0, limits=Limits(turn_ms_max=400))
    with playbook(machine) as play:
        play >> Opened() << ...
        hear(play, 300, True) << started(first, 0)
        hear(play, 100, True) << stopped(first, 400) << ...
        hear(play, 100, True) << ... << sends("input_audio_buffer.speech_started", audio_start_ms=400) << ...


# --- T6, §3.4–§3.6 ----------------------------------------------------------------------------------------------------


def test_t6_the_client_commits(play: Playbook) -> None:
    first, second = Id("first"), Id("second")
    listen(play, turn_detection=None)
    play >> InputAudioBufferAppend(audio=tone(60)) >> InputAudioBufferAppend(audio=tone(60))
    play >> InputAudioBufferCommit()
    committed(play, first) << asks(Transcribe, item_id=first, audio=tone(60) + tone(60), language=None)
    play >> InputAudioBufferAppend(audio=tone(100)) >> InputAudioBufferCommit()
    committed(play, second, first) << asks(Transcribe)
    play >> ResponseCreate() << sends("response.created")


@pytest.mark.parametrize("ms", [0, 99])
def test_t6_too_little_to_commit(play: Playbook, ms: int) -> None:
    listen(play, turn_detection=None)
    play >> InputAudioBufferAppend(audio=tone(ms))
    play >> InputAudioBufferCommit(event_id="mine") << error("input_audio_buffer_commit_empty")


def test_t6_clearing_drops_what_was_appended(play: Playbook) -> None:
    listen(play, turn_detection=None)
    play >> InputAudioBufferAppend(audio=tone(500))
    play >> InputAudioBufferClear() << sends("input_audio_buffer.cleared")
    play >> InputAudioBufferClear() << sends("input_audio_buffer.cleared")
    play >> InputAudioBufferCommit(event_id="mine") << error("input_audio_buffer_commit_empty")


def test_a_commit_in_a_turn_ends_it_without_speech_stopped_and_without_an_answer(play: Playbook) -> None:
    item = Id("item")
    hear(play, 200, True) << started(item, 0)
    play >> InputAudioBufferCommit()
    committed(play, item) << asks(Transcribe, audio=tone(200))
    hear(play, 500, False, epoch=2)


def test_a_commit_before_speech_takes_what_the_buffer_holds(play: Playbook) -> None:
    hear(play, 1_000, False)
    play >> InputAudioBufferCommit()
    committed(play, Id("item")) << asks(Transcribe, audio=silence(300))


def test_clearing_in_a_turn_forgets_it(play: Playbook) -> None:
    hear(play, 200, True) << started(Id("item"), 0)
    play >> InputAudioBufferClear() << sends("input_audio_buffer.cleared")
    hear(play, 500, False, epoch=2)


def test_half_a_sample_waits_for_the_other_half(play: Playbook) -> None:
    play >> InputAudioBufferAppend(audio=b"\x01")
    play >> InputAudioBufferAppend(audio=b"\x02\x03") << DetectSpeech(1, b"\x01\x02", PCM16_24K)
    play >> InputAudioBufferAppend(audio=b"")


def test_the_buffer_has_a_limit() -> None:
    machine = Session(id="s", model="m", ids=counting_ids(), expires_at=0, limits=Limits(input_ms_max=500))
    with playbook(machine) as play:
        play >> Opened() << ...
        listen(play, turn_detection=None)
        play >> InputAudioBufferAppend(audio=tone(500))
        play >> InputAudioBufferAppend(audio=tone(1), event_id="mine") << error("input_audio_buffer_full", "audio")
        play >> InputAudioBufferCommit() << ... << asks(Transcribe, audio=tone(500))


def test_the_limit_is_exact_to_the_sample_however_the_audio_is_cut() -> None:
    machine = Session(id="s", model="m", ids=counting_ids(), expires_at=0, limits=Limits(input_ms_max=500))
    full = error("input_audio_buffer_full", "audio")
    with playbook(machine) as play:
        play >> Opened() << ...
        listen(play, turn_detection=None)
        play >> InputAudioBufferAppend(audio=tone(500)[:-1])
        play >> InputAudioBufferAppend(audio=bytes(47), event_id="mine") << full
        play >> InputAudioBufferAppend(audio=b"\x00")
        play >> InputAudioBufferAppend(audio=b"\x00")  # half a sample is none yet
        play >> InputAudioBufferAppend(audio=b"\x00", event_id="mine") << full


def test_g711_counts_in_its_own_time(play: Playbook) -> None:
    listen(play, format=cfg.PcmuFormat(), turn_detection=None)
    play >> InputAudioBufferAppend(audio=bytes(799))
    play >> InputAudioBufferCommit(event_id="mine") << error("input_audio_buffer_commit_empty")
    play >> InputAudioBufferAppend(audio=bytes(1))
    play >> InputAudioBufferCommit() << ... << Transcribe("item_1", bytes(800), ULAW_8K)


def test_the_format_is_fixed_while_the_buffer_holds_audio_to_keep(play: Playbook) -> None:
    audio = cfg.AudioConfig(input=cfg.AudioInput(format=cfg.PcmuFormat()))
    change = SessionUpdate(session=cfg.RealtimeSession(audio=audio), event_id="mine")
    hear(play, 200, True) << ...
    play >> change << error("invalid_value", "session.audio.input.format")
    play >> InputAudioBufferClear() << sends("input_audio_buffer.cleared")
    hear(play, 100, False, epoch=2)
    play >> change << sends("session.updated")
    play >> InputAudioBufferAppend(audio=bytes(80)) << DetectSpeech(3, bytes(80), ULAW_8K)


# --- T7 ---------------------------------------------------------------------------------------------------------------


def test_t7_speech_cuts_a_running_answer_off(play: Playbook) -> None:
    item = Id("item")
    play >> ResponseCreate() << ...
    play >> TextGenerated("resp_1", "One two three. ") << ...
    play >> AudioSynthesized("resp_1", "item_1", b"xx") << ...
    (
        hear(play, 200, True)
        << started(item, 0)
        << Cancel("resp_1")
        << sends("response.output_audio.done")
        << sends("response.output_audio_transcript.done", transcript="One two three. ")
        << sends("response.content_part.done")
        << sends("conversation.item.done", item={"status": "incomplete"})
        << sends("response.output_item.done", item={"status": "incomplete"})
        << sends(
            "response.done",
            response={"status": "cancelled", "status_details": {"type": "cancelled", "reason": "turn_detected"}},
        )
    )
    play >> AudioSynthesized("resp_1", "item_1", b"xx")
    hear(play, 200, False) << stopped(item, 400)
    committed(play, item, "item_1") << asks(Transcribe) << sends("response.created", response={"id": "resp_2"})


def noise(play: Playbook, number: int) -> Playbook:
    """Speech is found, and no word in it: events of a turn whose item is `item_{number}`."""
    hear(play, 200, True) << ...
    hear(play, 200, False) << ...
    return play >> TranscriptEnded(f"item_{number}")


def heard_by_model(*said: tuple[str, str]) -> Expected:
    """The language model is asked, and knows of so much."""
    items = [{"role": role, "content": [{"transcript": text}]} for role, text in said]
    return asks(Generate, items=items)


@pytest.fixture
def asked(play: Playbook) -> Playbook:
    """A question was spoken, and its answer is on its way as resp_1."""
    hear(play, 200, True) << ...
    hear(play, 200, False) << ...
    play >> TranscriptDelta("item_1", "What is it?") << ...
    play >> TranscriptEnded("item_1") << ...
    return play


def test_t7_an_answer_that_a_noise_cuts_off_before_its_first_word_is_given_again(asked: Playbook) -> None:
    noise(asked, 2) << heard_by_model(("user", "What is it?"))


def test_t7_an_answer_that_a_noise_cuts_off_goes_on_from_what_was_heard(asked: Playbook) -> None:
    asked >> TextGenerated("resp_1", "A bird. It sings. ") << ...
    asked >> AudioSynthesized("resp_1", "item_2", bytes(48_000)) << ...
    noise(asked, 3) << heard_by_model(("user", "What is it?"), ("assistant", "A bird. It sings. "))


def test_t7_also_one_that_was_complete_and_is_still_being_played(asked: Playbook) -> None:
    answered(asked)
    hear(asked, 200, True) << ...
    asked >> ConversationItemTruncate(item_id="item_2", content_index=0, audio_end_ms=0) << ...
    hear(asked, 200, False) << ...
    asked >> TranscriptEnded("item_3") << heard_by_model(("user", "What is it?"))


def test_t7_a_noise_behind_an_answer_that_was_heard_is_not_answered(asked: Playbook) -> None:
    answered(asked)
    noise(asked, 3) << sends("response.done", response={"status": "completed", "output": []})


def test_t7_nor_are_two_noises_the_second_of_which_cuts_off_the_answer_to_the_first(asked: Playbook) -> None:
    answered(asked)
    hear(asked, 200, True) << ...
    hear(asked, 200, False) << ... << sends("response.created", response={"id": "resp_2"})
    hear(asked, 200, True) << ... << sends("response.done", response={"id": "resp_2", "status": "cancelled"})
    hear(asked, 200, False) << ...
    asked >> TranscriptEnded("item_3") << ...
    asked >> TranscriptEnded("item_4") << sends("response.done", response={"status": "completed", "output": []})


def test_t7_what_the_client_has_cancelled_is_not_given_again(asked: Playbook) -> None:
    asked >> ResponseCancel() << ...
    noise(asked, 2) << sends("response.done", response={"status": "completed", "output": []})


def test_t7_what_the_client_has_stopped_playing_by_itself_is_not_given_again(asked: Playbook) -> None:
    answered(asked)
    asked >> ConversationItemTruncate(item_id="item_2", content_index=0, audio_end_ms=0) << ...
    noise(asked, 3) << sends("response.done", response={"status": "completed", "output": []})


def test_t7_behind_a_call_the_client_says_how_it_goes_on(asked: Playbook) -> None:
    asked >> CallStarted("resp_1", "look") << ...
    asked >> CallArguments("resp_1", "{}") << ...
    noise(asked, 3) << sends("response.done", response={"status": "completed", "output": []})


def test_t7_where_it_stays_loud_no_answer_is_begun_for_ever(asked: Playbook) -> None:
    for number in range(AGAIN_MAX):
        noise(asked, number + 2) << heard_by_model(("user", "What is it?"))
    noise(asked, AGAIN_MAX + 2) << sends("response.done", response={"status": "completed", "output": []})


def answered(play: Playbook) -> None:
    """The answer is complete: a second of speech as item_2."""
    play >> TextGenerated("resp_1", "A bird.") << ...
    play >> GenerationEnded("resp_1", "stop") << ...
    play >> AudioSynthesized("resp_1", "item_2", bytes(48_000)) << ...
    play >> PhraseSpoken("resp_1", "item_2", 0) << ... << sends("response.done", response={"status": "completed"})


def test_t7_an_answer_beside_the_conversation_is_not_cut_off(play: Playbook) -> None:
    play >> ResponseCreate(response=ResponseParams(conversation="none")) << ...
    hear(play, 200, True) << started(Id("item"), 0)


def test_t7_without_interruption_the_automatic_answer_is_refused(play: Playbook) -> None:
    item = Id("item")
    listen(play, turn_detection=cfg.ServerVad(silence_duration_ms=200, interrupt_response=False))
    play >> ResponseCreate() << ...
    hear(play, 100, True) << started(item, 0)
    hear(play, 200, False) << stopped(item, 300)
    committed(play, item) << asks(Transcribe)
    play << sends("error", error={"code": "conversation_already_has_active_response", "event_id": None})


def test_a_server_that_stops_answers_no_new_turn(play: Playbook) -> None:
    listen(play, turn_detection=cfg.ServerVad(silence_duration_ms=200, interrupt_response=False))
    play >> ResponseCreate() << ...
    play >> Drain()
    hear(play, 100, True) << ...
    hear(play, 200, False) << ... << asks(Transcribe)
