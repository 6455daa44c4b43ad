"""Speech from any server with OpenAI's `/audio/speech`, played while it is still being made.

Asks for raw PCM, which is the only format that can be used from its first byte on. Samples cut in two on the way are
put together again. See `openai_http` for what happens when something fails.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Annotated

import httpx
import msgspec
from msgspec import Meta

from vivavoce.engines.openai_http import Endpoint, EndpointSettings
from vivavoce.engines.options import read_options

__all__ = ["OpenAISpeech", "SpeechSettings", "create"]

SAMPLE_BYTES = 2
_CONTAINERS: Mapping[bytes, str] = {b"RIFF": "WAV", b"OggS": "Ogg", b"fLaC": "FLAC", b"ID3": "MP3"}


class SpeechSettings(EndpointSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`voice` is the default one. `voices` says which voices a client may ask for, and what the server calls them.

    `rate_hz` is the sample rate of the server's PCM, which it does not state.
    """

    voice: str = "alloy"
    voices: dict[str, str] = msgspec.field(default_factory=dict)
    rate_hz: Annotated[int, Meta(ge=8_000, le=48_000)] = 24_000


class OpenAISpeech:
    """The synthesizer; any number of phrases at once."""

    def __init__(self, settings: SpeechSettings) -> None:
        self.rate_hz = settings.rate_hz
        self._settings = settings
        self._endpoint = Endpoint("openai-speech", settings)

    async def warm_up(self) -> None:
        """See whether the server is there. Raises `EngineError`."""
        await self._endpoint.check()

    async def speak(self, text: str, voice: str, speed: float) -> AsyncIterator[bytes]:
        """PCM16 mono at `rate_hz`, whole samples, as it arrives. Text of white space only is silence. See `voices`."""
        if not text.strip():
            return
        request = {
            "model": self._endpoint.model,
            "input": text,
            "voice": self._settings.voices.get(voice, self._settings.voice),
            "speed": speed,
            "response_format": "pcm",
        }
        async with self._endpoint.post("/audio/speech", json=request) as response:
            self._expect_audio(response)
            rest = None
            async for chunk in response.aiter_bytes():
                if rest is None:
                    self._expect_samples(chunk)
                audio = (rest or b"") + chunk
                whole = len(audio) - len(audio) % SAMPLE_BYTES
                rest = audio[whole:]
                if whole:
                    yield audio[:whole]

    async def close(self) -> None:
        """Close the connections."""
        await self._endpoint.close()

    def _expect_audio(self, response: httpx.Response) -> None:
        kind = response.headers.get("Content-Type", "")
        if kind.startswith(("text/", "application/json")):
            raise self._endpoint.broken(f"the answer is {kind}, and no audio")

    def _expect_samples(self, beginning: bytes) -> None:
        for magic, name in _CONTAINERS.items():
            if beginning.startswith(magic):
                raise self._endpoint.broken(f"the answer is a {name} file, although response_format asks for pcm")


def create(options: Mapping[str, object]) -> OpenAISpeech:
    """Options: the fields of `SpeechSettings`. Raises `SettingsError`."""
    return OpenAISpeech(read_options("openai-speech", SpeechSettings, options))
