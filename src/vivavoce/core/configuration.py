"""Session configuration: the defaults, and how an update changes it (reference §2.1, §3.3).

Pure functions from one frozen configuration to the next; a refused update raises `Refused` and changes nothing. What
the schema allows but the session's engines are not able to do is refused by name, never accepted and ignored.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from msgspec import structs

from vivavoce.protocol.base import UNSET, UnsetType, given
from vivavoce.protocol.config import (
    AudioConfig,
    AudioInput,
    AudioOutput,
    NoiseReduction,
    PcmFormat,
    RealtimeSession,
    RealtimeSessionResource,
    Reasoning,
    SemanticVad,
    ServerVad,
    SessionConfig,
    SessionResource,
    Transcription,
    TranscriptionAudioConfig,
    TranscriptionSession,
    TranscriptionSessionResource,
    TurnDetection,
    Voice,
    VoiceRef,
)

from .abilities import Abilities
from .listening import Reduction
from .refused import Refused, invalid
from .turns import TurnSettings, Waits

S = TypeVar("S", AudioInput, AudioOutput)

INSTRUCTIONS = "You are a friendly voice assistant. Answer in one or two short, plain sentences."
"""What an untouched session says to the model; visible in `session.created`, cleared by an empty string."""

VOICE = "alloy"

WAITS = {"low": Waits(700, 8_000), "medium": Waits(450, 4_000), "high": Waits(250, 2_000)}
"""How long `semantic_vad` waits by eagerness; the most as in reference §5.2, the least is ours."""

SEMANTIC = TurnSettings(threshold=0.5, prefix_padding_ms=300, silence_duration_ms=500)
"""`semantic_vad` finds speech as an untouched `server_vad` does."""


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


def initial_transcription(*, id: str, expires_at: int) -> TranscriptionSessionResource:
    """The configuration of an untouched transcription session (§2.2)."""
    return TranscriptionSessionResource(
        id=id,
        object="realtime.transcription_session",
        expires_at=expires_at,
        audio=TranscriptionAudioConfig(
            input=AudioInput(
                format=PcmFormat(),
                transcription=None,
                noise_reduction=None,
                turn_detection=ServerVad(threshold=0.5, prefix_padding_ms=300, silence_duration_ms=200),
            )
        ),
        include=None,
    )


def updated(
    now: SessionResource,
    update: SessionConfig,
    abilities: Abilities,
    *,
    spoken_voice: Voice | None = None,
    is_responding: bool = False,
) -> SessionResource:
    """The configuration after a `session.update`; raises `Refused` where the update as a whole is not possible.

    Tools are checked elsewhere, see `tools.py`.
    """
    match now, update:
        case RealtimeSessionResource(), RealtimeSession():
            return _updated_realtime(now, update, abilities, spoken_voice, is_responding)
        case TranscriptionSessionResource(), TranscriptionSession():
            _check_input(given(given(update.audio, TranscriptionAudioConfig()).input, AudioInput()), abilities)
            _check_include(update.include, abilities)
            into = _merge_input(audio_input(now), given(update.audio, TranscriptionAudioConfig()).input)
            detection = _without_answers(given(into.turn_detection, None))
            audio = TranscriptionAudioConfig(input=structs.replace(into, turn_detection=detection))
            return structs.replace(now, audio=audio, include=given(update.include, given(now.include, None)))
        case _:
            ours, theirs = kind_of(now), kind_of(update)
            raise invalid("session.type", f"Invalid value: '{theirs}'. This session is of type '{ours}'.")


def _updated_realtime(
    now: RealtimeSessionResource,
    update: RealtimeSession,
    abilities: Abilities,
    spoken_voice: Voice | None,
    is_responding: bool,
) -> RealtimeSessionResource:
    into = given(given(update.audio, AudioConfig()).input, AudioInput())
    _check_input(into, abilities)
    _check_include(update.include, abilities)
    check_reasoning(update.reasoning, abilities, "session")
    if given(update.model, now.model) != now.model:
        raise invalid("session.model", "The model of a session cannot be changed.")
    if given(update.tracing, None) is not None and given(now.tracing, None) not in (None, update.tracing):
        raise invalid("session.tracing", "Tracing cannot be changed once it is enabled.")
    audio = AudioConfig(
        input=_merge_input(audio_input(now), into),
        output=_merge(audio_output(now), given(given(update.audio, AudioConfig()).output, AudioOutput())),
    )
    _check_output(now, audio, spoken_voice=spoken_voice, is_responding=is_responding)
    return structs.replace(now, **present(update), audio=audio)


def without_formats(session: SessionResource) -> SessionResource:
    """The session with the formats that it begins with, whatever it was told."""
    into = structs.replace(audio_input(session), format=PcmFormat())
    if isinstance(session, TranscriptionSessionResource):
        return structs.replace(session, audio=TranscriptionAudioConfig(input=into))
    output = structs.replace(audio_output(session), format=PcmFormat())
    return structs.replace(session, audio=AudioConfig(input=into, output=output))


def kind_of(session: SessionResource | SessionConfig) -> str:
    """The session's `type`."""
    return "transcription" if isinstance(session, TranscriptionSession) else "realtime"


