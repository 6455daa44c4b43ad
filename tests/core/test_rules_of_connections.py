"""Connecting, configuring, refusing, ending (reference §3.2, §3.3, §4.4 T1, T2, T21, T23)."""

from __future__ import annotations

import pytest

from vivavoce.core.limits import Limits
from vivavoce.core.messages import (
    AudioSynthesized,
    Cancel,
    Close,
    Drain,
    Expel,
    Generate,
    GenerationEnded,
    Opened,
    Speak,
    TextGenerated,
    WakeUp,
)
from vivavoce.core.session import Session
from vivavoce.protocol import config as cfg
from vivavoce.protocol.base import UNSET
from vivavoce.protocol.events import (
    ErrorDetail,
    InputAudioBufferAppend,
    OutputAudioBufferClear,
    ResponseCreate,
    ResponseParams,
    SessionUpdate,
)
from vivavoce.testing.matching import Id
from vivavoce.testing.playbook import Expected, Playbook, asks, counting_ids, playbook, sends


def update(**fields: object) -> SessionUpdate:
    return SessionUpdate(session=cfg.RealtimeSession(**fields), event_id="mine")  # type: ignore[arg-type]


def listen(**fields: object) -> SessionUpdate:
    return update(audio=cfg.AudioConfig(input=cfg.AudioInput(**fields)))  # type: ignore[arg-type]


def voiced(**fields: object) -> SessionUpdate:
    return update(audio=cfg.AudioConfig(output=cfg.AudioOutput(**fields)))  # type: ignore[arg-type]


def refused(param: str | None, code: str = "invalid_value") -> Expected:
    return sends("error", error={"type": "invalid_request_error", "code": code, "param": param, "event_id": "mine"})


# --- T1 ---------------------------------------------------------------------------------------------------------------


def test_t1_the_first_event_states_the_whole_untouched_session(session: Session) -> None:
    with playbook(session) as play:
        (
            play
            >> Opened()
            << sends(
                "session.created",
                session={
                    "type": "realtime",
                    "object": "realtime.session",
                    "id": "sess_1",
                    "model": "scripted",
                    "output_modalities": ["audio"],
                    "instructions": "Be brief.",
                    "tools": [],
                    "tool_choice": "auto",
                    "max_output_tokens": "inf",
                    "tracing": None,
                    "truncation": "auto",
                    "prompt": None,
                    "expires_at": 3_600,
                    "include": None,
                    "audio": {
                        "input": {
                            "format": {"type": "audio/pcm", "rate": 24_000},
                            "transcription": None,
                            "noise_reduction": None,
                            "turn_detection": {
                                "type": "server_vad",
                                "threshold": 0.5,
                                "prefix_padding_ms": 300,
                                "silence_duration_ms": 200,
                                "idle_timeout_ms": None,
                                "create_response": True,
                                "interrupt_response": True,
                            },
                        },
                        "output": {
                            "format": {"type": "audio/pcm", "rate": 24_000},
                            "voice": "alloy",
                            "speed": 1.0,
                        },
                    },
                },
            )
            << sends("conversation.created", conversation={"id": Id("conversation")})
        )


# --- T2 and §3.3 ------------------------------------------------------------------------------------------------------


def test_t2_an_update_changes_the_given_fields_and_states_the_whole(play: Playbook) -> None:
    (
        play
        >> update(instructions="Rhyme.", tools=(cfg.FunctionTool(name="look"),))
        << sends(
            "session.updated",
            session={"instructions": "Rhyme.", "tools": [{"name": "look"}], "model": "scripted", "tool_choice": "auto"},
        )
    )
    play >> update(instructions="") << sends("session.updated", session={"instructions": "", "tools": [{}]})
    play >> update(tools=()) << sends("session.updated", session={"tools": []})


