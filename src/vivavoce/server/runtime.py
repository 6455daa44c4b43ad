"""One session alive: the only interpreter of effects, between a transport, the session machine and the engines.

transport → codec → inbox → `Session.handle` → effects → outbox → transport; engines report into the same inbox. Inputs
are handled one at a time: where none waits, at once by whoever brings it, otherwise by the session's own task, which
also does all the waiting. Time is that of the event loop, in ms since the session opened. Invariant: when `run`
returns, no task of the session is left but engines that ignored their cancellation, and those are in the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from vivavoce.core.messages import (
    LOOKS,
    AudioSynthesized,
    CallMcpTool,
    Cancel,
    Close,
    DetectSpeech,
    Drain,
    Effect,
    Expel,
    Generate,
    Gone,
    Input,
    JudgeTurn,
    Listen,
    ListMcpTools,
    NoiseReduced,
    Opened,
    Prepare,
    ReduceNoise,
    Send,
    Speak,
    SpeechScored,
    StopListening,
    StopPlayback,
    Transcribe,
    WakeUp,
)
from vivavoce.engines import Pipeline
from vivavoce.errors import ConnectionClosed
from vivavoce.protocol.events import ErrorDetail
from vivavoce.transports import Transport

from .channel import Channel, Rest
from .detection import Coming, NoiseReduction, SpeechDetection, slices, uncleaned, undetected
from .outbox import Outbox
from .work import ToolServers, Work

log = logging.getLogger(__name__)

FAILED = Close(1011, "The server has failed.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """What one connection may hold, and how long it waits."""

    inbox_bytes_max: int = 1024 * 1024
    """Client events not yet handled, in bytes of the wire. Beyond it the socket is not read."""

    inbox_inputs_max: int = 64
    """Client events and engine reports not yet handled. Beyond it the socket is not read and the engines wait."""

    outbox_bytes_max: int = 4 * 1024 * 1024
    """Frames not yet sent. Beyond it the session waits, and with it its engines."""

    outbox_frames_max: int = 1_024
    """Likewise, in frames."""

    stall_ms_max: int = 20_000
    """Time in which the client takes nothing of what is sent. Then close 1008."""

    close_ms_max: int = 5_000
    """Time for the closing handshake. Then the connection is dropped."""

    goodbye_ms_max: int = 30_000
    """Time to send what is left, and the close, once the session is over. Then the connection is dropped."""

    engine_grace_ms: int = 2_000
    """Time that engines have to stop when the session ends. Then they are abandoned, and logged."""


class Machine(Protocol):
    """The session machine, as the runtime sees it."""

    is_closed: bool
    """Whether nothing that it is handed has any effect."""

    def handle(self, input: Input, now_ms: int, /) -> list[Effect]:
        """Take one input, say what is to be done."""
        ...

    def deadline(self) -> int | None:
        """When to be woken. Never nearer after synthesized speech, nor where no more is asked for than a look."""
        ...


class Codec(Protocol):
    """The server's end of the wire. Its events are those of the machine beside it: each kind of session has its own."""

    def decode(self, frame: str | bytes, /) -> Any:
        """A message as an event, or as several in a tuple, or why it is none (`ErrorDetail`)."""
        ...

    def encode(self, event: Any, /) -> bytes | None:
        """An event as a message; None where the dialect has none for it."""
        ...


class Media(Protocol):
    """Where audio travels apart from the events (WebRTC): it hears the user, and plays what the session says."""

    def begin(self, inbox: Channel[Input], /) -> None:
        """The session lives: from now on what is heard goes into its inbox, and what becomes of playback."""
        ...

    def perform(self, effect: Send | StopPlayback, /) -> bool:
        """Play, or fall silent. Says whether this was for the media alone, and is no message to the client."""
        ...

    async def room(self) -> None:
        """Wait while there is as much to be played as may wait."""
        ...


