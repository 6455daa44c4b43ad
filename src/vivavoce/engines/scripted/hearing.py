"""The scripted engines that listen: voice activity, noise reduction, end of turn, transcription."""

from __future__ import annotations

import functools
import importlib
import sys
from array import array
from collections.abc import AsyncIterator, Callable, Sequence
from operator import mul
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from vivavoce.engines import NoiseField, SpokenPart, Told, TranscriptionHints
from vivavoce.protocol.events import LogProb

from .pace import AT_ONCE, FORMAT, Ordinal, Pace, ScriptedSettings, Weightless, failure, words_of

VAD_FRAME_MS = 20
SPEECH_RMS_MIN = 500
"""Of 32,768: about -36 dB of full scale, well below speech and well above the hiss of a quiet room."""

FAINT = b"\x00\xff"
"""The high bytes of samples from -256 to 255, whose RMS is 256 at most."""

# --- voice activity ---------------------------------------------------------------------------------------------------


class ScriptedVadSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Threshold and faults of the scripted voice activity detector.

    With `fail_at_frame` n, the push that completes the nth frame of a stream raises an `EngineError` with code
    `scripted_failure`.
    """

    speech_rms_min: Annotated[int, Meta(ge=1, le=32_768)] = SPEECH_RMS_MIN
    fail_at_frame: Ordinal | None = None


VAD_DEFAULTS = ScriptedVadSettings()


class ScriptedVad(Weightless):
    """Voice activity by level: a frame is speech (1.0) where its RMS reaches `speech_rms_min`, else 0.0."""

    rate_hz: int = FORMAT.rate_hz
    frame_ms: int = VAD_FRAME_MS

    def __init__(self, settings: ScriptedVadSettings = VAD_DEFAULTS) -> None:
        self._settings = settings

    def open(self) -> _LevelStream:
        """A stream of its own state."""
        return _LevelStream(self._settings)


class _LevelStream:
    """One stream of audio, cut into frames."""

    def __init__(self, settings: ScriptedVadSettings) -> None:
        self._squares = squares()
        self._settings = settings
        self._frame_bytes = FORMAT.bytes_of(VAD_FRAME_MS)
        self._ignores_faint = settings.speech_rms_min > 256
        self._energy_min = settings.speech_rms_min**2 * FORMAT.samples(VAD_FRAME_MS)
        self._rest = b""
        self._frames = 0

    def push(self, audio: bytes) -> Sequence[float]:
        """PCM16 mono at 24 kHz in, one probability per completed frame of 20 ms out."""
        if not self._rest and len(audio) == self._frame_bytes:
            return (self._score(audio),)  # which it nearly always is
        audio = self._rest + audio
        whole = len(audio) // self._frame_bytes * self._frame_bytes
        self._rest = audio[whole:]
        return [self._score(audio[at : at + self._frame_bytes]) for at in range(0, whole, self._frame_bytes)]

    def _score(self, frame: bytes) -> float:
        self._frames += 1
        if self._frames == self._settings.fail_at_frame:
            raise failure(f"frame {self._frames}")
        if self._ignores_faint and not frame[1::2].translate(None, FAINT):
            return 0.0  # in a third of the time
        return 1.0 if self._squares(frame) >= self._energy_min else 0.0


@functools.cache
def squares(*, with_numpy: bool = True) -> Callable[[bytes], float]:
    """What sums up the squares of PCM16 samples, exactly; in a tenth of the time where numpy is installed.

    It is asked for here, and not when this module is imported, since the test kit does that, and is light.
    """
    try:
        numpy: Any = importlib.import_module("numpy") if with_numpy else None
    except ImportError:
        numpy = None

    def by_numpy(pcm: bytes) -> float:
        samples = of_bytes(pcm, int16).astype(float64)
        return float(dot(samples, samples))

    def plain(pcm: bytes) -> float:
        samples = array("h", pcm)
        if sys.byteorder == "big":
            samples.byteswap()
        return float(sum(map(mul, samples, samples)))

    if numpy is None:
        return plain
    # For 20 ms of audio, looking these up and reading "<i2" takes as long as a quarter of the arithmetic.
    of_bytes, dot, int16, float64 = numpy.frombuffer, numpy.dot, numpy.dtype("<i2"), numpy.dtype(numpy.float64)
    return by_numpy


# --- noise reduction and end of turn ----------------------------------------------------------------------------------


class ScriptedNoiseReducer(Weightless):
    """A gate: frames of 20 ms below the level of speech are turned down by `strength`, all else passes unchanged."""

    rate_hz: int = FORMAT.rate_hz

    def __init__(self, settings: ScriptedVadSettings = VAD_DEFAULTS) -> None:
        self._settings = settings

    def open(self, field: NoiseField, strength: float) -> _Gate:
        """A stream of its own state; near and far field are alike."""
        return _Gate(self._settings, strength)


class _Gate:
    def __init__(self, settings: ScriptedVadSettings, strength: float) -> None:
        self._levels = _LevelStream(settings)
        self._strength = strength
        self._frame_bytes = FORMAT.bytes_of(VAD_FRAME_MS)
        self._rest = b""

    def push(self, audio: bytes) -> bytes:
        """PCM16 mono at 24 kHz in, the same frames out, each once it is complete."""
        scores = self._levels.push(audio)
        audio = self._rest + audio
        whole = len(scores) * self._frame_bytes
        self._rest = audio[whole:]
        frames = (audio[at : at + self._frame_bytes] for at in range(0, whole, self._frame_bytes))
        return b"".join(frame if score else self._quiet(frame) for frame, score in zip(frames, scores, strict=True))

    def _quiet(self, frame: bytes) -> bytes:
        samples = array("h", frame)
        if sys.byteorder == "big":
            samples.byteswap()
        quiet = array("h", (round(sample * (1 - self._strength)) for sample in samples))
        if sys.byteorder == "big":
            quiet.byteswap()
        return quiet.tobytes()


class ScriptedTurnSettings(ScriptedSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Pace and faults, and from what length on a turn counts as complete."""

    complete_ms_min: Annotated[int, Meta(ge=0)] = 0


