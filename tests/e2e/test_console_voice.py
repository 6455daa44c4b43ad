"""The console in a real browser, talked to: the embedded engines answer, and what reaches the page is heard again.

With `VIVAVOCE_SPEECH=FOLDER` the microphone hears recorded speech, too: WAV files, and `transcripts.tsv` beside them
with a line for each and the columns `file` and `transcript`.
"""

from __future__ import annotations

import asyncio
import csv
import os
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import jiwer
import pytest
from browser import RATE_HZ, SHOWN_MS_MAX, Server, entries, heard, listen, page_at, passed, serving, write
from playwright.async_api import Page, expect
from spoken_words import UNHEARD_MAX, plain, unheard

from vivavoce.audio import wav
from vivavoce.audio.resample import resample
from vivavoce.engines import TranscriptionHints, hibari, whisper
from vivavoce.testing.sounds import silence

pytestmark = pytest.mark.models

SECONDS_MAX = 240
CONNECTING_MS = 5_000
"""What a page needs before it hears anything. One that is slower hears the question when it is asked again."""
TURN_MS = 30_000
"""Silence behind a question, until it is asked again."""
WER_MAX = 0.35
"""Spoken by one small model and heard by another; what is wrong, cut or distorted is far above."""
QUESTION = "What colour is the sky?"
STORY = "Please tell me a story about a fox who lived near a river."
INTERRUPTION = "Stop, please. What is the capital of France?"
HEARD_MS = 2_500
"""How long the story is listened to before the user speaks into it."""
WORDS_OFF_MAX = 8
"""Between what the page says was heard and what was: it draws the line by a share of the speech."""
SPEECH = os.environ.get("VIVAVOCE_SPEECH")
FILES_MAX = 6
WORDS_MIN = 5
PAUSE_MS = 1_500
"""Who reads aloud pauses for longer than who asks."""


def run(main: Coroutine[Any, Any, None], seconds_max: float = SECONDS_MAX) -> None:
    asyncio.run(asyncio.wait_for(main, seconds_max))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("local") as server:
        yield server


class Person:
    """Speaks and hears by the embedded engines, outside of the page and its server."""

    def __init__(self) -> None:
        self._voice = hibari.create({})
        self._ear = whisper.create({})

    async def wake(self) -> None:
        await self._voice.warm_up()
        await self._ear.warm_up()

    async def rest(self) -> None:
        await self._voice.close()
        await self._ear.close()

    async def says(self, text: str) -> bytes:
        """PCM16 at 24 kHz."""
        return b"".join([piece async for piece in self._voice.speak(text, "ash", 1.0)])

    async def understands(self, sound: bytes) -> str:
        """The words in PCM16 at 24 kHz."""
        audio = resample(sound, RATE_HZ, self._ear.rate_hz)
        return "".join([text async for text in self._ear.transcribe(audio, TranscriptionHints())])


@pytest.fixture(scope="module")
def person() -> Iterator[Person]:
    person = Person()
    asyncio.run(person.wake())
    yield person
    asyncio.run(person.rest())


def wer(expected: str, found: str) -> float:
    return float(jiwer.wer(plain(expected), plain(found)))


async def words(page: Page, who: str, number: int) -> str:
    """What `user` or `assistant` said in their entry of this number, as the page shows it."""
    return await entries(page, who).nth(number).locator(".words").inner_text()


def test_a2_a_question_is_understood_and_its_answer_reaches_the_page(server: Server, person: Person) -> None:
    async def main() -> None:
        microphone = silence(CONNECTING_MS) + await person.says(QUESTION) + silence(TURN_MS)
        async with page_at(server.url, "question", microphone, loops=True) as page:
            await page.get_by_role("button", name="Start talking").click()
            await listen(page)
            await passed(page, "Listening", "Hearing you", "Thinking", "Speaking", "Listening")
            sound = await heard(page)
            asked, answer = await words(page, "user", 0), await words(page, "assistant", 0)
        assert wer(QUESTION, asked) <= WER_MAX
        assert len(plain(answer).split()) >= 3
        assert unheard(answer, await person.understands(sound)) <= UNHEARD_MAX

    run(main())


