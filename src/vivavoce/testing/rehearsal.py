"""A session without its house: effects are interpreted at once by engines whose answers wait until they are asked for.

Stands where the runtime would, without event loop, tasks or clock, so that a test decides what happens in which order.
Each piece of engine work is a stream of reports; within a stream the order is fixed, between streams it is free. What a
cancelled stream still had to say is kept in `late`, because a real engine may say it. The engines are the scripted ones
unless others are given; they may wait for nothing but `asyncio.sleep(0)`, which lets them be stepped by hand.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from vivavoce.audio.formats import PCM16_24K, Format
from vivavoce.core.messages import (
    AudioSynthesized,
    CallArguments,
    CallMcpTool,
    CallStarted,
    Cancel,
    Close,
    DetectSpeech,
    Effect,
    EngineReport,
    Generate,
    GenerationEnded,
    GenerationFailed,
    Input,
    JudgeTurn,
    ListMcpTools,
    McpCallEnded,
    McpListFailed,
    McpToolsListed,
    NoiseReduced,
    PhraseSpoken,
    PlaybackDrained,
    PlaybackStarted,
    ReduceNoise,
    Send,
    Speak,
    SpeechScored,
    StopPlayback,
    SynthesisFailed,
    TextGenerated,
    Transcribe,
    TranscriptDelta,
    TranscriptEnded,
    TranscriptFailed,
    TranscriptSegment,
    TurnJudged,
    WakeUp,
)
from vivavoce.engines import (
    ArgumentsPiece,
    CallPiece,
    DiarizingTranscriber,
    Finish,
    NoiseReductionStream,
    Piece,
    Pipeline,
    Prompt,
    ScoringTranscriber,
    TextPiece,
    TranscriptionHints,
    VoiceActivityStream,
)
from vivavoce.engines.scripted import scripted_pipeline
from vivavoce.errors import EngineError
from vivavoce.protocol.events import LogProb, ResponseDone, ResponseOutputAudioDelta
from vivavoce.protocol.items import McpToolExecutionError

from .playbook import WAKE_UPS_MAX, Machine, Moment
from .real_time_player import RealTimePlayer
from .tool_servers import ScriptedToolServers

__all__ = ["AT_ONCE", "DETECTION", "Pace", "Rehearsal", "Stream"]

DETECTION = "detection"
"""Name of the stream that cleans and scores the user's audio."""
SETTLE_REPORTS_MAX = 100_000
"""Reports delivered by one `settle`; more is taken for a dialogue that never ends."""

PLAYBACK = "playback"
"""Name of the stream that says what the player does."""

T = TypeVar("T")
Report = EngineReport | PlaybackStarted | PlaybackDrained


@dataclass(frozen=True, slots=True)
class Pace:
    """How long the engines take for each report, in milliseconds of the rehearsal's clock."""

    detection_ms: int = 0
    transcription_ms: int = 0
    generation_ms: int = 0
    speech_ms: int = 0
    judgement_ms: int = 0
    tools_ms: int = 0


AT_ONCE = Pace()


@dataclass(slots=True)
class Stream:
    """One piece of engine work: whom it serves, and the reports that it still has to make, each with its time."""

    name: str
    owners: tuple[str, ...]
    step_ms: int
    number: int
    """Streams in the order in which they began."""
    ready_ms: int = 0
    reports: deque[tuple[int, Report]] = field(default_factory=deque)

    def add(self, report: Report, now_ms: int) -> None:
        """One more report, begun when the one before it is ready."""
        self.ready_ms = max(self.ready_ms, now_ms) + self.step_ms
        self.reports.append((self.ready_ms, report))


