"""A client frame that is no event becomes the error that the API would answer: code, dotted `param`, message.

msgspec stops at the first thing that does not fit and says in one sentence what and where. The table below reads that
sentence; where it leaves the offending value out, the frame is looked at again, one step of the path at a time and
without building the rest of it. Nothing here raises. Reference §3.2.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import msgspec

from . import shapes
from .events import ErrorDetail
from .meant import Path, Words, meant_event, meant_parameter

AUDIO_BYTES_MAX = 15 * 2**20  # of audio in one append event (reference §1.8)
AUDIO_CHARS_MAX = AUDIO_BYTES_MAX // 3 * 4  # the same in base64
FRAME_BYTES_MAX = 2 * AUDIO_CHARS_MAX  # above this a transport closes with 1009 instead of answering
VALUES_MAX = 2**21  # JSON values in one message: bounds the memory that free-form fields can make of a long message
LARGE_CHARS = 2**20  # a message this long is looked over before it is decoded
ECHO_CHARS_MAX = 200  # how much of a client's own text an error message repeats
EVENT_ID_CHARS_MAX = 512
_ABSENT = msgspec.Raw(b"")

T = TypeVar("T")


def _no_words() -> Words:
    return {}


class Vocabulary(NamedTuple):
    """The client events of a dialect: their structs, and their names as the list of supported values gives them.

    `words` says what other dialects' parameters are called here; asked for when one was used, and not before. `audio`
    is where an event may hold a stretch of audio.
    """

    events: tuple[type[msgspec.Struct], ...]
    names: tuple[str, ...]
    words: Callable[[], Words] = _no_words
    audio: tuple[Path, ...] = (("audio",),)


class Complaint(NamedTuple):
    """One complaint of msgspec, taken apart."""

    path: Path
    exact: bool  # the path leads to the value; not so inside free-form maps, whose keys are left out of it
    groups: tuple[str, ...]
    frame: str
    vocabulary: Vocabulary

    @property
    def param(self) -> str:
        """The path as the API writes it."""
        return dotted(self.path)

    @property
    def value(self) -> Any:
        """The offending value, None where it cannot be read."""
        return look(self.frame, self.path) if self.exact else None


def refusal(code: str, message: str, param: str | None = None, event_id: str | None = None) -> ErrorDetail:
    """An error that blames the client."""
    return ErrorDetail(type="invalid_request_error", code=code, message=message, param=param, event_id=event_id)


def dotted(path: Path) -> str:
    """`("item", "content", 0, "type")` as `item.content[0].type`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")[:ECHO_CHARS_MAX]


def not_supported(value: object, supported: tuple[str, ...]) -> str:
    """What to say about a value that is not in the list. Nothing is listed where the list is not known."""
    said = f"Invalid value: {_quoted(value)}."
    if not supported:
        return said
    names = [f"'{name}'" for name in supported]
    comma = "," if len(names) > 2 else ""
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])}{comma} and {names[-1]}"
    return f"{said} Supported values are: {listed}."


# --- a second look at the frame ---------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _field_decoder(name: str) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(msgspec.defstruct("Look", [("found", msgspec.Raw, _ABSENT)], rename={"found": name}))


_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw])


def _raw(frame: str, path: Path) -> memoryview:
    raw: Any = frame
    try:
        for step in path:
            raw = _ELEMENTS.decode(raw)[step] if isinstance(step, int) else _field_decoder(step).decode(raw).found
    except (msgspec.DecodeError, UnicodeError, RecursionError, IndexError):
        raw = _ABSENT
    return memoryview(raw)


def look(frame: str, path: Path) -> Any:
    """The value at `path`; None where there is none, or where it is too long to be worth it."""
    raw = _raw(frame, path)
    try:
        return msgspec.json.decode(raw) if raw.nbytes <= 8 * EVENT_ID_CHARS_MAX else None
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def oversized(frame: str, vocabulary: Vocabulary) -> ErrorDetail | None:
    """The error for a message that is too large to be decoded, None for one that may be. Copies nothing."""
    for path in vocabulary.audio:
        raw = _raw(frame, path)
        if raw.nbytes - 2 > AUDIO_CHARS_MAX and bytes(raw[:1]) == b'"':
            param = dotted(path)
            said = (
                f"Invalid '{param}': string too long. Expected at most {AUDIO_BYTES_MAX} bytes of audio in one event."
            )
            return refusal("string_above_max_length", said, param, event_id_of(frame))
    if frame.count(",") + frame.count("[") + frame.count("{") > VALUES_MAX:
        said = f"The event holds too many values. Expected at most {VALUES_MAX}."
        return refusal("array_above_max_length", said, None, event_id_of(frame))
    return None


def _is_json(frame: str) -> bool:
    """Whether the whole frame is JSON; msgspec complains of a field before it has read what follows."""
    try:
        _field_decoder("event_id").decode(frame)
    except msgspec.ValidationError:
        return True
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