def test_a8_who_speaks_up_is_heard_and_the_page_shows_what_they_heard(server: Server, person: Person) -> None:
    async def main() -> None:
        microphone = silence(HEARD_MS) + await person.says(INTERRUPTION) + silence(TURN_MS)
        async with page_at(server.url, "speaking-up", microphone) as page:
            await write(page, STORY)
            await listen(page)
            await expect(page.locator("#state-name")).to_have_text("Speaking")
            await page.get_by_role("button", name="Use microphone").click()
            await expect(entries(page, "assistant").first).to_contain_text("cut off after")
            sound = await heard(page)
            await passed(page, "Speaking", "Hearing you", "Speaking", "Listening")
            story = await words(page, "assistant", 0)
            # A busy machine may leave a gap in what a browser's microphone hears, which ends a turn.
            await expect(entries(page, "user").last).to_contain_text(INTERRUPTION.split()[-1].rstrip("?"))
            asked = " ".join(
                [await words(page, "user", turn) for turn in range(1, await entries(page, "user").count())]
            )
            struck = "".join(await entries(page, "assistant").first.locator("del").all_inner_texts())
            await expect(entries(page, "assistant").last.locator(".words")).not_to_be_empty()
        assert wer(INTERRUPTION, asked) <= WER_MAX
        shown, reached = story.removesuffix(struck), await person.understands(sound)
        assert plain(reached)
        compared = jiwer.process_words(plain(shown), plain(reached))
        off = compared.substitutions + compared.deletions + compared.insertions
        assert off <= WORDS_OFF_MAX, (shown, struck, reached)

    run(main())


@pytest.mark.skipif(SPEECH is None, reason="VIVAVOCE_SPEECH names no folder with recorded speech")
def test_recorded_speech_is_understood(server: Server) -> None:
    async def main() -> None:
        said, shown = [], []
        for path, transcript in recordings(Path(SPEECH or "")):
            found = await transcribed(server, path)
            print(f"{path.name}: WER {wer(transcript, found):.2f}  {found!r}")
            said.append(plain(transcript))
            shown.append(plain(found))
        error = jiwer.wer(said, shown)
        print(f"{len(said)} files: WER {error:.2f}")
        assert error <= WER_MAX

    run(main(), SECONDS_MAX * FILES_MAX)


def recordings(folder: Path) -> list[tuple[Path, str]]:
    """Some of the folder, from all over it, each with what is said there."""
    with (folder / "transcripts.tsv").open(encoding="utf-8", newline="") as file:
        rows = [(folder / row["file"], row["transcript"]) for row in csv.DictReader(file, delimiter="\t")]
    told = [(path, text) for path, text in rows if len(text.split()) >= WORDS_MIN]
    assert told, f"{folder} has no file of which {WORDS_MIN} words are known"
    return told[:: -(-len(told) // FILES_MAX)]


async def transcribed(server: Server, path: Path) -> str:
    """What the page shows of the first turn that the microphone hears from this file."""
    pcm, rate_hz = wav.read(path)
    microphone = silence(CONNECTING_MS) + resample(pcm, rate_hz, RATE_HZ) + silence(TURN_MS)
    async with page_at(server.url, path.stem, microphone, loops=True) as page:
        await page.get_by_role("tab", name="Session").click()
        await page.get_by_label("Silence, ms").fill(str(PAUSE_MS))
        await page.get_by_role("button", name="Start talking").click()
        # The model answers words, so that all of them are there when it begins.
        spoken_ms = len(microphone) / (2 * RATE_HZ) * 1000
        await expect(entries(page, "assistant")).not_to_have_count(0, timeout=spoken_ms + SHOWN_MS_MAX)
        return await words(page, "user", 0)
