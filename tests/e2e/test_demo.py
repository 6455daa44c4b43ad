"""The demo, with the embedded engines, in real time: every sound file is listened to again."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from spoken_words import UNHEARD_MAX, plain, unheard

from vivavoce.audio import wav
from vivavoce.audio.levels import peak_db, rms_db
from vivavoce.audio.resample import resample
from vivavoce.cli import main
from vivavoce.engines import TranscriptionHints
from vivavoce.engines.whisper import create

pytestmark = pytest.mark.models


async def heard(path: Path) -> str:
    pcm, rate_hz = wav.read(path)
    ear = create({})
    await ear.warm_up()
    try:
        audio = resample(pcm, rate_hz, ear.rate_hz)
        return "".join([text async for text in ear.transcribe(audio, TranscriptionHints())])
    finally:
        await ear.close()


def test_the_demo_speaks_and_is_interrupted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    interruption = re.search(r"interrupted: (\S+) s of (\S+) s were heard", shown)
    assert interruption is not None
    assert 1.2 <= float(interruption[1]) < float(interruption[2])
    asked = re.findall(r"^ +you  (.+)$", shown, re.MULTILINE)
    answers = re.findall(r"^ +assistant  (.+)$", shown, re.MULTILINE)
    assert "capital of france" in plain(asked[-1])
    assert len(answers) == 3
    for number, answer in enumerate(answers, 1):
        path = tmp_path / f"turn-{number}-reply.wav"
        pcm, _ = wav.read(path)
        assert -35 < rms_db(pcm) < -10
        assert peak_db(pcm) < 0
        assert unheard(answer, asyncio.run(heard(path))) <= UNHEARD_MAX
    pcm, _ = wav.read(tmp_path / "conversation.wav")
    assert len(pcm) > 5 * 48_000
