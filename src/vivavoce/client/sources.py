"""Audio from anywhere, as chunks that a session can send.

    file, URL, bytes, iterable, microphone → PCM16 mono or G.711 at the session's rate → chunks of equal length

Plain WAV files of the right format need no package; other WAV files need numpy and soxr, every other audio or video
file PyAV (extra `files`). What blocks (files, decoders, iterables that are not asynchronous) runs on threads, piece by
piece and only as it is asked for, so that memory is bounded however long the source is.
"""

from __future__ import annotations

import asyncio
import io
import threading
import wave
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, TypeAlias, cast

from vivavoce.audio.formats import PCM16_24K, Format, pcm16
from vivavoce.errors import EngineMissing

__all__ = ["Source", "chunks", "whole"]

CHUNK_MS: Final = (10, 1_000)
"""How short and how long a chunk may be."""
READ_BYTES: Final = 1 << 16
"""Read from raw sources at a time."""
WHOLE_BYTES_MAX: Final = 1 << 27
"""The longest file that is read whole, where it must be: a WAV file that is not plain, an MP4 file out of a pipe."""
OPEN_S_MAX: Final = 10.0
READ_S_MAX: Final = 30.0
"""How long a URL may take to answer, and to send more."""
_HEAD_BYTES: Final = 4_096
_INSTALL: Final = 'pip install "vivavoce[files]"'


class Readable(Protocol):
    """The part of an open binary file that is needed. It need not seek."""

    def read(self, size: int = -1, /) -> bytes: ...


Source: TypeAlias = (
    bytes | bytearray | memoryview | str | Path | BinaryIO | Readable | Iterable[bytes] | AsyncIterable[bytes]
)
"""What `chunks` takes."""


def chunks(
    source: Source,
    *,
    chunk_ms: int = 100,
    format: Format = PCM16_24K,
    source_format: Format | None = None,
    pace: float | None = None,
) -> AsyncGenerator[bytes, None]:
    """The audio of `source` in `format`, in chunks of `chunk_ms`; the last may be shorter.

    `source` is a path, a URL, or an open binary file (an audio or video file, whole); raw samples as bytes or as an
    iterable of bytes, cut anywhere; a `Microphone`. Raw samples are in `source_format`, or in `format` where that is
    not given; with `source_format` paths and open files too hold raw samples. Bytes that are a WAV file are read so.
    With `pace` chunks come no faster than that many seconds of audio in a second, on the event loop's clock and without
    drift; 1.0 is real time.
    Raises `ValueError` or `TypeError` for what is no audio, `OSError` for what cannot be opened, and `EngineMissing`
    with what to install.
    """
    if not CHUNK_MS[0] <= chunk_ms <= CHUNK_MS[1]:
        raise ValueError(f"chunk_ms must be from {CHUNK_MS[0]} to {CHUNK_MS[1]}, not {chunk_ms}")
    if pace is not None and not pace > 0:
        raise ValueError(f"pace must be more than 0 (1.0 is real time), not {pace}")
    cut = _cut(_pieces(source, format, source_format), format, chunk_ms)
    return cut if pace is None else _paced(cut, format, pace)


async def whole(file: Path, format: Format, *, s_max: float) -> bytes:
    """All of an audio file in `format`. Raises what `chunks` does, and `ValueError` where it is longer than `s_max`."""
    audio, bytes_max = bytearray(), format.bytes_of(int(s_max * 1_000))
    async with aclosing(chunks(file, chunk_ms=CHUNK_MS[1], format=format)) as pieces:
        async for piece in pieces:
            audio += piece
            if len(audio) > bytes_max:
                raise ValueError(f"{file} is longer than the {s_max:g} s that one message takes; use send_audio")
    return bytes(audio)


async def _cut(pieces: AsyncGenerator[bytes, None], format: Format, chunk_ms: int) -> AsyncGenerator[bytes, None]:
    size, rest = format.bytes_of(chunk_ms), bytearray()
    async with aclosing(pieces):
        async for piece in pieces:
            rest += piece
            begin = 0
            for begin in range(0, len(rest) - size + 1, size):
                yield bytes(rest[begin : begin + size])
            if len(rest) >= size:
                del rest[: begin + size]
    whole = len(rest) // format.sample_bytes * format.sample_bytes
    if whole:
        yield bytes(rest[:whole])


