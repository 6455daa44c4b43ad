"""What is kept of the events of a session, in either dialect, and the sounds and words that go into it.

Standard library only: clients of other versions run in environments of their own, where vivavoce is not installed.
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


def spoken_audio() -> bytes:
    """400 ms of silence, one second of sound, one second of silence: PCM16 mono at 24 kHz."""
    samples = (round(6_000 * math.sin(math.tau * 440 * n / RATE_HZ)) for n in range(RATE_HZ))
    return bytes(400 * BYTES_PER_MS) + array("h", samples).tobytes() + bytes(1_000 * BYTES_PER_MS)


def chunks(audio: bytes) -> list[bytes]:
    """The audio in pieces of 100 ms."""
    step = CHUNK_MS * BYTES_PER_MS
    return [audio[at : at + step] for at in range(0, len(audio), step)]


def spoken_turn() -> list[str]:
    """`spoken_audio` as base64 in chunks of 100 ms."""
    return [base64.b64encode(chunk).decode() for chunk in chunks(spoken_audio())]


def user_text(text: str) -> dict[str, Any]:
    """A user's message as an item."""
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


@dataclass
class Heard:
    """One session, folded by the deltas as they come; `wire` has every event as the client's types hold it."""

    text: str = ""
    transcript: str = ""
    user_transcript: str = ""
    audio_bytes: int = 0
    arguments: str = ""
    call_name: str = ""
    finals: list[str] = field(default_factory=list)
    """Texts, transcripts and arguments of the `done` events, in order."""
    statuses: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    """Why responses were not completed."""
    errors: list[tuple[str | None, str | None, str | None]] = field(default_factory=list)
    """Code, parameter and the id of the client event of each error."""
    truncated_ms: list[int] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    wire: list[str] = field(default_factory=list)

    def take(self, event: dict[str, Any], held: str, frame: str) -> None:
        """Take an event, the name of the class that the client made of it, and the JSON that the class holds."""
        self.types.append(event["type"])
        self.classes.append(held)
        self.wire.append(frame)
        match event["type"]:
            case "error":
                error = event["error"]
                self.errors.append((error["code"], error["param"], error["event_id"]))
            case "response.output_text.delta" | "response.text.delta":
                self.text += event["delta"]
            case "response.output_audio_transcript.delta" | "response.audio_transcript.delta":
                self.transcript += event["delta"]
            case "response.output_audio.delta" | "response.audio.delta":
                self.audio_bytes += len(base64.b64decode(event["delta"], validate=True))
            case "response.function_call_arguments.delta":
                self.arguments += event["delta"]
            case "response.output_text.done" | "response.text.done":
                self.finals.append(event["text"])
            case "response.output_audio_transcript.done" | "response.audio_transcript.done":
                self.finals.append(event["transcript"])
            case "response.function_call_arguments.done":
                self.finals.append(event["arguments"])
            case "response.output_item.done" if event["item"]["type"] == "function_call":
                self.call_name = event["item"]["name"]
            case "conversation.item.input_audio_transcription.completed":
                self.user_transcript = event["transcript"]
            case "conversation.item.truncated":
                self.truncated_ms.append(event["audio_end_ms"])
            case "response.done":
                self._end(event["response"])

    def _end(self, response: dict[str, Any]) -> None:
        self.statuses.append(response["status"])
        if reason := (response.get("status_details") or {}).get("reason"):
            self.reasons.append(reason)

    def as_json(self) -> str:
        """The whole of it."""
        return json.dumps(vars(self))