class Rehearsal:
    """One session machine with engines beside it. `now_ms` is its clock; `record` all that went in and out."""

    def __init__(
        self,
        machine: Machine,
        pipeline: Pipeline | None = None,
        pace: Pace = AT_ONCE,
        witness: Callable[[Moment], object] | None = None,
        player: RealTimePlayer | None = None,
    ) -> None:
        self.machine = machine
        self.now_ms = 0
        self.record: list[Moment] = []
        self.late: list[Report] = []
        self.closed: Close | None = None
        self._pipeline = pipeline or scripted_pipeline()
        self._pace = pace
        self._witness = witness or self.record.append
        self._streams: dict[str, Stream] = {}
        self._begun = 0
        self._woken = 0
        self._epoch = 0
        self._detector: VoiceActivityStream = self._pipeline.vad.open()
        self._cleaned = 0
        self._cleaner: NoiseReductionStream | None = None
        self._tool_servers = ScriptedToolServers()
        self._player = player
        if player is not None:
            player.now_ms = lambda: self.now_ms

    # --- what a test does ---------------------------------------------------------------------------------------------

    def say(self, input: Input) -> list[Effect]:
        """Give the machine one input, now, and carry out what it asks for; the answers wait."""
        self._note(input)
        effects = self.machine.handle(input, self.now_ms)
        for effect in effects:
            self._note(effect)
            self._carry_out(effect)
        self._require_rest(effects)
        return effects

    def _require_rest(self, effects: list[Effect]) -> None:
        """Engine work for a response that is done has ended or was cancelled: nobody would hear of it."""
        for effect in effects:
            if isinstance(effect, Send) and isinstance(effect.event, ResponseDone):
                idle = [name for name in self.streams if effect.event.response.id in self._streams[name].owners]
                if idle:
                    raise AssertionError(f"{effect.event.response.id} is done and goes on: {', '.join(idle)}")

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams that have a report waiting, oldest first: "detection", "generation resp_1", …"""
        return tuple(stream.name for stream in self._streams.values() if stream.reports)

    def deliver(self, stream: str) -> tuple[Report, list[Effect]]:
        """Hand the next report of `stream` to the machine, whatever its time."""
        _, report = self._streams[stream].reports.popleft()
        return report, self.say(report)

    def deliver_late(self, index: int = 0) -> tuple[Report, list[Effect]]:
        """Hand over a report whose owner was cancelled after the engine had made it."""
        report = self.late.pop(index)
        return report, self.say(report)

    def fail(self, stream: str) -> bool:
        """Let the engine fail where the next report of `stream` would come. False where that work cannot fail."""
        waiting = self._streams[stream]
        due_ms, report = waiting.reports[0]
        failure = _failure_of(report, EngineError("the test let the engine fail", code="scripted_failure"))
        if failure is None:
            return False
        waiting.reports.clear()
        waiting.reports.append((due_ms, failure))
        return True

    def at(self, t_ms: int) -> None:
        """Let time pass until `t_ms`: reports and wake-ups come in the order of their times."""
        while (due := self._next_due()) is not None and due[0] <= t_ms and self.closed is None:
            self._happen(*due)
        self.now_ms = max(self.now_ms, t_ms)

    def wake_until(self, t_ms: int) -> None:
        """Let time pass until `t_ms` while the engines are silent: wake-ups only."""
        while (deadline := self.machine.deadline()) is not None and deadline <= t_ms and self.closed is None:
            self._happen(deadline, None)
        self.now_ms = max(self.now_ms, t_ms)

    def after(self, ms: int) -> None:
        """Let `ms` milliseconds pass."""
        self.at(self.now_ms + ms)

    def settle(self) -> None:
        """Let the engines finish: deliver every report in the order of the times, until none waits."""
        for _ in range(SETTLE_REPORTS_MAX):
            due = self._next_due()
            if due is None or not self.streams or self.closed is not None:
                return
            self._happen(*due)
        raise AssertionError(f"the engines still have something to say after {SETTLE_REPORTS_MAX} reports")

    # --- time ---------------------------------------------------------------------------------------------------------

    def _next_due(self) -> tuple[int, str | None] | None:
        """When what happens next happens: a stream's report, or (None) a wake-up."""
        heads = [
            (stream.reports[0][0], stream.number, stream.name) for stream in self._streams.values() if stream.reports
        ]
        deadline = self.machine.deadline()
        if heads and (deadline is None or min(heads)[0] <= deadline):
            due_ms, _, name = min(heads)
            return due_ms, name
        return None if deadline is None else (deadline, None)

    def _happen(self, due_ms: int, stream: str | None) -> None:
        if due_ms > self.now_ms:
            self.now_ms, self._woken = due_ms, 0
        if stream is None:
            self._woken += 1
            if self._woken > WAKE_UPS_MAX:
                raise AssertionError(f"woken {self._woken} times at {self.now_ms} ms, the machine asks for more")
            self.say(WakeUp())
        else:
            self.deliver(stream)

    # --- effects ------------------------------------------------------------------------------------------------------

    def _note(self, message: Input | Effect) -> None:
        self._witness(Moment(self.now_ms, message))

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Send(event=ResponseOutputAudioDelta() as delta) if self._player is not None:
                self._play(self._player, delta)
            case StopPlayback() if self._player is not None:
                self._player.stop()
                self._streams.pop(PLAYBACK, None)
            case DetectSpeech():
                self._detect(effect)
            case ReduceNoise():
                self._clean(effect)
            case JudgeTurn():
                self._judge(effect)
            case ListMcpTools():
                self._list_tools(effect)
            case CallMcpTool():
                self._call_tool(effect)
            case Transcribe():
                self._transcribe(effect)
            case Generate():
                self._generate(effect)
            case Speak():
                self._speak(effect)
            case Cancel():
                self._cancel(effect.owner_id)
            case Close():
                self.closed = effect
                for stream in self._streams.values():
                    self.late.extend(report for _, report in stream.reports)
                self._streams.clear()

    def _stream(self, name: str, owners: tuple[str, ...], step_ms: int) -> Stream:
        stream = self._streams.get(name)
        if stream is None:
            self._begun += 1
            stream = self._streams[name] = Stream(name, owners, step_ms, self._begun)
        return stream

    def _cancel(self, owner_id: str) -> None:
        for name, stream in list(self._streams.items()):
            if owner_id in stream.owners:
                self.late.extend(report for _, report in stream.reports)
                del self._streams[name]

    def _detect(self, effect: DetectSpeech) -> None:
        if effect.epoch != self._epoch:
            self._epoch, self._detector = effect.epoch, self._pipeline.vad.open()
        probabilities = tuple(self._detector.push(_for_engine(effect.audio, effect.format)))
        if probabilities:
            stream = self._stream(DETECTION, (), self._pace.detection_ms)
            stream.add(SpeechScored(effect.epoch, self._pipeline.vad.frame_ms, probabilities), self.now_ms)

    def _play(self, player: RealTimePlayer, delta: ResponseOutputAudioDelta) -> None:
        is_new = not player.is_playing
        player.feed(delta)
        stream = self._stream(PLAYBACK, (), 0)
        if is_new:
            stream.reports.append((self.now_ms, PlaybackStarted(delta.response_id)))
        drained = PlaybackDrained(delta.response_id)
        if stream.reports and stream.reports[-1][1] == drained:
            stream.reports.pop()
        stream.reports.append((player.ends_at_ms, drained))

    def _clean(self, effect: ReduceNoise) -> None:
        if effect.epoch != self._cleaned:
            reducer = self._pipeline.noise_reducer
            self._cleaned = effect.epoch
            self._cleaner = reducer.open(effect.field, effect.strength) if reducer else None
        if self._cleaner is None:
            return
        clean = _from_engine(self._cleaner.push(_for_engine(effect.audio, effect.format)), effect.format)
        if clean:
            stream = self._stream(DETECTION, (), self._pace.detection_ms)
            stream.add(NoiseReduced(effect.epoch, clean), self.now_ms)

    def _judge(self, effect: JudgeTurn) -> None:
        stream = self._stream(f"judgement {effect.item_id}", (effect.item_id,), self._pace.judgement_ms)
        audio, detector = _for_engine(effect.audio, effect.format), self._pipeline.turn_detector
        texts, _ = _pull(self._pipeline.transcriber.transcribe(audio, TranscriptionHints(effect.language)))
        probability = None
        if detector is not None:
            probability, _ = _step(detector.judge(audio, "".join(texts)))
        stream.add(TurnJudged(effect.item_id, effect.pause, probability), self.now_ms)

    def _list_tools(self, effect: ListMcpTools) -> None:
        stream = self._stream(f"tools {effect.item_id}", (effect.item_id,), self._pace.tools_ms)
        tools, error = _step(self._tool_servers.list_tools(effect.server))
        failed = McpListFailed(effect.item_id, "" if error is None else error.message)
        stream.add(failed if tools is None else McpToolsListed(effect.item_id, tools), self.now_ms)

    def _call_tool(self, effect: CallMcpTool) -> None:
        owners = (effect.owner_id, effect.item_id)
        stream = self._stream(f"call {effect.item_id}", owners, self._pace.tools_ms)
        said, _ = _step(self._tool_servers.call(effect.server, effect.name, effect.arguments))
        if isinstance(said, str):
            stream.add(McpCallEnded(effect.item_id, output=said), self.now_ms)
        else:
            stream.add(McpCallEnded(effect.item_id, error=said), self.now_ms)

    def _transcribe(self, effect: Transcribe) -> None:
        stream = self._stream(f"transcription {effect.item_id}", (effect.item_id,), self._pace.transcription_ms)
        hints = TranscriptionHints(effect.language, effect.prompt, effect.keywords)
        transcriber, audio = self._pipeline.transcriber, _for_engine(effect.audio, effect.format)
        if effect.with_speakers and isinstance(transcriber, DiarizingTranscriber):
            parts, error = _pull(transcriber.transcribe_speakers(audio, hints))
            for part in parts:
                stream.add(TranscriptDelta(effect.item_id, part.text), self.now_ms)
                said = (part.text.strip(), part.speaker, part.start_s, part.end_s)
                stream.add(TranscriptSegment(effect.item_id, *said), self.now_ms)
            scored: list[tuple[str, tuple[LogProb, ...]]] = []
        elif effect.with_logprobs and isinstance(transcriber, ScoringTranscriber):
            scored, error = _pull(transcriber.transcribe_scored(audio, hints))
        else:
            texts, error = _pull(transcriber.transcribe(audio, hints))
            scored = [(text, ()) for text in texts]
        for text, logprobs in scored:
            stream.add(TranscriptDelta(effect.item_id, text, logprobs), self.now_ms)
        ended: EngineReport = TranscriptEnded(effect.item_id)
        stream.add(ended if error is None else TranscriptFailed(effect.item_id, error.code, error.message), self.now_ms)

    def _generate(self, effect: Generate) -> None:
        stream = self._stream(f"generation {effect.response_id}", (effect.response_id,), self._pace.generation_ms)
        prompt = Prompt(
            effect.instructions,
            effect.items,
            effect.tools,
            effect.tool_choice,
            effect.max_output_tokens,
            effect.effort,
            effect.is_parallel,
            effect.temperature,
        )
        pieces, error = _pull(self._pipeline.language_model.generate(prompt))
        for piece in pieces:
            stream.add(_report_of(effect.response_id, piece), self.now_ms)
        if error is not None:
            stream.add(GenerationFailed(effect.response_id, error.code, error.message), self.now_ms)

    def _speak(self, effect: Speak) -> None:
        owners = (effect.response_id, effect.item_id)
        stream = self._stream(f"speech {effect.item_id}", owners, self._pace.speech_ms)
        chunks, error = _pull(self._pipeline.synthesizer.speak(effect.text, effect.voice, effect.speed))
        for chunk in chunks:
            stream.add(AudioSynthesized(*owners, _from_engine(chunk, effect.format)), self.now_ms)
        spoken: EngineReport = PhraseSpoken(*owners, effect.phrase)
        stream.add(spoken if error is None else SynthesisFailed(*owners, error.code, error.message), self.now_ms)


