"""`vivavoce listen`: what is said, written down as it is said. A transcription session with any endpoint, or embedded.

    microphone, file, standard input → session → Captions → text, JSON lines or subtitles

A caption grows while it is not sure, and is final once; final ones come in the order in which they were said. In a pipe
only final ones are written, but with `--json`. The base package is enough, terminals and devices aside.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from vivavoce.audio.formats import PCM16_24K, pcm16
from vivavoce.audio.levels import FLOOR_DB
from vivavoce.client import Session, connect
from vivavoce.client.sources import Source, chunks
from vivavoce.errors import EngineMissing, VivavoceError
from vivavoce.protocol import config as cfg
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import UNSET, given

from .foreign import as_json_line, as_line
from .where import ANY_MODEL, EMBEDDED, Where, reached

Form = Literal["text", "json", "srt"]

TRANSCRIBER = "gpt-4o-transcribe"
"""OpenAI's that writes while one speaks; other servers take any name."""
SILENCE_MS = 500
TAIL_MS = 1_000
"""Silence behind the last of it, so that the end of the last turn is found."""
CHUNK_MS = 20
TICK_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line said."""

    where: Where
    file: str | None = None
    raw_hz: int | None = None
    microphone: int | str | None = None
    language: str | None = None
    is_paced: bool = False
    form: Form = "text"


@dataclass(slots=True, eq=False)
class Caption:
    """One turn of speech. Positions are of the audio, in ms; None where the server does not say."""

    item_id: str
    start_ms: int | None = None
    end_ms: int | None = None
    text: str = ""
    is_final: bool = False


class Paper(Protocol):
    """Where captions are written."""

    def write(self, caption: Caption) -> None:
        """It is final."""

    def partial(self, caption: Caption | None) -> None:
        """It has grown; None: nothing is open any more."""

    def level(self, level_db: float) -> None:
        """How loud the microphone is."""


async def listen(options: Options) -> int:
    """Write down what is said until the sound or the session ends, or somebody stops it; 1 where something failed."""
    async with AsyncExitStack() as stack:
        source = await _source(options, stack)
        paper = stack.enter_context(_paper(options.form))
        where = options.where
        pipeline = where.model if where.url is None else EMBEDDED
        quiet = options.form != "text" or not sys.stdout.isatty()
        url = await stack.enter_async_context(reached(where.url, pipeline, quiet=quiet))
        session = connect(
            url=url, api_key=where.api_key, dialect=where.dialect, kind="transcription", session=_session(options)
        )
        captions = Captions(paper)
        async with session:
            session.on("error", lambda event: captions.fail(event.error.message))
            await _follow(session, source, captions)
        return 1 if captions.failures else 0


def _session(options: Options) -> cfg.TranscriptionSession:
    asked = options.where.model
    model = TRANSCRIBER if asked in (ANY_MODEL, EMBEDDED) else asked
    hearing = cfg.AudioInput(
        transcription=cfg.Transcription(model=model, language=options.language or UNSET),
        turn_detection=cfg.ServerVad(silence_duration_ms=SILENCE_MS),
    )
    return cfg.TranscriptionSession(audio=cfg.TranscriptionAudioConfig(input=hearing))


async def _source(options: Options, stack: AsyncExitStack) -> AsyncGenerator[bytes, None]:
    """The sound, in chunks. Raises what hinders it before models take seconds to load."""
    if options.file is None:
        from vivavoce.client.microphone import Microphone

        try:
            microphone: Any = await stack.enter_async_context(Microphone(options.microphone, chunk_ms=CHUNK_MS))
        except EngineMissing as error:
            raise VivavoceError(f"{error}. A file is listened to without: vivavoce listen FILE") from error
        return chunks(microphone, chunk_ms=CHUNK_MS)
    source: Source = options.file
    if options.file == "-":
        source = sys.stdin.buffer
    elif "://" not in options.file:
        source = stack.enter_context(_opened(options.file))
    return chunks(
        source,
        chunk_ms=CHUNK_MS,
        source_format=None if options.raw_hz is None else pcm16(options.raw_hz),
        pace=1.0 if options.is_paced else None,
    )


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    try:
        file = open(path, "rb")  # noqa: SIM115 - so that only the opening is excused
    except OSError as error:
        raise VivavoceError(f"{path}: {error.strerror or error}") from error
    with file:
        yield file


async def _follow(session: Session, source: AsyncGenerator[bytes, None], captions: Captions) -> None:
    """Send the sound and take what comes, until all of it has been written down."""
    stopped = asyncio.Event()
    with _stoppable(stopped):
        speaking = asyncio.ensure_future(_speak(session, source, captions, stopped))
        reading = asyncio.ensure_future(captions.follow(session))
        try:
            await asyncio.wait((speaking, reading), return_when=asyncio.FIRST_COMPLETED)
            if speaking.done():
                await speaking
            await reading
        finally:
            for task in (speaking, reading):
                task.cancel()
            await asyncio.gather(speaking, reading, return_exceptions=True)


@contextmanager
def _stoppable(stopped: asyncio.Event) -> Iterator[None]:
    """Ctrl-C ends the sound, and what was said last is still written down. Once more ends at once."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        stopped.set()
        loop.remove_signal_handler(signal.SIGINT)

    with suppress(NotImplementedError, ValueError, RuntimeError):  # Windows, or not the main thread
        loop.add_signal_handler(signal.SIGINT, stop)
    try:
        yield
    finally:
        with suppress(NotImplementedError, ValueError, RuntimeError):
            loop.remove_signal_handler(signal.SIGINT)


