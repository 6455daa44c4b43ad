"""`vivavoce talk`: one turn against any endpoint, spoken from a WAV file or written.

Prints what the server understood, what it answered, and where the time went; saves the spoken reply. Without a URL the
embedded engines are started in this process for the time of the command.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vivavoce.audio.formats import PCM16_24K
from vivavoce.client import Connection, connect
from vivavoce.errors import VivavoceError
from vivavoce.protocol import config as cfg
from vivavoce.protocol import events as ev
from vivavoce.protocol.codec import Dialect
from vivavoce.protocol.items import InputText, Message

from . import screen
from .turn import Turn

CHUNK_MS = 100
PACED_CHUNK_MS = 20
TRAILING_SILENCE_MS = 10_000
"""Silence that is played behind the speech until the server finds the end of the turn; then it has had enough."""
SPEECH_ABOVE_MEAN_DB = 15.0
"""A stretch that is this much quieter than the recording as a whole is not speech any more."""
TURN_SECONDS_MAX = 120.0
"""A turn that takes longer has failed."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said."""

    files: tuple[Path, ...]
    text: str | None
    url: str | None
    model: str
    api_key: str | None
    dialect: Dialect
    instructions: str | None
    voice: str | None
    out: Path
    is_paced: bool
    as_json: bool


async def talk(options: Options) -> int:
    """Hold the turns; 0 where every one was answered."""
    failures = 0
    async with endpoint(options.url, options.model, quiet=options.as_json) as url:
        for source in options.files or (None,):
            try:
                turn = await asyncio.wait_for(_one(options, url, source), TURN_SECONDS_MAX)
            except (VivavoceError, TimeoutError) as error:
                turn = Turn(time.perf_counter, error=str(error) or f"no answer within {TURN_SECONDS_MAX:.0f} s")
            failures += turn.error is not None
            _show(options, source, turn)
    return 1 if failures else 0


@asynccontextmanager
async def endpoint(url: str | None, model: str, *, quiet: bool = False) -> AsyncIterator[str]:
    """The URL that was given, or that of a server with the embedded engines in this process."""
    if url is not None:
        yield url
        return
    from .embedded import embedded

    async with embedded(model, quiet=quiet) as server:
        yield server.url


async def _one(options: Options, url: str, source: Path | None) -> Turn:
    turn = Turn(time.perf_counter)
    audio = _read(source) if source is not None else None
    async with connect(options.model, url=url, api_key=options.api_key, dialect=options.dialect) as connection:
        await connection.send(ev.SessionUpdate(session=_session(options, is_spoken=audio is not None)))
        if audio is None:
            await _write(connection, options.text or "", turn)
        elif options.is_paced:
            asking = asyncio.create_task(_speak_paced(connection, audio, turn))
        else:
            await _speak(connection, audio, turn)
        try:
            async for event in connection:
                turn.take(event)
                if turn.is_over:
                    break
        finally:
            if audio is not None and options.is_paced:
                asking.cancel()
    return turn


def _session(options: Options, *, is_spoken: bool) -> cfg.RealtimeSession:
    settings: dict[str, Any] = {}
    if options.instructions is not None:
        settings["instructions"] = options.instructions
    listening = cfg.AudioInput(
        transcription=cfg.Transcription(model="whisper-1") if is_spoken else None,
        turn_detection=cfg.ServerVad(silence_duration_ms=500) if options.is_paced else None,
    )
    speaking = cfg.AudioOutput(voice=options.voice) if options.voice else cfg.AudioOutput()
    return cfg.RealtimeSession(audio=cfg.AudioConfig(input=listening, output=speaking), **settings)


def _read(source: Path) -> bytes:
    from vivavoce.audio import wav
    from vivavoce.audio.resample import resample

    try:
        pcm, rate_hz = wav.read(source)
    except (OSError, ValueError) as error:
        raise VivavoceError(f"{source}: {getattr(error, 'strerror', None) or error}") from error
    return resample(pcm, rate_hz, PCM16_24K.rate_hz)


