"""`vivavoce demo`: a spoken conversation with the embedded engines, over a real WebSocket, heard by measurement.

Starts the server in this process, speaks three turns to it with a synthesized voice through a microphone that runs in
real time, interrupts the second answer in the middle, and saves every reply and the whole conversation as sound files.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from vivavoce.audio.formats import PCM16_24K
from vivavoce.audio.levels import peak_db, rms_db
from vivavoce.client import Session, connect
from vivavoce.engines import Synthesizer
from vivavoce.errors import VivavoceError
from vivavoce.protocol import config as cfg
from vivavoce.protocol import events as ev

from . import files, screen
from .embedded import embedded
from .room import Loudspeaker, Microphone
from .turn import Turn

PIPELINE = "local"
USER_VOICE = "echo"
TURN_SECONDS_MAX = 60.0
BARGE_IN_AFTER_MS = 1_200
"""How much of the second answer is heard before the user speaks into it."""
PAUSE_SECONDS = 0.4
"""Between an answer and the next turn."""


@dataclass(frozen=True, slots=True)
class Line:
    """What the user says, and whether into the middle of the answer before."""

    text: str
    is_barge_in: bool = False


SCRIPT = (
    Line("Hello! Can you hear me?"),
    Line("Please tell me a story about a fox who lived near a river."),
    Line("Stop, please. What is the capital of France?", is_barge_in=True),
)


async def demo(out: Path) -> int:
    """Hold the conversation; 0 where every turn was answered and the interruption was heard."""
    began = time.perf_counter()
    files.check_folder(out)
    screen.say(screen.paint("vivavoce demo: a spoken conversation, offline, on this machine", "bold"))
    async with embedded(PIPELINE) as server:
        screen.say(f"  server at {server.url}, ready after {time.perf_counter() - began:.1f} s")
        lines = [await _speech(server.pipelines[PIPELINE].synthesizer, line.text) for line in SCRIPT]
        async with connect(PIPELINE, url=server.url) as connection:
            call = Call(connection)
            turns = await call.hold(lines)
    _save(out, call, turns)
    return _verdict(out, turns)


class Call:
    """One conversation: the room on this side, the connection on the other."""

    def __init__(self, connection: Session) -> None:
        self.microphone = Microphone(self._record)
        self.loudspeaker = Loudspeaker()
        self._connection = connection
        self._turn = Turn(time.perf_counter)

    async def hold(self, lines: list[bytes]) -> list[Turn]:
        """Speak every line of the script and hear what comes back."""
        listening = cfg.AudioInput(
            transcription=cfg.Transcription(model="whisper-1"), turn_detection=cfg.ServerVad(silence_duration_ms=500)
        )
        session = cfg.RealtimeSession(audio=cfg.AudioConfig(input=listening))
        await self._connection.send(ev.SessionUpdate(session=session))
        turns: list[Turn] = []
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(self.microphone.run()), group.create_task(self._listen())]
            for number, (line, speech) in enumerate(zip(SCRIPT, lines, strict=True), 1):
                following = SCRIPT[number] if number < len(SCRIPT) else None
                turns.append(await self._hold_turn(number, line, speech, following))
            for task in running:
                task.cancel()
        return turns

    async def _hold_turn(self, number: int, line: Line, speech: bytes, following: Line | None) -> Turn:
        before, turn = self._turn, Turn(time.perf_counter)
        screen.say(f"\nturn {number}" + (", into the answer" if line.is_barge_in else ""))
        if line.is_barge_in:
            speaking = asyncio.create_task(self.microphone.say(speech))
            await _until(lambda: before.interrupted_at_ms is not None or speaking.done())
            self._turn = turn
            await speaking
            _show_interruption(before, self.loudspeaker)
        else:
            self._turn = turn
            await self.microphone.say(speech)
        turn.end_of_speech()
        await _until(lambda: turn.is_over)
        screen.speech("user", turn.transcript or "(nothing was understood)")
        screen.speech("assistant", turn.answer.strip() or turn.error or "(no answer)")
        screen.say(screen.waterfall(turn.marks_ms))
        await self._let_it_be_heard(turn, following)
        return turn

    async def _let_it_be_heard(self, turn: Turn, following: Line | None) -> None:
        speaker = self.loudspeaker
        if following is not None and following.is_barge_in:
            start = speaker.plays_until_ms - PCM16_24K.duration_ms(turn.audio)
            await _until(lambda: speaker.now_ms >= start + BARGE_IN_AFTER_MS)
            return
        await _until(lambda: speaker.now_ms >= speaker.plays_until_ms)
        await asyncio.sleep(PAUSE_SECONDS)

    async def _record(self, chunk: bytes) -> None:
        await self._connection.send(ev.InputAudioBufferAppend(audio=chunk))

    async def _listen(self) -> None:
        async for event in self._connection:
            self._turn.take(event)
            match event:
                case ev.ResponseOutputAudioDelta():
                    self.loudspeaker.play(event.item_id, event.delta)
                case ev.InputAudioBufferSpeechStarted():
                    await self._be_interrupted()
        raise VivavoceError("the server closed the connection")

    async def _be_interrupted(self) -> None:
        """Stop playing, and tell the server how much was heard: it must not believe that we heard the rest."""
        for item_id in self.loudspeaker.stop():
            heard = self.loudspeaker.heard_ms(item_id)
            self._turn.interrupted_at_ms = heard
            truncate = ev.ConversationItemTruncate(item_id=item_id, content_index=0, audio_end_ms=heard)
            await self._connection.send(truncate)


def _show_interruption(turn: Turn, speaker: Loudspeaker) -> None:
    if turn.interrupted_at_ms is None:
        screen.note("the answer was over before it could be interrupted")
        return
    total = PCM16_24K.duration_ms(turn.audio) / 1000
    screen.note(f"interrupted: {turn.interrupted_at_ms / 1000:.1f} s of {total:.1f} s were heard")


async def _speech(synthesizer: Synthesizer, text: str) -> bytes:
    from vivavoce.audio.resample import resample

    made = b"".join([piece async for piece in _pieces(synthesizer, text)])
    return resample(made, synthesizer.rate_hz, PCM16_24K.rate_hz)


def _pieces(synthesizer: Synthesizer, text: str) -> AsyncIterator[bytes]:
    return synthesizer.speak(text, USER_VOICE, 1.0)


async def _until(holds: Callable[[], bool]) -> None:
    async def wait() -> None:
        while not holds():  # noqa: ASYNC110 - the room's clock moves by itself, nothing could announce it
            await asyncio.sleep(0.01)

    try:
        await asyncio.wait_for(wait(), TURN_SECONDS_MAX)
    except TimeoutError:
        raise VivavoceError(f"nothing happened for {TURN_SECONDS_MAX:.0f} s") from None


def _save(out: Path, call: Call, turns: list[Turn]) -> None:
    screen.say("\nsound files")
    for number, turn in enumerate(turns, 1):
        path, audio = out / f"turn-{number}-reply.wav", bytes(turn.audio)
        with files.saving(path):
            seconds = files.write_wav(path, [audio]) / 1000
        level = rms_db(audio)
        screen.say(f"  {path}  {seconds:4.1f} s  {screen.meter(level)} {level:.0f} dB, peak {peak_db(audio):.0f} dB")
    path = out / "conversation.wav"
    with files.saving(path):
        sides = [bytes(call.microphone.track.audio), bytes(call.loudspeaker.track().audio)]
        seconds = files.write_wav(path, sides) / 1000
    screen.say(f"  {path}  {seconds:4.1f} s  both sides: user left, assistant right")


def _verdict(out: Path, turns: list[Turn]) -> int:
    waits = [turn.marks_ms["first_audio"] for turn in turns if "first_audio" in turn.marks_ms]
    failed = [number for number, turn in enumerate(turns, 1) if turn.error or not turn.audio]
    was_interrupted = any(turn.interrupted_at_ms is not None for turn in turns)
    if failed or not was_interrupted:
        what = f"turns without an answer: {failed}" if failed else "the interruption was not noticed"
        screen.say(screen.paint(f"\nnot as it should be: {what}", "bad"))
        return 1
    wait = sorted(waits)[len(waits) // 2]
    waited = f"first audio {wait:.0f} ms after the end of speech (median)"
    screen.say(screen.paint(f"\n{len(turns)} turns answered, {waited}", "good"))
    screen.say(f"listen to {out / 'conversation.wav'}; now try: uv run vivavoce serve")
    return 0
