"""Hearing a turn while it is spoken: when drafts are made, what is told of them, what is left for the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence

import pytest

from vivavoce.engines import TranscriptionHints, incremental
from vivavoce.engines.cores import Cores, Urgency
from vivavoce.engines.incremental import Care, IncrementalListening, Sketch, Sound, agreed
from vivavoce.errors import EngineError

FRAME_MS = 32
BYTES_PER_MS = 32
FRAME = FRAME_MS * BYTES_PER_MS
WORD_FRAMES = 5
DRAFT_SPEECH_MS = 600


@pytest.fixture(autouse=True)
def drafts_as_the_words_here_are_laid_out_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incremental, "DRAFT_SPEECH_MS", DRAFT_SPEECH_MS)
    monkeypatch.setattr(incremental, "DRAFT_SPEECH_IDLE_MS", DRAFT_SPEECH_MS)


class Activity:
    """Speech is whatever is not zero."""

    def __init__(self) -> None:
        self._rest = b""

    def push(self, audio: bytes) -> Sequence[float]:
        self._rest += audio
        found = []
        while len(self._rest) >= FRAME:
            found.append(0.9 if any(self._rest[:FRAME]) else 0.0)
            self._rest = self._rest[FRAME:]
        return found


class EarDouble:
    """Hears the token n where the byte n is spoken for five frames; of a word cut short it makes token 200."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, tuple[int, ...], tuple[int, ...], bool]] = []
        self.failures = 0
        self.is_sure = True
        self.gate: threading.Event | None = None
        """Closed until it is set."""
        self.began = threading.Event()

    def sketch(
        self,
        audio: bytes,
        speech_s: float,
        hints: TranscriptionHints,
        known: Sequence[int],
        guess: Sequence[int],
        cancelled: threading.Event,
        care: Care,
    ) -> Sketch:
        self.calls.append((round(speech_s * 1000), tuple(known), tuple(guess), care is Care.END))
        if self.gate is not None:
            self.began.set()
            self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise EngineError("broken", code="transcription_failed")
        spoken = [token for token in dict.fromkeys(audio[::BYTES_PER_MS]) if token]
        tokens = [token if audio.count(token) >= WORD_FRAMES * FRAME else 200 for token in spoken]
        assert tokens[: len(known)] == list(known), "the double never contradicts what was told"
        return Sketch(tuple(tokens), self.text(tokens), self.is_sure)

    def starts_word(self, token: int) -> bool:
        return True

    def text(self, tokens: Sequence[int]) -> str:
        return "".join(f" {token}" for token in tokens)


def words(first: int, last: int) -> bytes:
    return b"".join(bytes([token]) * (WORD_FRAMES * FRAME) for token in range(first, last + 1))


def pause(ms: int) -> bytes:
    return bytes(ms * BYTES_PER_MS)


