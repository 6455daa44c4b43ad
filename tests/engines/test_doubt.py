"""Doubt: loops and inventions that were seen are doubted, ordinary speech is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.engines.doubt import Draft, doubtful, noise, without_repetition


def draft(text: str, *, score: float = -0.3, no_speech: float = 0.05, complete: bool = True) -> Draft:
    return Draft(text, len(text) // 4 + 1, score, no_speech, complete)


@pytest.mark.parametrize(
    ("text", "speech_s"),
    [
        ("What's the weather like?", 1.2),
        ("Five five.", 0.9),
        ("No, no, no.", 1.0),
        ("Thank you, thank you.", 1.0),
        ("Ask not what your country can do for you, ask what you can do for your country.", 6.0),
        ("I hope that we shall both forget this unhappy morning and that you will give me an opportunity.", 6.0),
        ("", 0.5),
    ],
)
def test_ordinary_speech_is_believed(text: str, speech_s: float) -> None:
    assert doubtful(draft(text), speech_s) is None


@pytest.mark.parametrize(
    ("text", "speech_s", "reason"),
    [
        ("five five five five five", 9.0, "a repetition"),
        ("That gives us a 12% chance, that gives us a 12% chance.", 6.0, "a repetition"),
        ("I go. You go. I go. You go. I go. You go.", 9.0, "a repetition"),
        ("Jump the fence and hurry up the bank and over the hills", 0.5, "more than can be said in the time"),
        ("la li " + "the man and the dog, the dog or the man, " * 6, 60.0, "repetitive text"),
    ],
)
def test_a_loop_is_doubted(text: str, speech_s: float, reason: str) -> None:
    found = doubtful(draft(text), speech_s)
    assert found == reason or (reason == "repetitive text" and found == "a repetition")


def test_repetition_that_never_follows_itself_is_seen_by_its_compression() -> None:
    text = " ".join(f"the man and the dog {number} the man or the dog" for number in range(12))
    assert doubtful(draft(text), 60.0) == "repetitive text"


def test_what_the_decoder_says_counts() -> None:
    assert doubtful(draft("a b c d e f g h", complete=False), 9.0) == "cut off by the limit of tokens"
    assert doubtful(draft("I want to go home now", score=-1.4), 9.0) == "low confidence"
    assert doubtful(draft("Yes.", score=-1.4), 0.4) is None, "the mean of two tokens says little"


def test_tokens_in_a_second_are_counted_in_english_only() -> None:
    assert doubtful(draft("x" * 120), 2.0) is not None
    assert doubtful(draft("x" * 120), 2.0, "th") != "more than can be said in the time"


@pytest.mark.parametrize("text", ["", " ", ".", " . . . .", "…", "♪"])
def test_text_without_words_is_noise(text: str) -> None:
    assert noise(draft(text))


def test_words_over_noise_are_not_believed() -> None:
    assert noise(draft(" Thank you.", score=-0.5, no_speech=0.6))
    assert noise(draft(" I'm gonna go to the door.", score=-2.1, no_speech=0.8))
    assert not noise(draft(" Thank you.", score=-0.5, no_speech=0.3))
    assert not noise(draft(" five five", score=-1.14, no_speech=0.54))
    assert not noise(draft(" Give me a coffee.", score=-0.4, no_speech=0.6))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("five five five five five", "five"),
        ("I want, I want, I want a tea.", "I want a tea."),
        ("Turn it off. Turn it off.", "Turn it off."),
        ("So a b c, a b c, a b c d", "So a b c d"),
        ("Ask not what, ask what.", "Ask not what, ask what."),
        ("", ""),
    ],
)
def test_a_repetition_is_said_once(text: str, left: str) -> None:
    assert without_repetition(text) == left


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=40))
def test_nothing_repeats_afterwards(words: list[str]) -> None:
    once = without_repetition(" ".join(words))
    assert doubtful(Draft(once, 1, 0.0, 0.0, True), 99.0) in (None, "repetitive text")
    assert set(once.split()) == set(words)
    assert without_repetition(once) == once
