"""The embedded turn detector: what words say, what sound says, and both together."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from vivavoce.engines.endings import WEIGHTS, Endings, create, text_probability
from vivavoce.engines.intonation import CUES, RATE_HZ, cues
from vivavoce.engines.registry import PRESETS, Registry
from vivavoce.engines.wording import SIGNS, signs
from vivavoce.errors import EngineError, SettingsError

PAUSE = bytes(RATE_HZ * 2 // 5)

OVER = """
What time is it?|Turn off the lights in the kitchen.|Turn it off.|I'd like a large coffee with milk.|Yes.|No.|no|Stop
Stop!|Thanks.|Thank you.|okay|Cancel.|Set a timer for ten minutes.|What are you looking for?|Who is it from?
I don't want to.|Yes, I do.|I don't know where it is.|He is taller than I am.|My number is 555 123 4567.
My number is five five five one two three four.|The code is 4 7 1 1.|Remind me to call my mother tomorrow.
Can I have a medium cappuccino, please?|Book a table for four.|If it rains, we will stay at home.|Because I was tired.
When does the train leave?|Where can I log in?|I want that.|I think so.|What is it like?|That's all, thank you.
How much does it cost?|It is large.|I would like two.|What do you mean?|Wake me up at seven.|I need help.
Please call me back.|Never mind.|Tell me a joke.|I'm on it.|It's about time.|I give up.|She is from Spain.
No, I haven't.|No, no, no.|Where should I put this?|What do you want me to do?|See you tomorrow.|I have to go now.|Two.
The meeting is at three.|When I was young, I lived in Rome.|I do not know why.|Call 5551234567.|Is anyone there?
"""
OPEN = """
I want to|I want to.|I would like to book a|Can you tell me the|Turn on the lights and|Turn on the lights and...
My number is|My phone number is 555|My number is five five five one two.|The code is 4 7|I need a flight from
I need a flight from Berlin to|um|I was thinking, um|Well, I mean|If it rains tomorrow|If it rains tomorrow,
Because I was tired, and|When I get home from work|Although the weather was nice|Can I have a large
Can I get a 16 ounce.|Give me|Can you give me|I'd like|Could you please|I think that|The problem is
The problem is that|My name is|So what I'm trying to do is|And then I went to the|I have a question about
Is it possible to|What is the|Where is my|How do I|I live in a|He said that the|Let me think.|We need milk, eggs,
She is very|I'm|I was going to|It's kind of|Do you know if|Please add|I want you to|What's the weather in
Book a table for|I'd like a medium dark|As soon as he comes back|Which one of|Actually, I|I am looking for
Hello. My name is|When I was a child we would walk to|I went to the sh-
"""


def phrases(block: str) -> list[str]:
    return [phrase for line in block.strip().splitlines() for phrase in line.split("|")]


def voice(seconds: float, hz: Callable[[np.ndarray], np.ndarray], *, fade: float = 0.0) -> bytes:
    """A buzz of ten overtones at the pitch `hz(time)`, in syllables of 200 ms, the last ones softer by `fade`."""
    time = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    phase = 2 * np.pi * np.cumsum(hz(time)) / RATE_HZ
    buzz = sum(np.sin(n * phase) / n for n in range(1, 11))
    syllables = 0.1 + np.sin(np.pi * time / 0.2) ** 2
    loudness = np.where(time > seconds - 0.4, 1 - fade, 1.0)
    return np.asarray(5_000 * buzz * syllables * loudness, "<i2").tobytes()


def bent(semitones: float) -> Callable[[np.ndarray], np.ndarray]:
    """160 Hz for a second, and from then on up or down by so many semitones within a second."""
    return lambda time: 160 * 2 ** (np.clip(time - 1, 0, 1) * semitones / 12)


def judged(*turns: tuple[bytes, str], options: dict[str, object] | None = None) -> list[float]:
    async def judge() -> list[float]:
        engine = create(options or {})
        await engine.warm_up()
        try:
            return [await engine.judge(audio, transcript) for audio, transcript in turns]
        finally:
            await engine.close()

    return asyncio.run(judge())


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phrase", phrases(OVER))
def test_a_complete_phrase_is_rather_over(phrase: str) -> None:
    assert text_probability(phrase) >= 0.5, dict(signs(phrase))


@pytest.mark.parametrize("phrase", phrases(OPEN))
def test_an_incomplete_phrase_is_not_over(phrase: str) -> None:
    assert text_probability(phrase) < 0.4, dict(signs(phrase))


@pytest.mark.parametrize(
    ("phrase", "sign"),
    [
        ("Is it?", "asking"),
        ("we went home", "unmarked"),
        ("we went home,", "comma"),
        ("we went home …", "trailing"),
        ("we went home, uh", "hesitating"),
        ("we went home and", "hanging"),
        ("we went home with him and she", "leaning"),
        ("we want", "wanting"),
        ("we have a big", "describing"),
        ("my PIN is 12", "counting"),
        ("if we go home", "condition"),
        ("Home.", "lone"),
        ("All right.", "reply"),
        ("Go home, please.", "courtesy"),
    ],
)
def test_each_sign_is_seen(phrase: str, sign: str) -> None:
    assert sign in signs(phrase)


def test_every_sign_and_cue_has_a_weight_and_no_other() -> None:
    assert set(WEIGHTS.each) == {*SIGNS, *CUES}


@pytest.mark.parametrize("text", ["", "  ", "...", "-", "?!"])
def test_no_words_say_nothing(text: str) -> None:
    assert signs(text) == {}
    assert text_probability(text) == 0.5


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("Ich möchte gerne einen großen Kaffee mit Milch.", {"text"}),
        ("Je voudrais un café,", {"text", "comma"}),
        ("¿Qué hora tiene usted?", {"text", "asking"}),
        ("你好。", {"text"}),
        ("я хочу", {"text", "unmarked"}),
    ],
)
def test_another_language_keeps_its_marks_only(phrase: str, expected: set[str]) -> None:
    assert set(signs(phrase)) == expected
    assert 0.1 < text_probability(phrase) < 0.75


@pytest.mark.parametrize("unit", ["no ", "i it ", "a", "if ", "give me ", "5 ", "- ", "\u0000", "yes. "])
def test_any_text_gives_signs_within_their_range(unit: str) -> None:
    found = signs(unit * 2_000)
    assert set(found) <= set(SIGNS)
    assert all(0 < value <= 1 for value in found.values())


# --- sound ------------------------------------------------------------------------------------------------------------


def test_a_falling_pitch_is_more_over_than_a_rising_one() -> None:
    falls, level, rises = (voice(2, bent(by)) + PAUSE for by in (-5, 0, 5))
    found = judged((falls, ""), (level, ""), (rises, ""))
    assert found[0] > found[1] + 0.1
    assert found[1] > found[2] + 0.1


@pytest.mark.parametrize("semitones", [-6.0, -3.0, 0.0, 3.0, 6.0])
def test_pitch_is_measured_in_semitones(semitones: float) -> None:
    # The last 300 ms against the median of two seconds, one of them level. The voice ends a little earlier, in a dip.
    track = 12 * np.log2(bent(semitones)(np.linspace(0, 2, 1_000)))
    expected = np.median(track[-150:]) - np.median(track)
    assert cues(voice(2, bent(semitones)) + PAUSE)["pitch"] == pytest.approx(expected, abs=0.7)


@pytest.mark.parametrize("hz", [80, 120, 180, 260, 380])
def test_pitch_does_not_jump_by_octaves(hz: int) -> None:
    assert cues(voice(2, lambda time: np.full_like(time, hz)) + PAUSE)["pitch"] == pytest.approx(0, abs=0.2)


def test_a_soft_end_is_more_over_than_a_loud_one() -> None:
    soft, loud = (voice(2, bent(0), fade=fade) + PAUSE for fade in (0.7, 0.0))
    found = judged((soft, ""), (loud, ""))
    assert found[0] > found[1] + 0.1
    assert cues(soft)["syllable"] == pytest.approx(20 * np.log10(0.3), abs=1.5)


def test_loudness_of_the_recording_does_not_matter() -> None:
    audio = voice(2, bent(-4)) + PAUSE
    softer = (np.frombuffer(audio, "<i2") // 8).astype("<i2").tobytes()
    assert cues(softer) == pytest.approx(cues(audio), abs=0.1)


@pytest.mark.parametrize(
    "audio",
    [
        b"",
        b"\x01",
        bytes(2 * RATE_HZ),
        bytes(7),
        voice(0.1, bent(0)),
        (np.random.default_rng(1).standard_normal(RATE_HZ) * 3).astype("<i2").tobytes(),
    ],
    ids=["nothing", "half a sample", "silence", "odd", "100 ms", "hiss"],
)
def test_without_speech_to_compare_the_sound_says_nothing(audio: bytes) -> None:
    assert cues(audio) == {}
    assert judged((audio, ""), (audio, "Yes.")) == [0.5, text_probability("Yes.")]


@pytest.mark.parametrize("seed", range(4))
def test_noise_and_clicks_stay_within_range(seed: int) -> None:
    random = np.random.default_rng(seed)
    noise = random.integers(-32_768, 32_767, RATE_HZ, dtype=np.int16)
    clicks = np.zeros(RATE_HZ, np.int16)
    clicks[random.integers(0, RATE_HZ, 20)] = 32_767
    found = judged((noise.tobytes(), "Yes."), (clicks.tobytes(), ""), (b"\xff\x7f" * RATE_HZ, ""))
    assert all(0 < probability < 1 for probability in found)


def test_only_the_last_seconds_are_looked_at() -> None:
    end = voice(6, bent(-4)) + PAUSE
    assert cues(voice(9, lambda time: np.full_like(time, 300.0)) + end) == cues(end)


def test_sound_alone_is_never_sure() -> None:
    falls, rises = voice(2, bent(-9), fade=0.9) + PAUSE, voice(2, bent(9)) + PAUSE
    assert all(0.03 < probability < 0.97 for probability in judged((falls, ""), (rises, "")))


# --- both, and the engine ---------------------------------------------------------------------------------------------


def test_words_and_sound_add_up() -> None:
    falls, rises = voice(2, bent(-5)) + PAUSE, voice(2, bent(5)) + PAUSE
    best, over, open_, worst = judged(
        (falls, "I live in Rome."), (rises, "I live in Rome."), (falls, "I live in"), (rises, "I live in")
    )
    assert best > over > open_ > worst


def test_the_same_turn_gets_the_same_judgement() -> None:
    audio = voice(2, bent(-3)) + PAUSE
    first, _, again = judged((audio, "I live in Rome."), (bytes(9_999), "and"), (audio, "I live in Rome."))
    assert first == again


def test_a_bias_moves_every_judgement() -> None:
    assert judged((b"", ""), options={"bias": 1})[0] == pytest.approx(1 / (1 + np.exp(-1)))
    assert judged((b"", "yes"), options={"bias": -3})[0] < text_probability("yes")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [({"bais": 1}, "no option 'bais'; it takes bias"), ({"bias": 9}, "'bias'.*<= 3"), ({"bias": "x"}, "'bias'.*float")],
)
def test_a_wrong_option_is_named(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        create(options)


def test_it_does_not_judge_before_warm_up_or_after_close() -> None:
    async def judge() -> None:
        engine = Endings()
        with pytest.raises(EngineError, match="not warmed up") as caught:
            await engine.judge(b"", "")
        assert caught.value.code == "engine_not_ready"
        await engine.warm_up()
        await engine.close()
        with pytest.raises(EngineError):
            await engine.judge(b"", "")

    asyncio.run(judge())


def test_too_many_judgements_at_once_are_refused() -> None:
    async def judge() -> None:
        engine = create({})
        await engine.warm_up()
        tasks = [asyncio.ensure_future(engine.judge(b"", "yes")) for _ in range(300)]
        found = await asyncio.gather(*tasks, return_exceptions=True)
        refused = [error for error in found if isinstance(error, EngineError)]
        assert 0 < len(refused) < 300
        assert {error.code for error in refused} == {"engine_busy"}
        assert await engine.judge(b"", "yes") == text_probability("yes")
        await engine.close()

    asyncio.run(judge())


def test_the_registry_finds_it_and_the_local_preset_has_it() -> None:
    assert "endings" in Registry.load().names("turn_detector")
    chosen = PRESETS["local"].turn_detector
    assert chosen is not None
    assert chosen.engine == "endings"


def test_importing_it_loads_no_numpy() -> None:
    code = "import sys, vivavoce.engines.endings; print('numpy' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
