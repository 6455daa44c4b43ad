"""A user who stays silent behind an answer is spoken to again (reference §4.4 T15)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from vivavoce.audio.formats import PCM16_24K
from vivavoce.core.context import SILENCE
from vivavoce.core.messages import (
    AudioSynthesized,
    Cancel,
    Close,
    DetectSpeech,
    Drain,
    Generate,
    GenerationEnded,
    GenerationFailed,
    Opened,
    PhraseSpoken,
    SpeechScored,
    TextGenerated,
    Transcribe,
    TranscriptDelta,
    TranscriptEnded,
)
from vivavoce.core.session import Session
from vivavoce.protocol import config as cfg
from vivavoce.protocol.events import (
    InputAudioBufferAppend,
    InputAudioBufferCommit,
    ResponseCancel,
    ResponseCreate,
    ResponseParams,
    SessionUpdate,
)
from vivavoce.testing.playbook import Playbook, asks, counting_ids, playbook, sends
from vivavoce.testing.sounds import silence, tone

TIMEOUT_MS = 5_000


@pytest.fixture
def play() -> Iterator[Playbook]:
    """A session in text that speaks to a silent user after 5 s."""
    with playbook(Session(id="s", model="m", ids=counting_ids(), expires_at=0)) as play:
        play >> Opened() << ...
        update(play, output_modalities=("text",))
        listen(play)
        yield play


def update(play: Playbook, **fields: object) -> None:
    play >> SessionUpdate(session=cfg.RealtimeSession(**fields)) << sends("session.updated")  # type: ignore[arg-type]


def listen(play: Playbook, **fields: object) -> None:
    detection = cfg.ServerVad(**{"idle_timeout_ms": TIMEOUT_MS, **fields})  # type: ignore[arg-type]
    update(play, audio=cfg.AudioConfig(input=cfg.AudioInput(turn_detection=detection)))


def answered(play: Playbook, number: int = 1, event: ResponseCreate | None = None) -> None:
    """A response runs and is done, at once."""
    play >> (event or ResponseCreate()) << sends("response.created") << asks(Generate, response_id=f"resp_{number}")
    play >> GenerationEnded(f"resp_{number}", "stop") << sends("response.done")


def hear(play: Playbook, audio: bytes, *, speech: bool = False, epoch: int = 1) -> Playbook:
    play >> InputAudioBufferAppend(audio=audio) << asks(DetectSpeech, epoch=epoch)
    return play >> SpeechScored(epoch, 20, (float(speech),) * (len(audio) // 960))


def timed_out(play: Playbook, item: str, start_ms: int, end_ms: int) -> Playbook:
    play << sends("input_audio_buffer.timeout_triggered", item_id=item, audio_start_ms=start_ms, audio_end_ms=end_ms)
    play << sends("input_audio_buffer.committed", item_id=item)
    return play << sends("conversation.item.added", item={"id": item}) << sends("conversation.item.done")


def test_t15_after_the_silence_the_audio_is_committed_and_answered(play: Playbook) -> None:
    answered(play)
    hear(play, silence(5_000))
    play.after(TIMEOUT_MS - 1)
    timed_out(play.after(1), "item_1", 0, 5_000) << Transcribe("item_1", silence(5_000), PCM16_24K)
    play << sends("response.created", response={"id": "resp_2"})
    play >> TranscriptEnded("item_1") << asks(Generate, response_id="resp_2")  # silence is answered, not passed over


def test_the_model_is_told_that_nothing_was_said(play: Playbook) -> None:
    answered(play)
    hear(play, silence(5_000))
    play.after(TIMEOUT_MS) << ...
    play >> TranscriptEnded("item_1") << asks(Generate, items=[{"content": [{"transcript": SILENCE}]}])


def test_a_noise_in_the_silence_is_told_as_it_was_heard(play: Playbook) -> None:
    answered(play)
    hear(play, silence(5_000))
    play.after(TIMEOUT_MS) << ...
    play >> TranscriptDelta("item_1", "Hm.")
    play >> TranscriptEnded("item_1") << asks(Generate, items=[{"content": [{"transcript": "Hm."}]}])


def test_it_does_not_fire_before_the_first_response(play: Playbook) -> None:
    hear(play, silence(5_000))
    play.after(10 * TIMEOUT_MS)


def test_it_fires_once_and_again_behind_the_next_response(play: Playbook) -> None:
    answered(play)
    hear(play, silence(100))
    play.after(TIMEOUT_MS) << ... << sends("response.created")
    play.after(2 * TIMEOUT_MS)
    play >> TranscriptEnded("item_1") << asks(Generate)
    play >> GenerationEnded("resp_2", "stop") << sends("response.done")
    play.after(TIMEOUT_MS) << ... << sends("response.created", response={"id": "resp_3"}) << asks(Generate)


def test_without_any_audio_the_item_is_empty(play: Playbook) -> None:
    answered(play)
    timed_out(play.after(TIMEOUT_MS), "item_1", 0, 0) << sends("response.created") << asks(Generate)


def test_what_was_spoken_is_played_first(play: Playbook) -> None:
    update(play, output_modalities=("audio",))
    play >> ResponseCreate() << ...
    play >> TextGenerated("resp_1", "One two three. ") << ...
    play >> GenerationEnded("resp_1", "stop")
    play >> AudioSynthesized("resp_1", "item_1", silence(2_000)) << ...
    play >> PhraseSpoken("resp_1", "item_1", 0) << ... << sends("response.done")
    play.after(2_000 + TIMEOUT_MS - 1)
    play.after(1) << sends("input_audio_buffer.timeout_triggered") << ...


@pytest.mark.parametrize(("ms", "start_ms"), [(200, 900), (20_000, 16_000)])
def test_only_the_audio_behind_the_answer_is_kept_and_no_more_than_the_timeout(
    play: Playbook, ms: int, start_ms: int
) -> None:
    hear(play, silence(1_000))
    answered(play)
    for _ in range(ms // 100):
        hear(play, silence(100))
    assert isinstance(play.machine, Session)
    assert play.machine._listening._audio.ticks <= 24 * max(TIMEOUT_MS + 100, 1_000)
    timed_out(play.after(TIMEOUT_MS), "item_1", start_ms, 1_000 + ms) << ...


# --- what stops it ----------------------------------------------------------------------------------------------------


def test_speech_stops_it(play: Playbook) -> None:
    answered(play)
    play.after(TIMEOUT_MS - 1)
    hear(play, tone(100), speech=True) << sends("input_audio_buffer.speech_started")
    play.after(2 * TIMEOUT_MS)


def test_a_turn_that_is_open_when_the_answer_is_done_stops_it(play: Playbook) -> None:
    listen(play, interrupt_response=False)
    play >> ResponseCreate() << ...
    hear(play, tone(100), speech=True) << sends("input_audio_buffer.speech_started")
    play >> GenerationEnded("resp_1", "stop") << sends("response.done")
    play.after(2 * TIMEOUT_MS)


def test_speech_right_behind_it_interrupts_its_answer(play: Playbook) -> None:
    answered(play)
    hear(play, silence(100))
    play.after(TIMEOUT_MS) << ... << sends("response.created", response={"id": "resp_2"})
    hear(play, tone(100), speech=True, epoch=2) << sends("input_audio_buffer.speech_started", audio_start_ms=100)
    play << Cancel("resp_2") << sends("response.done", response={"status": "cancelled"})
    play.after(2 * TIMEOUT_MS)


def test_a_new_response_stops_it_until_it_is_done(play: Playbook) -> None:
    answered(play)
    play.after(TIMEOUT_MS - 1)
    play >> ResponseCreate() << ...
    play.after(2 * TIMEOUT_MS)
    play >> GenerationEnded("resp_2", "stop") << sends("response.done")
    play.after(TIMEOUT_MS) << sends("input_audio_buffer.timeout_triggered") << ...


def test_a_response_beside_the_conversation_does_not(play: Playbook) -> None:
    answered(play)
    play.after(TIMEOUT_MS - 1)
    answered(play, 2, ResponseCreate(response=ResponseParams(conversation="none", input=())))
    play.after(1) << sends("input_audio_buffer.timeout_triggered") << ...


def test_a_commit_stops_it(play: Playbook) -> None:
    answered(play)
    hear(play, silence(200))
    play >> InputAudioBufferCommit() << sends("input_audio_buffer.committed") << ...
    play.after(2 * TIMEOUT_MS)


def test_other_turn_detection_stops_it(play: Playbook) -> None:
    answered(play)
    listen(play, idle_timeout_ms=6_000)
    play.after(2 * TIMEOUT_MS)


def test_no_turn_detection_in_another_format_stops_it(play: Playbook) -> None:
    answered(play)
    update(play, audio=cfg.AudioConfig(input=cfg.AudioInput(format=cfg.PcmuFormat(), turn_detection=None)))
    play.after(2 * TIMEOUT_MS)


def test_an_update_of_anything_else_does_not(play: Playbook) -> None:
    answered(play)
    update(play, instructions="Be loud.")
    listen(play)
    play.after(TIMEOUT_MS) << sends("input_audio_buffer.timeout_triggered") << ...


# --- and the rest -----------------------------------------------------------------------------------------------------


def test_it_counts_from_the_end_of_every_response_however_that_ended(play: Playbook) -> None:
    play >> ResponseCreate() << ...
    play >> ResponseCancel() << Cancel("resp_1") << sends("response.done")
    play.after(TIMEOUT_MS - 1)
    play >> ResponseCreate() << ...
    play >> GenerationFailed("resp_2", "broken", "It broke.") << Cancel("resp_2") << sends("response.done")
    play.after(TIMEOUT_MS - 1)
    play.after(1) << sends("input_audio_buffer.timeout_triggered") << ...


def test_where_the_client_creates_responses_it_is_only_told(play: Playbook) -> None:
    listen(play, create_response=False)
    answered(play)
    hear(play, silence(200))
    timed_out(play.after(TIMEOUT_MS), "item_1", 0, 200) << asks(Transcribe)
    play.after(2 * TIMEOUT_MS)


def test_a_server_that_stops_lets_silence_be(play: Playbook) -> None:
    answered(play)
    play >> ResponseCreate(response=ResponseParams(conversation="none", input=())) << ...
    play >> Drain()
    play.after(2 * TIMEOUT_MS)
    play >> GenerationEnded("resp_2", "stop") << sends("response.done") << asks(Close)
