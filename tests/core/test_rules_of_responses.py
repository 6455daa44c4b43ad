"""Answers from `response.created` to `response.done` (reference §3.12, §3.13, §4.3, §4.4 T3, T4, T9, T11, T12, T22)."""

from __future__ import annotations

import pytest

from vivavoce.audio.formats import ALAW_8K, PCM16_24K
from vivavoce.core.limits import Limits
from vivavoce.core.messages import (
    AudioSynthesized,
    CallArguments,
    CallStarted,
    Cancel,
    Generate,
    GenerationEnded,
    GenerationFailed,
    Opened,
    PhraseSpoken,
    Speak,
    SynthesisFailed,
    TextGenerated,
)
from vivavoce.core.session import Session
from vivavoce.protocol import config as cfg
from vivavoce.protocol.events import ConversationItemCreate, ResponseCancel, ResponseCreate, ResponseParams
from vivavoce.protocol.items import FunctionCallOutput, InputText, Message
from vivavoce.testing.matching import Id
from vivavoce.testing.playbook import Expected, Playbook, asks, counting_ids, playbook, sends

TOOL = cfg.FunctionTool(name="look")


def create(**params: object) -> ResponseCreate:
    return ResponseCreate(response=ResponseParams(**params), event_id="mine")  # type: ignore[arg-type]


def begun(play: Playbook, event: ResponseCreate | None = None) -> Id:
    """A response that has been asked for, and its id."""
    response = Id("response")
    play >> (event or ResponseCreate()) << sends("response.created", response={"id": response, "output": []})
    play << asks(Generate, response_id=response)
    return response


def error(code: str, param: str | None = None) -> Expected:
    return sends("error", error={"code": code, "param": param, "event_id": "mine"})


def done(status: str, **fields: object) -> Expected:
    return sends("response.done", response={"status": status, **fields})


# --- T3, T4 -----------------------------------------------------------------------------------------------------------


