"""Doubt about what a transcriber wrote: does the text repeat itself, is there more of it than anybody could say?

A sequence model that loses its place repeats a word or a sentence until it is stopped, or makes up a polite phrase for
a noise. Everything here judges the text, the number of its tokens and the decoder's own confidence, never the audio.
Pure functions; the thresholds are named, and were set on recordings with noise, cuts and changes of speed.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

__all__ = ["Draft", "doubtful", "noise", "plain", "without_repetition"]

REPEATS_MAX = {1: 3, 2: 2}
"""How often a block of so many words may follow itself directly; a longer block may not repeat at all."""
BLOCK_WORDS_MAX = 40
TOKENS_FREE = 4
TOKENS_PER_SPEECH_S_MAX = 9.0
"""More tokens than this in a second of voice (beyond the free ones) are more than English speech has."""
SCORE_MIN = -1.0
SCORE_SLACK = 1.0
"""Mean log-probability of the tokens; the slack is shared by all of them, because the mean of a few says little."""
COMPRESSION_MAX = 2.4
COMPRESSION_CHARACTERS_MIN = 100
"""Text that shrinks by more than the ratio says the same thing over and over; short text proves nothing."""
NO_SPEECH_MIN = 0.5
NOISE_SCORE_MAX = -1.25
"""Where no speech is likely, a text less sure than this is an invention. Real words were seen down to -1.14."""
NOISE_PHRASES = frozenset({"you", "bye", "bye bye", "thank you", "thanks for watching", "thank you for watching", "so"})
"""What Whisper makes of noise when it makes something of it."""

_WORD = re.compile(r"\w+(?:['’]\w+)*")


@dataclass(frozen=True, slots=True)
class Draft:
    """One decoding: its text, how many tokens, their mean log-probability, the probability of no speech at all.

    `complete` is false where the limit of tokens cut it off.
    """

    text: str
    tokens: int
    score: float
    no_speech: float
    complete: bool


def doubtful(draft: Draft, speech_s: float, language: str = "en") -> str | None:
    """Why `draft` should be decoded again, or None. `speech_s` is how long somebody really spoke."""
    if not draft.complete:
        return "cut off by the limit of tokens"
    if draft.score < SCORE_MIN - SCORE_SLACK / max(draft.tokens, 1):
        return "low confidence"
    if language == "en" and draft.tokens > TOKENS_FREE + TOKENS_PER_SPEECH_S_MAX * speech_s:
        return "more than can be said in the time"
    words = plain(draft.text).split()
    if _repetition(words) is not None:
        return "a repetition"
    encoded = draft.text.encode()
    if len(encoded) >= COMPRESSION_CHARACTERS_MIN and len(encoded) / len(zlib.compress(encoded)) > COMPRESSION_MAX:
        return "repetitive text"
    return None


def noise(draft: Draft) -> bool:
    """Whether `draft` is what a transcriber writes when nobody spoke: no words, or words that it does not believe."""
    said = plain(draft.text)
    if not said:
        return True
    return draft.no_speech >= NO_SPEECH_MIN and (draft.score < NOISE_SCORE_MAX or said in NOISE_PHRASES)


def plain(text: str) -> str:
    """Words in lower case without punctuation, for comparing."""
    return " ".join(_WORD.findall(text.lower()))


def without_repetition(text: str) -> str:
    """`text` with every block of words that follows itself too often said once."""
    spans = [match.span() for match in _WORD.finditer(text)]
    words = [text[start:end].lower() for start, end in spans]
    while (found := _repetition(words)) is not None:
        first, block, times = found
        # The last copy stays, because what follows it (punctuation, the next word) belongs to it.
        cut_from, cut_to = spans[first][0], spans[first + block * (times - 1)][0]
        text = text[:cut_from] + text[cut_to:]
        spans = [match.span() for match in _WORD.finditer(text)]
        words = [text[start:end].lower() for start, end in spans]
    return text


def _repetition(words: list[str]) -> tuple[int, int, int] | None:
    """The first block that follows itself too often: its first word, its length, how many copies."""
    for block in range(1, min(BLOCK_WORDS_MAX, len(words) // 2) + 1):
        run = 0
        for index in range(block, len(words)):
            run = run + 1 if words[index] == words[index - block] else 0
            copies = 1 + run // block
            if copies > REPEATS_MAX.get(block, 1):
                return _whole_run(words, index - run - block + 1, block)
    return None


def _whole_run(words: list[str], first: int, block: int) -> tuple[int, int, int]:
    """The block at `first` with the number of its copies in a row."""
    times = 1
    while words[first + times * block : first + (times + 1) * block] == words[first : first + block]:
        times += 1
    return first, block, times