def turn_settings(detection: TurnDetection | None) -> TurnSettings | None:
    """What `Turns` needs of the detection in force; None where the client marks the turns."""
    match detection:
        case ServerVad():
            return TurnSettings(
                threshold=given(detection.threshold, 0.5),
                prefix_padding_ms=given(detection.prefix_padding_ms, 300),
                silence_duration_ms=given(detection.silence_duration_ms, 500),
            )
        case SemanticVad():
            eagerness = given(detection.eagerness, "auto")
            return dataclasses.replace(SEMANTIC, waits=WAITS["medium" if eagerness == "auto" else eagerness])
        case None:
            return None


def reduction(audio: AudioInput) -> Reduction | None:
    """The noise reduction in force."""
    wanted = given(audio.noise_reduction, None)
    return None if wanted is None else Reduction(wanted.type, given(wanted.strength, 1.0))


def idle_timeout_ms(audio: AudioInput) -> int | None:
    """After how much silence behind an answer the user is spoken to again; None for never."""
    detection = given(audio.turn_detection, None)
    return given(detection.idle_timeout_ms, None) if isinstance(detection, ServerVad) else None


def voice_name(voice: Voice | UnsetType) -> str:
    """A voice as engines know it: its name or its id."""
    if isinstance(voice, VoiceRef):
        return voice.id
    return VOICE if isinstance(voice, UnsetType) else voice


def audio_input(session: SessionResource) -> AudioInput:
    """The input half of the audio configuration."""
    audio = given(session.audio, None)
    return given(audio.input, AudioInput()) if audio else AudioInput()


def audio_output(session: RealtimeSessionResource) -> AudioOutput:
    """The output half of the audio configuration."""
    return given(given(session.audio, AudioConfig()).output, AudioOutput())


def check_reasoning(reasoning: Reasoning | UnsetType, abilities: Abilities, where: str) -> None:
    """Refuse an effort where the model does not reason."""
    if not isinstance(reasoning, UnsetType) and not abilities.reasoning:
        raise invalid(f"{where}.reasoning", "The language model of this session does not reason.")


def _check_include(include: object, abilities: Abilities) -> None:
    if include and not isinstance(include, UnsetType) and not abilities.logprobs:
        raise invalid("session.include", "The transcriber of this session gives no log probabilities.")


def _check_input(into: AudioInput, abilities: Abilities) -> None:
    if given(into.noise_reduction, None) is not None and not abilities.noise_reduction:
        raise invalid("session.audio.input.noise_reduction", "There is no noise reduction in this session's pipeline.")
    if isinstance(into.turn_detection, SemanticVad) and not abilities.semantic_vad:
        raise invalid(
            "session.audio.input.turn_detection.type", "There is no 'semantic_vad' in this session's pipeline."
        )


def present(update: SessionConfig) -> dict[str, Any]:
    """The fields that an update has, by name, those of audio apart."""
    return {
        field: value
        for field in update.__struct_fields__
        if field != "audio" and not isinstance(value := getattr(update, field), UnsetType)
    }


def _merge_input(now: AudioInput, update: AudioInput | UnsetType) -> AudioInput:
    """Members of turn detection and transcription that an update leaves out get their defaults (§8.3)."""
    into = _merge(now, given(update, AudioInput()))
    return structs.replace(
        into,
        turn_detection=_with_defaults(given(into.turn_detection, None)),
        transcription=_with_nulls(given(into.transcription, None)),
        noise_reduction=_with_strength(given(into.noise_reduction, None), given(now.noise_reduction, None)),
    )


def _merge(now: S, update: S) -> S:
    present = {
        field: value for field in update.__struct_fields__ if not isinstance(value := getattr(update, field), UnsetType)
    }
    return structs.replace(now, **present)


def _with_defaults(detection: TurnDetection | None) -> TurnDetection | None:
    """Members that the client left out get their defaults, not their former values (§8.3)."""
    match detection:
        case None:
            return None
        case SemanticVad():
            return SemanticVad(
                eagerness=given(detection.eagerness, "auto"),
                create_response=given(detection.create_response, True),
                interrupt_response=given(detection.interrupt_response, True),
            )
        case ServerVad():
            return ServerVad(
                threshold=given(detection.threshold, 0.5),
                prefix_padding_ms=given(detection.prefix_padding_ms, 300),
                silence_duration_ms=given(detection.silence_duration_ms, 500),
                idle_timeout_ms=given(detection.idle_timeout_ms, None),
                create_response=given(detection.create_response, True),
                interrupt_response=given(detection.interrupt_response, True),
            )


def _without_answers(detection: TurnDetection | None) -> TurnDetection | None:
    """A transcription session does not echo what only answers need (§2.2)."""
    if detection is None:
        return None
    quiet = structs.replace(detection, create_response=UNSET, interrupt_response=UNSET)
    return structs.replace(quiet, idle_timeout_ms=UNSET) if isinstance(quiet, ServerVad) else quiet


def _with_strength(reduction: NoiseReduction | None, before: NoiseReduction | None) -> NoiseReduction | None:
    """`strength` keeps its value where it is left out; it is 1 at first (§2.1)."""
    if reduction is None:
        return None
    kept = given(before.strength, 1.0) if before is not None else 1.0
    return structs.replace(reduction, strength=given(reduction.strength, kept))


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