def test_t3_a_text_answer(play: Playbook) -> None:
    user, item = Id("user"), Id("item")
    hello = Message(role="user", content=(InputText(text="hello"),))
    play >> ConversationItemCreate(item=hello) << sends("conversation.item.added", item={"id": user}) << ...
    response = begun(play, create(output_modalities=("text",)))
    begins = {"id": item, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    (
        play
        >> TextGenerated(response, "Hi")
        << sends("response.output_item.added", response_id=response, output_index=0, item=begins)
        << sends("conversation.item.added", previous_item_id=user, item=begins)
        << sends("response.content_part.added", content_index=0, part={"type": "text", "text": ""})
        << sends("response.output_text.delta", item_id=item, delta="Hi")
    )
    play >> TextGenerated(response, " there") << sends("response.output_text.delta", item_id=item, delta=" there")
    play >> TextGenerated(response, "")
    ends = {"id": item, "status": "completed", "content": [{"type": "output_text", "text": "Hi there"}]}
    (
        play
        >> GenerationEnded(response, "stop", input_tokens=7, cached_tokens=2, output_tokens=3)
        << sends("response.output_text.done", text="Hi there")
        << sends("response.content_part.done", part={"type": "text", "text": "Hi there"})
        << sends("conversation.item.done", previous_item_id=user, item=ends)
        << sends("response.output_item.done", output_index=0, item=ends)
        << done(
            "completed",
            status_details=None,
            output=[ends],
            usage={
                "total_tokens": 10,
                "input_tokens": 7,
                "output_tokens": 3,
                "input_token_details": {"text_tokens": 7, "audio_tokens": 0, "cached_tokens": 2},
                "output_token_details": {"text_tokens": 3, "audio_tokens": 0},
            },
        )
    )


def test_t4_a_spoken_answer(play: Playbook) -> None:
    response, item = begun(play), Id("item")
    (
        play
        >> TextGenerated(response, "Hi there. ")
        << sends("response.output_item.added", item={"id": item})
        << sends("conversation.item.added", previous_item_id=None)
        << sends("response.content_part.added", part={"type": "audio", "transcript": ""})
        << sends("response.output_audio_transcript.delta", delta="Hi there. ")
        << Speak(response, item, 0, "Hi there. ", "alloy", 1.0, PCM16_24K)
    )
    play >> GenerationEnded(response, "stop", output_tokens=2)
    audio = bytes(PCM16_24K.bytes_of(130))
    play >> AudioSynthesized(response, item, audio) << sends("response.output_audio.delta", delta=audio, item_id=item)
    play >> AudioSynthesized(response, item, b"")
    said = {"type": "audio", "transcript": "Hi there. "}
    ends = {"status": "completed", "content": [{"type": "output_audio", "transcript": "Hi there. "}]}
    (
        play
        >> PhraseSpoken(response, item, 0)
        << sends("response.output_audio.done", item_id=item)
        << sends("response.output_audio_transcript.done", transcript="Hi there. ")
        << sends("response.content_part.done", part=said)
        << sends("conversation.item.done", item=ends)
        << sends("response.output_item.done", item=ends)
        << done("completed", usage={"total_tokens": 5, "output_token_details": {"text_tokens": 2, "audio_tokens": 3}})
    )


def test_an_answer_ends_when_its_last_phrase_was_spoken(play: Playbook) -> None:
    response = begun(play)
    play >> TextGenerated(response, "One two three. Four") << ... << asks(Speak, phrase=0, text="One two three. ")
    play >> GenerationEnded(response, "stop") << asks(Speak, phrase=1, text="Four")
    play >> PhraseSpoken(response, "item_1", 1)
    play >> PhraseSpoken(response, "item_1", 0)
    play >> PhraseSpoken(response, "item_1", 1) << ... << done("completed")


def test_an_answer_of_nothing_has_no_items(play: Playbook) -> None:
    response = begun(play)
    play >> GenerationEnded(response, "stop") << done("completed", output=[])


def test_white_space_alone_is_not_spoken(play: Playbook) -> None:
    response = begun(play)
    play >> TextGenerated(response, " \n") << ...
    play >> GenerationEnded(response, "stop") << ... << done("completed")


# --- T9 ---------------------------------------------------------------------------------------------------------------


def test_t9_a_function_call_turn(play: Playbook) -> None:
    response, item, call = begun(play, create(tools=(TOOL,))), Id("item"), Id("call")
    begins = {
        "type": "function_call",
        "id": item,
        "call_id": call,
        "name": "look",
        "arguments": "",
        "status": "in_progress",
    }
    (
        play
        >> CallStarted(response, "look")
        << sends("response.output_item.added", output_index=0, item=begins)
        << sends("conversation.item.added", item=begins, previous_item_id=None)
    )
    for piece in ('{"at":', "1}"):
        (
            play
            >> CallArguments(response, piece)
            << sends("response.function_call_arguments.delta", item_id=item, call_id=call, delta=piece)
        )
    play >> CallArguments(response, "")
    ends = {"id": item, "status": "completed", "arguments": '{"at":1}'}
    (
        play
        >> GenerationEnded(response, "stop")
        << sends("response.function_call_arguments.done", call_id=call, arguments='{"at":1}', name="look")
        << sends("conversation.item.done", item=ends)
        << sends("response.output_item.done", item=ends)
        << done("completed", output=[ends])
    )
    play >> ConversationItemCreate(item=FunctionCallOutput(call_id=call, output="sky")) << ...
    play >> ResponseCreate() << ... << asks(Generate, items=[{"name": "look"}, {"output": "sky"}])


def test_several_calls_are_several_items(play: Playbook) -> None:
    response = begun(play)
    for index, name in enumerate(("look", "listen")):
        play >> CallStarted(response, name) << ... << sends("response.output_item.added", output_index=index) << ...
        play >> CallArguments(response, "{}") << sends("response.function_call_arguments.delta", output_index=index)
    play >> GenerationEnded(response, "stop") << ... << done("completed", output=[{"name": "look"}, {"name": "listen"}])


def test_a_call_behind_a_message_waits_until_that_was_spoken(play: Playbook) -> None:
    response = begun(play)
    play >> TextGenerated(response, "Let me see.") << ...
    play >> CallStarted(response, "look") << asks(Speak, phrase=0, text="Let me see.")
    play >> CallArguments(response, "{}")
    play >> GenerationEnded(response, "stop")
    play >> AudioSynthesized(response, "item_1", b"xx") << sends("response.output_audio.delta", output_index=0)
    (
        play
        >> PhraseSpoken(response, "item_1", 0)
        << ...
        << sends("response.output_item.done", output_index=0, item={"type": "message"})
        << sends("response.output_item.added", output_index=1, item={"type": "function_call"})
        << sends("conversation.item.added", previous_item_id="item_1")
        << sends("response.function_call_arguments.delta")
        << ...
        << done("completed", output=[{"type": "message"}, {"type": "function_call"}])
    )


def test_text_behind_a_call_is_a_message_of_its_own(play: Playbook) -> None:
    response = begun(play, create(output_modalities=("text",)))
    play >> CallStarted(response, "look") << ...
    (
        play
        >> TextGenerated(response, "Done.")
        << sends("response.function_call_arguments.done", arguments="")
        << ...
        << sends("response.output_item.added", output_index=1, item={"type": "message"})
        << ...
    )
    play >> CallArguments(response, "no call is open")
    play >> GenerationEnded(response, "stop") << ... << done("completed")


# --- T11, T12 ---------------------------------------------------------------------------------------------------------


def test_t11_cancelling_closes_what_was_begun(play: Playbook) -> None:
    response, item = begun(play), Id("item")
    play >> TextGenerated(response, "One two three. ") << sends("response.output_item.added", item={"id": item}) << ...
    play >> AudioSynthesized(response, item, b"xx") << ...
    (
        play
        >> ResponseCancel()
        << Cancel(response)
        << sends("response.output_audio.done")
        << sends("response.output_audio_transcript.done", transcript="One two three. ")
        << sends("response.content_part.done")
        << sends("conversation.item.done", item={"status": "incomplete"})
        << sends("response.output_item.done", item={"status": "incomplete"})
        << done("cancelled", status_details={"type": "cancelled", "reason": "client_cancelled"}, output=[{"id": item}])
    )
    play >> AudioSynthesized(response, item, b"xx")
    play >> PhraseSpoken(response, item, 0)
    play >> TextGenerated(response, "late")
    play >> GenerationEnded(response, "stop")


def test_t11_cancelling_before_anything_was_said(play: Playbook) -> None:
    response = begun(play)
    play >> ResponseCancel(response_id=response) << Cancel(response) << done("cancelled", output=[])


def test_t11_cancelling_a_call_closes_it(play: Playbook) -> None:
    response = begun(play)
    play >> CallStarted(response, "look") << ...
    play >> CallArguments(response, '{"a') << ...
    play >> ResponseCancel() << Cancel(response) << sends("response.function_call_arguments.done", arguments='{"a')
    play << sends("conversation.item.done", item={"status": "incomplete", "arguments": '{"a'}) << ...


@pytest.mark.parametrize("event", [ResponseCancel(event_id="mine"), ResponseCancel(response_id="no", event_id="mine")])
def test_t11_there_may_be_nothing_to_cancel(play: Playbook, event: ResponseCancel) -> None:
    play >> event << error("response_cancel_not_active")


def test_t12_one_answer_at_a_time(play: Playbook) -> None:
    response = begun(play)
    (
        play
        >> create()
        << sends(
            "error",
            error={
                "code": "conversation_already_has_active_response",
                "event_id": "mine",
                "message": lambda message: str(response) in message,
            },
        )
    )
    play >> GenerationEnded(response, "stop") << done("completed")
    begun(play)


def test_only_so_many_answers_at_once() -> None:
    machine = Session(id="s", model="m", ids=counting_ids(), expires_at=0, limits=Limits(responses_max=2))
    with playbook(machine) as play:
        play >> Opened() << ...
        begun(play, create(conversation="none"))
        begun(play, create(conversation="none"))
        play >> create(conversation="none") << error("too_many_responses")


# --- T22, length ------------------------------------------------------------------------------------------------------


def test_t22_a_model_that_fails(play: Playbook) -> None:
    response = begun(play)
    (
        play
        >> GenerationFailed(response, "insufficient_quota", "No more.")
        << Cancel(response)
        << done(
            "failed",
            status_details={"type": "failed", "error": {"code": "insufficient_quota", "message": "No more."}},
            output=[],
            usage={"total_tokens": 0},
        )
    )


def test_a_voice_that_fails(play: Playbook) -> None:
    response = begun(play)
    play >> TextGenerated(response, "One two three. ") << ...
    (
        play
        >> SynthesisFailed(response, "item_1", "broken", "No voice.")
        << sends("error", error={"type": "server_error", "code": "broken"})
    )
    # The rest of the answer is its text; nothing is spoken any more.
    play >> TextGenerated(response, "Four five.") << sends("response.output_audio_transcript.delta")
    (
        play
        >> GenerationEnded(response, "stop")
        << ...
        << sends("response.output_audio_transcript.done", transcript="One two three. Four five.")
        << ...
        << done("completed", output=[{"status": "completed"}])
    )


def test_an_answer_that_reaches_its_limit_is_incomplete(play: Playbook) -> None:
    response = begun(play, create(max_output_tokens=2, output_modalities=("text",)))
    play >> TextGenerated(response, "One two") << ...
    (
        play
        >> GenerationEnded(response, "length", output_tokens=2)
        << ...
        << sends("response.output_item.done", item={"status": "incomplete"})
        << done(
            "incomplete",
            status_details={"type": "incomplete", "reason": "max_output_tokens"},
            max_output_tokens=2,
        )
    )


def test_an_answer_without_end_fails() -> None:
    machine = Session(id="s", model="m", ids=counting_ids(), expires_at=0, limits=Limits(response_chars_max=10))
    with playbook(machine) as play:
        play >> Opened() << ...
        response = begun(play, create(output_modalities=("text",)))
        play >> TextGenerated(response, "0123456789") << ...
        (
            play
            >> TextGenerated(response, "!")
            << Cancel(response)
            << ...
            << done("failed", status_details={"error": {"code": "response_too_long"}})
        )


# --- §3.12 ------------------------------------------------------------------------------------------------------------


def test_a_response_has_settings_of_its_own(play: Playbook) -> None:
    output = cfg.ResponseAudioOutput(format=cfg.PcmaFormat(), voice=cfg.VoiceRef(id="voice_7"))
    event = create(
        instructions="Whisper.",
        tools=(TOOL,),
        tool_choice=cfg.ToolChoiceFunction(name="look"),
        max_output_tokens=100,
        metadata={"topic": "x"},
        audio=cfg.ResponseAudioConfig(output=output),
    )
    (
        play
        >> event
        << sends(
            "response.created",
            response={
                "max_output_tokens": 100,
                "metadata": {"topic": "x"},
                "audio": {"output": {"format": {"type": "audio/pcma"}, "voice": "voice_7"}},
                "output_modalities": ["audio"],
            },
        )
        << asks(
            Generate,
            instructions="Whisper.",
            tools=[{"name": "look"}],
            tool_choice={"name": "look"},
            max_output_tokens=100,
        )
    )
    (
        play
        >> TextGenerated("resp_1", "One two three. ")
        << ...
        << asks(Speak, voice="voice_7", format=lambda f: f is ALAW_8K)
    )
    play >> AudioSynthesized("resp_1", "item_1", bytes(800)) << ...
    play >> GenerationEnded("resp_1", "stop")
    (
        play
        >> PhraseSpoken("resp_1", "item_1", 0)
        << ...
        << done("completed", usage={"output_token_details": {"audio_tokens": 2}})
    )


@pytest.mark.parametrize(
    ("event", "param"),
    [
        (create(prompt=cfg.Prompt(id="x")), "response.prompt.id"),
        (create(tools=(cfg.McpTool(server_label="x"),)), "response.tools[0].type"),
        (create(tool_choice=cfg.ToolChoiceFunction(name="x")), "response.tool_choice.name"),
    ],
)
def test_a_response_that_is_not_possible_is_not_begun(play: Playbook, event: ResponseCreate, param: str) -> None:
    play >> event << error("invalid_value", param)


def test_an_input_of_its_own_replaces_the_context_and_the_answer_enters_the_conversation(play: Playbook) -> None:
    mine = Message(role="user", content=(InputText(text="mine"),))
    play >> ConversationItemCreate(item=Message(role="user", content=(InputText(text="not this"),))) << ...
    play >> create(input=(mine,)) << sends("response.created", response={"conversation_id": "conv_1"})
    play << asks(Generate, items=[{"content": [{"text": "mine"}]}])
    play >> TextGenerated("resp_1", "Hi") << ... << sends("conversation.item.added", previous_item_id="item_1") << ...


def test_an_answer_that_is_being_written_is_no_context_of_another(play: Playbook) -> None:
    begun(play)
    play >> TextGenerated("resp_1", "Hi") << ...
    play >> create(conversation="none") << sends("response.created") << asks(Generate, items=[])
