"""Text to phrases that can be spoken on their own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.core.phrases import LENGTHS, UNBROKEN_CHARS_MAX, Phrases


def split(*deltas: str) -> list[str]:
    phrases = Phrases()
    return [phrase for delta in deltas for phrase in phrases.push(delta)] + [phrases.flush()]


@given(st.lists(st.text(alphabet="abynti .,;!?\n。，1\u00a0", max_size=12), max_size=30))
def test_the_phrases_joined_are_the_text(deltas: list[str]) -> None:
    assert "".join(split(*deltas)) == "".join(deltas)


@pytest.mark.parametrize(
    ("text", "is_whole"),
    [
        ("I am sorry,", True),
        ("You are welcome.", True),
        ("Well, well,", True),
        ("Sorry,", False),
        ("It costs 3,", False),
        ("It weighs 3.", False),
        ("I know Mr.", False),
        ("Apples etc.", False),
        ("Of the U.S.", False),
        ("I am sorry", False),
        ("", False),
    ],
)
def test_the_first_phrase_ends_with_a_mark_behind_a_word(text: str, is_whole: bool) -> None:
    assert Phrases().push(text) == ([text] if is_whole else [])


@given(st.text(alphabet="abynti .,;!?\n。，1\u00a0", max_size=12), st.lists(st.text(alphabet="abi .,", max_size=9)))
def test_only_the_first_phrase_depends_on_where_deltas_end(text: str, deltas: list[str]) -> None:
    def later(*deltas: str) -> list[str]:
        phrases = Phrases()
        assert phrases.push("Yes. ") == ["Yes. "]
        return [phrase for delta in deltas for phrase in phrases.push(delta)] + [phrases.flush()]

    assert later(text, *deltas) == later(*text, *"".join(deltas))


def test_the_first_phrase_ends_as_soon_as_a_word_has_come_at_which_a_speaker_may_breathe() -> None:
    phrases = Phrases()
    assert phrases.push("The weather is fine") == []
    assert phrases.push(" with") == ["The weather is fine "]
    assert phrases.push(" a light breeze") == []
    assert phrases.push(" that comes out of the morning and") == [], "later ones can wait for the whole word"
    assert phrases.push(" is") == ["with a light breeze that comes out of the morning "]


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("Certainly, I can help. What is it?", ["Certainly, ", "I can help. ", "What is it?"]),
        ("Well, that is fine. Yes.", ["Well, that is fine. ", "Yes."]),
        ("It is 3.5 meters.", ["It is 3.5 meters.", ""]),
        ('He said "stop." Then he left.', ['He said "stop." ', "Then he left."]),
        ("one\ntwo\n", ["one\n", "two\n", ""]),
        ("你好，我很好。谢谢", ["你好，我很好。", "谢谢"]),
        ("...", ["..."]),
        ("I'm here to help with anything at all.", ["I'm here to help ", "with anything at all."]),
        ("He walked with me. I sang with all of them.", ["He walked with me. ", "I sang with all of them."]),
        ("The rest of the answer without marks", ["The rest of the answer ", "without marks"]),
        ("The weavers have mastered a craft.", ["The weavers have mastered ", "a craft."]),
        ("I was wandering a lot.", ["I was wandering ", "a lot."]),
        ("I went there since the road is good.", ["I went there ", "since the road is good."]),
        ("I am there since the road is good.", ["I am there since the road is good.", ""]),
        (
            "Welcome, this one is a longer clause, which goes on and on until it breathes for a moment there.",
            [
                "Welcome, ",
                "this one is a longer clause, ",
                "which goes on and on until it breathes for a moment there.",
            ],
        ),
        (
            "Welcome, here are some words that go on and on without any marks at all for a moment. So it is.",
            [
                "Welcome, ",
                "here are some words that go on and on without any marks ",
                "at all for a moment. ",
                "So it is.",
            ],
        ),
        ("", [""]),
    ],
)
def test_where_phrases_end(text: str, phrases: list[str]) -> None:
    assert split(text) == phrases


def test_the_first_phrase_does_not_wait_for_the_end_of_a_long_sentence() -> None:
    first, *_ = split("word " * 60)
    assert len(first) <= LENGTHS[0].longest + len("word ")


def test_later_phrases_are_sentences_but_not_without_end() -> None:
    _, second, *rest = split("Certainly, of course. " + "word " * 100)
    assert second == "of course. "
    assert [len(phrase) for phrase in rest[:2]] == [
        LENGTHS[2].longest + len("word "),
        LENGTHS[3].longest + len("word "),
    ]


def test_no_phrase_is_longer_than_a_synthesizer_can_be_given() -> None:
    assert [len(phrase) for phrase in split("x" * 1000)] == [UNBROKEN_CHARS_MAX, UNBROKEN_CHARS_MAX, 200]
    assert max(len(phrase) for phrase in split(" " * 1000)) == UNBROKEN_CHARS_MAX
