"""What one response runs with: the session's settings, overridden by the request's (reference §3.12).

Pure: `terms` refuses a request that cannot be met before anything is begun.
"""

from __future__ import annotations

from dataclasses import dataclass

from vivavoce.audio.formats import Format
from vivavoce.protocol.base import UNSET, UnsetType, given
from vivavoce.protocol.config import (
    AudioFormat,
    MaxOutputTokens,
    Metadata,
    PcmFormat,
    RealtimeSessionResource,
    ResponseAudioConfig,
    ResponseAudioOutput,
    Tool,
    ToolChoice,
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

    @property
    def format(self) -> Format:
        """The layout of the audio that goes out."""
        return format_of(self.audio_format)


def terms(
    params: ResponseParams, session: RealtimeSessionResource, input: tuple[Item, ...] | None, spoken_voice: Voice | None
) -> Terms:
    """Settle them; raises `Refused`. `spoken_voice` is the one in which the conversation was heard already."""
    cfg.refuse_wanted(
        {
            "response.prompt": (given(params.prompt, None) is not None, "Stored prompts are"),
            "response.reasoning": (given(params.reasoning, None) is not None, "Reasoning effort is"),
            "response.parallel_tool_calls": (not given(params.parallel_tool_calls, True), "One call at a time is"),
        }
    )
    tools = given(params.tools, given(session.tools, ()))
    choice: ToolChoice = given(params.tool_choice, given(session.tool_choice, _AUTO))
    if not isinstance(params.tools, UnsetType) or not isinstance(params.tool_choice, UnsetType):
        cfg.check_tools(tools, choice, "response")
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
    )


_AUTO: ToolChoice = "auto"