async def _write(connection: Connection, text: str, turn: Turn) -> None:
    await connection.send(ev.ConversationItemCreate(item=Message(role="user", content=(InputText(text=text),))))
    turn.end_of_speech()
    await connection.send(ev.ResponseCreate())


async def _speak(connection: Connection, audio: bytes, turn: Turn) -> None:
    """All at once; we say where the turn ends."""
    step = PCM16_24K.bytes_of(CHUNK_MS)
    for start in range(0, len(audio), step):
        await connection.send(ev.InputAudioBufferAppend(audio=audio[start : start + step]))
    turn.end_of_speech()
    await connection.send(ev.InputAudioBufferCommit())
    await connection.send(ev.ResponseCreate())


async def _speak_paced(connection: Connection, audio: bytes, turn: Turn) -> None:
    """As a microphone would; the server finds the end of the turn."""
    speech_bytes = _speech_bytes(audio)
    sent = 0
    async for chunk in paced(audio + bytes(PCM16_24K.bytes_of(TRAILING_SILENCE_MS))):
        await connection.send(ev.InputAudioBufferAppend(audio=chunk))
        sent += len(chunk)
        if turn.ended_at is None and sent >= speech_bytes:
            turn.end_of_speech()


def _speech_bytes(audio: bytes) -> int:
    """Where the last sound ends that is near the loudness of the whole: a recording goes on after the speech."""
    from vivavoce.audio.levels import rms_db

    step = PCM16_24K.bytes_of(PACED_CHUNK_MS)
    quiet = rms_db(audio) - SPEECH_ABOVE_MEAN_DB
    loud = [start + step for start in range(0, len(audio), step) if rms_db(audio[start : start + step]) > quiet]
    return min(loud[-1], len(audio)) if loud else len(audio)


async def paced(audio: bytes) -> AsyncIterator[bytes]:
    """PCM16 at 24 kHz in real time: each chunk when it would have been recorded."""
    step = PCM16_24K.bytes_of(PACED_CHUNK_MS)
    clock = asyncio.get_running_loop().time
    began = clock()
    for number, start in enumerate(range(0, len(audio), step), 1):
        await asyncio.sleep(max(began + number * PACED_CHUNK_MS / 1000 - clock(), 0))
        yield audio[start : start + step]


def _show(options: Options, source: Path | None, turn: Turn) -> None:
    reply = _save(options, source, turn)
    if options.as_json:
        screen.say(json.dumps(_summary(options, source, turn, reply), ensure_ascii=False))
        return
    if source is not None:
        screen.say(screen.paint(source.name, "bold"))
    screen.speech("user", (turn.transcript if source is not None else options.text) or "(nothing was understood)")
    if turn.error is not None:
        screen.say(screen.paint(f"  error: {turn.error}", "bad"))
        return
    screen.speech("assistant", turn.answer.strip() or ", ".join(turn.calls) or "(no answer)")
    if reply is not None:
        screen.note(f"{PCM16_24K.duration_ms(turn.audio) / 1000:.1f} s of speech in {reply}")
    screen.say(screen.waterfall(turn.marks_ms))


def _save(options: Options, source: Path | None, turn: Turn) -> Path | None:
    if not turn.audio:
        return None
    from vivavoce.audio import wav

    path = options.out
    if path.suffix.lower() != ".wav" or len(options.files) > 1:
        path = path / f"{source.stem if source else 'text'}.reply.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    wav.write(path, bytes(turn.audio), PCM16_24K.rate_hz)
    return path


def _summary(options: Options, source: Path | None, turn: Turn, reply: Path | None) -> dict[str, Any]:
    return {
        "file": str(source) if source else None,
        "transcript": turn.transcript if source else options.text,
        "answer": turn.answer.strip(),
        "calls": turn.calls,
        "reply": str(reply) if reply else None,
        "marks_ms": {stage: round(ms, 1) for stage, ms in turn.marks_ms.items()},
        "error": turn.error,
    }
