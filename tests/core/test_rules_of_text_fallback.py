"""Where speech fails, the answer goes on as its transcript (the machine's own rule; see T4, T22)."""

from __future__ import annotations

import pytest

from vivavoce.core.messages import (
    AudioSynthesized,
    CallArguments,
    CallStarted,
    Cancel,
    Generate,
    GenerationEnded,
    PhraseSpoken,
    Speak,
    SpeechScored,
    SynthesisFailed,
    TextGenerated,
)
from vivavoce.protocol.events import (
    ConversationItemTruncate,
    InputAudioBufferAppend,
    ResponseCancel,
    ResponseCreate,
)
from vivavoce.testing.playbook import Expected, Playbook, asks, sends
from vivavoce.testing.sounds import silence

FIRST, SECOND, THIRD = "One two three. ", "Four five six. ", "Seven eight nine."
WHOLE = FIRST + SECOND + THIRD
ERROR = sends("error", error={"type": "server_error", "code": "broken", "event_id": None})


@pytest.fixture
def speaking(play: Playbook) -> Playbook:
    """A response that has written two phrases, and spoken none."""
    play >> ResponseCreate() << ...
    play >> TextGenerated("resp_1", FIRST + SECOND) << ... << asks(Speak, phrase=0) << asks(Speak, phrase=1)
    return play


def fails(play: Playbook) -> Playbook:
    """With one phrase behind the one that failed, which nobody wants to hear any more."""
    return fails_at_last(play) << Cancel("item_1")


def fails_at_last(play: Playbook) -> Playbook:
    return play >> SynthesisFailed("resp_1", "item_1", "broken", "No voice.") << ERROR


def goes_on(play: Playbook) -> None:
    """What is still written is not spoken."""
    play >> TextGenerated("resp_1", THIRD) << sends("response.output_audio_transcript.delta", delta=THIRD)


def done(status: str, transcript: str = WHOLE, **fields: object) -> Expected:
    item = {"type": "message", "content": [{"type": "output_audio", "transcript": transcript}]}
    return sends("response.done", response={"status": status, "output": [item], **fields})


def ends(play: Playbook, audio_tokens: int) -> None:
    play >> GenerationEnded("resp_1", "stop") << sends("response.output_audio.done")
    play << sends("response.output_audio_transcript.done", transcript=WHOLE) << ...
    play << done("completed", usage={"output_token_details": {"audio_tokens": audio_tokens}})


def seen(play: Playbook, transcript: str) -> None:
    """What the language model is told that it said."""
    play >> ResponseCreate() << ... << asks(Generate, items=[{"content": [{"transcript": transcript}]}])


def test_it_fails_at_the_first_phrase(speaking: Playbook) -> None:
    fails(speaking)
    goes_on(speaking)
    ends(speaking, 0)
    seen(speaking, WHOLE)


def test_it_fails_in_the_middle_of_a_phrase(speaking: Playbook) -> None:
    speaking >> AudioSynthesized("resp_1", "item_1", silence(500)) << sends("response.output_audio.delta")
    fails(speaking)
    goes_on(speaking)
    ends(speaking, 10)
    seen(speaking, WHOLE)


def test_what_the_synthesizer_still_says_means_nothing(speaking: Playbook) -> None:
    fails(speaking)
    speaking >> AudioSynthesized("resp_1", "item_1", silence(500))
    speaking >> PhraseSpoken("resp_1", "item_1", 0)
    speaking >> PhraseSpoken("resp_1", "item_1", 1)
    speaking >> SynthesisFailed("resp_1", "item_1", "broken", "Still no voice.")
    goes_on(speaking)
    ends(speaking, 0)


def test_a_phrase_that_nobody_asked_for_means_nothing(play: Playbook) -> None:
    play >> ResponseCreate() << ...
    play >> TextGenerated("resp_1", "One") << ...
    play >> PhraseSpoken("resp_1", "item_1", 0)
    play >> GenerationEnded("resp_1", "stop") << asks(Speak, phrase=0)


def test_it_fails_when_the_text_is_complete(speaking: Playbook) -> None:
    speaking >> GenerationEnded("resp_1", "stop")
    fails(speaking) << ... << done("completed", FIRST + SECOND)


def test_calls_behind_it_wait_no_longer(speaking: Playbook) -> None:
    speaking >> CallStarted("resp_1", "look")
    speaking >> CallArguments("resp_1", "{}")
    fails(speaking) << ... << sends("response.output_item.done", output_index=0)
    speaking << sends("response.output_item.added", output_index=1, item={"name": "look"}) << ...
    speaking >> TextGenerated("resp_1", "Done. ") << ... << sends("response.output_item.added", output_index=2)
    speaking << ... << sends("response.output_audio_transcript.delta", delta="Done. ")
    speaking >> GenerationEnded("resp_1", "stop") << ...
    speaking << sends("response.done", response={"status": "completed", "output": [{}, {"arguments": "{}"}, {}]})


def test_truncated_afterwards_the_model_sees_what_was_heard(speaking: Playbook) -> None:
    speaking >> AudioSynthesized("resp_1", "item_1", silence(900)) << ...
    speaking >> PhraseSpoken("resp_1", "item_1", 0)
    speaking >> AudioSynthesized("resp_1", "item_1", silence(600)) << ...
    fails_at_last(speaking)
    goes_on(speaking)
    ends(speaking, 30)
    truncate = ConversationItemTruncate(item_id="item_1", content_index=0, audio_end_ms=1_500)
    speaking >> truncate << sends("conversation.item.truncated")
    seen(speaking, "One two three. Four ")


def test_truncated_afterwards_at_the_first_phrase(speaking: Playbook) -> None:
    fails(speaking)
    goes_on(speaking)
    ends(speaking, 0)
    truncate = ConversationItemTruncate(item_id="item_1", content_index=0, audio_end_ms=0)
    speaking >> truncate << sends("conversation.item.truncated")
    seen(speaking, "")


def test_barge_in_afterwards(speaking: Playbook) -> None:
    fails(speaking)
    speaking >> InputAudioBufferAppend(audio=silence(100)) << ...
    speaking >> SpeechScored(1, 20, (1.0,) * 5) << sends("input_audio_buffer.speech_started") << Cancel("resp_1")
    speaking << sends("response.output_audio.done") << ...
    speaking << done("cancelled", FIRST + SECOND, status_details={"reason": "turn_detected"})


def test_cancelled_afterwards(speaking: Playbook) -> None:
    fails(speaking)
    speaking >> ResponseCancel() << Cancel("resp_1") << ... << done("cancelled", FIRST + SECOND)


def test_the_next_response_is_spoken_again(speaking: Playbook) -> None:
    fails(speaking)
    speaking >> GenerationEnded("resp_1", "stop") << ...
    speaking >> ResponseCreate() << ...
    speaking >> TextGenerated("resp_2", FIRST) << ... << asks(Speak, item_id="item_2")
