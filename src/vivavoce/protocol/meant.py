"""Which event or parameter a client meant that used a word of another vocabulary, or misspelt one of ours.

`violations` appends these sentences to the message of an error; its code and param stay those of the reference. The
names of events come from here, the parameters of another dialect from that dialect's table, by way of `Vocabulary`.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Final, NamedTuple, get_args

from . import shapes
from .events import AnyServerEvent

NAME_CHARS_MAX: Final = 64  # longer than any name of ours; comparing takes time that grows with the square
_CLOSE: Final = 0.75  # how alike two names must be, of 1
_VERY_CLOSE: Final = 0.85  # the same, for the names of other things

Path = tuple[str | int, ...]


class Word(NamedTuple):
    """A parameter of another dialect: where it stands in a message, and its name here; None where there is none."""

    path: Path
    name: str | None


Words = Mapping[str, tuple[Word, ...]]
"""By the dotted path that is not known here; several where it leads to an object that this dialect does not have."""

# The overview page's events in the words of the others; and what belongs to other kinds of connections.
_ELSEWHERE: Final = {
    "conversation.create": "Did you mean 'session.update'?",
    "available_functions.create": "Did you mean 'session.update' with 'session.tools'?",
    "audio": "Did you mean 'input_audio_buffer.append'?",
    "text": "Did you mean 'conversation.item.create', followed by 'response.create'?",
    "function.response": (
        "Did you mean 'conversation.item.create' with an item of type 'function_call_output', followed by "
        "'response.create'?"
    ),
    "transcription_session.update": "Did you mean 'session.update' with the 'session.type' 'transcription'?",
    "session.input_audio_buffer.append": (
        "It belongs to translation sessions. Did you mean 'input_audio_buffer.append'?"
    ),
    "session.close": "It belongs to translation sessions. To end this one, close the connection.",
    "output_audio_buffer.clear": "It is for connections on which the server plays what it says, such as WebRTC.",
}
# Where the overview page has a word of its own, for those who use the other dialects'.
_IN_OVERVIEW: Final = {
    "session.update": "Did you mean 'conversation.create'?",
    "transcription_session.update": "Did you mean 'conversation.create'?",
    "input_audio_buffer.append": "Did you mean 'audio'?",
    "session.input_audio_buffer.append": "Did you mean 'audio'?",
}
_OF_SERVERS: Final = frozenset(str(shapes.tag(struct)) for struct in get_args(AnyServerEvent)) | {
    "content_block.delta",
    "function.call",
    "response.audio.delta",
    "response.audio.done",
    "response.audio_transcript.delta",
    "response.audio_transcript.done",
    "response.text.delta",
    "response.text.done",
    "session.closed",
    "session.input_transcript.delta",
    "session.output_audio.delta",
    "session.output_transcript.delta",
    "transcription_session.created",
    "transcription_session.updated",
}


def meant_event(name: Any, names: tuple[str, ...]) -> str:
    """A sentence about a `type` that is no event of a client here; empty where nothing can be said."""
    if not isinstance(name, str) or len(name) > NAME_CHARS_MAX:
        return ""
    if "response.create" in names:  # in translation sessions, nobody could have meant any of these
        table = _ELSEWHERE | _IN_OVERVIEW if "conversation.create" in names else _ELSEWHERE
        if name in table:
            return table[name]
    is_of_servers = name in _OF_SERVERS
    close = _close(name, names, _VERY_CLOSE if is_of_servers else _CLOSE)
    question = f"Did you mean {_either(close)}?" if close else ""
    return f"'{name}' is for the server to say. {question}".rstrip() if is_of_servers else question


def meant_parameter(name: str | int, words: tuple[Word, ...], siblings: Mapping[str, str]) -> str:
    """A sentence about a parameter that is not known; empty where nothing can be said.

    `words` are what another dialect's parameter of this name is called here; `siblings` are the names of the
    parameters that may stand there, and their paths.
    """
    if words:
        meant = tuple(dict.fromkeys(word.name for word in words if word.name is not None))
        return (
            f"Did you mean {_either(meant)}?" if meant else "Another dialect has it; this one has nothing of the kind."
        )
    if not isinstance(name, str) or len(name) > NAME_CHARS_MAX:
        return ""
    close = tuple(siblings[found] for found in _close(name, tuple(siblings), _CLOSE))
    return f"Did you mean {_either(close)}?" if close else ""


def _close(name: str, names: tuple[str, ...], least: float) -> tuple[str, ...]:
    return tuple(get_close_matches(name.lower(), [known for known in names if known != name], n=1, cutoff=least))


def _either(names: tuple[str, ...]) -> str:
    quoted = [f"'{name}'" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"
