"""From what people write to what the API takes: configurations, items, tools and responses.

Every place that takes a struct takes a mapping as well, in the API's own words; unknown names are refused here, with
their path, and not by the server a moment later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, cast

import msgspec

from vivavoce.errors import LocalProtocolError
from vivavoce.protocol import config, events, items
from vivavoce.protocol.base import UNSET, Maybe, UnsetType

S = TypeVar("S")

Part = items.Content | Mapping[str, Any] | str | bytes
"""A part of a message: a struct, the API's JSON as a mapping, text, or speech as raw samples."""
Content = Part | Sequence[Part]
ItemLike = items.Item | Mapping[str, Any]
ToolLike = config.Tool | Mapping[str, Any]
Modality = Literal["text", "audio"]

_ALIASES: dict[str, Any] = {
    "pcm16": config.PcmFormat(),
    "g711_ulaw": config.PcmuFormat(),
    "g711_alaw": config.PcmaFormat(),
    "audio/pcm": config.PcmFormat(),
    "audio/pcmu": config.PcmuFormat(),
    "audio/pcma": config.PcmaFormat(),
}
"""How audio formats are called, in either dialect."""
FormatLike = config.AudioFormat | Literal["pcm16", "g711_ulaw", "g711_alaw", "audio/pcm", "audio/pcmu", "audio/pcma"]
DetectionLike = config.TurnDetection | Mapping[str, Any] | Literal["server_vad", "semantic_vad"] | None

_FORM = "a mapping or a struct of vivavoce for it"
_FORMS = {
    "content": "text, speech as samples (a file: session.ask(Path(…)), or send_audio), or a mapping or a struct for it",
    "event": "a mapping or a struct of vivavoce.events, which has its type in it",
}


def converted(value: object, type: type[S] | Any, what: str) -> S:
    """A mapping as a struct; a struct stays what it is. Raises `LocalProtocolError` that names the field."""
    if isinstance(value, type):
        return cast(S, value)
    if not isinstance(value, Mapping):
        raise LocalProtocolError(f"{what}: expected {_FORMS.get(what, _FORM)}, not {value!r:.60}")
    try:
        return cast(S, msgspec.convert(value, type))
    except msgspec.ValidationError as error:
        from .mistakes import complaint  # late: it brings what a server knows about mistakes

        raise LocalProtocolError(f"{what}: {complaint(value, what) or error}") from None


def item_of(value: ItemLike) -> items.Item:
    """An item, from a struct or from the API's JSON. Audio is `bytes` in a struct, base64 or `bytes` in a mapping."""
    return cast(items.Item, converted(value, items.Item, "item"))


def content_of(value: Content, *, role: items.Role) -> tuple[items.Content, ...]:
    """The parts of a message."""
    if isinstance(value, str | bytes | bytearray | memoryview | Mapping) or not isinstance(value, Sequence):
        return (_part_of(cast(Part, value), role),)
    return tuple(_part_of(cast(Part, part), role) for part in value)


def _part_of(value: Part, role: items.Role) -> items.Content:
    if isinstance(value, str):
        return items.OutputText(text=value) if role == "assistant" else items.InputText(text=value)
    if isinstance(value, bytes | bytearray | memoryview):
        return items.InputAudio(audio=bytes(value))
    return cast(items.Content, converted(value, items.Content, "content"))


def tools_of(tools: Sequence[ToolLike]) -> tuple[config.Tool, ...]:
    """Tool definitions."""
    return tuple(cast(config.Tool, converted(tool, config.Tool, "tools")) for tool in tools)


