"""Engine work of one session: tasks that belong to a response or an item, report into the inbox, and end with it.

The runtime starts and cancels; nothing here waits for an engine, except `end`. How far each answer is ahead of its
listener is kept here too (`Ahead`), since both its text and its speech pass. Invariants: whatever an engine does is a
report; an engine that ignores its cancellation is left behind after a grace, and said so in the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeVar

from vivavoce.core.messages import (
    CallMcpTool,
    CallStarted,
    EngineReport,
    Generate,
    GenerationEnded,
    GenerationFailed,
    JudgeTurn,
    Listen,
    ListMcpTools,
    McpCallEnded,
    McpListFailed,
    McpToolsListed,
    Speak,
    SynthesisFailed,
    TextGenerated,
    Transcribe,
    TranscriptDelta,
    TranscriptEnded,
    TranscriptFailed,
    TurnJudged,
    WordsHeard,
)
from vivavoce.engines import (
    IncrementalTranscriber,
    Pipeline,
    PreparingLanguageModel,
    TranscriptionHints,
    TurnDetector,
)
from vivavoce.errors import ConnectionClosed, EngineError
from vivavoce.protocol.config import McpTool
from vivavoce.protocol.items import McpError, McpListedTool, McpToolExecutionError

from .ahead import Ahead
from .along import Along
from .asking import closing, generation, prompt_of, transcription
from .detection import converted
from .speaking import Speaking

TASKS_MAX = 64
"""Engine tasks of one session, those included that are being cancelled. More work than that is refused as failed."""

AHEAD_MAX = 16
"""Responses of one session of which it is known how far they are ahead. Of older ones the speech begins at once."""

WORDS_MAX = 8
"""Turns of which words wait to be reported; those of one turn are joined meanwhile. Of more turns words are left out:
their transcripts come whole when they have ended."""

TRANSCRIPTION_BYTES_MAX = 64 * 1024 * 1024
"""Audio of one session that is being transcribed or waits for it. More is refused as failed."""

log = logging.getLogger(__name__)

JUDGEMENT_S_MAX = 2.0
"""Time in which a pause has to be judged. Then it counts as undecided."""

T = TypeVar("T")
Report = Callable[[EngineReport], Awaitable[None]]
Failure = Callable[[str, str], EngineReport]


@dataclass(frozen=True, slots=True)
class Job:
    """What a task does, in words, and the role of the engine that does it, where it is one."""

    doing: str
    role: str | None = None


class ToolServers(Protocol):
    """The MCP servers of one session."""

    async def list_tools(self, server: McpTool) -> tuple[McpListedTool, ...]:
        """Its tools, those that are allowed. Raises `EngineError`."""
        ...

    async def call(self, server: McpTool, name: str, arguments: str) -> str | McpError:
        """What the tool answered, or why it did not."""
        ...

    async def close(self) -> None:
        """End every connection."""
        ...


class Work:
    """The engine tasks of one session. `report` may wait: that is how a slow client slows its engines down.

    `room` likewise, for speech that is played by this server, and the session goes on meanwhile.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        report: Report,
        session_id: str,
        mcp: ToolServers | None = None,
        *,
        room: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._mcp = mcp or _NoServers()
        self._report = report
        self._room = room
        self._session_id = session_id
        self._tasks: set[asyncio.Task[Any]] = set()
        self._owned: defaultdict[str, set[asyncio.Task[None]]] = defaultdict(set)
        self._ahead: dict[str, Ahead] = {}
        self._speaking: dict[str, Speaking] = {}
        self._bytes = 0
        transcriber = pipeline.transcriber
        self._incremental = transcriber if isinstance(transcriber, IncrementalTranscriber) else None
        self._along: Along | None = None
        self._words: list[WordsHeard] = []  # few: an empty deque takes 600 bytes
        self._preparing: asyncio.Task[None] | None = None

    # --- what the runtime may ask -------------------------------------------------------------------------------------

    def listen(self, wanted: Listen) -> None:
        """Let the transcriber hear more of the open turn. What cannot be heard along is transcribed when it is over."""
        if self._incremental is None:
            return
        try:
            if wanted.start == 0:
                self.stop_listening()
                told = partial(self._told, wanted.item_id)
                self._along = Along(self._incremental, wanted, told)
            if self._along is not None and not (self._along.item_id == wanted.item_id and self._along.push(wanted)):
                self.stop_listening()
        except Exception:
            log.exception("%s: a turn cannot be heard along", self._session_id)
            self.stop_listening()

    def stop_listening(self) -> None:
        """The turn is over, or is not heard along any more."""
        along, self._along = self._along, None
        if along is not None:
            along.end()

    def transcribe(self, wanted: Transcribe) -> None:
        """Begin; the outcome is reported."""
        item_id = wanted.item_id
        along = self._along if self._along is not None and self._along.knows(wanted) else None
        task = self._start(
            (item_id,),
            Job("transcription", "transcriber"),
            lambda: self._transcribe(wanted) if along is None else self._settle(along, wanted),
            lambda code, message: TranscriptFailed(item_id, code, message),
            audio_bytes=len(wanted.audio),
        )
        if along is not None:  # which ends with the turn, and that may be before the task begins
            along.hold()
            task.add_done_callback(lambda _: along.let_go())

    def judge(self, wanted: JudgeTurn) -> None:
        """Begin; the outcome is reported, and it is reported soon: a turn waits for it."""
        self._start(
            (wanted.item_id,),
            Job("judgement", "turn_detector"),
            lambda: self._judge(wanted),
            lambda code, message: TurnJudged(wanted.item_id, wanted.pause, None),
            audio_bytes=len(wanted.audio),
        )

    def list_tools(self, wanted: ListMcpTools) -> None:
        """Begin; the outcome is reported."""
        self._start(
            (wanted.item_id,),
            Job("import of tools"),
            lambda: self._list_tools(wanted),
            lambda code, message: McpListFailed(wanted.item_id, message),
        )

    def call_tool(self, wanted: CallMcpTool) -> None:
        """Begin; the outcome is reported."""
        self._start(
            (wanted.owner_id,),
            Job("call of a tool"),
            lambda: self._call_tool(wanted),
            lambda code, message: McpCallEnded(wanted.item_id, error=McpToolExecutionError(message=message)),
        )

    def prepare(self, wanted: Generate) -> None:
        """Let the language model begin to read; what it was reading before counts no more."""
        engine = self._pipeline.language_model
        if not isinstance(engine, PreparingLanguageModel) or len(self._tasks) >= TASKS_MAX:
            return
        if self._preparing is not None:
            self._preparing.cancel()
        self._preparing = asyncio.create_task(self._prepare(engine, wanted), name="reading ahead")
        self._track(self._preparing)

    def generate(self, wanted: Generate) -> None:
        """Begin; the outcome is reported."""
        self._ahead[wanted.response_id] = Ahead(asyncio.get_running_loop().time())
        if len(self._ahead) > AHEAD_MAX:
            del self._ahead[next(iter(self._ahead))]
        self._start(
            (wanted.response_id,),
            Job("generation", "language_model"),
            lambda: self._generate(wanted),
            lambda code, message: GenerationFailed(wanted.response_id, code, message),
        )

    def speak(self, wanted: Speak) -> None:
        """Speak the phrase after those of the same item that are still to be spoken."""
        item_id, response_id = wanted.item_id, wanted.response_id
        if item_id in self._speaking:
            self._speaking[item_id].add(wanted)
            return
        ahead = self._ahead.get(response_id)
        self._speaking[item_id] = speaking = Speaking(
            wanted, self._pipeline.synthesizer, self._report, self._room, ahead
        )

        def failed(code: str, message: str) -> SynthesisFailed:
            self._forget_speech(speaking)  # of phrases that wait behind one that failed nobody wants to hear
            return SynthesisFailed(response_id, item_id, code, message)

        job = Job("speech", "synthesizer")
        self._start((response_id, item_id), job, lambda: self._speak(speaking), failed)

    def cancel(self, owner_id: str) -> None:
        """Stop all work of the response or item, without waiting for it."""
        self._ahead.pop(owner_id, None)
        for speaking in list(self._speaking.values()):
            if owner_id in (speaking.item_id, speaking.response_id):
                self._forget_speech(speaking)
        for task in self._owned.pop(owner_id, ()):
            task.cancel()

    def stop(self) -> None:
        """Stop everything, without waiting for it."""
        self.stop_listening()
        if self._preparing is not None:
            self._preparing.cancel()
        for owner_id in list(self._owned):
            self.cancel(owner_id)

    async def end(self, grace_s: float) -> None:
        """Stop everything; what has not stopped after the grace is abandoned."""
        self.stop()
        try:
            if self._tasks:
                _, left = await asyncio.wait(self._tasks, timeout=grace_s)
                for task in left:
                    name = task.get_name()
                    log.warning("%s: %s did not stop within %g s and is abandoned", self._session_id, name, grace_s)
        finally:
            await self._mcp.close()

    # --- tasks --------------------------------------------------------------------------------------------------------

    def _start(
        self,
        owners: tuple[str, ...],
        job: Job,
        work: Callable[[], Awaitable[None]],
        failure: Failure,
        *,
        audio_bytes: int = 0,
    ) -> asyncio.Task[None]:
        if len(self._tasks) >= TASKS_MAX or self._bytes + audio_bytes > TRANSCRIPTION_BYTES_MAX:
            work, audio_bytes, job = self._refuse, 0, replace(job, role=None)
        self._bytes += audio_bytes
        name = f"{job.doing} of {owners[-1]}"
        task = asyncio.create_task(self._attempt(work, name, failure, job.role), name=name)
        self._tasks.add(task)
        for owner_id in owners:
            self._owned[owner_id].add(task)
        task.add_done_callback(lambda task: self._forget(owners, task, audio_bytes))
        return task

    async def _refuse(self) -> None:
        raise EngineError(
            f"A session may have {TASKS_MAX} engine tasks at once, and {TRANSCRIPTION_BYTES_MAX} bytes of audio to "
            "transcribe.",
            code="too_much_work",
        )

    def _track(self, task: asyncio.Task[Any]) -> None:
        """A task whose end nobody waits for, and whose failure was told, or comes too late to matter."""

        def forget(task: asyncio.Task[Any]) -> None:
            self._tasks.discard(task)
            if not task.cancelled():
                task.exception()

        self._tasks.add(task)
        task.add_done_callback(forget)

    def _forget(self, owners: tuple[str, ...], task: asyncio.Task[None], audio_bytes: int) -> None:
        self._tasks.discard(task)
        self._bytes -= audio_bytes
        for owner_id in owners:
            if owned := self._owned.get(owner_id):
                owned.discard(task)
                if not owned:
                    del self._owned[owner_id]

    async def _attempt(
        self, work: Callable[[], Awaitable[None]], name: str, failure: Failure, role: str | None
    ) -> None:
        try:
            await work()
            self._note(role)
        except ConnectionClosed:
            pass  # nobody is left who would want the report
        except EngineError as error:
            self._note(role, error.code)
            log.info("%s: %s failed: %s (%s)", self._session_id, name, error.message, error.code)
            await self._say_failed(failure(error.code, error.message))
        except Exception as error:
            self._note(role, "engine_error")
            log.exception("%s: %s failed", self._session_id, name)
            await self._say_failed(failure("engine_error", f"The engine failed: {type(error).__name__}."))

    def _note(self, role: str | None, code: str | None = None) -> None:
        """What became of the work of an engine, for whoever looks after it."""
        if role is not None and code is None:
            self._pipeline.health.worked(role)
        elif role is not None and code is not None:
            self._pipeline.health.failed(role, code)

    async def _say_failed(self, failed: EngineReport) -> None:
        with suppress(ConnectionClosed):
            await self._report(failed)

    # --- transcription and generation ---------------------------------------------------------------------------------

    async def _transcribe(self, wanted: Transcribe) -> None:
        async with closing(transcription(self._pipeline.transcriber, wanted)) as reports:
            async for report in reports:
                await self._report(report)

    async def _settle(self, along: Along, wanted: Transcribe) -> None:
        """A turn that was heard along: its text is there, or nearly."""
        if text := await along.settle(wanted.audio):
            await self._report(TranscriptDelta(wanted.item_id, text))
        await self._report(TranscriptEnded(wanted.item_id))

    def _told(self, item_id: str, text: str, guess: str) -> None:
        waiting = self._words
        if len(waiting) > 1 and waiting[-1].item_id == item_id:  # the first is being reported already
            waiting[-1] = WordsHeard(item_id, waiting[-1].text + text, guess)
        elif len(waiting) < WORDS_MAX:
            waiting.append(WordsHeard(item_id, text, guess))
            if len(waiting) == 1:
                self._track(asyncio.create_task(self._tell_words(), name=f"words of {item_id}"))

    async def _tell_words(self) -> None:
        with suppress(ConnectionClosed):
            while self._words:
                await self._report(self._words[0])
                del self._words[0]

    async def _judge(self, wanted: JudgeTurn) -> None:
        """The turn so far, transcribed and judged; what takes too long counts as undecided."""
        detector = self._pipeline.turn_detector
        probability = None
        if detector is not None:
            judging = asyncio.create_task(self._judgement(detector, wanted), name=f"judgement of {wanted.item_id}")
            self._track(judging)
            try:
                # Not `asyncio.timeout`, which would wait for an engine that ignores its cancellation.
                await asyncio.wait((judging,), timeout=JUDGEMENT_S_MAX)
            finally:
                judging.cancel()
            probability = judging.result() if judging.done() else None
        await self._report(TurnJudged(wanted.item_id, wanted.pause, probability))

    async def _judgement(self, detector: TurnDetector, wanted: JudgeTurn) -> float:
        audio = await converted(wanted.audio, wanted.format, detector.rate_hz)
        return await detector.judge(audio, await self._overheard(wanted))

    async def _overheard(self, wanted: JudgeTurn) -> str:
        """What was said so far; nothing where the transcriber fails: the sound can be judged without words."""
        transcriber, along = self._pipeline.transcriber, self._along
        try:
            if along is not None and along.item_id == wanted.item_id:
                return await along.settle()
            audio = await converted(wanted.audio, wanted.format, transcriber.rate_hz)
            async with closing(transcriber.transcribe(audio, TranscriptionHints(wanted.language))) as texts:
                return "".join([text async for text in texts]).strip()
        except EngineError as error:
            log.info("%s: a pause is judged without words: %s", self._session_id, error.message)
            return ""

    async def _list_tools(self, wanted: ListMcpTools) -> None:
        await self._report(McpToolsListed(wanted.item_id, await self._mcp.list_tools(wanted.server)))

    async def _call_tool(self, wanted: CallMcpTool) -> None:
        outcome = await self._mcp.call(wanted.server, wanted.name, wanted.arguments)
        if isinstance(outcome, str):
            await self._report(McpCallEnded(wanted.item_id, output=outcome))
        else:
            await self._report(McpCallEnded(wanted.item_id, error=outcome))

    async def _prepare(self, engine: PreparingLanguageModel, wanted: Generate) -> None:
        """What fails here is told when the answer is asked for."""
        try:
            await engine.prepare(prompt_of(wanted))
        except EngineError as error:
            log.debug("%s: a prompt was not prepared: %s", self._session_id, error.message)

    async def _generate(self, wanted: Generate) -> None:
        async with closing(generation(self._pipeline.language_model, wanted)) as reports:
            async for report in reports:
                self._note_text(wanted.response_id, report)
                await self._report(report)

    # --- speech -------------------------------------------------------------------------------------------------------

    def _note_text(self, response_id: str, report: EngineReport) -> None:
        """So that the speech of it knows when to begin."""
        if (ahead := self._ahead.get(response_id)) is None:
            return
        match report:
            case TextGenerated():
                ahead.wrote(len(report.text), asyncio.get_running_loop().time())
            case CallStarted() | GenerationEnded():
                ahead.written()
        for speaking in self._speaking.values():
            if speaking.response_id == response_id:
                speaking.notice()

    async def _speak(self, speaking: Speaking) -> None:
        """Speak until no phrase is left; a later one starts a task of its own."""
        await speaking.run()
        self._forget_speech(speaking)

    def _forget_speech(self, speaking: Speaking) -> None:
        if self._speaking.get(speaking.item_id) is speaking:
            del self._speaking[speaking.item_id]


class _NoServers:
    """Where no session can use MCP servers."""

    async def list_tools(self, server: McpTool) -> tuple[McpListedTool, ...]:
        raise EngineError("There are no MCP servers here.", code="no_mcp")

    async def call(self, server: McpTool, name: str, arguments: str) -> str | McpError:
        raise EngineError("There are no MCP servers here.", code="no_mcp")

    async def close(self) -> None:
        pass
