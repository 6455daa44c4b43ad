"""`vivavoce talk`: one turn against any endpoint, spoken from a WAV file or written.

Prints what the server understood, what it answered, and where the time went; saves the spoken reply. Without a URL the
embedded engines are started in this process for the time of the command.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vivavoce.audio.formats import PCM16_24K
from vivavoce.client import Session, connect
from vivavoce.errors import ConnectionClosed, VivavoceError
from vivavoce.protocol import config as cfg
from vivavoce.protocol import events as ev
from vivavoce.protocol.client_codec import Dialect
from vivavoce.protocol.items import InputText, Message
from vivavoce.protocol.waterfall import HEADER, STEPS, Waterfall

from . import files, screen
from .turn import ON_THE_SERVER, Turn
from .where import reached

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
    dialect: Dialect | None
    instructions: str | None
    voice: str | None
    out: Path
    is_paced: bool
    as_json: bool


async def talk(options: Options) -> int:
    """Hold the turns; 0 where every one was answered. Raises `VivavoceError` for files that cannot be used."""
    for path in options.files:
        _samples(path)  # models take seconds to load: what is wrong with the files is better told before
    replies = [_reply(options, number) for number in range(max(len(options.files), 1))]
    files.check_folder(replies[0].parent)
    failures = 0
    async with reached(options.url, options.model, quiet=options.as_json) as url:
        sources: tuple[Path | None, ...] = options.files or (None,)
        for source, reply in zip(sources, replies, strict=True):
            try:
                turn = await asyncio.wait_for(_one(options, url, source), TURN_SECONDS_MAX)
            except (VivavoceError, TimeoutError) as error:
                turn = Turn(time.perf_counter, error=str(error) or f"no answer within {TURN_SECONDS_MAX:.0f} s")
            failures += turn.error is not None
            _show(options, source, turn, reply)
    return 1 if failures else 0


def _reply(options: Options, number: int) -> Path:
    """Where the answer to a turn is saved; files of one name in several folders are told apart by number."""
    if options.out.suffix.lower() == ".wav":
        if len(options.files) > 1:
            raise VivavoceError(f"--out {options.out}: there are several answers to save; name a folder")
        return options.out
    if not options.files:
        return options.out / "text.reply.wav"
    stem = options.files[number].stem
    namesakes = sum(source.stem == stem for source in options.files[:number])
    return options.out / (f"{stem}-{namesakes + 1}.reply.wav" if namesakes else f"{stem}.reply.wav")


async def _one(options: Options, url: str, source: Path | None) -> Turn:
    turn = Turn(time.perf_counter)
    audio = _read(source) if source is not None else None
    async with connect(
        options.model, url=url, api_key=options.api_key, dialect=options.dialect, headers={HEADER: "1"}
    ) as connection:
        await connection.send(ev.SessionUpdate(session=_session(options, is_spoken=audio is not None)))
        asking = asyncio.create_task(_ask(options, connection, audio, turn))
        try:
            async for event in connection:
                turn.take(event)
                if turn.error is not None or (turn.is_over and turn.ended_at is not None):
                    break
        finally:
            asking.cancel()
            # Where it could not send, the connection has ended, and what was received tells so.
            with suppress(asyncio.CancelledError, ConnectionClosed):
                await asking
    if not turn.is_over:
        turn.error = "the server closed the connection before the answer was complete"
    return turn


async def _ask(options: Options, connection: Session, audio: bytes | None, turn: Turn) -> None:
    if audio is None:
        await _write(connection, options.text or "", turn)
    elif options.is_paced:
        await _speak_paced(connection, audio, turn)
    else:
        await _speak(connection, audio, turn)


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
    from vivavoce.audio.resample import resample

    pcm, rate_hz = _samples(source)
    return resample(pcm, rate_hz, PCM16_24K.rate_hz)


def _samples(source: Path) -> tuple[bytes, int]:
    from vivavoce.audio import wav

    try:
        pcm, rate_hz = wav.read(source)
    except (OSError, ValueError) as error:
        raise VivavoceError(f"{source}: {getattr(error, 'strerror', None) or error}") from error
    if not pcm:
        raise VivavoceError(f"{source}: there is no sound in it; expected at least 100 ms")
    return pcm, rate_hz


async def _write(connection: Session, text: str, turn: Turn) -> None:
    await connection.send(ev.ConversationItemCreate(item=Message(role="user", content=(InputText(text=text),))))
    turn.end_of_speech()
    await connection.send(ev.ResponseCreate())


async def _speak(connection: Session, audio: bytes, turn: Turn) -> None:
    """All at once; we say where the turn ends."""
    step = PCM16_24K.bytes_of(CHUNK_MS)
    for start in range(0, len(audio), step):
        await connection.send(ev.InputAudioBufferAppend(audio=audio[start : start + step]))
    turn.end_of_speech()
    await connection.send(ev.InputAudioBufferCommit())
    await connection.send(ev.ResponseCreate())


async def _speak_paced(connection: Session, audio: bytes, turn: Turn) -> None:
    """As a microphone would; the server finds the end of the turn."""
    speech_bytes = _speech_bytes(audio)
    sent = 0
    async for chunk in paced(audio + bytes(PCM16_24K.bytes_of(TRAILING_SILENCE_MS))):
        await connection.send(ev.InputAudioBufferAppend(audio=chunk))
        sent += len(chunk)
        if turn.ended_at is None and sent >= speech_bytes:
            turn.end_of_speech()
    if turn.item_id is None:
        turn.error = (
            f"the server found no end of a turn in {TRAILING_SILENCE_MS / 1000:.0f} s of silence behind the file; "
            "is there speech in it? Without --paced the command itself says where the turn ends"
        )
    if turn.is_over:
        await connection.close()  # nothing more will come, and nobody waits for it


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


def _show(options: Options, source: Path | None, turn: Turn, reply: Path) -> None:
    saved = _save(turn, reply)
    if options.as_json:
        screen.say(json.dumps(_summary(options, source, turn, saved)))
        return
    if source is not None:
        screen.say(screen.paint(source.name, "bold"))
    understood = turn.transcript if source is not None else options.text
    if understood or turn.error is None:
        screen.speech("user", understood or "(nothing was understood)")
    if turn.error is not None:
        screen.say(screen.paint(f"  error: {turn.error}", "bad"))
        return
    screen.speech("assistant", turn.answer.strip() or ", ".join(turn.calls) or "(no answer)")
    if saved is not None:
        screen.note(f"{PCM16_24K.duration_ms(turn.audio) / 1000:.1f} s of speech in {saved}")
    screen.say(screen.waterfall(turn.marks_ms))
    if (server := _server(turn)) is not None:
        screen.note(ON_THE_SERVER)
        screen.say(screen.waterfall(server.steps, STEPS))


def _server(turn: Turn) -> Waterfall | None:
    """Where the time went as the server saw it, if it says."""
    return None if turn.response is None else turn.response.waterfall


def _save(turn: Turn, path: Path) -> Path | None:
    if not turn.audio:
        return None
    with files.saving(path):
        files.write_wav(path, [bytes(turn.audio)])
    return path


def _summary(options: Options, source: Path | None, turn: Turn, reply: Path | None) -> dict[str, Any]:
    return {
        "file": str(source) if source else None,
        "transcript": turn.transcript if source else options.text,
        "answer": turn.answer.strip(),
        "calls": turn.calls,
        "reply": str(reply) if reply else None,
        "marks_ms": {stage: round(ms, 1) for stage, ms in turn.marks_ms.items()},
        "server_ms": None if (server := _server(turn)) is None else server.steps,
        "error": turn.error,
    }
