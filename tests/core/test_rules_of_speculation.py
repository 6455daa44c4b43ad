"""An answer is prepared at the first silence of a turn, and nobody hears of it before the turn has ended."""

from __future__ import annotations

import pytest

from vivavoce.audio.formats import PCM16_24K
from vivavoce.core.abilities import Abilities
from vivavoce.core.account import Bill, Price
from vivavoce.core.limits import Limits
from vivavoce.core.messages import (
    AudioSynthesized,
    CallArguments,
    CallMcpTool,
    CallStarted,
    Cancel,
    DetectSpeech,
    Drain,
    Generate,
    GenerationEnded,
    GenerationFailed,
    JudgeTurn,
    ListMcpTools,
    McpToolsListed,
    Opened,
    PhraseSpoken,
    Speak,
    SpeechScored,
    SynthesisFailed,
    TextGenerated,
    Transcribe,
    TranscriptDelta,
    TranscriptEnded,
    TranscriptFailed,
    TurnJudged,
)
from vivavoce.core.session import Session
from vivavoce.core.surroundings import Surroundings
from vivavoce.protocol import config as cfg
from vivavoce.protocol.events import (
    ConversationItemCreate,
    ConversationItemDelete,
    InputAudioBufferAppend,
    InputAudioBufferClear,
    InputAudioBufferCommit,
    RateLimit,
    ResponseCreate,
    ResponseParams,
    SessionUpdate,
)
from vivavoce.protocol.items import InputText, McpListedTool, Message
from vivavoce.testing.playbook import Playbook, asks, counting_ids, playbook, sends
from vivavoce.testing.sounds import silence, tone

FRAME_MS = 20
ABLE = Abilities(speculation=True)
HEARD = "conversation.item.input_audio_transcription."


