"""Text deltas → phrases that can be spoken on their own.

The first phrase decides how soon the assistant is heard, so it may be as short as a clause; those behind it may be
longer each time, and end at sentences, where the voice falls anyway, if these are not too long. Invariant: the phrases
joined are the text, nothing added, nothing lost.
"""

from __future__ import annotations

from dataclasses import dataclass

SENTENCE_ENDS = ".!?…"
CLAUSE_ENDS = ",;:—"


@dataclass(frozen=True, slots=True)
class Length:
    """How long a phrase is, in characters."""

    clause_min: int
    """Where it ends at a mark within a sentence."""
    joint_min: int
    """Where it ends without a mark, in front of a word at which a speaker may breathe."""
    longest: int
    """Then it ends at any space."""


LENGTHS = (Length(8, 12, 60), Length(24, 48, 64), Length(48, 96, 150), Length(80, 200, 200))
"""Of the first, the second, the third, and all later phrases. The first decides how soon the assistant is heard, but
"Well," alone would sound cut off; the others have to be there when the one before was heard, and so are about
twice as long at most, since text comes at least twice as fast as it is spoken."""
JOINTS = (
    " about after and as at because before but by for from if in into like of on or since so than that through to "
    "until when where which while who with without "
)
"""Words in front of which a speaker may breathe."""
DETERMINERS = " a an another any each every her his its my no our some that the their these this those your "
"""These as well, but not behind one of the others: "with a lot"."""
WORD_CHARS = 4
"""So many letters in front of a mark are a word; "Mr." and "etc." have fewer."""
UNBROKEN_CHARS_MAX = 400
"""Without even a space, a phrase ends here: no synthesizer is given more at once."""
WIDE_SENTENCE_ENDS = "。！？"
WIDE_CLAUSE_ENDS = "，；："
"""Marks of scripts that put no space behind them."""
CLOSERS = "\"'”’)]»*_"


class Phrases:
    """Collects one message's text."""

    def __init__(self) -> None:
        self._text = ""
        self._seen = 0
        """No phrase ends before this index, whatever comes: so text without any end is looked at only once."""
        self._number = 0

    def push(self, delta: str) -> list[str]:
        """Take text; give the phrases that it completed. Where the first one ends may depend on where a delta does."""
        self._text += delta
        complete = []
        while end := self._end():
            complete.append(self._text[:end])
            self._text = self._text[end:]
            self._seen = 0
            self._number += 1
        return complete

    def flush(self) -> str:
        """What is left: the text has ended."""
        rest, self._text, self._seen = self._text, "", 0
        return rest

    def _end(self) -> int:
        """Where the first complete phrase ends, behind its space; 0 where none is complete yet.

        A mark counts only with a space behind it: "3.5" and "e.g." do not end a phrase, and half a number is not known
        to be one.
        """
        length = LENGTHS[min(self._number, len(LENGTHS) - 1)]
        for index in range(self._seen, len(self._text)):
            char = self._text[index]
            if char in WIDE_SENTENCE_ENDS or (char in WIDE_CLAUSE_ENDS and index >= length.clause_min):
                return index + 1
            if index + 1 >= UNBROKEN_CHARS_MAX:
                return index + 1
            if not char.isspace():
                continue
            if joint := self._joint(index, length.joint_min):
                return joint
            said = self._text[:index].rstrip(CLOSERS)
            if not said.strip():
                continue
            if char == "\n" or said[-1] in SENTENCE_ENDS or (said[-1] in CLAUSE_ENDS and index >= length.clause_min):
                return index + 1
            if index >= length.longest:
                return index + 1
        self._seen = len(self._text)
        return 0 if self._number else self._likely_end(length)

    def _likely_end(self, length: Length) -> int:
        """Where the first phrase ends, for which somebody waits, if what comes next is what usually does.

        Language models write word by word, so the last is probably whole: at worst the phrase ends in front of another
        one. Behind a mark comes a space, if the mark stands behind a word and no number or abbreviation.
        """
        text, end = self._text, len(self._text)
        if text[-1:] in tuple(SENTENCE_ENDS + CLAUSE_ENDS) and end > length.clause_min:
            return end if text[-1 - WORD_CHARS : -1].isalpha() else 0
        return self._joint(end, length.joint_min)

    def _joint(self, index: int, least: int) -> int:
        """Where the word that ends at `index` begins, if a phrase may end there, at `least` or later; else 0."""
        begin = self._text.rfind(" ", 0, index) + 1
        if begin < least:
            return 0
        word = f" {self._text[begin:index].lower()} "
        before = f" {self._text[self._text.rfind(' ', 0, begin - 1) + 1 : begin - 1].lower()} "
        return begin if word in JOINTS or (word in DETERMINERS and before not in JOINTS) else 0
