"""What there is to be checked: events, from wherever a test has them, folded into what was said, heard, called, spent.

`evidence(source)` takes a list of events (typed, or JSON objects) or of tape or trace lines `{t_ms, dir, event}`; what
has `messages` of such a form, as a `RealServer` and a tape have; or what has a `.conversation`. Invariant: events are
folded by `Conversation`, as the client does it; only what it forgets (the words before a truncation) is kept here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import msgspec

from vivavoce.core.conversation import Conversation, Entry
from vivavoce.core.spoken import heard
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import given
from vivavoce.protocol.codec import ClientCodec
from vivavoce.protocol.items import (
    FunctionCall,
    InputAudio,
    InputText,
    Message,
    OutputAudio,
    OutputText,
    Response,
    Usage,
)
from vivavoce.protocol.waterfall import Waterfall

__all__ = ["Called", "Evidence", "Spoken", "Turn", "evidence"]

BETA_ONLY = frozenset(
    {"response.audio.delta", "response.audio_transcript.delta", "response.text.delta", "conversation.item.created"}
)
"""Server events by which the wire of beta is known."""

ANSWERS = frozenset(
    {
        "response.output_audio.delta",
        "response.output_text.delta",
        "response.audio.delta",
        "response.text.delta",
    }
)
TURN_ENDS = frozenset({"input_audio_buffer.speech_stopped", "input_audio_buffer.committed", "response.create"})
TURN_BEGINS = "input_audio_buffer.speech_started"


@dataclass(frozen=True, slots=True)
class Spoken:
    """One message: all of its words, and those that the user has heard (`None` where that cannot be known)."""

    by: Literal["user", "assistant", "system"]
    text: str
    heard: str | None


@dataclass(frozen=True, slots=True)
class Called:
    """One call of a function; `arguments` is JSON text."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Turn:
    """When the user had finished, and when the first of the answer came; None where none did. Milliseconds."""

    ended_ms: float
    answered_ms: float | None


@dataclass(slots=True)
class Evidence:
    """All that the checks go by. `turns` is None where the events have no times."""

    spoken: list[Spoken] = field(default_factory=list)
    called: list[Called] = field(default_factory=list)
    usages: list[tuple[str, Usage | None]] = field(default_factory=list)
    """Of each response that is done, by its id."""
    transcribed_s: float = 0.0
    failures: list[str] = field(default_factory=list)
    turns: list[Turn] | None = None
    waterfalls: list[Waterfall] = field(default_factory=list)
    """Of the responses of which the server told where their time went."""


@dataclass(frozen=True, slots=True)
class _Told:
    """One event of a source, with what the source says about it."""

    event: Any
    type: str
    t_ms: float | None = None
    dir: str | None = None
    connection: int = 0


def evidence(source: Any) -> Evidence:
    """What a source tells. Raises `TypeError` where it is none."""
    if isinstance(messages := getattr(source, "messages", None), Sequence):
        source = messages
    if isinstance(source, Conversation):
        return _of_conversation(source)
    if not isinstance(source, Iterable) or isinstance(source, str | bytes | Mapping):
        conversation = getattr(source, "conversation", None)
        if isinstance(conversation, Conversation):
            return _of_conversation(conversation)
        raise TypeError(
            "expected a list of events, the lines of a tape, a RealServer, or something with a conversation, not "
            f"{type(source).__name__}"
        )
    return _of_events(_joined([_told(entry) for entry in source if not _is_aside(entry)]))


def _is_aside(entry: Any) -> bool:
    """Whether it is the header of a tape, or a note on one."""
    return isinstance(entry, Mapping) and not entry.keys() & {"type", "event"} and bool(entry.keys() & {"tape", "note"})


def _told(entry: Any) -> _Told:
    """One entry of a source, whatever its form."""
    if isinstance(entry, Mapping) and isinstance(entry.get("event"), Mapping):
        return _Told(entry["event"], str(entry["event"].get("type", "")), entry.get("t_ms"), entry.get("dir"))
    if isinstance(entry, Mapping):
        return _Told(entry, str(entry.get("type", "")))
    if isinstance(event := getattr(entry, "event", None), Mapping):
        type = str(event.get("type", ""))
        return _Told(event, type, getattr(entry, "t_ms", None), entry.dir, getattr(entry, "connection", 0))
    if isinstance(getattr(entry, "type", None), str):
        return _Told(entry, entry.type)
    raise TypeError(f"expected an event, a JSON object, or a line of a tape or trace, not {entry!r:.100}")


# --- events -----------------------------------------------------------------------------------------------------------


def _joined(told: list[_Told]) -> list[_Told]:
    """Connections that one session went on over, as one; what was sent again over the next one counts once."""
    first_of: dict[str, int] = {}
    """The connection on which a session was given its token."""
    goes_on: dict[int, int] = {}
    for one in told:
        if one.type == "vivavoce.resume":
            goes_on[one.connection] = first_of.setdefault(str(_of(one.event, "token")), one.connection)
    said: dict[tuple[int, str | None, str], int] = {}
    joined = []
    for one in told:
        stream = goes_on.get(one.connection, one.connection)
        event_id = _of(one.event, "event_id")
        if not event_id or said.setdefault((stream, one.dir, event_id), one.connection) == one.connection:
            joined.append(replace(one, connection=stream))
    return joined


