"""The conversations that code written for the API holds, one generator each, whatever client carries them.

A conversation yields what it says as `Say`, and None where it waits; what it is sent is the next event, as JSON. Who
holds it (`openai_client.py`, `npm.py`) says and hears through a public client. An error that nobody asked for ends it.

Standard library only: clients of other versions run in environments of their own, where vivavoce is not installed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from heard import CALL_REQUEST, TOOL, spoken_turn, user_text

Event = dict[str, Any]
SERVER_VAD = {"type": "server_vad", "silence_duration_ms": 500, "prefix_padding_ms": 300}
_PCM = {"type": "audio/pcm", "rate": 24_000}
_WHISPER = {"model": "whisper-1"}
PLAYED_MS = 60
"""What the user has heard of an answer when speaking up; the server sends 100 ms at once."""
MODEL = "gpt-realtime"
SLOW_MODEL = "gpt-4o-mini-realtime-preview"
"""Its voice begins to speak and takes an hour for the next piece, see `conftest.py`. Typed clients know the name."""
TRANSCRIPT = "conversation.item.input_audio_transcription.completed"


@dataclass(frozen=True)
class Say:
    """A client event."""

    type: str
    fields: dict[str, Any]


Conversation = Generator[Say | None, Event, None]
Step = Generator[Say | None, Event, Event]


def say(type: str, **fields: Any) -> Say:
    """A client event by its type and its other fields."""
    return Say(type, fields)


@dataclass(frozen=True)
class Dialect:
    """How one of the API's dialects configures a session: by modality, turn detection and tools."""

    name: str
    session: Callable[[str, dict[str, Any] | None, bool], Event]
    audio_delta: str
    transcription_update: Say
    """What configures a session that only transcribes."""


def _ga_session(modality: str, turn_detection: dict[str, Any] | None, tools: bool) -> Event:
    heard = {"format": _PCM, "transcription": _WHISPER, "turn_detection": turn_detection}
    session = {
        "type": "realtime",
        "output_modalities": [modality],
        "audio": {"input": heard, "output": {"format": _PCM, "voice": "marin"}},
    }
    return session | ({"tools": [TOOL], "tool_choice": "auto"} if tools else {})


def _beta_session(modality: str, turn_detection: dict[str, Any] | None, tools: bool) -> Event:
    session = {
        "modalities": ["text"] if modality == "text" else ["text", "audio"],
        "voice": "alloy",
        "input_audio_format": "pcm16",
        "output_audio_format": "pcm16",
        "input_audio_transcription": _WHISPER,
        "turn_detection": turn_detection,
        "temperature": 0.8,
    }
    return session | ({"tools": [TOOL], "tool_choice": "auto"} if tools else {})


GA = Dialect(
    "ga",
    _ga_session,
    "response.output_audio.delta",
    say(
        "session.update",
        session={
            "type": "transcription",
            "audio": {"input": {"format": _PCM, "transcription": _WHISPER, "turn_detection": SERVER_VAD}},
        },
    ),
)
BETA = Dialect(
    "beta",
    _beta_session,
    "response.audio.delta",
    say(
        "transcription_session.update",
        session={
            "input_audio_format": "pcm16",
            "input_audio_transcription": _WHISPER,
            "turn_detection": SERVER_VAD,
        },
    ),
)


def hear(*types: str) -> Step:
    """The next event of one of these types."""
    while True:
        event: Event = yield None
        if event["type"] in types:
            return event
        if event["type"] == "error":
            raise RuntimeError(f"the server answered with an error: {event['error']}")


def hear_all(*types: str) -> Conversation:
    """Wait until each of these has come, in any order."""
    left = set(types)
    while left:
        event = yield from hear(*left)
        left.discard(event["type"])


def written(dialect: Dialect) -> Conversation:
    """A written question, a written answer."""
    yield say("session.update", session=dialect.session("text", SERVER_VAD, False))
    yield from _ask("Good morning, how are you?")
    yield from hear("response.done")


