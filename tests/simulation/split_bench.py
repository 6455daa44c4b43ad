"""What the tests of splits stand on: a machine with real conversions, engines that hear every sample, streams of audio.

`Bench` carries out the effects of a machine as the runtime does, with `server/detection.py` itself, and answers for the
other engines when it is told to. Its transcript is a hash of the audio: one sample more or less, or one that was not
cleaned, is another transcript.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from array import array
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from vivavoce.audio import convert
from vivavoce.audio.formats import PCM16_24K, Format
from vivavoce.core.messages import (
    DetectSpeech,
    Effect,
    Generate,
    GenerationEnded,
    Input,
    JudgeTurn,
    NoiseReduced,
    Opened,
    ReduceNoise,
    Send,
    TextGenerated,
    Transcribe,
    TranscriptDelta,
    TranscriptEnded,
    TurnJudged,
    WakeUp,
)
from vivavoce.core.session import Session
from vivavoce.core.surroundings import Surroundings
from vivavoce.engines import NoiseField, Pipeline, TranscriptionHints
from vivavoce.engines.scripted import scripted_pipeline
from vivavoce.protocol import config as cfg
from vivavoce.protocol import events as ev
from vivavoce.server.detection import Coming, NoiseReduction, SpeechDetection, slices
from vivavoce.server.surroundings import abilities
from vivavoce.testing.playbook import counting_ids
from vivavoce.testing.sounds import silence, tone

HOP_SAMPLES = 128
LOUD = 1_500


class _Weightless:
    async def warm_up(self) -> None: ...

    async def close(self) -> None: ...


class LevelVad(_Weightless):
    """Speech by level, in frames of 32 ms at 16 kHz, as the embedded detector has them."""

    rate_hz = 16_000
    frame_ms = 32

    def open(self) -> _Levels:
        return _Levels()


class _Levels:
    def __init__(self) -> None:
        self._rest = array("h")

    def push(self, audio: bytes) -> Sequence[float]:
        self._rest.frombytes(audio)
        scores = []
        while len(self._rest) >= 512:
            frame, self._rest = self._rest[:512], self._rest[512:]
            scores.append(1.0 if max(frame) > LOUD else 0.0)
        return scores


class Smoother(_Weightless):
    """A noise reducer with a memory, at 16 kHz and in hops of 8 ms: it leaves no sample as it was."""

    rate_hz = 16_000

    def open(self, field: NoiseField, strength: float) -> _Smooth:
        return _Smooth()


class _Smooth:
    def __init__(self) -> None:
        self._rest = array("h")
        self._last = 0

    def push(self, audio: bytes) -> bytes:
        self._rest.frombytes(audio)
        whole = len(self._rest) // HOP_SAMPLES * HOP_SAMPLES
        hops, self._rest = self._rest[:whole], self._rest[whole:]
        for index, sample in enumerate(hops):
            hops[index] = self._last = (sample + self._last) // 2
        return hops.tobytes()


class Hasher(_Weightless):
    """Writes down the hash of what it hears."""

    rate_hz = PCM16_24K.rate_hz
    hears_silence = True

    async def transcribe(self, audio: bytes, hints: TranscriptionHints) -> AsyncIterator[str]:
        yield fingerprint(audio)


def fingerprint(audio: bytes) -> str:
    return f"{len(audio)} {hashlib.sha256(audio).hexdigest()[:12]}"


def pipeline() -> Pipeline:
    """Engines at other rates than the wire's, so that everything is resampled."""
    return replace(scripted_pipeline(), vad=LevelVad(), noise_reducer=Smoother(), transcriber=Hasher())


# --- what is said -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stretch:
    """Something to hear: a tone as loud as speech, a hiss that is not, or nothing."""

    kind: str
    ms: int

    def pcm(self) -> bytes:
        """PCM16 at 24 kHz."""
        if self.kind == "hiss":
            return array("h", (round(400 * math.sin(n * n)) for n in range(24 * self.ms))).tobytes()
        return bytes(tone(self.ms) if self.kind == "tone" else silence(self.ms))


def stream(stretches: Sequence[Stretch], format: Format, *, odd: bool) -> bytes:
    """The stretches in this format, with half a sample at the end where `odd`."""
    pcm = b"".join(stretch.pcm() for stretch in stretches)
    if format.encoding == "pcm16":
        return pcm + b"\x01" * odd
    return convert.encode(array("h", pcm)[::3].tobytes(), format)


def pieces(audio: bytes, cuts: Sequence[float]) -> list[bytes]:
    """The audio cut at these shares of its length; some pieces may be empty."""
    places = [0, *sorted(round(cut * len(audio)) for cut in cuts), len(audio)]
    return [audio[start:end] for start, end in pairwise(places)]


# --- a machine on the bench -------------------------------------------------------------------------------------------


class Bench:
    """One session machine. `seen` is all that it said, and all audio that it gave to engines that answer later."""

    def __init__(self, update: cfg.RealtimeSession, engines: Pipeline | None = None) -> None:
        self.seen: list[object] = []
        engines = engines or pipeline()
        given = Surroundings(abilities=abilities(engines))
        self._session = Session(id="sess_1", model="any", ids=counting_ids(), expires_at=0, surroundings=given)
        self._detection = SpeechDetection(engines.vad)
        self._cleaning = NoiseReduction(engines.noise_reducer)
        self._asked: deque[Effect] = deque()
        self._now_ms = 0
        self.say(Opened())
        self.say(ev.SessionUpdate(session=update))

    def say(self, input: Input) -> None:
        """Hand it over; what is said about audio is an input as well, in the order of the runtime."""
        inputs = deque([input])
        while inputs:
            for effect in self._session.handle(inputs.popleft(), self._now_ms):
                match effect:
                    case Send(event=event):
                        self.seen.append(event)
                    case ReduceNoise():
                        cleaned = (self._cleaning.push(effect, audio) for audio in slices(effect.audio, effect.format))
                        inputs.extend(NoiseReduced(effect.epoch, clean) for clean in cleaned if clean)
                    case DetectSpeech():
                        for audio in slices(effect.audio, effect.format):
                            scored = self._detection.push(effect.epoch, audio, effect.format)
                            if isinstance(scored, Coming):
                                scored = asyncio.run(self._detection.score(scored))
                            if scored is not None:
                                inputs.append(scored)
                    case JudgeTurn():
                        self.seen.append((effect.item_id, effect.pause, fingerprint(effect.audio)))
                        inputs.append(TurnJudged(effect.item_id, effect.pause, 0.9))
                    case Transcribe() | Generate():
                        self._asked.append(effect)

    def wait(self, ms: int) -> None:
        """Let time pass, in which nobody says anything."""
        until = self._now_ms + ms
        while (due_ms := self._session.deadline()) is not None and due_ms <= until:
            self._now_ms = due_ms
            self.say(WakeUp())
        self._now_ms = until

    def settle(self) -> None:
        """Let the other engines answer everything that they were asked."""
        while self._asked:
            match self._asked.popleft():
                case Transcribe() as wanted:
                    self.say(TranscriptDelta(wanted.item_id, fingerprint(wanted.audio)))
                    self.say(TranscriptEnded(wanted.item_id))
                case Generate() as wanted:
                    self.say(TextGenerated(wanted.response_id, "well"))
                    self.say(GenerationEnded(wanted.response_id, "stop"))