def test_turn_detection_is_replaced_whole_and_absent_members_get_defaults(play: Playbook) -> None:
    detection = {"threshold": 0.7, "silence_duration_ms": 500, "prefix_padding_ms": 300, "create_response": True}
    play >> listen(turn_detection=cfg.ServerVad(create_response=False)) << ...
    (
        play
        >> listen(turn_detection=cfg.ServerVad(threshold=0.7))
        << sends("session.updated", session={"audio": {"input": {"turn_detection": detection}}})
    )
    (
        play
        >> listen(turn_detection=None)
        << sends("session.updated", session={"audio": {"input": {"turn_detection": None, "format": {"rate": 24_000}}}})
    )


def test_transcription_is_replaced_whole_and_stated_with_nulls(play: Playbook) -> None:
    play >> listen(transcription=cfg.Transcription(model="a", language="de")) << ...
    (
        play
        >> listen(transcription=cfg.Transcription(model="b"))
        << sends(
            "session.updated",
            session={"audio": {"input": {"transcription": {"model": "b", "language": None, "prompt": None}}}},
        )
    )
    (
        play
        >> listen(transcription=None)
        << sends("session.updated", session={"audio": {"input": {"transcription": None}}})
    )


def test_the_output_merges_field_by_field(play: Playbook) -> None:
    play >> voiced(voice="marin") << ...
    (
        play
        >> voiced(speed=1.25)
        << sends("session.updated", session={"audio": {"output": {"voice": "marin", "speed": 1.25}}})
    )


@pytest.mark.parametrize(
    ("event", "param"),
    [
        (update(model="another"), "session.model"),
        (SessionUpdate(session=cfg.TranscriptionSession(), event_id="mine"), "session.type"),
        (update(tools=(cfg.McpTool(server_label="x"),)), "session.tools[0].type"),
        (update(tools=(cfg.FunctionTool(name="x"), cfg.FunctionTool(name="x"))), "session.tools[1].name"),
        (update(tool_choice=cfg.ToolChoiceMcp(server_label="x")), "session.tool_choice.server_label"),
        (update(tools=(), tool_choice=cfg.ToolChoiceFunction(name="x")), "session.tool_choice.name"),
        (update(prompt=cfg.Prompt(id="x")), "session.prompt.id"),
        (update(include=("item.input_audio_transcription.logprobs",)), "session.include"),
        (listen(noise_reduction=cfg.NoiseReduction(type="near_field")), "session.audio.input.noise_reduction"),
        (listen(turn_detection=cfg.SemanticVad()), "session.audio.input.turn_detection.type"),
    ],
)
def test_an_update_that_is_not_possible_changes_nothing(
    play: Playbook, session: Session, event: SessionUpdate, param: str
) -> None:
    before = session.config
    play >> event << refused(param)
    assert session.config == before


def test_the_model_may_be_named_again(play: Playbook) -> None:
    play >> update(model="scripted") << sends("session.updated", session={"model": "scripted"})


def test_tracing_stays_as_it_was_enabled(play: Playbook) -> None:
    play >> update(tracing="auto") << sends("session.updated", session={"tracing": "auto"})
    play >> update(tracing="auto") << sends("session.updated", session={"tracing": "auto"})
    play >> update(tracing=cfg.TracingConfig(workflow_name="x")) << refused("session.tracing")


def test_the_voice_is_fixed_once_it_was_heard(play: Playbook) -> None:
    play >> voiced(voice="marin") << ...
    play >> ResponseCreate() << ...
    play >> TextGenerated("resp_1", "Hello there, you.") << ... << asks(Speak, voice="marin")
    play >> AudioSynthesized("resp_1", "item_1", bytes(480)) << sends("response.output_audio.delta")
    play >> voiced(voice="cedar") << refused(None, "cannot_update_voice")
    play >> voiced(voice="marin") << sends("session.updated")
    other = cfg.ResponseAudioConfig(output=cfg.ResponseAudioOutput(voice="cedar"))
    aside = ResponseCreate(response=ResponseParams(conversation="none", audio=other), event_id="mine")
    play >> aside << refused(None, "cannot_update_voice")


