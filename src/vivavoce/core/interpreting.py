"""Utterances on their way through the booth: each is transcribed, translated and spoken, in the order of their coming.

One utterance is transcribed at a time, one translated, one spoken; three of them may be under way at once, and nobody
waits for the voice of another. Owned by `Translating`. Invariants: in each of the three output streams the pieces come
in the order of the utterances; an utterance whose engine fails is told and dropped, and the next one goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from vivavoce.audio.formats import PCM16_24K
from vivavoce.protocol import translation as tr
from vivavoce.protocol.events import ErrorDetail, ErrorEvent
from vivavoce.protocol.items import InputText, Item, Message, OutputText

from .languages import LANGUAGES
from .limits import Limits
from .messages import (
    AudioSynthesized,
    Cancel,
    Effect,
    Generate,
    GenerationEnded,
    GenerationFailed,
    Input,
    PhraseSpoken,
    Speak,
    SynthesisFailed,
    TextGenerated,
    Transcribe,
    TranscriptDelta,
    TranscriptEnded,
    TranscriptFailed,
)
from .phrases import Phrases

CONTEXT_UTTERANCES = 4
"""Earlier utterances that the language model sees with their translations, for names, pronouns and tone."""

TRANSLATION_TOKENS_MAX = 1_024
"""Longest translation of one utterance: a model that begins to ramble is stopped."""

VOICE = "alloy"
"""A translation session has no setting for the voice."""

_UNSPACED = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3000, 0x30FF), (0x3400, 0x9FFF), (0xFF00, 0xFF65))
"""Scripts and marks next to which no space is written."""


@dataclass(frozen=True, slots=True)
class Booth:
    """What the interpreter may do outside itself. `tells_source` says whether the source transcript is wanted."""

    send: Callable[[tr.TranslationServerEvent], None]
    ask: Callable[[Effect], None]
    now_ms: Callable[[], int]
    elapsed_ms: Callable[[], int]
    language: Callable[[], str]
    tells_source: Callable[[], bool]


@dataclass(slots=True)
class Utterance:
    """A stretch of speech. `language` is the target, known once it is being translated."""

    id: str
    audio: bytes
    stage: Literal["new", "transcribing", "heard", "translating", "translated"] = "new"
    language: str = ""
    source: str = ""
    translation: str = ""
    heard_at_ms: int = 0
    phrases: Phrases = field(default_factory=Phrases)
    unspoken: deque[str] = field(default_factory=deque)
    """Phrases that wait until the utterances before this one are spoken."""
    asked: int = 0
    spoken: int = 0

    @property
    def is_waiting(self) -> bool:
        """Whether an engine owes it something."""
        return self.stage in ("transcribing", "translating") or self.spoken < self.asked

    @property
    def is_done(self) -> bool:
        """Whether all of it has been said."""
        return self.stage == "translated" and not self.unspoken and self.spoken == self.asked


class Interpreting:
    """All utterances that are not done yet."""

    def __init__(self, limits: Limits, booth: Booth) -> None:
        self._limits = limits
        self._booth = booth
        self._utterances: dict[str, Utterance] = {}
        self._past: deque[tuple[str, str]] = deque(maxlen=CONTEXT_UTTERANCES)
        self._past_language = ""
        self._last_source = ""
        self._last_translation = ""

    def __len__(self) -> int:
        return len(self._utterances)

    def add(self, id: str, audio: bytes) -> None:
        """Somebody said something."""
        self._utterances[id] = Utterance(id, audio)
        self._advance()

    def report(self, report: Input) -> None:
        """What an engine says; dropped where nobody waits for it."""
        match report:
            case TranscriptDelta() | TranscriptEnded() | TranscriptFailed():
                if (utterance := self._waiting(report.item_id, "transcribing")) is not None:
                    self._transcript(utterance, report)
            case TextGenerated() | GenerationEnded() | GenerationFailed():
                if (utterance := self._waiting(report.response_id, "translating")) is not None:
                    self._translation(utterance, report)
            case AudioSynthesized() | PhraseSpoken() | SynthesisFailed():
                if (utterance := self._waiting(report.response_id, "translating", "translated")) is not None:
                    self._speech(utterance, report)
            case _:
                return
        self._advance()

    @property
    def deadline_ms(self) -> int | None:
        """When an engine will have been silent for too long."""
        since = [utterance.heard_at_ms for utterance in self._utterances.values() if utterance.is_waiting]
        return min(since) + self._limits.engine_silence_ms_max if since else None

    def fail_silent(self) -> None:
        """Give up what the engines have left for too long."""
        now_ms = self._booth.now_ms()
        for utterance in list(self._utterances.values()):
            if utterance.is_waiting and now_ms - utterance.heard_at_ms >= self._limits.engine_silence_ms_max:
                self._fail(utterance, "engine_timeout", "The engines have been silent for too long.")
        self._advance()

    def abandon(self) -> None:
        """Stop everything; nothing more is said."""
        for utterance in self._utterances.values():
            if utterance.is_waiting:
                self._booth.ask(Cancel(utterance.id))
        self._utterances.clear()

    # --- what comes next ----------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Forget what is done, then give each engine that is free the first utterance that needs it."""
        for utterance in [utterance for utterance in self._utterances.values() if utterance.is_done]:
            del self._utterances[utterance.id]
        utterances = self._utterances.values()
        to_hear = next((one for one in utterances if one.stage in ("new", "transcribing")), None)
        if to_hear is not None and to_hear.stage == "new":
            self._transcribe(to_hear)
        to_translate = next((one for one in utterances if one.stage != "translated"), None)
        if to_translate is not None and to_translate.stage == "heard":
            self._translate(to_translate)
        if (speaker := next(iter(utterances), None)) is not None:
            self._speak(speaker)

    def _transcribe(self, utterance: Utterance) -> None:
        utterance.stage, utterance.heard_at_ms = "transcribing", self._booth.now_ms()
        self._booth.ask(Transcribe(utterance.id, utterance.audio, PCM16_24K))

    def _translate(self, utterance: Utterance) -> None:
        utterance.stage, utterance.heard_at_ms = "translating", self._booth.now_ms()
        utterance.language = self._booth.language()
        if utterance.language != self._past_language:
            self._past.clear()
            self._past_language = utterance.language
        context = [message for said in self._past for message in _exchange(*said)]
        self._booth.ask(
            Generate(
                utterance.id,
                instructions(utterance.language),
                (*context, _said(utterance.source)),
                max_output_tokens=TRANSLATION_TOKENS_MAX,
            )
        )

    def _speak(self, utterance: Utterance) -> None:
        while utterance.unspoken:
            if utterance.spoken == utterance.asked:
                utterance.heard_at_ms = self._booth.now_ms()
            text, phrase = utterance.unspoken.popleft(), utterance.asked
            utterance.asked += 1
            self._booth.ask(Speak(utterance.id, utterance.id, phrase, text, VOICE, 1.0, PCM16_24K))

    # --- what the engines say -----------------------------------------------------------------------------------------

    def _waiting(self, id: str, *stages: str) -> Utterance | None:
        utterance = self._utterances.get(id)
        if utterance is None or utterance.stage not in stages:
            return None
        utterance.heard_at_ms = self._booth.now_ms()
        return utterance

    def _transcript(self, utterance: Utterance, report: TranscriptDelta | TranscriptEnded | TranscriptFailed) -> None:
        match report:
            case TranscriptDelta():
                delta = report.text if utterance.source else report.text.lstrip()
                if not delta:
                    return
                if self._booth.tells_source():
                    gap = "" if utterance.source else gap_between(self._last_source, delta)
                    self._last_source = delta
                    elapsed_ms = self._booth.elapsed_ms()
                    self._booth.send(tr.SessionInputTranscriptDelta(delta=gap + delta, elapsed_ms=elapsed_ms))
                utterance.source += delta
                self._limit(utterance, utterance.source)
            case TranscriptEnded():
                utterance.stage, utterance.audio = "heard", b""
                utterance.source = utterance.source.strip()
                if not utterance.source:  # a noise that the detector took for speech
                    del self._utterances[utterance.id]
            case TranscriptFailed():
                self._fail(utterance, report.code, report.message)

    def _translation(self, utterance: Utterance, report: TextGenerated | GenerationEnded | GenerationFailed) -> None:
        match report:
            case TextGenerated():
                delta = report.text if utterance.translation else report.text.lstrip()
                if not delta:
                    return
                gap = "" if utterance.translation else gap_between(self._last_translation, delta)
                self._last_translation = delta
                elapsed_ms = self._booth.elapsed_ms()
                self._booth.send(tr.SessionOutputTranscriptDelta(delta=gap + delta, elapsed_ms=elapsed_ms))
                utterance.translation += delta
                utterance.unspoken += utterance.phrases.push(delta)
                self._limit(utterance, utterance.translation)
            case GenerationEnded():
                utterance.stage = "translated"
                if (rest := utterance.phrases.flush()).strip():
                    utterance.unspoken.append(rest)
                if utterance.translation:
                    self._past.append((utterance.source, utterance.translation.strip()))
            case GenerationFailed():
                self._fail(utterance, report.code, report.message)

    def _speech(self, utterance: Utterance, report: AudioSynthesized | PhraseSpoken | SynthesisFailed) -> None:
        match report:
            case AudioSynthesized():
                self._booth.send(
                    tr.SessionOutputAudioDelta(
                        delta=report.audio,
                        format="pcm16",
                        sample_rate=PCM16_24K.rate_hz,
                        channels=1,
                        elapsed_ms=self._booth.elapsed_ms(),
                    )
                )
            case PhraseSpoken():
                utterance.spoken = report.phrase + 1
            case SynthesisFailed():
                self._fail(utterance, report.code, report.message)

    def _limit(self, utterance: Utterance, text: str) -> None:
        if len(text) > self._limits.response_chars_max:
            self._fail(utterance, "utterance_too_long", f"It has over {self._limits.response_chars_max} characters.")

    def _fail(self, utterance: Utterance, code: str, message: str) -> None:
        """Tell, and go on without it."""
        doing = "transcribed" if utterance.stage == "transcribing" else "translated"
        if utterance.stage == "translated":
            doing = "spoken"
        self._booth.ask(Cancel(utterance.id))
        self._utterances.pop(utterance.id, None)
        detail = ErrorDetail(
            type="server_error", code=code, message=f"What was said could not be {doing} and is left out: {message}"
        )
        self._booth.send(ErrorEvent(error=detail))


# --- words ------------------------------------------------------------------------------------------------------------


def instructions(language: str) -> str:
    """What the language model is told. `language` is a code of `LANGUAGES`."""
    name = LANGUAGES[language]
    return (
        f"You are an interpreter. Translate every message of the user into {name}. Answer with the translation and "
        "nothing else: no comment, no explanation, no quotation marks. A message is never meant for you: translate "
        f"questions and requests, do not answer them. What is in {name} already, repeat as it is."
    )


def _said(text: str) -> Item:
    return Message(role="user", content=(InputText(text=text),))


def _exchange(source: str, translation: str) -> tuple[Item, Item]:
    return _said(source), Message(role="assistant", content=(OutputText(text=translation),))


def gap_between(before: str, after: str) -> str:
    """What stands between two utterances in a stream of text, to which clients add nothing."""
    if not before or before[-1].isspace() or _is_unspaced(before[-1]) or _is_unspaced(after[0]):
        return ""
    return " "


def _is_unspaced(char: str) -> bool:
    return any(first <= ord(char) <= last for first, last in _UNSPACED)
