"""What a test tells the server's engines to do: answers, calls, what is heard, pace and failures.

`Directions` is written by the test, in its own thread, and read by the engines of `pipeline`, in the server's. Each
answer and each hearing is used once, in order; where none is left the scripted engines follow their own rules, so a
test that says nothing gets an echo. Invariant: engines keep nothing between two calls but what is in the `Directions`.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import msgspec

from vivavoce.engines import Piece, Pipeline, Prompt, SpokenPart, TranscriptionHints
from vivavoce.engines.scripted import (
    Answer,
    Call,
    ScriptedLanguageModel,
    ScriptedNoiseReducer,
    ScriptedSettings,
    ScriptedSynthesizer,
    ScriptedTranscriber,
    ScriptedTurnDetector,
    ScriptedTurnSettings,
    ScriptedVad,
    answer_by_rules,
    duration_in_words,
)
from vivavoce.protocol.events import LogProb

__all__ = ["NATURAL", "Behaviour", "Directions", "directed_pipeline"]

QUEUE_MAX = 10_000
"""Answers, and likewise hearings, that wait to be used."""

S = TypeVar("S", bound=ScriptedSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """Pace and faults of the engines that take their time; the detector of voice activity has none."""

    transcriber: ScriptedSettings = field(default_factory=ScriptedSettings)
    language_model: ScriptedSettings = field(default_factory=ScriptedSettings)
    synthesizer: ScriptedSettings = field(default_factory=ScriptedSettings)
    turn_detector: ScriptedTurnSettings = field(default_factory=ScriptedTurnSettings)

    def paced(self, factor: float) -> Behaviour:
        """The same with every delay multiplied."""
        return Behaviour(
            transcriber=_paced(self.transcriber, factor),
            language_model=_paced(self.language_model, factor),
            synthesizer=_paced(self.synthesizer, factor),
            turn_detector=_paced(self.turn_detector, factor),
        )


def _paced(settings: S, factor: float) -> S:
    delays = {
        "first_delay_s": settings.first_delay_s * factor,
        "piece_delay_s": settings.piece_delay_s * factor,
    }
    return msgspec.structs.replace(settings, **delays)


NATURAL = Behaviour(
    transcriber=ScriptedSettings(first_delay_s=0.15, piece_delay_s=0.01),
    language_model=ScriptedSettings(first_delay_s=0.25, piece_delay_s=0.02),
    synthesizer=ScriptedSettings(first_delay_s=0.15, piece_delay_s=0.05),
    turn_detector=ScriptedTurnSettings(first_delay_s=0.05),
)
"""About the tempo of a good service; pace 1 is this. The voice speaks twice as fast as one listens."""


class Directions:
    """What the engines are to do, in the order in which it was said. Safe to use from any thread."""

    def __init__(self, pace: float = 0.0) -> None:
        self._lock = threading.Lock()
        self._answers: deque[Answer | Callable[[Prompt], str]] = deque()
        self._hearings: deque[str] = deque()
        self._last_hearing: str | None = None
        self._behaviour = NATURAL
        self.behave(pace=pace)

    # --- the test's side ----------------------------------------------------------------------------------------------

    def answers(self, *answers: str | Callable[[Prompt], str]) -> None:
        """What the model says next, one text a response; a function is asked with the `Prompt` when its turn comes."""
        for answer in answers:
            if not callable(answer) and not isinstance(answer, str):
                raise TypeError(f"an answer is a text, or a function that gives one, not {type(answer).__name__}")
        self._extend(self._answers, [(answer,) if isinstance(answer, str) else answer for answer in answers])

    def calls(self, tool: str, arguments: Mapping[str, Any] | str | None = None, *, saying: str = "") -> None:
        """The model calls `tool` in its next response, after `saying`.

        `arguments` as JSON text goes out as it stands, be it JSON or not.
        """
        text = arguments if isinstance(arguments, str) else json.dumps(dict(arguments or {}))
        call = Call(tool, text)
        self._extend(self._answers, [(saying, call) if saying else (call,)])

    def hears(self, *transcripts: str) -> None:
        """What the next stretches of the user's speech are heard as, one after the other."""
        self._extend(self._hearings, transcripts)

    def behave(
        self,
        *,
        pace: float | None = None,
        transcriber: ScriptedSettings | None = None,
        language_model: ScriptedSettings | None = None,
        synthesizer: ScriptedSettings | None = None,
        turn_detector: ScriptedTurnSettings | None = None,
    ) -> None:
        """Pace and failures from the next call of an engine on.

        `pace` multiplies the delays of `NATURAL`: 0 is at once, 1 about as long as a good service takes. Settings of an
        engine count as they are, whatever the pace; without a pace the others stay as they were.
        """
        if pace is not None and not pace >= 0:
            raise ValueError(f"pace: expected 0 (at once) or a positive factor, not {pace}")
        named: dict[str, Any] = {
            name: settings
            for name, settings in (
                ("transcriber", transcriber),
                ("language_model", language_model),
                ("synthesizer", synthesizer),
                ("turn_detector", turn_detector),
            )
            if settings is not None
        }
        with self._lock:
            base = self._behaviour if pace is None else NATURAL.paced(pace)
            self._behaviour = replace(base, **named)

    @property
    def unused(self) -> tuple[int, int]:
        """How many answers and how many hearings nobody has asked for yet."""
        with self._lock:
            return len(self._answers), len(self._hearings)

    def _extend(self, queue: deque[Any], more: Iterable[Any]) -> None:
        more = list(more)
        with self._lock:
            if len(queue) + len(more) > QUEUE_MAX:
                raise ValueError(f"more than {QUEUE_MAX} answers or transcripts wait to be used")
            queue.extend(more)

    # --- the engines' side --------------------------------------------------------------------------------------------

    @property
    def behaviour(self) -> Behaviour:
        """Pace and failures as they are now."""
        return self._behaviour

    def answer(self, prompt: Prompt) -> Answer:
        """What to answer to this prompt."""
        with self._lock:
            answer = self._answers.popleft() if self._answers else None
        if answer is None:
            return answer_by_rules(prompt)
        return (answer(prompt),) if callable(answer) else answer

    def hear(self, audio: bytes) -> str:
        """What this audio is heard as."""
        with self._lock:
            self._last_hearing = self._hearings.popleft() if self._hearings else None
            return duration_in_words(audio) if self._last_hearing is None else self._last_hearing

    def hear_again(self, transcript: str) -> None:
        """What was heard is heard once more: a pause was judged, and the words before it are still to come."""
        with self._lock:
            if self._last_hearing is not None and self._last_hearing.strip() == transcript:
                self._hearings.appendleft(self._last_hearing)
            self._last_hearing = None