def test_the_speed_is_fixed_while_a_response_runs(play: Playbook) -> None:
    play >> ResponseCreate() << ...
    play >> voiced(speed=1.5) << refused("session.audio.output.speed")
    play >> update(instructions="New.") << sends("session.updated")
    play >> GenerationEnded("resp_1", "stop") << sends("response.done")
    play >> voiced(speed=1.5) << sends("session.updated")


def test_a_running_response_keeps_its_settings(play: Playbook) -> None:
    play >> ResponseCreate() << ...
    play >> update(output_modalities=("text",)) << sends("session.updated")
    play >> TextGenerated("resp_1", "Hello") << ... << sends("response.output_audio_transcript.delta")


# --- T21 and §3.2 -----------------------------------------------------------------------------------------------------


def test_t21_after_an_error_the_session_goes_on(play: Playbook) -> None:
    detail = ErrorDetail(
        type="invalid_request_error", code="unknown_parameter", message="?", param="session.x", event_id="mine"
    )
    for _ in range(4):
        play >> detail << sends("error", error={"code": "unknown_parameter", "param": "session.x", "event_id": "mine"})
    play >> ResponseCreate() << sends("response.created") << asks(Generate, instructions="Be brief.")


def test_an_event_without_an_id_gets_an_error_without_one(play: Playbook) -> None:
    play >> OutputAudioBufferClear() << sends("error", error={"code": "invalid_value", "event_id": None})
    play >> OutputAudioBufferClear(event_id=UNSET) << sends("error", error={"param": "type", "event_id": None})


# --- T23, limits, the end ---------------------------------------------------------------------------------------------


def test_t23_a_session_ends_at_its_longest_duration(play: Playbook, session: Session) -> None:
    response = Id("response")
    play.after(59 * 60_000)
    play >> ResponseCreate() << sends("response.created", response={"id": response}) << asks(Generate)
    (
        play.after(60_000)
        << Cancel(response)
        << sends("response.done", response={"status": "failed"})
        << sends("error", error={"code": "session_expired", "event_id": None})
        << asks(Close, code=1001)
    )
    assert session.deadline() is None
    play >> update(instructions="too late")
    play >> WakeUp()


def test_a_wake_up_before_its_time_has_no_effect(play: Playbook) -> None:
    play >> WakeUp()
    play >> ResponseCreate() << ...
    play >> WakeUp()


def test_a_machine_that_was_not_opened_has_no_deadline(session: Session) -> None:
    assert session.deadline() is None


def test_engines_that_are_silent_for_too_long_fail_the_response() -> None:
    machine = Session(id="s", model="m", ids=counting_ids(), expires_at=0, limits=Limits(engine_silence_ms_max=1_000))
    with playbook(machine) as play:
        play >> Opened() << ...
        play >> ResponseCreate() << ...
        play.after(900) >> TextGenerated("resp_1", "Still") << ...
        play.after(999)
        (
            play.after(1)
            << Cancel("resp_1")
            << ...
            << sends("response.done", response={"status_details": {"error": {"code": "engine_timeout"}}})
        )


def test_a_server_that_stops_finishes_what_runs_and_begins_nothing(play: Playbook) -> None:
    play >> ResponseCreate() << ...
    play >> Drain()
    play >> ResponseCreate(event_id="mine") << refused(None, "server_stopping")
    play >> InputAudioBufferAppend(audio=bytes(480)) << ...
    (
        play
        >> GenerationEnded("resp_1", "stop")
        << sends("response.done", response={"status": "completed"})
        << asks(Close, code=1001)
    )


def test_an_operator_closes_a_session_and_its_client_is_told(play: Playbook, session: Session) -> None:
    play >> ResponseCreate() << ...
    assert session.responding == "resp_1"
    (
        play
        >> Expel("An operator has closed this session.")
        << Cancel("resp_1")
        << ...
        << sends("response.done", response={"status": "failed"})
        << sends("error", error={"code": "session_closed_by_operator", "event_id": None})
        << asks(Close, code=1008, reason="An operator has closed this session.")
    )
    assert session.responding is None


def test_a_server_that_stops_closes_at_once_where_nothing_runs(play: Playbook) -> None:
    play >> Drain() << asks(Close, code=1001)
