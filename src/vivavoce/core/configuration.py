"""Session configuration: the defaults, and how an update changes it (reference §2.1, §3.3).

Pure functions from one frozen configuration to the next; a refused update raises `Refused` and changes nothing. What
the schema allows but this server does not have is refused by name, never accepted and ignored.
"""

from __future__ import annotations

from typing import Any, TypeVar

from msgspec import structs

from vivavoce.protocol.base import UnsetType, given
from vivavoce.protocol.config import (
    AudioConfig,
    AudioInput,
    AudioOutput,
    McpTool,
    PcmFormat,
    RealtimeSession,
    RealtimeSessionResource,
    SemanticVad,
    ServerVad,
    SessionConfig,
    Tool,
    ToolChoice,
    ToolChoiceFunction,
    ToolChoiceMcp,
    Transcription,
    TurnDetection,
    Voice,
    VoiceRef,
)

from .refused import Refused, invalid
from .turns import TurnSettings

S = TypeVar("S", AudioInput, AudioOutput)

INSTRUCTIONS = "You are a friendly voice assistant. Answer in one or two short, plain sentences."
"""What an untouched session says to the model; visible in `session.created`, cleared by an empty string."""

VOICE = "alloy"


def initial(*, id: str, model: str, expires_at: int, instructions: str = INSTRUCTIONS) -> RealtimeSessionResource:
    """The configuration of an untouched session, every field present (§2.1).

    `silence_duration_ms` is 200 here, and 500 when a client's `server_vad` object leaves it out (§8.1).
    """
    return RealtimeSessionResource(
        id=id,
        object="realtime.session",
        expires_at=expires_at,
        model=model,
        output_modalities=("audio",),
        instructions=instructions,
        audio=AudioConfig(
            input=AudioInput(
                format=PcmFormat(),
                transcription=None,
                noise_reduction=None,
                turn_detection=ServerVad(
                    threshold=0.5,
                    prefix_padding_ms=300,
                    silence_duration_ms=200,
                    idle_timeout_ms=None,
                    create_response=True,
                    interrupt_response=True,
                ),
            ),
            output=AudioOutput(format=PcmFormat(), voice=VOICE, speed=1.0),
        ),
        tools=(),
        tool_choice="auto",
        max_output_tokens="inf",
        truncation="auto",
        tracing=None,
        prompt=None,
        include=None,
    )


def updated(
    now: RealtimeSessionResource, update: SessionConfig, *, spoken_voice: Voice | None, is_responding: bool
) -> RealtimeSessionResource:
    """The configuration after a `session.update`; raises `Refused` where the update as a whole is not possible."""
    if not isinstance(update, RealtimeSession):
        raise invalid("session.type", "Invalid value: 'transcription'. This session is of type 'realtime'.")
    _check_support(update)
    if given(update.model, now.model) != now.model:
        raise invalid("session.model", "The model of a session cannot be changed.")
    if not isinstance(update.tools, UnsetType) or not isinstance(update.tool_choice, UnsetType):
        check_tools(given(update.tools, given(now.tools, ())), given(update.tool_choice, now.tool_choice), "session")
    if given(update.tracing, None) is not None and now.tracing not in (None, update.tracing):
        raise invalid("session.tracing", "Tracing cannot be changed once it is enabled.")
    audio = _merge_audio(given(now.audio, AudioConfig()), given(update.audio, AudioConfig()))
    _check_output(now, audio, spoken_voice=spoken_voice, is_responding=is_responding)
    return structs.replace(now, **_present(update), audio=audio)


def turn_settings(detection: ServerVad) -> TurnSettings:
    """What `Turns` needs of the detection in force."""
    return TurnSettings(
        threshold=given(detection.threshold, 0.5),
        prefix_padding_ms=given(detection.prefix_padding_ms, 300),
        silence_duration_ms=given(detection.silence_duration_ms, 500),
    )


def voice_name(voice: Voice | UnsetType) -> str:
    """A voice as engines know it: its name or its id."""
    if isinstance(voice, VoiceRef):
        return voice.id
    return VOICE if isinstance(voice, UnsetType) else voice


def audio_input(session: RealtimeSessionResource) -> AudioInput:
    """The input half of the audio configuration."""
    return given(given(session.audio, AudioConfig()).input, AudioInput())


def audio_output(session: RealtimeSessionResource) -> AudioOutput:
    """The output half of the audio configuration."""
    return given(given(session.audio, AudioConfig()).output, AudioOutput())