class Allowance:
    """So many tokens, never filled up again."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def take(self, tokens: int, now_ms: int) -> bool:
        if tokens > self.tokens:
            return False
        self.tokens -= tokens
        return True

    def settle(self, reserved: int, used: int, now_ms: int) -> None:
        self.tokens += reserved - used

    def limits(self, now_ms: int) -> tuple[RateLimit, ...]:
        return (RateLimit(name="tokens", limit=1_000, remaining=self.tokens, reset_seconds=60.0),)


def machine(surroundings: Surroundings | None = None, **limits: int) -> Session:
    return Session(
        id="s",
        model="m",
        ids=counting_ids(),
        expires_at=0,
        limits=Limits(**limits),
        surroundings=surroundings or Surroundings(abilities=Abilities(semantic_vad=True, mcp=True, speculation=True)),
    )


def vad(**fields: bool) -> cfg.ServerVad:
    return cfg.ServerVad(silence_duration_ms=500, **fields)  # type: ignore[arg-type]


def opened(play: Playbook) -> Playbook:
    play >> Opened() << ...
    return listen(play, turn_detection=vad(), transcription=cfg.Transcription(model="m", language="de"))


def update(play: Playbook, **fields: object) -> Playbook:
    return play >> SessionUpdate(session=cfg.RealtimeSession(**fields)) << sends("session.updated")  # type: ignore[arg-type]


def listen(play: Playbook, **fields: object) -> Playbook:
    return update(play, audio=cfg.AudioConfig(input=cfg.AudioInput(**fields)))  # type: ignore[arg-type]


def hear(play: Playbook, ms: int, speech: bool, epoch: int = 1) -> Playbook:
    audio = tone(ms) if speech else silence(ms)
    play >> InputAudioBufferAppend(audio=audio) << DetectSpeech(epoch, audio, PCM16_24K)
    return play >> SpeechScored(epoch, FRAME_MS, (float(speech),) * (ms // FRAME_MS))


def pause(play: Playbook, spec: str = "spec_1") -> Playbook:
    """The user has said something, and is silent."""
    hear(play, 200, True) << sends("input_audio_buffer.speech_started", item_id="item_1")
    return hear(play, 160, False) << asks(Transcribe, item_id=spec, language="de", audio=tone(200) + silence(160))


def prepare(play: Playbook, said: str = "What is it?") -> None:
    """The transcript is there, and the language model is asked; the response will be `resp_1`."""
    pause(play)
    play >> TranscriptDelta("spec_1", said)
    play >> TranscriptEnded("spec_1")
    play << asks(Generate, response_id="resp_1", items=[{"id": "item_1", "content": [{"transcript": said}]}])


def ended(play: Playbook, end_ms: int = 700) -> Playbook:
    """The turn ends, and its item is announced."""
    return (
        hear(play, 340, False)
        << sends("input_audio_buffer.speech_stopped", item_id="item_1", audio_end_ms=end_ms)
        << sends("input_audio_buffer.committed", item_id="item_1")
        << sends("conversation.item.added", item={"id": "item_1", "content": [{"transcript": None}]})
        << sends("conversation.item.done", item={"id": "item_1"})
    )


def transcribed(play: Playbook, said: str = "What is it?") -> Playbook:
    return (
        play
        << sends(f"{HEARD}delta", item_id="item_1", delta=said)
        << sends(f"{HEARD}completed", item_id="item_1", transcript=said, usage={"seconds": 0.7})
    )


# --- adopted ----------------------------------------------------------------------------------------------------------


def test_a_prepared_answer_leaves_when_the_turn_ends() -> None:
    with playbook(session := machine()) as play:
        opened(play)
        prepare(play)
        play >> TextGenerated("resp_1", "It is a test. ")
        play << Speak("resp_1", "item_2", 0, "It is a test. ", "alloy", 1.0, PCM16_24K)
        play >> AudioSynthesized("resp_1", "item_2", b"\1\1" * 2_400)
        play >> PhraseSpoken("resp_1", "item_2", 0)
        play >> TextGenerated("resp_1", "")
        assert session.state == "hearing"
        transcribed(ended(play) << sends("response.created", response={"id": "resp_1"}))
        play << sends("response.output_item.added", response_id="resp_1", item={"id": "item_2"})
        play << sends("conversation.item.added", item={"id": "item_2"}, previous_item_id="item_1")
        play << sends("response.content_part.added", item_id="item_2")
        play << sends("response.output_audio_transcript.delta", item_id="item_2", delta="It is a test. ")
        play << sends("response.output_audio.delta", item_id="item_2", delta=b"\1\1" * 2_400)
        # From here on it is a response like any other.
        play >> TextGenerated("resp_1", "Yes.") << sends("response.output_audio_transcript.delta", delta="Yes.")
        play >> GenerationEnded("resp_1", "stop") << asks(Speak, item_id="item_2", phrase=1, text="Yes.")
        play >> PhraseSpoken("resp_1", "item_2", 1) << ... << sends("response.done", response={"status": "completed"})


def test_a_whole_answer_may_be_there_before_the_turn_ends() -> None:
    with playbook(machine()) as play:
        opened(play)
        update(play, output_modalities=("text",))
        prepare(play)
        play >> TextGenerated("resp_1", "It is a test. ") >> GenerationEnded("resp_1", "stop")
        ended(play) << ... << sends("response.done", response={"id": "resp_1", "status": "completed"})


def test_the_rest_of_the_text_is_spoken_ahead_when_it_ends() -> None:
    with playbook(machine()) as play:
        opened(play)
        prepare(play)
        play >> TextGenerated("resp_1", "Yes")
        play >> GenerationEnded("resp_1", "stop") << asks(Speak, item_id="item_2", phrase=0, text="Yes")
        ended(play) << ... << sends("response.output_audio_transcript.delta", delta="Yes")
        play >> PhraseSpoken("resp_1", "item_2", 0) << ... << sends("response.done", response={"status": "completed"})


def test_the_end_of_the_turn_may_come_before_the_transcript() -> None:
    with playbook(machine()) as play:
        opened(play)
        pause(play)
        play >> TranscriptDelta("spec_1", "What")
        ended(play) << sends("response.created") << sends(f"{HEARD}delta", item_id="item_1", delta="What")
        play >> TranscriptDelta("spec_1", " now?") << sends(f"{HEARD}delta", item_id="item_1", delta=" now?")
        play >> TranscriptDelta("item_1", "late")
        play >> TranscriptEnded("spec_1") << sends(f"{HEARD}completed", item_id="item_1", transcript="What now?")
        play << asks(Generate, response_id="resp_1")
        play >> TranscriptDelta("spec_1", "late")


def test_an_item_that_is_deleted_is_not_transcribed_any_more() -> None:
    with playbook(machine()) as play:
        opened(play)
        pause(play)
        ended(play) << sends("response.created")
        (
            play
            >> ConversationItemDelete(item_id="item_1")
            << sends("conversation.item.deleted")
            << Cancel("spec_1")
            << ...
        )
        play >> TranscriptEnded("spec_1")


def test_the_end_of_the_turn_may_come_before_the_first_word() -> None:
    with playbook(machine()) as play:
        opened(play)
        prepare(play)
        transcribed(ended(play) << sends("response.created", response={"id": "resp_1"}))
        play >> TextGenerated("resp_1", "It") << sends("response.output_item.added", item={"id": "item_2"}) << ...


def test_t5_speech_right_after_the_answer_was_taken_up_ends_it() -> None:
    with playbook(machine()) as play:
        opened(play)
        prepare(play)
        play >> TextGenerated("resp_1", "It is a test. ") << asks(Speak)
        ended(play) << ... << sends("response.output_audio_transcript.delta")
        hear(play, 80, True) << sends("input_audio_buffer.speech_started", item_id="item_3")
        play << Cancel("resp_1") << ...
        play << sends("response.done", response={"id": "resp_1", "status_details": {"reason": "turn_detected"}})
        play >> AudioSynthesized("resp_1", "item_2", b"\1\1")


def test_an_answer_is_prepared_while_a_pause_is_judged() -> None:
    with playbook(machine()) as play:
        opened(play)
        listen(play, turn_detection=cfg.SemanticVad())
        hear(play, 200, True) << ...
        hear(play, 200, False) << asks(JudgeTurn, item_id="item_1") << asks(Transcribe, item_id="spec_1")
        play >> TranscriptDelta("spec_1", "Yes") >> TranscriptEnded("spec_1")
        play << asks(Generate, response_id="resp_1")
        play >> TurnJudged("item_1", 1, 1.0)
        hear(play, 400, False) << ... << sends("response.created", response={"id": "resp_1"}) << ...


# --- dropped ----------------------------------------------------------------------------------------------------------


def test_speech_that_goes_on_drops_what_was_prepared() -> None:
    with playbook(machine()) as play:
        opened(play)
        prepare(play)
        play >> TextGenerated("resp_1", "It is a test. ") << asks(Speak)
        hear(play, 20, True) << Cancel("resp_1")
        play >> AudioSynthesized("resp_1", "item_2", b"\1\1")
        hear(play, 160, False) << asks(Transcribe, item_id="spec_2")
        play >> TranscriptDelta("spec_1", "late")
        hear(play, 20, True) << Cancel("spec_2")
        hear(play, 160, False) << asks(Transcribe, item_id="spec_3")


def test_speech_and_the_end_of_the_turn_may_be_scored_at_once() -> None:
    with playbook(machine()) as play:
        opened(play)
        prepare(play)
        play >> InputAudioBufferAppend(audio=tone(20) + silence(500)) << asks(DetectSpeech)
        play >> SpeechScored(1, FRAME_MS, (1.0, *(0.0,) * 25)) << Cancel("resp_1")
        play << ... << asks(Transcribe, item_id="item_1") << sends("response.created", response={"id": "resp_2"})


def test_a_pause_within_a_pause_is_another_one() -> None:
    with playbook(machine()) as play:
        opened(play)
        pause(play)
        play >> InputAudioBufferAppend(audio=tone(20) + silence(160)) << asks(DetectSpeech)
        play >> SpeechScored(1, FRAME_MS, (1.0, *(0.0,) * 8)) << Cancel("spec_1") << asks(Transcribe, item_id="spec_2")


@pytest.mark.parametrize(
    "change",
    [
        SessionUpdate(session=cfg.RealtimeSession(instructions="Be rude.")),
        SessionUpdate(session=cfg.RealtimeSession(output_modalities=("text",))),
        SessionUpdate(session=cfg.RealtimeSession(audio=cfg.AudioConfig(output=cfg.AudioOutput(voice="cedar")))),
        SessionUpdate(session=cfg.RealtimeSession(tools=(cfg.FunctionTool(name="look"),))),
        ConversationItemCreate(item=Message(role="user", content=(InputText(text="Hello"),))),
    ],
)
def test_what_changes_the_answer_drops_it_and_keeps_the_transcript(
    change: SessionUpdate | ConversationItemCreate,
) -> None:
    with playbook(machine()) as play:
        opened(play)
        prepare(play)
        play >> TextGenerated("resp_1", "It is a test. ") << ...
        play >> change << ... << Cancel("resp_1")
        play >> TextGenerated("resp_1", "late")
        hear(play, 340, False) << ... << sends("response.created", response={"id": "resp_2"})
        transcribed(play) << asks(Generate, response_id="resp_2")


def test_what_changes_nothing_drops_nothing() -> None:
    with playbook(machine()) as play:
        opened(play)
        prepare(play)
        update(play, max_output_tokens="inf")
        ended(play) << sends("response.created", response={"id": "resp_1"}) << ...


def test_other_transcription_drops_everything() -> None:
    with playbook(machine()) as play:
        opened(play)
        prepare(play)
        listen(play, transcription=cfg.Transcription(model="m", language="fr")) << Cancel("resp_1")
        ended(play) << asks(Transcribe, item_id="item_1", language="fr") << sends("response.created")


def test_a_response_that_the_client_asks_for_drops_the_answer() -> None:
    with playbook(machine()) as play:
        opened(play)
        prepare(play)
        play >> ResponseCreate() << sends("response.created", response={"id": "resp_2"})
        play << asks(Generate, response_id="resp_2") << Cancel("resp_1")
        transcribed(ended(play) << sends("error", error={"code": "conversation_already_has_active_response"}))


def test_too_many_responses_beside_the_conversation_leave_no_room_for_the_answer() -> None:
    with playbook(machine(responses_max=1)) as play:
        opened(play)
        prepare(play)
        play >> ResponseCreate(response=ResponseParams(conversation="none")) << ...
        ended(play) << sends("error", error={"code": "too_many_responses"}) << Cancel("resp_1")
        transcribed(play)


def test_an_answer_that_the_client_does_not_want_any_more() -> None:
    with playbook(machine()) as play:
        opened(play)
        prepare(play)
        listen(play, turn_detection=vad(create_response=False))
        transcribed(ended(play) << Cancel("resp_1"))


def test_a_server_that_stops_begins_no_answer() -> None:
    with playbook(machine()) as play:
        opened(play)
        play >> ResponseCreate(response=ResponseParams(conversation="none")) << ...
        hear(play, 200, True) << ...
        play >> Drain()
        hear(play, 160, False)


@pytest.mark.parametrize("event", [InputAudioBufferCommit(), InputAudioBufferClear()])
def test_a_client_that_ends_the_turn_drops_what_was_prepared(
    event: InputAudioBufferCommit | InputAudioBufferClear,
) -> None:
    with playbook(machine()) as play:
        opened(play)
        pause(play)
        play >> event << Cancel("spec_1") << ...


def test_turns_that_are_not_found_any_more_drop_what_was_prepared() -> None:
    with playbook(machine()) as play:
        opened(play)
        pause(play)
        listen(play, turn_detection=None) << Cancel("spec_1")


# --- where nothing is prepared ----------------------------------------------------------------------------------------


def test_speculation_may_be_off() -> None:
    with playbook(machine(speculation_ms=0)) as play:
        opened(play)
        hear(play, 200, True) << ...
        hear(play, 400, False)


def test_a_turn_that_nobody_answers_is_not_transcribed_ahead() -> None:
    with playbook(machine()) as play:
        opened(play)
        listen(play, turn_detection=vad(create_response=False))
        hear(play, 200, True) << ...
        hear(play, 400, False)


def test_only_so_many_pauses_of_a_turn() -> None:
    with playbook(machine(speculations_max=1)) as play:
        opened(play)
        pause(play)
        hear(play, 20, True) << Cancel("spec_1")
        hear(play, 160, False)
        hear(play, 340, False) << ... << asks(Transcribe, item_id="item_1") << sends("response.created")
        hear(play, 80, True) << ...
        hear(play, 160, False) << asks(Transcribe, item_id="spec_2")


def test_a_pause_behind_a_noise_is_transcribed_and_not_answered() -> None:
    with playbook(machine()) as play:
        opened(play)
        pause(play)
        play >> TranscriptDelta("spec_1", " ") >> TranscriptEnded("spec_1")
        ended(play) << ... << sends("response.done", response={"status": "completed", "output": []})


def test_while_another_response_runs_no_answer_is_prepared() -> None:
    with playbook(machine()) as play:
        opened(play)
        listen(play, turn_detection=vad(interrupt_response=False))
        play >> ResponseCreate() << ...
        pause(play)
        play >> TranscriptDelta("spec_1", "Yes") >> TranscriptEnded("spec_1")


def test_an_answer_whose_context_waits_for_a_transcript_is_not_prepared() -> None:
    with playbook(machine()) as play:
        opened(play)
        listen(play, turn_detection=None)
        play >> InputAudioBufferAppend(audio=tone(200)) >> InputAudioBufferCommit() << ...
        listen(play, turn_detection=vad())
        hear(play, 200, True, epoch=4) << ...
        hear(play, 160, False, epoch=4) << asks(Transcribe, item_id="spec_1")
        play >> TranscriptDelta("spec_1", "Yes") >> TranscriptEnded("spec_1")


def test_an_answer_that_does_not_fit_into_the_context_is_not_prepared() -> None:
    with playbook(machine(Surroundings(abilities=Abilities(context_tokens=20, speculation=True)))) as play:
        opened(play)
        update(play, truncation="disabled", instructions="")
        pause(play)
        play >> TranscriptDelta("spec_1", "word " * 40) >> TranscriptEnded("spec_1")
        ended(play) << ...
        play << sends("response.done", response={"status_details": {"error": {"code": "context_length_exceeded"}}})
        play << ...


# --- limits of what is prepared ---------------------------------------------------------------------------------------


def test_only_the_first_phrases_are_spoken_ahead() -> None:
    with playbook(machine(speculated_phrases_max=1)) as play:
        opened(play)
        prepare(play)
        play >> TextGenerated("resp_1", "One is said. Two is not. \n\n") << asks(Speak, phrase=0, text="One is said. ")
        ended(play) << ... << sends("response.output_audio_transcript.delta")
        play << asks(Speak, item_id="item_2", phrase=1, text="Two is not. ") << ...


def test_what_becomes_too_much_is_given_up() -> None:
    with playbook(machine(speculation_bytes_max=100)) as play:
        opened(play)
        prepare(play)
        play >> TextGenerated("resp_1", "It is a test. ") << asks(Speak)
        play >> AudioSynthesized("resp_1", "item_2", b"\1\1" * 50) << Cancel("resp_1")
        ended(play) << asks(Transcribe, item_id="item_1") << sends("response.created", response={"id": "resp_2"})


def test_a_transcript_that_becomes_too_much_is_given_up() -> None:
    with playbook(machine(speculation_bytes_max=100)) as play:
        opened(play)
        pause(play)
        play >> TranscriptDelta("spec_1", "word " * 20) << Cancel("spec_1")


# --- nothing acts before the turn has ended ---------------------------------------------------------------------------


def test_a_prepared_function_call_is_told_when_the_turn_ends() -> None:
    with playbook(machine()) as play:
        opened(play)
        update(play, tools=(cfg.FunctionTool(name="look"),))
        prepare(play)
        play >> TextGenerated("resp_1", "Wait") >> CallStarted("resp_1", "look") << asks(Speak, phrase=0, text="Wait")
        play >> CallArguments("resp_1", "{}")
        play >> PhraseSpoken("resp_1", "item_2", 0)
        play >> TextGenerated("resp_1", "And this is not spoken ahead. ")
        play >> GenerationEnded("resp_1", "stop")
        ended(play) << ... << sends("response.output_item.done", item={"id": "item_2", "status": "completed"})
        play << ... << sends("response.function_call_arguments.done", name="look", arguments="{}")
        play << ... << asks(Speak, phrase=0, text="And this is not spoken ahead. ")


def test_t17_an_mcp_tool_is_called_when_the_turn_has_ended() -> None:
    with playbook(machine()) as play:
        opened(play)
        server = cfg.McpTool(server_label="notes", server_url="https://notes.example", require_approval="never")
        update(play, tools=(server,)) << ... << asks(ListMcpTools, item_id="mcpl_1")
        play >> McpToolsListed("mcpl_1", (McpListedTool(name="look_up", input_schema={"type": "object"}),)) << ...
        prepare(play)
        play >> CallStarted("resp_1", "look_up") >> CallArguments("resp_1", "{}")
        play >> GenerationEnded("resp_1", "stop")
        ended(play) << ... << asks(CallMcpTool, owner_id="resp_1", name="look_up", arguments="{}")


def test_t20_the_account_is_asked_when_the_turn_has_ended() -> None:
    account = Allowance(1_000)
    with playbook(machine(Surroundings(abilities=ABLE, account=account))) as play:
        opened(play)
        prepare(play)
        play >> TextGenerated("resp_1", "It is a test. ") << asks(Speak)
        assert account.tokens == 1_000
        account.tokens = 1
        ended(play) << ... << Cancel("resp_1")
        play << sends("response.done", response={"status_details": {"error": {"code": "rate_limit_exceeded"}}})
        play << sends("rate_limits.updated")


def test_t22_what_was_dropped_costs_nothing() -> None:
    bill = Bill(Price(text_in=1e6, text_out=1e6, transcription_minute=1e6))
    with playbook(machine(Surroundings(abilities=ABLE, account=(account := Allowance(1_000)), bill=bill))) as play:
        opened(play)
        prepare(play)
        play >> TextGenerated("resp_1", "It is a test. ") << asks(Speak)
        play >> GenerationEnded("resp_1", "stop", 10, 0, 5)
        hear(play, 20, True) << Cancel("resp_1")
        assert (bill.cost, bill.input_tokens, bill.output_tokens, account.tokens) == (0.0, 0, 0, 1_000)


# --- engines that fail ------------------------------------------------------------------------------------------------


def test_a_transcriber_that_fails_is_told_when_the_turn_has_ended() -> None:
    with playbook(machine()) as play:
        opened(play)
        pause(play)
        play >> TranscriptFailed("spec_1", "noise", "Nothing heard.")
        ended(play) << sends("response.created") << sends(f"{HEARD}failed", item_id="item_1", error={"code": "noise"})
        play << Cancel("resp_1") << sends("response.done", response={"status": "failed"})


def test_a_transcriber_that_fails_is_not_told_where_speech_goes_on() -> None:
    with playbook(machine()) as play:
        opened(play)
        pause(play)
        play >> TranscriptFailed("spec_1", "noise", "Nothing heard.")
        hear(play, 20, True)


def test_a_language_model_that_fails_is_told_when_the_turn_has_ended() -> None:
    with playbook(machine()) as play:
        opened(play)
        prepare(play)
        play >> GenerationFailed("resp_1", "broken", "No.")
        transcribed(ended(play) << sends("response.created"))
        play << Cancel("resp_1")
        play << sends("response.done", response={"status_details": {"error": {"code": "broken"}}})


def test_a_synthesizer_that_fails_is_told_when_the_turn_has_ended() -> None:
    with playbook(machine()) as play:
        opened(play)
        prepare(play)
        play >> TextGenerated("resp_1", "It is a test. ") << asks(Speak)
        play >> SynthesisFailed("resp_1", "item_2", "hoarse", "No voice.")
        play >> TextGenerated("resp_1", "Nobody hears this. \n\n")
        ended(play) << ... << sends("error", error={"code": "hoarse"})
        play << sends("response.output_audio_transcript.delta", delta="Nobody hears this. \n\n")