# --- engines, stepped by hand -----------------------------------------------------------------------------------------


def _pull(pieces: AsyncIterator[T]) -> tuple[list[T], EngineError | None]:
    """Everything that an engine says, and how it failed if it did."""
    said: list[T] = []

    async def pull() -> None:
        async for piece in pieces:
            said.append(piece)  # noqa: PERF401 - what came before a failure counts

    _, error = _step(pull())
    return said, error


def _step(work: Coroutine[Any, Any, T]) -> tuple[T | None, EngineError | None]:
    """What an engine answers, or how it failed."""
    try:
        while True:
            if work.send(None) is not None:
                raise AssertionError("an engine in a rehearsal may wait for nothing but asyncio.sleep(0)")
    except StopIteration as stop:
        answer: T = stop.value
        return answer, None
    except EngineError as error:
        return None, error


def _report_of(response_id: str, piece: Piece) -> EngineReport:
    match piece:
        case TextPiece():
            return TextGenerated(response_id, piece.text)
        case CallPiece():
            return CallStarted(response_id, piece.name)
        case ArgumentsPiece():
            return CallArguments(response_id, piece.text)
        case Finish():
            return GenerationEnded(
                response_id, piece.reason, piece.input_tokens, piece.cached_tokens, piece.output_tokens
            )


