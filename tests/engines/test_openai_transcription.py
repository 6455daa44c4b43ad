"""The transcriber behind `/audio/transcriptions`."""

from __future__ import annotations

import asyncio
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

import pytest
from http_double import Exchange, Request, http_double

from vivavoce.audio import wav
from vivavoce.engines import SpokenPart, TranscriptionHints
from vivavoce.engines.openai_transcription import TRANSCRIPT_BYTES_MAX, create
from vivavoce.errors import EngineError

NO_HINTS = TranscriptionHints()
AUDIO = bytes(range(256)) * 25


def transcribe(
    answer: object, hints: TranscriptionHints = NO_HINTS, audio: bytes = AUDIO, **options: Any
) -> tuple[list[str], list[Request]]:
    """The transcript, and the requests."""

    async def main() -> tuple[list[str], list[Request]]:
        asked: list[Request] = []

        async def behaviour(exchange: Exchange) -> None:
            asked.append(exchange.request)
            await exchange.answer(200, answer)

        async with asyncio.timeout(20), http_double(behaviour) as url:
            engine = create({"url": url, "model": "m", **options})
            try:
                return [piece async for piece in engine.transcribe(audio, hints)], asked
            finally:
                await engine.close()

    return asyncio.run(main())


def form(request: Request) -> dict[str, Any]:
    """The fields of a form, read by a parser that is not ours."""
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    parts = BytesParser(policy=HTTP).parsebytes(head + request.body).iter_parts()
    return {part.get_param("name", header="content-disposition"): part.get_payload(decode=True) for part in parts}


def test_the_audio_goes_out_as_a_wav_file() -> None:
    _, (request,) = transcribe({"text": "hello"})
    assert (request.method, request.target) == ("POST", "/v1/audio/transcriptions")
    fields = form(request)
    assert wav.read(fields.pop("file")) == (AUDIO, 16_000)
    assert fields == {"model": b"m", "response_format": b"json"}
    assert b'filename="audio.wav"' in request.body


def test_speakers_are_told_apart_where_they_are_wanted() -> None:
    asked: list[Request] = []

    async def main() -> list[SpokenPart]:
        async def behaviour(exchange: Exchange) -> None:
            asked.append(exchange.request)
            segments = [
                {
                    "id": "seg_1",
                    "type": "transcript.text.segment",
                    "text": "Hello.",
                    "speaker": "A",
                    "start": 0,
                    "end": 1,
                },
                {
                    "id": "seg_2",
                    "type": "transcript.text.segment",
                    "text": " Yes?",
                    "speaker": "B",
                    "start": 1,
                    "end": 1.5,
                },
            ]
            await exchange.answer(200, {"text": "Hello. Yes?", "segments": segments})

        async with asyncio.timeout(20), http_double(behaviour) as url:
            engine = create({"url": url, "model": "m"})
            try:
                return [part async for part in engine.transcribe_speakers(AUDIO, NO_HINTS)]
            finally:
                await engine.close()

    assert asyncio.run(main()) == [SpokenPart("Hello.", "A", 0, 1), SpokenPart(" Yes?", "B", 1, 1.5)]
    fields = form(asked[0])
    del fields["file"]
    assert fields == {"model": b"m", "response_format": b"diarized_json", "chunking_strategy": b"auto"}


def test_hints_and_parameters_are_passed_on() -> None:
    hints = TranscriptionHints(language="de", prompt="Größen")
    _, (request,) = transcribe({"text": "x"}, hints, parameters={"temperature": 0})
    fields = form(request)
    assert (fields["language"], fields["prompt"], fields["temperature"]) == (b"de", "Größen".encode(), b"0")


@pytest.mark.parametrize(
    ("prompt", "keywords", "sent"),
    [
        (None, ("Zürich", "Uetliberg"), "Zürich, Uetliberg"),
        ("A walk.", ("Zürich",), "A walk. Zürich"),
        ("A walk.", (), "A walk."),
        (None, (), None),
    ],
)
def test_keywords_are_part_of_the_prompt(prompt: str | None, keywords: tuple[str, ...], sent: str | None) -> None:
    _, (request,) = transcribe({"text": "x"}, TranscriptionHints(prompt=prompt, keywords=keywords))
    assert form(request).get("prompt") == (sent.encode() if sent else None)


@pytest.mark.parametrize(
    ("answer", "pieces"), [({"text": " Guten Tag. ", "usage": {}}, ["Guten Tag."]), ({"text": "  "}, [])]
)
def test_the_transcript_is_one_piece_or_none(answer: object, pieces: list[str]) -> None:
    assert transcribe(answer)[0] == pieces


def test_no_audio_is_not_sent() -> None:
    assert transcribe({"text": "x"}, audio=b"") == ([], [])


@pytest.mark.parametrize("answer", ["plain text", {"words": []}, {"text": None}, b"\xff"])
def test_what_is_no_transcript_is_told(answer: object) -> None:
    with pytest.raises(EngineError, match="no transcript") as error:
        transcribe(answer)
    assert error.value.code == "engine_protocol"


def test_an_endless_transcript_is_refused() -> None:
    with pytest.raises(EngineError, match=f"exceeds {TRANSCRIPT_BYTES_MAX} bytes"):
        transcribe({"text": "x" * TRANSCRIPT_BYTES_MAX})
