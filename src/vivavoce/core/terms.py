"""What one response runs with: the session's settings, overridden by the request's (reference §3.12).

Pure: `terms` refuses a request that cannot be met before anything is begun.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from msgspec import structs

from vivavoce.audio.formats import Format
from vivavoce.protocol.base import UNSET, UnsetType, given
from vivavoce.protocol.config import (
    AudioConfig,
    AudioFormat,
    AudioOutput,
    MaxOutputTokens,
    Metadata,
    PcmFormat,
    RealtimeSession,
    RealtimeSessionResource,
    Reasoning,
    ResponseAudioConfig,
    ResponseAudioOutput,
    Tool,
    ToolChoice,
    Truncation,
    Voice,
)
from vivavoce.protocol.events import ResponseParams
from vivavoce.protocol.items import Item

from . import configuration as cfg
from .conversation import format_of


@dataclass(frozen=True, slots=True)
class Terms:
    """Settled before `response.created`; a later `session.update` does not change them."""

    in_conversation: bool
    with_audio: bool
    instructions: str
    tools: tuple[Tool, ...]
    tool_choice: ToolChoice
    max_output_tokens: MaxOutputTokens
    audio_format: AudioFormat
    voice: Voice
    speed: float
    metadata: Metadata | None
    input: tuple[Item, ...] | None
    """The context if the request gave one; None means the conversation."""
    truncation: Truncation = "auto"
    effort: str | None = None
    is_parallel: bool | None = None
    temperature: float | None = None

    @property
    def format(self) -> Format:
        """The layout of the audio that goes out."""
        return format_of(self.audio_format)


def terms(
    params: ResponseParams, session: RealtimeSessionResource, input: tuple[Item, ...] | None, spoken_voice: Voice | None
) -> Terms:
    """Settle them; raises `Refused`. `spoken_voice` is the one in which the conversation was heard already."""
    tools = given(params.tools, given(session.tools, ()))
    choice: ToolChoice = given(params.tool_choice, given(session.tool_choice, _AUTO))
    ours = cfg.audio_output(session)
    theirs = given(given(params.audio, ResponseAudioConfig()).output, ResponseAudioOutput())
    default_voice: Voice = cfg.VOICE
    voice = given(theirs.voice, spoken_voice or given(ours.voice, default_voice))
    if spoken_voice not in (None, voice):
        raise cfg.cannot_update_voice()
    default_format: AudioFormat = PcmFormat()
    no_limit: MaxOutputTokens = "inf"
    modalities = given(params.output_modalities, given(session.output_modalities, ("audio",)))
    return Terms(
        in_conversation=given(params.conversation, UNSET) != "none",
        with_audio="audio" in modalities,
        instructions=given(params.instructions, given(session.instructions, "")),
        tools=tools,
        tool_choice=choice,
        max_output_tokens=given(params.max_output_tokens, given(session.max_output_tokens, no_limit)),
        audio_format=given(theirs.format, given(ours.format, default_format)),
        voice=voice,
        speed=given(ours.speed, 1.0),
        metadata=given(params.metadata, None),
        input=input,
        truncation=given(session.truncation, _WHOLE),
        effort=given(given(params.reasoning, given(session.reasoning, Reasoning())).effort, None),
        is_parallel=given(params.parallel_tool_calls, given(session.parallel_tool_calls, None)),
        temperature=given(params.temperature, given(session.temperature, None)),
    )


def with_prompt(params: ResponseParams, prompt: RealtimeSession) -> ResponseParams:
    """The request with a stored prompt's fields where it says nothing itself."""
    output = given(given(prompt.audio, AudioConfig()).output, AudioOutput())
    ours = given(given(params.audio, ResponseAudioConfig()).output, ResponseAudioOutput())
    theirs: dict[str, Any] = {
        name: getattr(prompt, name)
        for name in ("instructions", "tools", "tool_choice", "output_modalities", "max_output_tokens")
    }
    fields = {name: value for name, value in theirs.items() if isinstance(getattr(params, name), UnsetType)}
    audio = ResponseAudioOutput(format=given(ours.format, output.format), voice=given(ours.voice, output.voice))
    return structs.replace(params, **fields, audio=ResponseAudioConfig(output=audio))


_AUTO: ToolChoice = "auto"
_WHOLE: Truncation = "auto"
