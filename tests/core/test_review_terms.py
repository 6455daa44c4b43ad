"""What a response runs with: tools that exist, and one voice for the whole conversation."""

from __future__ import annotations

from typing import Any

import pytest

from vivavoce.core.messages import (
    AudioSynthesized,
    Generate,
    GenerationEnded,
    Opened,
    PhraseSpoken,
    Speak,
    TextGenerated,
)
from vivavoce.core.session import Session
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import UNSET
from vivavoce.protocol.config import (
    AudioConfig,
    AudioOutput,
    FunctionTool,
    Prompt,
    RealtimeSession,
    Reasoning,
    ResponseAudioConfig,
    ResponseAudioOutput,
    ToolChoiceFunction,
)
from vivavoce.testing.matching import Id
from vivavoce.testing.playbook import Playbook, asks, counting_ids, playbook, sends
from vivavoce.testing.sounds import silence

LOOK = FunctionTool(name="look", parameters={})
CALL_LOOK = ToolChoiceFunction(name="look")


def session() -> Session:
    return Session(id="sess_1", model="m", ids=counting_ids(), expires_at=0)


def update(**fields: object) -> ev.SessionUpdate:
    return ev.SessionUpdate(session=RealtimeSession(**fields))  # type: ignore[arg-type]


def with_voice(voice: str | None) -> ev.ResponseCreate:
    output = ResponseAudioOutput(voice=voice if voice else UNSET)
    return ev.ResponseCreate(response=ev.ResponseParams(audio=ResponseAudioConfig(output=output)))


def answer_aloud(play: Playbook, request: ev.ResponseCreate, voice: str) -> None:
    response, item = Id("response"), Id("item")
    play >> request << sends("response.created", response={"id": response, "audio": {"output": {"voice": voice}}})
    play << asks(Generate)
    play >> TextGenerated(response, "Hello there. ") << ...
    play << asks(Speak, item_id=item, voice=voice)
    play >> AudioSynthesized(response, item, silence(40)) << sends("response.output_audio.delta")
    play >> PhraseSpoken(response, item, 0)
    play >> GenerationEnded(response, "stop") << ... << sends("response.done")


def test_a_function_that_must_be_called_must_be_among_the_tools_of_the_session() -> None:
    with playbook(session()) as play:
        play >> Opened() << ...
        refused = sends("error", error={"code": "invalid_value", "param": "session.tool_choice.name"})
        play >> update(tool_choice=CALL_LOOK) << refused
        play >> update(tools=(LOOK,), tool_choice=CALL_LOOK) << sends("session.updated")
        play >> update(tools=()) << refused
        play >> update(tool_choice=CALL_LOOK) << sends("session.updated")
        play >> update(tools=(), tool_choice="auto") << sends("session.updated")


def test_a_conversation_goes_on_in_the_voice_that_was_heard_first() -> None:
    with playbook(session()) as play:
        play >> Opened() << ...
        answer_aloud(play, with_voice("echo"), "echo")
        answer_aloud(play, with_voice(None), "echo")
        answer_aloud(play, with_voice("echo"), "echo")


@pytest.mark.parametrize("voice", ["alloy", "marin"])
def test_no_other_voice_than_the_one_that_was_heard_can_be_asked_for(voice: str) -> None:
    with playbook(session()) as play:
        play >> Opened() << ...
        answer_aloud(play, with_voice("echo"), "echo")
        play >> with_voice(voice) << sends("error", error={"code": "cannot_update_voice"})


def test_a_session_may_name_the_voice_that_was_heard_and_change_anything_else() -> None:
    def voice(name: str) -> AudioConfig:
        return AudioConfig(output=AudioOutput(voice=name))

    with playbook(session()) as play:
        play >> Opened() << ...
        answer_aloud(play, with_voice("echo"), "echo")
        play >> update(instructions="Be brief.") << sends("session.updated")
        play >> update(audio=voice("marin")) << sends("error", error={"code": "cannot_update_voice"})
        (
            play
            >> update(audio=voice("echo"))
            << sends("session.updated", session={"audio": {"output": {"voice": "echo"}}})
        )


@pytest.mark.parametrize(
    ("field", "name"),
    [({"reasoning": Reasoning(effort="low")}, "reasoning"), ({"prompt": Prompt(id="p")}, "prompt.id")],
)
def test_what_the_server_does_not_have_is_refused_by_name_in_session_and_response(
    field: dict[str, Any], name: str
) -> None:
    with playbook(session()) as play:
        play >> Opened() << ...
        play >> update(**field) << sends("error", error={"code": "invalid_value", "param": f"session.{name}"})
        request = ev.ResponseCreate(response=ev.ResponseParams(**field))
        play >> request << sends("error", error={"code": "invalid_value", "param": f"response.{name}"})
        play >> update(parallel_tool_calls=True) << sends("session.updated", session={"parallel_tool_calls": True})
