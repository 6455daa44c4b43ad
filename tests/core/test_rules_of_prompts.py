"""Stored prompts: their variables, their versions, and what a client says itself (reference §2.1, `prompt`)."""

from __future__ import annotations

from typing import Any

import pytest

from vivavoce.core.messages import Generate, GenerationEnded, Opened, Speak, TextGenerated
from vivavoce.core.prompts import beneath, fields_of
from vivavoce.core.session import Session
from vivavoce.core.surroundings import Surroundings
from vivavoce.protocol import config as cfg
from vivavoce.protocol.events import ResponseCreate, ResponseParams, SessionUpdate
from vivavoce.testing.playbook import Expected, asks, counting_ids, playbook, sends

TOOL = cfg.FunctionTool(name="look")


def spoken(**fields: Any) -> cfg.AudioConfig:
    return cfg.AudioConfig(output=cfg.AudioOutput(**fields))


def heard(**fields: Any) -> cfg.AudioConfig:
    return cfg.AudioConfig(input=cfg.AudioInput(**fields))


PROMPTS = {
    "greeter": {
        "1": cfg.RealtimeSession(instructions="Greet {{name}}."),
        "2": cfg.RealtimeSession(instructions="Greet {{ name }} in {{city}}; {{name}}!", tools=(TOOL,)),
    },
    "quiet": {"1": cfg.RealtimeSession(output_modalities=("text",), max_output_tokens=7)},
    "voiced": {"1": cfg.RealtimeSession(instructions="Sing.", audio=spoken(voice="marin", speed=1.25))},
    "empty": {},
}


def machine(configured: cfg.RealtimeSession | None = None) -> Session:
    return Session(
        id="s",
        model="m",
        ids=counting_ids(),
        expires_at=0,
        instructions="Be brief.",
        configured=configured,
        surroundings=Surroundings(prompts=PROMPTS),
    )


def use(
    id: str, version: str | None = None, *, variables: dict[str, Any] | None = None, **fields: Any
) -> SessionUpdate:
    prompt = cfg.Prompt(id=id, version=version, variables=variables)
    return SessionUpdate(session=cfg.RealtimeSession(prompt=prompt, **fields), event_id="mine")


def update(**fields: Any) -> SessionUpdate:
    return SessionUpdate(session=cfg.RealtimeSession(**fields))


def updated(**fields: object) -> Expected:
    return sends("session.updated", session=fields)


def refused(param: str, code: str = "invalid_value") -> Expected:
    return sends("error", error={"code": code, "param": param, "event_id": "mine"})


ADA = {"name": "Ada", "city": {"type": "input_text", "text": "Turin"}}


def test_a_prompt_fills_in_its_variables_in_the_last_version() -> None:
    with playbook(machine()) as play:
        play >> Opened() << ...
        play >> use("greeter", variables=ADA)
        play << updated(instructions="Greet Ada in Turin; Ada!", tools=[{"name": "look"}], prompt={"id": "greeter"})
        play >> use("greeter", "1", variables=ADA) << updated(instructions="Greet Ada.", tools=[{"name": "look"}])


@pytest.mark.parametrize(
    ("event", "param", "code"),
    [
        (use("unknown"), "session.prompt.id", "invalid_value"),
        (use("empty"), "session.prompt.id", "invalid_value"),
        (use("greeter", "9"), "session.prompt.version", "invalid_value"),
        (use("greeter"), "session.prompt.variables.name", "missing_required_parameter"),
        (use("greeter", variables={"name": "A"}), "session.prompt.variables.city", "missing_required_parameter"),
        (use("greeter", "1", variables={"name": 5}), "session.prompt.variables.name", "invalid_value"),
        (use("greeter", "1", variables={"name": None}), "session.prompt.variables.name", "invalid_value"),
        (use("quiet", variables={"name": 5}), "session.prompt.variables.name", "invalid_value"),
        (
            use("greeter", "1", variables={"name": {"type": "input_text", "text": 5}}),
            "session.prompt.variables.name",
            "invalid_value",
        ),
        (
            use("greeter", "1", variables={"name": {"type": "input_image", "image_url": "data:"}}),
            "session.prompt.variables.name",
            "invalid_value",
        ),
    ],
)
def test_a_prompt_that_cannot_be_used_changes_nothing(event: SessionUpdate, param: str, code: str) -> None:
    with playbook(machine()) as play:
        play >> Opened() << ...
        play >> event << refused(param, code)
        play >> update() << updated(instructions="Be brief.", prompt=None)


def test_a_prompt_without_instructions_needs_no_variables() -> None:
    with playbook(machine()) as play:
        play >> Opened() << ...
        play >> use("quiet", variables={"name": "Ada"})
        play << updated(instructions="Be brief.", output_modalities=["text"], max_output_tokens=7)


# --- direct fields win ------------------------------------------------------------------------------------------------


