"""Speculative turns: at a silence in which the user may have finished, the answer is prepared before that is certain.

fell_silent → Transcribe → Generate → Speak, all under ids that nobody else knows; what the engines say of it is held.
Where the turn ends with that silence, it is begun like any other, its response under the id of the prepared one, and
the held reports are handled then: what they lead to has been asked for already, and is not asked for again. So nothing
of it reaches the client, is billed, or acts on the world before. Invariants: no event is sent from here; what was
prepared is adopted only where the same would be asked at the end of the turn, and is cancelled otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .abilities import Abilities
from .answering import Answering, Plan
from .desk import Desk
from .limits import Limits
from .messages import (
    AudioSynthesized,
    CallArguments,
    CallStarted,
    Cancel,
    Effect,
    Generate,
    GenerationEnded,
    GenerationFailed,
    Input,
    PhraseSpoken,
    Prepare,
    Speak,
    SynthesisFailed,
    TextGenerated,
    Transcribe,
    TranscriptDelta,
    TranscriptEnded,
    TranscriptFailed,
    TranscriptSegment,
)
from .phrases import Phrases
from .response import speak

TranscriptReport = TranscriptDelta | TranscriptSegment | TranscriptEnded | TranscriptFailed
AnswerReport = (
    TextGenerated
    | CallStarted
    | CallArguments
    | GenerationEnded
    | GenerationFailed
    | AudioSynthesized
    | PhraseSpoken
    | SynthesisFailed
)


@dataclass(slots=True)
class Draft:
    """What is prepared at one silence."""

    item_id: str
    """What the turn will become."""
    hearing: Transcribe
    """What the transcriber was asked, under an id of its own: reports of an earlier silence are none of it."""
    transcript: str = ""
    is_heard: bool = False
    reports: list[TranscriptReport | AnswerReport] = field(default_factory=list)
    """What the engines have said, in order."""
    size: int = 0
    plan: Plan | None = None
    """The answer, once it is being prepared."""
    phrases: Phrases | None = None
    """The text that is still to be spoken ahead; None where no more is."""
    asked: list[Generate | Speak] = field(default_factory=list)


def quiet_ms(limits: Limits, abilities: Abilities) -> int:
    """After how much silence in a turn an answer is prepared; 0: never."""
    if not abilities.speculation:
        return 0
    return min(limits.speculation_ms, limits.speculation_along_ms) if abilities.is_along else limits.speculation_ms


class Speculation:
    """What is prepared for the end of the open turn. `transcription` says what the transcriber would be asked now."""

    def __init__(
        self, desk: Desk, answering: Answering, transcription: Callable[[str, bytes, str], Transcribe]
    ) -> None:
        self._desk = desk
        self._answering = answering
        self._transcription = transcription
        self._draft: Draft | None = None
        self._turn = ""
        self._silences = 0
        self._asked: list[Generate | Speak] = []
        """While held reports are handled: what they will lead to, and was asked for when they came."""

    # --- while the turn is open ---------------------------------------------------------------------------------------

    def begin(self, item_id: str, audio: bytes) -> None:
        """The user is silent: transcribe what was said so far, in case that this was all."""
        if item_id != self._turn:
            self._turn, self._silences = item_id, 0
        self._silences += 1
        if self._silences <= self._silences_max:
            self._draft = Draft(item_id, self._transcription(self._desk.new_id("spec"), audio, item_id))
            self._desk.ask(self._draft.hearing)

    @property
    def _silences_max(self) -> int:
        limits = self._desk.limits
        return limits.speculations_along_max if self._desk.abilities.is_along else limits.speculations_max

    def anticipate(self, item_id: str, words: str) -> None:
        """The user is speaking, and has said these words: the language model may begin to read.

        Not in a pause, where it will be asked in a moment, and would first have to end what it was reading.
        """
        if not self._desk.abilities.prepares or self._draft is not None:
            return
        if not words:
            self._answering.make_room(item_id)
        if (plan := self._answering.plan(item_id, words, "", "")) is not None:
            self._desk.ask(Prepare(plan.wanted))

    def drop(self) -> None:
        """The turn goes on, or ended otherwise: nothing was said, and nothing is left."""
        draft, self._draft = self._draft, None
        if draft is not None:
            if not draft.is_heard:
                self._desk.ask(Cancel(draft.hearing.item_id))
            self._drop_answer(draft)

    def _drop_answer(self, draft: Draft) -> None:
        if draft.plan is not None:
            self._desk.ask(Cancel(draft.plan.wanted.response_id))
        draft.plan, draft.phrases, draft.asked = None, None, []
        draft.reports = [report for report in draft.reports if isinstance(report, TranscriptReport)]

    def reconsider(self) -> None:
        """The client has changed something: end what would now be asked otherwise."""
        draft = self._draft
        if draft is None:
            return
        if self._transcription(draft.hearing.item_id, draft.hearing.audio, draft.item_id) != draft.hearing:
            self.drop()
        elif self.plan() is None:
            self._drop_answer(draft)

    # --- what the engines say -----------------------------------------------------------------------------------------

    def holds(self, input: Input) -> bool:
        """Keep a report on what is being prepared; False for everything else."""
        draft = self._draft
        if draft is None:
            return False
        if isinstance(input, TranscriptReport) and input.item_id == draft.hearing.item_id:
            self._keep(draft, input)
            return True
        if isinstance(input, AnswerReport) and draft.plan and input.response_id == draft.plan.wanted.response_id:
            self._keep(draft, input)
            return True
        return False

    def _keep(self, draft: Draft, report: TranscriptReport | AnswerReport) -> None:
        draft.reports.append(report)
        draft.size += _size(report)
        if draft.size > self._desk.limits.speculation_bytes_max:
            self.drop()
            return
        match report:
            case TranscriptDelta():
                draft.transcript += report.text
            case TranscriptEnded():
                draft.is_heard = True
                self._think(draft)
            case TranscriptFailed():
                draft.is_heard = True
            case TextGenerated() if draft.phrases is not None:
                for phrase in draft.phrases.push(report.text):
                    self._speak(draft, phrase)
            case CallStarted() | GenerationEnded() if draft.phrases is not None:
                self._speak(draft, draft.phrases.flush())
                draft.phrases = None  # what follows upon a call is another message
            case SynthesisFailed():
                draft.phrases = None
            case _:
                pass

    def _think(self, draft: Draft) -> None:
        """The transcript is there: ask the language model what it will be asked where nothing changes."""
        plan = draft.plan = self._planned(draft, self._desk.new_id("resp"), self._desk.new_id("item"))
        if plan is not None:
            self._ask(draft, plan.wanted)
            draft.phrases = Phrases() if plan.terms.with_audio else None

    def _speak(self, draft: Draft, phrase: str) -> None:
        plan, number = draft.plan, len(draft.asked) - 1
        assert plan is not None
        if phrase.strip() and number < self._desk.limits.speculated_phrases_max:
            self._ask(draft, speak(plan.terms, plan.wanted.response_id, plan.message_id, number, phrase))

    def _ask(self, draft: Draft, effect: Generate | Speak) -> None:
        draft.asked.append(effect)
        self._desk.ask(effect)

    def _planned(self, draft: Draft, response_id: str, message_id: str) -> Plan | None:
        words = draft.transcript.strip()
        return self._answering.plan(draft.item_id, words, response_id, message_id) if words else None

    # --- the turn has ended -------------------------------------------------------------------------------------------

    def source_of(self, item_id: str) -> str | None:
        """Under which id this item is being transcribed already."""
        draft = self._draft
        return draft.hearing.item_id if draft is not None and draft.item_id == item_id else None

    def plan(self) -> Plan | None:
        """The answer that was prepared, where the same would be asked now."""
        draft = self._draft
        if draft is None or (plan := draft.plan) is None:
            return None
        return plan if self._planned(draft, plan.wanted.response_id, plan.message_id) == plan else None

    def release(self, take: Callable[[Input], None]) -> None:
        """Handle what was held, now that the item is in the conversation, and the response begun that answers it."""
        draft, self._draft = self._draft, None
        if draft is None:
            return
        if draft.plan is None or not self._answering.runs(draft.plan.wanted.response_id):
            self._drop_answer(draft)
        self._asked = draft.asked
        for report in draft.reports:
            take(report)
        self._asked = []

    def was_asked(self, effect: Effect) -> bool:
        """Whether this is under way already, now that the session asks for it."""
        if effect not in self._asked:
            return False
        self._asked = [other for other in self._asked if other != effect]
        return True


def _size(report: TranscriptReport | AnswerReport) -> int:
    match report:
        case TranscriptDelta() | TranscriptSegment() | TextGenerated() | CallArguments():
            return 1 + len(report.text)
        case AudioSynthesized():
            return 1 + len(report.audio)
        case _:
            return 1