def spoken(dialect: Dialect) -> Conversation:
    """A turn that the server finds in the audio, its transcript, and a spoken answer."""
    yield say("session.update", session=dialect.session("audio", SERVER_VAD, False))
    yield from _speak()
    yield from hear_all("response.done", TRANSCRIPT)


def manual(dialect: Dialect) -> Conversation:
    """Push to talk: the client ends the turn and asks for the answer; what it recorded before, it throws away."""
    yield say("session.update", session=dialect.session("audio", None, False))
    yield from _speak()
    yield say("input_audio_buffer.clear")
    yield from hear("input_audio_buffer.cleared")
    yield from _speak()
    yield say("input_audio_buffer.commit")
    yield say("response.create")
    yield from hear_all("response.done", TRANSCRIPT)


def calling(dialect: Dialect) -> Conversation:
    """A question that needs a function, its output, and the answer."""
    yield say("session.update", session=dialect.session("audio", SERVER_VAD, True))
    yield from _ask(CALL_REQUEST)
    done = yield from hear("response.done")
    (call,) = done["response"]["output"]
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "18 degrees, dry"}
    yield say("conversation.item.create", item=output)
    yield say("response.create")
    yield from hear("response.done")


def cancelled(dialect: Dialect) -> Conversation:
    """An answer that the client stops while it is spoken; the session goes on in writing."""
    yield say("session.update", session=dialect.session("audio", SERVER_VAD, False))
    yield from _ask("Tell me everything.")
    yield from hear(dialect.audio_delta)
    yield say("response.cancel")
    yield from hear("response.done")
    yield from written(dialect)


def barged_in(dialect: Dialect) -> Conversation:
    """The user speaks while the answer is spoken; the client says how much of it was heard."""
    yield say("session.update", session=dialect.session("audio", SERVER_VAD, False))
    yield from _ask("Tell me everything.")
    delta = yield from hear(dialect.audio_delta)
    yield from _speak()
    yield from hear("input_audio_buffer.speech_started")
    played = {"item_id": delta["item_id"], "content_index": delta["content_index"], "audio_end_ms": PLAYED_MS}
    yield say("conversation.item.truncate", **played)
    yield from hear_all("response.done", "conversation.item.truncated", TRANSCRIPT, dialect.audio_delta)


def mistaken(dialect: Dialect) -> Conversation:
    """Events that cannot be obeyed are answered, each by its id, and change nothing."""
    yield say("conversation.item.delete", item_id="item_nowhere", event_id="evt_delete")
    yield from hear("error")
    yield say("input_audio_buffer.commit", event_id="evt_commit")
    yield from hear("error")
    wrong = dialect.session("text", {"type": "server_vad", "threshold": 7}, False)
    yield say("session.update", session=wrong, event_id="evt_update")
    yield from hear("error")
    yield from written(dialect)


def transcribed(dialect: Dialect) -> Conversation:
    """A session that answers nothing: each turn is written down."""
    yield dialect.transcription_update
    for _ in range(2):
        yield from _speak()
        yield from hear(TRANSCRIPT)


def _ask(text: str) -> Conversation:
    yield say("conversation.item.create", item=user_text(text))
    yield say("response.create")


def _speak() -> Conversation:
    for chunk in spoken_turn():
        yield say("input_audio_buffer.append", audio=chunk)


CONVERSATIONS = {
    talk.__name__: talk for talk in (written, spoken, manual, calling, cancelled, barged_in, mistaken, transcribed)
}
TRANSCRIBING = frozenset({"transcribed"})
"""Those of a session that only transcribes: it is opened by `intent=transcription`, in place of a model."""
ON_SLOW_MODEL = frozenset({"cancelled", "barged_in"})


def model_for(conversation: str) -> str:
    """The model to connect to."""
    return SLOW_MODEL if conversation in ON_SLOW_MODEL else MODEL
