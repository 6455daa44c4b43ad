"""The session machine of a translation session: speech in, translated speech out, without turns (reference §2.5, T18).

The same door as `Session`: `handle(input, now_ms)`, `deadline()`, the same inputs and effects, other events. Speech is
found by `Listening` and cut into utterances, which `Interpreting` sees through the engines. Invariants: a client's
mistake changes nothing; after `session.close` all that was said is still translated, then `session.closed` is the last.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import cast

from msgspec import structs

from vivavoce.audio.formats import PCM16_24K
from vivavoce.protocol import events as ev
from vivavoce.protocol import translation as tr
from vivavoce.protocol.base import given

from .abilities import Abilities
from .interpreting import Booth, Interpreting
from .languages import LANGUAGES
from .limits import Limits
from .listening import Ear, Listening, Reduction
from .messages import (
    EXPELLED,
    Close,
    Drain,
    Effect,
    Expel,
    Gone,
    Input,
    NoiseReduced,
    Opened,
    Send,
    SpeechScored,
    WakeUp,
)
from .refused import Refused, invalid
from .turns import TurnSettings

POLICY = 1008

LANGUAGE = "en"
"""The target until the client names one; the reference states no default."""

FRAME_MS = 200
"""`elapsed_ms` advances in these steps (§4.2)."""

CALM = TurnSettings(threshold=0.5, prefix_padding_ms=300, silence_duration_ms=500)
"""Where an utterance ends as a rule: at the end of a sentence people pause that long."""

HURRIED = replace(CALM, silence_duration_ms=200)
"""Where it ends once it has become long: at any breath."""

HURRIED_AFTER_MS = 6_000
"""Speech after which an utterance counts as long: the translation shall not fall far behind."""

UTTERANCE_MS_MAX = 15_000
"""Longest utterance. Who speaks on without a breath is cut here, in the middle of a word if need be."""

UTTERANCES_MAX = 32
"""Utterances that wait for the engines. Beyond it audio is refused until they have caught up."""


class Translating:
    """One translation session. `ids(prefix)` gives fresh ids and is the only source of them.

    `configured` is what to begin with where it is not the default; raises `Refused` where that is not possible.
    """

    def __init__(
        self,
        *,
        id: str,
        model: str,
        ids: Callable[[str], str],
        expires_at: int,
        limits: Limits | None = None,
        configured: tr.TranslationSession | None = None,
        abilities: Abilities | None = None,
    ) -> None:
        self.limits = replace(limits or Limits(), turn_ms_max=UTTERANCE_MS_MAX)
        self.is_closed = False
        self._abilities = abilities or Abilities()
        self._ids = ids
        self._effects: list[Effect] = []
        self._now_ms = 0
        self._ends_at_ms: int | None = None
        self._goodbye: Close | None = None
        self._bytes = 0
        self._spoken_bytes = 0
        self._scored_ms = 0
        self._talking_since_ms = 0
        self._is_hurried = False
        self.config = tr.TranslationSessionResource(
            id=id,
            type="translation",
            model=model,
            expires_at=expires_at,
            audio=tr.TranslationAudio(
                input=tr.TranslationInput(transcription=None, noise_reduction=None),
                output=tr.TranslationOutput(language=LANGUAGE),
            ),
        )
        if configured is not None:
            self.config = self._updated(configured)
        ear = Ear(lambda _: None, self._ask, ids, self._talks, self._said, lambda: None)
        self._listening = Listening(PCM16_24K, self.limits, ear)
        booth = Booth(
            send=self._send,
            ask=self._ask,
            now_ms=lambda: self._now_ms,
            elapsed_ms=lambda: self._elapsed_ms,
            language=lambda: given(self._output.language, LANGUAGE),
            tells_source=lambda: given(self._input.transcription, None) is not None,
        )
        self._interpreting = Interpreting(self.limits, booth)

    # --- the door -----------------------------------------------------------------------------------------------------

    def handle(self, input: Input | tr.TranslationClientEvent, now_ms: int) -> list[Effect]:
        """Take one input at a time that never goes back; return what is to be done, in order."""
        if self.is_closed:
            return []
        self._now_ms = now_ms
        try:
            self._take(input)
        except Refused as refused:
            self._send(refused.told(given(input.event_id, None) if isinstance(input, ev.ClientEvent) else None))
        if self._goodbye is not None and not len(self._interpreting):
            self._send(tr.SessionClosed())
            self._close(self._goodbye)
        effects, self._effects = self._effects, []
        return effects

    def deadline(self) -> int | None:
        """When to hand in a `WakeUp`, on the same clock as `now_ms`; None when nothing is due."""
        if self.is_closed:
            return None
        dues = (self._ends_at_ms, self._interpreting.deadline_ms)
        return min((due for due in dues if due is not None), default=None)

    def _take(self, input: Input | tr.TranslationClientEvent) -> None:
        match input:
            case tr.SessionInputAudioBufferAppend():
                self._append(input.audio)
            case tr.TranslationSessionUpdate():
                self._update(input.session)
            case tr.SessionClose():
                self._refuse_after_close()
                self._finish(Close(1000, "The session is closed."))
            case ev.ClientEvent():
                raise invalid("type", f"Invalid value: '{input.type}'. It means nothing in a translation session.")
            case ev.ErrorDetail():
                self._send(ev.ErrorEvent(error=input))
            case Opened():
                self._open()
            case WakeUp():
                self._wake_up()
            case Drain():
                self._finish(Close(1001, "The server is stopping."))
            case Expel():
                self._expire(POLICY, EXPELLED, input.reason)
            case Gone():
                self._be_over()
            case SpeechScored():
                self._score(input)
            case NoiseReduced():
                self._listening.clean(input)
            case _:
                self._interpreting.report(input)

    # --- out ----------------------------------------------------------------------------------------------------------

    def _send(self, event: tr.TranslationServerEvent) -> None:
        event = structs.replace(event, event_id=self._ids("event"))
        if isinstance(event, tr.SessionOutputAudioDelta):
            self._spoken_bytes += len(event.delta)
        self._effects.append(Send(cast(ev.AnyServerEvent, event)))

    def _ask(self, effect: Effect) -> None:
        self._effects.append(effect)

    def _expire(self, close_code: int, code: str, reason: str) -> None:
        """End it for a reason that the client is told by name."""
        self._send(Refused(code, reason).told(None))
        self._close(Close(close_code, reason))

    def _close(self, goodbye: Close) -> None:
        self._interpreting.abandon()
        self._ask(goodbye)
        self._be_over()

    def _be_over(self) -> None:
        """Nothing is handled any more."""
        self.is_closed = True

    # --- the session itself -------------------------------------------------------------------------------------------

    @property
    def _input(self) -> tr.TranslationInput:
        return given(self.config.audio.input, tr.TranslationInput())

    @property
    def _output(self) -> tr.TranslationOutput:
        return given(self.config.audio.output, tr.TranslationOutput())

    def _open(self) -> None:
        self._ends_at_ms = self._now_ms + self.limits.session_ms_max
        self._send(tr.TranslationSessionCreated(session=self.config))
        self._listening.begin(CALM)
        self._listening.reduce_noise(_reduction(self._input))

    def _wake_up(self) -> None:
        if self._ends_at_ms is not None and self._now_ms >= self._ends_at_ms:
            reason = f"Your session hit the maximum duration of {self.limits.session_duration}."
            self._expire(1001, "session_expired", reason)
            return
        self._interpreting.fail_silent()

    def _update(self, update: tr.TranslationSession) -> None:
        self._refuse_after_close()
        before = _reduction(self._input)
        self.config = self._updated(update)
        self._send(tr.TranslationSessionUpdated(session=self.config))
        if (after := _reduction(self._input)) != before:
            self._listening.reduce_noise(after)

    def _updated(self, update: tr.TranslationSession) -> tr.TranslationSessionResource:
        """The configuration after this update. Raises `Refused`, changes nothing."""
        audio = given(update.audio, tr.TranslationAudio())
        into, out = given(audio.input, tr.TranslationInput()), given(audio.output, tr.TranslationOutput())
        now = self._input
        reduction = given(into.noise_reduction, given(now.noise_reduction, None))
        if reduction is not None:
            if not self._abilities.noise_reduction:
                what = "There is no noise reduction in this session's pipeline."
                raise invalid("session.audio.input.noise_reduction", what)
            kept = given(now.noise_reduction, None)
            strength = given(reduction.strength, given(kept.strength, 1.0) if kept else 1.0)
            reduction = structs.replace(reduction, strength=strength)
        language = given(out.language, given(self._output.language, LANGUAGE))
        if language not in LANGUAGES:
            raise invalid(
                "session.audio.output.language",
                f"Invalid value: '{language[:64]}'. Expected the ISO 639-1 code of a language, such as 'es' or 'ja'.",
            )
        transcription = given(into.transcription, given(now.transcription, None))
        heard = tr.TranslationInput(transcription=transcription, noise_reduction=reduction)
        return structs.replace(
            self.config, audio=tr.TranslationAudio(input=heard, output=tr.TranslationOutput(language=language))
        )

    # --- listening ----------------------------------------------------------------------------------------------------

    @property
    def heard_ms(self) -> int:
        """How much audio has come from the client."""
        return PCM16_24K.ms(self._bytes // PCM16_24K.sample_bytes)

    @property
    def spoken_ms(self) -> int:
        """How much speech its client was sent."""
        return PCM16_24K.ms(self._spoken_bytes // PCM16_24K.sample_bytes)

    @property
    def _elapsed_ms(self) -> int:
        """The position in the timeline: whole frames of audio that have come in."""
        return PCM16_24K.ms(self._bytes // PCM16_24K.sample_bytes) // FRAME_MS * FRAME_MS

    def _append(self, audio: bytes) -> None:
        self._refuse_after_close()
        if len(self._interpreting) >= UTTERANCES_MAX:
            raise Refused(
                "translation_behind",
                f"{UTTERANCES_MAX} utterances wait to be translated; this audio is left out. Send audio no faster than "
                "it is spoken.",
                "audio",
            )
        try:
            self._listening.append(audio)
        except Refused:
            raise Refused(
                "input_audio_buffer_full",
                f"More than {self.limits.input_ms_max} ms of audio wait to be heard; this audio is left out.",
                "audio",
            ) from None
        self._bytes += len(audio)

    def _score(self, scores: SpeechScored) -> None:
        """Who has spoken for long is given less time to pause."""
        self._listening.score(scores)
        self._scored_ms += scores.frame_ms * len(scores.probabilities)
        is_talking = self._listening.open_item_id is not None
        is_hurried = is_talking and self._scored_ms - self._talking_since_ms >= HURRIED_AFTER_MS
        if is_hurried != self._is_hurried:
            self._is_hurried = is_hurried
            self._listening.change(HURRIED if is_hurried else CALM)

    def _talks(self) -> None:
        self._talking_since_ms = self._scored_ms

    def _said(self, item_id: str, audio: bytes) -> None:
        self._interpreting.add(item_id, audio)

    # --- the end ------------------------------------------------------------------------------------------------------

    def _refuse_after_close(self) -> None:
        if self._goodbye is not None:
            raise Refused("session_closing", "The session is being closed; it takes nothing more.")

    def _finish(self, goodbye: Close) -> None:
        """Take what is being said as said, and leave when all of it is translated."""
        self._goodbye = self._goodbye or goodbye
        if self._listening.open_item_id is not None:
            with suppress(Refused):  # too short to be a word
                self._listening.commit()


def _reduction(into: tr.TranslationInput) -> Reduction | None:
    wanted = given(into.noise_reduction, None)
    return None if wanted is None else Reduction(wanted.type, given(wanted.strength, 1.0))
