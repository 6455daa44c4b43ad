"""The synthesizer behind `/audio/speech`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from http_double import Exchange, http_double

from vivavoce.engines.openai_speech import create
from vivavoce.errors import EngineError


def speak(
    *chunks: bytes, kind: str = "audio/pcm", text: str = "hello", **options: Any
) -> tuple[list[bytes], list[Any]]:
    """The audio that comes of these chunks, and the requests."""

    async def main() -> tuple[list[bytes], list[Any]]:
        asked: list[Any] = []

        async def behaviour(exchange: Exchange) -> None:
            assert exchange.request.target == "/v1/audio/speech"
            asked.append(exchange.request.json)
            await exchange.begin(kind)
            for chunk in chunks:
                await exchange.chunk(chunk)
                await asyncio.sleep(0)
            await exchange.chunk(b"")

        async with asyncio.timeout(20), http_double(behaviour) as url:
            engine = create({"url": url, "model": "m", **options})
            try:
                return [audio async for audio in engine.speak(text, "marin", 1.25)], asked
            finally:
                await engine.close()

    return asyncio.run(main())


def test_the_request() -> None:
    expected = {"model": "m", "input": "hello", "voice": "alloy", "speed": 1.25, "response_format": "pcm"}
    assert speak(b"\0\0")[1] == [expected]
    assert speak(b"\0\0", voice="other")[1] == [expected | {"voice": "other"}]
    assert speak(b"\0\0", voices={"marin": "af_heart"})[1] == [expected | {"voice": "af_heart"}]


def test_audio_comes_in_whole_samples_whatever_the_chunks() -> None:
    audio = bytes(range(1, 21))
    for cuts in ([20], [1] * 20, [3, 3, 3, 11], [19, 1], [7, 13]):
        chunks = [audio[sum(cuts[:n]) : sum(cuts[: n + 1])] for n in range(len(cuts))]
        pieces, _ = speak(*chunks)
        assert b"".join(pieces) == audio
        assert all(len(piece) % 2 == 0 for piece in pieces)


def test_half_a_sample_at_the_end_is_dropped() -> None:
    assert b"".join(speak(b"\1\2\3")[0]) == b"\1\2"
    assert speak(b"\1")[0] == []


def test_the_first_audio_does_not_wait_for_the_rest() -> None:
    async def main() -> None:
        heard = asyncio.Event()

        async def behaviour(exchange: Exchange) -> None:
            await exchange.begin("audio/pcm")
            await exchange.chunk(b"\1\2")
            await heard.wait()
            await exchange.chunk(b"\3\4")
            await exchange.chunk(b"")

        async with asyncio.timeout(20), http_double(behaviour) as url:
            engine = create({"url": url, "model": "m"})
            pieces = []
            async for audio in engine.speak("hi", "", 1.0):
                pieces.append(audio)
                heard.set()
            assert pieces == [b"\1\2", b"\3\4"]
            await engine.close()

    asyncio.run(main())


def test_nothing_to_say_is_not_asked_for() -> None:
    assert speak(text=" \n") == ([], [])


@pytest.mark.parametrize(
    ("beginning", "name"), [(b"RIFF\0\0", "WAV"), (b"OggS", "Ogg"), (b"fLaC", "FLAC"), (b"ID3\4", "MP3")]
)
def test_a_file_in_place_of_samples_is_told(beginning: bytes, name: str) -> None:
    with pytest.raises(EngineError, match=f"a {name} file, although response_format asks for pcm"):
        speak(beginning)


@pytest.mark.parametrize("kind", ["application/json", "text/html; charset=utf-8"])
def test_no_audio_at_all_is_told(kind: str) -> None:
    with pytest.raises(EngineError, match="and no audio") as error:
        speak(b"{}", kind=kind)
    assert error.value.code == "engine_protocol"


def test_the_rate_is_an_option() -> None:
    assert create({"url": "http://h", "model": "m"}).rate_hz == 24_000
    assert create({"url": "http://h", "model": "m", "rate_hz": 22_050}).rate_hz == 22_050