def noise(amplitude: int, ms: int) -> bytes:
    """A word has an amplitude of 257 times its token."""
    return amplitude.to_bytes(2, "little") * (ms * BYTES_PER_MS // 2)


class Turn:
    """An open turn with the doubles, and what it told."""

    def __init__(self, *, is_told: bool = True) -> None:
        self.ear = EarDouble()
        self.told: list[str] = []
        self.guesses: list[str] = []
        sound = Sound(Activity(), FRAME_MS, BYTES_PER_MS)
        told = self._hear if is_told else None
        self.cores = Cores(2)
        share = self.cores.share("ear", 2)
        self.listening = IncrementalListening(self.ear, share, sound, TranscriptionHints(), told)

    def _hear(self, told: str, guess: str) -> None:
        if told:
            self.told.append(told)
        self.guesses.append(guess)

    async def speak(self, audio: bytes, piece: int = 640) -> None:
        for start in range(0, len(audio), piece):
            self.listening.push(audio[start : start + piece])
            await self.listening.idle()


def played(script: Callable[[Turn], Awaitable[None]], *, is_told: bool = True) -> Turn:
    async def play() -> Turn:
        turn = Turn(is_told=is_told)
        await script(turn)
        return turn

    return asyncio.run(play())


# --- when -------------------------------------------------------------------------------------------------------------


def test_at_a_pause_the_text_is_there_before_it_is_asked_for() -> None:
    async def script(turn: Turn) -> None:
        await turn.speak(words(1, 2) + pause(100))
        assert turn.ear.calls == [(320, (), (), False)]
        assert await turn.listening.settle() == "1 2"
        assert len(turn.ear.calls) == 1, "nothing was left to do"

    played(script)


def test_what_was_in_doubt_at_a_pause_is_drafted_with_more_care_at_the_end() -> None:
    async def script(turn: Turn) -> None:
        turn.ear.is_sure = False
        await turn.speak(words(1, 2) + pause(100))
        assert await turn.listening.settle() == "1 2"
        assert [call[3] for call in turn.ear.calls] == [False, True]
        assert await turn.listening.settle() == "1 2"
        assert len(turn.ear.calls) == 2, "there is none better"

    played(script)


def test_without_a_pause_a_draft_is_made_now_and_then() -> None:
    async def script(turn: Turn) -> None:
        await turn.speak(words(1, 9))
        heard = [call[0] for call in turn.ear.calls]
        assert heard[0] == DRAFT_SPEECH_MS + (-DRAFT_SPEECH_MS) % FRAME_MS
        assert len(heard) == 2
        assert heard[1] - heard[0] > DRAFT_SPEECH_MS, "a longer stretch is drafted less often"
        assert await turn.listening.settle() == "1 2 3 4 5 6 7 8 9"
        assert turn.ear.calls[-1][3], "the last is guarded"

    played(script)


@pytest.mark.parametrize("is_busy", [False, True])
def test_while_nobody_else_computes_drafts_are_made_more_often(monkeypatch: pytest.MonkeyPatch, is_busy: bool) -> None:
    monkeypatch.setattr(incremental, "DRAFT_SPEECH_IDLE_MS", 320)

    async def script(turn: Turn) -> None:
        other, begun, let_go = turn.cores.share("other", 1), threading.Event(), threading.Event()

        def compute() -> None:
            begun.set()
            let_go.wait()

        if is_busy:
            computing = asyncio.create_task(other.run(Urgency.NOW, compute))
            await asyncio.to_thread(begun.wait)
        await turn.speak(words(1, 4))
        assert turn.ear.calls[0][0] == (DRAFT_SPEECH_MS + FRAME_MS // 4 if is_busy else 320)
        let_go.set()
        if is_busy:
            await computing
        await other.close()

    played(script)


def test_each_draft_is_the_guess_of_the_next() -> None:
    async def script(turn: Turn) -> None:
        await turn.speak(words(1, 3) + pause(100) + words(4, 5) + pause(100))
        assert [call[2] for call in turn.ear.calls] == [(), (1, 2, 3)]

    played(script, is_told=False)


def test_a_silence_is_noticed_by_its_level_before_voice_activity_falls() -> None:
    async def script(turn: Turn) -> None:
        await turn.speak(noise(1, 160) + words(50, 51) + noise(1, 70))
        assert len(turn.ear.calls) == 1, "though the double of voice activity takes any noise for speech"
        await turn.speak(pause(100))
        await turn.listening.settle()
        assert len(turn.ear.calls) == 1, "nothing was left to do"

    played(script)


def test_a_silence_is_noticed_wherever_the_frames_of_voice_activity_begin() -> None:
    async def script(turn: Turn) -> None:
        await turn.speak(noise(1, 160) + words(50, 51) + noise(257 * 51, 12) + noise(1, FRAME_MS - 4), piece=128)
        assert turn.ear.calls == [], "a silence is as long as a frame at least"
        await turn.speak(noise(1, 4))
        assert len(turn.ear.calls) == 1, "though the frame is not complete before 16 ms more"
        await turn.speak(noise(1, 60))
        await turn.listening.settle()
        assert len(turn.ear.calls) == 1, "nothing was left to do"

    played(script)


def test_where_the_noise_is_nearly_as_loud_as_the_voice_levels_say_nothing() -> None:
    async def script(turn: Turn) -> None:
        await turn.speak(noise(1_500, 160) + words(50, 51) + noise(1_500, 100))
        assert turn.ear.calls == []

    played(script)


def test_nothing_is_drafted_while_nobody_speaks() -> None:
    async def script(turn: Turn) -> None:
        await turn.speak(pause(3_000))
        assert await turn.listening.settle() == ""
        assert turn.ear.calls == []

    played(script)


def test_after_it_was_settled_more_may_be_said() -> None:
    async def script(turn: Turn) -> None:
        await turn.speak(words(1, 2) + pause(200))
        assert await turn.listening.settle() == "1 2"
        await turn.speak(words(3, 3) + pause(200))
        assert await turn.listening.settle() == "1 2 3"

    played(script)


# --- what is told -----------------------------------------------------------------------------------------------------


def test_words_on_which_three_drafts_agree_are_told_but_not_the_last_ones() -> None:
    async def script(turn: Turn) -> None:
        await turn.speak(words(1, 4) + pause(100))
        assert turn.told == [], "two drafts agree on two words"
        await turn.speak(words(5, 5) + pause(100))
        assert turn.told == ["1 2"], "and so does a third"
        await turn.speak(words(6, 13) + pause(100))
        text = await turn.listening.settle()
        assert len(turn.told) >= 2
        assert text.startswith("".join(turn.told))
        assert turn.ear.calls[-1][1], "what was told is known to the next draft"

    played(script)


def test_the_other_words_are_told_as_a_guess_but_not_one_that_may_be_cut_short() -> None:
    async def script(turn: Turn) -> None:
        await turn.speak(words(1, 4))
        assert turn.guesses == ["1 2 3"]
        await turn.speak(pause(100))
        assert (turn.told, turn.guesses[-1]) == ([], "1 2 3 4")
        await turn.speak(words(5, 5) + pause(100))
        assert (turn.told, turn.guesses[-1]) == (["1 2"], " 3 4 5")

    played(script)


def test_a_long_pause_divides_and_what_lies_before_it_is_told_whole_and_once() -> None:
    async def script(turn: Turn) -> None:
        await turn.speak(words(1, 3) + pause(1_500))
        before = len(turn.ear.calls)
        await turn.speak(words(4, 6) + pause(100))
        assert turn.told == ["1 2 3"]
        assert [call[2] for call in turn.ear.calls[before:]] == [()], "the first stretch was not drafted again"
        assert await turn.listening.settle() == "1 2 3 4 5 6"

    played(script)


def test_somebody_who_speaks_for_long_is_heard_whole() -> None:
    async def script(turn: Turn) -> None:
        await turn.speak(words(1, 60) + pause(200) + words(61, 125) + pause(200), piece=3_200)
        text = await turn.listening.settle()
        assert text.startswith("".join(turn.told).strip())
        # A cut may fall into a word, which then is heard on both sides.
        assert {token for token in text.split() if token != "200"} >= {str(n) for n in range(1, 60)}
        assert max(call[0] for call in turn.ear.calls) <= 27_000

    played(script)


def test_nothing_is_told_where_nobody_asked() -> None:
    async def script(turn: Turn) -> None:
        await turn.speak(words(1, 9) + pause(100) + words(10, 12) + pause(100))
        assert all(call[1] == () for call in turn.ear.calls), "so every draft is free"
        assert await turn.listening.settle() == " ".join(str(n) for n in range(1, 13))

    played(script, is_told=False)


# --- ends -------------------------------------------------------------------------------------------------------------


def test_a_turn_that_was_given_up_is_not_heard_any_more() -> None:
    async def script(turn: Turn) -> None:
        await turn.speak(words(1, 3) + pause(100))
        turn.listening.cancel()
        await turn.speak(words(4, 9) + pause(100))
        assert len(turn.ear.calls) == 1
        assert turn.told == []

    played(script)


def test_a_draft_that_fails_is_not_missed_and_the_last_one_says_why() -> None:
    async def script(turn: Turn) -> None:
        turn.ear.failures = 1
        await turn.speak(words(1, 2) + pause(100))
        assert await turn.listening.settle() == "1 2"
        turn.ear.failures = 2
        await turn.speak(words(3, 3) + pause(100))
        with pytest.raises(EngineError, match="broken"):
            await turn.listening.settle()
        assert await turn.listening.settle() == "1 2 3"

    played(script)


def test_a_draft_that_waits_for_a_core_leaves_the_queue_when_the_last_one_is_wanted() -> None:
    async def script(turn: Turn) -> None:
        others = turn.cores.share("others", 2)
        ahead = await turn.cores.take(others, Urgency.SPARE)
        turn.listening.push(words(1, 9))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert turn.cores.waiting == 1, "other work ahead has the only place that there is for it"
        assert await turn.listening.settle() == "1 2 3 4 5 6 7 8 9"
        assert [call[3] for call in turn.ear.calls] == [True], "the draft was never made"
        assert turn.cores.waiting == 0
        turn.cores.give_back(ahead)

    played(script)


def test_what_is_settled_goes_on_though_more_comes_meanwhile() -> None:
    async def script(turn: Turn) -> None:
        turn.ear.gate = threading.Event()
        turn.listening.push(words(1, 2))
        settling = asyncio.ensure_future(turn.listening.settle())
        await asyncio.to_thread(turn.ear.began.wait)
        turn.listening.push(words(3, 3) + pause(100))
        turn.ear.gate.set()
        assert await settling == "1 2"
        await turn.listening.idle()
        assert await turn.listening.settle() == "1 2 3"

    played(script)


def test_a_stretch_is_completed_and_told_once_though_a_pause_comes_meanwhile() -> None:
    async def script(turn: Turn) -> None:
        turn.ear.is_sure = False
        await turn.speak(words(1, 3) + pause(1_500))
        turn.ear.gate, calls = threading.Event(), len(turn.ear.calls)
        turn.listening.push(words(4, 8))
        await asyncio.to_thread(turn.ear.began.wait)
        turn.listening.push(pause(100))
        turn.ear.gate.set()
        await turn.listening.idle()
        assert "".join(turn.told) == "1 2 3"
        assert await turn.listening.settle() == "1 2 3 4 5 6 7 8"
        assert len([call for call in turn.ear.calls[calls:] if call[0] == 480]) == 1, "the first stretch, once"

    played(script)


def test_a_click_does_not_make_a_quiet_voice_silent() -> None:
    async def script(turn: Turn) -> None:
        click = (32_000).to_bytes(2, "little") * (FRAME // 2)
        quiet = (300).to_bytes(2, "little") * (64 * FRAME // 2)
        await turn.speak(noise(1, 320) + click + quiet)
        assert min(turn.listening._sound.probabilities[11:]) > 0

    played(script)


def test_what_drafts_agree_on() -> None:
    def starts(token: int) -> bool:
        return token < 100

    assert agreed([], [1, 2, 3], starts, 0) == 0
    assert agreed([1, 2, 3], [1, 2, 3], starts, 0) == 3
    assert agreed([1, 2, 3], [1, 2, 3], starts, 2) == 1
    assert agreed([1, 2, 9], [1, 2, 3, 4, 5], starts, 2) == 2
    assert agreed([1, 100, 9], [1, 100, 101, 4, 5, 6], starts, 1) == 0, "a word is whole or not told"
    assert agreed([1, 100, 4], [1, 100, 4, 5, 6], starts, 1) == 3