async def _paced(cut: AsyncGenerator[bytes, None], format: Format, pace: float) -> AsyncGenerator[bytes, None]:
    """Each chunk when all before it would have been played: a late one makes no later one late."""
    now_s = asyncio.get_running_loop().time
    began_s, samples = 0.0, 0
    async with aclosing(cut):
        async for chunk in cut:
            if not samples:
                began_s = now_s()
            wait_s = began_s + samples / format.rate_hz / pace - now_s()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            samples += len(chunk) // format.sample_bytes
            yield chunk


# --- which source it is -----------------------------------------------------------------------------------------------


def _pieces(source: Source, format: Format, source_format: Format | None) -> AsyncGenerator[bytes, None]:
    if isinstance(source, (bytes, bytearray, memoryview)):
        audio = bytes(source)
        if _is_wav(audio):
            return _threaded(_wav(io.BytesIO(audio), "the bytes", format))
        return _threaded(_converted(_slices(io.BytesIO(audio)), source_format or format, format))
    if isinstance(source, str) and "://" in source:
        return _threaded(_decoded(source, source, format))
    if isinstance(source, (str, Path)):
        return _threaded(_path(Path(source), format, source_format))
    if hasattr(source, "read"):
        return _threaded(_file(_as_file(source), str(getattr(source, "name", "the open file")), format, source_format))
    own = getattr(source, "format", None)  # a microphone knows its own
    given = source_format or (own if isinstance(own, Format) else format)
    if isinstance(source, AsyncIterable):
        return _converted_async(source, given, format)
    if isinstance(source, Iterable):
        return _threaded(_converted(map(_bytes, source), given, format))
    raise TypeError(
        f"audio must be bytes, a path, a URL, an open binary file, a Microphone or an iterable of bytes, not "
        f"{source!r:.60}"
    )


def _path(path: Path, format: Format, source_format: Format | None) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from _file(file, str(path), format, source_format)


def _file(file: Readable, name: str, format: Format, source_format: Format | None) -> Iterator[bytes]:
    if source_format is not None:
        yield from _converted(_slices(file), source_format, format)
        return
    head = bytearray()
    while len(head) < _HEAD_BYTES and (more := _bytes(file.read(_HEAD_BYTES - len(head)))):
        head += more
    rewound = _Rewound(bytes(head), file)
    if _is_wav(head):
        yield from _wav(rewound, name, format)
    else:
        yield from _decoded(_seeking(rewound, file), name, format)


def _is_wav(head: bytes | bytearray) -> bool:
    return head[:4] == b"RIFF" and head[8:12] == b"WAVE"


class _Rewound:
    """A file that was read a little, from its beginning again, though it may not seek."""

    def __init__(self, head: bytes, file: Readable) -> None:
        self.head = head
        self._rest = head
        self._file = file

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            rest, self._rest = self._rest, b""
            return rest + self._file.read()
        if self._rest:
            out, self._rest = self._rest[:size], self._rest[size:]
            return out
        return self._file.read(size)


def _seeking(rewound: _Rewound, file: Any) -> Readable:
    """The same file, able to seek where it can be: some MP4 files have their table of contents at the end."""
    if hasattr(file, "seekable") and file.seekable() and file.tell() == len(rewound.head):
        file.seek(0)
        return cast(Readable, file)
    if rewound.head[4:8] == b"ftyp":
        audio = _at_most(rewound, WHOLE_BYTES_MAX + 1)
        return io.BytesIO(audio) if len(audio) <= WHOLE_BYTES_MAX else _Rewound(audio, file)
    return rewound


def _slices(file: Readable) -> Iterator[bytes]:
    while piece := _bytes(file.read(READ_BYTES)):
        yield piece


def _bytes(piece: object) -> bytes:
    if isinstance(piece, (bytes, bytearray, memoryview)):
        return bytes(piece)
    raise TypeError(f"audio comes in bytes, not {piece!r:.80}: is the file open in binary mode?")


# --- what it holds ----------------------------------------------------------------------------------------------------