def session_of(
    *,
    instructions: Maybe[str],
    voice: Maybe[str],
    modality: Maybe[Modality],
    turn_detection: Maybe[DetectionLike],
    transcription: Maybe[config.Transcription | Mapping[str, Any] | str | None],
    noise_reduction: Maybe[Literal["near_field", "far_field"] | None],
    input_format: Maybe[FormatLike],
    output_format: Maybe[FormatLike],
    speed: Maybe[float],
    tools: Maybe[Sequence[ToolLike]],
    tool_choice: Maybe[config.ToolChoice],
    max_output_tokens: Maybe[int | Literal["inf"]],
) -> config.RealtimeSession:
    """The configuration that these settings mean; what is not given stays as it is."""
    into = config.AudioInput(
        format=_format(input_format),
        transcription=_transcription(transcription),
        noise_reduction=config.NoiseReduction(type=noise_reduction)
        if isinstance(noise_reduction, str)
        else noise_reduction,
        turn_detection=_detection(turn_detection),
    )
    out = config.AudioOutput(format=_format(output_format), voice=voice, speed=speed)
    audio = config.AudioConfig(
        input=UNSET if into == config.AudioInput() else into, output=UNSET if out == config.AudioOutput() else out
    )
    return config.RealtimeSession(
        instructions=instructions,
        output_modalities=UNSET if isinstance(modality, UnsetType) else (modality,),
        audio=UNSET if audio == config.AudioConfig() else audio,
        tools=UNSET if isinstance(tools, UnsetType) else tools_of(tools),
        tool_choice=tool_choice,
        max_output_tokens=max_output_tokens,
    )


def _format(value: Maybe[FormatLike]) -> Maybe[config.AudioFormat]:
    if not isinstance(value, str):
        return value
    if value not in _ALIASES:
        raise LocalProtocolError(f"there is no audio format {value!r}; there are {', '.join(_ALIASES)}")
    return cast(config.AudioFormat, _ALIASES[value])


def _transcription(
    value: Maybe[config.Transcription | Mapping[str, Any] | str | None],
) -> Maybe[config.Transcription | None]:
    if isinstance(value, str):
        return config.Transcription(model=value)
    if value is None or isinstance(value, UnsetType):
        return value
    return cast(config.Transcription, converted(value, config.Transcription, "transcription"))


def _detection(value: Maybe[DetectionLike]) -> Maybe[config.TurnDetection | None]:
    match value:
        case "server_vad":
            return config.ServerVad()
        case "semantic_vad":
            return config.SemanticVad()
        case str():
            raise LocalProtocolError(f"turn_detection is 'server_vad', 'semantic_vad' or None, not {value!r}")
    if value is None or isinstance(value, UnsetType):
        return value
    return cast(config.TurnDetection, converted(value, config.TurnDetection, "turn_detection"))


def response_of(
    *,
    instructions: Maybe[str],
    modality: Maybe[Modality],
    voice: Maybe[str],
    tools: Maybe[Sequence[ToolLike]],
    tool_choice: Maybe[config.ToolChoice],
    input: Maybe[Sequence[items.InputItem | Mapping[str, Any]]],
    out_of_band: bool,
    metadata: Maybe[Mapping[str, str]],
    max_output_tokens: Maybe[int | Literal["inf"]],
) -> Maybe[events.ResponseParams]:
    """What one response does otherwise than the session says; UNSET where that is nothing."""
    params = events.ResponseParams(
        conversation="none" if out_of_band else UNSET,
        instructions=instructions,
        output_modalities=UNSET if isinstance(modality, UnsetType) else (modality,),
        audio=UNSET
        if isinstance(voice, UnsetType)
        else config.ResponseAudioConfig(output=config.ResponseAudioOutput(voice=voice)),
        tools=UNSET if isinstance(tools, UnsetType) else tools_of(tools),
        tool_choice=tool_choice,
        input=UNSET
        if isinstance(input, UnsetType)
        else tuple(cast(items.InputItem, converted(one, items.InputItem, "input")) for one in input),
        metadata=UNSET if isinstance(metadata, UnsetType) else dict(metadata),
        max_output_tokens=max_output_tokens,
    )
    return UNSET if params == events.ResponseParams() else params