# --- engines ----------------------------------------------------------------------------------------------------------


class _LanguageModel(ScriptedLanguageModel):
    def __init__(self, directions: Directions) -> None:
        super().__init__()
        self._directions = directions

    def generate(self, prompt: Prompt) -> AsyncIterator[Piece]:
        """As directed."""
        directions = self._directions
        return ScriptedLanguageModel(directions.behaviour.language_model, directions.answer).generate(prompt)


class _Transcriber(ScriptedTranscriber):
    def __init__(self, directions: Directions) -> None:
        super().__init__()
        self._directions = directions

    def transcribe(self, audio: bytes, hints: TranscriptionHints) -> AsyncIterator[str]:
        """As directed."""
        return self._now().transcribe(audio, hints)

    def transcribe_scored(
        self, audio: bytes, hints: TranscriptionHints
    ) -> AsyncIterator[tuple[str, tuple[LogProb, ...]]]:
        """As directed."""
        return self._now().transcribe_scored(audio, hints)

    def transcribe_speakers(self, audio: bytes, hints: TranscriptionHints) -> AsyncIterator[SpokenPart]:
        """As directed."""
        return self._now().transcribe_speakers(audio, hints)

    def _now(self) -> ScriptedTranscriber:
        return ScriptedTranscriber(self._directions.behaviour.transcriber, self._directions.hear)


class _Synthesizer(ScriptedSynthesizer):
    def __init__(self, directions: Directions) -> None:
        super().__init__()
        self._directions = directions

    def speak(self, text: str, voice: str, speed: float) -> AsyncIterator[bytes]:
        """As directed."""
        return ScriptedSynthesizer(self._directions.behaviour.synthesizer).speak(text, voice, speed)


class _TurnDetector(ScriptedTurnDetector):
    def __init__(self, directions: Directions) -> None:
        super().__init__()
        self._directions = directions

    async def judge(self, audio: bytes, transcript: str) -> float:
        """As directed. What is judged was transcribed for it, and will be again when the turn is over."""
        self._directions.hear_again(transcript)
        return await ScriptedTurnDetector(self._directions.behaviour.turn_detector).judge(audio, transcript)


def directed_pipeline(directions: Directions, name: str = "scripted") -> Pipeline:
    """The scripted engines, doing what `directions` say at the moment of each call."""
    return Pipeline(
        name,
        ScriptedVad(),
        _Transcriber(directions),
        _LanguageModel(directions),
        _Synthesizer(directions),
        _TurnDetector(directions),
        ScriptedNoiseReducer(),
    )
