"""What the words of a transcript say about whether a sentence is over: signs, each with how strongly it shows.

A turn detector adds the signs up with its weights. Pure text, no model. The marks that a transcriber sets are read in
any language, words in English only: a transcript that shows no English keeps its marks and loses the rest.
Invariant: no text gives no sign at all, every sign is above 0 and at most 1, and only the end of a long text costs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

__all__ = ["SIGNS", "signs"]

SIGNS = (
    "text",
    "asking",
    "unmarked",
    "comma",
    "trailing",
    "hesitating",
    "hanging",
    "leaning",
    "wanting",
    "describing",
    "counting",
    "condition",
    "lone",
    "reply",
    "courtesy",
)
"""`text`: there is any; `asking`: ends with a question mark; `unmarked`: with no mark; `comma`; `trailing`: with dots
or a dash; `hesitating`: with a filler; `hanging`: with a word that cannot be the last; `leaning`: with one that seldom
is; `wanting`: with a verb that lacks its object; `describing`: with an adjective that lacks its noun; `counting`: with
a number that goes on, or before one that was announced; `condition`: a subordinate clause alone; `lone`: one word that
is no answer; `reply`: an answer complete by itself; `courtesy`: ends with please, thanks or goodbye."""

CHARACTERS_MAX = 400
"""What stands further in front is not read."""
FOREIGN_WORDS_MIN = 3
"""So many words without a common English one are taken for another language."""
QUESTION_WORDS_MIN = 4
"""A question that ends in a preposition has so many words: “what is it like”, not “what of”."""
DIGITS_MIN, CODE_DIGITS_MIN = 7, 4
"""Fewer digits are not a whole telephone, card or account number; fewer are no code."""
MAIN_CLAUSE_WORDS_MIN = 3
"""Behind a comma, so many words may be the main clause."""


def signs(transcript: str) -> Mapping[str, float]:
    """The signs of `SIGNS` that a transcript shows; empty for a text without a letter or digit."""
    text = transcript.strip()[-CHARACTERS_MAX:].replace("’", "'")
    words = _split(text)
    if not words:
        return {}
    found = {"text": 1.0, **_mark(text)}
    if _is_english(words):
        # The last sentence decides; what came before it is over.
        sentence = _SENTENCE_END.split(text)[-1]
        last = _split(sentence)
        found |= _words(last, sentence, is_whole=len(last) == len(words))
    return found


# --- rules ------------------------------------------------------------------------------------------------------------


def _split(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def _mark(text: str) -> dict[str, float]:
    """What the last mark says; a full stop says nothing, because transcribers set it everywhere."""
    if _TRAILING.search(text):
        return {"trailing": 1.0}
    last = text.rstrip(_CLOSING)[-1:]
    if last in "?？؟":
        return {"asking": 1.0}
    if last in ",;:，、":
        return {"comma": 1.0}
    return {} if last in ".!。！।" else {"unmarked": 1.0}


def _is_english(words: Sequence[str]) -> bool:
    if any(not re.search("[a-z0-9]", word) for word in words):
        return False
    is_number = all(_NUMBER.fullmatch(word) for word in words)
    return len(words) < FOREIGN_WORDS_MIN or is_number or not _COMMON.isdisjoint(words)


def _words(words: Sequence[str], sentence: str, *, is_whole: bool) -> dict[str, float]:
    """What the words of the last sentence say, which is the whole text or not."""
    line = " ".join(words)
    if is_whole and line in _REPLIES:
        return {"reply": 1.0}
    if _COURTESY.search(line) and not _BEGGING.search(line):
        return {"courtesy": 1.0}
    found = _lack(words, line)
    if _is_condition(line, sentence):
        found["condition"] = 1.0
    if is_whole and len(words) == 1 and not found and not _NUMBER.fullmatch(line):
        found["lone"] = 1.0
    return found


def _lack(words: Sequence[str], line: str) -> dict[str, float]:
    """What the end of a sentence lacks: the surest that fits, or nothing."""
    if words[-1] in _FILLERS or _STALLING.search(line):
        return {"hesitating": 1.0}
    if counting := _counting(words, line):
        return {"counting": counting}
    if _is_wanting(words, line):
        return {"wanting": 1.0}
    if _is_hanging(words, line):
        return {"hanging": 1.0}
    if _UNIT.search(line) or _is_describing(words):
        return {"describing": 1.0}
    return {"leaning": 1.0} if _is_leaning(words[-1], line) else {}


def _counting(words: Sequence[str], line: str) -> float:
    """1 where a number was announced and is not whole; a half where the last words are a row of numbers."""
    if _ANNOUNCED.search(line):
        return 1.0
    row = 0
    while row < len(words) and _NUMBER.fullmatch(words[-1 - row]):
        row += 1
    if not row:
        return 0.0
    digits = sum(max(1, sum(letter.isdigit() for letter in word)) for word in words[len(words) - row :])
    if _NUMBERED.search(line):
        return float(digits < (CODE_DIGITS_MIN if _CODED.search(line) else DIGITS_MIN))
    return 0.5 if row > 1 and digits < DIGITS_MIN else 0.0


def _is_wanting(words: Sequence[str], line: str) -> bool:
    if _BEGGING.search(line):
        return True
    is_denied = words[-1] == "to" and _DENIAL.search(line)
    return bool(_WANTING.search(line)) and not (is_denied or _OBJECT_AHEAD.search(line))


def _is_hanging(words: Sequence[str], line: str) -> bool:
    if words[-1] not in _PREPOSITIONS:
        return words[-1] in _HANGING
    is_asked = len(words) >= QUESTION_WORDS_MIN and _QUESTION.match(line)
    return not is_asked and not (words[-1] == "to" and _DENIAL.search(line))


def _is_describing(words: Sequence[str]) -> bool:
    """Whether adjectives at the end follow an article or a number: “a large”, not “it is large”."""
    at = len(words) - 1
    while at > 0 and words[at] in _ADJECTIVES:
        at -= 1
    follows = words[at] in _DETERMINERS or _NUMBER.fullmatch(words[at]) is not None
    return follows and at < len(words) - 1


def _is_leaning(last: str, line: str) -> bool:
    if last in _PARTICLES:
        return not _PHRASAL.search(line)
    if last in _LINKS:
        return not (_ELLIPSIS.search(line) or (last in ("do", "have") and _QUESTION.match(line)))
    if last in _POINTING:
        return not (_POINTED.search(line) or _QUESTION.match(line))
    return last in _LEANING


def _is_condition(line: str, sentence: str) -> bool:
    """A clause that waits for another one: it begins with its conjunction, and no main clause follows."""
    if not _CONDITION.search(line) or sentence.endswith("?"):
        return False
    if line.startswith("because") and sentence.endswith("."):
        return False  # “Because I was tired.” is an answer.
    _, comma, rest = sentence.rstrip(" ,").rpartition(",")
    if comma and len(_split(rest)) >= MAIN_CLAUSE_WORDS_MIN:
        return False
    return not _MAIN_CLAUSE.search(line)


# --- words ------------------------------------------------------------------------------------------------------------


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_WORD = re.compile(r"[^\W_]+(?:['.,:-][^\W_]+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=\S*[^\W_])")
_TRAILING = re.compile(r"(?:\.\.+|…|[-–—])[\"'”)»]*$")
_CLOSING = "\"'”)» "

_FILLERS = _set("um umm uh uhm uhh er erm hmm hm mm ah eh")
_STALLING = re.compile(r"\b(?:you know|i mean|let me see|let me think|let's see)$")

_DETERMINERS = _set("a an the my your our their its his her these those some any every each another")
_HANGING = _set(
    "a an the my your our their every and or but nor because although unless whereas whether if than i'm you're we're "
    "they're i'll you'll we'll they'll he'll she'll it'll i've you've we've they've i'd we'd they'd let's gonna wanna "
    "very of into onto upon between among during without against towards toward via per including regarding"
)
# Last only in a question (“who is it from?”) or behind a denial (“I do not want to”).
_PREPOSITIONS = _set("to for at about by from with of like into after before until since near under behind through")
_QUESTION = re.compile(
    r"(?:so |and |but |well )?"
    r"(?:what|who|whom|which|where|how|why|when (?:do|does|did|is|are|was|were|will|can|should))\b"
)
_DENIAL = re.compile(r"\b(?:not|don't|doesn't|didn't|can't|couldn't|won't|wouldn't|never|if you|used|nothing|have)\b")

_PARTICLES = _set("on in up out off over back down around along away across")
_PHRASAL = re.compile(
    r"\b(?:turn|switch|come|go|log|sign|hurry|shut|pick|hang|sit|stand|check|figure|put|take|get|give|bring|call|set|"
    r"move|wake|look|find|fill|drop|hold|carry|keep|slow|speed|calm|start|end|cut|leave|stay|let|throw|try|write|work|"
    r"pass|run|break|back)(?:s|ed|ing|ning|ting)?\b|\b(?:went|came|took|gave|got|brought|found|ran|left|wrote|held)\b"
)
_LINKS = _set(
    "is are was were am be been being has have had do does did can could will would shall should may might must "
    "isn't aren't wasn't weren't don't doesn't didn't haven't hasn't can't won't wouldn't what's where's who's it's "
    "that's there's he's she's here's how's"
)
# A short answer, a comparison, an indirect question: “yes I do”, “than he was”, “where it is”.
_ELLIPSIS = re.compile(
    r"\b(?:yes|no|yeah|so|than|as|where|what|who|how|which|think|thought|know|sure|hope|i|we|you|he|she|they|it)\b.*"
    r"\b(?:i|you|he|she|it|we|they|that|this|there|one) \S+$"
    r"|^(?:yes |no |yeah |sure |so |maybe )*(?:i|you|he|she|it|we|they) \S+$"
)
_POINTING = _set("that this these those her both so not then instead why how when where")
# What such a word may end: “I want that”, “I think so”, “what about this”, “I do not know why”.
_POINTED = re.compile(
    r"\b(?:like|about|do|of|hear|want|need|hope|why|maybe|to|for|with|it|is|did|know)\b"
    r"|\b(?:think|guess|say) so$|\bthink not$"
)
_LEANING = _set(
    "his its some any another either neither several many most such other quite rather really just only even also "
    "who whom whose which while as though what kind sort type couple bit lots plenty "
    "i we they he she"
)

_WANTING = re.compile(
    r"\b(?:i|we|you|they|to|i'd|we'd|i'll|we'll|can|could|please|don't|would|let's|and)"
    r"(?: just| really| also| rather| like to| want to| need to)?"
    r" (?:want|need|like|get|have|take|make|put|add|buy|give|send|bring|find|book|order|set|use|tell|ask|say|mean|"
    r"prefer|love|see|keep|change|create|play|show|remind|cancel|schedule|reserve|think|believe|guess|hope|suppose|"
    r"wonder)$"
    r"|\b(?:give|get|make|bring|send|show|tell|hand|pass|find|buy|order|remind|let|help|ask|call) "
    r"(?:me|us|him|her|them)$"
    r"|\b(?:want|need|wanted|needed|have|going|trying|able|like|used|supposed|about|ready) to$"
    r"|^(?:put|add|set|play|send|book|give|get|make|find|buy|bring|order|show|tell|ask|remind|schedule|brew|create|"
    r"change|use|open|close|remove|delete|turn|switch|take|call)$"
)
# The object stands in front, or there is none: “what do you mean”, “as you like”, “please help me”.
_OBJECT_AHEAD = re.compile(
    r"^(?:what|which|who|whom|how much|how many|how long|whatever|as|that's what|if)\b|\b(?:help|call|let|ask) "
    r"(?:me|us|him|her|them)$"
)
_BEGGING = re.compile(r"\b(?:can|could|would|will) (?:you|i|we) please$")

_ADJECTIVES = _set(
    "large small big little tiny huge long short tall high low new old young good bad better best worse nice great "
    "fine hot cold warm cool iced dark light bright medium regular extra double triple single whole half full empty "
    "strong weak heavy quick fast slow early late first second third last next previous other same different certain "
    "specific red blue green white black brown yellow grey gray orange pink purple natural local national public "
    "private main real simple easy hard difficult free cheap expensive special general personal human american "
    "english french german beautiful pretty important possible final total several few many more most less least"
)
# A measure in the singular describes what is to come: “a twelve ounce”, “a two hour”.
_UNIT = re.compile(
    r"\b(?:\d*[02-9]|\d+1|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|sixteen|twenty|thirty|"
    r"forty|fifty|sixty|ninety|hundred)[ -](?:ounce|inch|foot|mile|metre|meter|litre|liter|gram|pound|dollar|euro|"
    r"minute|hour|day|week|month|year|night|person|bedroom|star|seat|page|door|piece)$"
)

_NUMBER = re.compile(
    r"\d[\d,.-]*|oh|zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|"
    r"sixteen|seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|"
    r"double|triple|plus"
)
_NUMBERED = re.compile(
    r"\b(?:number|code|phone|pin|id|digits|account|card|zip|postcode|extension|reference|telephone|mobile|cell|"
    r"call (?:me|him|her|us))\b"
)
_CODED = re.compile(r"\b(?:code|pin|extension|zip|id|postcode)\b")
# What was announced is still to come: “my number is”, “the problem is that”.
_ANNOUNCED = re.compile(
    r"\b(?:number|code|phone|pin|id|name|address|email|account|password|birthday|telephone|extension|zip|postcode|"
    r"question|problem|issue|thing|point|idea|answer|reason) (?:is|was|would be|are)(?: that)?$"
)

_CONDITION = re.compile(
    r"^(?:and |but |so |for |well |then )?(?:if|when|whenever|because|although|though|unless|since|while|whereas|"
    r"after|before|once|until|as soon as|as long as|even if|even though|in case|considering|given that|"
    r"had (?:i|he|she|we|they|you))\b"
)
# Behind the words of the clause itself, somebody else does something.
_MAIN_CLAUSE = re.compile(
    r"^(?:\S+ ){4,}(?:i|you|he|she|it|we|they|please|let's|there|that|what|this) "
    r"(?:will|would|can|could|should|might|may|must|am|is|are|want|need|have)\b"
)

_REPLIES = frozenset(
    part.strip()
    for line in """
    yes, no, yeah, yep, yup, nope, nah, sure, okay, ok, alright, all right, right, correct, exactly, absolutely
    definitely, of course, certainly, yes please, no thanks, no thank you, not really, not yet, not now, maybe
    maybe later, never, never mind, nevermind, nothing, none, nobody, always, sometimes, both, neither, either
    me too, me neither, agreed, i see, i know, i do, i am, i did, i don't, i don't know, got it, done, i'm done
    thanks, thank you, thank you very much, thanks a lot, many thanks, please, sorry, pardon, excuse me, you're welcome
    stop, wait, cancel, continue, go on, go ahead, next, back, repeat, help, quit, exit, start, pause, resume, mute
    louder, quieter, undo, shut up, be quiet, hold on, one moment, just a moment, enough, hurry up, come on
    hello, hi, hey, hi there, hello there, good morning, good afternoon, good evening, good night, bye, goodbye
    bye bye, see you, see you later, great, perfect, good, fine, cool, nice, wonderful, awesome, sounds good
    that's it, that's all, that is all, that's right, that's correct, today, tomorrow, yesterday
    what, why, who, where, when, how, really, what's up, how are you, who are you, where are you, what is it, who is it
    """.strip().splitlines()
    for part in line.split(",")
)
_COURTESY = re.compile(r"\b(?:please|thanks|thank you|thank you (?:very|so) much|bye|goodbye|thanks a lot)$")

_COMMON = (_HANGING | _LINKS | _DETERMINERS | _PREPOSITIONS | _LEANING | _POINTING) | _set(
    "you it me him us them yes on in up out hello please thanks thank okay ok"
)