def _wav(file: _Rewound | io.BytesIO, name: str, format: Format) -> Iterator[bytes]:
    head = file.head if isinstance(file, _Rewound) else file.getvalue()[:_HEAD_BYTES]
    if _is_plain(head):
        with wave.open(_as_file(file), "rb") as plain:
            rate_hz = plain.getframerate()
            frames = iter(lambda: plain.readframes(READ_BYTES // 2), b"")
            yield from _converted(frames, pcm16(rate_hz), format)
        return
    audio = _at_most(file, WHOLE_BYTES_MAX + 1)
    if len(audio) > WHOLE_BYTES_MAX:
        yield from _decoded(_Rewound(audio, file), name, format)
        return
    try:
        from vivavoce.audio import wav

        samples, rate_hz = wav.read(audio)
    except ImportError as error:
        raise EngineMissing(f"{name} is no plain WAV file of 16-bit mono: {_INSTALL}") from error
    except ValueError as problem:  # not samples: perhaps something compressed, in the clothes of a WAV file
        yield from _decoded(io.BytesIO(audio), f"{name} ({problem})", format)
        return
    yield from _converted(_slices(io.BytesIO(samples)), pcm16(rate_hz), format)


def _is_plain(head: bytes) -> bool:
    try:
        with wave.open(io.BytesIO(head), "rb") as header:
            return (header.getnchannels(), header.getsampwidth()) == (1, 2) and header.getframerate() > 0
    except (wave.Error, EOFError):
        return False


def _at_most(file: Readable, size: int) -> bytes:
    audio = bytearray()
    while len(audio) < size and (more := _bytes(file.read(size - len(audio)))):
        audio += more
    return bytes(audio)


def _as_file(file: Any) -> Any:
    """For libraries whose types ask for more of a file than their code."""
    return file


def _decoded(file: Readable | str, name: str, format: Format) -> Iterator[bytes]:
    """Any audio or video file, by FFmpeg: its first audio track."""
    try:
        import av
    except ImportError as error:
        raise EngineMissing(
            f"{name} is no WAV file, and reading it needs the package av ({error}): {_INSTALL}"
        ) from error
    try:
        container = av.open(_as_file(file), timeout=(OPEN_S_MAX, READ_S_MAX), **_confined(file))
        with container:
            if not container.streams.audio:
                raise ValueError(f"{name} has no audio track")
            resampler = av.AudioResampler(format="s16", layout="mono", rate=format.rate_hz)
            for frame in _frames(container):
                for part in resampler.resample(frame):
                    yield _encoded(bytes(part.planes[0])[: 2 * part.samples], format)
    except av.error.InvalidDataError as error:
        raise ValueError(
            f"{name} is damaged, or no audio or video file ({error.strerror}); raw samples are given as bytes"
        ) from error
    except av.error.FFmpegError as error:
        raise OSError(f"{name} cannot be read: {error.strerror}") from error


def _frames(container: Any) -> Iterator[Any]:
    yield from container.decode(audio=0)
    yield None  # the resampler gives what it still holds


def _confined(file: Readable | str) -> dict[str, Any]:
    """A file is what it is: a playlist in it must not make us read other files or addresses."""
    return {} if isinstance(file, str) else {"io_open": _refuse}


def _refuse(url: str, flags: int, options: dict[str, str]) -> object:
    raise ValueError(f"an audio file that refers to another one ({url}) is not followed")


# --- in the format that is wanted -------------------------------------------------------------------------------------


def _converter(source: Format, target: Format) -> tuple[Callable[[bytes], bytes], Callable[[], bytes]]:
    if source == target:
        return bytes, bytes
    try:
        from vivavoce.audio.convert import Converter
    except ImportError as error:
        raise EngineMissing(f"audio at {source.rate_hz} Hz ({source.encoding}) needs conversion: {_INSTALL}") from error
    converter = Converter(source, target)
    return converter.push, converter.flush


def _converted(pieces: Iterable[bytes], source: Format, target: Format) -> Iterator[bytes]:
    push, flush = _converter(source, target)
    for piece in pieces:
        yield push(piece)
    yield flush()


async def _converted_async(pieces: AsyncIterable[bytes], source: Format, target: Format) -> AsyncGenerator[bytes, None]:
    push, flush = _converter(source, target)
    iterator = aiter(pieces)
    try:
        async for piece in iterator:
            yield push(_bytes(piece))
        yield flush()
    finally:
        if isinstance(iterator, AsyncGenerator):
            await iterator.aclose()


def _encoded(pcm: bytes, format: Format) -> bytes:
    if format.encoding == "pcm16":
        return pcm
    try:
        from vivavoce.audio import g711
    except ImportError as error:
        raise EngineMissing(f"G.711 needs numpy: {_INSTALL}") from error
    return g711.encode(pcm, format.encoding)


# --- off the event loop -----------------------------------------------------------------------------------------------


async def _threaded(pieces: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """What a blocking iterator gives, each piece from a thread, and only when it is asked for."""
    lock = threading.Lock()

    def following() -> bytes | None:
        with lock:
            return next(pieces, None)

    def close() -> None:
        with lock:  # a cancelled reader leaves a thread behind that is still at work
            if isinstance(pieces, Iterator) and hasattr(pieces, "close"):
                pieces.close()

    try:
        while (piece := await asyncio.to_thread(following)) is not None:
            yield piece
    finally:
        await asyncio.to_thread(close)