def event_id_of(frame: str) -> str | None:
    """The client's id of the event, where the frame has one that may be echoed."""
    found = look(frame, ("event_id",))
    return found if isinstance(found, str) and len(found) <= EVENT_ID_CHARS_MAX else None


# --- the table --------------------------------------------------------------------------------------------------------

_NOUNS = {
    "array": "an array",
    "bool": "a boolean",
    "bytes": "a base64-encoded string",
    "float": "a number",
    "int": "an integer",
    "null": "null",
    "object": "an object",
    "str": "a string",
}
_NOUN_OF_VALUE: tuple[tuple[type, str], ...] = (
    (bool, "bool"),
    (int, "int"),
    (float, "float"),
    (str, "str"),
    (list, "array"),
    (dict, "object"),
)


def _quoted(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    cut = text if len(text) <= ECHO_CHARS_MAX else text[:ECHO_CHARS_MAX] + "…"
    return f"'{cut}'" if isinstance(value, str) else cut


def _named(kinds: str) -> str:
    nouns = [_NOUNS.get(kind, kind) for kind in kinds.split(" | ")]
    return nouns[0] if len(nouns) == 1 else f"one of {', '.join(nouns[:-1])} or {nouns[-1]}"


def _wrong_type(complaint: Complaint) -> str:
    expected, got = complaint.groups
    return f"Invalid type for '{complaint.param}': expected {_named(expected)}, but got {_named(got)} instead."


def _wrong_tag_type(complaint: Complaint) -> str:
    value = complaint.value
    got = next((noun for kind, noun in _NOUN_OF_VALUE if isinstance(value, kind)), "null")
    return _wrong_type(complaint._replace(groups=("str", got)))


def _wrong_value(complaint: Complaint) -> str:
    path, vocabulary, value = complaint.path, complaint.vocabulary, complaint.value
    supported = vocabulary.names if path == ("type",) else shapes.allowed_values(vocabulary.events, path)
    said = not_supported(complaint.groups[0].strip("'") if value is None else value, supported)
    return _with_hint(said, meant_event(value, vocabulary.names) if path == ("type",) else "")


def _wrong_modalities(complaint: Complaint) -> str:
    value = "" if complaint.value is None else f" {_quoted(complaint.value)}"
    return f"Invalid modalities:{value}. Supported combinations are: ['text'] and ['audio']."


def _wrong_size(what: str) -> Callable[[Complaint], str]:
    def say(complaint: Complaint) -> str:
        sign, limit = complaint.groups
        bound, side = ("at most", "maximum") if sign == "<=" else ("at least", "minimum")
        value = complaint.value
        got = "" if value is None else f", but got {len(value)} instead"
        return f"Invalid '{complaint.param}': {what} is beyond the {side}. Expected {bound} {limit}{got}."

    return say


def _wrong_number(complaint: Complaint) -> str:
    sign, limit = complaint.groups
    return f"Invalid '{complaint.param}': expected a value {sign} {limit}, but got {_quoted(complaint.value)} instead."


def _wrong_pattern(complaint: Complaint) -> str:
    return f"Invalid '{complaint.param}': expected a string that matches the pattern {complaint.groups[0]}."


def _wrong_base64(complaint: Complaint) -> str:
    return (
        f"Invalid '{complaint.param}'. Expected base64-encoded audio bytes (mono PCM16 at 24kHz)"
        " but got an invalid value."
    )


def _missing(complaint: Complaint) -> str:
    return f"Missing required parameter: '{complaint.param}'."


def _unknown(complaint: Complaint) -> str:
    said = f"Unknown parameter: '{complaint.param}'."
    if len(complaint.frame) > LARGE_CHARS:  # every look at a long message takes its time
        return said
    words = complaint.vocabulary.words().get(complaint.param, ())
    used = tuple(word for word in words if _raw(complaint.frame, word.path).nbytes)
    return _with_hint(said, meant_parameter(complaint.path[-1], used or words, _siblings(complaint)))


def _siblings(complaint: Complaint) -> dict[str, str]:
    """The parameters that may stand where the unknown one stands: their names, and their dotted paths."""
    kinds: tuple[Any, ...] = complaint.vocabulary.events
    holder = complaint.path[:-1]
    for depth, step in enumerate((*holder, "")):
        kind = look(complaint.frame, (*holder[:depth], "type"))
        structs = (struct for possible in kinds for struct in shapes.structs(possible))
        kinds = tuple(struct for struct in structs if shapes.tag(struct) in (None, kind)) or kinds
        if depth < len(holder):
            kinds = shapes.inside(kinds, step)
    names = (name for kind in kinds for struct in shapes.structs(kind) for name in shapes.fields(struct))
    return {name: dotted((*holder, name)) for name in names if not name.startswith(shapes.INTERNAL_TAG_PREFIX)}


def _with_hint(said: str, hint: str) -> str:
    return f"{said} {hint}" if hint else said


def _out_of_range(complaint: Complaint) -> str:
    return f"Invalid '{complaint.param}': the number is out of range."


# Where the length of an array is not what is wrong with it.
_COMBINATIONS = {"output_modalities": _wrong_modalities}


class _Rule(NamedTuple):
    pattern: re.Pattern[str]
    code: str
    say: Callable[[Complaint], str]
    names_field: bool = False  # the complaint is about a field of the object that its path names


def _rules(*rows: tuple[str, str, Callable[[Complaint], str]]) -> tuple[_Rule, ...]:
    return tuple(_Rule(re.compile(row[0], re.DOTALL), row[1], row[2], row[0].startswith("Object")) for row in rows)


_RULES = _rules(
    ("Object missing required field `(.*)`", "missing_required_parameter", _missing),
    ("Object contains unknown field `(.*)`", "unknown_parameter", _unknown),
    ("Invalid enum value (.*)", "invalid_value", _wrong_value),
    ("Invalid value (.*)", "invalid_value", _wrong_value),
    ("Invalid base64 encoded string()", "invalid_value", _wrong_base64),
    ("Expected `array` of length (<=) (.*)", "array_above_max_length", _wrong_size("the number of elements")),
    ("Expected `array` of length (>=) (.*)", "array_below_min_length", _wrong_size("the number of elements")),
    ("Expected `object` of length (<=) (.*)", "object_above_max_properties", _wrong_size("the number of properties")),
    ("Expected `str` of length (<=) (.*)", "string_above_max_length", _wrong_size("the length of the string")),
    ("Expected `str` matching regex (.*)", "invalid_value", _wrong_pattern),
    ("Expected `int` (>=) (.*)", "integer_below_min_value", _wrong_number),
    ("Expected `int` (<=) (.*)", "integer_above_max_value", _wrong_number),
    ("Expected `float` (>=) (.*)", "decimal_below_min_value", _wrong_number),
    ("Expected `float` (<=) (.*)", "decimal_above_max_value", _wrong_number),
    ("Expected `(.*)`, got `(.*)`", "invalid_type", _wrong_type),
    ("Expected `str`()", "invalid_type", _wrong_tag_type),
    ("Number out of range()", "invalid_value", _out_of_range),
)

_STEP = re.compile(r"\.([^.\[\]`]+)|\[(\d+)\]")


def _path(where: str) -> Path:
    """The path in `$.item.content[0]`. Keys of free-form maps, which msgspec writes as dots, are left out."""
    return tuple(name or int(index) for name, index in _STEP.findall(where))


def violation(error: msgspec.ValidationError, frame: str, vocabulary: Vocabulary) -> ErrorDetail:
    """The error event's detail for a frame that is JSON but no event of the vocabulary."""
    sentence, _, where = str(error).rpartition(" - at ")
    if not sentence:
        sentence, where = where, ""
    path = _path(where)
    if not _is_json(frame):
        return not_json()
    event_id = event_id_of(frame)
    for rule in _RULES:
        found = rule.pattern.fullmatch(sentence)
        if found is None:
            continue
        if rule.names_field:
            path = (*path, found[1])
        if path in ((), ("type",)) and rule.code in ("invalid_type", "missing_required_parameter"):
            return not_an_event(path, event_id)
        complaint = Complaint(path, "[...]" not in where and "`key`" not in where, found.groups(), frame, vocabulary)
        if rule.code.startswith("array_") and path[-1] in _COMBINATIONS:
            return refusal("invalid_value", _COMBINATIONS[path[-1]](complaint), complaint.param, event_id)
        return refusal(rule.code, rule.say(complaint), complaint.param, event_id)
    return refusal("invalid_value", sentence[:ECHO_CHARS_MAX], dotted(path) or None, event_id)


def not_an_event(path: Path, event_id: str | None) -> ErrorDetail:
    """JSON, but no object with a `type`."""
    missing = "The 'type' field is missing or not a string." if path else "An event must be a JSON object."
    return refusal("invalid_event", missing, None, event_id)


def not_json() -> ErrorDetail:
    """Not JSON, or nested so deep that nobody should read it."""
    return refusal("invalid_json", "The message could not be parsed as JSON.")


def not_text() -> ErrorDetail:
    """A binary message."""
    return refusal("invalid_event", "Binary messages are not supported. Send JSON text.")


# --- reading ----------------------------------------------------------------------------------------------------------


def read(frame: str | bytes, events: msgspec.json.Decoder[T], vocabulary: Vocabulary) -> T | ErrorDetail:
    """The event in a message (`bytes` stands for a binary one), or the error that answers it. Never raises."""
    if isinstance(frame, bytes):
        return not_text()
    if len(frame) > LARGE_CHARS and (error := oversized(frame, vocabulary)) is not None:
        return error
    try:
        return events.decode(frame)
    except msgspec.ValidationError as complaint:
        return violation(complaint, frame, vocabulary)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return not_json()