class Runtime:
    """A session and everything it needs to live. Made for one `run`."""

    def __init__(
        self,
        session: Machine,
        pipeline: Pipeline,
        codec: Codec,
        transport: Transport,
        *,
        session_id: str = "session",
        limits: ConnectionLimits | None = None,
        mcp: ToolServers | None = None,
        media: Media | None = None,
    ) -> None:
        self._limits = limits = limits or ConnectionLimits()
        self.session = session
        self._codec = codec
        self._transport = transport
        self.session_id = session_id
        self._inbox: Channel[Input] = Channel(
            bytes_max=limits.inbox_bytes_max, messages_max=limits.inbox_inputs_max, at_once=self._handle
        )
        self._outbox = Outbox(
            transport,
            self._lost,
            bytes_max=limits.outbox_bytes_max,
            frames_max=limits.outbox_frames_max,
            stall_s=limits.stall_ms_max / 1000,
            close_s=limits.close_ms_max / 1000,
        )
        self._detection = SpeechDetection(pipeline.vad)
        self._health = pipeline.health
        self._cleaning = NoiseReduction(pipeline.noise_reducer)
        self._media = media
        self._work = Work(pipeline, self._inbox.put, session_id, mcp, room=None if media is None else media.room)
        self._opened_s = 0.0
        self._active_s = 0.0
        self._clock: Callable[[], float] = lambda: 0.0
        self._sending: asyncio.Task[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._is_woken = False
        self._context = copy_context()
        self.ended = ""
        """Why it is over; empty while it is not."""

    async def run(self) -> None:
        """Live until the connection is closed, from either end. Never raises because of the peer or an engine."""
        self._clock = asyncio.get_running_loop().time
        self._context = copy_context()
        self._opened_s = self._active_s = self._clock()
        if self._media is not None:
            self._media.begin(self._inbox)
        # In a task of its own: a wake-up goes through every await above it, of which an ASGI app has a dozen.
        living = asyncio.create_task(self._live(), name=f"life of {self.session_id}", context=self._context)
        self._sending = sending = asyncio.create_task(self._outbox.run(), name=f"sending of {self.session_id}")
        reading = asyncio.create_task(self._read(sending), name=f"reading of {self.session_id}")
        try:
            await living
            self._work.stop()
            await asyncio.wait((sending,), timeout=self._limits.goodbye_ms_max / 1000)
        finally:
            if self._alarm is not None:
                self._alarm.cancel()
            self._lost(ConnectionClosed(1001, "The session has ended."))
            reading.cancel()
            sending.cancel()
            await asyncio.gather(reading, sending, return_exceptions=True)
            await self._work.end(self._limits.engine_grace_ms / 1000)

    @property
    def waiting(self) -> tuple[int, int]:
        """How many inputs wait in the inbox, and how many frames in the outbox."""
        return len(self._inbox), len(self._outbox)

    def drain(self) -> None:
        """Let the running responses end, then close."""
        self._inbox.push(Drain())

    def expel(self, reason: str) -> None:
        """Tell the client why, then close, as soon as the session's turn comes."""
        self._inbox.push(Expel(reason))

    def stop(self, code: int, reason: str) -> None:
        """Close now, after what has been said already."""
        self._note_end(reason, code)
        self._outbox.close(Close(code, reason))
        self._inbox.end(ConnectionClosed(code, reason))

    def drop(self, code: int, reason: str) -> None:
        """End now, whether or not the client has taken what was said."""
        self._note_end(reason, code)
        self._lost(ConnectionClosed(code, reason))
        if self._sending is not None:
            self._sending.cancel()

    def let_go(self) -> None:
        """Free all that the session has heard and said, once it is over and nobody asks it anything.

        Its parts know each other in circles, so that it would wait for a garbage collection with all its audio, and in
        a large process that may be minutes.
        """
        vars(self.session).clear()
        self.session.is_closed = True

    def _note_end(self, reason: str, code: int) -> None:
        """The first reason is the one that counts."""
        self.ended = self.ended or f"{reason.rstrip('.')} ({code})"

    @property
    def lasted_s(self) -> float:
        """How long it has lived."""
        return self._clock() - self._opened_s

    @property
    def quiet_s(self) -> float:
        """How long ago its client or an engine last said something."""
        return self._clock() - self._active_s

    def _lost(self, reason: ConnectionClosed) -> None:
        """Nobody listens any more."""
        self._outbox.end(reason)
        self._inbox.end(reason)

    # --- in -----------------------------------------------------------------------------------------------------------

    async def _read(self, sending: asyncio.Task[None]) -> None:
        """Messages into the inbox, until the peer is gone."""
        forward = getattr(self._transport, "forward", None) or self._forward
        decode, inbox = self._codec.decode, self._inbox
        waiting: list[tuple[Input, int]] = []  # of one message

        def take(frame: str | bytes) -> bool:
            heard, size = decode(frame), len(frame)
            for event in heard if type(heard) is tuple else (heard,):
                if inbox.has_ended or waiting or not inbox.offer(event, size):
                    waiting.append((event, size))
            return not waiting

        try:
            while True:
                try:
                    await forward(take)
                except ConnectionClosed as closed:
                    self._note_end(closed.reason or "closed by the client", closed.code)
                    self._lost(closed)
                    sending.cancel()
                    return
                while waiting:
                    await inbox.put(*waiting.pop(0))
        except ConnectionClosed:
            pass  # the session is over; what the peer still says does not matter
        except Exception:
            log.exception("%s: reading has failed", self.session_id)
            self.stop(FAILED.code, FAILED.reason)

    async def _forward(self, take: Callable[[str | bytes], bool]) -> None:
        """For transports that are asked for each message."""
        while take(await self._transport.receive()):
            pass

    @property
    def _now_ms(self) -> int:
        # Rounded to the nearest: a timer for a deadline must not find itself a moment before it.
        return round((self._clock() - self._opened_s) * 1000)

    def _set_alarm(self) -> None:
        """One timer, set for the earliest deadline; it rings in vain rather than being moved with every input."""
        due_ms = self.session.deadline()
        if due_ms is None:
            return
        due_s = self._opened_s + due_ms / 1000
        if self._alarm is not None:
            if self._alarm.when() <= due_s:
                return
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_at(due_s, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        due_ms = self.session.deadline()
        if due_ms is None or self._now_ms < due_ms:
            self._set_alarm()
        elif not self._is_woken:
            self._is_woken = True
            self._inbox.push(WakeUp())

    # --- handling -----------------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        """The session's task: handle what nobody could hand over at once, until it closes or the peer is gone."""
        try:
            rest = self._handle(Opened(), by_itself=True)
            while True:
                if rest is not None:
                    await rest()
                rest = self._handle(await self._inbox.get(), by_itself=True)
        except ConnectionClosed as closed:
            self.session.handle(Gone(), self._now_ms)  # nothing to one that has closed
            if not self._inbox.has_ended:  # it was sending that found out, while who reads waits for room
                self._lost(closed)
        except Exception:
            log.exception("%s: the session has failed", self.session_id)
            self._note_end(FAILED.reason, FAILED.code)
            self._outbox.close(FAILED)

    def _handle(self, input: Input, *, by_itself: bool = False) -> Rest | None:
        """Hand an input to the machine, do what it asks for; what has to be waited for is left to the session's task.

        That task does so `by_itself`, or, while it waits, whoever brings the input. After nearly all that comes nothing
        is to be done: after audio in which nobody begins or ceases to speak, and after speech, which is sent at once.
        """
        now_s = self._clock()
        if type(input) is WakeUp:
            self._is_woken = False
        else:
            self._active_s = now_s
        now_ms = round((now_s - self._opened_s) * 1000)
        effects = self.session.handle(input, now_ms)
        detection = self._detection
        while (
            len(effects) == 1
            and type(look := effects[0]) is DetectSpeech
            and look.epoch == detection.epoch
            and len(look.audio) <= detection.at_once_bytes
        ):
            scored = self._scored(look, look.audio)
            assert not isinstance(scored, Coming)
            effects = [] if scored is None else self.session.handle(scored, now_ms)
        if type(input) is AudioSynthesized and self._has_sent(effects):
            return None
        if not effects and self._alarm is not None:
            return None
        steps = self._perform(effects)
        if by_itself:
            return partial(_done, steps)
        # Whoever brought it goes on with it, and so what the steps begin must not inherit from him.
        wait = self._context.run(next, steps, None)
        return None if wait is None else partial(_done, steps, wait)

    def _has_sent(self, effects: list[Effect]) -> bool:
        """Whether this is one event and no more, and there was room for it."""
        if len(effects) != 1 or type(only := effects[0]) is not Send or self._media is not None:
            return False
        frame = self._codec.encode(only.event)
        return frame is None or self._outbox.offer(frame)

    def _perform(self, effects: list[Effect]) -> Iterator[Rest]:
        """Do what the machine asks for.

        What the detector says about audio is an input as well, and is handled before any later one.
        """
        inputs: deque[Input] = deque()
        is_due_anew = self._alarm is None
        while True:
            for effect in effects:
                is_due_anew = is_due_anew or type(effect) not in LOOKS
                match effect:
                    case Send() | StopPlayback() if self._media is not None and self._media.perform(effect):
                        pass
                    case Send():
                        frame = self._codec.encode(effect.event)
                        if frame is not None and not self._outbox.offer(frame):
                            yield partial(self._outbox.put, frame)
                    case DetectSpeech():
                        yield from self._detect(effect, inputs)
                    case ReduceNoise():
                        yield from self._clean(effect, inputs)
                    case Close():
                        self._note_end(effect.reason, effect.code)
                        self._outbox.close(effect)
                        self._inbox.end(ConnectionClosed(effect.code, effect.reason))
                        return
                    case _:
                        self._begin(effect)
            if not inputs:
                break
            effects = self.session.handle(inputs.popleft(), self._now_ms)
        if is_due_anew:
            self._set_alarm()

    def _begin(self, effect: Effect) -> None:
        """Begin or end engine work."""
        match effect:
            case JudgeTurn():
                self._work.judge(effect)
            case ListMcpTools():
                self._work.list_tools(effect)
            case CallMcpTool():
                self._work.call_tool(effect)
            case Listen():
                self._work.listen(effect)
            case StopListening():
                self._work.stop_listening()
            case Transcribe():
                self._work.transcribe(effect)
            case Generate():
                self._work.generate(effect)
            case Prepare():
                self._work.prepare(effect.wanted)
            case Speak():
                self._work.speak(effect)
            case Cancel():
                self._work.cancel(effect.owner_id)

    def _clean(self, wanted: ReduceNoise, inputs: deque[Input]) -> Iterator[Rest]:
        """Clean the audio. A reducer that fails is told to the client as an error; audio stays as it came."""
        for number, audio in enumerate(slices(wanted.audio, wanted.format)):
            if number:
                yield _breath
            try:
                clean = self._cleaning.push(wanted, audio)
                self._health.worked("noise_reducer")
            except Exception as error:
                self._health.failed("noise_reducer", getattr(error, "code", "engine_error"))
                log.exception("%s: noise reduction has failed", self.session_id)
                inputs.append(NoiseReduced(wanted.epoch, b"", is_over=True))
                inputs.append(uncleaned(error))
                return
            if clean:
                inputs.append(NoiseReduced(wanted.epoch, clean))

    def _detect(self, wanted: DetectSpeech, inputs: deque[Input]) -> Iterator[Rest]:
        """Score the audio, however much it is, and though scores have to be waited for."""
        for number, audio in enumerate(slices(wanted.audio, wanted.format)):
            if number:
                yield _breath
            scored = self._scored(wanted, audio)
            if isinstance(scored, Coming):
                yield partial(self._score, scored, inputs)
            elif scored is not None:
                inputs.append(scored)
            if isinstance(scored, ErrorDetail):
                return

    def _scored(self, wanted: DetectSpeech, audio: bytes) -> SpeechScored | Coming | ErrorDetail | None:
        """Score audio. A detector that fails is told to the client as an error, once an epoch."""
        try:
            scored = self._detection.push(wanted.epoch, audio, wanted.format)
        except Exception as error:
            return self._undetected(error)
        if not self._health.is_well and type(scored) is not Coming:
            self._health.worked("vad")
        return scored

    async def _score(self, coming: Coming, inputs: deque[Input]) -> None:
        """Scores that have to be waited for."""
        try:
            scored = await self._detection.score(coming)
        except Exception as error:
            inputs.append(self._undetected(error))
        else:
            self._health.worked("vad")
            if scored is not None:
                inputs.append(scored)

    def _undetected(self, error: Exception) -> ErrorDetail:
        self._health.failed("vad", getattr(error, "code", "engine_error"))
        log.exception("%s: speech detection has failed", self.session_id)
        return undetected(error)


async def _done(steps: Iterator[Rest], wait: Rest | None = None) -> None:
    """Take every step that is left, and wait between them."""
    if wait is not None:
        await wait()
    for wait in steps:
        await wait()


async def _breath() -> None:
    """Let others run."""
    await asyncio.sleep(0)