async def _speak(
    session: Session, source: AsyncGenerator[bytes, None], captions: Captions, stopped: asyncio.Event
) -> None:
    """All of the sound; the answer to the last event says that all was heard."""
    from vivavoce.audio.levels import rms_db

    async def audible() -> AsyncGenerator[bytes, None]:
        async for chunk in source:
            captions.paper.level(rms_db(chunk))
            yield chunk

    sending = asyncio.ensure_future(session.send_audio(audible(), chunk_ms=CHUNK_MS))
    stopping = asyncio.ensure_future(stopped.wait())
    try:
        await asyncio.wait((sending, stopping), return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            await sending
    except (OSError, ValueError) as error:
        why, of_samples, _ = str(getattr(error, "strerror", None) or error).partition("; raw samples")
        why += "; raw samples want --raw HZ" if of_samples else ""
        raise VivavoceError(f"this cannot be listened to: {why}") from error
    finally:
        for task in (sending, stopping):
            task.cancel()
        await asyncio.gather(sending, stopping, return_exceptions=True)
    captions.paper.level(FLOOR_DB)
    await session.append_audio(bytes(PCM16_24K.bytes_of(TAIL_MS)))
    await session.clear_audio()


class Captions:
    """What has been heard: final captions in order, and those that still grow."""

    def __init__(self, paper: Paper) -> None:
        self.paper = paper
        self.failures = 0
        self._open: dict[str, Caption] = {}
        self._is_all_heard = False

    async def follow(self, session: Session) -> None:
        """Until all is written down."""
        async for event in session:
            self.take(event)
            if self._is_all_heard and not self._open:
                return

    def take(self, event: object) -> None:
        """An event of the server."""
        match event:
            case ev.InputAudioBufferSpeechStarted():
                self._caption(event.item_id).start_ms = event.audio_start_ms
            case ev.InputAudioBufferSpeechStopped():
                self._caption(event.item_id).end_ms = event.audio_end_ms
            case ev.InputAudioBufferCommitted():
                self._caption(event.item_id)
            case ev.ConversationItemInputAudioTranscriptionDelta():
                caption = self._caption(event.item_id)
                caption.text += given(event.delta, "")
                self.paper.partial(caption)
            case ev.ConversationItemInputAudioTranscriptionCompleted():
                self._finish(event.item_id, event.transcript.strip())
            case ev.ConversationItemInputAudioTranscriptionFailed():
                self.fail(given(event.error.message, None) or "a transcription has failed")
                self._finish(event.item_id, "")
            case ev.InputAudioBufferCleared():
                self._is_all_heard = True
                for caption in [one for one in self._open.values() if one.end_ms is None and not one.text]:
                    del self._open[caption.item_id]  # speech that was cleared away is not transcribed

    def fail(self, why: str) -> None:
        """Something was not written down."""
        self.failures += 1
        print(f"vivavoce: {as_line(why)}", file=sys.stderr)

    def _caption(self, item_id: str) -> Caption:
        return self._open.setdefault(item_id, Caption(item_id))

    def _finish(self, item_id: str, text: str) -> None:
        caption = self._caption(item_id)
        caption.text, caption.is_final = text, True
        while self._open and (first := next(iter(self._open.values()))).is_final:
            del self._open[first.item_id]
            if first.text:
                self.paper.write(first)
        self.paper.partial(next((one for one in self._open.values() if one.text), None))


# --- how they are written ---------------------------------------------------------------------------------------------


@contextmanager
def _paper(form: Form) -> Iterator[Paper]:
    if form == "json":
        yield JsonLines()
    elif form == "srt":
        yield Subtitles()
    elif not sys.stdout.isatty():
        yield Lines()
    else:
        from .captions_page import captions_page

        with captions_page() as page:
            yield page


class Lines:
    """Final captions, a line each."""

    def write(self, caption: Caption) -> None:
        """The text."""
        print(as_line(caption.text), flush=True)

    def partial(self, caption: Caption | None) -> None:
        """What may change is not written."""

    def level(self, level_db: float) -> None:
        """Paper shows no levels."""


class JsonLines(Lines):
    """Every caption as an object, each time it has grown."""

    def write(self, caption: Caption) -> None:
        """`"final": true`."""
        self.partial(caption)

    def partial(self, caption: Caption | None) -> None:
        """`"final": false`, with all of the text so far."""
        if caption is not None:
            told = {
                "final": caption.is_final,
                "text": caption.text.strip(),
                "start_ms": caption.start_ms,
                "end_ms": caption.end_ms,
                "item_id": caption.item_id,
            }
            print(as_json_line(json.dumps(told, ensure_ascii=False)), flush=True)


class Subtitles(Lines):
    """SubRip: a number, from and to, the text, an empty line."""

    def __init__(self) -> None:
        self._number = 0

    def write(self, caption: Caption) -> None:
        """A block."""
        self._number += 1
        start_ms = caption.start_ms or 0
        end_ms = start_ms if caption.end_ms is None else caption.end_ms
        print(f"{self._number}\n{srt_time(start_ms)} --> {srt_time(end_ms)}\n{as_line(caption.text)}\n", flush=True)


def srt_time(ms: int) -> str:
    """As `00:01:02,345`."""
    seconds, rest = divmod(ms, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02},{rest:03}"