def test_what_a_client_says_with_a_prompt_wins() -> None:
    with playbook(machine()) as play:
        play >> Opened() << ...
        play >> use("voiced", instructions="Speak.", audio=spoken(speed=0.5))
        play << updated(instructions="Speak.", audio={"output": {"voice": "marin", "speed": 0.5}})


def test_what_a_client_said_before_wins() -> None:
    with playbook(machine()) as play:
        play >> Opened() << ...
        play >> update(instructions="", audio=heard(turn_detection=None)) << ...
        play >> update(audio=spoken(speed=0.5)) << ...
        play >> use("voiced")
        play << updated(
            instructions="", audio={"input": {"turn_detection": None}, "output": {"voice": "marin", "speed": 0.5}}
        )


def test_what_a_client_says_later_wins() -> None:
    with playbook(machine()) as play:
        play >> Opened() << ...
        play >> use("voiced") << ...
        play >> update(instructions="Speak.") << updated(instructions="Speak.", audio={"output": {"voice": "marin"}})


def test_one_prompt_takes_the_place_of_another() -> None:
    """What came from the first was said by no client."""
    with playbook(machine()) as play:
        play >> Opened() << ...
        play >> use("voiced") << updated(instructions="Sing.")
        play >> use("greeter", "1", variables=ADA) << updated(instructions="Greet Ada.")
        play >> use("voiced") << updated(instructions="Sing.")


def test_a_session_that_begins_with_a_prompt() -> None:
    said = cfg.RealtimeSession(prompt=cfg.Prompt(id="voiced"), audio=spoken(speed=0.5))
    with playbook(machine(said)) as play:
        play >> Opened()
        (
            play
            << sends(
                "session.created",
                session={"instructions": "Sing.", "audio": {"output": {"voice": "marin", "speed": 0.5}}},
            )
            << ...
        )
        play >> use("greeter", "1", variables=ADA) << updated(instructions="Greet Ada.")
        play >> use("voiced") << updated(instructions="Sing.", audio={"output": {"speed": 0.5}})


def test_the_fields_of_an_update_are_told_by_their_paths() -> None:
    both = cfg.AudioConfig(input=cfg.AudioInput(transcription=None), output=cfg.AudioOutput(voice="marin"))
    said = cfg.RealtimeSession(instructions="", audio=both)
    assert fields_of(said) == {"instructions", "audio.input.transcription", "audio.output.voice"}
    assert beneath(cfg.RealtimeSession(), said, set()) == said
    assert beneath(said, cfg.RealtimeSession(instructions="x", audio=spoken(voice="alloy")), set()) == said


# --- for one response -------------------------------------------------------------------------------------------------


def respond(id: str, variables: dict[str, Any] | None = None, **params: Any) -> ResponseCreate:
    prompt = cfg.Prompt(id=id, variables=variables)
    return ResponseCreate(response=ResponseParams(prompt=prompt, **params), event_id="mine")


def test_a_prompt_for_one_response_holds_for_it_alone() -> None:
    with playbook(machine()) as play:
        play >> Opened() << ...
        play >> respond("greeter", ADA) << sends("response.created")
        play << asks(Generate, instructions="Greet Ada in Turin; Ada!", tools=[TOOL])
        play >> GenerationEnded("resp_1", "stop") << ...
        play >> respond("greeter", ADA, instructions="Direct.", tools=()) << sends("response.created")
        play << asks(Generate, instructions="Direct.", tools=[])
        play >> GenerationEnded("resp_2", "stop") << ...
        play >> ResponseCreate() << sends("response.created") << asks(Generate, instructions="Be brief.", tools=[])


def test_a_prompt_wins_over_the_session_in_its_response() -> None:
    with playbook(machine()) as play:
        play >> Opened() << ...
        play >> update(instructions="Session.", max_output_tokens=9) << ...
        play >> respond("quiet") << sends("response.created", response={"output_modalities": ["text"]})
        play << asks(Generate, instructions="Session.", max_output_tokens=7)


def test_a_prompt_gives_its_voice_and_the_response_its_format() -> None:
    with playbook(machine()) as play:
        play >> Opened() << ...
        ours = cfg.ResponseAudioConfig(output=cfg.ResponseAudioOutput(format=cfg.PcmuFormat()))
        (
            play
            >> respond("voiced", audio=ours)
            << sends("response.created", response={"audio": {"output": {"voice": "marin"}}})
        )
        play << asks(Generate, instructions="Sing.")
        play >> TextGenerated("resp_1", "One two three. ") << ...
        play << asks(Speak, voice="marin", format={"rate_hz": 8_000})


@pytest.mark.parametrize(
    ("event", "param", "code"),
    [
        (respond("unknown"), "response.prompt.id", "invalid_value"),
        (respond("greeter"), "response.prompt.variables.name", "missing_required_parameter"),
    ],
)
def test_a_response_with_a_prompt_that_cannot_be_used_is_not_begun(
    event: ResponseCreate, param: str, code: str
) -> None:
    with playbook(machine()) as play:
        play >> Opened() << ...
        play >> event << refused(param, code)
        play >> ResponseCreate() << sends("response.created") << asks(Generate)
