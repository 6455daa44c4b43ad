"""Transcripts from any server with OpenAI's `/audio/transcriptions`.

The audio goes out as a WAV file in one request, and the transcript comes back in one piece. See `openai_http` for what
happens when something fails.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeVar

import msgspec

from vivavoce.audio import wav
from vivavoce.engines import SpokenPart, TranscriptionHints
from vivavoce.engines.openai_http import Endpoint, EndpointSettings
from vivavoce.engines.options import read_options

__all__ = ["OpenAITranscription", "TranscriptionSettings", "create"]

RATE_HZ = 16_000
"""What speech recognition works with; more would only be sent and thrown away."""

TRANSCRIPT_BYTES_MAX = 1024 * 1024

T = TypeVar("T")


class TranscriptionSettings(EndpointSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`parameters` are further form fields of the request, such as `{"temperature": 0}`.

    Keywords go into the field `prompt`, behind a client's own: servers have no field for them.
    """

    parameters: dict[str, Any] = msgspec.field(default_factory=dict)


class _Transcript(msgspec.Struct):
    text: str


class _Segment(msgspec.Struct):
    text: str
    speaker: str
    start: float
    end: float


class _Diarized(msgspec.Struct):
    segments: list[_Segment]


class OpenAITranscription:
    """The transcriber; any number of recordings at once."""

    rate_hz: int = RATE_HZ

    def __init__(self, settings: TranscriptionSettings) -> None:
        self._parameters = settings.parameters
        self._endpoint = Endpoint("openai-transcription", settings)

    async def warm_up(self) -> None:
        """See whether the server is there. Raises `EngineError`."""
        await self._endpoint.check()

    async def transcribe(self, audio: bytes, hints: TranscriptionHints) -> AsyncIterator[str]:
        """The transcript of PCM16 mono at 16 kHz as one piece; none where nothing was said."""
        if audio and (text := (await self._ask(audio, hints, _Transcript, response_format="json")).text.strip()):
            yield text

    async def transcribe_speakers(self, audio: bytes, hints: TranscriptionHints) -> AsyncIterator[SpokenPart]:
        """The same by speakers; needs a model that tells them apart, such as gpt-4o-transcribe-diarize."""
        if not audio:
            return
        wanted = {"response_format": "diarized_json", "chunking_strategy": "auto"}
        for segment in (await self._ask(audio, hints, _Diarized, **wanted)).segments:
            yield SpokenPart(segment.text, segment.speaker, segment.start, segment.end)

    async def _ask(self, audio: bytes, hints: TranscriptionHints, answered: type[T], **wanted: str) -> T:
        form = {"model": self._endpoint.model} | wanted | self._parameters
        if hints.language:
            form["language"] = hints.language
        if leaning := " ".join(part for part in (hints.prompt, ", ".join(hints.keywords)) if part):
            form["prompt"] = leaning
        file = ("audio.wav", wav.encoded(audio, RATE_HZ), "audio/wav")
        async with self._endpoint.post("/audio/transcriptions", data=form, files={"file": file}) as response:
            answer = b""
            async for chunk in response.aiter_bytes():
                answer += chunk
                if len(answer) > TRANSCRIPT_BYTES_MAX:
                    raise self._endpoint.broken(f"the transcript exceeds {TRANSCRIPT_BYTES_MAX} bytes")
        try:
            return msgspec.json.decode(answer, type=answered)
        except msgspec.MsgspecError as error:
            raise self._endpoint.broken(f"the answer is no transcript ({error})") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._endpoint.close()


def create(options: Mapping[str, object]) -> OpenAITranscription:
    """Options: the fields of `TranscriptionSettings`. Raises `SettingsError`."""
    return OpenAITranscription(read_options("openai-transcription", TranscriptionSettings, options))