TURN_DEFAULTS = ScriptedTurnSettings()


class ScriptedTurnDetector(Weightless):
    """A turn is complete (1.0) from `complete_ms_min` of audio on, the pause included, before that it is not (0.0)."""

    rate_hz: int = FORMAT.rate_hz

    def __init__(self, settings: ScriptedTurnSettings = TURN_DEFAULTS) -> None:
        self._settings = settings

    async def judge(self, audio: bytes, transcript: str) -> float:
        """PCM16 mono at 24 kHz; the transcript changes nothing."""
        await Pace(self._settings).next()
        return 1.0 if FORMAT.duration_ms(audio) >= self._settings.complete_ms_min else 0.0


# --- speech recognition -----------------------------------------------------------------------------------------------


class ScriptedTranscriber(Weightless):
    """Writes `audio of N ms`, word by word; hears the duration and nothing else.

    With a `script` it writes what that says of the audio (PCM16 mono at 24 kHz); `hears_silence` False says that this
    is the same with more silence at the end, and lets the session prepare answers before a turn has ended.
    """

    rate_hz: int = FORMAT.rate_hz
    hears_silence: bool = True

    def __init__(
        self,
        settings: ScriptedSettings = AT_ONCE,
        script: Callable[[bytes], str] | None = None,
        *,
        hears_silence: bool = True,
    ) -> None:
        self.hears_silence = hears_silence
        self._settings = settings
        self._script = script or duration_in_words

    async def transcribe(self, audio: bytes, hints: TranscriptionHints) -> AsyncIterator[str]:
        """PCM16 mono at 24 kHz; the hints change nothing."""
        pace = Pace(self._settings)
        for word in words_of(self._script(audio)):
            await pace.next()
            yield word

    async def transcribe_scored(
        self, audio: bytes, hints: TranscriptionHints
    ) -> AsyncIterator[tuple[str, tuple[LogProb, ...]]]:
        """The same, each word one token of log probability -0.5."""
        async for word in self.transcribe(audio, hints):
            yield word, (LogProb(token=word, bytes=list(word.encode()), logprob=-0.5),)

    async def transcribe_speakers(self, audio: bytes, hints: TranscriptionHints) -> AsyncIterator[SpokenPart]:
        """The same: A says `audio of`, for the first half of the time, and B the rest."""
        words = [word async for word in self.transcribe(audio, hints)]
        end_s = FORMAT.duration_ms(audio) / 1000
        yield SpokenPart("".join(words[:2]), "A", 0.0, end_s / 2)
        yield SpokenPart("".join(words[2:]), "B", end_s / 2, end_s)


class ScriptedIncrementalTranscriber(ScriptedTranscriber):
    """The same, heard while it is spoken; a word is sure to stay once two more have come behind it."""

    def listen(self, hints: TranscriptionHints, told: Told | None = None) -> ScriptedListening:
        """Open a turn; the hints change nothing."""
        return ScriptedListening(self, hints, self._script, told)


class ScriptedListening:
    """One turn; its text takes as long, and fails where, it does after the turn."""

    def __init__(
        self,
        transcriber: ScriptedTranscriber,
        hints: TranscriptionHints,
        script: Callable[[bytes], str],
        told: Told | None,
    ) -> None:
        self._transcriber, self._hints, self._script, self._tell = transcriber, hints, script, told
        self._audio = bytearray()
        self._words = 0
        self.is_cancelled = False
        self.settled = 0
        """How often its text was asked for."""

    @property
    def heard_ms(self) -> int:
        """How much was pushed."""
        return FORMAT.duration_ms(bytes(self._audio))

    def push(self, audio: bytes) -> None:
        """PCM16 mono at 24 kHz that follows."""
        self._audio += audio
        if self._tell is None or self.is_cancelled:
            return
        words = words_of(self._script(bytes(self._audio)))
        sure = words[:-2]
        for word in sure[self._words :]:
            self._tell(word, "")
        self._words = max(self._words, len(sure))
        self._tell("", "".join(words[self._words :]))

    async def settle(self) -> str:
        """The text of everything pushed."""
        self.settled += 1
        return "".join([word async for word in self._transcriber.transcribe(bytes(self._audio), self._hints)])

    def cancel(self) -> None:
        """Nothing more is told."""
        self.is_cancelled = True


def speech_in_words(audio: bytes) -> str:
    """The same, of the audio without the silence (zeros) at its end."""
    spoken = len(audio.rstrip(bytes(1)))
    return duration_in_words(audio[: -(-spoken // FORMAT.sample_bytes) * FORMAT.sample_bytes])


def duration_in_words(audio: bytes) -> str:
    """`audio of N ms`, rounded to 10 ms."""
    samples = len(audio) // FORMAT.sample_bytes
    tens_of_ms = (samples * 100 + FORMAT.rate_hz // 2) // FORMAT.rate_hz
    return f"audio of {tens_of_ms * 10} ms"
