"""What code written for a public client keeps of the events it receives, in either dialect.

Standard library only: the client of the preview runs in an environment of its own, where vivavoce is not installed.
"""

from __future__ import annotations

import base64
import json
import math
from array import array
from dataclasses import dataclass, field
from typing import Any

RATE_HZ = 24_000
BYTES_PER_MS = RATE_HZ * 2 // 1000
CHUNK_MS = 100
CHARACTER_MS = 60
"""The scripted synthesizer takes this long for a character."""

TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CALL_REQUEST = 'call get_weather {"city": "Paris"}'


def spoken_turn() -> list[str]:
    """400 ms of silence, one second of sound, one second of silence, as base64 in chunks of 100 ms."""
    samples = (round(6_000 * math.sin(math.tau * 440 * n / RATE_HZ)) for n in range(RATE_HZ))
    audio = bytes(400 * BYTES_PER_MS) + array("h", samples).tobytes() + bytes(1_000 * BYTES_PER_MS)
    step = CHUNK_MS * BYTES_PER_MS
    return [base64.b64encode(audio[at : at + step]).decode() for at in range(0, len(audio), step)]


def user_text(text: str) -> dict[str, Any]:
    """A user's message as an item."""
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


@dataclass
class Heard:
    """One session, folded by the deltas as they come; `wire` has every event as the client's types hold it."""

    text: str = ""
    transcript: str = ""
    user_transcript: str = ""
    audio: bytearray = field(default_factory=bytearray)
    arguments: str = ""
    call_id: str = ""
    call_name: str = ""
    finals: list[str] = field(default_factory=list)
    """Texts, transcripts and arguments of the `done` events, in order."""
    statuses: list[str] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    wire: list[str] = field(default_factory=list)
    transcribed: bool = False

    def take(self, event: Any) -> None:
        """Take a typed event; an error is a failure, as it is for stock code."""
        self.types.append(event.type)
        self.classes.append(type(event).__name__)
        self.wire.append(event.to_json(indent=None, use_api_names=True, exclude_unset=True))
        match event.type:
            case "error":
                raise RuntimeError(f"the server answered with an error: {event.error}")
            case "response.output_text.delta" | "response.text.delta":
                self.text += event.delta
            case "response.output_audio_transcript.delta" | "response.audio_transcript.delta":
                self.transcript += event.delta
            case "response.output_audio.delta" | "response.audio.delta":
                self.audio += base64.b64decode(event.delta, validate=True)
            case "response.function_call_arguments.delta":
                self.arguments += event.delta
            case "response.output_text.done" | "response.text.done":
                self.finals.append(event.text)
            case "response.output_audio_transcript.done" | "response.audio_transcript.done":
                self.finals.append(event.transcript)
            case "response.function_call_arguments.done":
                self.finals.append(event.arguments)
                self.call_id = event.call_id
            case "response.output_item.done" if event.item.type == "function_call":
                self.call_name = event.item.name
            case "conversation.item.input_audio_transcription.completed":
                self.user_transcript = event.transcript
                self.transcribed = True
            case "response.done":
                self.statuses.append(event.response.status)

    def as_json(self) -> str:
        """The whole of it, audio as its length in bytes."""
        return json.dumps({**vars(self), "audio": len(self.audio)})