def check_tools(tools: tuple[Tool, ...], choice: ToolChoice | UnsetType, where: str) -> None:
    """Refuse tools and choices that nothing here could serve; `where` is `session` or `response`."""
    names: set[str] = set()
    for index, tool in enumerate(tools):
        if isinstance(tool, McpTool):
            raise invalid(f"{where}.tools[{index}].type", _unsupported("MCP tools"))
        if tool.name in names:
            raise invalid(f"{where}.tools[{index}].name", f"There is more than one tool with the name '{tool.name}'.")
        names.add(tool.name)
    if isinstance(choice, ToolChoiceMcp):
        raise invalid(f"{where}.tool_choice", _unsupported("MCP tools"))
    if isinstance(choice, ToolChoiceFunction) and choice.name not in names:
        raise invalid(f"{where}.tool_choice.name", f"There is no tool with the name '{choice.name}'.")


def _unsupported(what: str) -> str:
    return f"{what} not supported by this server."


def _check_support(update: RealtimeSession) -> None:
    audio = given(update.audio, AudioConfig())
    into = given(audio.input, AudioInput())
    detection = given(into.turn_detection, None)
    wanted: dict[str, tuple[bool, str]] = {
        "session.audio.input.noise_reduction": (given(into.noise_reduction, None) is not None, "Noise reduction is"),
        "session.audio.input.turn_detection.type": (isinstance(detection, SemanticVad), "'semantic_vad' is"),
        "session.audio.input.turn_detection.idle_timeout_ms": (
            isinstance(detection, ServerVad) and given(detection.idle_timeout_ms, None) is not None,
            "An idle timeout is",
        ),
        "session.prompt": (given(update.prompt, None) is not None, "Stored prompts are"),
        "session.reasoning": (given(update.reasoning, None) is not None, "Reasoning effort is"),
        "session.parallel_tool_calls": (not given(update.parallel_tool_calls, True), "One call at a time is"),
        "session.truncation": (given(update.truncation, "auto") != "auto", "Any truncation but 'auto' is"),
        "session.include": (bool(given(update.include, None)), "Log probabilities are"),
    }
    refuse_wanted(wanted)


def refuse_wanted(wanted: dict[str, tuple[bool, str]]) -> None:
    """Refuse by its param the first thing that is wanted here and not to be had."""
    for param, (is_wanted, what) in wanted.items():
        if is_wanted:
            raise invalid(param, _unsupported(what))


def _present(update: RealtimeSession) -> dict[str, Any]:
    return {
        field: value
        for field in RealtimeSession.__struct_fields__
        if field != "audio" and not isinstance(value := getattr(update, field), UnsetType)
    }


def _merge_audio(now: AudioConfig, update: AudioConfig) -> AudioConfig:
    into = _merge(given(now.input, AudioInput()), given(update.input, AudioInput()))
    out = _merge(given(now.output, AudioOutput()), given(update.output, AudioOutput()))
    return AudioConfig(
        input=structs.replace(
            into,
            turn_detection=_with_defaults(given(into.turn_detection, None)),
            transcription=_with_nulls(given(into.transcription, None)),
        ),
        output=out,
    )


def _merge(now: S, update: S) -> S:
    present = {
        field: value for field in update.__struct_fields__ if not isinstance(value := getattr(update, field), UnsetType)
    }
    return structs.replace(now, **present)


def _with_defaults(detection: TurnDetection | None) -> TurnDetection | None:
    """Members that the client left out get their defaults, not their former values (§8.3)."""
    if not isinstance(detection, ServerVad):
        return detection
    return ServerVad(
        threshold=given(detection.threshold, 0.5),
        prefix_padding_ms=given(detection.prefix_padding_ms, 300),
        silence_duration_ms=given(detection.silence_duration_ms, 500),
        idle_timeout_ms=given(detection.idle_timeout_ms, None),
        create_response=given(detection.create_response, True),
        interrupt_response=given(detection.interrupt_response, True),
    )


def _with_nulls(transcription: Transcription | None) -> Transcription | None:
    if transcription is None:
        return None
    return structs.replace(
        transcription, language=given(transcription.language, None), prompt=given(transcription.prompt, None)
    )


def _check_output(
    now: RealtimeSessionResource, audio: AudioConfig, *, spoken_voice: Voice | None, is_responding: bool
) -> None:
    before, after = audio_output(now), given(audio.output, AudioOutput())
    if spoken_voice is not None and after.voice not in (before.voice, spoken_voice):
        raise cannot_update_voice()
    if is_responding and after.speed != before.speed:
        raise invalid("session.audio.output.speed", "The speed cannot be changed while a response is in progress.")


def cannot_update_voice() -> Refused:
    """The voice is fixed once the assistant has been heard (§2.1)."""
    return Refused("cannot_update_voice", "Cannot update a conversation's voice if assistant audio is present.")