def _of_events(told: list[_Told]) -> Evidence:
    found = Evidence()
    for connection in sorted({one.connection for one in told}):
        mine = [one for one in told if one.connection == connection]
        codec = ClientCodec("beta" if any(one.type in BETA_ONLY for one in mine) else "ga")
        _fold([_typed(one, codec) for one in mine if not _is_clients(one)], found)
    if told and all(one.t_ms is not None for one in told):
        found.turns = [
            turn
            for connection in sorted({one.connection for one in told})
            for turn in _turns([one for one in told if one.connection == connection])
        ]
    return found


def _is_clients(one: _Told) -> bool:
    return one.dir == "client" or isinstance(one.event, ev.ClientEvent)


def _typed(one: _Told, codec: ClientCodec) -> Any:
    return codec.decode(msgspec.json.encode(one.event)) if isinstance(one.event, Mapping) else one.event


def _fold(events: Iterable[Any], found: Evidence) -> None:
    """One connection's events into the evidence."""
    conversation = Conversation()
    cut_short: dict[str, Spoken] = {}
    for event in events:
        match event:
            case ev.ConversationItemTruncated():
                if (entry := conversation.entry(event.item_id)) is not None and not entry.truncated:
                    words, _ = _words(entry)
                    played = entry.format.bytes_of(event.audio_end_ms)
                    part = heard([(words, entry.audio_bytes)], played)
                    cut_short[event.item_id] = Spoken("assistant", words, part.strip())
            case ev.ResponseDone():
                _end(event.response, found)
            case ev.ConversationItemInputAudioTranscriptionCompleted():
                if isinstance(event.usage, ev.DurationUsage):
                    found.transcribed_s += event.usage.seconds
            case ev.ConversationItemInputAudioTranscriptionFailed():
                why = given(event.error.message, None) or given(event.error.code, None)
                found.failures.append(f"no transcript of {event.item_id}: {why}")
            case ev.ErrorEvent():
                found.failures.append(f"error {event.error.code or event.error.type}: {event.error.message}")
            case _:
                pass
        conversation.apply(event)
    _collect(conversation, found, cut_short)


def _end(response: Response, found: Evidence) -> None:
    """A response that is done."""
    found.usages.append((response.id, given(response.usage, None)))
    found.failures.extend(_failure_of(response))
    if response.waterfall is not None:
        found.waterfalls.append(response.waterfall)


def _failure_of(response: Response) -> Iterable[str]:
    if response.status == "failed":
        error = given(details.error, None) if (details := given(response.status_details, None)) else None
        yield f"{response.id} has failed: {msgspec.json.encode(error).decode() if error else 'no reason was given'}"


def _turns(told: list[_Told]) -> Iterable[Turn]:
    """The user's turns on one connection. One that the user took up again before an answer came goes on."""
    ended: float | None = None
    begun: set[str] = set()
    """Responses that had begun before the turn ended, and so are no answers to it."""
    current: set[str] = set()
    for one in told:
        assert one.t_ms is not None
        if one.type == TURN_BEGINS:
            ended = None
        elif one.type in TURN_ENDS and ended is None:
            ended, begun = one.t_ms, begun | current
        elif one.type == "response.created":
            current.add(str(_of(_of(one.event, "response"), "id")))
        elif one.type in ANSWERS and ended is not None and _of(one.event, "response_id") not in begun:
            yield Turn(ended, one.t_ms)
            ended = None
    if ended is not None:
        yield Turn(ended, None)


def _of(thing: Any, name: str) -> Any:
    return thing.get(name) if isinstance(thing, Mapping) else getattr(thing, name, None)


# --- a conversation ---------------------------------------------------------------------------------------------------


def _of_conversation(conversation: Conversation) -> Evidence:
    found = Evidence()
    for response in conversation.responses.values():
        if response.status != "in_progress":
            _end(response, found)
    _collect(conversation, found, {})
    return found


def _collect(conversation: Conversation, found: Evidence, cut_short: Mapping[str, Spoken]) -> None:
    for item_id in conversation.item_ids:
        entry = conversation.entry(item_id)
        item = entry.item if entry is not None else None
        if entry is None or item is None:
            continue
        if isinstance(item, FunctionCall):
            found.called.append(Called(item.name, item.arguments))
        elif isinstance(item, Message):
            words, is_whole = _words(entry)
            spoken = cut_short.get(item_id) or Spoken(item.role, words, words if is_whole else None)
            found.spoken.append(spoken)


def _words(entry: Entry) -> tuple[str, bool]:
    """The words of a message, and whether all of them are known."""
    item = entry.item
    assert isinstance(item, Message)
    texts = [
        part.text if isinstance(part, InputText | OutputText) else given(part.transcript, None) or ""
        for part in item.content
        if isinstance(part, InputText | OutputText | InputAudio | OutputAudio)
    ]
    return " ".join(text for text in texts if text), not entry.truncated