def _failure_of(report: Report, error: EngineError) -> EngineReport | None:
    """The failure that may come in place of `report`."""
    match report:
        case TranscriptDelta() | TranscriptSegment() | TranscriptEnded():
            return TranscriptFailed(report.item_id, error.code, error.message)
        case TextGenerated() | CallStarted() | CallArguments() | GenerationEnded():
            return GenerationFailed(report.response_id, error.code, error.message)
        case TurnJudged():
            return TurnJudged(report.item_id, report.pause, None)
        case McpToolsListed():
            return McpListFailed(report.item_id, error.message)
        case McpCallEnded():
            return McpCallEnded(report.item_id, error=McpToolExecutionError(message=error.message))
        case AudioSynthesized() | PhraseSpoken():
            return SynthesisFailed(report.response_id, report.item_id, error.code, error.message)
        case _:
            return None


# --- audio ------------------------------------------------------------------------------------------------------------
# The scripted engines know PCM16 at 24 kHz. G.711 runs at a third of that rate: every sample is held for three, and
# every third is kept on the way back. No sample is gained or lost, which a resampler with its delay could not promise.

RATIO = PCM16_24K.rate_hz // 8_000


def _for_engine(audio: bytes, format: Format) -> bytes:
    if format.encoding == "pcm16":
        return audio
    from vivavoce.audio import convert  # here, because it loads numpy

    return array("h", (sample for sample in array("h", convert.decode(audio, format)) for _ in range(RATIO))).tobytes()


def _from_engine(pcm: bytes, format: Format) -> bytes:
    if format.encoding == "pcm16":
        return pcm
    from vivavoce.audio import convert  # here, because it loads numpy

    return convert.encode(array("h", pcm)[::RATIO].tobytes(), format)
